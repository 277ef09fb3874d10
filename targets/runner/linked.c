/* The runtime of a program that carries its model: C made by `edgefit embed --form network --name edgefit_model`. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "edgefit_model.h"
#include "fault.h"
#include "session.h"

static bool load(const struct job_library *library, const char **version) {
  if (library->version != NULL || library->sha256 != NULL) {
    return fault(STATUS_LIBRARY, "the linked model needs no library: library linked - - -");
  }
  *version = NULL;
  return true;
}

static bool describe(const struct edgefit_port *port, struct tensor *tensor, const char *path) {
  snprintf(tensor->name, sizeof tensor->name, "%s", port->name);
  tensor->element = FLOAT32;
  while (tensor->element != OTHER && strcmp(element_name(tensor->element), port->type) != 0) tensor->element++;
  tensor->rank = port->rank;
  for (int i = 0; i < port->rank; i++) tensor->shape[i] = port->shape[i];
  return tensor_sized(tensor, path);
}

static void *memory_for(const struct tensor *tensor) {
  return aligned_alloc(64, (tensor->bytes + 63) / 64 * 64); /* where none is left, what is NULL is a fault */
}

static bool open(struct session *session, const char *path, int threads, int sets, const char *profile) {
  _Static_assert(EDGEFIT_MODEL_INPUTS <= SESSION_TENSORS && EDGEFIT_MODEL_OUTPUTS <= SESSION_TENSORS, "tensors");
  if (profile != NULL) return fault(STATUS_JOB, "a linked model is not timed operator by operator");
  if (threads != 1) return fault(STATUS_JOB, "a linked model runs on one thread");
  session->inputs = EDGEFIT_MODEL_INPUTS;
  session->outputs = EDGEFIT_MODEL_OUTPUTS;
  bool enough = true;
  for (size_t i = 0; i < session->inputs; i++) {
    if (!describe(&edgefit_model_input[i], &session->input[i], path)) return false;
    for (int set = 0; set < sets; set++) {
      enough = (session->pool[set][i] = memory_for(&session->input[i])) != NULL && enough;
    }
  }
  for (size_t i = 0; i < session->outputs; i++) {
    if (!describe(&edgefit_model_output[i], &session->output[i], path)) return false;
    enough = (session->result[i] = memory_for(&session->output[i])) != NULL && enough;
  }
  return enough || fault(STATUS_MODEL, "%s: out of memory", path);
}

/* Inputs and outputs are read and written where they are. */
static bool put(struct session *session, int set) {
  session->own = session->pool[set];
  return true;
}

static bool infer(struct session *session) {
  edgefit_model_run((const void *const *)session->own, (void *const *)session->result);
  return true;
}

static bool take(struct session *session) {
  (void)session;
  return true;
}

static void close(struct session *session) {
  for (size_t i = 0; i < SESSION_TENSORS; i++) {
    for (int set = 0; set < JOB_POOL; set++) free(session->pool[set][i]);
    free((void *)session->result[i]);
  }
}

static const struct runtime LINKED = {
    .name = "linked", .holds = EDGEFIT_MODEL_SHA256, .load = load, .open = open,
    .put = put, .infer = infer, .take = take, .close = close};

const struct runtime *const RUNTIMES[] = {&LINKED, NULL};
