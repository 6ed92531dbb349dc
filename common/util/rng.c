#include "common/util/rng.h"

#include <math.h>
#include <string.h>

#include "common/util/error.h"

static void philox(const uint32_t key[2], const uint32_t counter[4], uint32_t out[4])
{
    uint32_t k0 = key[0], k1 = key[1];
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];

    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0;
        uint64_t p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        uint32_t n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;

        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* SplitMix64's finaliser over a combination of both words. */
uint64_t rng_hash(uint64_t a, uint64_t b)
{
    uint64_t x = a * 0x9E3779B97F4A7C15u + (b ^ (b >> 29)) * 0xD1B54A32D192ED03u + 0x8CB92BA72F3D8DD7u;

    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

void rng_init(struct rng *rng, const struct rng_key *key)
{
    uint64_t name = rng_hash(key->seed, key->purpose);
    uint64_t stream;

    name = rng_hash(name, ((uint64_t)key->slot << 32) | key->env);
    name = rng_hash(name, key->epoch);
    stream = rng_hash(name, key->step);
    *rng = (struct rng){
        .key = {(uint32_t)name, (uint32_t)(name >> 32)},
        .counter = {0, 0, (uint32_t)stream, (uint32_t)(stream >> 32)},
        .used = 4,
    };
}

void rng_fork(struct rng *out, const struct rng *rng, uint64_t index)
{
    uint64_t stream = rng_hash(((uint64_t)rng->counter[3] << 32) | rng->counter[2], index + 1);

    *out = (struct rng){
        .key = {rng->key[0], rng->key[1]},
        .counter = {0, 0, (uint32_t)stream, (uint32_t)(stream >> 32)},
        .used = 4,
    };
}

uint32_t rng_u32(struct rng *rng)
{
    if (rng->used == 4) {
        philox(rng->key, rng->counter, rng->block);
        if (++rng->counter[0] == 0)
            rng->counter[1]++;
        rng->used = 0;
    }
    return rng->block[rng->used++];
}

uint64_t rng_u64(struct rng *rng)
{
    uint64_t low = rng_u32(rng);

    return low | (uint64_t)rng_u32(rng) << 32;
}

uint32_t rng_below(struct rng *rng, uint32_t n)
{
    uint64_t product;
    uint32_t low;

    TD_ASSERT(n > 0);
    /* Lemire's method: the multiply-shift is unbiased once short low halves are redrawn. */
    do {
        product = (uint64_t)rng_u32(rng) * n;
        low = (uint32_t)product;
    } while (low < n && low < (uint32_t)-n % n);
    return (uint32_t)(product >> 32);
}

float rng_float(struct rng *rng)
{
    return (float)(rng_u32(rng) >> 8) * 0x1p-24f;
}

double rng_double(struct rng *rng)
{
    return (double)(rng_u64(rng) >> 11) * 0x1p-53;
}

void rng_uniform(struct rng *rng, float *out, size_t count, float low, float high)
{
    for (size_t i = 0; i < count; i++)
        out[i] = low + (high - low) * rng_float(rng);
}

void rng_normal(struct rng *rng, float *out, size_t count)
{
    for (size_t i = 0; i < count; i += 2) {
        float u = ((float)(rng_u32(rng) >> 8) + 1.0f) * 0x1p-24f; /* (0, 1] */
        float radius = sqrtf(-2.0f * logf(u));
        float angle = 6.2831853071795865f * rng_float(rng);

        out[i] = radius * cosf(angle);
        if (i + 1 < count)
            out[i + 1] = radius * sinf(angle);
    }
}

void rng_exponential(struct rng *rng, float *out, size_t count)
{
    /* The midpoints of 2^23 cells of (0, 1): neither 0 nor 1, so the result is positive. */
    for (size_t i = 0; i < count; i++)
        out[i] = -logf(((float)(rng_u32(rng) >> 9) + 0.5f) * 0x1p-23f);
}

void rng_permutation(struct rng *rng, int *out, int count)
{
    for (int i = 0; i < count; i++) {
        int j = (int)rng_below(rng, (uint32_t)i + 1);

        if (j != i)
            out[i] = out[j];
        out[j] = i;
    }
}

/* Where zeros are rare, the number of ones before the next: geometric, floor(ln u / ln keep). */
static void mask_by_gaps(struct rng *rng, uint8_t *out, size_t count, float keep)
{
    float scale = 1.0f / logf(keep);

    memset(out, 1, count);
    for (size_t i = 0;; i++) {
        float u = ((float)(rng_u32(rng) >> 8) + 1.0f) * 0x1p-24f; /* (0, 1] */
        float gap = logf(u) * scale;

        if (gap >= (float)(count - i))
            return;
        i += (size_t)gap;
        if (i >= count)
            return;
        out[i] = 0;
    }
}

void rng_mask(struct rng *rng, uint8_t *out, size_t count, float keep)
{
    if (keep >= 0.75f && keep < 1.0f && count > 0) {
        mask_by_gaps(rng, out, count, keep);
        return;
    }
    for (size_t i = 0; i < count; i++)
        out[i] = rng_float(rng) < keep;
}
