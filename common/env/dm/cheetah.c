/* Cheetah: a planar running robot. suite/cheetah.py */
#include "common/env/dm/dm.h"

#define SETTLING 200 /* physics steps before an episode begins */

enum { VELOCITY };

static const struct dm_name names[] = {
    [VELOCITY] = {mjOBJ_SENSOR, "torso_subtreelinvel"},
    {0, NULL},
};

/*
 * Draw the limited joints, then let the body settle. There is no forward between the two: the first
 * physics step still uses the kinematics of the default pose, as in dm_control.
 */
static void reset(struct dm *dm)
{
    const mjModel *model = dm->model;

    for (int joint = 0; joint < model->njnt; joint++)
        if (model->jnt_limited[joint])
            *dm_qpos(dm, joint) = dm_uniform(dm, model->jnt_range[2 * joint],
                                             model->jnt_range[2 * joint + 1]);
    dm_advance(dm, SETTLING);
    dm->data->time = 0;
}

/* All positions but the horizontal one; velocities. */
static double *observe(const struct dm *dm, double *obs)
{
    obs = dm_put(obs, dm->data->qpos + 1, dm->model->nq - 1);
    return dm_put(obs, dm->data->qvel, dm->model->nv);
}

/* tol(vx; [v, inf), v, linear to 0) with v = 10 */
static double reward(const struct dm *dm)
{
    double speed = dm->task->value;

    return dm_linear(dm_sensor(dm, dm->id[VELOCITY])[0], speed, INFINITY, speed, 0);
}

static const struct dm_task tasks[] = {
    {"cheetah-run", 17, 10, reset, observe, reward},
    {.name = NULL},
};

const struct dm_domain dm_cheetah = {
    .file = "cheetah.xml",
    .substeps = 1,
    .nq = 9, .nv = 9, .nu = 6, .nbody = 8, .nsensordata = 3,
    .names = names,
    .tasks = tasks,
};
