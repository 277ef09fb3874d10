/* One opened model, whatever runs it, and the runtimes that can open one. */
#ifndef EDGEFIT_SESSION_H
#define EDGEFIT_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "job.h"

enum { SESSION_TENSORS = 128, SESSION_RANK = 8 };

enum element { FLOAT32, FLOAT16, BFLOAT16, FLOAT64, INT8, UINT8, INT16, UINT16, INT32, UINT32, INT64, UINT64, BOOL, OTHER };

struct tensor {
  char name[96];
  enum element element;
  int rank;
  int64_t shape[SESSION_RANK]; /* dynamic dimensions are 1 */
  size_t bytes;
};

struct session {
  const struct runtime *runtime;
  size_t inputs, outputs;
  struct tensor input[SESSION_TENSORS], output[SESSION_TENSORS];
  void *pool[JOB_POOL][SESSION_TENSORS];  /* input sets, filled by the caller after opening */
  const void *result[SESSION_TENSORS];    /* outputs of the last run */
  bool telling;                           /* set before opening: the runtime shall tell where its operators run */
  void *own;                              /* the runtime's part */
};

struct runtime {
  const char *name;
  const char *holds; /* SHA-256 of the model that is linked into this program; NULL: models are files */
  /* Loads the library and checks that it is the right one; false after a fault. `found` is its version. */
  bool (*load)(const struct job_library *library, const char **found);
  /* Opens a model with `sets` sets of input memory; false after a fault. `profile` begins the name of the
   * file in which the runtime leaves what each of its operators took, or is NULL. */
  bool (*open)(struct session *session, const char *path, int threads, int sets, const char *profile);
  /* The parts of an inference: inputs handed in, run, outputs handed out. */
  bool (*put)(struct session *session, int set);
  bool (*infer)(struct session *session);
  bool (*take)(struct session *session);
  /* Of a session that is `telling`, filled and not run yet: runs it and writes `,"accelerator":NAME,"nodes":[[INDEX,KIND],
   * ...]`, the operators that do not run on it. False after a fault. NULL: this runtime has one place for all. */
  bool (*placed)(struct session *session, FILE *out);
  void (*close)(struct session *session);
};

extern const struct runtime ONNXRUNTIME, LITERT;

/* One inference as an application sees it; false after a fault. */
bool session_run(struct session *session, int set);

/* What this program can run, up to a NULL. */
extern const struct runtime *const RUNTIMES[];

/* Bytes of one element; 0 for OTHER. */
size_t element_bytes(enum element element);
const char *element_name(enum element element);

/* Completes `tensor->bytes` from shape and element; false after a fault. */
bool tensor_sized(struct tensor *tensor, const char *path);

/* Fills every input set: normal values, or 0 and 1 for integers, which are valid wherever an index is meant. */
void session_fill(struct session *session, int sets, uint64_t seed);

/* Reads input set 0 from a file of raw tensors, or writes the last outputs to one, behind what it holds if there are
 * `more` than these; false after a fault. */
bool session_read_inputs(struct session *session, const char *path);
bool session_write_outputs(const struct session *session, const char *path, bool more);

#endif
