#include "common/env/dm/dm.h"

#include <stdio.h>
#include <stdlib.h>

#define REPEAT 2   /* control steps per agent step */
#define LIMIT  500 /* agent steps per episode: 1,000 control steps in every domain */

static const struct dm_domain *const domains[] = {
    &dm_walker,      &dm_cheetah, &dm_reacher, &dm_reacher_three, &dm_reacher_four,
    &dm_acrobot,     &dm_pendulum, &dm_cartpole, &dm_ball_in_cup, &dm_finger,
    &dm_fish,        &dm_hopper,  &dm_humanoid, &dm_quadruped,    &dm_dog,
};

/* --- physics ------------------------------------------------------------------------------- */

static int warnings(const struct dm *dm)
{
    int count = 0;

    for (int i = 0; i < mjNWARNING; i++)
        count += dm->data->warning[i].number;
    return count;
}

void dm_forward_anyway(struct dm *dm)
{
    int flags = dm->model->opt.disableflags;

    dm->model->opt.disableflags = flags | mjDSBL_ACTUATION;
    dm->mj->mj_forward(dm->model, dm->data);
    dm->model->opt.disableflags = flags;
}

void dm_forward(struct dm *dm)
{
    int before = warnings(dm);

    dm_forward_anyway(dm);
    dm->invalid |= warnings(dm) > before;
}

void dm_restart(struct dm *dm)
{
    dm->mj->mj_resetData(dm->model, dm->data);
    dm_forward_anyway(dm);
}

/*
 * Positions and velocities are already those of the present state, so an Euler step only has its
 * second half left; the closing mj_step1 brings them up to date again. Sensors of the acceleration
 * stage (touch, force) lag one physics step behind.
 */
void dm_advance(struct dm *dm, int n)
{
    int before = warnings(dm);

    if (dm->rk4)
        dm->mj->mj_step(dm->model, dm->data);
    else
        dm->mj->mj_step2(dm->model, dm->data);
    for (int i = 1; i < n; i++)
        dm->mj->mj_step(dm->model, dm->data);
    dm->mj->mj_step1(dm->model, dm->data);
    dm->invalid |= warnings(dm) > before;
}

/* dm_control draws the orientation uniformly from a quadrant of quaternions. */
static void randomize_orientation(struct dm *dm, int joint)
{
    double *quaternion = dm_qpos(dm, joint) + 3;

    for (int i = 0; i < 4; i++)
        quaternion[i] = dm_uniform(dm, 0, 1);
    dm_normalize(quaternion, 4);
}

void dm_randomize_joints(struct dm *dm)
{
    const mjModel *model = dm->model;

    for (int joint = 0; joint < model->njnt; joint++) {
        int type = model->jnt_type[joint];

        if (type == mjJNT_FREE)
            randomize_orientation(dm, joint);
        if (type != mjJNT_HINGE && type != mjJNT_SLIDE)
            continue;
        if (model->jnt_limited[joint])
            *dm_qpos(dm, joint) = dm_uniform(dm, model->jnt_range[2 * joint],
                                             model->jnt_range[2 * joint + 1]);
        else if (type == mjJNT_HINGE)
            *dm_qpos(dm, joint) = dm_uniform(dm, -DM_PI, DM_PI);
    }
}

void dm_randomize_apart(struct dm *dm, int tries, const char *what)
{
    for (int i = 0; i < tries; i++) {
        dm_randomize_joints(dm);
        dm_forward(dm);
        if (dm->data->ncon == 0)
            return;
    }
    dm->failed = what;
}

void dm_edit(struct dm *dm, double *value, int count)
{
    TD_ASSERT(dm->edit_count + count <= DM_EDITS, "%d edits", dm->edit_count + count);
    for (int i = 0; i < count; i++)
        dm->edit[dm->edit_count++] = &value[i];
}

/* --- reading the state --------------------------------------------------------------------- */

double *dm_put_hinges(const struct dm *dm, double *obs)
{
    for (int joint = 0; joint < dm->model->njnt; joint++)
        if (dm->model->jnt_type[joint] == mjJNT_HINGE)
            *obs++ = *dm_qpos(dm, joint);
    return obs;
}

double *dm_put_hinge_velocities(const struct dm *dm, double *obs)
{
    for (int joint = 0; joint < dm->model->njnt; joint++)
        if (dm->model->jnt_type[joint] == mjJNT_HINGE)
            *obs++ = *dm_qvel(dm, joint);
    return obs;
}

double *dm_put_relative(const struct dm *dm, int frame, int body, double *obs)
{
    const double *from = &dm->data->xpos[3 * frame], *to = &dm->data->xpos[3 * body];
    double between[3] = {to[0] - from[0], to[1] - from[1], to[2] - from[2]};

    dm_rotate(obs, between, &dm->data->xmat[9 * frame]);
    return obs + 3;
}

/* --- small algebra ------------------------------------------------------------------------- */

double dm_norm(const double *v, int count)
{
    double sum = 0;

    for (int i = 0; i < count; i++)
        sum = fma(v[i], v[i], sum);
    return sqrt(sum);
}

void dm_normalize(double *v, int count)
{
    double norm = dm_norm(v, count);

    for (int i = 0; i < count; i++)
        v[i] /= norm;
}

/* NumPy adds eight or more values in eight running sums, fewer in order. */
double dm_mean(const double *v, int count)
{
    double sum = 0;
    int done = 0;

    if (count >= 8) {
        double part[8];

        memcpy(part, v, sizeof(part));
        for (done = 8; done + 8 <= count; done += 8)
            for (int i = 0; i < 8; i++)
                part[i] += v[done + i];
        sum = ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]));
    }
    for (int i = done; i < count; i++)
        sum += v[i];
    return sum / count;
}

void dm_rotate(double out[3], const double v[3], const double *matrix)
{
    for (int j = 0; j < 3; j++) {
        double sum = 0;

        for (int i = 0; i < 3; i++)
            sum = fma(v[i], matrix[3 * i + j], sum);
        out[j] = sum;
    }
}

/* --- rewards ------------------------------------------------------------------------------- */

double dm_within(double x, double low, double high)
{
    return low <= x && x <= high ? 1 : 0;
}

/* How many margins x lies outside the bounds. */
static double outside(double x, double low, double high, double margin)
{
    return (x < low ? low - x : x - high) / margin;
}

double dm_gaussian(double x, double low, double high, double margin)
{
    double scaled;

    if (low <= x && x <= high)
        return 1;
    scaled = outside(x, low, high, margin) * sqrt(-2 * log(0.1));
    return exp(-0.5 * (scaled * scaled));
}

double dm_linear(double x, double low, double high, double margin, double value)
{
    double scaled;

    if (low <= x && x <= high)
        return 1;
    scaled = outside(x, low, high, margin) * (1 - value);
    return fabs(scaled) < 1 ? 1 - scaled : 0;
}

double dm_quadratic(double x)
{
    return fabs(x) < 1 ? 1 - x * x : 0;
}

double dm_mean_quadratic(const struct dm *dm)
{
    double price[DM_CONTROLS];

    for (int i = 0; i < dm->model->nu; i++)
        price[i] = dm_quadratic(dm->data->ctrl[i]);
    return dm_mean(price, dm->model->nu);
}

/* --- opening ------------------------------------------------------------------------------- */

static const struct dm_task *find_task(const char *name, const struct dm_domain **domain)
{
    for (size_t i = 0; i < TD_LEN(domains); i++)
        for (const struct dm_task *task = domains[i]->tasks; task->name != NULL; task++)
            if (strcmp(task->name, name) == 0) {
                *domain = domains[i];
                return task;
            }
    return NULL;
}

static const char *dm_task_name(int index)
{
    for (size_t i = 0; i < TD_LEN(domains); i++)
        for (const struct dm_task *task = domains[i]->tasks; task->name != NULL; task++)
            if (index-- == 0)
                return task->name;
    return NULL;
}

static bool dm_find(const char *name, struct env_spec *spec)
{
    const struct dm_domain *domain;
    const struct dm_task *task = find_task(name, &domain);

    if (task == NULL)
        return false;
    *spec = (struct env_spec){
        .obs_type = ENV_OBS_STATE,
        .obs_dim = task->obs_dim,
        .action_dim = (uint32_t)domain->nu,
        .episode_length = LIMIT,
        .action_repeat = REPEAT,
        .exact_state = true,
    };
    snprintf(spec->task, sizeof(spec->task), "%s", name);
    return true;
}

static void dm_describe(const char *name, struct env_about *about)
{
    const struct dm_domain *domain = NULL;
    const struct dm_task *task = find_task(name, &domain);

    TD_ASSERT(task != NULL, "%s", name);
    about->suite = "DMControl";
    about->domain = domain->title;
    about->note = task->note;
    about->available = mujoco_present(domain->file, &about->why) == TD_OK;
}

/* Everything that the domain's code relies on. */
static int check_model(struct dm *dm, struct error *err)
{
    const struct dm_domain *domain = dm->domain;
    const mjModel *model = dm->model;

    if (model->nq != domain->nq || model->nv != domain->nv || model->nu != domain->nu ||
        model->na != domain->na || model->nbody != domain->nbody || model->nsensordata != domain->nsensordata)
        return error_set(err, TD_ECORRUPT, "%s is not the model of dm_control 1.0.16: its sizes differ",
                         domain->file);
    TD_ASSERT(model->nu <= DM_CONTROLS, "%d controls", model->nu);
    for (int i = 0; i < model->nu; i++)
        if (!model->actuator_ctrllimited[i])
            return error_set(err, TD_ECORRUPT,
                             "%s is not the model of dm_control 1.0.16: actuator %d has no limits",
                             domain->file, i);
    for (int i = 0; domain->names[i].name != NULL; i++) {
        TD_ASSERT(i < DM_IDS, "%s looks up too many names", domain->file);
        dm->id[i] = dm->mj->mj_name2id(model, domain->names[i].type, domain->names[i].name);
        if (dm->id[i] < 0)
            return error_set(err, TD_ECORRUPT, "%s has no '%s': not the model of dm_control 1.0.16",
                             domain->file, domain->names[i].name);
    }
    return TD_OK;
}

static void make_data(void *context)
{
    struct dm *dm = context;

    dm->data = dm->mj->mj_makeData(dm->model);
}

static void dm_close(struct env *env)
{
    struct dm *dm = (struct dm *)env;

    render_close(&dm->frames);
    render_close(&dm->pictures);
    if (dm->data != NULL)
        dm->mj->mj_deleteData(dm->data);
    if (dm->model != NULL)
        dm->mj->mj_deleteModel(dm->model);
    free(dm);
}

static int dm_create(struct env **out, const struct env_spec *spec, uint32_t seed, struct error *err)
{
    struct dm *dm = calloc(1, sizeof(*dm));
    int rc = TD_ENOMEM;

    if (dm == NULL) {
        error_set(err, rc, "no memory for an environment");
        return rc;
    }
    dm->task = find_task(spec->task, &dm->domain);
    TD_ASSERT(dm->task != NULL, "%s", spec->task);
    random_state_seed(&dm->random, seed);
    if ((dm->mj = mujoco_open(err)) == NULL) {
        rc = err != NULL ? err->code : TD_ESETUP;
        goto fail;
    }
    if ((rc = mujoco_load_model(dm->mj, dm->domain->file, dm->task->edits, &dm->model, err)) != TD_OK)
        goto fail;
    if ((rc = check_model(dm, err)) != TD_OK)
        goto fail;
    if ((rc = mujoco_run(make_data, dm, err)) != TD_OK)
        goto fail;
    if (dm->data == NULL) {
        rc = error_set(err, TD_ENOMEM, "no memory for the simulation of %s", dm->domain->file);
        goto fail;
    }
    dm->rk4 = dm->model->opt.integrator == mjINT_RK4;
    if (dm->domain->prepare != NULL)
        dm->domain->prepare(dm);
    *out = &dm->env;
    return TD_OK;

fail:
    dm_close(&dm->env);
    return rc;
}

/* --- episodes ------------------------------------------------------------------------------ */

/* What a reset or step came to: rc is mujoco_run's. */
static int outcome(struct dm *dm, int rc, struct error *err)
{
    if (rc != TD_OK)
        return rc;
    if (dm->failed != NULL)
        return error_set(err, TD_EIO, "%s: %s", dm->task->name, dm->failed);
    if (dm->invalid)
        return error_set(err, TD_EIO, "%s: the physics state became invalid: %s", dm->task->name,
                         mujoco_last_warning());
    return TD_OK;
}

static void reset_body(void *context)
{
    struct dm *dm = context;

    dm_restart(dm);
    dm->task->reset(dm);
    dm_forward(dm);
}

static int dm_reset(struct env *env, struct error *err)
{
    struct dm *dm = (struct dm *)env;

    dm->invalid = false;
    dm->failed = NULL;
    return outcome(dm, mujoco_run(reset_body, dm, err), err);
}

/* Map [-1, 1] to each actuator's range; neither fused nor clipped. */
static void set_control(struct dm *dm, const float *action)
{
    const double *range = dm->model->actuator_ctrlrange;

    for (int i = 0; i < dm->model->nu; i++) {
        double low = range[2 * i], high = range[2 * i + 1];
        double scale = (high - low) / 2;

        dm->data->ctrl[i] = low + scale * ((double)action[i] + 1);
    }
}

struct step {
    struct dm *dm;
    const float *action;
    double reward;
};

static void step_body(void *context)
{
    struct step *step = context;
    struct dm *dm = step->dm;

    for (int i = 0; i < REPEAT && !dm->invalid; i++) {
        set_control(dm, step->action);
        dm_advance(dm, dm->domain->substeps);
        step->reward += dm->task->reward(dm);
    }
}

static int dm_step(struct env *env, const float *action, struct env_result *result,
                   struct error *err)
{
    struct dm *dm = (struct dm *)env;
    struct step step = {.dm = dm, .action = action};
    int rc = outcome(dm, mujoco_run(step_body, &step, err), err);

    result->reward = step.reward;
    return rc;
}

static void dm_observe(struct env *env, void *obs)
{
    struct dm *dm = (struct dm *)env;
    double values[DM_OBS_MAX];
    float *out = obs;
    uint32_t count = (uint32_t)(dm->task->observe(dm, values) - values);

    TD_ASSERT(count == dm->task->obs_dim, "%s observes %u values", dm->task->name, count);
    for (uint32_t i = 0; i < count; i++)
        out[i] = (float)values[i];
}

/* --- state --------------------------------------------------------------------------------- */

/* random state | edited model values | sensor data | MuJoCo's integration state */
static int integration_size(const struct dm *dm)
{
    return dm->mj->mj_stateSize(dm->model, mjSTATE_INTEGRATION);
}

static size_t dm_state_size(const struct env *env)
{
    const struct dm *dm = (const struct dm *)env;
    int doubles = dm->edit_count + dm->model->nsensordata + integration_size(dm);

    return sizeof(dm->random) + (size_t)doubles * sizeof(double);
}

static void dm_state_get(struct env *env, void *bytes)
{
    struct dm *dm = (struct dm *)env;
    double *out = (double *)((char *)bytes + sizeof(dm->random));

    memcpy(bytes, &dm->random, sizeof(dm->random));
    for (int i = 0; i < dm->edit_count; i++)
        *out++ = *dm->edit[i];
    out = dm_put(out, dm->data->sensordata, dm->model->nsensordata);
    dm->mj->mj_getState(dm->model, dm->data, out, mjSTATE_INTEGRATION);
}

struct restore {
    struct dm *dm;
    const double *sensordata, *integration;
};

static void restore_body(void *context)
{
    struct restore *restore = context;
    struct dm *dm = restore->dm;

    dm->mj->mj_resetData(dm->model, dm->data);
    dm->mj->mj_setState(dm->model, dm->data, restore->integration, mjSTATE_INTEGRATION);
    dm->mj->mj_step1(dm->model, dm->data);
    dm_put(dm->data->sensordata, restore->sensordata, dm->model->nsensordata);
}

static int dm_state_set(struct env *env, const void *bytes, struct error *err)
{
    struct dm *dm = (struct dm *)env;
    const struct random_state *random = bytes;
    const double *values = (const double *)(random + 1);
    size_t count = (dm_state_size(env) - sizeof(*random)) / sizeof(double);
    struct restore restore = {
        .dm = dm,
        .sensordata = values + dm->edit_count,
        .integration = values + dm->edit_count + dm->model->nsensordata,
    };

    if (!random_state_valid(random))
        return error_set(err, TD_ECORRUPT, "the saved state of %s has an impossible random state",
                         dm->task->name);
    for (size_t i = 0; i < count; i++)
        if (!isfinite(values[i]))
            return error_set(err, TD_ECORRUPT, "the saved state of %s holds a value that is not finite",
                             dm->task->name);
    dm->random = *random;
    for (int i = 0; i < dm->edit_count; i++)
        *dm->edit[i] = values[i];
    dm->invalid = false;
    dm->failed = NULL;
    return mujoco_run(restore_body, &restore, err);
}

/* --- drawing ------------------------------------------------------------------------------- */

static int dm_render_open(struct env *env, struct error *err)
{
    struct dm *dm = (struct dm *)env;

    return render_open(&dm->frames, dm->mj, dm->model, ENV_FRAME_SIDE, ENV_FRAME_SIDE,
                       env->options.drawing, err);
}

static int dm_render(struct env *env, const struct env_view *view, uint8_t *pixels,
                     struct error *err)
{
    struct dm *dm = (struct dm *)env;
    struct env_view from = *view;
    bool frame = view->width == ENV_FRAME_SIDE && view->height == ENV_FRAME_SIDE && view->camera == -1;
    int rc = TD_OK;

    if (view->camera == -1)
        from.camera = dm->domain->camera;
    if (!frame && dm->pictures == NULL)
        rc = render_open(&dm->pictures, dm->mj, dm->model, view->width, view->height, ENV_DRAW_EXACT, err);
    return rc != TD_OK ? rc : render_draw(frame ? dm->frames : dm->pictures, dm->data, &from, pixels, err);
}

const struct env_class dm_class = {
    .find = dm_find,
    .name = dm_task_name,
    .describe = dm_describe,
    .create = dm_create,
    .reset = dm_reset,
    .step = dm_step,
    .observe = dm_observe,
    .state_size = dm_state_size,
    .state_get = dm_state_get,
    .state_set = dm_state_set,
    .rgb = true,
    .render_open = dm_render_open,
    .render = dm_render,
    .close = dm_close,
};
