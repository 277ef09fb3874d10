/* ONNX Runtime through its C API: a table of function pointers whose order never changes.
 *
 * Version 5 of the table (ONNX Runtime 1.5) holds all that is used here, and every later library still gives it.
 * The numbers below are positions in that table; the self-test runs a model through all of them. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fault.h"
#include "library.h"
#include "session.h"

enum { API_VERSION = 5 };
enum { LOG_ERROR = 3, ORT_SEQUENTIAL = 0, ORT_ENABLE_ALL = 99, ORT_DEVICE_ALLOCATOR = 0, ORT_MEM_DEFAULT = 0 };

struct api_base {
  const void *const *(*table)(uint32_t version);
  const char *(*version)(void);
};

typedef void *status; /* NULL: all went well */

static struct {
  const char *(*message)(status);
  status (*create_env)(int severity, const char *name, void **env);
  status (*create_session)(void *env, const char *path, void *options, void **session);
  status (*run)(void *session, void *options, const char *const *names, void *const *inputs, size_t count,
                const char *const *output_names, size_t output_count, void **outputs);
  status (*create_options)(void **options);
  status (*set_mode)(void *options, int mode);
  status (*set_profile)(void *options, const char *prefix);
  status (*set_severity)(void *options, int severity);
  status (*set_optimization)(void *options, int level);
  status (*set_intra_threads)(void *options, int threads);
  status (*set_inter_threads)(void *options, int threads);
  status (*input_count)(void *session, size_t *count);
  status (*output_count)(void *session, size_t *count);
  status (*input_type)(void *session, size_t index, void **info);
  status (*output_type)(void *session, size_t index, void **info);
  status (*input_name)(void *session, size_t index, void *allocator, char **name);
  status (*output_name)(void *session, size_t index, void *allocator, char **name);
  status (*create_tensor)(void *memory, void *data, size_t bytes, const int64_t *shape, size_t rank, int element,
                          void **value);
  status (*data)(void *value, void **data);
  status (*tensor_info)(void *info, void **tensor);
  status (*element)(void *tensor, int *element);
  status (*rank)(void *tensor, size_t *rank);
  status (*shape)(void *tensor, int64_t *shape, size_t rank);
  status (*count)(void *tensor, size_t *count);
  status (*shape_of_value)(void *value, void **tensor);
  status (*create_memory)(int allocator, int kind, void **memory);
  status (*free_memory)(void *allocator, void *memory);
  status (*allocator)(void **allocator);
  void (*release_status)(status);
  void (*release_memory)(void *);
  void (*release_session)(void *);
  void (*release_value)(void *);
  void (*release_type)(void *);
  void (*release_tensor)(void *);
  void (*release_options)(void *);
  status (*set_config)(void *options, const char *key, const char *value);
} ort;

static const struct {
  int at;
  void *place;
} TABLE[] = {
    {2, &ort.message},          {3, &ort.create_env},        {7, &ort.create_session},    {9, &ort.run},
    {10, &ort.create_options},  {13, &ort.set_mode},         {14, &ort.set_profile},      {22, &ort.set_severity},
    {23, &ort.set_optimization},
    {24, &ort.set_intra_threads}, {25, &ort.set_inter_threads}, {30, &ort.input_count},   {31, &ort.output_count},
    {33, &ort.input_type},      {34, &ort.output_type},      {36, &ort.input_name},       {37, &ort.output_name},
    {49, &ort.create_tensor},   {51, &ort.data},             {55, &ort.tensor_info},      {60, &ort.element},
    {61, &ort.rank},            {62, &ort.shape},            {64, &ort.count},            {65, &ort.shape_of_value},
    {69, &ort.create_memory},   {76, &ort.free_memory},      {78, &ort.allocator},        {93, &ort.release_status},
    {94, &ort.release_memory},  {95, &ort.release_session},  {96, &ort.release_value},    {98, &ort.release_type},
    {99, &ort.release_tensor},  {100, &ort.release_options}, {130, &ort.set_config},
};

/* ONNXTensorElementDataType -> element */
static const enum element ELEMENT[] = {OTHER, FLOAT32, UINT8, INT8,    UINT16, INT16,  INT32, INT64,   OTHER,
                                       BOOL,  FLOAT16, FLOAT64, UINT32, UINT64, OTHER,  OTHER, BFLOAT16};

struct own {
  void *session, *memory;
  void *value[JOB_POOL][SESSION_TENSORS];
  void *given[SESSION_TENSORS];
  char *input_name[SESSION_TENSORS], *output_name[SESSION_TENSORS];
  int element[SESSION_TENSORS]; /* of the inputs, as ONNX Runtime numbers it */
  const char *path;
  int set; /* of the inputs that were handed in last */
};

static void *env;

/* Turns a status into a fault; true when there is none. */
static bool done(status found, const char *path) {
  if (found == NULL) return true;
  fault(STATUS_MODEL, "%s: %s", path, ort.message(found));
  ort.release_status(found);
  return false;
}

static bool load(const struct job_library *library, const char **version) {
  /* Its own builds send events home and keep them on the disk, from a thread that wakes while others measure. */
  setenv("ORT_DISABLE_TELEMETRY", "1", 0);
  void *handle = library_open(library);
  if (handle == NULL) return false;
  const struct api_base *(*base_of)(void) = NULL;
  const struct symbol entry = {"OrtGetApiBase", &base_of};
  if (!library_resolve(handle, library, &entry, 1)) return false;
  const struct api_base *base = base_of();
  *version = base->version();
  if (library->version != NULL && strcmp(*version, library->version) != 0) {
    return fault(STATUS_LIBRARY, "%s is onnxruntime %s, not %s", library->path, *version, library->version);
  }
  const void *const *table = base->table(API_VERSION);
  if (table == NULL) return fault(STATUS_LIBRARY, "%s does not offer C API version %d", library->path, API_VERSION);
  for (size_t i = 0; i < sizeof TABLE / sizeof *TABLE; i++) memcpy(TABLE[i].place, &table[TABLE[i].at], sizeof(void *));
  return done(ort.create_env(LOG_ERROR, "edgefit", &env), library->path);
}

/* The session options of all measurements: every graph optimisation, no spinning. */
static bool options_of(int threads, const char *path, const char *profile, void **options) {
  /* A spinning pool burns the other cores and, where cores are few, the one that works. */
  return done(ort.create_options(options), path) && done(ort.set_mode(*options, ORT_SEQUENTIAL), path) &&
         done(ort.set_severity(*options, LOG_ERROR), path) &&
         done(ort.set_optimization(*options, ORT_ENABLE_ALL), path) &&
         done(ort.set_intra_threads(*options, threads), path) && done(ort.set_inter_threads(*options, 1), path) &&
         done(ort.set_config(*options, "session.intra_op.allow_spinning", "0"), path) &&
         done(ort.set_config(*options, "session.inter_op.allow_spinning", "0"), path) &&
         (profile == NULL || done(ort.set_profile(*options, profile), path));
}

/* Name, type and shape of one input or output. */
static bool describe(struct own *own, size_t index, bool input, void *allocator, struct tensor *tensor) {
  char **name = input ? &own->input_name[index] : &own->output_name[index];
  void *info = NULL, *view = NULL;
  int element = 0;
  size_t rank = 0;
  if (!done((input ? ort.input_name : ort.output_name)(own->session, index, allocator, name), own->path)) return false;
  snprintf(tensor->name, sizeof tensor->name, "%s", *name);
  if (!done((input ? ort.input_type : ort.output_type)(own->session, index, &info), own->path)) return false;
  bool known = done(ort.tensor_info(info, &view), own->path);
  if (known && view == NULL) known = fault(STATUS_MODEL, "%s: '%s' is not a tensor", own->path, *name);
  known = known && done(ort.element(view, &element), own->path) && done(ort.rank(view, &rank), own->path);
  if (known && rank > SESSION_RANK) known = fault(STATUS_MODEL, "%s: '%s' has rank %zu", own->path, *name, rank);
  known = known && done(ort.shape(view, tensor->shape, rank), own->path);
  ort.release_type(info);
  if (!known) return false;
  size_t kinds = sizeof ELEMENT / sizeof *ELEMENT;
  tensor->element = element < 0 || (size_t)element >= kinds ? OTHER : ELEMENT[element];
  tensor->rank = (int)rank;
  for (size_t i = 0; i < rank; i++) tensor->shape[i] = tensor->shape[i] > 0 ? tensor->shape[i] : 1;
  if (input) own->element[index] = element;
  return !input || tensor_sized(tensor, own->path);
}

static bool allocate(struct session *session, struct own *own, int sets) {
  for (int set = 0; set < sets; set++) {
    for (size_t i = 0; i < session->inputs; i++) {
      const struct tensor *t = &session->input[i];
      void *memory = aligned_alloc(64, (t->bytes + 63) / 64 * 64);
      if (memory == NULL) return fault(STATUS_MODEL, "%s: out of memory", own->path);
      session->pool[set][i] = memory;
      status made = ort.create_tensor(own->memory, memory, t->bytes, t->shape, (size_t)t->rank, own->element[i],
                                      &own->value[set][i]);
      if (!done(made, own->path)) return false;
    }
  }
  return true;
}

static bool open(struct session *session, const char *path, int threads, int sets, const char *profile) {
  struct own *own = session->own = calloc(1, sizeof *own);
  if (own == NULL) return fault(STATUS_MODEL, "%s: out of memory", path);
  own->path = path;
  void *options = NULL, *allocator = NULL;
  bool opened = options_of(threads, path, profile, &options) &&
                done(ort.create_session(env, path, options, &own->session), path);
  if (options != NULL) ort.release_options(options);
  if (!opened || !done(ort.allocator(&allocator), path) ||
      !done(ort.create_memory(ORT_DEVICE_ALLOCATOR, ORT_MEM_DEFAULT, &own->memory), path) ||
      !done(ort.input_count(own->session, &session->inputs), path) ||
      !done(ort.output_count(own->session, &session->outputs), path)) {
    return false;
  }
  if (session->inputs > SESSION_TENSORS || session->outputs > SESSION_TENSORS) {
    return fault(STATUS_MODEL, "%s: more than %d inputs or outputs", path, SESSION_TENSORS);
  }
  for (size_t i = 0; i < session->inputs; i++) {
    if (!describe(own, i, true, allocator, &session->input[i])) return false;
  }
  for (size_t i = 0; i < session->outputs; i++) {
    if (!describe(own, i, false, allocator, &session->output[i])) return false;
  }
  return allocate(session, own, sets);
}

static void drop_outputs(struct session *session, struct own *own) {
  for (size_t i = 0; i < session->outputs; i++) {
    if (own->given[i] != NULL) ort.release_value(own->given[i]);
    own->given[i] = NULL;
  }
}

static bool put(struct session *session, int set) {
  struct own *own = session->own;
  drop_outputs(session, own);
  own->set = set;
  return true;
}

static bool infer(struct session *session) {
  struct own *own = session->own;
  status found = ort.run(own->session, NULL, (const char *const *)own->input_name, own->value[own->set], session->inputs,
                         (const char *const *)own->output_name, session->outputs, own->given);
  return done(found, own->path);
}

static bool take(struct session *session) {
  struct own *own = session->own;
  for (size_t i = 0; i < session->outputs; i++) {
    void *data = NULL, *view = NULL;
    if (!done(ort.data(own->given[i], &data), own->path)) return false;
    session->result[i] = data;
    if (session->output[i].bytes == 0) { /* the first run tells how large outputs of dynamic shape are */
      size_t count = 0;
      bool counted = done(ort.shape_of_value(own->given[i], &view), own->path) && done(ort.count(view, &count), own->path);
      if (view != NULL) ort.release_tensor(view);
      if (!counted) return false;
      session->output[i].bytes = count * element_bytes(session->output[i].element);
    }
  }
  return true;
}

static void close(struct session *session) {
  struct own *own = session->own;
  if (own == NULL) return;
  void *allocator = NULL;
  done(ort.allocator(&allocator), own->path);
  drop_outputs(session, own);
  for (size_t i = 0; i < SESSION_TENSORS; i++) {
    for (int set = 0; set < JOB_POOL; set++) {
      if (own->value[set][i] != NULL) ort.release_value(own->value[set][i]);
      free(session->pool[set][i]);
    }
    if (own->input_name[i] != NULL) ort.free_memory(allocator, own->input_name[i]);
    if (own->output_name[i] != NULL) ort.free_memory(allocator, own->output_name[i]);
  }
  if (own->memory != NULL) ort.release_memory(own->memory);
  if (own->session != NULL) ort.release_session(own->session);
  free(own);
  session->own = NULL;
}

const struct runtime ONNXRUNTIME = {
    .name = "onnxruntime", .load = load, .open = open, .put = put, .infer = infer, .take = take, .close = close};
