/* Ball in cup: swing a ball on a string into the cup that is driven. suite/ball_in_cup.py */
#include "common/env/dm/dm.h"

#define TRIES 100000 /* the reference tries for ever; about half of the draws are free */

enum { BALL_X, BALL_Z, BALL_BODY, BALL_GEOM, TARGET };

static const struct dm_name names[] = {
    [BALL_X] = {mjOBJ_JOINT, "ball_x"},  [BALL_Z] = {mjOBJ_JOINT, "ball_z"},
    [BALL_BODY] = {mjOBJ_BODY, "ball"},  [BALL_GEOM] = {mjOBJ_GEOM, "ball"},
    [TARGET] = {mjOBJ_SITE, "target"},   {0, NULL},
};

/* Draw the ball's place until it touches nothing. */
static void reset(struct dm *dm)
{
    for (int i = 0; i < TRIES; i++) {
        *dm_qpos(dm, dm->id[BALL_X]) = dm_uniform(dm, -.2, .2);
        *dm_qpos(dm, dm->id[BALL_Z]) = dm_uniform(dm, .2, .5);
        dm_forward(dm);
        if (dm->data->ncon == 0)
            return;
    }
    dm->failed = "no place found where the ball touches nothing";
}

static double *observe(const struct dm *dm, double *obs)
{
    obs = dm_put(obs, dm->data->qpos, dm->model->nq);
    return dm_put(obs, dm->data->qvel, dm->model->nv);
}

/* 1 while the whole ball is in the target box, seen from the side: |target - ball| < size - radius. */
static double reward(const struct dm *dm)
{
    const double *target = &dm->data->site_xpos[3 * dm->id[TARGET]];
    const double *ball = &dm->data->xpos[3 * dm->id[BALL_BODY]];
    const double *size = &dm->model->site_size[3 * dm->id[TARGET]];
    double radius = dm->model->geom_size[3 * dm->id[BALL_GEOM]];

    return fabs(target[0] - ball[0]) < size[0] - radius && fabs(target[2] - ball[2]) < size[2] - radius;
}

static const struct dm_task tasks[] = {
    {"cup-catch", 8, 0, reset, observe, reward},
    {.name = NULL},
};

const struct dm_domain dm_ball_in_cup = {
    .file = "ball_in_cup.xml",
    .substeps = 10,
    .nq = 4, .nv = 4, .nu = 2, .nbody = 3, .nsensordata = 0,
    .names = names,
    .tasks = tasks,
};
