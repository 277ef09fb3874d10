#include "digest.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct sha256 {
  uint32_t state[8];
  uint64_t bytes;
  unsigned char block[64];
};

/* The fractional parts of the cube roots of the first 64 primes. */
static const uint32_t ROUND[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t turned(uint32_t word, int by) { return word >> by | word << (32 - by); }

static void compress(struct sha256 *sha) {
  uint32_t w[64];
  for (int i = 0; i < 16; i++) {
    const unsigned char *b = sha->block + 4 * i;
    w[i] = (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
  }
  for (int i = 16; i < 64; i++) {
    uint32_t small = turned(w[i - 15], 7) ^ turned(w[i - 15], 18) ^ w[i - 15] >> 3;
    uint32_t large = turned(w[i - 2], 17) ^ turned(w[i - 2], 19) ^ w[i - 2] >> 10;
    w[i] = w[i - 16] + small + w[i - 7] + large;
  }
  uint32_t v[8];
  memcpy(v, sha->state, sizeof v);
  for (int i = 0; i < 64; i++) {
    uint32_t s1 = turned(v[4], 6) ^ turned(v[4], 11) ^ turned(v[4], 25);
    uint32_t t1 = v[7] + s1 + ((v[4] & v[5]) ^ (~v[4] & v[6])) + ROUND[i] + w[i];
    uint32_t s0 = turned(v[0], 2) ^ turned(v[0], 13) ^ turned(v[0], 22);
    uint32_t t2 = s0 + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
    memmove(v + 1, v, 7 * sizeof *v);
    v[4] += t1;
    v[0] = t1 + t2;
  }
  for (int i = 0; i < 8; i++) sha->state[i] += v[i];
}

static void start(struct sha256 *sha) {
  static const uint32_t first[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  memcpy(sha->state, first, sizeof first);
  sha->bytes = 0;
}

static void add(struct sha256 *sha, const unsigned char *bytes, size_t size) {
  while (size > 0) {
    size_t used = sha->bytes % 64, part = 64 - used < size ? 64 - used : size;
    memcpy(sha->block + used, bytes, part);
    sha->bytes += part;
    bytes += part;
    size -= part;
    if (sha->bytes % 64 == 0) compress(sha);
  }
}

static void finish(struct sha256 *sha, char hex[DIGEST_TEXT]) {
  uint64_t bits = sha->bytes * 8;
  unsigned char length[8];
  for (int i = 0; i < 8; i++) length[i] = (unsigned char)(bits >> (56 - 8 * i));
  add(sha, (const unsigned char *)"\x80", 1);
  while (sha->bytes % 64 != 56) add(sha, (const unsigned char *)"", 1);
  add(sha, length, 8);
  for (int i = 0; i < 8; i++) snprintf(hex + 8 * i, 9, "%08x", (unsigned)sha->state[i]);
}

void digest_of_bytes(const void *bytes, size_t size, char hex[DIGEST_TEXT]) {
  struct sha256 sha;
  start(&sha);
  add(&sha, bytes, size);
  finish(&sha, hex);
}

bool digest_of_file(const char *path, char hex[DIGEST_TEXT]) {
  FILE *file = fopen(path, "rb");
  if (file == NULL) return false;
  static unsigned char buffer[1 << 16];
  struct sha256 sha;
  start(&sha);
  size_t size;
  while ((size = fread(buffer, 1, sizeof buffer, file)) > 0) add(&sha, buffer, size);
  bool read = !ferror(file);
  fclose(file);
  if (read) finish(&sha, hex);
  return read;
}
