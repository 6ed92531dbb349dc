/*
 * target.h - what every fuzz target states: one function that takes any bytes, and how often it is run.
 *
 * A target is linked twice: with tests/fuzz/driver.c for `make test` (a fixed number of executions from a
 * seed), and with libFuzzer for `make fuzz`. A broken property is a TD_ASSERT: it aborts.
 */
#ifndef TD_FUZZ_TARGET_H
#define TD_FUZZ_TARGET_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/util/error.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* For the driver. */
extern const long fuzz_executions; /* of `make test` */
extern const size_t fuzz_largest;  /* bytes of an input */

#define FUZZ_TARGET(executions, largest)                                                           \
    const long fuzz_executions = executions;                                                       \
    const size_t fuzz_largest = largest

/* The input as a text: malloc'd, with a NUL behind it. */
static inline char *fuzz_text(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);

    TD_ASSERT(text != NULL);
    if (size > 0)
        memcpy(text, data, size);
    text[size] = '\0';
    return text;
}

#endif
