/*
 * Reacher: bring an arm's finger to a target in the plane. Two links: suite/reacher.py; three and four:
 * TD-MPC2's envs/tasks/reacher.py, on models of our own.
 */
#include "common/env/dm/dm.h"

enum { FINGER, TARGET };

static const struct dm_name names[] = {
    [FINGER] = {mjOBJ_GEOM, "finger"},
    [TARGET] = {mjOBJ_GEOM, "target"},
    {0, NULL},
};

static void prepare(struct dm *dm)
{
    dm_edit(dm, &dm->model->geom_size[3 * dm->id[TARGET]], 1);
    dm_edit(dm, &dm->model->geom_pos[3 * dm->id[TARGET]], 2);
}

static void reset(struct dm *dm)
{
    double *target = &dm->model->geom_pos[3 * dm->id[TARGET]];
    double angle, radius;

    dm->model->geom_size[3 * dm->id[TARGET]] = dm->task->value;
    dm_randomize_joints(dm);
    angle = dm_uniform(dm, 0, 2 * DM_PI);
    radius = dm_uniform(dm, .05, .20);
    target[0] = radius * sin(angle);
    target[1] = radius * cos(angle);
}

static void finger_to_target(const struct dm *dm, double out[2])
{
    const double *target = &dm->data->geom_xpos[3 * dm->id[TARGET]];
    const double *finger = &dm->data->geom_xpos[3 * dm->id[FINGER]];

    out[0] = target[0] - finger[0];
    out[1] = target[1] - finger[1];
}

static double *observe(const struct dm *dm, double *obs)
{
    obs = dm_put(obs, dm->data->qpos, dm->model->nq);
    finger_to_target(dm, obs);
    return dm_put(obs + 2, dm->data->qvel, dm->model->nv);
}

/* [|target - finger| <= radius of target + radius of finger], in the plane */
static double reward(const struct dm *dm)
{
    double radii = dm->model->geom_size[3 * dm->id[TARGET]] + dm->model->geom_size[3 * dm->id[FINGER]];
    double between[2];

    finger_to_target(dm, between);
    return dm_within(dm_norm(between, 2), 0, radii);
}

static const struct dm_task tasks[] = {
    {"reacher-easy", 6, .05, reset, observe, .reward = reward},
    {"reacher-hard", 6, .015, reset, observe, .reward = reward},
    {.name = NULL},
};

const struct dm_domain dm_reacher = {
    .file = "reacher.xml",
    .title = "reacher",
    .substeps = 1,
    .nq = 2, .nv = 2, .nu = 2, .nbody = 4, .nsensordata = 0,
    .names = names,
    .prepare = prepare,
    .tasks = tasks,
};

static const struct dm_task three[] = {
    {"reacher-three-easy", 8, .05, reset, observe, .reward = reward},
    {"reacher-three-hard", 8, .015, reset, observe, .reward = reward},
    {.name = NULL},
};

const struct dm_domain dm_reacher_three = {
    .file = "reacher_three.xml",
    .title = "reacher",
    .substeps = 1,
    .nq = 3, .nv = 3, .nu = 3, .nbody = 5, .nsensordata = 0,
    .names = names,
    .prepare = prepare,
    .tasks = three,
};

static const struct dm_task four[] = {
    {"reacher-four-easy", 10, .05, reset, observe, .reward = reward, .note = DM_UNLISTED},
    {"reacher-four-hard", 10, .015, reset, observe, .reward = reward, .note = DM_UNLISTED},
    {.name = NULL},
};

const struct dm_domain dm_reacher_four = {
    .file = "reacher_four.xml",
    .title = "reacher",
    .substeps = 1,
    .nq = 4, .nv = 4, .nu = 4, .nbody = 6, .nsensordata = 0,
    .names = names,
    .prepare = prepare,
    .tasks = four,
};
