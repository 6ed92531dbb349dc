/*
 * Pendulum: swing a weakly driven pendulum up and hold it, suite/pendulum.py; or spin it, TD-MPC2's
 * envs/tasks/pendulum.py.
 */
#include "common/env/dm/dm.h"

enum { HINGE, POLE };

static const struct dm_name names[] = {
    [HINGE] = {mjOBJ_JOINT, "hinge"},
    [POLE] = {mjOBJ_BODY, "pole"},
    {0, NULL},
};

static void reset(struct dm *dm)
{
    *dm_qpos(dm, dm->id[HINGE]) = dm_uniform(dm, -DM_PI, DM_PI);
}

static double *observe(const struct dm *dm, double *obs)
{
    *obs++ = dm_body_xmat(dm, dm->id[POLE], DM_ZZ);
    *obs++ = dm_body_xmat(dm, dm->id[POLE], DM_XZ);
    *obs++ = *dm_qvel(dm, dm->id[HINGE]);
    return obs;
}

/* [cos 8 deg <= zz <= 1]; zz can exceed 1 by an ulp, and then earns nothing */
static double reward_swingup(const struct dm *dm)
{
    return dm_within(dm_body_xmat(dm, dm->id[POLE], DM_ZZ), cos(8 * (DM_PI / 180)), 1);
}

/* tol(|hinge velocity|; [v, inf), v/2, linear to .5) with v = 9 */
static double reward_spin(const struct dm *dm)
{
    double speed = dm->task->value;

    return dm_linear(fabs(*dm_qvel(dm, dm->id[HINGE])), speed, INFINITY, speed / 2, .5);
}

static const struct dm_task tasks[] = {
    {"pendulum-swingup", 3, 0, reset, observe, .reward = reward_swingup},
    {"pendulum-spin", 3, 9, reset, observe, .reward = reward_spin},
    {.name = NULL},
};

const struct dm_domain dm_pendulum = {
    .file = "pendulum.xml",
    .title = "pendulum",
    .substeps = 1,
    .nq = 1, .nv = 1, .nu = 1, .nbody = 2, .nsensordata = 0,
    .names = names,
    .tasks = tasks,
};
