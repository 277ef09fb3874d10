/* LiteRT through the C functions that its library exports. Their ABI moves between releases, so the library is
 * checked by its hash, and only releases that were tried are asked for. CPU, XNNPACK. */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fault.h"
#include "json.h"
#include "library.h"
#include "session.h"

enum { ACCELERATOR_CPU = 1, HOST_MEMORY = 1, LOCK_READ = 0, LOCK_WRITE = 1 };
enum { PROFILED_OPERATOR = 2, FIRST_GRAPH = 0 };
enum { OPTION_ACCELERATORS = 24, OPTION_LEAST_LOGGED = 25, ANY_INT = 2, LOG_ERROR = 3 };

/* LiteRtEnvOption: what it sets, and a value with its type. */
struct option {
  int tag;
  struct {
    int type;
    int64_t value;
  } any;
};
_Static_assert(sizeof(struct option) == 24, "the layout that LiteRT 2.3 uses");

/* LiteRtRankedTensorType: an element type and a layout of at most eight dimensions. */
struct ranked {
  int element;
  unsigned int rank : 7;
  unsigned int has_strides : 1;
  int32_t shape[SESSION_RANK];
  uint32_t strides[SESSION_RANK];
};
_Static_assert(sizeof(struct ranked) == 72, "the layout that LiteRT 2.3 uses");

/* ProfiledEventData. An operator that the interpreter runs itself is of kind PROFILED_OPERATOR, `tag` its name. */
struct event {
  const char *tag;
  int kind;
  uint64_t start_us, took_us;
  size_t memory[6];
  uint64_t node, graph;
  int source;
};
_Static_assert(sizeof(void *) != 8 || sizeof(struct event) == 104, "the layout that LiteRT 2.3 uses");

typedef int status; /* 0: all went well */

static struct {
  status (*create_environment)(int count, const struct option *options, void **environment);
  status (*create_model)(void *environment, const char *path, void **model);
  void (*destroy_model)(void *);
  status (*create_options)(void **options);
  void (*destroy_options)(void *);
  status (*set_accelerators)(void *options, int accelerators);
  status (*create_opaque)(const char *kind, void *data, void (*destroy)(void *), void **opaque);
  status (*add_opaque)(void *options, void *opaque);
  status (*compile)(void *environment, void *model, void *options, void **compiled);
  void (*destroy_compiled)(void *);
  status (*signature)(void *model, size_t index, void **signature);
  status (*input_count)(void *signature, size_t *count);
  status (*output_count)(void *signature, size_t *count);
  status (*input_name)(void *signature, size_t index, const char **name);
  status (*output_name)(void *signature, size_t index, const char **name);
  status (*input_tensor)(void *signature, size_t index, void **tensor);
  status (*output_tensor)(void *signature, size_t index, void **tensor);
  status (*ranked_type)(void *tensor, struct ranked *type);
  status (*input_needs)(void *compiled, size_t signature, size_t index, void **needs);
  status (*output_needs)(void *compiled, size_t signature, size_t index, void **needs);
  status (*needed_bytes)(void *needs, size_t *bytes);
  status (*create_buffer)(void *environment, int kind, const struct ranked *type, size_t bytes, void **buffer);
  void (*destroy_buffer)(void *);
  status (*lock)(void *buffer, void **memory, int mode);
  status (*unlock)(void *buffer);
  status (*run)(void *compiled, size_t signature, size_t inputs, void **input, size_t outputs, void **output);
} rt;

static const struct symbol SYMBOLS[] = {
    {"LiteRtCreateEnvironment", &rt.create_environment},
    {"LiteRtCreateModelFromFile", &rt.create_model},
    {"LiteRtDestroyModel", &rt.destroy_model},
    {"LiteRtCreateOptions", &rt.create_options},
    {"LiteRtDestroyOptions", &rt.destroy_options},
    {"LiteRtSetOptionsHardwareAccelerators", &rt.set_accelerators},
    {"LiteRtCreateOpaqueOptions", &rt.create_opaque},
    {"LiteRtAddOpaqueOptions", &rt.add_opaque},
    {"LiteRtCreateCompiledModel", &rt.compile},
    {"LiteRtDestroyCompiledModel", &rt.destroy_compiled},
    {"LiteRtGetModelSignature", &rt.signature},
    {"LiteRtGetNumSignatureInputs", &rt.input_count},
    {"LiteRtGetNumSignatureOutputs", &rt.output_count},
    {"LiteRtGetSignatureInputName", &rt.input_name},
    {"LiteRtGetSignatureOutputName", &rt.output_name},
    {"LiteRtGetSignatureInputTensorByIndex", &rt.input_tensor},
    {"LiteRtGetSignatureOutputTensorByIndex", &rt.output_tensor},
    {"LiteRtGetRankedTensorType", &rt.ranked_type},
    {"LiteRtGetCompiledModelInputBufferRequirements", &rt.input_needs},
    {"LiteRtGetCompiledModelOutputBufferRequirements", &rt.output_needs},
    {"LiteRtGetTensorBufferRequirementsBufferSize", &rt.needed_bytes},
    {"LiteRtCreateManagedTensorBuffer", &rt.create_buffer},
    {"LiteRtDestroyTensorBuffer", &rt.destroy_buffer},
    {"LiteRtLockTensorBuffer", &rt.lock},
    {"LiteRtUnlockTensorBuffer", &rt.unlock},
    {"LiteRtRunCompiledModel", &rt.run},
};

/* What tells where operators run: measuring goes without it. */
static struct {
  status (*of)(void *compiled, void **profiler);
  status (*start)(void *profiler);
  status (*stop)(void *profiler);
  status (*count)(void *profiler, int *count);
  status (*events)(void *profiler, int count, struct event *events);
} profiler;
static bool has_profiler;

static const struct symbol PROFILER[] = {
    {"LiteRtCompiledModelGetProfiler", &profiler.of}, {"LiteRtStartProfiler", &profiler.start},
    {"LiteRtStopProfiler", &profiler.stop},           {"LiteRtGetNumProfilerEvents", &profiler.count},
    {"LiteRtGetProfilerEvents", &profiler.events},
};

/* LiteRtElementType -> element; numbers not named are OTHER. */
static enum element element_of(int number) {
  switch (number) {
    case 1: return FLOAT32;
    case 2: return INT32;
    case 3: return UINT8;
    case 4: return INT64;
    case 6: return BOOL;
    case 7: return INT16;
    case 9: return INT8;
    case 10: return FLOAT16;
    case 11: return FLOAT64;
    case 13: return UINT64;
    case 16: return UINT32;
    case 17: return UINT16;
    case 19: return BFLOAT16;
    default: return OTHER;
  }
}

struct own {
  void *model, *compiled;
  void *input[SESSION_TENSORS], *output[SESSION_TENSORS]; /* tensor buffers of the runtime */
  void *copy[SESSION_TENSORS];                            /* outputs, handed out */
  const char *path;
};

static void *environment;

static bool done(status found, const char *path, const char *what) {
  return found == 0 || fault(STATUS_MODEL, "%s: LiteRT cannot %s (status %d)", path, what, found);
}

static bool load(const struct job_library *library, const char **version) {
  void *handle = library_open(library);
  if (handle == NULL || !library_resolve(handle, library, SYMBOLS, sizeof SYMBOLS / sizeof *SYMBOLS)) return false;
  has_profiler = library_offers(handle, PROFILER, sizeof PROFILER / sizeof *PROFILER);
  /* The library does not tell its version: where its hash was checked, it is the one of the job. */
  *version = library->sha256 == NULL ? NULL : library->version;
  /* Nothing but the CPU is looked for, and only errors are told. */
  const struct option options[] = {
      {OPTION_ACCELERATORS, {ANY_INT, ACCELERATOR_CPU}},
      {OPTION_LEAST_LOGGED, {ANY_INT, LOG_ERROR}},
  };
  return done(rt.create_environment(2, options, &environment), library->path, "start");
}

/* Adds an option of one kind, a line of text. */
static bool add_option(void *options, const char *kind, const char *line, const char *path) {
  char *text = strdup(line);
  void *opaque = NULL;
  if (text == NULL) return fault(STATUS_MODEL, "%s: out of memory", path);
  return done(rt.create_opaque(kind, text, free, &opaque), path, "make options") &&
         done(rt.add_opaque(options, opaque), path, "make options");
}

/* Compilation options: the CPU with `threads` threads; where it shall tell where operators run, its profiler. */
static bool options_of(int threads, bool telling, const char *path, void **options) {
  char line[32];
  snprintf(line, sizeof line, "num_threads = %d\n", threads);
  return done(rt.create_options(options), path, "make options") &&
         done(rt.set_accelerators(*options, ACCELERATOR_CPU), path, "choose the CPU") &&
         add_option(*options, "xnnpack", line, path) &&
         (!telling || add_option(*options, "runtime_options_string", "enable_profiling = true\n", path));
}

/* Name, type and memory of one input or output. */
static bool describe(struct own *own, void *signature, size_t index, bool input, struct tensor *tensor, void **buffer) {
  const char *name = "", *path = own->path;
  void *view = NULL, *needs = NULL;
  struct ranked type;
  size_t bytes = 0;
  if (!done((input ? rt.input_name : rt.output_name)(signature, index, &name), path, "name a tensor") ||
      !done((input ? rt.input_tensor : rt.output_tensor)(signature, index, &view), path, "find a tensor") ||
      !done(rt.ranked_type(view, &type), path, "describe a tensor")) {
    return false;
  }
  snprintf(tensor->name, sizeof tensor->name, "%s", name);
  tensor->element = element_of(type.element);
  tensor->rank = type.rank > SESSION_RANK ? SESSION_RANK : (int)type.rank;
  for (int i = 0; i < tensor->rank; i++) {
    if (type.shape[i] < 0) type.shape[i] = 1; /* dynamic: one sample, as the file's plain shapes say */
    tensor->shape[i] = type.shape[i];
  }
  return tensor_sized(tensor, path) &&
         done((input ? rt.input_needs : rt.output_needs)(own->compiled, 0, index, &needs), path, "size a buffer") &&
         done(rt.needed_bytes(needs, &bytes), path, "size a buffer") &&
         done(rt.create_buffer(environment, HOST_MEMORY, &type, bytes, buffer), path, "make a buffer");
}

static void *memory_for(const struct tensor *tensor, const char *path) {
  void *memory = aligned_alloc(64, (tensor->bytes + 63) / 64 * 64);
  if (memory == NULL) fault(STATUS_MODEL, "%s: out of memory", path);
  return memory;
}

static bool open(struct session *session, const char *path, int threads, int sets, const char *profile) {
  if (profile != NULL) return fault(STATUS_JOB, "%s: LiteRT keeps no profile", path);
  struct own *own = session->own = calloc(1, sizeof *own);
  if (own == NULL) return fault(STATUS_MODEL, "%s: out of memory", path);
  own->path = path;
  void *options = NULL, *signature = NULL;
  bool opened = done(rt.create_model(environment, path, &own->model), path, "read the model") &&
                options_of(threads, session->telling, path, &options) &&
                done(rt.compile(environment, own->model, options, &own->compiled), path, "prepare the model");
  if (options != NULL) rt.destroy_options(options);
  if (!opened || !done(rt.signature(own->model, 0, &signature), path, "find a signature") ||
      !done(rt.input_count(signature, &session->inputs), path, "count inputs") ||
      !done(rt.output_count(signature, &session->outputs), path, "count outputs")) {
    return false;
  }
  if (session->inputs > SESSION_TENSORS || session->outputs > SESSION_TENSORS) {
    return fault(STATUS_MODEL, "%s: more than %d inputs or outputs", path, SESSION_TENSORS);
  }
  for (size_t i = 0; i < session->inputs; i++) {
    if (!describe(own, signature, i, true, &session->input[i], &own->input[i])) return false;
    for (int set = 0; set < sets; set++) {
      if ((session->pool[set][i] = memory_for(&session->input[i], path)) == NULL) return false;
    }
  }
  for (size_t i = 0; i < session->outputs; i++) {
    if (!describe(own, signature, i, false, &session->output[i], &own->output[i])) return false;
    if ((own->copy[i] = memory_for(&session->output[i], path)) == NULL) return false;
  }
  return true;
}

static bool put(struct session *session, int set) {
  struct own *own = session->own;
  void *memory = NULL;
  for (size_t i = 0; i < session->inputs; i++) {
    if (!done(rt.lock(own->input[i], &memory, LOCK_WRITE), own->path, "take inputs")) return false;
    memcpy(memory, session->pool[set][i], session->input[i].bytes);
    if (!done(rt.unlock(own->input[i]), own->path, "take inputs")) return false;
  }
  return true;
}

static bool infer(struct session *session) {
  struct own *own = session->own;
  status found = rt.run(own->compiled, 0, session->inputs, own->input, session->outputs, own->output);
  return done(found, own->path, "run the model");
}

static bool take(struct session *session) {
  struct own *own = session->own;
  void *memory = NULL;
  for (size_t i = 0; i < session->outputs; i++) {
    if (!done(rt.lock(own->output[i], &memory, LOCK_READ), own->path, "give outputs")) return false;
    memcpy(own->copy[i], memory, session->output[i].bytes);
    if (!done(rt.unlock(own->output[i]), own->path, "give outputs")) return false;
    session->result[i] = own->copy[i];
  }
  return true;
}

/* The operators that the interpreter runs itself: XNNPACK did not take them. */
static void write_nodes(FILE *out, const struct event *events, int count) {
  bool none = true;
  fputs(",\"accelerator\":\"XNNPACK\",\"nodes\":[", out);
  for (int i = 0; i < count; i++) {
    if (events[i].kind != PROFILED_OPERATOR || events[i].graph != FIRST_GRAPH) continue;
    fprintf(out, "%s[%" PRIu64 ",", none ? "" : ",", events[i].node);
    json_text(out, events[i].tag);
    fputc(']', out);
    none = false;
  }
  fputc(']', out);
}

static bool placed(struct session *session, FILE *out) {
  struct own *own = session->own;
  void *told = NULL;
  int count = 0;
  if (!has_profiler || profiler.of(own->compiled, &told) != 0 || told == NULL || profiler.start(told) != 0) return false;
  bool ran = session_run(session, 0);
  if (profiler.stop(told) != 0 || !ran || profiler.count(told, &count) != 0 || count <= 0) return false;
  struct event *events = calloc((size_t)count, sizeof *events);
  bool known = events != NULL && profiler.events(told, count, events) == 0;
  if (known) write_nodes(out, events, count);
  free(events);
  return known;
}

static void close(struct session *session) {
  struct own *own = session->own;
  if (own == NULL) return;
  for (size_t i = 0; i < SESSION_TENSORS; i++) {
    if (own->input[i] != NULL) rt.destroy_buffer(own->input[i]);
    if (own->output[i] != NULL) rt.destroy_buffer(own->output[i]);
    for (int set = 0; set < JOB_POOL; set++) free(session->pool[set][i]);
    free(own->copy[i]);
  }
  if (own->compiled != NULL) rt.destroy_compiled(own->compiled);
  if (own->model != NULL) rt.destroy_model(own->model);
  free(own);
  session->own = NULL;
}

const struct runtime LITERT = {
    .name = "litert", .load = load, .open = open, .put = put, .infer = infer, .take = take, .placed = placed,
    .close = close};
