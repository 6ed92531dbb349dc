/*
 * Fish: swim to a target in three dimensions. suite/fish.py; between four walls that nothing collides
 * with but that earn nothing: TD-MPC2's envs/tasks/fish.py.
 */
#include "common/env/dm/dm.h"

#define TRIES 100000 /* the reference tries for ever; most draws are good */

#define WALLS 4
#define WALL_TO_TARGET .08
#define WALL_TO_TORSO  .06

enum { ROOT, JOINTS, JOINTS_END = JOINTS + 7, TORSO = JOINTS_END, TORSO_GEOM, MOUTH, TARGET };

static const struct dm_name names[] = {
    [ROOT] = {mjOBJ_JOINT, "root"},
    [JOINTS] = {mjOBJ_JOINT, "tail1"},
    {mjOBJ_JOINT, "tail_twist"},
    {mjOBJ_JOINT, "tail2"},
    {mjOBJ_JOINT, "finright_roll"},
    {mjOBJ_JOINT, "finright_pitch"},
    {mjOBJ_JOINT, "finleft_roll"},
    {mjOBJ_JOINT, "finleft_pitch"},
    [TORSO] = {mjOBJ_BODY, "torso"},
    [TORSO_GEOM] = {mjOBJ_GEOM, "torso"},
    [MOUTH] = {mjOBJ_GEOM, "mouth"},
    [TARGET] = {mjOBJ_GEOM, "target"},
    {0, NULL},
};

static void prepare(struct dm *dm)
{
    dm_edit(dm, &dm->model->geom_pos[3 * dm->id[TARGET]], 3);
}

/* Any orientation, tail and fins nearly straight, the target in a box. */
static void reset(struct dm *dm)
{
    double *quaternion = dm_qpos(dm, dm->id[ROOT]) + 3;
    double *target = &dm->model->geom_pos[3 * dm->id[TARGET]];

    for (int i = 0; i < 4; i++)
        quaternion[i] = dm_normal(dm);
    dm_normalize(quaternion, 4);
    for (int i = JOINTS; i < JOINTS_END; i++)
        *dm_qpos(dm, dm->id[i]) = dm_uniform(dm, -.2, .2);
    target[0] = dm_uniform(dm, -.4, .4);
    target[1] = dm_uniform(dm, -.4, .4);
    target[2] = dm_uniform(dm, .1, .3);
}

/* The vector to the target in the mouth's own frame. */
static void mouth_to_target(const struct dm *dm, double out[3])
{
    const double *target = &dm->data->geom_xpos[3 * dm->id[TARGET]];
    const double *mouth = &dm->data->geom_xpos[3 * dm->id[MOUTH]];
    double between[3] = {target[0] - mouth[0], target[1] - mouth[1], target[2] - mouth[2]};

    dm_rotate(out, between, &dm->data->geom_xmat[9 * dm->id[MOUTH]]);
}

static double *observe(const struct dm *dm, double *obs)
{
    for (int i = JOINTS; i < JOINTS_END; i++)
        *obs++ = *dm_qpos(dm, dm->id[i]);
    *obs++ = dm_body_xmat(dm, dm->id[TORSO], DM_ZZ);
    mouth_to_target(dm, obs);
    obs += 3;
    return dm_put(obs, dm->data->qvel, dm->model->nv);
}

static const double walls[WALLS][2] = {{-.15, -.15}, {.15, -.15}, {.15, .15}, {-.15, .15}};

/* Near any wall's middle in x or in y: the reference takes the lesser of the two. */
static bool in_wall(const struct dm *dm, int geom, double distance)
{
    const double *at = &dm->data->geom_xpos[3 * dm->id[geom]];

    for (int i = 0; i < WALLS; i++)
        if (fmin(fabs(at[0] - walls[i][0]), fabs(at[1] - walls[i][1])) < distance)
            return true;
    return false;
}

static void reset_obstacles(struct dm *dm)
{
    for (int i = 0; i < TRIES; i++) {
        reset(dm);
        dm_forward(dm);
        if (!in_wall(dm, TARGET, WALL_TO_TARGET))
            return;
    }
    dm->failed = "no place found for a target clear of the walls";
}

/* (7 tol(|w|; [0, r], 2r, Gaussian) + (zz + 1)/2)/8, r = radius of mouth + radius of target */
static double reward_swim(const struct dm *dm)
{
    double radii = dm->model->geom_size[3 * dm->id[MOUTH]] + dm->model->geom_size[3 * dm->id[TARGET]];
    double upright = 0.5 * (dm_body_xmat(dm, dm->id[TORSO], DM_ZZ) + 1);
    double between[3];

    mouth_to_target(dm, between);
    return (7 * dm_gaussian(dm_norm(between, 3), 0, radii, 2 * radii) + upright) / 8;
}

/* The same, and 0 within .06 of a wall's middle in x or y. */
static double reward_obstacles(const struct dm *dm)
{
    return in_wall(dm, TORSO_GEOM, WALL_TO_TORSO) ? 0 : reward_swim(dm);
}

/* The places are those of `walls`. */
static const struct model_edit obstacles[] = {
    {MODEL_AFTER, "geom", "ground",
     .text = "<geom name='wall0' type='box' material='self' pos='-.15 -.15 .1' size='.05 .05 .1'/>"
             "<geom name='wall1' type='box' material='self' pos='.15 -.15 .1' size='.05 .05 .1'/>"
             "<geom name='wall2' type='box' material='self' pos='.15 .15 .1' size='.05 .05 .1'/>"
             "<geom name='wall3' type='box' material='self' pos='-.15 .15 .1' size='.05 .05 .1'/>"},
    {.verb = MODEL_END},
};

static const struct dm_task tasks[] = {
    {"fish-swim", 24, 0, reset, observe, .reward = reward_swim},
    {"fish-obstacles", 24, 0, reset_obstacles, observe, .reward = reward_obstacles, .edits = obstacles,
     .note = DM_UNLISTED},
    {.name = NULL},
};

const struct dm_domain dm_fish = {
    .file = "fish.xml",
    .title = "fish",
    .substeps = 10,
    .nq = 14, .nv = 13, .nu = 5, .nbody = 6, .nsensordata = 6,
    .names = names,
    .prepare = prepare,
    .tasks = tasks,
};
