/* edgefit-runner: measures model files on the device that it runs on, as a job file says.
 *
 *   edgefit-runner JOB [--out DIR]   records to standard output, or to DIR/samples.ndjson and DIR/result.json
 *   edgefit-runner --self-test [JOB] checks the runner, and with a job its libraries and models
 *   edgefit-runner --conditions      what the device is and the state it is in, as JSON
 *   edgefit-runner --version
 *   PROGRAM [--run [INPUTS [OUTPUTS]]]  of a program with a model linked in: one inference, outputs as text
 *
 * docs/runner.md describes job, records and exit statuses. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "conditions.h"
#include "digest.h"
#include "fault.h"
#include "job.h"
#include "json.h"
#include "once.h"
#include "protocol.h"
#include "session.h"

#ifndef EDGEFIT_RUNNER_VERSION
#define EDGEFIT_RUNNER_VERSION "unknown"
#endif

/* The runtime of each library of the job, and the version it gave. */
static const struct runtime *loaded[JOB_LIBRARIES];
static const char *versions[JOB_LIBRARIES];

static void on_signal(int number) {
  /* A second signal ends the process at once: the handler is for one. */
  stopped = number;
}

/* An inference that never ends does not see `stopped`: ten seconds later the second alarm ends the process. */
static void on_alarm(int number) {
  stopped = number;
  alarm(10);
}

static void listen_to_signals(void) {
  static const int ending[] = {SIGINT, SIGTERM, SIGHUP};
  for (size_t i = 0; i < sizeof ending / sizeof *ending; i++) {
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND}, before;
    /* Who started this may want it to survive the end of a session: ignored signals stay ignored. */
    if (sigaction(ending[i], NULL, &before) == 0 && before.sa_handler == SIG_IGN) continue;
    sigaction(ending[i], &action, NULL);
  }
  struct sigaction late = {.sa_handler = on_alarm, .sa_flags = (int)SA_RESETHAND};
  sigaction(SIGALRM, &late, NULL);
  signal(SIGPIPE, SIG_IGN); /* a reader that is gone is an error of writing */
}

static bool load_libraries(const struct job *job) {
  for (int i = 0; i < job->libraries; i++) {
    for (size_t k = 0; RUNTIMES[k] != NULL; k++) {
      if (strcmp(job->library[i].runtime, RUNTIMES[k]->name) == 0) loaded[i] = RUNTIMES[k];
    }
    if (loaded[i] == NULL) return fault(STATUS_JOB, "job: unknown runtime '%s'", job->library[i].runtime);
    if (!loaded[i]->load(&job->library[i], &versions[i])) return false;
  }
  return true;
}

/* Which of the job's libraries runs a model; -1 after a fault. */
static int library_for(const struct job *job, int model) {
  for (int i = 0; i < job->libraries; i++) {
    if (strcmp(job->library[i].runtime, job->model[model].runtime) == 0) return i;
  }
  fault(STATUS_JOB, "job: no library for runtime '%s'", job->model[model].runtime);
  return -1;
}

static bool check_models(const struct job *job) {
  for (int i = 0; i < job->models; i++) {
    const struct job_model *model = &job->model[i];
    char hex[DIGEST_TEXT];
    int library = library_for(job, i);
    if (library < 0) return false;
    if (loaded[library]->holds != NULL) {
      snprintf(hex, sizeof hex, "%s", loaded[library]->holds);
    } else if (!digest_of_file(model->path, hex)) {
      return fault(STATUS_MODEL, "cannot read %s: %s", model->path, strerror(errno));
    }
    if (model->sha256 != NULL && strcmp(hex, model->sha256) != 0) {
      return fault(STATUS_MODEL, "%s is not the file that was sent: its hash differs", model->path);
    }
  }
  return true;
}

/* Reads a list like "7,6,5"; the first of them into `*first`. */
static bool read_cores(const char *text, cpu_set_t *set, int *first) {
  CPU_ZERO(set);
  for (*first = -1;; text++) {
    char *end = NULL;
    long core = strtol(text, &end, 10);
    if (end == text || core < 0 || core >= CPU_SETSIZE) return false;
    if (*first < 0) *first = (int)core;
    CPU_SET((int)core, set);
    text = end;
    if (*text != ',') return *text == '\0';
  }
}

/* Keeps a measurement of one thread on the core that is asked for, or the last (-1; the first serves interrupts), one of
 * several on those that are listed. What has no time to measure runs on any (-2). `core` becomes the one whose clock is
 * told. */
static bool pin(struct job *job) {
  cpu_set_t allowed, wanted;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return true;
  int last = 0;
  for (int core = 0; core < CPU_SETSIZE; core++) {
    if (CPU_ISSET(core, &allowed)) last = core;
  }
  bool pinned = job->threads == 1 && job->core >= -1;
  if (job->core < 0) job->core = last;
  if (pinned) {
    CPU_ZERO(&wanted);
    if (job->core < CPU_SETSIZE) CPU_SET(job->core, &wanted);
    if (sched_setaffinity(0, sizeof wanted, &wanted) == 0) return true;
    return fault(STATUS_JOB, "job: core %d cannot be used", job->core);
  }
  if (job->threads == 1 || job->cores == NULL) return true;
  if (!read_cores(job->cores, &wanted, &job->core)) return fault(STATUS_JOB, "job: '%s' is no list of cores", job->cores);
  /* The kernel leaves out those that there are not. */
  bool all = sched_setaffinity(0, sizeof wanted, &wanted) == 0 && sched_getaffinity(0, sizeof allowed, &allowed) == 0 &&
             CPU_EQUAL(&wanted, &allowed);
  return all || fault(STATUS_JOB, "job: cores %s cannot be used", job->cores);
}

/* Holds the job's lock until the process ends: two measurements at once would measure each other. */
static bool take_lock(const struct job *job) {
  if (job->lock == NULL) return true;
  int file = open(job->lock, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (file < 0) return fault(STATUS_OUTPUT, "cannot open the lock %s: %s", job->lock, strerror(errno));
  return flock(file, LOCK_EX | LOCK_NB) == 0 ||
         fault(STATUS_CONDITION, "another measurement is running on this device");
}

/* Waits until the device is cool enough, and refuses one whose battery is low. No sensor: no gate. */
static bool pass_gates(const struct job *job) {
  double battery = conditions_battery();
  if (job->min_battery > 0 && battery < job->min_battery) {
    return fault(STATUS_CONDITION, "the battery has %.0f %%, %.0f %% are asked for", battery, job->min_battery);
  }
  if (job->max_celsius <= 0) return true;
  int64_t stop = now_ns() + (int64_t)(job->cool_seconds * 1e9);
  while (conditions_celsius() > job->max_celsius && !stopped) {
    if (now_ns() > stop) {
      return fault(STATUS_CONDITION, "still %.1f degrees after %.0f s, %.1f are allowed", conditions_celsius(),
                   job->cool_seconds, job->max_celsius);
    }
    nanosleep(&(struct timespec){.tv_nsec = 500000000}, NULL);
  }
  return true;
}

static void write_begin(FILE *out, const struct job *job) {
  bool first = false;
  fputs("{\"type\":\"begin\",\"schema\":\"edgefit.samples/1\"", out);
  json_text_member(out, &first, "runner", EDGEFIT_RUNNER_VERSION);
  json_count_member(out, &first, "pid", getpid());
  json_key(out, &first, "libraries");
  fputc('{', out);
  bool none = true;
  for (int i = 0; i < job->libraries; i++) json_text_member(out, &none, job->library[i].runtime, versions[i]);
  fputc('}', out);
  json_key(out, &first, "affinity");
  conditions_write_affinity(out);
  json_key(out, &first, "conditions");
  conditions_write(out, job->core);
  fputs("}\n", out);
  fflush(out);
}

static void write_end(FILE *out, const struct job *job, int records) {
  fprintf(out, "{\"type\":\"end\",\"records\":%d,\"conditions\":", records);
  conditions_write(out, job->core);
  fputs("}\n", out);
}

static bool measure(struct job *job, FILE *out, int *records) {
  if (job->deadline > 0) alarm((unsigned)job->deadline + 1);
  if (!take_lock(job) || !pin(job) || !load_libraries(job) || !check_models(job) || !pass_gates(job)) return false;
  const struct runtime *runtimes[JOB_MODELS];
  const char *known[JOB_MODELS];
  for (int i = 0; i < job->models; i++) {
    runtimes[i] = loaded[library_for(job, i)];
    known[i] = versions[library_for(job, i)];
  }
  write_begin(out, job);
  for (int trial = 0; trial < job->trials; trial++) {
    int order[JOB_MODELS], at_once = job->turns > 1 ? job->models : 1;
    if (job->together && (stopped || !protocol_turns(job, trial, runtimes, known, out, records))) return false;
    protocol_order(job->models, trial, order);
    for (int k = 0; k < job->models && !job->together; k += at_once) {
      if (stopped) return false;
      if (!protocol_trial(job, &order[k], at_once, trial, runtimes, known, out, records)) return false;
    }
  }
  for (int i = 0; i < job->models && job->placement; i++) {
    if (stopped || !protocol_placement(job, i, runtimes[i], out, records)) return false;
  }
  write_end(out, job, *records);
  return (fflush(out) == 0 && !ferror(out)) || fault(STATUS_OUTPUT, "cannot write samples: %s", strerror(errno));
}

static int exit_status(bool well) { return stopped ? 128 + stopped : well ? STATUS_DONE : (int)fault_status(); }

static const char *why(void) {
  return stopped == SIGALRM ? "not done within its deadline" : stopped ? "interrupted" : fault_text();
}

/* Why a measurement is not complete, as the last record. */
static void write_error(FILE *out, bool well) {
  if (well) return;
  bool first = false;
  fputs("{\"type\":\"error\"", out);
  json_text_member(out, &first, "message", why());
  json_count_member(out, &first, "status", exit_status(well));
  fputs("}\n", out);
  fflush(out);
}

/* result.json appears whole or not at all, after everything else is on the disk. */
static bool write_result(const char *folder, bool well, int records, double seconds) {
  char partial[4096], final[4096];
  snprintf(partial, sizeof partial, "%s/.result.json.partial", folder);
  snprintf(final, sizeof final, "%s/result.json", folder);
  FILE *out = fopen(partial, "w");
  if (out == NULL) return fault(STATUS_OUTPUT, "cannot write %s: %s", partial, strerror(errno));
  bool first = false;
  fputs("{\"schema\":\"edgefit.result/1\"", out);
  json_text_member(out, &first, "status", stopped ? "interrupted" : well ? "complete" : "failed");
  json_count_member(out, &first, "exit_code", exit_status(well));
  json_text_member(out, &first, "error", well ? NULL : why());
  json_count_member(out, &first, "records", records);
  json_number_member(out, &first, "seconds", seconds);
  fputs("}\n", out);
  bool whole = fflush(out) == 0 && fsync(fileno(out)) == 0;
  whole = fclose(out) == 0 && whole && rename(partial, final) == 0;
  return whole || fault(STATUS_OUTPUT, "cannot write %s: %s", final, strerror(errno));
}

/* Where records go: DIR/samples.ndjson, or standard output, which libraries then no longer reach. */
static FILE *open_records(const char *folder) {
  if (folder == NULL) {
    FILE *out = fdopen(dup(STDOUT_FILENO), "w");
    dup2(STDERR_FILENO, STDOUT_FILENO);
    return out;
  }
  char path[4096];
  snprintf(path, sizeof path, "%s/samples.ndjson", folder);
  FILE *out = fopen(path, "a"); /* not emptied before it is known that nobody else writes it */
  if (out == NULL) {
    fault(STATUS_OUTPUT, "cannot write %s: %s", path, strerror(errno));
    return NULL;
  }
  if (flock(fileno(out), LOCK_EX | LOCK_NB) != 0) {
    fault(STATUS_CONDITION, "another measurement is running in %s", folder);
    fclose(out);
    return NULL;
  }
  snprintf(path, sizeof path, "%s/result.json", folder);
  unlink(path); /* an earlier result is not this one's */
  if (ftruncate(fileno(out), 0) != 0) fault(STATUS_OUTPUT, "cannot empty the samples in %s: %s", folder, strerror(errno));
  return out;
}

static int run_job(const char *path, const char *folder) {
  struct job job;
  int records = 0;
  int64_t start = now_ns();
  FILE *out = open_records(folder);
  bool well = out != NULL && job_read(path, &job) && measure(&job, out, &records);
  if (out != NULL) {
    write_error(out, well);
    bool whole = fflush(out) == 0 && (folder == NULL || fsync(fileno(out)) == 0);
    if (!whole) well = fault(STATUS_OUTPUT, "cannot write samples: %s", strerror(errno));
    if (folder != NULL) well = write_result(folder, well, records, (double)(now_ns() - start) / 1e9) && well;
    fclose(out);
  }
  if (!well) fprintf(stderr, "error: %s\n", why());
  return exit_status(well);
}

/* Every library of the job is loaded, every model opened and run once. */
static bool try_job(const char *path) {
  struct job job;
  if (!job_read(path, &job) || !load_libraries(&job) || !check_models(&job)) return false;
  for (int i = 0; i < job.models; i++) {
    struct session session = {.runtime = loaded[library_for(&job, i)]};
    bool well = session.runtime->open(&session, job.model[i].path, job.threads, 1, NULL);
    if (well) session_fill(&session, 1, (uint64_t)job.seed);
    well = well && session_run(&session, 0);
    session.runtime->close(&session);
    if (!well) return false;
  }
  return true;
}

static int self_test(const char *path) {
  char hex[DIGEST_TEXT];
  digest_of_bytes("abc", 3, hex); /* FIPS 180-4, example 1 */
  bool digest = strcmp(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad") == 0;
  int64_t before = now_ns(), after = before;
  for (int i = 0; i < 1000000 && after == before; i++) after = now_ns();
  bool job = path == NULL || try_job(path), well = digest && after > before && job, first = true;
  if (!digest) fault(STATUS_JOB, "self-test: SHA-256 is wrong on this machine");
  if (after <= before) fault(STATUS_JOB, "self-test: the clock does not move");
  fputc('{', stdout);
  json_text_member(stdout, &first, "schema", "edgefit.selftest/1");
  json_text_member(stdout, &first, "runner", EDGEFIT_RUNNER_VERSION);
  json_text_member(stdout, &first, "status", well ? "passed" : "failed");
  json_text_member(stdout, &first, "error", well ? NULL : fault_text());
  json_count_member(stdout, &first, "clock_step_ns", after - before);
  json_count_member(stdout, &first, "overhead_ns", protocol_overhead_ns());
  fputs("}\n", stdout);
  if (!well) fprintf(stderr, "error: %s\n", fault_text());
  return well ? STATUS_DONE : (int)fault_status();
}

static const char USAGE[] =
    "usage: edgefit-runner JOB [--out DIR]\n"
    "       edgefit-runner --self-test [JOB]\n"
    "       edgefit-runner --conditions\n"
    "       edgefit-runner --version\n"
    "       PROGRAM [--run [INPUTS [OUTPUTS]]] where a model is linked in\n";

int main(int count, char **words) {
  listen_to_signals();
  if (count == 2 && strcmp(words[1], "--version") == 0) {
    puts("edgefit-runner " EDGEFIT_RUNNER_VERSION);
    return STATUS_DONE;
  }
  if (count == 2 && strcmp(words[1], "--conditions") == 0) {
    struct job none = {.core = -1};
    pin(&none); /* not pinned, but told which core a job of one thread would use */
    conditions_write(stdout, none.core);
    putchar('\n');
    return STATUS_DONE;
  }
  if (count >= 2 && count <= 3 && strcmp(words[1], "--self-test") == 0) return self_test(count == 3 ? words[2] : NULL);
  if (RUNTIMES[0]->holds != NULL && (count == 1 || (count <= 4 && strcmp(words[1], "--run") == 0))) {
    if (once(count > 2 ? words[2] : NULL, count > 3 ? words[3] : NULL)) return STATUS_DONE;
    fprintf(stderr, "error: %s\n", fault_text());
    return (int)fault_status();
  }
  if (count == 2 && words[1][0] != '-') return run_job(words[1], NULL);
  if (count == 4 && words[1][0] != '-' && strcmp(words[2], "--out") == 0) return run_job(words[1], words[3]);
  fputs(USAGE, stderr);
  return STATUS_JOB;
}
