#include "fault.h"

#include <stdarg.h>
#include <stdio.h>

static char text[1024];
static enum status kind = STATUS_DONE;

bool fault(enum status status, const char *format, ...) {
  if (kind != STATUS_DONE) return false;
  kind = status;
  va_list rest;
  va_start(rest, format);
  vsnprintf(text, sizeof text, format, rest);
  va_end(rest);
  for (char *c = text; *c; c++) {
    if (*c == '\n' || *c == '\r') *c = ' ';
  }
  return false;
}

const char *fault_text(void) { return text; }

enum status fault_status(void) { return kind; }
