/* How a model is measured: fresh session, first inference, warm-up until it settles, timed runs. */
#ifndef EDGEFIT_PROTOCOL_H
#define EDGEFIT_PROTOCOL_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "job.h"
#include "session.h"

/* Set by a signal: the runner ends after the inference that is under way. */
extern volatile sig_atomic_t stopped;

/* Nanoseconds of a clock that only goes forward. */
int64_t now_ns(void);

/* One trial of `count` models, all open at once, in this order; writes one record for each window of each. `written`
 * counts them. False after a fault or stop. */
bool protocol_trial(const struct job *job, const int *models, int count, int trial,
                    const struct runtime *const *runtimes, const char *const *versions, FILE *out, int *written);

/* One trial of all models at once, in turns, inference alone timed; writes one record for each model. */
bool protocol_turns(const struct job *job, int trial, const struct runtime *const *runtimes,
                    const char *const *versions, FILE *out, int *written);

/* Opens one model anew and writes where the runtime runs its operators, where it tells. False where it cannot be
 * written. */
bool protocol_placement(const struct job *job, int model, const struct runtime *runtime, FILE *out, int *written);

/* In which order trial number `trial` runs the models: rotated by one each time, every other reversed. */
void protocol_order(int models, int trial, int order[JOB_MODELS]);

/* Median nanoseconds that the timed loop sees where an inference does nothing: what it adds to each run. */
int64_t protocol_overhead_ns(void);

#endif
