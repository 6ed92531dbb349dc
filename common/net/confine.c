#include "common/net/confine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/env/places.h"
#include "common/net/address.h"
#include "common/net/rundir.h"
#include "common/util/log.h"
#include "common/util/spawner.h"

/* What came of it, for the one line. */
static struct {
    int landlock; /* its ABI; 0: not in force */
    char why[sizeof(((struct error *)0)->text)];
} state;

static bool required(const struct config *config)
{
    return strcmp(config->sandbox, "require") == 0;
}

/* Is anything to be done? Fills `why` when auto finds a reason against it. */
static bool wanted(const struct config *config)
{
    const char *preloaded = getenv("LD_PRELOAD");

    if (strcmp(config->sandbox, "off") == 0)
        return false;
    if (required(config) || preloaded == NULL || preloaded[0] == '\0')
        return true;
    snprintf(state.why, sizeof(state.why), "a library is preloaded (LD_PRELOAD)");
    return false;
}

/* A step did not work: with require that is the end, else it is remembered for the log. */
static int lacking(const struct config *config, const struct error *why, struct error *err)
{
    if (required(config))
        return error_set(err, TD_ESETUP, "sandbox=require, but %s; sandbox=auto goes on without", why->text);
    snprintf(state.why, sizeof(state.why), "%s", why->text);
    return TD_OK;
}

int confine_start(const struct config *config, int argc, char **argv, struct error *err)
{
    struct error why = {0};

    if (!wanted(config) || (sandbox_landlock() == 0 && !sandbox_seccomp() && !required(config)))
        return TD_OK;
    return spawner_start(argc, argv, &why) == TD_OK ? TD_OK : lacking(config, &why, err);
}

/* --- what the roles keep ------------------------------------------------------- */

static void keep_common(struct sandbox *keep, const struct config *config)
{
    char base[RUNTIME_BASE_MAX];

    memset(keep, 0, sizeof(*keep));
    sandbox_system(keep);
    sandbox_read(keep, config->keys);
    runtime_base(base);
    mkdir(base, 0700); /* a rule binds to what is there; runtime_folder says what is wrong with it */
    sandbox_write(keep, base);
}

/* The folder of the plugin that a task names, ./FILE.so. */
static void keep_plugin(struct sandbox *keep, const char *task)
{
    char folder[FS_PATH_MAX];
    size_t length = strlen(task);

    if (length < 4 || strcmp(task + length - 3, ".so") != 0)
        return;
    snprintf(folder, sizeof(folder), "%s", task);
    if (strchr(folder, '/') == NULL)
        strcpy(folder, ".");
    else if (!place_parent(folder))
        strcpy(folder, "/");
    sandbox_read(keep, folder);
}

/* And of each of several. */
static void keep_plugins(struct sandbox *keep, const struct config *config)
{
    char task[CONFIG_TEXT_MAX];

    keep_plugin(keep, config->task);
    for (const char *at = config->tasks; *at != '\0'; at += *at == ',') {
        size_t length = strcspn(at, ",");

        memcpy(task, at, length);
        task[length] = '\0';
        keep_plugin(keep, task);
        at += length;
    }
}

static bool beyond_ipc(const char *address)
{
    return address[0] != '\0' && !address_is_ipc(address);
}

/* What a new replay begins with, whose options stand in it or beside it; and where the replay is. */
static void keep_seed(struct sandbox *keep, const struct config *config)
{
    char beside[FS_PATH_MAX];

    if (config->seed_data[0] == '\0')
        return;
    sandbox_read(keep, config->seed_data);
    if (snprintf(beside, sizeof(beside), "%s/../config.yaml", config->seed_data) < (int)sizeof(beside))
        sandbox_read(keep, beside);
    if (config->replay_dir[0] != '\0' && fs_mkdirs(config->replay_dir, 0777, NULL) == TD_OK)
        sandbox_write(keep, config->replay_dir);
}

void confine_learner(struct sandbox *keep, const struct config *config, const char *run_dir)
{
    keep_common(keep, config);
    sandbox_read(keep, config->checkpoint);
    sandbox_write(keep, run_dir);
    keep_seed(keep, config);
    keep_plugins(keep, config);
    keep->network = beyond_ipc(config->bind);
}

static void keep_record(struct sandbox *keep, const char *run_dir)
{
    char folder[FS_PATH_MAX];

    if (run_dir[0] == '\0' || fs_join(folder, run_dir, "run", NULL) != TD_OK || fs_mkdirs(folder, 0777, NULL) != TD_OK)
        return;
    sandbox_write(keep, folder);
}

void confine_shard(struct sandbox *keep, const struct config *config, const char *run_dir, const char *store)
{
    keep_common(keep, config);
    keep_record(keep, run_dir);
    fs_mkdirs(store, 0777, NULL);
    sandbox_write(keep, store);
    keep->network = beyond_ipc(config->bind) || beyond_ipc(config->learner);
}

/* MuJoCo's library, models and textures: installed, in the source tree, or where TDMPC2_ASSETS says. */
static void keep_models(struct sandbox *keep)
{
    static const char *const installed[] = {"lib/tdmpc2", "share/tdmpc2"};
    static const char *const source[] = {"third_party/mujoco", "third_party/dm_control", "common/env/dm/models"};
    char program[FS_PATH_MAX], folder[FS_PATH_MAX], path[FS_PATH_MAX];
    const char *assets = getenv("TDMPC2_ASSETS");

    sandbox_read(keep, assets);
    if (fs_program_dir(program, NULL) != TD_OK)
        return;
    strcpy(folder, program);
    if (place_parent(folder))
        for (size_t i = 0; i < TD_LEN(installed); i++)
            if (place_join(path, folder, installed[i]))
                sandbox_read(keep, path);
    strcpy(folder, program);
    if (place_source_tree(folder))
        for (size_t i = 0; i < TD_LEN(source); i++)
            if (place_join(path, folder, source[i]))
                sandbox_read(keep, path);
}

/* What draws: Mesa or a vendor's driver, and its devices. */
static void keep_drawing(struct sandbox *keep)
{
    static const char *const read[] = {"/etc/glvnd", "/etc/egl", "/etc/drirc", "/etc/vulkan", "/etc/OpenCL", "/run/udev"};
    static const char *const devices[] = {"/dev/dri", "/dev/nvidia0", "/dev/nvidiactl", "/dev/nvidia-modeset",
                                          "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/udmabuf", "/dev/kfd"};

    for (size_t i = 0; i < TD_LEN(read); i++)
        sandbox_read(keep, read[i]);
    for (size_t i = 0; i < TD_LEN(devices); i++)
        sandbox_write(keep, devices[i]);
    setenv("MESA_SHADER_CACHE_DISABLE", "true", 0); /* it lies in the user's home */
}

/* The task is known only once the learner was asked; of a run on this machine its directory tells. */
static void keep_task(struct sandbox *keep, const struct config *config)
{
    static struct config run;
    char path[FS_PATH_MAX];

    keep_plugins(keep, config);
    keep_plugin(keep, config->env);
    if (config->work_dir[0] == '\0' || fs_join(path, config->work_dir, "config.yaml", NULL) != TD_OK)
        return;
    config_init(&run);
    if (config_load(&run, path, NULL, NULL) == TD_OK)
        keep_plugins(keep, &run);
}

/* Where an evaluator of this machine puts them. */
static void keep_videos(struct sandbox *keep, const struct config *config)
{
    char folder[FS_PATH_MAX];

    if (!config->save_video || config->work_dir[0] == '\0' || fs_join(folder, config->work_dir, "videos", NULL) != TD_OK ||
        fs_mkdirs(folder, 0777, NULL) != TD_OK)
        return;
    sandbox_write(keep, folder);
}

/* learner=@DIR: the address there is read again when the learner is not heard. */
static void keep_rendezvous(struct sandbox *keep, const char *learner)
{
    char folder[FS_PATH_MAX];

    if (learner[0] == '@' && fs_join(folder, learner + 1, "run", NULL) == TD_OK)
        sandbox_read(keep, folder);
}

void confine_actor(struct sandbox *keep, const struct config *config)
{
    keep_common(keep, config);
    keep_rendezvous(keep, config->learner);
    keep_record(keep, config->work_dir);
    keep_models(keep);
    keep_drawing(keep);
    keep_task(keep, config);
    keep_videos(keep, config);
    keep->network = true;
    keep->code = true;
}

/* --- giving up the rest ---------------------------------------------------------- */

int confine_files(const struct sandbox *keep, const struct config *config, struct error *err)
{
    struct error why = {0};

    if (!wanted(config))
        return TD_OK;
    if (sandbox_files(keep, &why) != TD_OK)
        return lacking(config, &why, err);
    state.landlock = sandbox_landlock();
    return TD_OK;
}

int confine_calls(const struct sandbox *keep, const struct config *config, struct error *err)
{
    struct error why = {0};
    bool filtered = false;
    char files[32] = "no";
    int rc = TD_OK;

    if (wanted(config)) {
        if (sandbox_calls(keep, &why) == TD_OK)
            filtered = true;
        else
            rc = lacking(config, &why, err);
    }
    if (state.landlock != 0)
        snprintf(files, sizeof(files), "landlock-%d", state.landlock);
    if (rc == TD_OK && state.landlock != 0 && filtered)
        log_info("sandbox", "files=%s calls=seccomp network=%s code=%s", files, keep->network ? "yes" : "ipc",
                 keep->code ? "yes" : "fixed");
    else if (rc == TD_OK && strcmp(config->sandbox, "off") != 0)
        log_warn("sandbox not whole", "files=%s calls=%s why=\"%s\"", files, filtered ? "seccomp" : "no", state.why);
    return rc;
}
