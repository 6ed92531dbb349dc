/*
 * mujoco.h - the MuJoCo library and the model files: found, loaded, checked, kept quiet.
 *
 * The library is opened at run time: programs that run no environment do without it, and a missing
 * set-up is a sentence instead of the dynamic linker's complaint. Looked for in this order:
 *
 *   $TDMPC2_ASSETS            holding suite/ and, if they are to be used, libmujoco.so.3.1.2, models/
 *   PREFIX/bin/program        PREFIX/lib/tdmpc2/ and PREFIX/share/tdmpc2/{suite,models}/
 *   ROOT/build/.../program    ROOT/third_party/mujoco/lib/, ROOT/third_party/dm_control/suite/ and
 *                             ROOT/common/env/dm/models/
 *
 * suite/ holds dm_control's model files, models/ those that are ours and lean on the former.
 *
 * Errors inside MuJoCo come back as TD_EIO: its own handler would wait for a key and exit. Warnings
 * are kept per thread: its own handler would append a file to the working directory.
 *
 * Owns:    the library, open until the process ends, and its two process-wide callbacks.
 * Thread:  any.
 */
#ifndef TD_ENV_MUJOCO_H
#define TD_ENV_MUJOCO_H

#include <mujoco/mujoco.h>

#include "common/env/model_text.h"
#include "common/util/error.h"

/* The functions that environments use. */
#define MUJOCO_FUNCTIONS(F)                                                                        \
    F(mj_version) F(mj_versionString) F(mj_loadXML) F(mj_deleteModel) F(mj_makeData)               \
    F(mj_deleteData) F(mj_resetData) F(mj_forward) F(mj_step) F(mj_step1) F(mj_step2)              \
    F(mj_stateSize) F(mj_getState) F(mj_setState) F(mj_name2id) F(mju_error)                       \
    F(mjv_defaultOption) F(mjv_defaultCamera) F(mjv_defaultScene) F(mjv_makeScene)                 \
    F(mjv_freeScene) F(mjv_updateScene) F(mjr_defaultContext) F(mjr_makeContext)                   \
    F(mjr_freeContext) F(mjr_setBuffer) F(mjr_resizeOffscreen) F(mjr_render) F(mjr_readPixels)     \
    F(mj_defaultVFS) F(mj_makeEmptyFileVFS) F(mj_findFileVFS) F(mj_deleteVFS)

struct mujoco {
#define MUJOCO_FIELD(name) __typeof__(&(name)) name;
    MUJOCO_FUNCTIONS(MUJOCO_FIELD)
#undef MUJOCO_FIELD
};

/*
 * The library, opened by the first call. NULL with TD_ESETUP when it is not there (what to run) or
 * TD_EFOREIGN when it is of another version than the headers.
 */
const struct mujoco *mujoco_open(struct error *err);

/* Whether library and model file are there, without opening them: TD_OK, or TD_ESETUP. */
int mujoco_present(const char *file, struct error *err);

/*
 * Load suite/`file` or models/`file`, edit its text (NULL edits nothing) and compile it; *model is
 * the caller's, for mj_deleteModel. What the file includes is looked for in suite/.
 * Returns TD_OK, TD_ESETUP when the file is not there, TD_ECORRUPT when it can't be edited as wished
 * or, with MuJoCo's words, not be compiled.
 */
int mujoco_load_model(const struct mujoco *mj, const char *file, const struct model_edit *edits,
                      mjModel **model, struct error *err);

/*
 * Run body(context), which may call MuJoCo. Returns TD_OK, or TD_EIO with MuJoCo's words when it
 * reported an error: body was left in the middle, and its mjData can only be deleted. Not nested.
 */
int mujoco_run(void (*body)(void *context), void *context, struct error *err);

/* The last warning MuJoCo gave this thread, "" when none; valid until the next. */
const char *mujoco_last_warning(void);

#endif
