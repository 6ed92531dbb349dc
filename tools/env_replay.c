/* env_replay.c - recorded trajectories through our environments, compared value by value. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/ckpt/safetensors.h"
#include "common/env/gl.h"
#include "tools/env.h"
#include "tools/frame_difference.h"

#define REWARD_TOLERANCE 1e-9
#define STEP_TOLERANCE   1e-6 /* of one step from a known state, where bits can't be equal */

#define STACK            3    /* frames of a recorded observation, oldest first */

/* A file: `episodes` in a row after construction, each of `steps` agent steps. */
struct recording {
    const char *path;
    char task[ENV_TASK_MAX];
    uint32_t seed;
    uint64_t episodes, steps;
    struct env_options options;
    uint64_t obs_dim, action_dim;
    float *action;  /* [episodes][steps][action_dim] */
    float *obs;     /* [episodes][steps + 1][obs_dim] */
    uint8_t *frames; /* with obs=rgb instead: [episodes][steps + 1][STACK][obs_dim] */
    double *reward; /* [episodes][steps] */
};

/* The largest differences, and where the first unequal observation is. */
struct difference {
    double obs, reward;
    double judged_obs, judged_reward; /* over what counts when bits can't be equal */
    uint64_t unequal;                 /* observation values */
    bool found;
    uint64_t episode, step, component;
    struct frame_difference frames;
};

static void recording_release(struct recording *recording)
{
    free(recording->action);
    free(recording->obs);
    free(recording->frames);
    free(recording->reward);
}

/* --- reading ------------------------------------------------------------------------------- */

static int read_seed(const char *path, const char *text, uint32_t *seed, struct error *err)
{
    char *end;
    unsigned long long value;

    if (text == NULL)
        return error_set(err, TD_EINVAL, "%s: its metadata has no seed", path);
    errno = 0;
    value = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || text[0] == '-' || value > UINT32_MAX)
        return error_set(err, TD_EINVAL, "%s: its seed '%.32s' is not an integer from 0 to 4294967295",
                         path, text);
    *seed = (uint32_t)value;
    return TD_OK;
}

/* Task and seed, and whether the recording is of a kind and task that is built. */
static int read_notes(struct recording *recording, const safetensors_t *file, struct env_spec *spec,
                      struct error *err)
{
    const char *task = safetensors_note(file, "task");
    const char *obs = safetensors_note(file, "obs");
    int rc;

    if (task == NULL)
        return error_set(err, TD_EINVAL, "%s: its metadata names no task: not a trajectory file",
                         recording->path);
    if (obs != NULL && strcmp(obs, "state") != 0 && strcmp(obs, "rgb") != 0)
        return error_set(err, TD_EINVAL, "%s: recorded with obs=%.16s: state and rgb are known",
                         recording->path, obs);
    if (obs != NULL && strcmp(obs, "rgb") == 0)
        recording->options.obs_type = ENV_OBS_RGB;
    rc = env_find_with(task, &recording->options, spec, err);
    if (rc == TD_ENOTFOUND)
        return error_set(err, rc,
                         "%s: its task '%.60s' is unknown: `tdmpc2 env list` names those there are",
                         recording->path, task);
    if (rc != TD_OK)
        return rc;
    memcpy(recording->task, spec->task, sizeof(recording->task));
    return read_seed(recording->path, safetensors_note(file, "seed"), &recording->seed, err);
}

/* Episodes and steps are taken from the actions' shape; all else must fit them. */
static int read_shapes(struct recording *recording, const safetensors_t *file,
                       const struct env_spec *spec, struct error *err)
{
    const struct safetensors_tensor *action = safetensors_find(file, "action");

    if (action == NULL || action->dims != 3)
        return error_set(err, TD_EINVAL, "%s: no tensor `action` of [episodes, steps, %u]",
                         recording->path, spec->action_dim);
    recording->episodes = action->shape[0];
    recording->steps = action->shape[1];
    recording->obs_dim = spec->obs_dim;
    recording->action_dim = spec->action_dim;
    if (recording->steps > spec->episode_length)
        return error_set(err, TD_EINVAL, "%s: episodes of %llu steps, %s ends after %u", recording->path,
                         (unsigned long long)recording->steps, spec->task, spec->episode_length);
    if (recording->episodes == 0 || action->shape[2] != spec->action_dim)
        return error_set(err, TD_EINVAL,
                         "%s: `action` is [%llu, %llu, %llu], %s needs [1 or more, steps, %u]",
                         recording->path, (unsigned long long)recording->episodes,
                         (unsigned long long)recording->steps, (unsigned long long)action->shape[2],
                         spec->task, spec->action_dim);
    return TD_OK;
}

/* Room for elements the file holds: their number was checked against its size. */
static void *room(const safetensors_t *file, const char *name)
{
    const struct safetensors_tensor *tensor = safetensors_find(file, name);

    return calloc(1, tensor == NULL || tensor->bytes == 0 ? 1 : tensor->bytes);
}

static int read_tensors(struct recording *recording, const safetensors_t *file, struct error *err)
{
    uint64_t action[] = {recording->episodes, recording->steps, recording->action_dim};
    uint64_t obs[] = {recording->episodes, recording->steps + 1, recording->obs_dim};
    uint64_t stacks[] = {recording->episodes, recording->steps + 1, 3 * STACK, ENV_FRAME_SIDE, ENV_FRAME_SIDE};
    uint64_t reward[] = {recording->episodes, recording->steps};
    bool rgb = recording->options.obs_type == ENV_OBS_RGB;
    int rc;

    recording->action = room(file, "action");
    recording->obs = rgb ? NULL : room(file, "obs");
    recording->frames = rgb ? room(file, "obs") : NULL;
    recording->reward = room(file, "reward");
    if (recording->action == NULL || (recording->obs == NULL && recording->frames == NULL) ||
        recording->reward == NULL)
        return error_set(err, TD_ENOMEM, "%s: no memory for its trajectories", recording->path);
    if ((rc = safetensors_get(file, "action", SAFETENSORS_F32, 3, action, recording->action, err)))
        return rc;
    if ((rc = rgb ? safetensors_get(file, "obs", SAFETENSORS_U8, 5, stacks, recording->frames, err)
                  : safetensors_get(file, "obs", SAFETENSORS_F32, 3, obs, recording->obs, err)))
        return rc;
    return safetensors_get(file, "reward", SAFETENSORS_F64, 2, reward, recording->reward, err);
}

static int recording_read(struct recording *recording, const char *path, enum env_drawing drawing,
                          struct error *err)
{
    safetensors_t *file = NULL;
    struct env_spec spec;
    int rc;

    memset(recording, 0, sizeof(*recording));
    recording->path = path;
    recording->options.drawing = drawing;
    if ((rc = safetensors_open(&file, path, err)) == TD_OK &&
        (rc = read_notes(recording, file, &spec, err)) == TD_OK &&
        (rc = read_shapes(recording, file, &spec, err)) == TD_OK)
        rc = read_tensors(recording, file, err);
    safetensors_close(&file);
    return rc;
}

/* --- comparing ----------------------------------------------------------------------------- */

/* |a - b|, infinite when one is not a number and the other is. */
static double apart(double a, double b)
{
    double distance = fabs(a - b);

    return a == b ? 0 : isnan(distance) ? INFINITY : distance;
}

/*
 * The recorded stack ends with this step's frame and begins with those before it, the reset's
 * repeated: `ours` holds our last STACK frames, oldest first.
 */
static void compare_frames(struct difference *difference, const struct recording *recording,
                           uint8_t *ours, uint64_t episode, uint64_t step)
{
    const size_t bytes = recording->obs_dim;
    const uint8_t *theirs =
        recording->frames + (episode * (recording->steps + 1) + step) * STACK * bytes;
    uint8_t *newest = ours + (STACK - 1) * bytes;

    for (int i = 0; step == 0 && i < STACK - 1; i++)
        memcpy(ours + (size_t)i * bytes, newest, bytes);
    for (size_t i = 0; i < STACK; i++)
        if (!frame_difference_add(&difference->frames, ours + i * bytes, theirs + i * bytes, bytes) &&
            !difference->found) {
            difference->found = true;
            difference->episode = episode;
            difference->step = step;
        }
    memmove(ours, ours + bytes, (STACK - 1) * bytes);
}

static void compare_state(struct difference *difference, const struct recording *recording,
                          const float *ours, uint64_t episode, uint64_t step)
{
    const float *theirs =
        recording->obs + (episode * (recording->steps + 1) + step) * recording->obs_dim;

    for (uint64_t i = 0; i < recording->obs_dim; i++) {
        double distance = apart((double)ours[i], (double)theirs[i]);

        if (distance == 0)
            continue;
        if (!difference->found) {
            difference->found = true;
            difference->episode = episode;
            difference->step = step;
            difference->component = i;
        }
        difference->unequal++;
        difference->obs = fmax(difference->obs, distance);
        if (step <= 1)
            difference->judged_obs =
                fmax(difference->judged_obs, distance / fmax(1, fabs((double)theirs[i])));
    }
}

/* `obs` is what observe_into named. */
static void compare_obs(struct difference *difference, const struct recording *recording, void *obs,
                        uint64_t episode, uint64_t step)
{
    if (recording->options.obs_type == ENV_OBS_RGB)
        compare_frames(difference, recording, obs, episode, step);
    else
        compare_state(difference, recording, obs, episode, step);
}

/* Where the next observation goes: behind the frames before it. */
static void *observe_into(const struct recording *recording, void *obs)
{
    if (recording->options.obs_type != ENV_OBS_RGB)
        return obs;
    return (uint8_t *)obs + (STACK - 1) * recording->obs_dim;
}

static void compare_reward(struct difference *difference, const struct recording *recording,
                           double ours, uint64_t episode, uint64_t step)
{
    double distance = apart(ours, recording->reward[episode * recording->steps + step]);

    difference->reward = fmax(difference->reward, distance);
    if (step == 0)
        difference->judged_reward = fmax(difference->judged_reward, distance);
}

static int run_episode(env_t *env, const struct recording *recording, uint64_t episode, void *obs,
                       struct difference *difference, struct error *err)
{
    const float *action =
        recording->action + episode * recording->steps * recording->action_dim;
    struct env_result result;
    int rc;

    if ((rc = env_reset(env, observe_into(recording, obs), err)) != TD_OK)
        return rc;
    compare_obs(difference, recording, obs, episode, 0);
    for (uint64_t step = 0; step < recording->steps; step++) {
        if (env_steps(env) < 0)
            return error_set(err, TD_EINVAL,
                             "%s: episode %llu ends in a terminal state after %llu steps, %llu are recorded",
                             recording->path, (unsigned long long)episode, (unsigned long long)step,
                             (unsigned long long)recording->steps);
        if ((rc = env_step(env, action + step * recording->action_dim, observe_into(recording, obs),
                           &result, err)) != TD_OK)
            return rc;
        compare_obs(difference, recording, obs, episode, step + 1);
        compare_reward(difference, recording, result.reward, episode, step);
    }
    return TD_OK;
}

static int run(const struct recording *recording, struct difference *difference, struct error *err)
{
    void *obs = calloc(recording->obs_dim, recording->frames != NULL ? STACK : sizeof(float));
    env_t *env = NULL;
    int rc = TD_ENOMEM;

    if (obs == NULL)
        return error_set(err, TD_ENOMEM, "no memory for an observation");
    if ((rc = env_create_with(&env, recording->task, &recording->options, recording->seed, err)) == TD_OK)
        for (uint64_t episode = 0; episode < recording->episodes && rc == TD_OK; episode++)
            rc = run_episode(env, recording, episode, obs, difference, err);
    env_close(&env);
    free(obs);
    return rc;
}

/* --- judging ------------------------------------------------------------------------------- */

static void print_frames(const struct recording *recording, const struct difference *difference,
                         bool good, FILE *out)
{
    const struct frame_difference *frames = &difference->frames;

    fprintf(out, "%-6s %-24s seed %-4u %llu x %llu steps   %s, reward within %.3g\n",
            good ? "ok" : "DIFFER", recording->task, recording->seed,
            (unsigned long long)recording->episodes, (unsigned long long)recording->steps,
            frames->unequal == 0 ? "frames equal" : "frames not equal", difference->reward);
    if (frames->unequal != 0)
        fprintf(out, "       %llu of %llu frames differ (%s), the worst by %.3g grey levels on average, "
                     "%.3g %% of it by more than %d, at most %d\n",
                (unsigned long long)frames->unequal, (unsigned long long)frames->frames, gl_driver(),
                frames->worst_mean, 100 * frames->worst_far, FRAME_FAR, frames->most);
    if (difference->found)
        fprintf(out, "       %llu are outside the tolerance, first in episode %llu, obs %llu\n",
                (unsigned long long)frames->outside, (unsigned long long)difference->episode,
                (unsigned long long)difference->step);
}

static void print_state(const struct recording *recording, const struct difference *difference,
                        bool good, FILE *out)
{
    fprintf(out, "%-6s %-24s seed %-4u %llu x %llu steps   obs within %.3g   reward within %.3g\n",
            good ? "ok" : "DIFFER", recording->task, recording->seed,
            (unsigned long long)recording->episodes, (unsigned long long)recording->steps,
            difference->obs, difference->reward);
    if (difference->found)
        fprintf(out, "       %llu values of obs differ, first in episode %llu, obs %llu, component %llu\n",
                (unsigned long long)difference->unequal, (unsigned long long)difference->episode,
                (unsigned long long)difference->step, (unsigned long long)difference->component);
}

static bool judge_frames(const struct recording *recording, const struct frame_difference *frames,
                         enum env_replay_bits bits)
{
    bool same = bits == ENV_REPLAY_EXACT && recording->options.drawing == ENV_DRAW_EXACT &&
                gl_drew_recordings();

    return same || bits == ENV_REPLAY_ALL ? frames->unequal == 0 : frames->outside == 0;
}

static bool judge(const struct recording *recording, const struct difference *difference,
                  enum env_replay_bits bits)
{
    bool rgb = recording->options.obs_type == ENV_OBS_RGB;

    if (rgb && !judge_frames(recording, &difference->frames, bits))
        return false;
    if (bits == ENV_REPLAY_STEP)
        return difference->judged_obs <= STEP_TOLERANCE && difference->judged_reward <= STEP_TOLERANCE;
    return difference->unequal == 0 && difference->reward <= REWARD_TOLERANCE;
}

int env_replay_file(const char *path, enum env_replay_bits bits, enum env_drawing drawing, FILE *out,
                    struct error *err)
{
    struct recording recording;
    struct difference difference = {0};
    bool good;
    int rc;

    if ((rc = recording_read(&recording, path, drawing, err)) == TD_OK &&
        (rc = run(&recording, &difference, err)) == TD_OK) {
        good = judge(&recording, &difference, bits);
        if (recording.options.obs_type == ENV_OBS_RGB)
            print_frames(&recording, &difference, good, out);
        else
            print_state(&recording, &difference, good, out);
        rc = good ? TD_OK : TD_EAGAIN;
    }
    recording_release(&recording);
    return rc;
}
