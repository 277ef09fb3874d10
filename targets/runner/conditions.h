/* What the device is and the state it is in. What cannot be read is null, never guessed. */
#ifndef EDGEFIT_CONDITIONS_H
#define EDGEFIT_CONDITIONS_H

#include <stdbool.h>
#include <stdio.h>

/* Writes the conditions as a JSON object; clocks and governor are those of `core`. */
void conditions_write(FILE *out, int core);

/* Writes the cores that the runner may use as a JSON list. */
void conditions_write_affinity(FILE *out);

/* The hottest thermal zone in degrees Celsius; NaN when there is none. */
double conditions_celsius(void);

/* The clock of `core` in MHz; NaN when unknown. */
double conditions_mhz(int core);

/* The battery's charge in percent; NaN when there is no battery. */
double conditions_battery(void);

#endif
