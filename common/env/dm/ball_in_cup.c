/*
 * Ball in cup: swing a ball on a string into the cup that is driven, suite/ball_in_cup.py; or around it,
 * TD-MPC2's envs/tasks/ball_in_cup.py.
 */
#include "common/env/dm/dm.h"

#define TRIES 100000 /* the reference tries for ever; about half of the draws are free */
#define FAR   .5     /* m from the target */
#define FAST  6      /* m/s */

enum { BALL_X, BALL_Z, BALL_BODY, BALL_GEOM, TARGET };

static const struct dm_name names[] = {
    [BALL_X] = {mjOBJ_JOINT, "ball_x"},  [BALL_Z] = {mjOBJ_JOINT, "ball_z"},
    [BALL_BODY] = {mjOBJ_BODY, "ball"},  [BALL_GEOM] = {mjOBJ_GEOM, "ball"},
    [TARGET] = {mjOBJ_SITE, "target"},   {0, NULL},
};

/* target - ball, seen from the side: x and z. */
static void ball_to_target(const struct dm *dm, double out[2])
{
    const double *target = &dm->data->site_xpos[3 * dm->id[TARGET]];
    const double *ball = &dm->data->xpos[3 * dm->id[BALL_BODY]];

    out[0] = target[0] - ball[0];
    out[1] = target[2] - ball[2];
}

/* Whether the whole ball is in the target box: |target - ball| < size - radius in x and z. */
static bool in_target(const struct dm *dm)
{
    const double *size = &dm->model->site_size[3 * dm->id[TARGET]];
    double radius = dm->model->geom_size[3 * dm->id[BALL_GEOM]];
    double between[2];

    ball_to_target(dm, between);
    return fabs(between[0]) < size[0] - radius && fabs(between[1]) < size[2] - radius;
}

/* Draw the ball's place until it touches nothing and, where asked for, is in the cup. */
static void draw_ball(struct dm *dm, bool anywhere)
{
    for (int i = 0; i < TRIES; i++) {
        *dm_qpos(dm, dm->id[BALL_X]) = dm_uniform(dm, -.2, .2);
        *dm_qpos(dm, dm->id[BALL_Z]) = dm_uniform(dm, .2, .5);
        dm_forward(dm);
        if (dm->data->ncon == 0 && (anywhere || in_target(dm)))
            return;
    }
    dm->failed = "no place found where the ball touches nothing";
}

static void reset_catch(struct dm *dm)
{
    draw_ball(dm, true);
}

/* Nine in ten episodes begin with the ball in the cup. */
static void reset_spin(struct dm *dm)
{
    draw_ball(dm, dm_uniform(dm, 0, 1) < .1);
}

static double *observe(const struct dm *dm, double *obs)
{
    obs = dm_put(obs, dm->data->qpos, dm->model->nq);
    return dm_put(obs, dm->data->qvel, dm->model->nv);
}

/* [the ball is in the cup] */
static double reward_catch(const struct dm *dm)
{
    return in_target(dm);
}

/*
 * [not in the cup] (D + 2 V)/3, D = tol(|target - ball|; [.5, inf), .25, linear to .5),
 * V = tol(|ball's velocity|; [6, inf), 3, linear to .5)
 */
static double reward_spin(const struct dm *dm)
{
    double between[2], ball[2] = {*dm_qvel(dm, dm->id[BALL_X]), *dm_qvel(dm, dm->id[BALL_Z])};
    double far, fast;

    ball_to_target(dm, between);
    far = dm_linear(dm_norm(between, 2), FAR, INFINITY, FAR / 2., .5);
    fast = dm_linear(dm_norm(ball, 2), FAST, INFINITY, FAST / 2., .5);
    return (1 - in_target(dm)) * (far + 2 * fast) / 3;
}

static const struct dm_task tasks[] = {
    {"cup-catch", 8, 0, reset_catch, observe, .reward = reward_catch},
    {"cup-spin", 8, 0, reset_spin, observe, .reward = reward_spin},
    {.name = NULL},
};

const struct dm_domain dm_ball_in_cup = {
    .file = "ball_in_cup.xml",
    .title = "ball_in_cup",
    .substeps = 10,
    .nq = 4, .nv = 4, .nu = 2, .nbody = 3, .nsensordata = 0,
    .names = names,
    .tasks = tasks,
};
