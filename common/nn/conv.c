#include "common/nn/conv.h"

#include <string.h>

#include "common/nn/conv_kernels.h"
#include "common/tensor/vec.h"
#include "common/util/error.h"

#define WIDEST 32 /* channels of the widest panel, AVX-512's */

static void check(const struct conv *conv)
{
    TD_ASSERT(conv->in > 0 && conv->out > 0 && conv->stride > 0 && conv->kernel >= conv->stride &&
                  conv->side >= conv->kernel,
              "in %d out %d kernel %d stride %d side %d", conv->in, conv->out, conv->kernel, conv->stride,
              conv->side);
}

/* What the pixels of y see of x. */
static struct conv_view view_of(const struct conv *conv, const float *x)
{
    size_t in = (size_t)conv->in, side = (size_t)conv->side, stride = (size_t)conv->stride;
    struct conv_view view = {.rows = conv_out_side(conv), .columns = conv_out_side(conv), .x = x};

    view.row = stride * side * in;
    if (conv->planes) {
        view.lines = conv->kernel * conv->in;
        view.run = conv->kernel;
        view.line = side;
        view.step = stride;
    } else {
        view.lines = conv->kernel;
        view.run = conv->kernel * conv->in;
        view.line = side * in;
        view.step = stride * in;
    }
    return view;
}

/* Where among the floats that a pixel sees weight (i, u, v) is. */
static int place_of(const struct conv *conv, int i, int u, int v)
{
    return conv->planes ? (u * conv->in + i) * conv->kernel + v : (u * conv->kernel + v) * conv->in + i;
}

static float weight_at(const struct conv *conv, int o, int i, int u, int v)
{
    return conv->weight[((o * conv->in + i) * conv->kernel + u) * conv->kernel + v];
}

/* --- packing ----------------------------------------------------------------------------------- */

static size_t widened(int channels)
{
    return (size_t)(channels + WIDEST - 1) / WIDEST * WIDEST;
}

size_t conv_packed_floats(const struct conv *conv)
{
    size_t taps = (size_t)conv->kernel * (size_t)conv->kernel;
    size_t forward = taps * (size_t)conv->in * widened(conv->out);
    size_t back = taps * (size_t)conv->out * widened(conv->in);

    return forward > back ? forward : back;
}

void conv_pack(const struct conv *conv, float *packed)
{
    int width = conv_kernels()->width, depth = conv_depth(conv);

    check(conv);
    for (int first = 0; first < conv->out; first += width, packed += (size_t)depth * (size_t)width)
        for (int i = 0; i < conv->in; i++)
            for (int u = 0; u < conv->kernel; u++)
                for (int v = 0; v < conv->kernel; v++) {
                    float *at = packed + (size_t)place_of(conv, i, u, v) * (size_t)width;

                    for (int o = 0; o < width; o++)
                        at[o] = first + o < conv->out ? weight_at(conv, first + o, i, u, v) : 0.0f;
                }
}

/* Weights u = phase, phase + stride, ... of one direction. */
static int phase_taps(const struct conv *conv, int phase)
{
    return (conv->kernel - phase + conv->stride - 1) / conv->stride;
}

/* One phase (see conv_backward_input): [taps down][taps across][out], both backwards. Returns its end. */
static float *pack_phase(const struct conv *conv, int down, int across, int width, float *packed)
{
    int rows = phase_taps(conv, down), columns = phase_taps(conv, across);

    for (int first = 0; first < conv->in; first += width)
        for (int a = rows - 1; a >= 0; a--)
            for (int b = columns - 1; b >= 0; b--)
                for (int o = 0; o < conv->out; o++, packed += width)
                    for (int i = 0; i < width; i++)
                        packed[i] = first + i < conv->in ? weight_at(conv, o, first + i, down + conv->stride * a,
                                                                     across + conv->stride * b)
                                                         : 0.0f;
    return packed;
}

void conv_pack_back(const struct conv *conv, float *packed)
{
    check(conv);
    for (int down = 0; down < conv->stride; down++)
        for (int across = 0; across < conv->stride; across++)
            packed = pack_phase(conv, down, across, conv_kernels()->width, packed);
}

/* --- forward and backward ---------------------------------------------------------------------- */

void conv_forward(const struct conv *conv, const float *packed, const float *x, float *y)
{
    check(conv);
    conv_kernels()->dot(&(struct conv_dot){
        .view = view_of(conv, x),
        .packed = packed,
        .channels = conv->out,
        .bias = conv->bias,
        .relu = conv->relu,
        .y = y,
        .y_step = (size_t)conv->out,
        .y_row = (size_t)conv->out * (size_t)conv_out_side(conv),
    });
}

/*
 * Pixel (r, c) of x enters pixels (j, l) of y with stride j + u = r, stride l + v = c, through w[o][i][u][v].
 * With r = stride q + down: u = down + stride a and j = q - a for a = 0, 1, ...; columns likewise. So the
 * pixels of one phase (down, across) are a convolution of dy, of stride 1, with every stride-th weight:
 *
 *   dx[stride q + down][stride p + across][i] =
 *       sum over (a, b, o) of dy[q - a][p - b][o] w[o][i][down + stride a][across + stride b]
 *
 * where dy is 0 outside. Its runs lie forwards in memory when a and b go backwards, as packed.
 */
void conv_backward_input(const struct conv *conv, const float *packed_back, const float *dy, size_t row_dy,
                         const float *gate, float *dx, size_t row_dx)
{
    size_t in = (size_t)conv->in, out = (size_t)conv->out, stride = (size_t)conv->stride;
    int width = conv_kernels()->width;
    size_t panels = (in + (size_t)width - 1) / (size_t)width;

    check(conv);
    TD_ASSERT(!conv->planes, "no gradient at planes");
    for (int down = 0; down < conv->stride; down++)
        for (int across = 0; across < conv->stride; across++) {
            int rows = phase_taps(conv, down), columns = phase_taps(conv, across);
            size_t first = ((size_t)down * (size_t)conv->side + (size_t)across) * in;

            conv_kernels()->dot(&(struct conv_dot){
                .view = {
                    .rows = (conv->side - down + conv->stride - 1) / conv->stride,
                    .columns = (conv->side - across + conv->stride - 1) / conv->stride,
                    .lines = rows,
                    .run = columns * conv->out,
                    .x = dy - (size_t)(rows - 1) * row_dy - (size_t)(columns - 1) * out,
                    .line = row_dy,
                    .step = out,
                    .row = row_dy,
                },
                .packed = packed_back,
                .channels = conv->in,
                .gate = gate == NULL ? NULL : gate + first,
                .gate_step = stride * in,
                .gate_row = stride * in * (size_t)conv->side,
                .y = dx + (size_t)down * row_dx + (size_t)across * in,
                .y_step = stride * in,
                .y_row = stride * row_dx,
            });
            packed_back += panels * (size_t)width * (size_t)(rows * columns) * out;
        }
}

void conv_backward_weight(const struct conv *conv, const float *x, const float *dy, size_t row_dy,
                          float *dpacked, float *dbias)
{
    size_t out = (size_t)conv->out;
    int side = conv_out_side(conv);

    check(conv);
    conv_kernels()->outer(&(struct conv_outer){
        .view = view_of(conv, x), .dy = dy, .dy_row = row_dy, .channels = conv->out, .dpacked = dpacked});
    for (int row = 0; row < side; row++)
        for (int column = 0; column < side; column++)
            vec_add(dbias, dy + (size_t)row * row_dy + (size_t)column * out, out);
}

void conv_unpack_weight(const struct conv *conv, const float *dpacked, int first, int count, float *dweight)
{
    int depth = conv_depth(conv), kernel = conv->kernel;

    TD_ASSERT(first >= 0 && count >= 0 && first + count <= depth, "first %d count %d depth %d", first, count, depth);
    for (int i = 0; i < conv->in; i++)
        for (int u = 0; u < kernel; u++)
            for (int v = 0; v < kernel; v++) {
                int place = place_of(conv, i, u, v);
                float *to = dweight + (i * kernel + u) * kernel + v;

                if (place < first || place >= first + count)
                    continue;
                for (int o = 0; o < conv->out; o++)
                    to[(size_t)o * (size_t)depth] += dpacked[(size_t)place * (size_t)conv->out + (size_t)o];
            }
}
