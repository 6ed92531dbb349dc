/*
 * render.h - pictures of a MuJoCo model, drawn off screen.
 *
 * Drawn exactly, a picture has the bytes of dm_control's Physics.render through the same OSMesa and
 * the same MuJoCo; render.c says what drawing fast leaves out.
 *
 * Owns:    an OpenGL context and the model's textures and meshes in it.
 * Borrows: the model and its data, which must be those it was made for.
 * Thread:  one at a time; the context is bound only within a call, so it may move between calls.
 * Source:  dm_control 1.0.16, mujoco/engine.py, _render/; REFERENCE, section 7b.
 */
#ifndef TD_ENV_RENDER_H
#define TD_ENV_RENDER_H

#include <stdint.h>

#include "common/env/env.h"
#include "common/env/mujoco.h"

typedef struct render render_t;

/*
 * For pictures of this size (at first) of one model.
 * Returns TD_OK, TD_ESETUP when this machine can't draw, TD_EIO with MuJoCo's words, TD_ENOMEM.
 */
int render_open(render_t **out, const struct mujoco *mj, mjModel *model, int width, int height,
                enum env_drawing drawing, struct error *err);

/*
 * Draw what `data` holds, positions being up to date; view->camera is not -1. Another size than the
 * last takes some milliseconds more.
 *
 *   pixels  [height][width][3]  out  rows from the top
 *
 * Returns TD_OK, TD_EINVAL (no such camera), TD_EIO.
 */
int render_draw(render_t *render, mjData *data, const struct env_view *view, uint8_t *pixels,
                struct error *err);

/* Accepts NULL and a half-opened one. */
void render_close(render_t **render);

#endif
