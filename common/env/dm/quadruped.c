/* Quadruped: a four-legged robot walks and runs. suite/quadruped.py */
#include "common/env/dm/dm.h"

#define TRIES 10000 /* heights tried, as in dm_control */
#define STEP  0.01  /* from one height to the next */

enum { ROOT, TORSO, VELOCIMETER, ACCELEROMETER, GYRO };

static const struct dm_name names[] = {
    [ROOT] = {mjOBJ_JOINT, "root"},
    [TORSO] = {mjOBJ_BODY, "torso"},
    [VELOCIMETER] = {mjOBJ_SENSOR, "velocimeter"},
    [ACCELEROMETER] = {mjOBJ_SENSOR, "imu_accel"},
    [GYRO] = {mjOBJ_SENSOR, "imu_gyro"},
    {0, NULL},
};

/*
 * Any orientation, at the first height where nothing touches. Lower ones may fill MuJoCo's buffer of
 * contacts, about which dm_control does not complain here.
 */
static void reset(struct dm *dm)
{
    double *root = dm_qpos(dm, dm->id[ROOT]);
    double quaternion[4], height = 0;

    for (int i = 0; i < 4; i++)
        quaternion[i] = dm_normal(dm);
    dm_normalize(quaternion, 4);
    for (int i = 0; i < TRIES; i++, height += STEP) {
        dm_restart(dm);
        root[0] = root[1] = 0;
        root[2] = height;
        dm_put(root + 3, quaternion, 4);
        dm_forward_anyway(dm);
        if (dm->data->ncon == 0)
            return;
    }
    dm->failed = "no height found where nothing touches";
}

/* Forces and torques on the toes, in the order of the sensors, on a scale like a logarithm. */
static double *put_forces(const struct dm *dm, double *obs)
{
    for (int sensor = 0; sensor < dm->model->nsensor; sensor++) {
        int type = dm->model->sensor_type[sensor];

        if (type == mjSENS_FORCE || type == mjSENS_TORQUE)
            for (int i = 0; i < 3; i++)
                *obs++ = asinh(dm_sensor(dm, sensor)[i]);
    }
    return obs;
}

/* Joints, their velocities, actuators; the torso's velocity, uprightness, accelerations; toes. */
static double *observe(const struct dm *dm, double *obs)
{
    obs = dm_put_hinges(dm, obs);
    obs = dm_put_hinge_velocities(dm, obs);
    obs = dm_put(obs, dm->data->act, dm->model->na);
    obs = dm_put(obs, dm_sensor(dm, dm->id[VELOCIMETER]), 3);
    *obs++ = dm_body_xmat(dm, dm->id[TORSO], DM_ZZ);
    obs = dm_put(obs, dm_sensor(dm, dm->id[ACCELEROMETER]), 3);
    obs = dm_put(obs, dm_sensor(dm, dm->id[GYRO]), 3);
    return put_forces(dm, obs);
}

/* tol(zz; [1, inf), 2, linear to 0) * tol(vx; [s, inf), s, linear to .5), s = .5 walking, 5 running */
static double reward(const struct dm *dm)
{
    double speed = dm->task->value;
    double upright = dm_linear(dm_body_xmat(dm, dm->id[TORSO], DM_ZZ), 1, INFINITY, 2, 0);

    return upright * dm_linear(dm_sensor(dm, dm->id[VELOCIMETER])[0], speed, INFINITY, speed, .5);
}

/* make_model: a bare floor that a whole episode fits on. */
#define BARE_FLOOR(size_)                                                                          \
    {MODEL_SET, "geom", "floor", "size", size_}, {MODEL_DROP, "geom", .name = "wall_px"},          \
    {MODEL_DROP, "geom", .name = "wall_py"}, {MODEL_DROP, "geom", .name = "wall_nx"},              \
    {MODEL_DROP, "geom", .name = "wall_ny"}, {MODEL_DROP, "body", .name = "ball"},                 \
    {MODEL_DROP, "site", .name = "target"}, {MODEL_DROP, "geom", .name = "terrain"},               \
    {MODEL_DROP, .element = "rangefinder"}, {.verb = MODEL_END}

static const struct model_edit walk_floor[] = {BARE_FLOOR("10.0 10.0 .5")};
static const struct model_edit run_floor[] = {BARE_FLOOR("100 100 .5")};

static const struct dm_task tasks[] = {
    {"quadruped-walk", 78, .5, reset, observe, .reward = reward, .edits = walk_floor},
    {"quadruped-run", 78, 5, reset, observe, .reward = reward, .edits = run_floor},
    {.name = NULL},
};

const struct dm_domain dm_quadruped = {
    .file = "quadruped.xml",
    .title = "quadruped",
    .camera = 2,
    .substeps = 4,
    .nq = 23, .nv = 22, .nu = 12, .na = 12, .nbody = 18, .nsensordata = 36,
    .names = names,
    .tasks = tasks,
};
