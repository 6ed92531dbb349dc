#include "common/env/mujoco.h"

#include <dlfcn.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/env/places.h"

#define LIBRARY  "libmujoco.so.3.1.2"
#define TEXT_MAX 512

/* --- where things are ---------------------------------------------------------------------- */

struct places {
    char library[FS_PATH_MAX];
    char suite[FS_PATH_MAX];
    char models[FS_PATH_MAX];
};

/* Set a place that is not yet found to folder/rest, if that exists. */
static void offer(char place[FS_PATH_MAX], const char *folder, const char *rest)
{
    if (place[0] == '\0' && !(place_join(place, folder, rest) && place_exists(place)))
        place[0] = '\0';
}

/* Fill in what the environment variable, the installation or the source tree offers. */
static void find_places(struct places *places)
{
    const char *assets = getenv("TDMPC2_ASSETS");
    char program[FS_PATH_MAX], folder[FS_PATH_MAX];

    memset(places, 0, sizeof(*places));
    if (assets != NULL && assets[0] != '\0') {
        offer(places->library, assets, LIBRARY);
        offer(places->models, assets, "models");
        place_join(places->suite, assets, "suite"); /* there or not: what was asked for */
    }
    if (fs_program_dir(program, NULL) != TD_OK)
        return;

    /* Installed: PREFIX/bin beside PREFIX/lib and PREFIX/share. */
    strcpy(folder, program);
    if (place_parent(folder)) {
        offer(places->library, folder, "lib/tdmpc2/" LIBRARY);
        offer(places->suite, folder, "share/tdmpc2/suite");
        offer(places->models, folder, "share/tdmpc2/models");
    }
    strcpy(folder, program);
    if (place_source_tree(folder)) {
        offer(places->library, folder, "third_party/mujoco/lib/" LIBRARY);
        offer(places->suite, folder, "third_party/dm_control/suite");
        offer(places->models, folder, "common/env/dm/models");
    }
}

/* --- errors and warnings ------------------------------------------------------------------- */

static _Thread_local struct {
    bool armed;
    jmp_buf back;
    char error[TEXT_MAX];
    char warning[TEXT_MAX];
} here;

/* MuJoCo counts on this not returning. */
static void on_error(const char *text)
{
    if (!here.armed) {
        fprintf(stderr, "MuJoCo: %s\n", text);
        abort();
    }
    snprintf(here.error, sizeof(here.error), "%s", text);
    longjmp(here.back, 1);
}

static void on_warning(const char *text)
{
    snprintf(here.warning, sizeof(here.warning), "%s", text);
}

const char *mujoco_last_warning(void)
{
    return here.warning;
}

int mujoco_run(void (*body)(void *context), void *context, struct error *err)
{
    TD_ASSERT(!here.armed, "mujoco_run inside mujoco_run");
    if (setjmp(here.back) != 0) {
        here.armed = false;
        return error_set(err, TD_EIO, "MuJoCo gave up: %s", here.error);
    }
    here.armed = true;
    body(context);
    here.armed = false;
    return TD_OK;
}

/* --- loading ------------------------------------------------------------------------------- */

static const char what_to_run[] = "run `make setup` in the source tree, or set TDMPC2_ASSETS to a folder "
                                  "that holds " LIBRARY " and suite/";

static int no_library(struct error *err)
{
    return error_set(err, TD_ESETUP, "the MuJoCo library " LIBRARY " is not installed: %s", what_to_run);
}

static int resolve(struct mujoco *mj, void *library, const char *path, struct error *err)
{
    void (**user_error)(const char *) = dlsym(library, "mju_user_error");
    void (**user_warning)(const char *) = dlsym(library, "mju_user_warning");

#define MUJOCO_RESOLVE(name)                                                                       \
    if ((mj->name = (__typeof__(mj->name))dlsym(library, #name)) == NULL)                          \
        return error_set(err, TD_EFOREIGN, "%s has no function " #name ": not MuJoCo %s", path,    \
                         "3.1.2");
    MUJOCO_FUNCTIONS(MUJOCO_RESOLVE)
#undef MUJOCO_RESOLVE
    if (mj->mj_version() != mjVERSION_HEADER)
        return error_set(err, TD_EFOREIGN, "%s is MuJoCo %s, this program was built for %d.%d.%d: %s",
                         path, mj->mj_versionString(), mjVERSION_HEADER / 100,
                         mjVERSION_HEADER / 10 % 10, mjVERSION_HEADER % 10, what_to_run);
    if (user_error == NULL || user_warning == NULL)
        return error_set(err, TD_EFOREIGN, "%s has no error callbacks: not MuJoCo 3.1.2", path);
    *user_error = on_error;
    *user_warning = on_warning;
    return TD_OK;
}

static int open_library(struct mujoco *mj, struct error *err)
{
    struct places places;
    void *library;
    int rc;

    find_places(&places);
    if (places.library[0] == '\0')
        return no_library(err);
    library = dlopen(places.library, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        return error_set(err, TD_ESETUP, "cannot open the MuJoCo library (%s): %s", dlerror(),
                         what_to_run);
    if ((rc = resolve(mj, library, places.library, err)) != TD_OK)
        dlclose(library);
    return rc;
}

const struct mujoco *mujoco_open(struct error *err)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static struct mujoco mj;
    static bool ready;
    const struct mujoco *opened;

    pthread_mutex_lock(&lock);
    if (!ready)
        ready = open_library(&mj, err) == TD_OK;
    opened = ready ? &mj : NULL;
    pthread_mutex_unlock(&lock);
    return opened;
}

/* The file's path as it is, and the path that MuJoCo is told: what it includes lies beside that. */
static int find_model(const char *file, char path[FS_PATH_MAX], char told[FS_PATH_MAX],
                      struct error *err)
{
    struct places places;

    find_places(&places);
    if (places.suite[0] != '\0' && place_join(told, places.suite, file)) {
        if (place_join(path, places.suite, file) && place_exists(path))
            return TD_OK;
        if (places.models[0] != '\0' && place_join(path, places.models, file) && place_exists(path))
            return TD_OK;
    }
    return error_set(err, TD_ESETUP, "the model file %s/%s is missing: %s",
                     places.suite[0] == '\0' ? "suite" : places.suite, file, what_to_run);
}

int mujoco_present(const char *file, struct error *err)
{
    char path[FS_PATH_MAX], told[FS_PATH_MAX];
    struct places places;

    find_places(&places);
    return places.library[0] == '\0' ? no_library(err) : find_model(file, path, told, err);
}

struct load {
    const struct mujoco *mj;
    const char *path; /* as told */
    const char *file, *text;
    size_t bytes;
    mjVFS *vfs; /* 2 MB: on the heap */
    char *words;
    mjModel *model;
};

/* The text goes into MuJoCo's file system in memory, which it searches before the disk. */
static void load_body(void *context)
{
    struct load *load = context;
    int index;

    load->mj->mj_defaultVFS(load->vfs);
    if (load->mj->mj_makeEmptyFileVFS(load->vfs, load->file, (int)load->bytes) != 0)
        return;
    index = load->mj->mj_findFileVFS(load->vfs, load->file);
    memcpy(load->vfs->filedata[index], load->text, load->bytes);
    load->model = load->mj->mj_loadXML(load->path, load->vfs, load->words, TEXT_MAX);
}

/*
 * The compiler sprinkles marks over textures with srand() and rand(): two threads at once would get
 * each other's numbers, and frames that differ.
 */
static int load_alone(struct load *load, struct error *err)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    int rc;

    pthread_mutex_lock(&lock);
    rc = mujoco_run(load_body, load, err);
    pthread_mutex_unlock(&lock);
    return rc;
}

int mujoco_load_model(const struct mujoco *mj, const char *file, const struct model_edit *edits,
                      mjModel **model, struct error *err)
{
    char path[FS_PATH_MAX], told[FS_PATH_MAX], words[TEXT_MAX] = "no room for its text";
    struct load load = {.mj = mj, .file = file, .path = told, .words = words};
    char *text = NULL;
    int rc;

    *model = NULL;
    if ((rc = find_model(file, path, told, err)) != TD_OK)
        return rc;
    if ((rc = model_text_read(path, edits, &text, &load.bytes, err)) != TD_OK)
        goto out;
    load.text = text;
    load.vfs = calloc(1, sizeof(*load.vfs));
    if (load.vfs == NULL) {
        rc = error_set(err, TD_ENOMEM, "no memory to load %s", path);
        goto out;
    }
    rc = load_alone(&load, err);
    mj->mj_deleteVFS(load.vfs);
    if (rc == TD_OK && load.model == NULL)
        rc = error_set(err, TD_ECORRUPT, "MuJoCo cannot load %s: %.*s", path,
                       (int)strcspn(words, "\n"), words);
    *model = load.model;
out:
    free(load.vfs);
    model_text_free(&text);
    return rc;
}
