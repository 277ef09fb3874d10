/* The job file: what to run, how often, and under which conditions. docs/runner.md has the format. */
#ifndef EDGEFIT_JOB_H
#define EDGEFIT_JOB_H

#include <stdbool.h>

enum { JOB_MODELS = 64, JOB_LIBRARIES = 4, JOB_POOL = 16 };

struct job_library {
  char *runtime, *version, *sha256, *path; /* version and sha256 may be NULL: not checked */
};

struct job_model {
  char *runtime, *sha256, *path; /* sha256 may be NULL: not checked */
};

struct job {
  struct job_library library[JOB_LIBRARIES];
  struct job_model model[JOB_MODELS];
  int libraries, models;
  int threads;
  int core;    /* where a one-thread run is pinned; -1: the last allowed one */
  char *cores; /* where a run of several threads is kept, as "7,6,5", or NULL: everywhere */
  int trials;  /* fresh sessions of every model */
  int windows; /* records of one session, one after the other */
  long least, most; /* timed runs of a window; most 0: no limit */
  double seconds;   /* a window ends after this, but not before `least` runs */
  int warmup;       /* runs of one round of warm-up */
  double warmup_seconds;
  long seed;
  int turns;         /* above 1: all models are open at once and share their windows' runs out in so many turns */
  int pool;          /* input sets that take turns */
  int together;      /* 1: all models are open at once, one run each in turns, inference alone timed */
  int marks;         /* 1: mark every timed run for targets/counter */
  int placement;     /* 1: when all is timed, each runtime tells where its operators run */
  double cadence_hz; /* 0: one run after the other */
  double max_celsius, cool_seconds; /* max_celsius 0: no gate */
  double min_battery;               /* percent; 0: no gate */
  double deadline; /* seconds after which the runner ends itself; 0: none */
  char *lock;      /* a file that only one measurement at a time may hold, or NULL */
  char *inputs, *outputs; /* files of raw tensors, or NULL */
  char *profile;   /* how the runtime's profiles of its operators begin, or NULL: none */
};

/* Reads a job file; false after a fault. What it points to lives until the process ends. */
bool job_read(const char *path, struct job *job);

#endif
