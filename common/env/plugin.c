/* plugin.c - environments in shared libraries of the user: plugin.h. */
#include "common/env/plugin.h"

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/env/env_class.h"
#include "common/env/watch.h"
#include "common/util/rng.h"

#define DIM_MAX    (1u << 20)
#define LENGTH_MAX 1000000000u
#define STATE_MAX  (64u << 20)

struct plugin {
    struct env env;
    void *library;
    const struct tdmpc2_env *table;
    void *made;        /* what create returned; NULL: lost */
    struct watch_call call;
    uint32_t seed, restarts;
    float *obs;
};

/* --- the library --------------------------------------------------------------------------------- */

static const char *wrong_with(const struct tdmpc2_env *table)
{
    if (table->abi != TDMPC2_ENV_ABI)
        return "its abi is another: compile it again with this program's plugin.h";
    if (table->size != sizeof(*table))
        return "its size is not sizeof(struct tdmpc2_env)";
    if (table->obs_dim < 1 || table->obs_dim > DIM_MAX)
        return "obs_dim is not within 1 and 2^20";
    if (table->action_dim < 1 || table->action_dim > DIM_MAX)
        return "action_dim is not within 1 and 2^20";
    if (table->episode_length < 1 || table->episode_length > LENGTH_MAX)
        return "episode_length is not within 1 and 10^9";
    if (table->create == NULL || table->reset == NULL || table->step == NULL || table->close == NULL)
        return "create, reset, step or close is missing";
    if (table->state_size > STATE_MAX)
        return "state_size is above 64 MiB";
    if (table->state_size > 0 && (table->state_get == NULL || table->state_set == NULL))
        return "state_get or state_set is missing although state_size is not 0";
    return NULL;
}

/* A name without a slash means this folder, not the system's libraries. */
static int open_library(const char *task, void **library, const struct tdmpc2_env **table, struct error *err)
{
    char path[ENV_TASK_MAX + 2];
    struct watch_call call = {0}; /* it may have constructors */
    struct stat file;
    const char *wrong;

    snprintf(path, sizeof(path), "%s%s", strchr(task, '/') == NULL ? "./" : "", task);
    if (stat(path, &file) == 0 && !S_ISREG(file.st_mode)) /* opening a pipe would wait for its other end */
        return error_set(err, TD_EINVAL, "cannot load the environment: %s is no file but a folder, a pipe or a device",
                         path);
    watch_add(&call, task);
    watch_enter(&call, "load");
    *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    watch_leave(&call);
    watch_remove(&call);
    if (*library == NULL)
        return error_set(err, TD_ENOTFOUND, "cannot load the environment: %s", dlerror());
    *table = dlsym(*library, "tdmpc2_env");
    wrong = *table == NULL ? "it exports no tdmpc2_env (see common/env/plugin.h)" : wrong_with(*table);
    if (wrong == NULL)
        return TD_OK;
    dlclose(*library);
    *library = NULL;
    return error_set(err, TD_EINVAL, "%s is no environment: %s", task, wrong);
}

static bool plugin_find(const char *task, struct env_spec *spec)
{
    size_t length = strlen(task);

    if (length < 4 || strcmp(task + length - 3, ".so") != 0)
        return false;
    *spec = (struct env_spec){.obs_type = ENV_OBS_STATE, .action_repeat = 1, .may_truncate = true};
    snprintf(spec->task, sizeof(spec->task), "%s", task);
    return true;
}

static int plugin_look(struct env_spec *spec, struct error *err)
{
    const struct tdmpc2_env *table = NULL;
    void *library = NULL;
    int rc = open_library(spec->task, &library, &table, err);

    if (rc != TD_OK)
        return rc;
    spec->obs_dim = table->obs_dim;
    spec->action_dim = table->action_dim;
    spec->episode_length = table->episode_length;
    spec->terminates = table->terminates != 0;
    spec->exact_state = table->state_size > 0;
    dlclose(library);
    return TD_OK;
}

/* Not listed: it is the user's. */
static const char *plugin_name(int index)
{
    (void)index;
    return NULL;
}

/* --- life ------------------------------------------------------------------------------------------ */

static void unmake(struct plugin *plugin)
{
    if (plugin->made == NULL)
        return;
    watch_enter(&plugin->call, "close");
    plugin->table->close(plugin->made);
    watch_leave(&plugin->call);
    plugin->made = NULL;
}

static void plugin_close(struct env *env)
{
    struct plugin *plugin = (struct plugin *)env;

    unmake(plugin);
    watch_remove(&plugin->call);
    if (plugin->library != NULL)
        dlclose(plugin->library);
    free(plugin->obs);
    free(plugin);
}

static int make(struct plugin *plugin, const char *task, struct error *err)
{
    uint32_t seed = plugin->restarts == 0 ? plugin->seed : (uint32_t)rng_hash(plugin->seed, plugin->restarts);

    watch_enter(&plugin->call, "create");
    plugin->made = plugin->table->create(seed);
    watch_leave(&plugin->call);
    return plugin->made != NULL ? TD_OK : error_set(err, TD_ELOST, "%s: create returned NULL", task);
}

static int plugin_create(struct env **out, const struct env_spec *spec, uint32_t seed, struct error *err)
{
    struct plugin *plugin = calloc(1, sizeof(*plugin));
    int rc = TD_OK;

    if (plugin != NULL)
        plugin->obs = calloc(spec->obs_dim, sizeof(float));
    if (plugin != NULL)
        watch_add(&plugin->call, plugin->env.spec.task);
    if (plugin == NULL || plugin->obs == NULL)
        rc = error_set(err, TD_ENOMEM, "no memory for an environment");
    if (rc == TD_OK)
        snprintf(plugin->env.spec.task, sizeof(plugin->env.spec.task), "%s", spec->task);
    if (rc == TD_OK)
        rc = open_library(spec->task, &plugin->library, &plugin->table, err);
    if (rc == TD_OK && (plugin->table->obs_dim != spec->obs_dim || plugin->table->action_dim != spec->action_dim))
        rc = error_set(err, TD_EFOREIGN, "%s was changed meanwhile", spec->task);
    if (rc == TD_OK) {
        plugin->seed = seed;
        rc = make(plugin, spec->task, err);
    }
    if (rc != TD_OK) {
        if (plugin != NULL)
            plugin_close(&plugin->env);
        return rc;
    }
    *out = &plugin->env;
    return TD_OK;
}

/* --- episodes ---------------------------------------------------------------------------------------- */

static int lose(struct plugin *plugin, struct error *err, const char *format, double value)
{
    char what[96];

    unmake(plugin);
    snprintf(what, sizeof(what), "%s%g", format, value);
    return error_set(err, TD_ELOST, "%s: %s", plugin->env.spec.task, what);
}

static int check_obs(struct plugin *plugin, struct error *err)
{
    for (uint32_t i = 0; i < plugin->env.spec.obs_dim; i++)
        if (!isfinite(plugin->obs[i]))
            return lose(plugin, err, "the observation holds ", (double)plugin->obs[i]);
    return TD_OK;
}

static int plugin_reset(struct env *env, struct error *err)
{
    struct plugin *plugin = (struct plugin *)env;
    int rc;

    if (plugin->made == NULL) {
        plugin->restarts++;
        if ((rc = make(plugin, env->spec.task, err)) != TD_OK)
            return rc;
    }
    watch_enter(&plugin->call, "reset");
    rc = plugin->table->reset(plugin->made, plugin->obs);
    watch_leave(&plugin->call);
    if (rc != 0)
        return lose(plugin, err, "reset returned ", rc);
    return check_obs(plugin, err);
}

static int plugin_step(struct env *env, const float *action, struct env_result *result, struct error *err)
{
    struct plugin *plugin = (struct plugin *)env;
    struct tdmpc2_step step = {0};
    int rc;

    if (plugin->made == NULL)
        return error_set(err, TD_ELOST, "%s: it was lost before", env->spec.task);
    watch_enter(&plugin->call, "step");
    rc = plugin->table->step(plugin->made, action, plugin->obs, &step);
    watch_leave(&plugin->call);
    if (rc != 0)
        return lose(plugin, err, "step returned ", rc);
    if (!isfinite((float)step.reward))
        return lose(plugin, err, isfinite(step.reward) ? "a float32 cannot hold the reward " : "the reward is ",
                    step.reward);
    if (step.terminated != 0 && plugin->table->terminates == 0)
        return lose(plugin, err, "step set terminated, although the table's `terminates` is ", 0);
    result->reward = step.reward;
    result->terminated = step.terminated != 0;
    result->truncated = step.truncated != 0;
    result->has_success = step.has_success != 0;
    result->success = step.success != 0;
    return check_obs(plugin, err);
}

static void plugin_observe(struct env *env, void *obs)
{
    memcpy(obs, ((struct plugin *)env)->obs, env->spec.obs_dim * sizeof(float));
}

/* --- state: the observation, then the library's bytes ----------------------------------------------- */

static size_t obs_bytes(const struct env *env)
{
    return (env->spec.obs_dim * sizeof(float) + 15) & ~(size_t)15;
}

static size_t plugin_state_size(const struct env *env)
{
    size_t size = ((const struct plugin *)env)->table->state_size;

    return size == 0 ? 0 : obs_bytes(env) + size;
}

static void plugin_state_get(struct env *env, void *bytes)
{
    struct plugin *plugin = (struct plugin *)env;

    memset(bytes, 0, plugin_state_size(env));
    memcpy(bytes, plugin->obs, env->spec.obs_dim * sizeof(float));
    if (plugin->made == NULL)
        return;
    watch_enter(&plugin->call, "state_get");
    plugin->table->state_get(plugin->made, (char *)bytes + obs_bytes(env));
    watch_leave(&plugin->call);
}

static int plugin_state_set(struct env *env, const void *bytes, struct error *err)
{
    struct plugin *plugin = (struct plugin *)env;
    int rc;

    if (plugin->made == NULL && (rc = make(plugin, env->spec.task, err)) != TD_OK)
        return rc;
    watch_enter(&plugin->call, "state_set");
    rc = plugin->table->state_set(plugin->made, (const char *)bytes + obs_bytes(env));
    watch_leave(&plugin->call);
    if (rc != 0)
        return error_set(err, TD_ECORRUPT, "%s refused its saved state", env->spec.task);
    memcpy(plugin->obs, bytes, env->spec.obs_dim * sizeof(float));
    return check_obs(plugin, err);
}

const struct env_class plugin_class = {
    .find = plugin_find,
    .look = plugin_look,
    .name = plugin_name,
    .create = plugin_create,
    .reset = plugin_reset,
    .step = plugin_step,
    .observe = plugin_observe,
    .state_size = plugin_state_size,
    .state_get = plugin_state_get,
    .state_set = plugin_state_set,
    .close = plugin_close,
};
