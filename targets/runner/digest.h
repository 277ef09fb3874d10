/* SHA-256 (FIPS 180-4) of a file, so that what runs here is what was sent. */
#ifndef EDGEFIT_DIGEST_H
#define EDGEFIT_DIGEST_H

#include <stdbool.h>
#include <stddef.h>

enum { DIGEST_TEXT = 65 };

/* Hexadecimal digest of a file's bytes; false when it cannot be read. */
bool digest_of_file(const char *path, char hex[DIGEST_TEXT]);

/* The same of bytes in memory. */
void digest_of_bytes(const void *bytes, size_t size, char hex[DIGEST_TEXT]);

#endif
