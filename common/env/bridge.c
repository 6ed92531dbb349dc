#include "common/env/bridge.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/env/bridge_link.h"
#include "common/util/log.h"
#include "common/util/rng.h"

#define DIM_MAX    (1u << 20)
#define LENGTH_MAX 1000000000u
#define KNOWN      32     /* specs that were asked for */

/* What the process was asked last. */
enum bridge_phase { PHASE_OPEN, PHASE_RESET, PHASE_STEP };

struct bridge {
    struct env env;
    struct bridge_task task;
    bridge_link_t *link;   /* NULL: lost, or not started yet */
    enum bridge_phase phase;
    uint32_t seed;
    uint32_t restarts;
    bool begun;            /* there was a process: the next one is a restart */
    bool seeded;           /* this process has had its seed */
    size_t state_bytes;    /* of the environment's own state; 0: not offered */
    uint64_t timeout_ms, env_ns;
    uint32_t side;         /* of the pictures that are observations; 0: numbers are */
    uint32_t numbers;      /* of an observation; 0: no process has said it yet */
    size_t obs_bytes;      /* of those, or of a picture */
    uint8_t *obs;          /* floats, or with obs=rgb a picture [64][64][3] */
};

/* A saved state: this, the observation, the environment's bytes. */
struct bridge_state {
    uint64_t magic;
    uint32_t seed, restarts, seeded, bytes;
};

#define STATE_MAGIC 0x3154415453475242ull /* "BRGSTAT1" */

/* --- asking a process for its spec ------------------------------------------------------------- */

/* The link's sentence with the task in front of it. */
static int explain(const struct bridge_task *task, int rc, const struct error *why, struct error *err)
{
    return error_set(err, rc, "%s: %s", task->spec.task, why->text);
}

static bool sane(const struct bridge_reply *reply)
{
    return reply->obs_dim >= 1 && reply->obs_dim <= DIM_MAX && reply->action_dim >= 1 &&
           reply->action_dim <= DIM_MAX && reply->episode_length >= 1 && reply->episode_length <= LENGTH_MAX &&
           reply->action_repeat >= 1 && reply->action_repeat <= 1000 && reply->state_size <= BRIDGE_BULK_MAX / 2;
}

/* gym: and python: run in what the user names. */
static bool own_choice(const struct bridge_task *task)
{
    return task->spec.obs_dim == 0;
}

/* It ended without a word: perhaps what was started is no Python. */
static int said_nothing(const struct bridge_task *task, const struct error *why, struct error *err)
{
    char python[FS_PATH_MAX], run[FS_PATH_MAX];

    if (bridge_find_python(task, python, run, NULL) != TD_OK)
        return explain(task, TD_ELOST, why, err);
    return error_set(err, TD_ELOST, "%s: %s without a word (is %s a Python 3 that works?)", task->spec.task, why->text,
                     python);
}

/* Start a process and ask it to make the environment, which shows pictures with a side that is not 0. */
static int begin_process(const struct bridge_task *task, uint32_t seed, uint32_t side, bridge_link_t **out,
                         struct error *err)
{
    struct bridge_request request = {
        .kind = BRIDGE_OPEN, .task = task->spec.task, .seed = seed, .width = side, .height = side};
    char python[FS_PATH_MAX], run[FS_PATH_MAX];
    struct error why = {0};
    bool silent;
    int rc;

    *out = NULL;
    if ((rc = bridge_find_python(task, python, run, err)) != TD_OK)
        return rc;
    if ((rc = bridge_link_open(out, python, run, &why)) == TD_OK)
        rc = bridge_link_begin(*out, &request, env_start_timeout_ms(), &why);
    if (rc == TD_OK)
        return TD_OK;
    silent = rc == TD_ELOST && bridge_link_silent(*out);
    bridge_link_close(out);
    if (rc == TD_ESETUP)
        return error_set(err, rc, own_choice(task) ? "%s: %s: name another with TDMPC2_PYTHON (`%s` makes one)"
                                                   : "%s: %s: run `%s` again",
                         task->spec.task, why.text, bridge_suite_command(task->suite));
    return silent ? said_nothing(task, &why, err) : explain(task, rc, &why, err);
}

/* Has it? TD_EAGAIN: not yet. The link is closed unless all is well or may be. */
static int finish_process(const struct bridge_task *task, bridge_link_t **link, struct bridge_reply *reply,
                          struct error *err)
{
    struct error why = {0};
    int rc = bridge_link_finish(*link, reply, &why);
    bool silent = rc == TD_ELOST && bridge_link_silent(*link);

    if (rc == TD_OK && !sane(reply))
        rc = error_set(&why, TD_ELOST, "its sizes make no sense: observation %u, action %u, limit %u", reply->obs_dim,
                       reply->action_dim, reply->episode_length);
    if (rc == TD_OK || rc == TD_EAGAIN)
        return rc;
    bridge_link_close(link);
    return silent ? said_nothing(task, &why, err) : explain(task, rc, &why, err);
}

/* A running process that has made the environment. */
static int open_process(const struct bridge_task *task, uint32_t seed, uint32_t side, bridge_link_t **out,
                        struct bridge_reply *reply, struct error *err)
{
    int rc = begin_process(task, seed, side, out, err);

    while (rc == TD_OK) {
        bridge_link_wait(*out);
        if ((rc = finish_process(task, out, reply, err)) != TD_EAGAIN)
            return rc;
        rc = TD_OK;
    }
    return rc;
}

static void take_spec(struct env_spec *spec, const struct bridge_reply *reply)
{
    spec->obs_dim = reply->obs_dim;
    spec->action_dim = reply->action_dim;
    spec->episode_length = reply->episode_length;
    spec->action_repeat = reply->action_repeat;
    spec->exact_state = reply->state_size > 0;
}

static struct {
    pthread_mutex_t lock;
    uint32_t count;
    struct env_spec spec[KNOWN];
} known = {.lock = PTHREAD_MUTEX_INITIALIZER};

static bool recall(const char *task, struct env_spec *spec)
{
    bool found = false;

    pthread_mutex_lock(&known.lock);
    for (uint32_t i = 0; i < known.count && !found; i++)
        if ((found = strcmp(known.spec[i].task, task) == 0))
            *spec = known.spec[i];
    pthread_mutex_unlock(&known.lock);
    return found;
}

static void remember(const struct env_spec *spec)
{
    pthread_mutex_lock(&known.lock);
    if (known.count < KNOWN)
        known.spec[known.count++] = *spec;
    pthread_mutex_unlock(&known.lock);
}

static bool bridge_find(const char *name, struct env_spec *spec)
{
    struct bridge_task task;
    bool found = bridge_task_find(name, &task);

    if (found)
        *spec = task.spec;
    return found;
}

/* Only the process knows: ask one, once per task. */
static int bridge_look(struct env_spec *spec, struct error *err)
{
    struct bridge_reply reply = {0};
    struct bridge_task task;
    bridge_link_t *link;
    int rc;

    if (recall(spec->task, spec))
        return TD_OK;
    bridge_task_find(spec->task, &task);
    if ((rc = open_process(&task, 0, 0, &link, &reply, err)) != TD_OK)
        return rc;
    bridge_link_close(&link);
    take_spec(spec, &reply);
    remember(spec);
    return TD_OK;
}

/* --- life ------------------------------------------------------------------------------------------ */

/* Every process of an environment has a seed of its own: a crash is not repeated step by step. */
static uint32_t process_seed(const struct bridge *bridge)
{
    return bridge->restarts == 0 ? bridge->seed : (uint32_t)rng_hash(bridge->seed, bridge->restarts);
}

/* The process says what it is: is it what all believe? */
static int take_process(struct bridge *bridge, const struct env_spec *spec, const struct bridge_reply *reply,
                        struct error *err)
{
    if (bridge->numbers == 0)
        bridge->numbers = reply->obs_dim;
    if (reply->obs_dim != bridge->numbers || reply->action_dim != spec->action_dim ||
        reply->episode_length != spec->episode_length || reply->action_repeat != spec->action_repeat) {
        bridge_link_close(&bridge->link);
        return error_set(err, TD_EFOREIGN, "%s: the process has observation %u, action %u, limit %u, repeat %u; "
                                           "%u, %u, %u, %u are expected: another version of the package?",
                         spec->task, reply->obs_dim, reply->action_dim, reply->episode_length, reply->action_repeat,
                         bridge->numbers, spec->action_dim, spec->episode_length, spec->action_repeat);
    }
    if ((reply->state_size > 0) != spec->exact_state ||
        (bridge->state_bytes > 0 && reply->state_size != bridge->state_bytes)) {
        bridge_link_close(&bridge->link);
        return error_set(err, TD_EFOREIGN, "%s: the size of a saved state changed to %u", spec->task,
                         reply->state_size);
    }
    bridge->state_bytes = reply->state_size;
    bridge->seeded = false;
    return TD_OK;
}

static void bridge_close(struct env *env)
{
    struct bridge *bridge = (struct bridge *)env;

    bridge_link_close(&bridge->link);
    free(bridge->obs);
    free(bridge);
}

/* Its process comes with the first reset. */
static int bridge_create_later(struct env **out, const struct env_spec *spec, uint32_t seed, struct error *err)
{
    struct bridge *bridge = calloc(1, sizeof(*bridge));
    bool rgb = spec->obs_type == ENV_OBS_RGB;
    size_t bytes = spec->obs_dim * (rgb ? 1 : sizeof(float));

    if (bridge != NULL)
        bridge->obs = calloc(1, bytes);
    if (bridge == NULL || bridge->obs == NULL) {
        free(bridge);
        return error_set(err, TD_ENOMEM, "no memory for an environment");
    }
    bridge_task_find(spec->task, &bridge->task);
    bridge->numbers = rgb ? bridge->task.spec.obs_dim : spec->obs_dim;
    bridge->obs_bytes = bytes;
    bridge->side = rgb ? ENV_FRAME_SIDE : 0;
    bridge->seed = seed;
    bridge->timeout_ms = env_timeout_ms();
    *out = &bridge->env;
    return TD_OK;
}

static int bridge_create(struct env **out, const struct env_spec *spec, uint32_t seed, struct error *err)
{
    struct bridge_reply reply = {0};
    struct bridge *bridge;
    int rc = bridge_create_later(out, spec, seed, err);

    if (rc != TD_OK)
        return rc;
    bridge = (struct bridge *)*out;
    bridge->begun = true;
    if ((rc = open_process(&bridge->task, seed, bridge->side, &bridge->link, &reply, err)) != TD_OK ||
        (rc = take_process(bridge, spec, &reply, err)) != TD_OK) {
        bridge_close(*out);
        *out = NULL;
    }
    return rc;
}

/* --- episodes ---------------------------------------------------------------------------------------- */

/* The process cannot be gone on with. */
static int lose(struct bridge *bridge, const struct error *why, struct error *err)
{
    bridge_link_close(&bridge->link);
    return explain(&bridge->task, TD_ELOST, why, err);
}

/* The reply's observation, if it is one. */
static int take_obs(struct bridge *bridge, const struct bridge_reply *reply, struct error *err)
{
    float value;
    struct error why;

    if (reply->bulk_size != bridge->obs_bytes) {
        error_set(&why, TD_ELOST, "an observation of %zu bytes came, not %zu", reply->bulk_size, bridge->obs_bytes);
        return lose(bridge, &why, err);
    }
    memcpy(bridge->obs, reply->bulk, reply->bulk_size);
    for (uint32_t i = 0; bridge->side == 0 && i < bridge->numbers; i++) {
        memcpy(&value, bridge->obs + i * sizeof(value), sizeof(value));
        if (!isfinite(value)) {
            error_set(&why, TD_ELOST, "component %u of the observation is %g", i, (double)value);
            return lose(bridge, &why, err);
        }
    }
    return TD_OK;
}

/* Ask it, and wait for the answer. */
static int call(struct bridge *bridge, const struct bridge_request *request, struct bridge_reply *reply,
                struct error *err)
{
    struct error why = {0};

    if (bridge->link == NULL)
        return error_set(err, TD_ELOST, "%s: the environment's process was lost before", bridge->task.spec.task);
    if (bridge_link_call(bridge->link, request, reply, bridge->timeout_ms, &why) != TD_OK)
        return lose(bridge, &why, err);
    return TD_OK;
}

/* Ask it, without waiting. */
static int ask(struct bridge *bridge, const struct bridge_request *request, enum bridge_phase phase, struct error *err)
{
    struct error why = {0};

    if (bridge->link == NULL)
        return error_set(err, TD_ELOST, "%s: the environment's process was lost before", bridge->task.spec.task);
    if (bridge_link_begin(bridge->link, request, bridge->timeout_ms, &why) != TD_OK)
        return lose(bridge, &why, err);
    bridge->phase = phase;
    return TD_OK;
}

static int ask_reset(struct bridge *bridge, struct error *err)
{
    struct bridge_request request = {
        .kind = BRIDGE_RESET, .has_seed = !bridge->seeded, .seed = process_seed(bridge)};

    return ask(bridge, &request, PHASE_RESET, err);
}

/* Once a process has been, another that will not start is one more loss: a later one may. */
static int failed_to_start(const struct bridge *bridge, int rc)
{
    return rc == TD_OK || rc == TD_EAGAIN || bridge->restarts == 0 ? rc : TD_ELOST;
}

static int bridge_begin(struct env *env, const float *action, struct error *err)
{
    struct bridge *bridge = (struct bridge *)env;
    struct bridge_request step = {
        .kind = BRIDGE_STEP, .bulk = action, .bulk_size = env->spec.action_dim * sizeof(float)};

    if (action != NULL)
        return ask(bridge, &step, PHASE_STEP, err);
    if (bridge->link != NULL)
        return ask_reset(bridge, err);
    bridge->restarts += bridge->begun;
    bridge->begun = true;
    bridge->phase = PHASE_OPEN;
    return failed_to_start(bridge, begin_process(&bridge->task, process_seed(bridge), bridge->side, &bridge->link, err));
}

/* It has started: go on to the reset. */
static int finish_open(struct bridge *bridge, struct error *err)
{
    struct bridge_reply reply = {0};
    int rc = finish_process(&bridge->task, &bridge->link, &reply, err);

    if (rc == TD_OK)
        rc = take_process(bridge, &bridge->env.spec, &reply, err);
    if (rc != TD_OK)
        return failed_to_start(bridge, rc);
    rc = ask_reset(bridge, err);
    return rc == TD_OK ? TD_EAGAIN : rc;
}

static int take_step(struct bridge *bridge, const struct bridge_reply *reply, struct env_result *result,
                     struct error *err)
{
    struct error why;

    if (!isfinite((float)reply->reward)) {
        error_set(&why, TD_ELOST, "the reward is %g%s", reply->reward,
                  isfinite(reply->reward) ? ", beyond a float32" : "");
        return lose(bridge, &why, err);
    }
    bridge->env_ns = reply->env_ns;
    result->reward = reply->reward;
    result->terminated = (reply->flags & BRIDGE_TERMINATED) != 0;
    result->truncated = (reply->flags & BRIDGE_TRUNCATED) != 0;
    result->has_success = (reply->flags & BRIDGE_HAS_SUCCESS) != 0;
    result->success = (reply->flags & BRIDGE_SUCCESS) != 0;
    return TD_OK;
}

static int bridge_finish(struct env *env, struct env_result *result, struct error *err)
{
    struct bridge *bridge = (struct bridge *)env;
    struct bridge_reply reply = {0};
    struct error why = {0};
    int rc;

    if (bridge->phase == PHASE_OPEN)
        return finish_open(bridge, err);
    if ((rc = bridge_link_finish(bridge->link, &reply, &why)) == TD_EAGAIN)
        return rc;
    if (rc != TD_OK)
        return lose(bridge, &why, err);
    if ((rc = take_obs(bridge, &reply, err)) != TD_OK)
        return rc;
    if (bridge->phase == PHASE_STEP)
        return take_step(bridge, &reply, result, err);
    bridge->seeded = true;
    return TD_OK;
}

static int bridge_poll(const struct env *env, struct pollfd fds[ENV_POLL_MAX])
{
    return bridge_link_poll(((const struct bridge *)env)->link, fds);
}

static uint64_t bridge_due_ms(const struct env *env)
{
    return bridge_link_due_ms(((const struct bridge *)env)->link);
}

static void bridge_observe(struct env *env, void *obs)
{
    memcpy(obs, ((struct bridge *)env)->obs, ((struct bridge *)env)->obs_bytes);
}

/* --- pictures ------------------------------------------------------------------------------------------- */

static bool bridge_rgb_task(const char *name)
{
    struct bridge_task task;

    return bridge_task_find(name, &task) && (task.suite == SUITE_GYM || task.suite == SUITE_PYTHON);
}

/* The last one, as it came with the step; another size is asked for. */
static int bridge_render(struct env *env, const struct env_view *view, uint8_t *pixels, struct error *err)
{
    struct bridge *bridge = (struct bridge *)env;
    struct bridge_request request = {
        .kind = BRIDGE_RENDER, .width = (uint32_t)view->width, .height = (uint32_t)view->height};
    size_t bytes = (size_t)view->width * (size_t)view->height * 3;
    struct bridge_reply reply = {0};
    int rc;

    if (bridge->side == 0 || view->camera != -1)
        return error_set(err, TD_EINVAL, "%s draws its own pictures, opened with obs=rgb", env->spec.task);
    if (view->width == (int)bridge->side && view->height == (int)bridge->side) {
        memcpy(pixels, bridge->obs, bytes);
        return TD_OK;
    }
    if ((rc = call(bridge, &request, &reply, err)) != TD_OK)
        return rc;
    if (reply.bulk_size != bytes)
        return error_set(err, TD_ELOST, "%s: a picture of %zu bytes came, not %zu", env->spec.task, reply.bulk_size,
                         bytes);
    memcpy(pixels, reply.bulk, bytes);
    return TD_OK;
}

/* --- state ---------------------------------------------------------------------------------------------- */

static size_t bridge_state_size(const struct env *env)
{
    const struct bridge *bridge = (const struct bridge *)env;

    if (bridge->state_bytes == 0)
        return 0;
    return sizeof(struct bridge_state) + bridge->obs_bytes + bridge->state_bytes;
}

/*
 * Before the first reset a process has no state that matters: its seed is all. One that cannot give its state leaves
 * zeros, which bridge_state_set refuses.
 */
static void bridge_state_get(struct env *env, void *bytes)
{
    struct bridge *bridge = (struct bridge *)env;
    struct bridge_state head = {STATE_MAGIC, bridge->seed, bridge->restarts, bridge->link != NULL && bridge->seeded,
                                (uint32_t)bridge->state_bytes};
    struct bridge_request request = {.kind = BRIDGE_STATE_GET};
    struct bridge_reply reply = {0};
    struct error why = {0};
    char *at = bytes;

    memset(bytes, 0, bridge_state_size(env));
    head.restarts += bridge->link == NULL && bridge->begun; /* the next reset starts another */
    if (head.seeded == 1 && call(bridge, &request, &reply, &why) == TD_OK && reply.bulk_size != bridge->state_bytes)
        error_set(&why, TD_ELOST, "%s: a state of %zu bytes came, not %zu", env->spec.task, reply.bulk_size,
                  bridge->state_bytes);
    if (why.code != TD_OK) {
        log_error("the environment gave no state", "why=\"%s\"", why.text);
        return;
    }
    memcpy(at, &head, sizeof(head));
    memcpy(at + sizeof(head), bridge->obs, bridge->obs_bytes);
    if (head.seeded == 1)
        memcpy(at + sizeof(head) + bridge->obs_bytes, reply.bulk, reply.bulk_size);
}

static int bridge_state_set(struct env *env, const void *bytes, struct error *err)
{
    struct bridge *bridge = (struct bridge *)env;
    size_t obs_bytes = bridge->obs_bytes;
    const char *at = bytes;
    struct bridge_state head;
    struct bridge_request request = {.kind = BRIDGE_STATE_SET,
                                     .bulk = at + sizeof(head) + obs_bytes,
                                     .bulk_size = bridge->state_bytes};
    struct bridge_reply reply = {0};
    int rc;

    memcpy(&head, bytes, sizeof(head));
    if (head.magic != STATE_MAGIC || head.bytes != bridge->state_bytes || head.seeded > 1)
        return error_set(err, TD_ECORRUPT, "the saved state of %s is none: its get_state failed", env->spec.task);
    for (uint32_t i = 0; bridge->side == 0 && i < bridge->numbers; i++) {
        float value;

        memcpy(&value, at + sizeof(head) + i * sizeof(value), sizeof(value));
        if (!isfinite(value))
            return error_set(err, TD_ECORRUPT, "the saved state of %s holds a value that is not finite", env->spec.task);
    }
    if (head.seeded == 1 && (rc = call(bridge, &request, &reply, err)) != TD_OK)
        return rc;
    memcpy(bridge->obs, at + sizeof(head), obs_bytes);
    bridge->seed = head.seed;
    bridge->restarts = head.restarts;
    bridge->seeded = head.seeded == 1;
    return TD_OK;
}

/* --- for benchmarks and tests ------------------------------------------------------------------------- */

uint64_t bridge_env_ns(const env_t *env)
{
    TD_ASSERT(env->class == &bridge_class, "%s is not in a bridge", env->spec.task);
    return ((const struct bridge *)env)->env_ns;
}

int bridge_env_pid(const env_t *env)
{
    const struct bridge *bridge = (const struct bridge *)env;

    TD_ASSERT(env->class == &bridge_class, "%s is not in a bridge", env->spec.task);
    return bridge->link == NULL ? 0 : (int)bridge_link_pid(bridge->link);
}

const struct env_class bridge_class = {
    .find = bridge_find,
    .look = bridge_look,
    .name = bridge_task_name,
    .describe = bridge_describe,
    .create = bridge_create,
    .create_later = bridge_create_later,
    .begin = bridge_begin,
    .finish = bridge_finish,
    .poll = bridge_poll,
    .due_ms = bridge_due_ms,
    .observe = bridge_observe,
    .rgb = true,
    .rgb_task = bridge_rgb_task,
    .render = bridge_render,
    .state_size = bridge_state_size,
    .state_get = bridge_state_get,
    .state_set = bridge_state_set,
    .close = bridge_close,
};
