/* Opening a runtime's shared library: there, the right file, the right version, every function present. */
#ifndef EDGEFIT_LIBRARY_H
#define EDGEFIT_LIBRARY_H

#include <stdbool.h>
#include <stddef.h>

#include "job.h"

struct symbol {
  const char *name;
  void *place; /* of a function pointer */
};

/* dlopen after the hash was checked; NULL after a fault. */
void *library_open(const struct job_library *library);

/* Resolves `count` symbols into their places; false after a fault. */
bool library_resolve(void *handle, const struct job_library *library, const struct symbol *symbols, size_t count);

/* The same for functions that one can go without: false where one is missing, and no fault. */
bool library_offers(void *handle, const struct symbol *symbols, size_t count);

#endif
