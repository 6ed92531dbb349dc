/* update_pixels.c - observations of pixels through the convolutional encoder and back. */
#include <string.h>

#include "learner/update_internal.h"

static int tiles_of(const struct update *update)
{
    return (update->batch + PIXEL_TILE - 1) / PIXEL_TILE;
}

void update_lay_out_pixels(struct update *update, struct arena *arena)
{
    const struct pixel_net *net = &update->model->pixels;
    struct update_pixels *pixels = &update->pixels;
    size_t batch = (size_t)update->batch, steps = (size_t)update->horizon + 1;

    if (!update->model->layout.dims.rgb)
        return;
    pixel_panels_init(&pixels->panels, net, true, arena);
    pixels->shift = arena_floats(arena, steps * batch * 2);
    pixels->tape = arena_floats(arena, batch * pixel_tape_floats(net));
    pixels->partials = arena_floats(arena, (size_t)tiles_of(update) * pixel_partial_floats(net));
    for (int i = 0; i < update->threads; i++)
        pixel_scratch_init(&update->scratch[i].pixels, net, true, arena);
}

/* Pool task: one layer. */
static void pack_task(void *context, int task, int worker)
{
    struct update *update = context;

    (void)worker;
    pixel_panels_pack(&update->pixels.panels, &update->model->pixels, task);
}

void update_pack_pixels(struct update *update)
{
    if (update->model->layout.dims.rgb)
        pool_run(update->pool, pack_task, update, PIXEL_LAYERS);
}

void update_draw_shifts(struct update *update)
{
    const struct update_draws *draws = update->draws;
    size_t batch = (size_t)update->batch;
    float *shift = update->pixels.shift;

    if (!update->model->layout.dims.rgb)
        return;
    draws->noise(draws->context, UPDATE_SHIFT, shift, batch * 2);
    draws->noise(draws->context, UPDATE_NEXT_SHIFT, shift + batch * 2, (size_t)update->horizon * batch * 2);
}

/* What slice b saw at time t, and its crop. */
static struct pixel_obs observation(const struct update *update, int t, int b)
{
    const struct batch *data = update->data;
    const float *shift = update->pixels.shift + ((size_t)t * (size_t)update->batch + (size_t)b) * 2;
    struct pixel_obs obs = {.column = (int)shift[0], .row = (int)shift[1]};

    for (int k = 0; k < PIXEL_FRAMES; k++) {
        size_t frame = ((size_t)t * (size_t)data->frame_step + (size_t)k) * (size_t)update->batch + (size_t)b;

        obs.frame[k] = data->frames + frame * PIXEL_FRAME_BYTES;
    }
    return obs;
}

/* Pool task: one observation, t = 0 with a tape for its way back. */
static void encode_task(void *context, int task, int worker)
{
    struct update *update = context;
    const struct pixel_net *net = &update->model->pixels;
    int t = task / update->batch, b = task % update->batch;
    struct pixel_obs obs = observation(update, t, b);
    float *tape = t == 0 ? update->pixels.tape + (size_t)b * pixel_tape_floats(net) : NULL;
    float *z = t == 0 ? update->za + (size_t)b * update->width
                      : update->next_za + (size_t)(task - update->batch) * update->width;

    pixel_forward(net, &update->pixels.panels, &obs, &update->scratch[worker].pixels, tape, z);
}

void update_encode_pixels(struct update *update)
{
    if (!update->model->layout.dims.rgb)
        return;
    TD_ASSERT(update->data->frames != NULL && (update->data->frame_step == 1 || update->data->frame_step == 3),
              "frame_step %d", update->data->frame_step);
    pool_run(update->pool, encode_task, update, (update->horizon + 1) * update->batch);
}

int update_pixel_tasks(const struct update *update)
{
    return update->model->layout.dims.rgb ? tiles_of(update) : 0;
}

void update_pixel_backward(struct update *update, int tile, int worker)
{
    const struct pixel_net *net = &update->model->pixels;
    size_t floats = pixel_partial_floats(net);
    float *partial = update->pixels.partials + (size_t)tile * floats;

    memset(partial, 0, floats * sizeof(float));
    for (int b = tile * PIXEL_TILE; b < (tile + 1) * PIXEL_TILE && b < update->batch; b++) {
        struct pixel_obs obs = observation(update, 0, b);
        size_t row = (size_t)b * update->width;

        pixel_backward(net, &update->pixels.panels, &obs, &update->scratch[worker].pixels,
                       update->pixels.tape + (size_t)b * pixel_tape_floats(net), update->za + row,
                       update->dz + row, partial);
    }
}

/* Pool task: one block of the sum over tiles. */
static void gradient_task(void *context, int part, int worker)
{
    struct update *update = context;

    (void)worker;
    pixel_gradient(&update->model->pixels, update->pixels.partials, tiles_of(update), &update->pixels.grad, part);
}

void update_pixel_gradient(struct update *update)
{
    if (update->model->layout.dims.rgb)
        pool_run(update->pool, gradient_task, update, pixel_gradient_parts(&update->model->pixels));
}
