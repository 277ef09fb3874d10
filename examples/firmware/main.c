/* A firmware that carries its network: computes it on one input that is the same everywhere, and says what comes out. */
#include <math.h>
#include <stdio.h>

#include "keyword_net.h"

int main(void) {
  static float input[KEYWORD_NET_INPUT_0_ELEMENTS], output[KEYWORD_NET_OUTPUT_0_ELEMENTS];
  /* Where a real firmware has a sensor: a wave between -1 and 1, with no rounding that differs between processors. */
  for (unsigned i = 0; i < KEYWORD_NET_INPUT_0_ELEMENTS; i++) input[i] = (float)(i * 37 % 257) / 128.0f - 1.0f;
  for (unsigned i = 0; i < KEYWORD_NET_OUTPUT_0_ELEMENTS; i++) output[i] = NAN;
  keyword_net_run((const void *[]){input}, (void *[]){output});
  printf("network %s\n", KEYWORD_NET_SHA256);
  for (unsigned i = 0; i < KEYWORD_NET_OUTPUT_0_ELEMENTS; i++) {
    if (isnan(output[i])) return fprintf(stderr, "error: nothing computed: out of memory\n"), 1;
    printf("%s[%u] %.9g\n", KEYWORD_NET_OUTPUT_0_NAME, i, (double)output[i]);
  }
  return 0;
}
