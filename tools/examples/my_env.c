/* my_env.c - an environment of one's own: push a cart to the mark and hold it there. See README.md. */
#include "plugin.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct cart {
    double place, speed, mark;
    uint64_t random; /* its own stream: nothing global */
};

/* Uniform in [-1, 1]. */
static double draw(struct cart *cart)
{
    cart->random = cart->random * 6364136223846793005u + 1442695040888963407u;
    return (double)(cart->random >> 11) / (double)(1ull << 52) - 1;
}

static void observe(const struct cart *cart, float *obs)
{
    obs[0] = (float)cart->place;
    obs[1] = (float)cart->speed;
    obs[2] = (float)(cart->mark - cart->place);
}

static void *create(uint32_t seed)
{
    struct cart *cart = calloc(1, sizeof(*cart));

    if (cart != NULL)
        cart->random = seed;
    return cart;
}

static int reset(void *env, float *obs)
{
    struct cart *cart = env;

    cart->place = draw(cart);
    cart->mark = draw(cart);
    cart->speed = 0;
    observe(cart, obs);
    return 0;
}

static int step(void *env, const float *action, float *obs, struct tdmpc2_step *result)
{
    struct cart *cart = env;
    double away;

    cart->speed = 0.8 * cart->speed + 0.1 * action[0];
    cart->place = fmax(-2, fmin(2, cart->place + cart->speed));
    away = fabs(cart->mark - cart->place);
    result->reward = 1 / (1 + 10 * away * away);
    result->has_success = 1;
    result->success = away < 0.1;
    observe(cart, obs);
    return 0;
}

static void state_get(void *env, void *bytes)
{
    memcpy(bytes, env, sizeof(struct cart));
}

static int state_set(void *env, const void *bytes)
{
    memcpy(env, bytes, sizeof(struct cart));
    return 0;
}

const struct tdmpc2_env tdmpc2_env = {
    .abi = TDMPC2_ENV_ABI,
    .size = sizeof(struct tdmpc2_env),
    .name = "a cart to be held at a mark",
    .obs_dim = 3,
    .action_dim = 1,
    .episode_length = 50,
    .state_size = sizeof(struct cart),
    .create = create,
    .reset = reset,
    .step = step,
    .state_get = state_get,
    .state_set = state_set,
    .close = free,
};
