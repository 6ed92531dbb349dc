/* Finger: push a free spinner, to spin it or to turn its tip to a target. suite/finger.py */
#include "common/env/dm/dm.h"

#define TRIES 1000 /* draws of the joints until nothing touches, as in dm_control */

enum {
    HINGE, CAP, TARGET_SITE, TIP_SITE,
    /* sensors: every observation is made of them */
    PROXIMAL, DISTAL, PROXIMAL_VELOCITY, DISTAL_VELOCITY, HINGE_VELOCITY,
    TIP, TARGET, SPINNER, TOUCH_TOP, TOUCH_BOTTOM,
};

static const struct dm_name names[] = {
    [HINGE] = {mjOBJ_JOINT, "hinge"},
    [CAP] = {mjOBJ_GEOM, "cap1"},
    [TARGET_SITE] = {mjOBJ_SITE, "target"},
    [TIP_SITE] = {mjOBJ_SITE, "tip"},
    [PROXIMAL] = {mjOBJ_SENSOR, "proximal"},
    [DISTAL] = {mjOBJ_SENSOR, "distal"},
    [PROXIMAL_VELOCITY] = {mjOBJ_SENSOR, "proximal_velocity"},
    [DISTAL_VELOCITY] = {mjOBJ_SENSOR, "distal_velocity"},
    [HINGE_VELOCITY] = {mjOBJ_SENSOR, "hinge_velocity"},
    [TIP] = {mjOBJ_SENSOR, "tip"},
    [TARGET] = {mjOBJ_SENSOR, "target"},
    [SPINNER] = {mjOBJ_SENSOR, "spinner"},
    [TOUCH_TOP] = {mjOBJ_SENSOR, "touchtop"},
    [TOUCH_BOTTOM] = {mjOBJ_SENSOR, "touchbottom"},
    {0, NULL},
};

static void draw_free_joints(struct dm *dm)
{
    dm_randomize_apart(dm, TRIES, "no pose found where finger and spinner do not touch");
}

static void reset_spin(struct dm *dm)
{
    dm->model->dof_damping[dm->model->jnt_dofadr[dm->id[HINGE]]] = .03;
    draw_free_joints(dm);
}

/* The target lies on the circle that the spinner's tip can reach. */
static void reset_turn(struct dm *dm)
{
    const double *hinge = &dm->data->xanchor[3 * dm->id[HINGE]];
    const double *cap = &dm->model->geom_size[3 * dm->id[CAP]];
    double *target = &dm->model->site_pos[3 * dm->id[TARGET_SITE]];
    double angle = dm_uniform(dm, -DM_PI, DM_PI);
    double radius = cap[0] + cap[1] + cap[2];

    target[0] = hinge[0] + radius * sin(angle);
    target[2] = hinge[2] + radius * cos(angle);
    dm->model->site_size[3 * dm->id[TARGET_SITE]] = dm->task->value;
    draw_free_joints(dm);
}

/* Spinning needs no target: its site and the tip's are made invisible. */
static void prepare(struct dm *dm)
{
    if (dm->task->reset == reset_spin) {
        dm->model->site_rgba[4 * dm->id[TARGET_SITE] + 3] = 0;
        dm->model->site_rgba[4 * dm->id[TIP_SITE] + 3] = 0;
    }
    dm_edit(dm, &dm->model->dof_damping[dm->model->jnt_dofadr[dm->id[HINGE]]], 1);
    dm_edit(dm, &dm->model->site_pos[3 * dm->id[TARGET_SITE]], 3);
    dm_edit(dm, &dm->model->site_size[3 * dm->id[TARGET_SITE]], 1);
}

/* (x, z) of a sensed point relative to the spinner's hinge. */
static void from_spinner(const struct dm *dm, int point, double out[2])
{
    const double *spinner = dm_sensor(dm, dm->id[SPINNER]);
    const double *at = dm_sensor(dm, dm->id[point]);

    out[0] = at[0] - spinner[0];
    out[1] = at[2] - spinner[2];
}

/* From the tip to the target's surface; negative inside. */
static double distance(const struct dm *dm)
{
    double tip[2], target[2], between[2];

    from_spinner(dm, TIP, tip);
    from_spinner(dm, TARGET, target);
    between[0] = target[0] - tip[0];
    between[1] = target[1] - tip[1];
    return dm_norm(between, 2) - dm->model->site_size[3 * dm->id[TARGET_SITE]];
}

static double *observe_spin(const struct dm *dm, double *obs)
{
    *obs++ = *dm_sensor(dm, dm->id[PROXIMAL]);
    *obs++ = *dm_sensor(dm, dm->id[DISTAL]);
    from_spinner(dm, TIP, obs);
    obs += 2;
    *obs++ = *dm_sensor(dm, dm->id[PROXIMAL_VELOCITY]);
    *obs++ = *dm_sensor(dm, dm->id[DISTAL_VELOCITY]);
    *obs++ = *dm_sensor(dm, dm->id[HINGE_VELOCITY]);
    *obs++ = log1p(*dm_sensor(dm, dm->id[TOUCH_TOP]));
    *obs++ = log1p(*dm_sensor(dm, dm->id[TOUCH_BOTTOM]));
    return obs;
}

static double *observe_turn(const struct dm *dm, double *obs)
{
    obs = observe_spin(dm, obs);
    from_spinner(dm, TARGET, obs);
    obs += 2;
    *obs++ = distance(dm);
    return obs;
}

/* [hinge velocity <= -15] */
static double reward_spin(const struct dm *dm)
{
    return *dm_sensor(dm, dm->id[HINGE_VELOCITY]) <= -15;
}

/* [tip inside the target] */
static double reward_turn(const struct dm *dm)
{
    return distance(dm) <= 0;
}

static const struct dm_task tasks[] = {
    {"finger-spin", 9, 0, reset_spin, observe_spin, .reward = reward_spin},
    {"finger-turn-easy", 12, .07, reset_turn, observe_turn, .reward = reward_turn},
    {"finger-turn-hard", 12, .03, reset_turn, observe_turn, .reward = reward_turn},
    {.name = NULL},
};

const struct dm_domain dm_finger = {
    .file = "finger.xml",
    .title = "finger",
    .substeps = 2,
    .nq = 3, .nv = 3, .nu = 2, .nbody = 4, .nsensordata = 22,
    .names = names,
    .prepare = prepare,
    .tasks = tasks,
};
