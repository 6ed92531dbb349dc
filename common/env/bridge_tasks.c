/* bridge_tasks.c - the names of the tasks in Python, what is known of them, and who runs them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/env/bridge.h"
#include "common/env/places.h"

/* --- names ------------------------------------------------------------------------------------ */

static const char *const metaworld[] = {
    "mw-assembly", "mw-basketball", "mw-button-press-topdown", "mw-button-press-topdown-wall", "mw-button-press",
    "mw-button-press-wall", "mw-coffee-button", "mw-coffee-pull", "mw-coffee-push", "mw-dial-turn", "mw-disassemble",
    "mw-door-open", "mw-door-close", "mw-drawer-close", "mw-drawer-open", "mw-faucet-open", "mw-faucet-close",
    "mw-hammer", "mw-handle-press-side", "mw-handle-press", "mw-handle-pull-side", "mw-handle-pull", "mw-lever-pull",
    "mw-peg-insert-side", "mw-peg-unplug-side", "mw-pick-out-of-hole", "mw-pick-place", "mw-pick-place-wall",
    "mw-plate-slide", "mw-plate-slide-side", "mw-plate-slide-back", "mw-plate-slide-back-side", "mw-push-back",
    "mw-push", "mw-push-wall", "mw-reach", "mw-reach-wall", "mw-shelf-place", "mw-soccer", "mw-stick-push",
    "mw-stick-pull", "mw-sweep-into", "mw-sweep", "mw-window-open", "mw-window-close", "mw-bin-picking",
    "mw-box-close", "mw-door-lock", "mw-door-unlock", "mw-hand-insert",
};

struct line {
    const char *name;
    enum bridge_suite suite;
    uint32_t obs, action, limit, repeat;
    bool terminates;
};

static const struct line others[] = {
    {"myo-reach", SUITE_MYOSUITE, 115, 39, 100, 1, false},
    {"myo-reach-hard", SUITE_MYOSUITE, 115, 39, 100, 1, false},
    {"myo-pose", SUITE_MYOSUITE, 108, 39, 100, 1, false},
    {"myo-pose-hard", SUITE_MYOSUITE, 108, 39, 100, 1, false},
    {"myo-obj-hold", SUITE_MYOSUITE, 91, 39, 100, 1, false},
    {"myo-obj-hold-hard", SUITE_MYOSUITE, 91, 39, 100, 1, false},
    {"myo-key-turn", SUITE_MYOSUITE, 93, 39, 100, 1, false},
    {"myo-key-turn-hard", SUITE_MYOSUITE, 93, 39, 100, 1, false},
    {"myo-pen-twirl", SUITE_MYOSUITE, 83, 39, 100, 1, false},
    {"myo-pen-twirl-hard", SUITE_MYOSUITE, 83, 39, 100, 1, false},
    {"lift-cube", SUITE_MANISKILL, 42, 4, 100, 2, true},
    {"pick-cube", SUITE_MANISKILL, 51, 4, 100, 2, true},
    {"stack-cube", SUITE_MANISKILL, 55, 4, 100, 2, true},
    {"pick-ycb", SUITE_MANISKILL, 51, 7, 100, 2, true},
    {"turn-faucet", SUITE_MANISKILL, 40, 7, 100, 2, true},
    {"mujoco-walker", SUITE_GYM, 17, 6, 1000, 1, true},
    {"mujoco-halfcheetah", SUITE_GYM, 17, 6, 1000, 1, false},
    {"bipedal-walker", SUITE_GYM, 24, 4, 1600, 1, true},
    {"lunarlander-continuous", SUITE_GYM, 8, 2, 500, 1, true},
};

/* What stands behind this prefix; NULL: it has another. */
static const char *behind(const char *name, const char *prefix)
{
    size_t length = strlen(prefix);

    return strncmp(name, prefix, length) == 0 ? name + length : NULL;
}

/* gym:ID or gym:MODULE:ID */
static bool is_gym(const char *name)
{
    const char *id = behind(name, "gym:"), *colon = id != NULL ? strchr(id, ':') : NULL;

    return id != NULL && id[0] != '\0' && (colon == NULL || (colon > id && colon[1] != '\0' && strchr(colon + 1, ':') == NULL));
}

/* python:MODULE:CLASS or python:FILE.py:CLASS; a file's name may have colons */
static bool is_python(const char *name)
{
    const char *id = behind(name, "python:"), *colon = id != NULL ? strrchr(id, ':') : NULL;

    return colon != NULL && colon > id && colon[1] != '\0';
}

static void fill(struct bridge_task *task, const char *name, const struct line *line)
{
    task->suite = line->suite;
    task->spec = (struct env_spec){
        .obs_type = ENV_OBS_STATE,
        .obs_dim = line->obs,
        .action_dim = line->action,
        .episode_length = line->limit,
        .action_repeat = line->repeat,
        .terminates = line->terminates,
        .may_truncate = line->suite == SUITE_GYM || line->suite == SUITE_PYTHON,
    };
    snprintf(task->spec.task, sizeof(task->spec.task), "%s", name);
}

bool bridge_task_find(const char *name, struct bridge_task *task)
{
    static const struct line world = {NULL, SUITE_METAWORLD, 39, 4, 100, 2, false};
    static const struct line gym = {NULL, SUITE_GYM, 0, 0, 0, 1, true};
    static const struct line own = {NULL, SUITE_PYTHON, 0, 0, 0, 1, true};
    const struct line *found = NULL;

    if (is_gym(name))
        found = &gym;
    else if (is_python(name))
        found = &own;
    for (size_t i = 0; found == NULL && i < TD_LEN(metaworld); i++)
        if (strcmp(metaworld[i], name) == 0)
            found = &world;
    for (size_t i = 0; found == NULL && i < TD_LEN(others); i++)
        if (strcmp(others[i].name, name) == 0)
            found = &others[i];
    if (found != NULL)
        fill(task, name, found);
    return found != NULL;
}

const char *bridge_task_name(int index)
{
    if (index < 0)
        return NULL;
    if ((size_t)index < TD_LEN(metaworld))
        return metaworld[index];
    index -= (int)TD_LEN(metaworld);
    return (size_t)index < TD_LEN(others) ? others[index].name : NULL;
}

/* --- suites ------------------------------------------------------------------------------------ */

struct suite {
    const char *name;
    const char *venv;
    const char *command;
    const char *note;
};

static const struct suite suites[] = {
    [SUITE_METAWORLD] = {"Meta-World", "venv-metaworld", "make setup-metaworld",
                         "version 3 of the tasks, the paper had version 2"},
    [SUITE_MYOSUITE] = {"MyoSuite", "venv-myosuite", "make setup-myosuite", ""},
    [SUITE_MANISKILL] = {"ManiSkill2", "venv-maniskill", "make setup-maniskill",
                         "`tdmpc2 env check pick-ycb` and turn-faucet name the command that downloads their assets"},
    [SUITE_GYM] = {"Gymnasium", "venv-gym", "make setup-gym", "LunarLander is version 3, the reference had version 2"},
    [SUITE_PYTHON] = {"Python", "", "make setup-gym", ""},
};

const char *bridge_suite_name(enum bridge_suite suite)
{
    return suites[suite].name;
}

const char *bridge_suite_note(enum bridge_suite suite)
{
    return suites[suite].note;
}

const char *bridge_suite_command(enum bridge_suite suite)
{
    return suites[suite].command;
}

/* --- who runs them -------------------------------------------------------------------------------- */

/* The script, and the folder where virtual environments lie: installed, or in the source tree. */
static bool find_places(char run[FS_PATH_MAX], char venvs[FS_PATH_MAX])
{
    const char *given = getenv("TDMPC2_SUITES");
    char program[FS_PATH_MAX], folder[FS_PATH_MAX];
    bool found = false;

    if (fs_program_dir(program, NULL) != TD_OK)
        return false;
    strcpy(folder, program);
    if (place_parent(folder) && place_join(run, folder, "share/tdmpc2/bridge/run.py") && place_exists(run)) {
        found = place_join(venvs, folder, "share/tdmpc2");
    } else {
        strcpy(folder, program);
        found = place_source_tree(folder) && place_join(run, folder, "common/env/bridge/run.py") && place_exists(run) &&
                place_join(venvs, folder, "third_party");
    }
    if (given != NULL && given[0] != '\0')
        snprintf(venvs, FS_PATH_MAX, "%s", given);
    return found;
}

/* The interpreter that the user names for what is his own. */
static bool users_python(char python[FS_PATH_MAX])
{
    const char *given = getenv("TDMPC2_PYTHON"), *active = getenv("VIRTUAL_ENV");

    if (given != NULL && given[0] != '\0')
        return snprintf(python, FS_PATH_MAX, "%s", given) < FS_PATH_MAX;
    return active != NULL && active[0] != '\0' && place_join(python, active, "bin/python");
}

/* Its setup came to its end, which it marks by .setup, and the interpreter is there. */
static bool suite_is_set_up(const struct suite *suite, const char *venvs, char python[FS_PATH_MAX])
{
    char name[64], stamp[FS_PATH_MAX];

    snprintf(name, sizeof(name), "%s/.setup", suite->venv);
    if (!place_join(stamp, venvs, name) || access(stamp, F_OK) != 0)
        return false;
    snprintf(name, sizeof(name), "%s/bin/python", suite->venv);
    return place_join(python, venvs, name) && access(python, X_OK) == 0;
}

/* What a user downloads: its folder within that of ManiSkill2's data. NULL: the task needs none. */
static const char *assets_of(const char *task)
{
    return strcmp(task, "pick-ycb") == 0      ? "mani_skill2_ycb"
           : strcmp(task, "turn-faucet") == 0 ? "partnet_mobility/dataset"
                                              : NULL;
}

static bool has_assets(const char *folder)
{
    const char *given = getenv("MS2_ASSET_DIR");
    char run[FS_PATH_MAX], venvs[FS_PATH_MAX], data[FS_PATH_MAX], path[FS_PATH_MAX];

    if (!find_places(run, venvs) || !place_join(data, venvs, "maniskill-data"))
        return false;
    if (given != NULL && given[0] != '\0')
        snprintf(data, sizeof(data), "%s", given);
    return place_join(path, data, folder) && place_exists(path);
}

int bridge_find_python(const struct bridge_task *task, char python[FS_PATH_MAX], char run[FS_PATH_MAX],
                       struct error *err)
{
    const struct suite *suite = &suites[task->suite];
    bool own = task->spec.obs_dim == 0; /* gym: or python: */
    char venvs[FS_PATH_MAX];

    if (!find_places(run, venvs))
        return error_set(err, TD_ESETUP, "%s: the bridge's files are missing: run `make install` again, or start the "
                                         "programs of a source tree", task->spec.task);
    if (own && users_python(python))
        return TD_OK;
    if (task->suite == SUITE_PYTHON) {
        strcpy(python, "python3");
        return TD_OK;
    }
    if (!suite_is_set_up(suite, venvs, python))
        return error_set(err, TD_ESETUP, "%s: %s is not set up: run `%s`%s", task->spec.task, suite->name,
                         suite->command, own ? ", or name an interpreter that has it with TDMPC2_PYTHON" : "");
    return TD_OK;
}

void bridge_describe(const char *name, struct env_about *about)
{
    char python[FS_PATH_MAX], run[FS_PATH_MAX];
    struct bridge_task task;

    TD_ASSERT(bridge_task_find(name, &task), "%s", name);
    about->suite = bridge_suite_name(task.suite);
    if (bridge_suite_note(task.suite)[0] != '\0')
        about->suite_note = bridge_suite_note(task.suite);
    about->domain = about->suite;
    about->available = bridge_find_python(&task, python, run, &about->why) == TD_OK;
    if (about->available && assets_of(name) != NULL && !has_assets(assets_of(name))) {
        about->available = false;
        about->note = "its assets are to be downloaded";
        error_set(&about->why, TD_ESETUP, "%s: `tdmpc2 env check %s` names the command that downloads its assets", name,
                  name);
    }
}
