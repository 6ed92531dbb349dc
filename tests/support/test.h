/*
 * test.h - what every unit test includes: cmocka, a seeded stream, gradient checks, scratch folders.
 */
#ifndef TD_TEST_H
#define TD_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/util/error.h"
#include "common/util/rng.h"

/* A stream seeded by TD_SEED (printed on first use), the same for every test of a program. */
struct rng *test_rng(void);

/* True in `make test-long`. */
int test_long(void);

/* Fill with a NaN pattern: an element left unwritten fails the checks below. */
void test_poison(void *memory, size_t bytes);

/* A fresh folder under the temporary directory; removed at exit. */
const char *test_folder(void);

/* |a - b| <= absolute + relative * |b| for every element, NaN fails; says which element. */
#define assert_close(a, b, count, absolute, relative)                                              \
    test_close((a), (b), (count), (absolute), (relative), __FILE__, __LINE__)
void test_close(const float *a, const float *b, size_t count, double absolute, double relative,
                const char *file, int line);

/*
 * Compare grad [count] with central differences of loss(x, context), moving each x by `step`.
 * Errors are relative to the largest gradient; at most 64 elements, spread evenly, are tried.
 */
#define assert_gradient(loss, context, x, grad, count, step, tolerance)                            \
    test_gradient((loss), (context), (x), (grad), (count), (step), (tolerance), __FILE__, __LINE__)
void test_gradient(double (*loss)(const float *x, void *context), void *context, float *x,
                   const float *grad, size_t count, double step, double tolerance,
                   const char *file, int line);

/* Assert TD_OK and print err->text otherwise. */
#define assert_ok(call, err)                                                                       \
    do {                                                                                           \
        int rc_ = (call);                                                                          \
        if (rc_ != TD_OK)                                                                          \
            fail_msg("%s: %d %s", #call, rc_, (err).text);                                         \
    } while (0)

#endif
