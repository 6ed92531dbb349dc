#include "common/env/probe.h"

#include <gnu/libc-version.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <xxhash.h>

#include "common/env/random_state.h"

#define POINTS 4096

/* What the recording machine's library gives for all functions at all points. */
#define RECORDED 0xe92e73df18247bfbull

#ifdef __x86_64__
static const bool is_x86_64 = true;
#else
static const bool is_x86_64 = false;
#endif

/* Functions with the domain they are tried on. */
struct function {
    double (*one)(double);
    double (*two)(double, double);
    double low, high;
};

static const struct function functions[] = {
    {sin, NULL, -20, 20}, {cos, NULL, -20, 20}, {tan, NULL, -1.5, 1.5}, {asin, NULL, -1, 1},
    {acos, NULL, -1, 1},  {exp, NULL, -20, 5},  {log, NULL, 1e-9, 10},  {log1p, NULL, 0, 100},
    {NULL, atan2, -2, 2}, {NULL, pow, 0, 10},
};

static uint64_t library_hash(void)
{
    static const size_t count = sizeof(functions) / sizeof(functions[0]);
    struct random_state random;
    uint64_t hash = 0;

    random_state_seed(&random, 1);
    for (size_t i = 0; i < count; i++) {
        const struct function *f = &functions[i];

        for (int j = 0; j < POINTS; j++) {
            double x = random_state_uniform(&random, f->low, f->high);
            double y = f->one != NULL ? f->one(x)
                                      : f->two(x, random_state_uniform(&random, f->low, f->high));

            hash = XXH64(&y, sizeof(y), hash);
        }
    }
    return hash;
}

bool probe_exact(struct error *why)
{
    uint64_t hash = library_hash();

    if (!is_x86_64)
        error_set(why, TD_EINVAL, "this processor is not x86-64, on which the recordings were made");
    else if (hash != RECORDED)
        error_set(why, TD_EINVAL,
                  "the mathematical functions here (glibc %s) round otherwise (%016llx) than those of "
                  "the recordings (glibc 2.36 on a processor with FMA)",
                  gnu_get_libc_version(), (unsigned long long)hash);
    return is_x86_64 && hash == RECORDED;
}
