#define _GNU_SOURCE
#include "protocol.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "conditions.h"
#include "fault.h"
#include "json.h"

enum { MARK = 0x45444745, MARK_BEGIN = 0, MARK_END = 1 };
enum { KEPT = 1 << 16, LEAST_ROUND = 5, COLD = 2 };
static const double SETTLED = 0.02;

volatile sig_atomic_t stopped;

static int64_t clock_ns(clockid_t clock) {
  struct timespec time;
  clock_gettime(clock, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

int64_t now_ns(void) { return clock_ns(CLOCK_MONOTONIC); }

/* Timed runs of one window. At most KEPT are kept: when full, every other one goes and only each
 * `stride`-th is added from then on, so that what is kept stays spread evenly over the window. */
struct samples {
  int64_t wall[KEPT], cpu[KEPT];
  size_t kept;
  int64_t runs, stride, least, window; /* window: from the first start to the last end, all between included */
  int64_t late;
};

static void empty(struct samples *samples) {
  samples->kept = 0;
  samples->runs = samples->least = samples->window = samples->late = 0;
  samples->stride = 1;
}

static void keep(struct samples *samples, int64_t wall, int64_t cpu) {
  if (samples->runs == 0 || wall < samples->least) samples->least = wall;
  if (samples->runs++ % samples->stride != 0) return;
  if (samples->kept == KEPT) {
    for (size_t i = 0; i < KEPT / 2; i++) {
      samples->wall[i] = samples->wall[2 * i];
      samples->cpu[i] = samples->cpu[2 * i];
    }
    samples->kept = KEPT / 2;
    samples->stride *= 2;
  }
  samples->wall[samples->kept] = wall;
  samples->cpu[samples->kept++] = cpu;
}

static int by_value(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

static int64_t median(int64_t *values, size_t count) {
  qsort(values, count, sizeof *values, by_value);
  return values[count / 2];
}

/* Rounds of warm-up until the median of one differs from the last one's by 2 % at most, or time is up. */
static bool warm_up(const struct job *job, struct session *session, int64_t *runs, bool *settled) {
  enum { ROUND = 1024 };
  int64_t took[ROUND], last = 0, stop = now_ns() + (int64_t)(job->warmup_seconds * 1e9);
  int round = job->warmup == 0 ? 0 : job->warmup < LEAST_ROUND ? LEAST_ROUND : job->warmup < ROUND ? job->warmup : ROUND;
  *runs = 0;
  *settled = false;
  while (round > 0 && !*settled) {
    for (int i = 0; i < round; i++) {
      int64_t start = now_ns();
      if (!session_run(session, (int)(*runs % job->pool))) return false;
      int64_t end = now_ns();
      took[i] = end - start;
      ++*runs;
      if (stopped || end > stop) return true;
    }
    int64_t middle = median(took, (size_t)round);
    *settled = last > 0 && fabs((double)(middle - last)) <= SETTLED * (double)last;
    last = middle;
  }
  return true;
}

/* Waits until `due`; a run that cannot start in time starts at once and is counted as late. */
static void wait_for(int64_t due, int64_t *late) {
  if (now_ns() > due) {
    ++*late;
    return;
  }
  struct timespec time = {.tv_sec = (time_t)(due / 1000000000), .tv_nsec = (long)(due % 1000000000)};
  while (!stopped && clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL) == EINTR) continue;
}

/* A system call that is refused at once: whoever watches the process sees where a run begins and ends. */
static void mark(const struct job *job, int place) {
  if (job->marks) syscall(SYS_getpriority, MARK, place);
}

/* How many of a window's `count` runs are done at the end of turn number `turn`. */
static int64_t due_after(const struct job *job, int turn, int64_t count) {
  return (count * (turn + 1) + job->turns - 1) / job->turns;
}

/* The timed runs of one turn of a window: of all turns at least `least`, until `seconds` are over or `most` are done.
 * Where models take turns, COLD runs before them are not timed: the other model's weights are in the caches. */
static bool timed(const struct job *job, struct session *session, int turn, struct samples *samples) {
  for (int i = 0; i < COLD && job->turns > 1; i++) {
    if (!session_run(session, i % job->pool)) return false;
  }
  clockid_t cpu_clock = job->threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_PROCESS_CPUTIME_ID;
  int64_t begin = now_ns(), end = begin, stop = begin + (int64_t)(job->seconds / job->turns * 1e9);
  int64_t least = due_after(job, turn, job->least), most = due_after(job, turn, job->most);
  for (int64_t k = 0; !stopped; k++) {
    if ((job->most > 0 && samples->runs >= most) || (end > stop && samples->runs >= least)) break;
    if (job->cadence_hz > 0) wait_for(begin + (int64_t)((double)k / job->cadence_hz * 1e9), &samples->late);
    int64_t cpu = clock_ns(cpu_clock);
    mark(job, MARK_BEGIN);
    int64_t start = now_ns();
    bool ran = session_run(session, (int)(samples->runs % job->pool));
    end = now_ns();
    mark(job, MARK_END);
    if (!ran) return false;
    keep(samples, end - start, clock_ns(cpu_clock) - cpu);
  }
  samples->window += end - begin;
  return true;
}

/* Bytes of this process: "VmRSS:" now, "VmHWM:" at most so far; 0 where /proc does not tell. */
static int64_t process_memory(const char *field) {
  FILE *status = fopen("/proc/self/status", "r");
  if (status == NULL) return 0;
  char line[256];
  long long kilobytes = 0;
  size_t length = strlen(field);
  while (kilobytes == 0 && fgets(line, sizeof line, status) != NULL) {
    if (strncmp(line, field, length) == 0) kilobytes = strtoll(line + length, NULL, 10);
  }
  fclose(status);
  return (int64_t)kilobytes * 1024;
}

/* What a trial's record says besides its samples. */
struct told {
  int trial, model, window;
  int64_t load_ns, first_ns, warmup, resident;
  bool settled;
  const char *version;
};

static bool write_record(FILE *out, const struct told *told, const struct samples *samples, int core) {
  bool first = false;
  fputs("{\"type\":\"trial\"", out);
  json_count_member(out, &first, "trial", told->trial);
  json_count_member(out, &first, "model", told->model);
  json_count_member(out, &first, "window", told->window);
  if (told->window == 0) {
    json_count_member(out, &first, "load_ns", told->load_ns);
    json_count_member(out, &first, "first_ns", told->first_ns);
    json_count_member(out, &first, "warmup", told->warmup);
    json_key(out, &first, "settled");
    fputs(told->settled ? "true" : "false", out);
    int64_t peak = process_memory("VmHWM:");
    if (peak > 0 && told->resident > 0) json_count_member(out, &first, "peak_bytes", peak - told->resident);
  }
  json_text_member(out, &first, "version", told->version);
  json_count_member(out, &first, "runs", samples->runs);
  json_count_member(out, &first, "stride", samples->stride);
  json_count_member(out, &first, "late", samples->late);
  json_count_member(out, &first, "min_ns", samples->least);
  json_count_member(out, &first, "window_ns", samples->window);
  json_number_member(out, &first, "celsius", conditions_celsius());
  json_number_member(out, &first, "mhz", conditions_mhz(core));
  json_counts_member(out, &first, "wall_ns", samples->wall, samples->kept);
  json_counts_member(out, &first, "cpu_ns", samples->cpu, samples->kept);
  fputs("}\n", out);
  return (fflush(out) == 0 && !ferror(out)) || fault(STATUS_OUTPUT, "cannot write samples: %s", strerror(errno));
}

/* One model's share of a trial. */
struct part {
  struct session session;
  struct told told;
  struct samples samples;
};

/* A fresh session up to the end of its warm-up. */
static bool begin_part(const struct job *job, struct part *part) {
  struct session *session = &part->session;
  struct told *told = &part->told;
  char profile[4096];
  if (job->profile != NULL) snprintf(profile, sizeof profile, "%s-%d-%d", job->profile, told->trial, told->model);
  told->resident = process_memory("VmRSS:");
  int64_t start = now_ns();
  if (!session->runtime->open(session, job->model[told->model].path, job->threads, job->pool,
                              job->profile == NULL ? NULL : profile)) {
    return false;
  }
  told->load_ns = now_ns() - start;
  session_fill(session, job->pool, (uint64_t)job->seed * 1000003u + (uint64_t)told->trial);
  if (job->inputs != NULL && !session_read_inputs(session, job->inputs)) return false;
  start = now_ns();
  if (!session_run(session, 0)) return false;
  told->first_ns = now_ns() - start;
  if (job->outputs != NULL && !session_write_outputs(session, job->outputs, part->told.trial > 0)) return false;
  return !stopped && warm_up(job, session, &told->warmup, &told->settled) && !stopped;
}

/* One window of all parts: the runs of each in turns, the order reversed in every other one. */
static bool one_window(const struct job *job, struct part *parts, int count, int window, FILE *out, int *written) {
  for (int i = 0; i < count; i++) empty(&parts[i].samples);
  for (int turn = 0; turn < job->turns; turn++) {
    for (int k = 0; k < count; k++) {
      struct part *part = &parts[turn % 2 ? count - 1 - k : k];
      if (!timed(job, &part->session, turn, &part->samples) || stopped) return false;
    }
  }
  for (int i = 0; i < count; i++) {
    parts[i].told.window = window;
    if (!write_record(out, &parts[i].told, &parts[i].samples, job->core)) return false;
    ++*written;
  }
  return true;
}

bool protocol_trial(const struct job *job, const int *models, int count, int trial,
                    const struct runtime *const *runtimes, const char *const *versions, FILE *out, int *written) {
  struct part *parts = calloc((size_t)count, sizeof *parts);
  bool well = parts != NULL || fault(STATUS_MODEL, "out of memory");
  int begun = 0;
  while (well && begun < count) {
    int model = models[begun];
    parts[begun].session.runtime = runtimes[model];
    parts[begun].told = (struct told){.trial = trial, .model = model, .version = versions[model]};
    well = begin_part(job, &parts[begun++]);
  }
  for (int window = 0; well && window < job->windows; window++) {
    well = one_window(job, parts, count, window, out, written);
  }
  for (int i = 0; i < begun; i++) parts[i].session.runtime->close(&parts[i].session);
  free(parts);
  return well;
}

bool protocol_placement(const struct job *job, int model, const struct runtime *runtime, FILE *out, int *written) {
  if (runtime->placed == NULL) return true;
  struct session session = {.runtime = runtime, .telling = true};
  char *text = NULL;
  size_t size = 0;
  FILE *record = open_memstream(&text, &size);
  if (record == NULL) return true;
  bool first = false, told = runtime->open(&session, job->model[model].path, job->threads, 1, NULL);
  if (told) session_fill(&session, 1, (uint64_t)job->seed);
  fputs("{\"type\":\"placement\"", record);
  json_count_member(record, &first, "model", model);
  told = told && runtime->placed(&session, record);
  fputs("}\n", record);
  runtime->close(&session);
  /* What was timed before stands without it: a runtime that cannot tell leaves no record. */
  if (fclose(record) == 0 && told) *written += fwrite(text, 1, size, out) == size;
  free(text);
  return (fflush(out) == 0 && !ferror(out)) || fault(STATUS_OUTPUT, "cannot write samples: %s", strerror(errno));
}

void protocol_order(int models, int trial, int order[JOB_MODELS]) {
  for (int k = 0; k < models; k++) {
    int place = trial % 2 ? models - 1 - k : k;
    order[place] = (trial / 2 + k) % models;
  }
}

static bool no_inputs(struct session *session, int set) {
  (void)session;
  (void)set;
  return true;
}

static bool nothing(struct session *session) {
  (void)session;
  return true;
}

int64_t protocol_overhead_ns(void) {
  static struct samples samples;
  const struct runtime idle = {.name = "nothing", .put = no_inputs, .infer = nothing, .take = nothing};
  struct session session = {.runtime = &idle};
  struct job job = {.threads = 1, .turns = 1, .least = 1, .most = 20000, .seconds = 10, .pool = 4};
  empty(&samples);
  timed(&job, &session, 0, &samples);
  return samples.kept == 0 ? 0 : median(samples.wall, samples.kept);
}
