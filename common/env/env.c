#include "common/env/env.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "common/env/env_class.h"
#include "common/util/clock.h"

#define TIMEOUT_S    60.0
#define START_MIN_MS 20000u

static const struct env_class *const classes[] = {&dm_class, &bridge_class, &plugin_class, &toy_class};

/* --- names --------------------------------------------------------------------------------- */

/* Insertions, deletions and replacements between two words, both shorter than ENV_TASK_MAX. */
static int edit_distance(const char *a, const char *b)
{
    int row[ENV_TASK_MAX + 1];
    int width = (int)strlen(b);

    for (int j = 0; j <= width; j++)
        row[j] = j;
    for (int i = 1; a[i - 1] != '\0'; i++) {
        int diagonal = row[0];

        row[0] = i;
        for (int j = 1; j <= width; j++) {
            int replaced = diagonal + (a[i - 1] != b[j - 1]);

            diagonal = row[j];
            row[j] = 1 + (row[j] < row[j - 1] ? row[j] : row[j - 1]);
            if (replaced < row[j])
                row[j] = replaced;
        }
    }
    return row[width];
}

/* Beside the listed tasks, those for tests of the system: only where they are almost it. */
static const char *nearest(const char *task)
{
    static const char *const hidden[] = {"toy", "toy-episodic", "toy-copy", "toy-oppose"};
    const char *best = "";
    int distance = ENV_TASK_MAX;

    for (size_t i = 0; i < TD_LEN(hidden); i++)
        if (edit_distance(task, hidden[i]) <= 1)
            return hidden[i];

    for (int i = 0; i < env_task_count(); i++) {
        int here = edit_distance(task, env_task_name(i));

        if (here < distance) {
            distance = here;
            best = env_task_name(i);
        }
    }
    return best;
}

static const struct env_class *find_class(const char *task, struct env_spec *spec)
{
    if (strlen(task) >= ENV_TASK_MAX)
        return NULL;
    for (size_t i = 0; i < TD_LEN(classes); i++)
        if (classes[i]->find(task, spec))
            return classes[i];
    return NULL;
}

/* A prefix with nothing behind it, or too many colons: what is expected there. NULL: it is none. */
static const char *expected_instead(const char *task)
{
    return strcmp(task, "gym") == 0 || strncmp(task, "gym:", 4) == 0         ? "gym:ID or gym:MODULE:ID, as in gym:Pendulum-v1"
           : strcmp(task, "python") == 0 || strncmp(task, "python:", 7) == 0 ? "python:MODULE:CLASS or python:FILE.py:CLASS"
           : strcmp(task, "mw-") == 0                                        ? "a task of Meta-World, as mw-reach"
           : strcmp(task, "myo-") == 0                                       ? "a task of MyoSuite, as myo-reach"
           : strcmp(task, ".so") == 0                                        ? "the path of a shared library, as ./my_env.so"
                                                                             : NULL;
}

static int unknown_task(const char *task, struct error *err)
{
    char shown[ENV_TASK_MAX];
    size_t i = 0;

    if (strlen(task) >= ENV_TASK_MAX)
        return error_set(err, TD_ENOTFOUND, "the task's name '%.32s...' is too long: at most %d characters; a link, or "
                                            "another folder, makes a path shorter", task, ENV_TASK_MAX - 1);
    for (; task[i] != '\0'; i++)
        shown[i] = (unsigned char)task[i] < 0x20 || task[i] == 0x7f ? '?' : task[i];
    shown[i] = '\0';
    if (expected_instead(task) != NULL)
        return error_set(err, TD_ENOTFOUND, "the task '%s' is no whole name: %s is expected", shown, expected_instead(task));
    return error_set(err, TD_ENOTFOUND, "unknown task '%s': did you mean %s? `tdmpc2 env list` names all %d",
                     shown, nearest(shown), env_task_count());
}

struct env_options env_options(const char *obs, const char *render)
{
    return (struct env_options){
        .obs_type = strcmp(obs, "rgb") == 0 ? ENV_OBS_RGB : ENV_OBS_STATE,
        .drawing = strcmp(render, "fast") == 0 ? ENV_DRAW_FAST : ENV_DRAW_EXACT,
    };
}

static bool offers_rgb(const struct env_class *class, const char *task)
{
    return class->rgb && (class->rgb_task == NULL || class->rgb_task(task));
}

/* The kind of a task that can be observed so, and its spec. */
static int find_with(const char *task, const struct env_options *options,
                     const struct env_class **class, struct env_spec *spec, struct error *err)
{
    int rc;

    *class = find_class(task, spec);
    if (*class == NULL)
        return unknown_task(task, err);
    if (spec->obs_dim == 0 && (rc = (*class)->look(spec, err)) != TD_OK)
        return rc;
    if (options->obs_type != ENV_OBS_RGB)
        return TD_OK;
    if (!offers_rgb(*class, task))
        return error_set(err, TD_EINVAL, "%s offers states only: obs=rgb is for DMControl and Gymnasium's tasks, gym: "
                                         "and python:", task);
    spec->obs_type = ENV_OBS_RGB;
    spec->obs_dim = ENV_FRAME_BYTES;
    return TD_OK;
}

int env_find_with(const char *task, const struct env_options *options, struct env_spec *spec,
                  struct error *err)
{
    const struct env_class *class;

    return find_with(task, options, &class, spec, err);
}

int env_find(const char *task, struct env_spec *spec, struct error *err)
{
    return env_find_with(task, &(struct env_options){0}, spec, err);
}

const char *env_task_name(int index)
{
    for (size_t i = 0; i < TD_LEN(classes); i++)
        for (int j = 0; classes[i]->name(j) != NULL; j++)
            if (index-- == 0)
                return classes[i]->name(j);
    return NULL;
}

int env_task_count(void)
{
    int count = 0;

    while (env_task_name(count) != NULL)
        count++;
    return count;
}

/* --- drawing ------------------------------------------------------------------------------- */

#define VIEW_MAX 4096

static int open_drawing(struct env *env, struct error *err)
{
    int rc = TD_OK;

    if (!env->drawable && env->class->render_open != NULL)
        rc = env->class->render_open(env, err);
    env->drawable = rc == TD_OK;
    return rc;
}

int env_render(env_t *env, const struct env_view *view, uint8_t *pixels, struct error *err)
{
    int rc;

    if (env->class->render == NULL)
        return error_set(err, TD_EINVAL, "%s can't be drawn", env->spec.task);
    if (view->width < 1 || view->width > VIEW_MAX || view->height < 1 || view->height > VIEW_MAX)
        return error_set(err, TD_EINVAL, "a picture of %d x %d: 1 to %d are possible", view->width,
                         view->height, VIEW_MAX);
    if ((rc = open_drawing(env, err)) != TD_OK)
        return rc;
    return env->class->render(env, view, pixels, err);
}

/* With obs=rgb, draw the present state into env->frame: once per reset, step or state set. */
static int draw_frame(struct env *env, struct error *err)
{
    const struct env_view view = {ENV_FRAME_SIDE, ENV_FRAME_SIDE, -1};
    const int area = ENV_FRAME_SIDE * ENV_FRAME_SIDE;
    uint8_t *drawn = env->frame + ENV_FRAME_BYTES;
    int rc;

    if (env->spec.obs_type != ENV_OBS_RGB)
        return TD_OK;
    if ((rc = env->class->render(env, &view, drawn, err)) != TD_OK)
        return rc;
    for (int i = 0; i < area; i++)
        for (int channel = 0; channel < 3; channel++)
            env->frame[channel * area + i] = drawn[3 * i + channel];
    return TD_OK;
}

void env_observe(env_t *env, void *obs)
{
    if (env->spec.obs_type == ENV_OBS_RGB)
        memcpy(obs, env->frame, ENV_FRAME_BYTES);
    else
        env->class->observe(env, obs);
}

void env_describe(const char *task, struct env_about *about)
{
    struct env_spec spec;
    const struct env_class *class = find_class(task, &spec);

    TD_ASSERT(class != NULL, "%s", task);
    memset(about, 0, sizeof(*about));
    if (class->describe != NULL)
        class->describe(task, about);
    else
        about->available = true;
    about->rgb = offers_rgb(class, task);
    if (about->suite == NULL)
        about->suite = "-";
    if (about->domain == NULL)
        about->domain = "-";
}

/* --- life ---------------------------------------------------------------------------------- */

/* What env.c adds to what a kind has made. */
static int complete(struct env *env, struct error *err)
{
    if (env->spec.obs_type != ENV_OBS_RGB)
        return TD_OK;
    env->frame = calloc(2, ENV_FRAME_BYTES);
    if (env->frame == NULL)
        return error_set(err, TD_ENOMEM, "no memory for an environment");
    return open_drawing(env, err);
}

/* Room for a saved state, as soon as its size is known. */
static int make_payload(struct env *env, struct error *err)
{
    if (env->payload == NULL)
        env->payload = malloc(env->class->state_size(env) + 1); /* no state is no error */
    return env->payload != NULL ? TD_OK : error_set(err, TD_ENOMEM, "no memory for an environment");
}

static int create(env_t **out, const char *task, const struct env_options *options, uint32_t seed, bool later,
                  struct error *err)
{
    struct error unread;
    struct env_spec spec;
    const struct env_class *class;
    int rc;

    *out = NULL;
    if (err == NULL)
        err = &unread;
    if ((rc = find_with(task, options, &class, &spec, err)) != TD_OK)
        return rc;
    later = later && class->create_later != NULL;
    if ((rc = (later ? class->create_later : class->create)(out, &spec, seed, err)) != TD_OK)
        return rc;
    (*out)->class = class;
    (*out)->spec = spec;
    (*out)->options = *options;
    (*out)->steps = -1;
    (*out)->broken = false;
    if ((rc = complete(*out, err)) != TD_OK || (!later && (rc = make_payload(*out, err)) != TD_OK))
        env_close(out);
    return rc;
}

int env_create_with(env_t **out, const char *task, const struct env_options *options, uint32_t seed,
                    struct error *err)
{
    return create(out, task, options, seed, false, err);
}

int env_create_later(env_t **out, const char *task, const struct env_options *options, uint32_t seed,
                     struct error *err)
{
    return create(out, task, options, seed, true, err);
}

int env_create(env_t **out, const char *task, uint32_t seed, struct error *err)
{
    return env_create_with(out, task, &(struct env_options){0}, seed, err);
}

void env_close(env_t **env)
{
    if (*env == NULL)
        return;
    free((*env)->payload);
    free((*env)->frame);
    (*env)->class->close(*env);
    *env = NULL;
}

const struct env_spec *env_spec(const env_t *env)
{
    return &env->spec;
}

int env_steps(const env_t *env)
{
    return (int)env->steps;
}

/* --- episodes ------------------------------------------------------------------------------ */

static int broken(const env_t *env, struct error *err)
{
    return error_set(err, TD_EIO, "%s: the simulator gave up before, the environment must be closed",
                     env->spec.task);
}

/* The index of the first component that is no action, or -1. */
static int bad_component(const env_t *env, const float *action)
{
    for (uint32_t i = 0; i < env->spec.action_dim; i++)
        if (!(action[i] >= -1 && action[i] <= 1))
            return (int)i;
    return -1;
}

/* Ask for a reset (action NULL) or a step; kinds that live in this process do it, and draw. */
static int begin_move(struct env *env, const float *action, struct error *err)
{
    int rc;

    if (env->class->begin != NULL)
        return env->class->begin(env, action, err);
    memset(&env->result, 0, sizeof(env->result));
    rc = action == NULL ? env->class->reset(env, err) : env->class->step(env, action, &env->result, err);
    return rc == TD_OK ? draw_frame(env, err) : rc;
}

/* The other half. */
static int finish_move(struct env *env, struct env_result *result, struct error *err)
{
    int rc;

    if (env->class->finish == NULL) {
        *result = env->result;
        return TD_OK;
    }
    memset(result, 0, sizeof(*result));
    rc = env->class->finish(env, result, err);
    return rc == TD_OK ? draw_frame(env, err) : rc;
}

/* A move went wrong. */
static int give_up(struct env *env, int rc)
{
    env->move = ENV_MOVE_NONE;
    env->broken = rc != TD_ELOST;
    env->steps = -1;
    return rc;
}

int env_reset_begin(env_t *env, struct error *err)
{
    int rc;

    TD_ASSERT(env->move == ENV_MOVE_NONE, "%s: a reset while an answer is awaited", env->spec.task);
    if (env->broken)
        return broken(env, err);
    env->steps = -1;
    if ((rc = begin_move(env, NULL, err)) != TD_OK)
        return give_up(env, rc);
    env->move = ENV_MOVE_RESET;
    return TD_OK;
}

int env_step_begin(env_t *env, const float *action, struct error *err)
{
    int rc, bad = bad_component(env, action);

    TD_ASSERT(env->move == ENV_MOVE_NONE, "%s: a step while an answer is awaited", env->spec.task);
    if (env->broken)
        return broken(env, err);
    TD_ASSERT(env->steps >= 0, "%s: a step outside of an episode", env->spec.task);
    if (bad >= 0)
        return error_set(err, TD_EINVAL, "%s: component %d of the action is %g, outside [-1, 1]",
                         env->spec.task, bad, (double)action[bad]);
    if ((rc = begin_move(env, action, err)) != TD_OK)
        return give_up(env, rc);
    env->move = ENV_MOVE_STEP;
    return TD_OK;
}

/* The step counter, and the end it brings. */
static void count_step(struct env *env, struct env_result *result)
{
    env->steps++;
    result->truncated = !result->terminated && (result->truncated || env->steps == env->spec.episode_length);
    if (result->terminated || result->truncated)
        env->steps = -1;
}

int env_finish(env_t *env, void *obs, struct env_result *result, struct error *err)
{
    struct env_result unread;
    enum env_move move = env->move;
    int rc;

    TD_ASSERT(move != ENV_MOVE_NONE, "%s: no answer is awaited", env->spec.task);
    if (result == NULL)
        result = &unread;
    if ((rc = finish_move(env, result, err)) == TD_EAGAIN)
        return rc;
    if (rc == TD_OK && move == ENV_MOVE_RESET)
        rc = make_payload(env, err);
    if (rc != TD_OK)
        return give_up(env, rc);
    env->move = ENV_MOVE_NONE;
    env_observe(env, obs);
    if (move == ENV_MOVE_RESET)
        env->steps = 0;
    else
        count_step(env, result);
    return TD_OK;
}

uint64_t env_timeout_ms(void)
{
    const char *text = getenv("TDMPC2_ENV_TIMEOUT");
    double seconds = text != NULL ? strtod(text, NULL) : TIMEOUT_S;

    if (!(seconds > 0 && seconds <= 86400))
        seconds = TIMEOUT_S;
    return (uint64_t)(seconds * 1000) + 1;
}

uint64_t env_start_timeout_ms(void)
{
    uint64_t twice = 2 * env_timeout_ms();

    return twice < START_MIN_MS ? START_MIN_MS : twice;
}

int env_poll(const env_t *env, struct pollfd fds[ENV_POLL_MAX])
{
    return env->move != ENV_MOVE_NONE && env->class->poll != NULL ? env->class->poll(env, fds) : 0;
}

uint64_t env_due_ms(const env_t *env)
{
    return env->move != ENV_MOVE_NONE && env->class->due_ms != NULL ? env->class->due_ms(env) : UINT64_MAX;
}

/* Until the descriptors have something, or the deadline is over. */
static void wait_for_answer(const struct env *env)
{
    struct pollfd fds[ENV_POLL_MAX];
    int count = env_poll(env, fds);
    uint64_t due, now;

    if (count == 0)
        return;
    due = env_due_ms(env);
    now = clock_ms();
    due = due > now ? due - now : 0;
    poll(fds, (nfds_t)count, due < 60000 ? (int)due : 60000);
}

/* What was begun, to its end. */
static int conclude(struct env *env, void *obs, struct env_result *result, struct error *err)
{
    int rc;

    do {
        wait_for_answer(env);
    } while ((rc = env_finish(env, obs, result, err)) == TD_EAGAIN);
    return rc;
}

int env_reset(env_t *env, void *obs, struct error *err)
{
    int rc = env_reset_begin(env, err);

    return rc == TD_OK ? conclude(env, obs, NULL, err) : rc;
}

int env_step(env_t *env, const float *action, void *obs, struct env_result *result,
             struct error *err)
{
    int rc = env_step_begin(env, action, err);

    return rc == TD_OK ? conclude(env, obs, result, err) : rc;
}

/* --- state --------------------------------------------------------------------------------- */

#define STATE_MAGIC   0x5456454e32444d54ull /* "TMD2NEVT" */
#define STATE_VERSION 1

struct state_head {
    uint64_t magic;
    uint32_t version;
    uint32_t payload; /* bytes behind the head */
    char task[ENV_TASK_MAX];
    int64_t steps;
    uint64_t hash; /* XXH3 of the head, with 0 here, and of the payload after it */
};

static uint64_t state_hash(struct state_head head, const void *payload)
{
    head.hash = 0;
    return XXH3_64bits_withSeed(payload, head.payload, XXH3_64bits(&head, sizeof(head)));
}

size_t env_state_size(const env_t *env)
{
    return env->spec.exact_state ? sizeof(struct state_head) + env->class->state_size(env) : 0;
}

void env_state_get(env_t *env, void *bytes)
{
    struct state_head head = {
        .magic = STATE_MAGIC,
        .version = STATE_VERSION,
        .payload = (uint32_t)env->class->state_size(env),
        .steps = env->steps,
    };

    TD_ASSERT(env->payload != NULL, "%s: a state before the first reset", env->spec.task);
    memcpy(head.task, env->spec.task, sizeof(head.task));
    env->class->state_get(env, env->payload);
    head.hash = state_hash(head, env->payload);
    memcpy(bytes, &head, sizeof(head));
    memcpy((char *)bytes + sizeof(head), env->payload, head.payload);
}

static int check_state(const env_t *env, const void *bytes, size_t size, struct state_head *head,
                       struct error *err)
{
    const char *task = env->spec.task;

    if (size < sizeof(*head))
        return error_set(err, TD_ECORRUPT, "the saved state of %s is cut short: %zu bytes", task, size);
    memcpy(head, bytes, sizeof(*head));
    if (head->magic != STATE_MAGIC)
        return error_set(err, TD_ECORRUPT, "the saved state of %s is not one: it begins otherwise", task);
    if (head->version != STATE_VERSION)
        return error_set(err, TD_EFOREIGN, "the saved state of %s has version %u, this program knows %u",
                         task, head->version, STATE_VERSION);
    if (strncmp(head->task, task, sizeof(head->task)) != 0)
        return error_set(err, TD_EFOREIGN, "the saved state is of task %.*s, this environment is %s",
                         ENV_TASK_MAX, head->task, task);
    if (size != env_state_size(env) || head->payload != size - sizeof(*head))
        return error_set(err, TD_ECORRUPT, "the saved state of %s has %zu bytes, not %zu", task, size,
                         env_state_size(env));
    if (head->hash != state_hash(*head, (const char *)bytes + sizeof(*head)))
        return error_set(err, TD_ECORRUPT, "the saved state of %s is damaged: its hash differs", task);
    if (head->steps < -1 || head->steps >= env->spec.episode_length)
        return error_set(err, TD_ECORRUPT, "the saved state of %s is at an impossible step %lld", task,
                         (long long)head->steps);
    return TD_OK;
}

int env_state_set(env_t *env, const void *bytes, size_t size, struct error *err)
{
    struct state_head head;
    int rc;

    TD_ASSERT(env->payload != NULL, "%s: a state before the first reset", env->spec.task);
    if (env->broken)
        return broken(env, err);
    if ((rc = check_state(env, bytes, size, &head, err)) != TD_OK)
        return rc;
    memcpy(env->payload, (const char *)bytes + sizeof(head), head.payload);
    if ((rc = env->class->state_set(env, env->payload, err)) != TD_OK) {
        env->broken = rc == TD_EIO;
        return rc;
    }
    env->steps = head.steps;
    if ((rc = draw_frame(env, err)) != TD_OK)
        env->broken = true;
    return rc;
}
