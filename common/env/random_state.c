#include "common/env/random_state.h"

#include <math.h>

#define SHIFT 397 /* distance of the word that is mixed in */

void random_state_seed(struct random_state *state, uint32_t seed)
{
    state->word[0] = seed;
    for (uint32_t i = 1; i < RANDOM_STATE_WORDS; i++) {
        uint32_t last = state->word[i - 1];

        state->word[i] = 1812433253u * (last ^ (last >> 30)) + i;
    }
    state->used = RANDOM_STATE_WORDS;
    state->has_normal = 0;
    state->normal = 0;
}

/* One word of the next block from its neighbours: upper bit of `high`, lower bits of `low`. */
static uint32_t twist(uint32_t high, uint32_t low, uint32_t mixed)
{
    uint32_t joined = (high & 0x80000000u) | (low & 0x7fffffffu);

    return mixed ^ (joined >> 1) ^ ((low & 1) ? 0x9908b0dfu : 0);
}

static void next_block(uint32_t *word)
{
    int i = 0;

    for (; i < RANDOM_STATE_WORDS - SHIFT; i++)
        word[i] = twist(word[i], word[i + 1], word[i + SHIFT]);
    for (; i < RANDOM_STATE_WORDS - 1; i++)
        word[i] = twist(word[i], word[i + 1], word[i + SHIFT - RANDOM_STATE_WORDS]);
    word[i] = twist(word[i], word[0], word[SHIFT - 1]);
}

uint32_t random_state_u32(struct random_state *state)
{
    uint32_t y;

    if (state->used >= RANDOM_STATE_WORDS) {
        next_block(state->word);
        state->used = 0;
    }
    y = state->word[state->used++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680u;
    y ^= (y << 15) & 0xefc60000u;
    return y ^ (y >> 18);
}

double random_state_sample(struct random_state *state)
{
    uint32_t a = random_state_u32(state) >> 5;
    uint32_t b = random_state_u32(state) >> 6;

    return ((double)a * 67108864.0 + (double)b) / 9007199254740992.0;
}

double random_state_uniform(struct random_state *state, double low, double high)
{
    double range = high - low;

    return low + range * random_state_sample(state);
}

double random_state_normal(struct random_state *state)
{
    double x1, x2, r, f;

    if (state->has_normal) {
        double normal = state->normal;

        state->has_normal = 0;
        state->normal = 0;
        return normal;
    }
    do {
        x1 = 2.0 * random_state_sample(state) - 1.0;
        x2 = 2.0 * random_state_sample(state) - 1.0;
        r = x1 * x1 + x2 * x2;
    } while (r >= 1.0 || r == 0.0);
    f = sqrt(-2.0 * log(r) / r);
    state->normal = f * x1;
    state->has_normal = 1;
    return f * x2;
}

bool random_state_valid(const struct random_state *state)
{
    return state->used <= RANDOM_STATE_WORDS && state->has_normal <= 1 && isfinite(state->normal);
}
