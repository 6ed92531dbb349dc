/*
 * gl.h - an off-screen OpenGL context: on a GPU through EGL, else in software through OSMesa.
 *
 * The library is opened at run time, by the first context: programs that draw nothing need none.
 * $MUJOCO_GL chooses as it does for dm_control: `osmesa`, `egl`, or unset: a GPU if EGL offers one,
 * OSMesa otherwise. The choice holds for the process, as MuJoCo looks its GL functions up once.
 *
 * Owns:    the library, open until the process ends.
 * Thread:  a context is bound to at most one thread at a time, from gl_bind to gl_unbind; between
 *          two such pairs it may move, and one thread may bind several in turn. Opening and closing
 *          are possible in any thread.
 */
#ifndef TD_ENV_GL_H
#define TD_ENV_GL_H

#include <stdbool.h>

#include "common/util/error.h"

typedef struct gl gl_t;

/*
 * A context (24 depth bits, 8 stencil bits), not yet bound. Returns TD_OK, TD_ESETUP when this
 * machine can't draw (what to install), TD_EINVAL when $MUJOCO_GL names something else, TD_ENOMEM.
 */
int gl_open(gl_t **out, struct error *err);

/* Make it this thread's, whatever was bound before. TD_OK or TD_EIO. */
int gl_bind(gl_t *gl, struct error *err);

/* Leave this thread with no context. */
void gl_unbind(gl_t *gl);

/* An OpenGL function by name, which the library must have; after gl_open. */
void *gl_function(const char *name);

/* Who draws, e.g. "OSMesa, 3.1 Mesa 22.3.6, llvmpipe (LLVM 15.0.6, 256 bits)"; "" before the first context. */
const char *gl_driver(void);

/* It is the library that drew the recorded frames: drawn exactly, ours have the same bytes. */
bool gl_drew_recordings(void);

/* Accepts NULL and a half-opened context; not bound to any thread. */
void gl_close(gl_t **gl);

#endif
