/* Cart-pole: balance a pole on a driven cart, from above or from below. suite/cartpole.py */
#include "common/env/dm/dm.h"

enum { SLIDER, HINGE, POLE };

static const struct dm_name names[] = {
    [SLIDER] = {mjOBJ_JOINT, "slider"},
    [HINGE] = {mjOBJ_JOINT, "hinge_1"},
    [POLE] = {mjOBJ_BODY, "pole_1"},
    {0, NULL},
};

static void draw_velocities(struct dm *dm)
{
    for (int i = 0; i < dm->model->nv; i++)
        dm->data->qvel[i] = 0.01 * dm_normal(dm);
}

/* The cart in the middle, the pole hanging. */
static void reset_swingup(struct dm *dm)
{
    *dm_qpos(dm, dm->id[SLIDER]) = .01 * dm_normal(dm);
    *dm_qpos(dm, dm->id[HINGE]) = DM_PI + .01 * dm_normal(dm);
    draw_velocities(dm);
}

/* The cart near the middle, the pole nearly upright. */
static void reset_balance(struct dm *dm)
{
    *dm_qpos(dm, dm->id[SLIDER]) = dm_uniform(dm, -.1, .1);
    *dm_qpos(dm, dm->id[HINGE]) = dm_uniform(dm, -.034, .034);
    draw_velocities(dm);
}

static double *observe(const struct dm *dm, double *obs)
{
    *obs++ = *dm_qpos(dm, dm->id[SLIDER]);
    *obs++ = dm_body_xmat(dm, dm->id[POLE], DM_ZZ);
    *obs++ = dm_body_xmat(dm, dm->id[POLE], DM_XZ);
    return dm_put(obs, dm->data->qvel, dm->model->nv);
}

/* (zz + 1)/2 * (4 + q(ctrl))/5 * (1 + tol(hinge velocity; 0, 5))/2 * (1 + tol(slider; 0, 2))/2 */
static double reward_smooth(const struct dm *dm)
{
    double upright = (dm_body_xmat(dm, dm->id[POLE], DM_ZZ) + 1) / 2;
    double centered = (1 + dm_gaussian(*dm_qpos(dm, dm->id[SLIDER]), 0, 0, 2)) / 2;
    double small_control = (4 + dm_quadratic(dm->data->ctrl[0])) / 5;
    double small_velocity = (1 + dm_gaussian(*dm_qvel(dm, dm->id[HINGE]), 0, 0, 5)) / 2;

    return upright * small_control * small_velocity * centered;
}

/* [|slider| <= .25] * [.995 <= zz <= 1] */
static double reward_sparse(const struct dm *dm)
{
    return dm_within(*dm_qpos(dm, dm->id[SLIDER]), -.25, .25) *
           dm_within(dm_body_xmat(dm, dm->id[POLE], DM_ZZ), .995, 1);
}

static const struct dm_task tasks[] = {
    {"cartpole-balance", 5, 0, reset_balance, observe, .reward = reward_smooth},
    {"cartpole-balance-sparse", 5, 0, reset_balance, observe, .reward = reward_sparse},
    {"cartpole-swingup", 5, 0, reset_swingup, observe, .reward = reward_smooth},
    {"cartpole-swingup-sparse", 5, 0, reset_swingup, observe, .reward = reward_sparse},
    {.name = NULL},
};

const struct dm_domain dm_cartpole = {
    .file = "cartpole.xml",
    .title = "cartpole",
    .substeps = 1,
    .nq = 2, .nv = 2, .nu = 1, .nbody = 3, .nsensordata = 0,
    .names = names,
    .tasks = tasks,
};
