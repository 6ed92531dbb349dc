#include "common/env/render.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/env/gl.h"
#include "common/env/render_floor.h"

#define GEOMS_MAX  1000 /* in a scene, at least; a model with more gets more */
#define FONT_SCALE 150

#define FAST_STACKS 8   /* of 16 */
#define FAST_SHADOW 768 /* of 2048 */

struct render {
    const struct mujoco *mj;
    mjModel *model;
    gl_t *gl;
    mjvScene scene;
    mjrContext context;
    mjvOption option;
    struct render_floor floor;
    bool scene_made, context_made;
    int width, height;
    enum env_drawing drawing;
};

static int least(int a, int b)
{
    return a < b ? a : b;
}

/* --- opening ------------------------------------------------------------------------------- */

/*
 * What costs time at 64 x 64 is not pixels but triangles: a capsule has some 1,800, drawn in five
 * passes (shadow map, floor's mirror image twice, scene twice), each triangle rasterised for four
 * samples, and the shadow map has a thousand times as many pixels as the picture.
 *
 * A buffer of the picture's size instead of the model's 640 x 480 gives the same bytes with less to
 * clear. Fast also halves the rows of triangles along a shape's axis and draws a smaller
 * shadow map. Slices around the axis stay: fewer move the highlights that vertices carry. Samples
 * stay, and so do mirror, sky and shadows: leaving one out shows.
 */
static void set_quality(const struct render *render, mjVisual *vis)
{
    vis->global.offwidth = render->width;
    vis->global.offheight = render->height;
    if (render->drawing != ENV_DRAW_FAST)
        return;
    vis->quality.numstacks = least(vis->quality.numstacks, FAST_STACKS);
    vis->quality.shadowsize = least(vis->quality.shadowsize, FAST_SHADOW);
}

static void open_body(void *argument)
{
    struct render *render = argument;
    const struct mujoco *mj = render->mj;
    mjModel *model = render->model;

    mj->mjv_defaultOption(&render->option);
    mj->mjv_defaultScene(&render->scene);
    mj->mjv_makeScene(model, &render->scene, GEOMS_MAX + 2 * (int)(model->ngeom + model->nsite));
    render->scene_made = true;

    mj->mjr_defaultContext(&render->context);
    set_quality(render, &model->vis);
    mj->mjr_makeContext(model, &render->context, FONT_SCALE);
    render->context_made = true;
}

/* MuJoCo looks OpenGL's functions up in the first context, into tables of the whole process. */
static int make_context(struct render *render, struct error *err)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    mjVisual kept = render->model->vis;
    int rc;

    pthread_mutex_lock(&lock);
    rc = mujoco_run(open_body, render, err);
    pthread_mutex_unlock(&lock);
    render->model->vis = kept;
    return rc;
}

int render_open(render_t **out, const struct mujoco *mj, mjModel *model, int width, int height,
                enum env_drawing drawing, struct error *err)
{
    struct render *render = calloc(1, sizeof(*render));
    int rc;

    *out = NULL;
    if (render == NULL)
        return error_set(err, TD_ENOMEM, "no memory to draw with");
    render->mj = mj;
    render->model = model;
    render->width = width;
    render->height = height;
    render->drawing = drawing;
    if ((rc = gl_open(&render->gl, err)) == TD_OK && (rc = gl_bind(render->gl, err)) == TD_OK) {
        rc = make_context(render, err);
        gl_unbind(render->gl);
    }
    if (rc != TD_OK)
        render_close(&render);
    *out = render;
    return rc;
}

static void close_body(void *argument)
{
    struct render *render = argument;

    if (render->context_made)
        render->mj->mjr_freeContext(&render->context);
    if (render->scene_made)
        render->mj->mjv_freeScene(&render->scene);
}

void render_close(render_t **render)
{
    if (*render == NULL)
        return;
    if ((*render)->gl != NULL && gl_bind((*render)->gl, NULL) == TD_OK) {
        mujoco_run(close_body, *render, NULL);
        gl_unbind((*render)->gl);
    }
    gl_close(&(*render)->gl);
    free(*render);
    *render = NULL;
}

/* --- drawing ------------------------------------------------------------------------------- */

struct draw {
    struct render *render;
    mjData *data;
    const struct env_view *view;
    uint8_t *pixels;
};

static void draw_body(void *argument)
{
    struct draw *draw = argument;
    struct render *render = draw->render;
    const struct mujoco *mj = render->mj;
    const mjrRect whole = {0, 0, draw->view->width, draw->view->height};
    mjvCamera camera;

    if (draw->view->width != render->width || draw->view->height != render->height) {
        mj->mjr_resizeOffscreen(draw->view->width, draw->view->height, &render->context);
        render->width = draw->view->width;
        render->height = draw->view->height;
    }
    mj->mjr_setBuffer(mjFB_OFFSCREEN, &render->context);
    mj->mjv_defaultCamera(&camera);
    camera.type = mjCAMERA_FIXED;
    camera.fixedcamid = draw->view->camera;
    mj->mjv_updateScene(render->model, draw->data, &render->option, NULL, &camera, mjCAT_ALL,
                        &render->scene);
    render_floor_fit(&render->floor, render->model, &render->scene, &render->context,
                     (double)whole.width / whole.height);
    mj->mjr_render(whole, &render->scene, &render->context);
    mj->mjr_readPixels(draw->pixels, NULL, whole, &render->context);
}

static void flip_rows(uint8_t *pixels, int width, int height)
{
    size_t bytes = 3 * (size_t)width;

    for (int row = 0; row < height / 2; row++) {
        uint8_t *a = pixels + (size_t)row * bytes, *b = pixels + (size_t)(height - 1 - row) * bytes;

        for (size_t i = 0; i < bytes; i++) {
            uint8_t kept = a[i];

            a[i] = b[i];
            b[i] = kept;
        }
    }
}

int render_draw(render_t *render, mjData *data, const struct env_view *view, uint8_t *pixels,
                struct error *err)
{
    struct draw draw = {render, data, view, pixels};
    int rc;

    if (view->camera < 0 || view->camera >= render->model->ncam)
        return error_set(err, TD_EINVAL, "the model has no camera %d", view->camera);
    if ((rc = gl_bind(render->gl, err)) != TD_OK)
        return rc;
    rc = mujoco_run(draw_body, &draw, err);
    gl_unbind(render->gl);
    if (rc == TD_OK)
        flip_rows(pixels, view->width, view->height);
    return rc;
}
