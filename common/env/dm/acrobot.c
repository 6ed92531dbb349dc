/* Acrobot: swing a two-link arm, driven at the elbow, up to a target above. suite/acrobot.py */
#include "common/env/dm/dm.h"

enum { SHOULDER, ELBOW, UPPER_ARM, LOWER_ARM, TARGET, TIP };

static const struct dm_name names[] = {
    [SHOULDER] = {mjOBJ_JOINT, "shoulder"},   [ELBOW] = {mjOBJ_JOINT, "elbow"},
    [UPPER_ARM] = {mjOBJ_BODY, "upper_arm"},  [LOWER_ARM] = {mjOBJ_BODY, "lower_arm"},
    [TARGET] = {mjOBJ_SITE, "target"},        [TIP] = {mjOBJ_SITE, "tip"},
    {0, NULL},
};

static void reset(struct dm *dm)
{
    *dm_qpos(dm, dm->id[SHOULDER]) = dm_uniform(dm, -DM_PI, DM_PI);
    *dm_qpos(dm, dm->id[ELBOW]) = dm_uniform(dm, -DM_PI, DM_PI);
}

/* The horizontal, then the vertical components of both arms' axes; velocities. */
static double *observe(const struct dm *dm, double *obs)
{
    *obs++ = dm_body_xmat(dm, dm->id[UPPER_ARM], DM_XZ);
    *obs++ = dm_body_xmat(dm, dm->id[LOWER_ARM], DM_XZ);
    *obs++ = dm_body_xmat(dm, dm->id[UPPER_ARM], DM_ZZ);
    *obs++ = dm_body_xmat(dm, dm->id[LOWER_ARM], DM_ZZ);
    return dm_put(obs, dm->data->qvel, dm->model->nv);
}

/* tol(|target - tip|; [0, target radius], 1, Gaussian) */
static double reward(const struct dm *dm)
{
    const double *target = &dm->data->site_xpos[3 * dm->id[TARGET]];
    const double *tip = &dm->data->site_xpos[3 * dm->id[TIP]];
    double between[3] = {target[0] - tip[0], target[1] - tip[1], target[2] - tip[2]};

    return dm_gaussian(dm_norm(between, 3), 0, dm->model->site_size[3 * dm->id[TARGET]], 1);
}

static const struct dm_task tasks[] = {
    {"acrobot-swingup", 6, 0, reset, observe, .reward = reward},
    {.name = NULL},
};

const struct dm_domain dm_acrobot = {
    .file = "acrobot.xml",
    .title = "acrobot",
    .substeps = 1,
    .nq = 2, .nv = 2, .nu = 1, .nbody = 3, .nsensordata = 0,
    .names = names,
    .tasks = tasks,
};
