/* One inference of the model that is linked into this program, and its outputs as text. */
#ifndef EDGEFIT_ONCE_H
#define EDGEFIT_ONCE_H

#include <stdbool.h>

/* Runs on the raw tensors of the file `inputs` (NULL: what the runner draws from seed 0) and prints every output;
 * `outputs` (or NULL) gets the raw tensors. False after a fault. */
bool once(const char *inputs, const char *outputs);

#endif
