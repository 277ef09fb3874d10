/* A firmware that carries its model: says what it holds, and that it is whole. */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>

#include "keyword_model.h"

/* FNV-1a, 64 bits: to compare with the file's. */
static uint64_t hash(const unsigned char *bytes, uint32_t size) {
  uint64_t value = 0xcbf29ce484222325u;
  for (uint32_t i = 0; i < size; i++) value = (value ^ bytes[i]) * 0x100000001b3u;
  return value;
}

int main(void) {
  if ((uintptr_t)keyword_model_data % KEYWORD_MODEL_ALIGN != 0) return 1;
  printf("model %u bytes, hash %016" PRIx64 "\n", KEYWORD_MODEL_SIZE, hash(keyword_model_data, KEYWORD_MODEL_SIZE));
  printf("sha256 %s\n", KEYWORD_MODEL_SHA256);
  printf("input %s, %u values; output %s, %u values\n", KEYWORD_MODEL_INPUT_0_TYPE, KEYWORD_MODEL_INPUT_0_ELEMENTS,
         KEYWORD_MODEL_OUTPUT_0_TYPE, KEYWORD_MODEL_OUTPUT_0_ELEMENTS);
  return 0;
}
