/* json.h - reading JSON with cJSON, where want of memory is not taken for damage. */
#ifndef TD_UTIL_JSON_H
#define TD_UTIL_JSON_H

#include <stdbool.h>
#include <stddef.h>

#include <cjson/cJSON.h>

#include "common/util/error.h"

/*
 * Parse `length` bytes; with `whole` nothing but white space may follow the value, and text[length] is NUL.
 * The caller deletes *out. TD_OK, TD_ECORRUPT (no JSON), TD_ENOMEM; *out is then NULL.
 */
int json_parse(cJSON **out, const char *text, size_t length, bool whole);

#endif
