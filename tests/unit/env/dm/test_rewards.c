/*
 * The custom tasks' rewards at chosen points: a body is put somewhere by writing into the simulator's
 * results, and the reward must be what its formula gives there, worked out by hand.
 */
#include "common/env/dm/dm.h"

#include "tests/support/test.h"

static struct dm *open_task(const char *task)
{
    float obs[DM_OBS_MAX];
    struct error err;
    env_t *env;

    assert_ok(env_create(&env, task, 1, &err), err);
    assert_ok(env_reset(env, obs, &err), err);
    return (struct dm *)env;
}

static void close_task(struct dm *dm)
{
    env_t *env = &dm->env;

    env_close(&env);
}

static int find(const struct dm *dm, int type, const char *name)
{
    int id = dm->mj->mj_name2id(dm->model, type, name);

    assert_true(id >= 0);
    return id;
}

/* The height of a body's frame and of its centre of mass. */
static void put_height(struct dm *dm, const char *body, double z)
{
    int id = find(dm, mjOBJ_BODY, body);

    dm->data->xpos[3 * id + 2] = z;
    dm->data->xipos[3 * id + 2] = z;
}

static void put_upright(struct dm *dm, const char *body, double zz)
{
    dm->data->xmat[9 * find(dm, mjOBJ_BODY, body) + DM_ZZ] = zz;
}

static void put_speed(struct dm *dm, double vx)
{
    int id = find(dm, mjOBJ_SENSOR, "torso_subtreelinvel");

    dm->data->sensordata[dm->model->sensor_adr[id]] = vx;
}

static void put_momentum(struct dm *dm, double about_y)
{
    dm->data->subtree_angmom[3 * find(dm, mjOBJ_BODY, "torso") + 1] = about_y;
}

static void put_velocity(struct dm *dm, const char *joint, double value)
{
    *dm_qvel(dm, find(dm, mjOBJ_JOINT, joint)) = value;
}

static void assert_reward(const struct dm *dm, double expected, int line)
{
    double reward = dm->task->reward(dm);

    if (!(fabs(reward - expected) <= 1e-12))
        fail_msg("line %d: %s earns %.15g, not %.15g", line, dm->task->name, reward, expected);
}
#define assert_earns(dm, expected) assert_reward((dm), (expected), __LINE__)

/* --- walker -------------------------------------------------------------------------------- */

static void walker_backwards(void **state)
{
    struct dm *walk = open_task("walker-walk-backwards"), *run = open_task("walker-run-backwards");

    (void)state;
    put_height(walk, "torso", 1.2);
    put_upright(walk, "torso", 1);
    put_speed(walk, -1);
    assert_earns(walk, 1);
    put_speed(walk, -20);
    assert_earns(walk, 1);
    put_speed(walk, -.5); /* a margin away: .5 */
    assert_earns(walk, 3.5 / 6);
    put_speed(walk, 0);
    assert_earns(walk, 1. / 6);
    put_speed(walk, 1);
    assert_earns(walk, 1. / 6);
    put_height(walk, "torso", .6); /* a margin away: .1 */
    put_upright(walk, "torso", 0);
    put_speed(walk, -1);
    assert_earns(walk, (3 * .1 + .5) / 4);
    close_task(walk);

    put_height(run, "torso", 2);
    put_upright(run, "torso", -1);
    put_speed(run, -4);
    assert_earns(run, .75 * 3.5 / 6);
    put_speed(run, -8);
    assert_earns(run, .75);
    put_speed(run, 8);
    assert_earns(run, .75 / 6);
    close_task(run);
}

static void put_legs(struct dm *dm, double thighs, double left_foot, double right_foot)
{
    put_height(dm, "left_thigh", thighs - .02);
    put_height(dm, "right_thigh", thighs + .02);
    put_height(dm, "left_foot", left_foot);
    put_height(dm, "right_foot", right_foot);
}

static void walker_yoga(void **state)
{
    struct dm *dm = open_task("walker-arabesque");

    (void)state;
    put_height(dm, "torso", 1);
    put_upright(dm, "torso", -1);
    put_legs(dm, .5, .08, 1);
    assert_earns(dm, 1);
    put_legs(dm, .5, .58, .5);
    assert_earns(dm, (3 + .1 + .1 + 1) / 6);
    put_height(dm, "torso", .5);
    put_upright(dm, "torso", 1);
    assert_earns(dm, (.3 + .1 + .1) / 6);
    close_task(dm);

    dm = open_task("walker-lie-down");
    put_height(dm, "torso", .08);
    put_upright(dm, "torso", -1);
    put_legs(dm, .08, 9, 9); /* the feet don't count */
    assert_earns(dm, 1);
    put_height(dm, "torso", .12);
    put_legs(dm, .1, 0, 0);
    put_upright(dm, "torso", 0);
    assert_earns(dm, (.3 + pow(.1, .25) + .5) / 5);
    close_task(dm);

    dm = open_task("walker-legs-up");
    put_height(dm, "torso", 0);
    put_upright(dm, "torso", -1);
    put_legs(dm, 0, 1, 1.2);
    assert_earns(dm, 1);
    put_legs(dm, .12, .55, .55);
    assert_earns(dm, (3 + .2 + .1 + 1) / 7);
    close_task(dm);
}

static void walker_upside_down(void **state)
{
    struct dm *stand = open_task("walker-headstand"), *flip = open_task("walker-flip"),
              *back = open_task("walker-backflip");

    (void)state;
    put_legs(stand, 1, 1.1, 1.1);
    assert_earns(stand, 1);
    put_legs(stand, .5, .5, .6);
    assert_earns(stand, .1);
    put_legs(flip, 1, 1.1, 1.1);
    put_speed(flip, 6);
    assert_earns(flip, 1);
    put_speed(flip, 3);
    assert_earns(flip, 3.5 / 6);
    put_speed(flip, -6);
    assert_earns(flip, 1. / 6);
    put_legs(back, 1, .55, .55);
    put_speed(back, -7);
    assert_earns(back, (.3 + 2) / 5);
    put_speed(back, -3);
    assert_earns(back, (.3 + 2) / 5 * 3.5 / 6);
    put_speed(back, 6);
    assert_earns(back, (.3 + 2) / 5 / 6);
    close_task(stand);
    close_task(flip);
    close_task(back);
}

/* --- cheetah ------------------------------------------------------------------------------- */

static void put_cheetah(struct dm *dm, double torso, double front, double back, double vx)
{
    put_height(dm, "torso", torso);
    put_height(dm, "ffoot", front);
    put_height(dm, "bfoot", back);
    put_speed(dm, vx);
}

static void cheetah_runs(void **state)
{
    struct dm *backwards = open_task("cheetah-run-backwards"), *front = open_task("cheetah-run-front"),
              *back = open_task("cheetah-run-back");

    (void)state;
    put_speed(backwards, -8);
    assert_earns(backwards, 1);
    put_speed(backwards, -2);
    assert_earns(backwards, .25);
    put_speed(backwards, 3);
    assert_earns(backwards, 0);
    close_task(backwards);

    put_cheetah(front, 1.2, 0, 1.2, 6); /* on the front foot: the back one is up */
    assert_earns(front, 1);
    put_cheetah(front, 1.2, 9, .6, 3);
    assert_earns(front, (.3 + 2) / 5 * 3.5 / 6);
    put_cheetah(front, .6, 9, 1.2, -1);
    assert_earns(front, (3 + .2) / 5 / 6);
    close_task(front);

    put_cheetah(back, 1.2, 1.2, 0, 6);
    assert_earns(back, 1);
    put_cheetah(back, 1.2, .6, 9, 3);
    assert_earns(back, (.3 + 2) / 5 * 3.5 / 6);
    close_task(back);
}

static void cheetah_jumps_and_stands(void **state)
{
    struct dm *jump = open_task("cheetah-jump"), *front = open_task("cheetah-stand-front"),
              *back = open_task("cheetah-stand-back");

    (void)state;
    put_cheetah(jump, 1.2, 1.2, 1.2, -.5);
    assert_earns(jump, 1);
    put_cheetah(jump, 1.2, 1.2, 0, .75); /* the back pair's middle is a margin low; half as still */
    assert_earns(jump, ((5 + .5) / 6 + (.5 + .5) / 6) / 2);
    put_cheetah(jump, 1.2, 1.2, 1.2, -1);
    assert_earns(jump, 5. / 6);
    put_cheetah(front, 1.2, 1.2, 0, 0);
    assert_earns(front, 1.5 / 6);
    put_cheetah(front, 1.2, 0, 1.2, 0);
    assert_earns(front, 1);
    put_cheetah(back, 1.2, 1.2, 0, 0);
    assert_earns(back, 1);
    close_task(jump);
    close_task(front);
    close_task(back);
}

static void cheetah_lies_and_flips(void **state)
{
    struct dm *lie = open_task("cheetah-lie-down"), *legs = open_task("cheetah-legs-up"),
              *flip = open_task("cheetah-flip"), *back = open_task("cheetah-flip-backwards");

    (void)state;
    put_cheetah(lie, .25, .1, .3, 99);
    assert_earns(lie, 1);
    put_cheetah(lie, .375, .5, .5, 0);
    assert_earns(lie, 1.5 / 4);
    put_cheetah(legs, .375, 0, 9, 99);
    assert_earns(legs, (.5 + (3 + 2 * pow(.1, pow((1.2 - .375) / .6, 2))) / 5) / 6);
    put_momentum(flip, 8);
    put_speed(flip, 5);
    assert_earns(flip, 2.5 / 3);
    put_momentum(flip, -8);
    put_speed(flip, 10);
    assert_earns(flip, 1. / 3);
    put_momentum(back, -2);
    put_speed(back, -8);
    assert_earns(back, 1.5 / 3);
    put_momentum(back, 8);
    assert_earns(back, 1. / 3);
    close_task(lie);
    close_task(legs);
    close_task(flip);
    close_task(back);
}

/* --- the others ---------------------------------------------------------------------------- */

static void hopper(void **state)
{
    struct dm *dm = open_task("hopper-hop-backwards");

    (void)state;
    put_height(dm, "foot", .1);
    put_height(dm, "torso", .8);
    put_speed(dm, -1);
    assert_earns(dm, 1);
    put_speed(dm, -.5);
    assert_earns(dm, .5);
    put_speed(dm, 0);
    assert_earns(dm, 0);
    put_speed(dm, -1);
    put_height(dm, "torso", .6);
    assert_earns(dm, 0);
    put_height(dm, "torso", 2.2);
    assert_earns(dm, 0);
    close_task(dm);

    dm = open_task("hopper-flip");
    put_momentum(dm, 5);
    assert_earns(dm, 1);
    put_momentum(dm, 3.75);
    assert_earns(dm, .5);
    put_momentum(dm, -5);
    assert_earns(dm, 0);
    close_task(dm);

    dm = open_task("hopper-flip-backwards");
    put_momentum(dm, -3.75);
    assert_earns(dm, .5);
    put_momentum(dm, 5);
    assert_earns(dm, 0);
    close_task(dm);
}

static void reacher(void **state)
{
    static const struct {
        const char *task;
        double reach; /* target and finger together */
    } cases[] = {
        {"reacher-three-easy", .06}, {"reacher-three-hard", .025},
        {"reacher-four-easy", .06}, {"reacher-four-hard", .025},
    };

    (void)state;
    for (size_t i = 0; i < TD_LEN(cases); i++) {
        struct dm *dm = open_task(cases[i].task);
        double *finger = &dm->data->geom_xpos[3 * find(dm, mjOBJ_GEOM, "finger")];
        double *target = &dm->data->geom_xpos[3 * find(dm, mjOBJ_GEOM, "target")];

        target[0] = .1;
        target[1] = -.1;
        target[2] = 7; /* heights don't count */
        finger[0] = .1 + .6 * (cases[i].reach - 1e-6);
        finger[1] = -.1 - .8 * (cases[i].reach - 1e-6);
        assert_earns(dm, 1);
        finger[1] = -.1 - .8 * (cases[i].reach + 1e-5);
        assert_earns(dm, 0);
        close_task(dm);
    }
}

/* Puts the ball as far from the target as said. */
static void put_ball(struct dm *dm, double x, double z)
{
    const double *target = &dm->data->site_xpos[3 * find(dm, mjOBJ_SITE, "target")];
    double *ball = &dm->data->xpos[3 * find(dm, mjOBJ_BODY, "ball")];

    ball[0] = target[0] + x;
    ball[2] = target[2] + z;
}

static void cup_spin(void **state)
{
    struct dm *dm = open_task("cup-spin");

    (void)state;
    put_velocity(dm, "ball_x", 3.6);
    put_velocity(dm, "ball_z", -4.8);
    put_ball(dm, .024, -.024);
    assert_earns(dm, 0);
    put_ball(dm, .4, -.3);
    assert_earns(dm, 1);
    put_ball(dm, 0, .25);
    assert_earns(dm, 2.5 / 3);
    put_velocity(dm, "ball_x", 0);
    put_velocity(dm, "ball_z", 3);
    assert_earns(dm, 1.5 / 3);
    put_velocity(dm, "ball_z", 0);
    put_ball(dm, .026, 0);
    assert_earns(dm, (1 - .5 * (.5 - .026) / .25) / 3);
    close_task(dm);
}

static void pendulum_spin(void **state)
{
    struct dm *dm = open_task("pendulum-spin");

    (void)state;
    put_velocity(dm, "hinge", -9);
    assert_earns(dm, 1);
    put_velocity(dm, "hinge", 4.5);
    assert_earns(dm, .5);
    put_velocity(dm, "hinge", -6.75);
    assert_earns(dm, .75);
    put_velocity(dm, "hinge", 0);
    assert_earns(dm, 0);
    close_task(dm);
}

/* On the target and upright 1, but nothing near a wall's middle in x or in y. */
static void fish_obstacles(void **state)
{
    struct dm *dm = open_task("fish-obstacles");
    double *torso = &dm->data->geom_xpos[3 * find(dm, mjOBJ_GEOM, "torso")];

    (void)state;
    memcpy(&dm->data->geom_xpos[3 * find(dm, mjOBJ_GEOM, "mouth")],
           &dm->data->geom_xpos[3 * find(dm, mjOBJ_GEOM, "target")], 3 * sizeof(double));
    put_upright(dm, "torso", 1);
    torso[0] = torso[1] = 0;
    assert_earns(dm, 1);
    torso[0] = .2101;
    assert_earns(dm, 1);
    torso[0] = .2099;
    assert_earns(dm, 0);
    torso[0] = 0;
    torso[1] = -.1;
    assert_earns(dm, 0);
    torso[1] = 0;
    put_upright(dm, "torso", -1);
    assert_earns(dm, 7. / 8);
    close_task(dm);
}

/* Nine in ten episodes begin with the ball in the cup; cup-catch begins anywhere. */
static void cup_spin_begins_in_the_cup(void **state)
{
    struct dm *dm = open_task("cup-spin");
    float obs[DM_OBS_MAX];
    struct error err;
    int inside = 0;

    (void)state;
    for (int i = 0; i < 400; i++) {
        const double *target = &dm->data->site_xpos[3 * find(dm, mjOBJ_SITE, "target")];
        const double *ball = &dm->data->xpos[3 * find(dm, mjOBJ_BODY, "ball")];

        assert_ok(env_reset(&dm->env, obs, &err), err);
        inside += fabs(target[0] - ball[0]) < .025 && fabs(target[2] - ball[2]) < .025;
    }
    assert_true(inside > 340 && inside < 390);
    close_task(dm);
}

static void fish_targets_keep_clear_of_walls(void **state)
{
    struct dm *dm = open_task("fish-obstacles");
    float obs[DM_OBS_MAX];
    struct error err;

    (void)state;
    for (int i = 0; i < 4; i++) {
        char name[] = {'w', 'a', 'l', 'l', (char)('0' + i), '\0'};
        const double *wall = &dm->data->geom_xpos[3 * find(dm, mjOBJ_GEOM, name)];

        assert_true(fabs(wall[0]) == .15 && fabs(wall[1]) == .15);
        assert_true((wall[0] > 0) == (i == 1 || i == 2) && (wall[1] > 0) == (i >= 2));
    }
    for (int i = 0; i < 200; i++) {
        const double *target = &dm->model->geom_pos[3 * find(dm, mjOBJ_GEOM, "target")];

        assert_ok(env_reset(&dm->env, obs, &err), err);
        for (int axis = 0; axis < 2; axis++)
            assert_true(fabs(fabs(target[axis]) - .15) >= .08);
    }
    close_task(dm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(walker_backwards),
        cmocka_unit_test(walker_yoga),
        cmocka_unit_test(walker_upside_down),
        cmocka_unit_test(cheetah_runs),
        cmocka_unit_test(cheetah_jumps_and_stands),
        cmocka_unit_test(cheetah_lies_and_flips),
        cmocka_unit_test(hopper),
        cmocka_unit_test(reacher),
        cmocka_unit_test(cup_spin),
        cmocka_unit_test(pendulum_spin),
        cmocka_unit_test(fish_obstacles),
        cmocka_unit_test(cup_spin_begins_in_the_cup),
        cmocka_unit_test(fish_targets_keep_clear_of_walls),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
