/*
 * golden.h - replay recorded vectors of the official code through the code that trains and plans.
 *
 * Each replay prints one line per quantity and returns TD_OK when every one is within its tolerance,
 * GOLDEN_DIFFERS when one is past it, or the error that made the file unusable (a sentence is in err).
 */
#ifndef TD_TOOLS_GOLDEN_H
#define TD_TOOLS_GOLDEN_H

#include <stdbool.h>
#include <stdio.h>

#include "common/ckpt/safetensors.h"
#include "common/ckpt/weights.h"
#include "common/model/world_model.h"
#include "common/plan/mppi.h"
#include "common/util/error.h"
#include "learner/update.h"

#define GOLDEN_DIFFERS        TD_EAGAIN
#define GOLDEN_QUANTITIES_MAX 64
#define GOLDEN_TRIALS         4

/* How an error is measured against what is allowed. */
enum golden_measure {
    GOLDEN_ABSOLUTE,
    GOLDEN_RELATIVE, /* to the largest magnitude recorded in the same array */
};

/* The worst of one named quantity, over steps, calls and tensors. */
struct golden_quantity {
    char name[64];
    enum golden_measure measure;
    double allowed;
    double absolute, relative; /* largest seen */
    double used;               /* largest share of what was allowed */
    bool amplified;            /* rounding may be amplified: see golden_compare */
    double crowd;              /* absolute error that 99.9 % of elements must keep; 0: no such rule */
    unsigned long long elements, outside; /* of it: how many, how many past `crowd` */
};

/* The same replay with parameters moved by rounding errors: everything it computed, in order. */
struct golden_trial {
    float *values;
    size_t count, room;
};

/*
 * How far rounding alone moves things, found by trying: the replay is run GOLDEN_TRIALS times with
 * parameters moved by up to two units in the last place, then once to be judged.
 */
struct golden_noise {
    int running; /* the trial under way; GOLDEN_TRIALS: the replay that is judged */
    struct golden_trial trial[GOLDEN_TRIALS];
    size_t at;   /* values judged so far */
    bool failed; /* out of memory */
};

void golden_noise_perturb(world_model_t *model, int trial);

/* Keep what a trial computed; the largest distance of what is judged from what trials kept there. */
void golden_noise_keep(struct golden_noise *noise, const float *ours, size_t count);
double golden_noise_next(struct golden_noise *noise, const float *ours, size_t count);
void golden_noise_release(struct golden_noise *noise);

struct golden_report {
    int count;
    struct golden_quantity quantity[GOLDEN_QUANTITIES_MAX];
    struct golden_noise noise;
};

/* The quantity of this name, added when new. */
struct golden_quantity *golden_quantity(struct golden_report *report, const char *name,
                                        enum golden_measure measure, double allowed);

/*
 * Take ours [count] against recorded [count]. NaN equals NaN and an infinity itself; any other
 * mismatch of non-finite values is an infinite error.
 *
 * Relative errors are over the largest magnitude recorded here, plus 4 % of `background`: the size of
 * what cancels to give these numbers (0 when nothing does). float32 carries about 1e-6 of that into
 * them, whoever computes it: a policy loss of 0.09 is the mean of terms around 5, a value of 22 the
 * mean of Qs of +1000 and -960.
 *
 * Some quantities amplify rounding without bound: a plan's values follow its last mean, where two elites
 * that cancelling sums put within a few units of each other are weighed by exp; the gradient at the bias
 * of the last convolution is 0 but for rounding (SimNorm's groups lie within a channel), and Adam makes
 * steps of any size from it. Where `amplified`, five times what rounding is seen to do there (struct
 * golden_noise) is allowed besides.
 */
void golden_compare(struct golden_report *report, struct golden_quantity *quantity, const float *ours,
                    const float *recorded, size_t count, double background);

/* Print the table; TD_OK or GOLDEN_DIFFERS. */
int golden_report_print(const struct golden_report *report, FILE *out);

/* A recorded file: its sizes and coefficients, and where parameters come from. */
struct golden_case {
    const char *path;
    safetensors_t *file;
    weights_t *weights; /* a checkpoint given instead of the parameters in it; NULL: those */
    bool is_plan;
    int rounds; /* consecutive updates or plans */
    bool multitask;
    struct task_set tasks; /* of a multi-task run: action sizes and discounts */
    struct model_dims dims;
    struct update_config update;
    struct mppi_config plan;
};

/* What is not in the file. */
struct golden_options {
    const char *checkpoint; /* *.pt or safetensors file of parameters to use instead; NULL: the recorded ones */
    int threads;
};

/* Open and understand. TD_EINVAL for kinds that are not supported, with a sentence. */
int golden_open(struct golden_case *recorded, const char *path, const struct golden_options *options,
                struct error *err);
void golden_close(struct golden_case *recorded);

/* The model with the recorded parameters, moved when a trial is running. */
int golden_model(const struct golden_case *recorded, const struct golden_report *report, world_model_t **out,
                 struct error *err);

/* Read float32 tensor NAME of this shape (printf-style name); *out is malloc'd, the caller's. */
int golden_floats(const struct golden_case *recorded, float **out, int dims, const uint64_t *shape,
                  struct error *err, const char *format, ...) __attribute__((format(printf, 6, 7)));

/* As golden_floats for uint8. */
int golden_bytes(const struct golden_case *recorded, uint8_t **out, int dims, const uint64_t *shape,
                 struct error *err, const char *format, ...) __attribute__((format(printf, 6, 7)));

/* Read `count` recorded task indices [count]; 0 without tasks. */
int golden_tasks(const struct golden_case *recorded, uint32_t *out, int count, struct error *err, const char *name);

/* Read `count` recorded crops [count, 1, 1, 2], whole numbers 0 .. 6, to out [count, 2]. */
int golden_shifts(const struct golden_case *recorded, float *out, int count, struct error *err,
                  const char *format, ...) __attribute__((format(printf, 5, 6)));

/* Read the two heads of a recorded permutation of num_q. */
int golden_heads(const struct golden_case *recorded, int two[2], struct error *err, const char *format,
                 ...) __attribute__((format(printf, 4, 5)));

/* Replays of one open file. */
int golden_update(const struct golden_case *recorded, int threads, struct golden_report *report,
                  struct error *err);
int golden_plan(const struct golden_case *recorded, int threads, struct golden_report *report,
                struct error *err);

/* One vector file from opening to the printed table. */
int golden_file(const char *path, const struct golden_options *options, FILE *out, struct error *err);

/* Drive learner/schedule.c with stand-ins and compare event by event. */
int golden_schedule(const char *path, FILE *out, struct error *err);

#endif
