#include "session.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fault.h"

static const struct {
  const char *name;
  size_t bytes;
} ELEMENTS[] = {
    [FLOAT32] = {"float32", 4}, [FLOAT16] = {"float16", 2}, [BFLOAT16] = {"bfloat16", 2}, [FLOAT64] = {"float64", 8},
    [INT8] = {"int8", 1},       [UINT8] = {"uint8", 1},     [INT16] = {"int16", 2},       [UINT16] = {"uint16", 2},
    [INT32] = {"int32", 4},     [UINT32] = {"uint32", 4},   [INT64] = {"int64", 8},       [UINT64] = {"uint64", 8},
    [BOOL] = {"bool", 1},       [OTHER] = {"other", 0},
};

bool session_run(struct session *session, int set) {
  const struct runtime *runtime = session->runtime;
  return runtime->put(session, set) && runtime->infer(session) && runtime->take(session);
}

size_t element_bytes(enum element element) { return ELEMENTS[element].bytes; }

const char *element_name(enum element element) { return ELEMENTS[element].name; }

bool tensor_sized(struct tensor *tensor, const char *path) {
  tensor->bytes = element_bytes(tensor->element);
  if (tensor->bytes == 0) return fault(STATUS_MODEL, "%s: tensor '%s' has no plain type", path, tensor->name);
  for (int i = 0; i < tensor->rank; i++) tensor->bytes *= (size_t)tensor->shape[i];
  return true;
}

/* splitmix64 (Steele, Lea, Flood 2014). */
static uint64_t next(uint64_t *state) {
  uint64_t z = *state += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

/* Nearly normal: twelve uniform values less six have mean 0 and variance 1. */
static float normal(uint64_t *state) {
  double sum = -6;
  for (int i = 0; i < 12; i++) sum += (double)(next(state) >> 11) / 9007199254740992.0;
  return (float)sum;
}

/* The upper half of a float is a bfloat16. */
static uint16_t bfloat16(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return (uint16_t)(bits >> 16);
}

/* binary16 of a value in (-6, 6), truncated; what is too small for a normal number becomes 0. */
static uint16_t float16(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  int exponent = (int)(bits >> 23 & 0xff) - 127 + 15;
  uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
  return exponent <= 0 ? sign : (uint16_t)(sign | exponent << 10 | (bits >> 13 & 0x3ff));
}

static void fill(void *memory, const struct tensor *tensor, uint64_t *state) {
  size_t width = element_bytes(tensor->element);
  memset(memory, 0, tensor->bytes);
  for (size_t i = 0; i < tensor->bytes / width; i++) {
    unsigned char *place = (unsigned char *)memory + i * width;
    float value = tensor->element <= FLOAT64 ? normal(state) : 0;
    double wide = value;
    uint16_t narrow = tensor->element == FLOAT16 ? float16(value) : bfloat16(value);
    switch (tensor->element) {
      case FLOAT32: memcpy(place, &value, 4); break;
      case FLOAT64: memcpy(place, &wide, 8); break;
      case FLOAT16:
      case BFLOAT16: memcpy(place, &narrow, 2); break;
      default: /* little-endian, as all targets are: the first byte is the value's */
        *place = (unsigned char)(next(state) >> 63);
    }
  }
}

void session_fill(struct session *session, int sets, uint64_t seed) {
  uint64_t state = seed;
  for (int set = 0; set < sets; set++) {
    for (size_t i = 0; i < session->inputs; i++) fill(session->pool[set][i], &session->input[i], &state);
  }
}

bool session_read_inputs(struct session *session, const char *path) {
  FILE *file = fopen(path, "rb");
  if (file == NULL) return fault(STATUS_JOB, "cannot read inputs %s: %s", path, strerror(errno));
  bool whole = true;
  for (size_t i = 0; i < session->inputs && whole; i++) {
    whole = fread(session->pool[0][i], 1, session->input[i].bytes, file) == session->input[i].bytes;
  }
  whole = whole && fgetc(file) == EOF;
  fclose(file);
  return whole || fault(STATUS_JOB, "%s does not hold one set of the model's inputs", path);
}

bool session_write_outputs(const struct session *session, const char *path, bool more) {
  FILE *file = fopen(path, more ? "ab" : "wb");
  if (file == NULL) return fault(STATUS_OUTPUT, "cannot write outputs %s: %s", path, strerror(errno));
  bool whole = true;
  for (size_t i = 0; i < session->outputs && whole; i++) {
    whole = fwrite(session->result[i], 1, session->output[i].bytes, file) == session->output[i].bytes;
  }
  whole = fclose(file) == 0 && whole;
  return whole || fault(STATUS_OUTPUT, "cannot write outputs %s: %s", path, strerror(errno));
}
