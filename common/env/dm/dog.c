/* Dog: a detailed dog stands, walks, trots and runs. suite/dog.py */
#include "common/env/dm/dm.h"

enum {
    ROOT,
    SKULL, TORSO, PELVIS, /* in the order of the observation */
    VELOCITY, ACCELEROMETER, VELOCIMETER, GYRO,
    FORCES, FORCES_END = FORCES + 4, TOUCHES = FORCES_END, TOUCHES_END = TOUCHES + 4,
};

static const struct dm_name names[] = {
    [ROOT] = {mjOBJ_JOINT, "root"},
    [SKULL] = {mjOBJ_BODY, "skull"},
    [TORSO] = {mjOBJ_BODY, "torso"},
    [PELVIS] = {mjOBJ_BODY, "pelvis"},
    [VELOCITY] = {mjOBJ_SENSOR, "torso_linvel"},
    [ACCELEROMETER] = {mjOBJ_SENSOR, "accelerometer"},
    [VELOCIMETER] = {mjOBJ_SENSOR, "velocimeter"},
    [GYRO] = {mjOBJ_SENSOR, "gyro"},
    [FORCES] = {mjOBJ_SENSOR, "foot_L"},
    {mjOBJ_SENSOR, "foot_R"},
    {mjOBJ_SENSOR, "hand_L"},
    {mjOBJ_SENSOR, "hand_R"},
    [TOUCHES] = {mjOBJ_SENSOR, "palm_L"},
    {mjOBJ_SENSOR, "palm_R"},
    {mjOBJ_SENSOR, "sole_L"},
    {mjOBJ_SENSOR, "sole_R"},
    {0, NULL},
};

/* What a reset measures for the rewards. */
enum { TORSO_HEIGHT, PELVIS_HEIGHT, WEIGHT, MEASURES };

static void prepare(struct dm *dm)
{
    dm_edit(dm, dm->memory, MEASURES);
}

static double height(const struct dm *dm, int body)
{
    return dm->data->xpos[3 * dm->id[body] + 2];
}

/* Measure the default pose; draw a heading, a horizontal velocity and the actuators' states. */
static void reset(struct dm *dm)
{
    const mjModel *model = dm->model;
    double *root = dm_qpos(dm, dm->id[ROOT]), angle;

    dm_restart(dm);
    dm->memory[TORSO_HEIGHT] = height(dm, TORSO) * .9;
    dm->memory[PELVIS_HEIGHT] = height(dm, PELVIS) * .9;
    dm->memory[WEIGHT] = -model->opt.gravity[2] * model->body_subtreemass[dm->id[TORSO]];

    angle = dm_uniform(dm, 0, 2 * DM_PI);
    root[3] = cos(angle / 2);
    root[4] = root[5] = 0;
    root[6] = sin(angle / 2);
    dm->data->qvel[0] = 2 * dm_normal(dm);
    dm->data->qvel[1] = 2 * dm_normal(dm);
    dm->data->qvel[5] = 2 * dm_normal(dm);
    for (int i = 0; i < model->nu; i++)
        dm->data->act[i] = dm_uniform(dm, model->actuator_ctrlrange[2 * i],
                                      model->actuator_ctrlrange[2 * i + 1]);
}

/* The velocity of the centre of mass in the torso's frame. */
static void velocity(const struct dm *dm, double out[3])
{
    dm_rotate(out, dm_sensor(dm, dm->id[VELOCITY]), &dm->data->xmat[9 * dm->id[TORSO]]);
}

static double *observe(const struct dm *dm, double *obs)
{
    obs = dm_put_hinges(dm, obs);
    obs = dm_put_hinge_velocities(dm, obs);
    *obs++ = height(dm, TORSO);
    *obs++ = height(dm, PELVIS);
    for (int body = SKULL; body <= PELVIS; body++)
        obs = dm_put(obs, &dm->data->xmat[9 * dm->id[body] + DM_ZX], 3);
    velocity(dm, obs);
    obs += 3;
    obs = dm_put(obs, dm_sensor(dm, dm->id[ACCELEROMETER]), 3);
    obs = dm_put(obs, dm_sensor(dm, dm->id[VELOCIMETER]), 3);
    obs = dm_put(obs, dm_sensor(dm, dm->id[GYRO]), 3);
    for (int i = FORCES; i < FORCES_END; i++)
        obs = dm_put(obs, dm_sensor(dm, dm->id[i]), 3);
    for (int i = TOUCHES; i < TOUCHES_END; i++)
        *obs++ = *dm_sensor(dm, dm->id[i]);
    return dm_put(obs, dm->data->act, dm->model->na);
}

/* tol(z; [h, inf), h, Gaussian), h = .9 of the default pose's z */
static double standing(const struct dm *dm, int body, int measure)
{
    double wanted = dm->memory[measure];

    return dm_gaussian(height(dm, body), wanted, INFINITY, wanted);
}

/* tol(zz; [c, inf), c + 1, linear to 0), c = cos 30 deg */
static double upright(const struct dm *dm, int body)
{
    double least = cos(30 * (DM_PI / 180));

    return dm_linear(dm_body_xmat(dm, dm->id[body], DM_ZZ), least, INFINITY, least + 1, 0);
}

/* tol(sum of the feet's touch; [W, inf), W, linear to .9), W = the body's weight */
static double touching(const struct dm *dm)
{
    double weight = dm->memory[WEIGHT], touch = 0;

    for (int i = TOUCHES; i < TOUCHES_END; i++)
        touch += *dm_sensor(dm, dm->id[i]);
    return dm_linear(touch, weight, INFINITY, weight, .9);
}

/* P = standing of torso and pelvis * upright skull, torso and pelvis * touching */
static double reward_stand(const struct dm *dm)
{
    return standing(dm, TORSO, TORSO_HEIGHT) * standing(dm, PELVIS, PELVIS_HEIGHT) *
           upright(dm, SKULL) * upright(dm, TORSO) * upright(dm, PELVIS) * touching(dm);
}

/* P (4 tol(forward velocity; [s, 2s], max(1, s), linear to 0) + 1)/5, s = 1, 3, 9 */
static double reward_move(const struct dm *dm)
{
    double speed = dm->task->value, forward[3];

    velocity(dm, forward);
    return reward_stand(dm) * ((4 * dm_linear(forward[0], speed, 2 * speed, fmax(1, speed), 0) + 1) / 5);
}

/* make_model: a bare floor that a whole episode fits on. */
#define BARE_FLOOR(size_)                                                                          \
    {MODEL_SET, "geom", "floor", "size", size_}, {MODEL_DROP, "body", .name = "ball"},             \
    {MODEL_DROP, "geom", .name = "target"}, {MODEL_DROP, "camera", .name = "ball"},                \
    {MODEL_DROP, "camera", .name = "head"}, {MODEL_DROP, "geom", .name = "wall_px"},               \
    {MODEL_DROP, "geom", .name = "wall_nx"}, {MODEL_DROP, "geom", .name = "wall_py"},              \
    {MODEL_DROP, "geom", .name = "wall_ny"}, {.verb = MODEL_END}

static const struct model_edit walk_floor[] = {BARE_FLOOR("15 15 .1")};
static const struct model_edit trot_floor[] = {BARE_FLOOR("45 45 .1")};
static const struct model_edit run_floor[] = {BARE_FLOOR("135 135 .1")};

static const struct dm_task tasks[] = {
    {"dog-stand", 223, 0, reset, observe, .reward = reward_stand, .edits = walk_floor},
    {"dog-walk", 223, 1, reset, observe, .reward = reward_move, .edits = walk_floor},
    {"dog-trot", 223, 3, reset, observe, .reward = reward_move, .edits = trot_floor},
    {"dog-run", 223, 9, reset, observe, .reward = reward_move, .edits = run_floor},
    {.name = NULL},
};

const struct dm_domain dm_dog = {
    .file = "dog.xml",
    .title = "dog",
    .substeps = 3,
    .nq = 80, .nv = 79, .nu = 38, .na = 38, .nbody = 62, .nsensordata = 31,
    .names = names,
    .prepare = prepare,
    .tasks = tasks,
};
