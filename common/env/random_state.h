/*
 * random_state.h - NumPy's legacy RandomState: the same seed gives the same numbers, to the bit.
 *
 * Only what the environments draw: uniform and normal doubles. The struct is plain memory: copying
 * it copies the stream, the cached normal included.
 *
 * Source: Matsumoto and Nishimura 1998 (MT19937); NumPy 1.26, numpy/random/src/{mt19937,legacy}.
 */
#ifndef TD_ENV_RANDOM_STATE_H
#define TD_ENV_RANDOM_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RANDOM_STATE_WORDS 624

struct random_state {
    uint32_t word[RANDOM_STATE_WORDS];
    uint32_t used;       /* words of the block handed out, 0..624 */
    uint32_t has_normal; /* 1: `normal` is the next normal draw */
    double normal;       /* 0 when has_normal is 0 */
};

/* np.random.RandomState(seed) for an integer seed. */
void random_state_seed(struct random_state *state, uint32_t seed);

/* The next 32 bits. */
uint32_t random_state_u32(struct random_state *state);

/* random_sample(): uniform in [0, 1), 53 bits. */
double random_state_sample(struct random_state *state);

/* uniform(low, high). A vector of NumPy is this, element by element. */
double random_state_uniform(struct random_state *state, double low, double high);

/* randn(): standard normal, polar method; draws come in pairs, the second is kept for the next call. */
double random_state_normal(struct random_state *state);

/* True when bytes from outside can be a state: counters in range, a finite cached value. */
bool random_state_valid(const struct random_state *state);

#endif
