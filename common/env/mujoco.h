/*
 * mujoco.h - the MuJoCo library and the model files: found, loaded, checked, kept quiet.
 *
 * The library is opened at run time: programs that run no environment do without it, and a missing
 * set-up is a sentence instead of the dynamic linker's complaint. Looked for in this order:
 *
 *   $TDMPC2_ASSETS            holding suite/ and, if it is to be used, libmujoco.so.3.1.2
 *   PREFIX/bin/program        PREFIX/lib/tdmpc2/ and PREFIX/share/tdmpc2/suite/
 *   ROOT/build/.../program    ROOT/third_party/mujoco/lib/ and ROOT/third_party/dm_control/suite/
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

#include "common/util/error.h"

/* The functions that environments use. */
#define MUJOCO_FUNCTIONS(F)                                                                        \
    F(mj_version) F(mj_versionString) F(mj_loadXML) F(mj_deleteModel) F(mj_makeData)               \
    F(mj_deleteData) F(mj_resetData) F(mj_forward) F(mj_step) F(mj_step1) F(mj_step2)              \
    F(mj_stateSize) F(mj_getState) F(mj_setState) F(mj_name2id) F(mju_error)                       \
    F(mjv_defaultOption) F(mjv_defaultCamera) F(mjv_defaultScene) F(mjv_makeScene)                 \
    F(mjv_freeScene) F(mjv_updateScene) F(mjr_defaultContext) F(mjr_makeContext)                   \
    F(mjr_freeContext) F(mjr_setBuffer) F(mjr_resizeOffscreen) F(mjr_render) F(mjr_readPixels)

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

/*
 * Load and compile suite/`file`; *model is the caller's, for mj_deleteModel.
 * Returns TD_OK, TD_ESETUP when the file is not there, TD_ECORRUPT with MuJoCo's words otherwise.
 */
int mujoco_load_model(const struct mujoco *mj, const char *file, mjModel **model, struct error *err);

/*
 * Run body(context), which may call MuJoCo. Returns TD_OK, or TD_EIO with MuJoCo's words when it
 * reported an error: body was left in the middle, and its mjData can only be deleted. Not nested.
 */
int mujoco_run(void (*body)(void *context), void *context, struct error *err);

/* The last warning MuJoCo gave this thread, "" when none; valid until the next. */
const char *mujoco_last_warning(void);

#endif
