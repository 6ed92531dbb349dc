/* golden_noise.c - how far float32 rounding alone moves what a replay computes. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/util/rng.h"
#include "tools/golden.h"

#define PERTURBATION 0x1p-22f /* two units in the last place, at most */

void golden_noise_perturb(world_model_t *model, int trial)
{
    struct rng_key key = {.seed = (uint64_t)trial, .purpose = RNG_TEST};
    struct rng rng;

    rng_init(&rng, &key);
    for (size_t i = 0; i < model_all_floats(&model->layout); i++)
        model->parameters[i] *= 1.0f + PERTURBATION * ((float)rng_below(&rng, 3) - 1.0f);
}

void golden_noise_keep(struct golden_noise *noise, const float *ours, size_t count)
{
    struct golden_trial *trial = &noise->trial[noise->running];

    if (trial->count + count > trial->room) {
        size_t room = 2 * (trial->count + count);
        float *values = realloc(trial->values, room * sizeof(float));

        if (values == NULL) {
            noise->failed = true;
            return;
        }
        trial->values = values;
        trial->room = room;
    }
    memcpy(trial->values + trial->count, ours, count * sizeof(float));
    trial->count += count;
}

double golden_noise_next(struct golden_noise *noise, const float *ours, size_t count)
{
    double largest = 0;

    for (int t = 0; t < GOLDEN_TRIALS; t++) {
        const struct golden_trial *trial = &noise->trial[t];

        TD_ASSERT(noise->failed || noise->at + count <= trial->count, "%zu of %zu", noise->at + count, trial->count);
        for (size_t i = 0; !noise->failed && i < count; i++) {
            double moved = fabs((double)ours[i] - (double)trial->values[noise->at + i]);

            if (isfinite(moved))
                largest = fmax(largest, moved);
        }
    }
    noise->at += count;
    return largest;
}

void golden_noise_release(struct golden_noise *noise)
{
    for (int t = 0; t < GOLDEN_TRIALS; t++)
        free(noise->trial[t].values);
    *noise = (struct golden_noise){.running = GOLDEN_TRIALS};
}
