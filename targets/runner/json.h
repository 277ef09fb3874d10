/* Writes JSON members to a stream; commas are kept by the caller's `first` flag. */
#ifndef EDGEFIT_JSON_H
#define EDGEFIT_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* `"key":`, after a comma where this is not the first member. */
void json_key(FILE *out, bool *first, const char *key);

/* A string, escaped; NULL becomes null. Bytes that are not UTF-8 text become '?'. */
void json_text(FILE *out, const char *text);

/* Members: what could not be read is null. A double is unknown when it is NaN. */
void json_text_member(FILE *out, bool *first, const char *key, const char *text);
void json_number_member(FILE *out, bool *first, const char *key, double value);
void json_count_member(FILE *out, bool *first, const char *key, int64_t value);
void json_counts_member(FILE *out, bool *first, const char *key, const int64_t *values, size_t count);

#endif
