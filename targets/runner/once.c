#include "once.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fault.h"
#include "session.h"

enum { SHOWN = 64 };

/* One value as text that gives it back. */
static void print(const struct tensor *tensor, const unsigned char *place) {
  int64_t whole = 0;
  float value;
  double wide;
  switch (tensor->element) {
    case FLOAT32:
      memcpy(&value, place, sizeof value);
      printf(" %.9g", (double)value);
      break;
    case FLOAT64:
      memcpy(&wide, place, sizeof wide);
      printf(" %.17g", wide);
      break;
    default: { /* little-endian, as all targets are; sign by the type */
      size_t width = element_bytes(tensor->element);
      bool sign = tensor->element == INT8 || tensor->element == INT16 || tensor->element == INT32;
      if (sign && place[width - 1] & 0x80) whole = -1;
      memcpy(&whole, place, width);
      printf(" %" PRId64, whole);
    }
  }
}

static void show(const struct tensor *tensor, const void *memory) {
  size_t width = element_bytes(tensor->element), count = tensor->bytes / width;
  printf("%s %s", tensor->name, element_name(tensor->element));
  for (int i = 0; i < tensor->rank; i++) printf("%c%" PRId64, i == 0 ? ' ' : 'x', tensor->shape[i]);
  putchar(':');
  for (size_t i = 0; i < count && i < SHOWN; i++) print(tensor, (const unsigned char *)memory + i * width);
  puts(count > SHOWN ? " ..." : "");
}

bool once(const char *inputs, const char *outputs) {
  struct session session = {.runtime = RUNTIMES[0]};
  bool well = session.runtime->open(&session, "the linked model", 1, 1, NULL);
  if (well) session_fill(&session, 1, 0);
  if (well && inputs != NULL) well = session_read_inputs(&session, inputs);
  well = well && session_run(&session, 0);
  for (size_t i = 0; well && i < session.outputs; i++) show(&session.output[i], session.result[i]);
  if (well && outputs != NULL) well = session_write_outputs(&session, outputs, false);
  session.runtime->close(&session);
  return (well && fflush(stdout) == 0) || fault(STATUS_OUTPUT, "cannot write the outputs");
}
