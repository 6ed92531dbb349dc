/*
 * Walker: a planar two-legged robot. suite/walker.py; backwards and yoga: TD-MPC2's
 * envs/tasks/walker.py.
 */
#include "common/env/dm/dm.h"

#define STAND_HEIGHT 1.2

/* of the yoga tasks */
#define UP_HEIGHT   1.
#define DOWN_HEIGHT .08
#define LEGS_HEIGHT 1.1

enum { TORSO, RIGHT_THIGH, RIGHT_FOOT, LEFT_THIGH, LEFT_FOOT, VELOCITY };

static const struct dm_name names[] = {
    [TORSO] = {mjOBJ_BODY, "torso"},
    [RIGHT_THIGH] = {mjOBJ_BODY, "right_thigh"},
    [RIGHT_FOOT] = {mjOBJ_BODY, "right_foot"},
    [LEFT_THIGH] = {mjOBJ_BODY, "left_thigh"},
    [LEFT_FOOT] = {mjOBJ_BODY, "left_foot"},
    [VELOCITY] = {mjOBJ_SENSOR, "torso_subtreelinvel"},
    {0, NULL},
};

static double height(const struct dm *dm, int body)
{
    return dm->data->xpos[3 * dm->id[body] + 2];
}

static double velocity(const struct dm *dm)
{
    return dm_sensor(dm, dm->id[VELOCITY])[0];
}

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
    *obs++ = height(dm, TORSO);
    return dm_put(obs, dm->data->qvel, dm->model->nv);
}

/* S = (3 tol(torso z; [1.2, inf), .6, Gaussian) + (1 + torso zz)/2)/4 */
static double reward_stand(const struct dm *dm)
{
    double standing = dm_gaussian(height(dm, TORSO), STAND_HEIGHT, INFINITY, STAND_HEIGHT / 2);
    double upright = (1 + dm_body_xmat(dm, dm->id[TORSO], DM_ZZ)) / 2;

    return (3 * standing + upright) / 4;
}

/* S (5 tol(vx; [v, inf), v/2, linear to .5) + 1)/6, v = 1 walking, 8 running */
static double reward_move(const struct dm *dm)
{
    double speed = dm->task->value;
    double moving = dm_linear(velocity(dm), speed, INFINITY, speed / 2, .5);

    return reward_stand(dm) * (5 * moving + 1) / 6;
}

/* S (5 tol(vx; (-inf, -v], v/2, linear to .5) + 1)/6, v = 1 walking, 8 running */
static double reward_move_backwards(const struct dm *dm)
{
    double speed = dm->task->value;
    double moving = dm_linear(velocity(dm), -INFINITY, -speed, speed / 2, .5);

    return reward_stand(dm) * (5 * moving + 1) / 6;
}

/* --- yoga ---------------------------------------------------------------------------------- */

static double mean_height(const struct dm *dm, int left, int right)
{
    return (height(dm, left) + height(dm, right)) / 2;
}

/* tol(z; (-inf, .08], .04, Gaussian) */
static double down(double z)
{
    return dm_gaussian(z, -INFINITY, DOWN_HEIGHT, DOWN_HEIGHT / 2);
}

/* tol(z; [1, inf), .5, Gaussian) */
static double up(double z)
{
    return dm_gaussian(z, UP_HEIGHT, INFINITY, UP_HEIGHT / 2);
}

/* tol(mean z of the feet; [1.1, inf), .55, Gaussian) */
static double legs_up(const struct dm *dm)
{
    return dm_gaussian(mean_height(dm, LEFT_FOOT, RIGHT_FOOT), LEGS_HEIGHT, INFINITY, LEGS_HEIGHT / 2);
}

/* (1 - torso zz)/2 */
static double upside_down(const struct dm *dm)
{
    return (1 - dm_body_xmat(dm, dm->id[TORSO], DM_ZZ)) / 2;
}

/* (3 up(torso z) + tol(left foot z; (-inf, .08], .5, Gaussian) + up(right foot z) + (1 - zz)/2)/6 */
static double reward_arabesque(const struct dm *dm)
{
    double left_down = dm_gaussian(height(dm, LEFT_FOOT), -INFINITY, DOWN_HEIGHT, UP_HEIGHT / 2);
    double right_up = up(height(dm, RIGHT_FOOT));

    return (3 * up(height(dm, TORSO)) + left_down + right_up + upside_down(dm)) / 6;
}

/* (3 down(torso z) + down(mean z of the thighs) + (1 - zz)/2)/5 */
static double reward_lie_down(const struct dm *dm)
{
    double thighs = down(mean_height(dm, LEFT_THIGH, RIGHT_THIGH));

    return (3 * down(height(dm, TORSO)) + thighs + upside_down(dm)) / 5;
}

/* (3 down(torso z) + 2 legs up + down(mean z of the thighs) + (1 - zz)/2)/7 */
static double reward_legs_up(const struct dm *dm)
{
    double thighs = down(mean_height(dm, LEFT_THIGH, RIGHT_THIGH));

    return (3 * down(height(dm, TORSO)) + 2 * legs_up(dm) + thighs + upside_down(dm)) / 7;
}

/* H = (3 legs up + 2 up(mean z of the thighs))/5 */
static double reward_headstand(const struct dm *dm)
{
    return (3 * legs_up(dm) + 2 * up(mean_height(dm, LEFT_THIGH, RIGHT_THIGH))) / 5;
}

/* H (5 tol(vx; at least v, |v|/2, linear to .5) + 1)/6; v = 6, or backwards at most v = -6 */
static double reward_flip(const struct dm *dm)
{
    double speed = dm->task->value;
    double low = speed > 0 ? speed : -INFINITY, high = speed > 0 ? INFINITY : speed;
    double moving = dm_linear(velocity(dm), low, high, fabs(speed) / 2, .5);

    return reward_headstand(dm) * (5 * moving + 1) / 6;
}

/* The custom tasks walk on twice the floor; planes collide as if endless. */
static const struct model_edit wide[] = {
    {MODEL_SET, "geom", "floor", "size", "500 .8 .2"},
    {.verb = MODEL_END},
};

#define CUSTOM   .edits = wide
#define UNLISTED .edits = wide, .note = DM_UNLISTED

static const struct dm_task tasks[] = {
    {"walker-stand", 24, 0, reset, observe, .reward = reward_stand},
    {"walker-walk", 24, 1, reset, observe, .reward = reward_move},
    {"walker-run", 24, 8, reset, observe, .reward = reward_move},
    {"walker-walk-backwards", 24, 1, reset, observe, .reward = reward_move_backwards, CUSTOM},
    {"walker-run-backwards", 24, 8, reset, observe, .reward = reward_move_backwards, CUSTOM},
    {"walker-arabesque", 24, 0, reset, observe, .reward = reward_arabesque, UNLISTED},
    {"walker-lie-down", 24, 0, reset, observe, .reward = reward_lie_down, UNLISTED},
    {"walker-legs-up", 24, 0, reset, observe, .reward = reward_legs_up, UNLISTED},
    {"walker-headstand", 24, 0, reset, observe, .reward = reward_headstand, UNLISTED},
    {"walker-flip", 24, 6, reset, observe, .reward = reward_flip, UNLISTED},
    {"walker-backflip", 24, -6, reset, observe, .reward = reward_flip, UNLISTED},
    {.name = NULL},
};

const struct dm_domain dm_walker = {
    .file = "walker.xml",
    .title = "walker",
    .substeps = 10,
    .nq = 9, .nv = 9, .nu = 6, .nbody = 8, .nsensordata = 3,
    .names = names,
    .tasks = tasks,
};
