/*
 * rng.h - counter-based random numbers (Philox4x32-10).
 *
 * A stream is named by its key, not by its history: (seed, purpose, slot, environment, step, index),
 * asynchronous streams also by the epoch. Draws from one stream are the same whatever other streams
 * did before, on any number of threads (PROTOCOL, section 8).
 * Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
 */
#ifndef TD_UTIL_RNG_H
#define TD_UTIL_RNG_H

#include <stddef.h>
#include <stdint.h>

enum rng_purpose {
    RNG_INIT = 1,     /* parameter initialisation */
    RNG_UPDATE = 2,   /* noise, dropout masks and permutations of one update */
    RNG_PLAN = 3,     /* one planning call */
    RNG_SEED_ACTION = 4, /* random actions of the seeding phase */
    RNG_SAMPLE = 5,   /* the replay sampler's draws for one request */
    RNG_ENV = 6,      /* environment seeds */
    RNG_DEAL = 7,     /* multinomial draw of slices over shards */
    RNG_EVAL = 8,     /* planning during an evaluation */
    RNG_TEST = 100,
};

struct rng_key {
    uint64_t seed;
    uint32_t purpose; /* enum rng_purpose */
    uint32_t slot;
    uint32_t env;
    uint32_t epoch; /* 0 in lock-step */
    uint64_t step;
};

struct rng {
    uint32_t key[2];
    uint32_t counter[4]; /* [0..1] the block within the stream, [2..3] the stream */
    uint32_t block[4];   /* the current block's output */
    unsigned used;       /* words of it handed out, 4 = none left */
};

/* The stream of this key from its beginning. Distinct keys give independent streams. */
void rng_init(struct rng *rng, const struct rng_key *key);

/* A stream of its own for part `index` of this one; does not move `rng`. */
void rng_fork(struct rng *out, const struct rng *rng, uint64_t index);

uint32_t rng_u32(struct rng *rng);
uint64_t rng_u64(struct rng *rng);

/* Uniform in [0, n), unbiased; n > 0. */
uint32_t rng_below(struct rng *rng, uint32_t n);

/* Uniform in [0, 1): 24 bits, and 53 bits. */
float rng_float(struct rng *rng);
double rng_double(struct rng *rng);

/* out [count]: uniform in [low, high). */
void rng_uniform(struct rng *rng, float *out, size_t count, float low, float high);

/* out [count]: standard normal (Box-Muller, pairs; an odd count discards the second of the last). */
void rng_normal(struct rng *rng, float *out, size_t count);

/* out [count]: exponential with mean 1, never 0. */
void rng_exponential(struct rng *rng, float *out, size_t count);

/* out [count]: a uniform permutation of 0..count-1. */
void rng_permutation(struct rng *rng, int *out, int count);

/* out [count]: 1 with probability keep, else 0. */
void rng_mask(struct rng *rng, uint8_t *out, size_t count, float keep);

/* Mix two words into one (used for deriving 32-bit environment seeds and the like). */
uint64_t rng_hash(uint64_t a, uint64_t b);

#endif
