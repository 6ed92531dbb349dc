/* Humanoid: a simplified human body stands, walks and runs. suite/humanoid.py */
#include "common/env/dm/dm.h"

#define STAND_HEIGHT 1.4
#define TRIES        100000 /* the reference tries for ever */

enum { TORSO, HEAD, LEFT_HAND, LEFT_FOOT, RIGHT_HAND, RIGHT_FOOT, LIMBS_END, VELOCITY = LIMBS_END };

static const struct dm_name names[] = {
    [TORSO] = {mjOBJ_BODY, "torso"},
    [HEAD] = {mjOBJ_BODY, "head"},
    [LEFT_HAND] = {mjOBJ_BODY, "left_hand"},
    [LEFT_FOOT] = {mjOBJ_BODY, "left_foot"},
    [RIGHT_HAND] = {mjOBJ_BODY, "right_hand"},
    [RIGHT_FOOT] = {mjOBJ_BODY, "right_foot"},
    [VELOCITY] = {mjOBJ_SENSOR, "torso_subtreelinvel"},
    {0, NULL},
};

/* Any pose in which nothing touches. */
static void reset(struct dm *dm)
{
    dm_randomize_apart(dm, TRIES, "no pose found where nothing touches");
}

static double head_height(const struct dm *dm)
{
    return dm->data->xpos[3 * dm->id[HEAD] + 2];
}

/* Angles, head height, limbs seen from the torso, the torso's axes upwards, velocities. */
static double *observe(const struct dm *dm, double *obs)
{
    obs = dm_put(obs, dm->data->qpos + 7, dm->model->nq - 7);
    *obs++ = head_height(dm);
    for (int limb = LEFT_HAND; limb < LIMBS_END; limb++)
        obs = dm_put_relative(dm, dm->id[TORSO], dm->id[limb], obs);
    obs = dm_put(obs, &dm->data->xmat[9 * dm->id[TORSO] + DM_ZX], 3);
    obs = dm_put(obs, dm_sensor(dm, dm->id[VELOCITY]), 3);
    return dm_put(obs, dm->data->qvel, dm->model->nv);
}

/* C = (4 + mean of q(ctrl))/5 * tol(head z; [1.4, inf), .35, Gaussian) * tol(zz; [.9, inf), 1.9, linear to 0) */
static double upright(const struct dm *dm)
{
    double standing = dm_gaussian(head_height(dm), STAND_HEIGHT, INFINITY, STAND_HEIGHT / 4);
    double vertical = dm_linear(dm_body_xmat(dm, dm->id[TORSO], DM_ZZ), .9, INFINITY, 1.9, 0);
    double small_control = (4 + dm_mean_quadratic(dm)) / 5;

    return small_control * (standing * vertical);
}

/* C * mean of tol(vx; 0, 2, Gaussian) and tol(vy; same) */
static double reward_stand(const struct dm *dm)
{
    const double *velocity = dm_sensor(dm, dm->id[VELOCITY]);

    return upright(dm) * ((dm_gaussian(velocity[0], 0, 0, 2) + dm_gaussian(velocity[1], 0, 0, 2)) / 2);
}

/* C (5 tol(|vx, vy|; [s, inf), s, linear to 0) + 1)/6, s = 1 walking, 10 running */
static double reward_move(const struct dm *dm)
{
    double speed = dm->task->value;
    double moving = dm_linear(dm_norm(dm_sensor(dm, dm->id[VELOCITY]), 2), speed, INFINITY, speed, 0);

    return upright(dm) * ((5 * moving + 1) / 6);
}

static const struct dm_task tasks[] = {
    {"humanoid-stand", 67, 0, reset, observe, .reward = reward_stand},
    {"humanoid-walk", 67, 1, reset, observe, .reward = reward_move},
    {"humanoid-run", 67, 10, reset, observe, .reward = reward_move},
    {.name = NULL},
};

const struct dm_domain dm_humanoid = {
    .file = "humanoid.xml",
    .title = "humanoid",
    .substeps = 5,
    .nq = 28, .nv = 27, .nu = 21, .nbody = 17, .nsensordata = 66,
    .names = names,
    .tasks = tasks,
};
