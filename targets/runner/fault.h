/* Why the runner cannot go on: one line for the user and the exit status it ends with. */
#ifndef EDGEFIT_FAULT_H
#define EDGEFIT_FAULT_H

#include <stdbool.h>

enum status {
  STATUS_DONE = 0,
  STATUS_JOB = 2,       /* the command line or the job file is unusable */
  STATUS_LIBRARY = 3,   /* the runtime's library is missing, or is not the one that was asked for */
  STATUS_MODEL = 4,     /* the model is missing, changed, or the runtime refuses it */
  STATUS_OUTPUT = 5,    /* results cannot be written */
  STATUS_CONDITION = 6, /* the device is not in a state to be measured: too hot, battery too low */
};

/* Remembers the first fault and returns false, so that callers can `return fault(...)`. */
bool fault(enum status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The remembered line ("" when there was no fault) and its exit status. */
const char *fault_text(void);
enum status fault_status(void);

#endif
