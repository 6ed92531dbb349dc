/*
 * Cheetah: a planar running robot. suite/cheetah.py; all but cheetah-run: TD-MPC2's
 * envs/tasks/cheetah.py.
 */
#include "common/env/dm/dm.h"

#define SETTLING 200 /* physics steps before an episode begins */

#define JUMP_HEIGHT 1.2
#define LIE_HEIGHT  .25
#define SPIN_SPEED  8 /* kg m^2/s */

enum { TORSO, FRONT_FOOT, BACK_FOOT, VELOCITY };

static const struct dm_name names[] = {
    [TORSO] = {mjOBJ_BODY, "torso"},
    [FRONT_FOOT] = {mjOBJ_BODY, "ffoot"},
    [BACK_FOOT] = {mjOBJ_BODY, "bfoot"},
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

static double height(const struct dm *dm, int body)
{
    return dm->data->xpos[3 * dm->id[body] + 2];
}

static double velocity(const struct dm *dm)
{
    return dm_sensor(dm, dm->id[VELOCITY])[0];
}

/* tol(vx; [v, inf), v, linear to 0) with v = 10 */
static double reward_run(const struct dm *dm)
{
    double speed = dm->task->value;

    return dm_linear(velocity(dm), speed, INFINITY, speed, 0);
}

/* tol(vx; (-inf, -v], v, linear to 0) with v = 8 */
static double reward_run_backwards(const struct dm *dm)
{
    double speed = dm->task->value;

    return dm_linear(velocity(dm), -INFINITY, -speed, speed, 0);
}

/* (5 tol((torso z + foot z)/2; [1.2, inf), .6, Gaussian) + tol(vx; [-v, v], v, linear to 0))/6, v = .5 */
static double one_foot_stand(const struct dm *dm, int raised)
{
    double speed = dm->task->value;
    double high = dm_gaussian((height(dm, TORSO) + height(dm, raised)) / 2, JUMP_HEIGHT, INFINITY,
                              JUMP_HEIGHT / 2);
    double still = dm_linear(velocity(dm), -speed, speed, speed, 0);

    return (5 * high + still) / 6;
}

static double reward_stand_front(const struct dm *dm)
{
    return one_foot_stand(dm, BACK_FOOT);
}

static double reward_stand_back(const struct dm *dm)
{
    return one_foot_stand(dm, FRONT_FOOT);
}

/* The mean of both. */
static double reward_jump(const struct dm *dm)
{
    return (one_foot_stand(dm, BACK_FOOT) + one_foot_stand(dm, FRONT_FOOT)) / 2;
}

/* U = (3 tol(foot z; [1.2, inf), .6, Gaussian) + 2 tol(torso z; same))/5 */
static double raised_up(const struct dm *dm, int raised)
{
    double torso = dm_gaussian(height(dm, TORSO), JUMP_HEIGHT, INFINITY, JUMP_HEIGHT / 2);
    double foot = dm_gaussian(height(dm, raised), JUMP_HEIGHT, INFINITY, JUMP_HEIGHT / 2);

    return (3 * foot + 2 * torso) / 5;
}

/* U (5 tol(vx; [v, inf), v, linear to 0) + 1)/6 with v = 6 */
static double reward_run_front(const struct dm *dm)
{
    return raised_up(dm, BACK_FOOT) * (5 * reward_run(dm) + 1) / 6;
}

static double reward_run_back(const struct dm *dm)
{
    return raised_up(dm, FRONT_FOOT) * (5 * reward_run(dm) + 1) / 6;
}

/* (3 tol(torso z; (-inf, .25], .25, linear to 0) + tol(mean z of the feet; same))/4 */
static double reward_lie_down(const struct dm *dm)
{
    double feet = (height(dm, FRONT_FOOT) + height(dm, BACK_FOOT)) / 2;
    double torso_down = dm_linear(height(dm, TORSO), -INFINITY, LIE_HEIGHT, LIE_HEIGHT, 0);
    double feet_down = dm_linear(feet, -INFINITY, LIE_HEIGHT, LIE_HEIGHT, 0);

    return (3 * torso_down + feet_down) / 4;
}

/* (5 tol(torso z; (-inf, .25], .125, Gaussian) + U of the back foot)/6 */
static double reward_legs_up(const struct dm *dm)
{
    double torso_down = dm_gaussian(height(dm, TORSO), -INFINITY, LIE_HEIGHT, LIE_HEIGHT / 2);

    return (5 * torso_down + raised_up(dm, BACK_FOOT)) / 6;
}

/*
 * (2 tol(d L; [8, inf), 8, linear to 0) + tol(d vx; [v, inf), v, linear to 0))/3, where L is the
 * angular momentum about y and d v the task's value: d = 1, v = 10 forwards, d = -1, v = 8 backwards.
 */
static double reward_flip(const struct dm *dm)
{
    double speed = fabs(dm->task->value), direction = dm->task->value > 0 ? 1 : -1;
    double momentum = dm->data->subtree_angmom[3 * dm->id[TORSO] + 1];
    double spinning = dm_linear(direction * momentum, SPIN_SPEED, INFINITY, SPIN_SPEED, 0);
    double moving = dm_linear(direction * velocity(dm), speed, INFINITY, speed, 0);

    return (2 * spinning + moving) / 3;
}

/* The custom tasks run on twice the ground; planes collide as if endless. */
static const struct model_edit wide[] = {
    {MODEL_SET, "geom", "ground", "size", "200 .8 .5"},
    {.verb = MODEL_END},
};

#define CUSTOM   .edits = wide
#define UNLISTED .edits = wide, .note = DM_UNLISTED

static const struct dm_task tasks[] = {
    {"cheetah-run", 17, 10, reset, observe, .reward = reward_run},
    {"cheetah-run-backwards", 17, 8, reset, observe, .reward = reward_run_backwards, CUSTOM},
    {"cheetah-run-front", 17, 6, reset, observe, .reward = reward_run_front, CUSTOM},
    {"cheetah-run-back", 17, 6, reset, observe, .reward = reward_run_back, CUSTOM},
    {"cheetah-jump", 17, .5, reset, observe, .reward = reward_jump, CUSTOM},
    {"cheetah-stand-front", 17, .5, reset, observe, .reward = reward_stand_front, UNLISTED},
    {"cheetah-stand-back", 17, .5, reset, observe, .reward = reward_stand_back, UNLISTED},
    {"cheetah-lie-down", 17, 0, reset, observe, .reward = reward_lie_down, UNLISTED},
    {"cheetah-legs-up", 17, 0, reset, observe, .reward = reward_legs_up, UNLISTED},
    {"cheetah-flip", 17, 10, reset, observe, .reward = reward_flip, UNLISTED},
    {"cheetah-flip-backwards", 17, -8, reset, observe, .reward = reward_flip, UNLISTED},
    {.name = NULL},
};

const struct dm_domain dm_cheetah = {
    .file = "cheetah.xml",
    .title = "cheetah",
    .substeps = 1,
    .nq = 9, .nv = 9, .nu = 6, .nbody = 8, .nsensordata = 3,
    .names = names,
    .tasks = tasks,
};
