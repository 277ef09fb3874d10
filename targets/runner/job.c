#include "job.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fault.h"

static const char SCHEMA[] = "edgefit.job/1";
enum { LONGEST_JOB = 1 << 20 };

enum kind { INT, LONG, DOUBLE };

/* The numbers of a job, and the smallest value of each. */
static const struct number {
  const char *key;
  enum kind kind;
  size_t at;
  double least;
} NUMBERS[] = {
    {"threads", INT, offsetof(struct job, threads), 1},
    {"core", INT, offsetof(struct job, core), -2},
    {"trials", INT, offsetof(struct job, trials), 1},
    {"windows", INT, offsetof(struct job, windows), 1},
    {"least", LONG, offsetof(struct job, least), 1},
    {"most", LONG, offsetof(struct job, most), 0},
    {"seconds", DOUBLE, offsetof(struct job, seconds), 0},
    {"warmup", INT, offsetof(struct job, warmup), 0},
    {"warmup_seconds", DOUBLE, offsetof(struct job, warmup_seconds), 0},
    {"seed", LONG, offsetof(struct job, seed), 0},
    {"pool", INT, offsetof(struct job, pool), 1},
    {"together", INT, offsetof(struct job, together), 0},
    {"turns", INT, offsetof(struct job, turns), 1},
    {"marks", INT, offsetof(struct job, marks), 0},
    {"placement", INT, offsetof(struct job, placement), 0},
    {"cadence_hz", DOUBLE, offsetof(struct job, cadence_hz), 0},
    {"max_celsius", DOUBLE, offsetof(struct job, max_celsius), 0},
    {"cool_seconds", DOUBLE, offsetof(struct job, cool_seconds), 0},
    {"deadline", DOUBLE, offsetof(struct job, deadline), 0},
    {"min_battery", DOUBLE, offsetof(struct job, min_battery), 0},
};

static const struct {
  const char *key;
  size_t at;
} TEXTS[] = {
    {"cores", offsetof(struct job, cores)},
    {"inputs", offsetof(struct job, inputs)},
    {"outputs", offsetof(struct job, outputs)},
    {"lock", offsetof(struct job, lock)},
    {"profile", offsetof(struct job, profile)},
};

/* Cuts the next word off `*rest`; NULL when there is none. */
static char *word(char **rest) {
  char *start = *rest;
  if (start == NULL || *start == '\0') return NULL;
  char *end = strchr(start, ' ');
  *rest = end == NULL ? NULL : end + 1;
  if (end != NULL) *end = '\0';
  return start;
}

/* A word that may be left open with "-". */
static char *known(char *text) { return text == NULL || strcmp(text, "-") == 0 ? NULL : text; }

static bool set_number(struct job *job, const struct number *number, const char *text) {
  char *end = NULL;
  errno = 0;
  double value = number->kind == DOUBLE ? strtod(text, &end) : (double)strtol(text, &end, 10);
  if (end == text || *end != '\0' || errno != 0 || !(value >= number->least) || value > 1e9) {
    return fault(STATUS_JOB, "job: '%s' is not a value of %s", text, number->key);
  }
  char *place = (char *)job + number->at;
  if (number->kind == DOUBLE) {
    memcpy(place, &value, sizeof value);
  } else if (number->kind == LONG) {
    long whole = (long)value;
    memcpy(place, &whole, sizeof whole);
  } else {
    int whole = (int)value;
    memcpy(place, &whole, sizeof whole);
  }
  return true;
}

static bool set_library(struct job *job, char *rest) {
  if (job->libraries == JOB_LIBRARIES) return fault(STATUS_JOB, "job: more than %d libraries", JOB_LIBRARIES);
  struct job_library *library = &job->library[job->libraries++];
  library->runtime = word(&rest);
  library->version = known(word(&rest));
  library->sha256 = known(word(&rest));
  library->path = rest;
  return rest != NULL || fault(STATUS_JOB, "job: a library needs RUNTIME VERSION SHA256 PATH");
}

static bool set_model(struct job *job, char *rest) {
  if (job->models == JOB_MODELS) return fault(STATUS_JOB, "job: more than %d models", JOB_MODELS);
  struct job_model *model = &job->model[job->models++];
  model->runtime = word(&rest);
  model->sha256 = known(word(&rest));
  model->path = rest;
  return rest != NULL || fault(STATUS_JOB, "job: a model needs RUNTIME SHA256 PATH");
}

static bool set(struct job *job, char *line) {
  char *rest = line, *key = word(&rest);
  if (rest == NULL) return fault(STATUS_JOB, "job: '%s' has no value", key == NULL ? "" : key);
  if (strcmp(key, "library") == 0) return set_library(job, rest);
  if (strcmp(key, "model") == 0) return set_model(job, rest);
  for (size_t i = 0; i < sizeof TEXTS / sizeof *TEXTS; i++) {
    if (strcmp(key, TEXTS[i].key) != 0) continue;
    memcpy((char *)job + TEXTS[i].at, &rest, sizeof rest);
    return true;
  }
  for (size_t i = 0; i < sizeof NUMBERS / sizeof *NUMBERS; i++) {
    if (strcmp(key, NUMBERS[i].key) == 0) return set_number(job, &NUMBERS[i], rest);
  }
  return fault(STATUS_JOB, "job: unknown key '%s'", key);
}

static char *text_of(const char *path) {
  FILE *file = fopen(path, "rb");
  if (file == NULL) {
    fault(STATUS_JOB, "cannot read job %s: %s", path, strerror(errno));
    return NULL;
  }
  char *text = calloc(1, LONGEST_JOB + 1);
  size_t size = text == NULL ? 0 : fread(text, 1, LONGEST_JOB, file);
  fclose(file);
  if (size == 0 || size == LONGEST_JOB || strlen(text) != size) {
    fault(STATUS_JOB, "%s is not a job file", path);
    free(text);
    return NULL;
  }
  return text;
}

bool job_read(const char *path, struct job *job) {
  *job = (struct job){.threads = 1, .core = -1, .trials = 1, .windows = 1, .turns = 1, .least = 5, .most = 0,
                      .seconds = 1, .warmup = 20, .warmup_seconds = 1, .pool = 4};
  char *text = text_of(path);
  if (text == NULL) return false;
  char *line = strtok(text, "\n");
  if (line == NULL || strcmp(line, SCHEMA) != 0) {
    return fault(STATUS_JOB, "%s does not begin with %s", path, SCHEMA);
  }
  while ((line = strtok(NULL, "\n")) != NULL) {
    if (!set(job, line)) return false;
  }
  if (job->models == 0) return fault(STATUS_JOB, "job: no model");
  if (job->pool > JOB_POOL) return fault(STATUS_JOB, "job: pool may be %d at most", JOB_POOL);
  if (job->models > 1 && (job->inputs != NULL || job->outputs != NULL)) {
    return fault(STATUS_JOB, "job: inputs and outputs belong to one model");
  }
  if (job->together && (job->inputs != NULL || job->outputs != NULL || job->profile != NULL)) {
    return fault(STATUS_JOB, "job: models that take turns have no files of their own");
  }
  return true;
}
