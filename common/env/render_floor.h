/*
 * render_floor.h - of a model's floor, only the tiles that the camera sees.
 *
 * MuJoCo draws a plane as up to 200 x 200 tiles, in every pass; a camera that follows a robot sees a
 * few dozen. Here the plane's display list is made anew with the tiles in view, their corners the
 * same numbers as MuJoCo's, so not a byte of the picture changes. When the view leaves the tiles
 * that were made, others are.
 *
 * Owns:    nothing; the display list belongs to MuJoCo's context.
 * Thread:  that of the renderer, its OpenGL context bound.
 * Source:  MuJoCo 3.1.2, render_context.c, makePlane.
 */
#ifndef TD_ENV_RENDER_FLOOR_H
#define TD_ENV_RENDER_FLOOR_H

#include <mujoco/mujoco.h>
#include <stdbool.h>

/* The tiles made so far: of plane `list`, from[k] to before[k] along x and y. All 0: MuJoCo's own. */
struct render_floor {
    unsigned list;
    int from[2], before[2];
};

/*
 * To be called between mjv_updateScene and mjr_render. Does nothing where leaving tiles out could
 * show: with several planes, another mirror, a plane without bounds, or one seen from behind.
 */
void render_floor_fit(struct render_floor *floor, const mjModel *model, const mjvScene *scene,
                      const mjrContext *context, double aspect);

#endif
