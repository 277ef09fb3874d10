/* All models of a job open at once, run in turns: each one's weights are then as far from the processor as those
 * of a layer between two inferences of a network. Only inference is timed; inputs and outputs are touched before. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fault.h"
#include "json.h"
#include "protocol.h"

enum { ROUNDS = 1 << 12 };

/* Nanoseconds of every model in every round, [model][round]. */
struct rounds {
  int64_t *ns;
  int done;
};

static bool one_turn(struct session *session, int set, int64_t *took) {
  const struct runtime *runtime = session->runtime;
  if (!runtime->put(session, set) || !runtime->take(session)) return false;
  int64_t start = now_ns();
  bool ran = runtime->infer(session);
  *took = now_ns() - start;
  return ran;
}

/* Rounds until `seconds` are over and `least` are done, or until `most`. */
static bool take_turns(const struct job *job, struct session *session, struct rounds *rounds) {
  int64_t stop = now_ns() + (int64_t)(job->seconds * 1e9);
  for (rounds->done = 0; rounds->done < ROUNDS && !stopped;) {
    for (int i = 0; i < job->models; i++) {
      if (!one_turn(&session[i], rounds->done % job->pool, &rounds->ns[i * ROUNDS + rounds->done])) return false;
    }
    rounds->done++;
    if ((job->most > 0 && rounds->done >= job->most) || (now_ns() > stop && rounds->done >= job->least)) break;
  }
  return !stopped;
}

static bool write_turns(const struct job *job, int trial, const struct rounds *rounds, const char *const *versions,
                        FILE *out, int *written) {
  for (int i = 0; i < job->models; i++) {
    bool first = false;
    fputs("{\"type\":\"trial\"", out);
    json_count_member(out, &first, "trial", trial);
    json_count_member(out, &first, "model", i);
    json_count_member(out, &first, "window", 0);
    json_text_member(out, &first, "version", versions[i]);
    json_count_member(out, &first, "runs", rounds->done);
    json_counts_member(out, &first, "wall_ns", &rounds->ns[i * ROUNDS], (size_t)rounds->done);
    fputs("}\n", out);
    ++*written;
  }
  return (fflush(out) == 0 && !ferror(out)) || fault(STATUS_OUTPUT, "cannot write samples: %s", strerror(errno));
}

bool protocol_turns(const struct job *job, int trial, const struct runtime *const *runtimes,
                    const char *const *versions, FILE *out, int *written) {
  struct session *session = calloc((size_t)job->models, sizeof *session);
  struct rounds rounds = {.ns = malloc((size_t)job->models * ROUNDS * sizeof *rounds.ns)};
  bool well = (session != NULL && rounds.ns != NULL) || fault(STATUS_MODEL, "out of memory");
  int opened = 0;
  while (well && opened < job->models) {
    session[opened].runtime = runtimes[opened];
    well = runtimes[opened]->open(&session[opened], job->model[opened].path, job->threads, job->pool, NULL);
    if (well) session_fill(&session[opened], job->pool, (uint64_t)job->seed * 1000003u + (uint64_t)trial);
    well = well && session_run(&session[opened], 0);
    opened++;
  }
  well = well && take_turns(job, session, &rounds) && write_turns(job, trial, &rounds, versions, out, written);
  for (int i = 0; i < opened; i++) runtimes[i]->close(&session[i]);
  free(rounds.ns);
  free(session);
  return well;
}
