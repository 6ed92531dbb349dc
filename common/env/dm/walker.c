/* Walker: a planar two-legged robot. suite/walker.py */
#include "common/env/dm/dm.h"

#define STAND_HEIGHT 1.2

enum { TORSO, VELOCITY };

static const struct dm_name names[] = {
    [TORSO] = {mjOBJ_BODY, "torso"},
    [VELOCITY] = {mjOBJ_SENSOR, "torso_subtreelinvel"},
    {0, NULL},
};

static void reset(struct dm *dm)
{
    dm_randomize_joints(dm);
}

/* xx and xz of every body in turn, the torso's height, velocities. */
static double *observe(const struct dm *dm, double *obs)
{
    for (int body = 1; body < dm->model->nbody; body++) {
        *obs++ = dm_body_xmat(dm, body, DM_XX);
        *obs++ = dm_body_xmat(dm, body, DM_XZ);
    }
    *obs++ = dm->data->xpos[3 * dm->id[TORSO] + 2];
    return dm_put(obs, dm->data->qvel, dm->model->nv);
}

/* S = (3 tol(torso z; [1.2, inf), .6, Gaussian) + (1 + torso zz)/2)/4 */
static double reward_stand(const struct dm *dm)
{
    double standing = dm_gaussian(dm->data->xpos[3 * dm->id[TORSO] + 2], STAND_HEIGHT, INFINITY,
                                  STAND_HEIGHT / 2);
    double upright = (1 + dm_body_xmat(dm, dm->id[TORSO], DM_ZZ)) / 2;

    return (3 * standing + upright) / 4;
}

/* S (5 tol(vx; [v, inf), v/2, linear to .5) + 1)/6, v = 1 walking, 8 running */
static double reward_move(const struct dm *dm)
{
    double speed = dm->task->value;
    double moving = dm_linear(dm_sensor(dm, dm->id[VELOCITY])[0], speed, INFINITY, speed / 2, .5);

    return reward_stand(dm) * (5 * moving + 1) / 6;
}

static const struct dm_task tasks[] = {
    {"walker-stand", 24, 0, reset, observe, reward_stand},
    {"walker-walk", 24, 1, reset, observe, reward_move},
    {"walker-run", 24, 8, reset, observe, reward_move},
    {.name = NULL},
};

const struct dm_domain dm_walker = {
    .file = "walker.xml",
    .substeps = 10,
    .nq = 9, .nv = 9, .nu = 6, .nbody = 8, .nsensordata = 3,
    .names = names,
    .tasks = tasks,
};
