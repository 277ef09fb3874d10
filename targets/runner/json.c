#include "json.h"

#include <inttypes.h>

void json_key(FILE *out, bool *first, const char *key) {
  if (!*first) fputc(',', out);
  *first = false;
  json_text(out, key);
  fputc(':', out);
}

/* Length of the UTF-8 sequence that starts at `c`; 0 when it is none. */
static int sequence(const unsigned char *c) {
  int more = c[0] < 0x80 ? 0 : c[0] >= 0xc2 && c[0] < 0xe0 ? 1 : (c[0] & 0xf0) == 0xe0 ? 2 : (c[0] & 0xf8) == 0xf0 ? 3 : -1;
  if (more < 0) return 0;
  for (int i = 1; i <= more; i++) {
    if ((c[i] & 0xc0) != 0x80) return 0;
  }
  return more + 1;
}

void json_text(FILE *out, const char *text) {
  if (text == NULL) {
    fputs("null", out);
    return;
  }
  fputc('"', out);
  for (const unsigned char *c = (const unsigned char *)text; *c;) {
    int length = sequence(c);
    if (length == 0) {
      fputc('?', out);
      c++;
    } else if (*c == '"' || *c == '\\') {
      fprintf(out, "\\%c", *c++);
    } else if (*c < 0x20) {
      fprintf(out, "\\u%04x", *c++);
    } else {
      fwrite(c, 1, (size_t)length, out);
      c += length;
    }
  }
  fputc('"', out);
}

void json_text_member(FILE *out, bool *first, const char *key, const char *text) {
  json_key(out, first, key);
  json_text(out, text);
}

void json_number_member(FILE *out, bool *first, const char *key, double value) {
  json_key(out, first, key);
  if (value != value) {
    fputs("null", out);
  } else {
    fprintf(out, "%.9g", value);
  }
}

void json_count_member(FILE *out, bool *first, const char *key, int64_t value) {
  json_key(out, first, key);
  fprintf(out, "%" PRId64, value);
}

void json_counts_member(FILE *out, bool *first, const char *key, const int64_t *values, size_t count) {
  json_key(out, first, key);
  fputc('[', out);
  for (size_t i = 0; i < count; i++) fprintf(out, i ? ",%" PRId64 : "%" PRId64, values[i]);
  fputc(']', out);
}
