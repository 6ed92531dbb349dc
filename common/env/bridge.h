/*
 * bridge.h - environments in Python: Meta-World, MyoSuite, ManiSkill2, Gymnasium, classes of one's own.
 *
 *   mw-NAME, myo-NAME[-hard], lift-cube ...   the reference's suites, wrapped as it wraps them
 *   mujoco-walker, bipedal-walker ...         the reference's four of Gymnasium
 *   gym:ID, gym:MODULE:ID                     anything registered; MODULE is imported first
 *   python:MODULE:CLASS, python:FILE.py:CLASS anything with Gymnasium's methods
 *
 * Each environment is a process (bridge_link.h). When it dies, raises, hangs, or returns what is no
 * observation, reset or step say TD_ELOST; the next reset starts a new process with another seed.
 *
 * Environment variables:
 *   TDMPC2_PYTHON       interpreter for gym: and python:, else $VIRTUAL_ENV's, else that of
 *                       `make setup-gym` for gym:, else python3
 *   TDMPC2_SUITES       folder that holds venv-metaworld and so on, if not third_party/
 *   TDMPC2_ENV_TIMEOUT  seconds a reset or step may take (env.h)
 */
#ifndef TD_ENV_BRIDGE_H
#define TD_ENV_BRIDGE_H

#include "common/env/env_class.h"
#include "common/util/fs.h"

extern const struct env_class bridge_class;

enum bridge_suite { SUITE_METAWORLD, SUITE_MYOSUITE, SUITE_MANISKILL, SUITE_GYM, SUITE_PYTHON };

/* What is known of a name without asking anybody. obs_dim 0: only the process knows. */
struct bridge_task {
    enum bridge_suite suite;
    struct env_spec spec;
};

/* bridge_tasks.c: the names. */
bool bridge_task_find(const char *name, struct bridge_task *task);
const char *bridge_task_name(int index);

/* "Meta-World", and what the user must know about it; never NULL. */
const char *bridge_suite_name(enum bridge_suite suite);
const char *bridge_suite_note(enum bridge_suite suite);
const char *bridge_suite_command(enum bridge_suite suite); /* that sets it up */

/* What `env list` shows of a name that bridge_task_find finds. */
void bridge_describe(const char *name, struct env_about *about);

/* The interpreter and the script to run. TD_OK, or TD_ESETUP with the command to type. */
int bridge_find_python(const struct bridge_task *task, char python[FS_PATH_MAX], char run[FS_PATH_MAX],
                       struct error *err);

/* Nanoseconds that the last step spent in the environment itself; env is of bridge_class. */
uint64_t bridge_env_ns(const env_t *env);

/* Its process, 0 when it is lost. For tests. */
int bridge_env_pid(const env_t *env);

#endif
