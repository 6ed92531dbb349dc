#include "tests/support/test.h"

#include <math.h>
#include <unistd.h>

struct rng *test_rng(void)
{
    static struct rng rng;
    static int ready;

    if (!ready) {
        const char *seed = getenv("TD_SEED");
        struct rng_key key = {.seed = seed == NULL ? 1 : strtoull(seed, NULL, 10), .purpose = RNG_TEST};

        printf("seed %llu\n", (unsigned long long)key.seed);
        rng_init(&rng, &key);
        ready = 1;
    }
    return &rng;
}

int test_long(void)
{
    return getenv("TD_LONG") != NULL;
}

void test_poison(void *memory, size_t bytes)
{
    memset(memory, 0xff, bytes);
}

static char folder[256];

static void remove_folder(void)
{
    char command[300];

    snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    if (system(command) != 0)
        fprintf(stderr, "could not remove %s\n", folder);
}

const char *test_folder(void)
{
    if (folder[0] == '\0') {
        const char *base = getenv("TMPDIR");

        snprintf(folder, sizeof(folder), "%s/tdmpc2-test-XXXXXX", base == NULL ? "/tmp" : base);
        if (mkdtemp(folder) == NULL)
            fail_msg("mkdtemp %s failed", folder);
        atexit(remove_folder);
    }
    return folder;
}

void test_close(const float *a, const float *b, size_t count, double absolute, double relative,
                const char *file, int line)
{
    for (size_t i = 0; i < count; i++) {
        double bound = absolute + relative * fabs((double)b[i]);

        if (!(fabs((double)a[i] - (double)b[i]) <= bound)) {
            print_error("%s:%d: element %zu of %zu: %.9g, expected %.9g, allowed %.3g\n", file, line,
                        i, count, (double)a[i], (double)b[i], bound);
            _fail(file, line);
        }
    }
}

void test_gradient(double (*loss)(const float *x, void *context), void *context, float *x,
                   const float *grad, size_t count, double step, double tolerance,
                   const char *file, int line)
{
    size_t stride = count > 64 ? count / 64 : 1;
    double largest = 1e-12;

    for (size_t i = 0; i < count; i++)
        if (fabs((double)grad[i]) > largest) /* fmax here trips over a bug of gcc 12 for aarch64 */
            largest = fabs((double)grad[i]);
    for (size_t i = 0; i < count; i += stride) {
        float kept = x[i];
        float up = kept + (float)step, down = kept - (float)step;
        double slope;

        x[i] = up;
        slope = loss(x, context);
        x[i] = down;
        slope = (slope - loss(x, context)) / ((double)up - (double)down);
        x[i] = kept;
        if (!(fabs(slope - (double)grad[i]) <= tolerance * largest)) {
            print_error("%s:%d: gradient %zu of %zu is %.6g, central difference %.6g, largest %.6g\n",
                        file, line, i, count, (double)grad[i], slope, largest);
            _fail(file, line);
        }
    }
}
