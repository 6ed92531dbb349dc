/*
 * toy.c - a point mass in the plane, for tests of the distributed system: no files, microseconds a
 * step, the same bits on every machine, and something to learn.
 *
 *   toy[:LENGTH]           drive to the middle and stay; never terminates
 *   toy-episodic[:LENGTH]  the middle repels: who leaves the box has fallen, a terminal state
 *
 * And two to be learned by one agent, whose best return is LENGTH, while actions at random get about a third of it. Each
 * shows numbers in [-1, 1] that stay for the episode and rewards a step by 1 less the mean square of what the action
 * is off:
 *
 *   toy-copy[:LENGTH]      two numbers; the action is to be what is shown
 *   toy-oppose[:LENGTH]    one number; the action is to be its opposite
 *
 * LENGTH is the time limit in agent steps, 50 if not given. With obs=rgb the box is seen from above,
 * x to the right, y up, the mass a white disc: frames without any graphics library.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/env/env_class.h"
#include "common/env/random_state.h"

#define TOY_LENGTH     50
#define TOY_LENGTH_MAX 1000000
#define BOX            2.0 /* half-width */
#define PUSH           0.1 /* velocity gained by a full action */
#define DRAG           0.8 /* velocity kept from step to step */
#define REPEL          0.06
#define RADIUS         0.25 /* of the disc that is drawn */

enum toy_kind { TOY_DRIVE = 0, TOY_FALL, TOY_COPY, TOY_OPPOSE, TOY_KINDS };

static const struct {
    const char *name;
    uint32_t obs_dim, action_dim;
} kinds[TOY_KINDS] = {
    [TOY_DRIVE] = {"toy", 4, 2},
    [TOY_FALL] = {"toy-episodic", 4, 2},
    [TOY_COPY] = {"toy-copy", 2, 2},
    [TOY_OPPOSE] = {"toy-oppose", 1, 1},
};

struct toy_state {
    struct random_state random;
    double position[2], velocity[2];
};

struct toy {
    struct env env;
    enum toy_kind kind;
    struct toy_state state; /* of the last two kinds, position is what is shown */
};

/* The length behind the colon; 0 when there is none it could be. */
static long parse_length(const char *text)
{
    char *end;
    long length;

    if (text[0] == '\0')
        return TOY_LENGTH;
    if (text[0] != ':' || text[1] < '1' || text[1] > '9')
        return 0;
    length = strtol(text + 1, &end, 10);
    return *end == '\0' && length <= TOY_LENGTH_MAX ? length : 0;
}

/* TOY_KINDS: it is none. */
static enum toy_kind kind_of(const char *task)
{
    size_t length = strcspn(task, ":");
    int kind = 0;

    while (kind < TOY_KINDS && (strlen(kinds[kind].name) != length || strncmp(task, kinds[kind].name, length) != 0))
        kind++;
    return (enum toy_kind)kind;
}

static bool is_shown(enum toy_kind kind)
{
    return kind == TOY_COPY || kind == TOY_OPPOSE;
}

static bool toy_find(const char *task, struct env_spec *spec)
{
    enum toy_kind kind = kind_of(task);
    long length = parse_length(task + strcspn(task, ":"));

    if (kind == TOY_KINDS || length == 0)
        return false;
    *spec = (struct env_spec){
        .obs_type = ENV_OBS_STATE,
        .obs_dim = kinds[kind].obs_dim,
        .action_dim = kinds[kind].action_dim,
        .episode_length = (uint32_t)length,
        .action_repeat = 1,
        .terminates = kind == TOY_FALL,
        .exact_state = true,
    };
    snprintf(spec->task, sizeof(spec->task), "%s", task);
    return true;
}

/* Not listed: these are no benchmark. */
static const char *toy_name(int index)
{
    (void)index;
    return NULL;
}

static int toy_create(struct env **out, const struct env_spec *spec, uint32_t seed,
                      struct error *err)
{
    struct toy *toy = calloc(1, sizeof(*toy));

    if (toy == NULL)
        return error_set(err, TD_ENOMEM, "no memory for an environment");
    toy->kind = kind_of(spec->task);
    random_state_seed(&toy->state.random, seed);
    *out = &toy->env;
    return TD_OK;
}

static int toy_reset(struct env *env, struct error *err)
{
    struct toy_state *state = &((struct toy *)env)->state;

    (void)err;
    _Static_assert(BOX / 2 == 1, "what is shown is an action");
    for (int i = 0; i < 2; i++) {
        state->position[i] = random_state_uniform(&state->random, -BOX / 2, BOX / 2);
        state->velocity[i] = 0;
    }
    return TD_OK;
}

/* 1 in the middle, 0 at the box's corners. */
static double closeness(const struct toy_state *state)
{
    double x = state->position[0] / BOX, y = state->position[1] / BOX;

    return 1 - (x * x + y * y) / 2;
}

static void show_step(const struct toy *toy, const float *action, struct env_result *result)
{
    uint32_t count = kinds[toy->kind].action_dim;
    double off = 0;

    for (uint32_t i = 0; i < count; i++) {
        double wanted = toy->kind == TOY_COPY ? toy->state.position[i] : -toy->state.position[i];

        off += ((double)action[i] - wanted) * ((double)action[i] - wanted) / count;
    }
    result->reward = 1 - off;
}

static int toy_step(struct env *env, const float *action, struct env_result *result,
                    struct error *err)
{
    struct toy_state *state = &((struct toy *)env)->state;
    bool left = false;

    (void)err;
    if (is_shown(((struct toy *)env)->kind)) {
        show_step((struct toy *)env, action, result);
        return TD_OK;
    }
    for (int i = 0; i < 2; i++) {
        double push = PUSH * (double)action[i];

        if (env->spec.terminates)
            push += REPEL * state->position[i];
        state->velocity[i] = DRAG * state->velocity[i] + push;
        state->position[i] += state->velocity[i];
        if (state->position[i] < -BOX || state->position[i] > BOX) {
            state->position[i] = state->position[i] < 0 ? -BOX : BOX;
            state->velocity[i] = 0;
            left = true;
        }
    }
    result->terminated = left && env->spec.terminates;
    result->reward = result->terminated ? 0 : closeness(state);
    return TD_OK;
}

static void toy_observe(struct env *env, void *obs)
{
    const struct toy_state *state = &((struct toy *)env)->state;
    float *out = obs;

    if (is_shown(((const struct toy *)env)->kind)) {
        for (uint32_t i = 0; i < env->spec.obs_dim; i++)
            out[i] = (float)state->position[i];
        return;
    }
    for (int i = 0; i < 2; i++) {
        out[i] = (float)state->position[i];
        out[2 + i] = (float)state->velocity[i];
    }
}

static size_t toy_state_size(const struct env *env)
{
    (void)env;
    return sizeof(struct toy_state);
}

static void toy_state_get(struct env *env, void *bytes)
{
    memcpy(bytes, &((struct toy *)env)->state, sizeof(struct toy_state));
}

static int toy_state_set(struct env *env, const void *bytes, struct error *err)
{
    const struct toy_state *state = bytes;

    if (!random_state_valid(&state->random))
        return error_set(err, TD_ECORRUPT, "the saved state of %s has an impossible random state",
                         env->spec.task);
    for (int i = 0; i < 2; i++)
        if (!(state->position[i] >= -BOX && state->position[i] <= BOX &&
              state->velocity[i] >= -BOX && state->velocity[i] <= BOX))
            return error_set(err, TD_ECORRUPT, "the saved state of %s lies outside its box",
                             env->spec.task);
    ((struct toy *)env)->state = *state;
    return TD_OK;
}

/* How much of a pixel the disc covers, for an edge as wide as the pixel. */
static double coverage(double x, double y, double pixel)
{
    double inside = (RADIUS - sqrt(x * x + y * y)) / pixel + .5;

    return inside < 0 ? 0 : inside > 1 ? 1 : inside;
}

static int toy_render(struct env *env, const struct env_view *view, uint8_t *pixels,
                      struct error *err)
{
    const struct toy_state *state = &((struct toy *)env)->state;
    double wide = 2 * BOX / view->width, high = 2 * BOX / view->height;

    if (view->camera > 0)
        return error_set(err, TD_EINVAL, "%s has no camera %d", env->spec.task, view->camera);
    for (int row = 0; row < view->height; row++)
        for (int column = 0; column < view->width; column++) {
            double x = (column + .5) * wide - BOX, y = BOX - (row + .5) * high;
            double disc = coverage(x - state->position[0], y - state->position[1], wide);

            /* Red and green say where on the ground one looks; the disc hides them. */
            *pixels++ = (uint8_t)(255 * disc + (1 - disc) * 64 * (x / BOX + 1));
            *pixels++ = (uint8_t)(255 * disc + (1 - disc) * 64 * (y / BOX + 1));
            *pixels++ = (uint8_t)(255 * disc + (1 - disc) * 32);
        }
    return TD_OK;
}

static void toy_close(struct env *env)
{
    free(env);
}

const struct env_class toy_class = {
    .find = toy_find,
    .name = toy_name,
    .create = toy_create,
    .reset = toy_reset,
    .step = toy_step,
    .observe = toy_observe,
    .state_size = toy_state_size,
    .state_get = toy_state_get,
    .state_set = toy_state_set,
    .rgb = true,
    .render = toy_render,
    .close = toy_close,
};
