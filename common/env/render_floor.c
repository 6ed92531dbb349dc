#include "common/env/render_floor.h"

#include <math.h>
#include <string.h>

#include "common/env/gl.h"
#include "common/util/error.h"

#define CORNERS_MAX 16   /* of a rectangle cut by five planes: at most 9 */
#define MARGIN      2    /* tiles around those in view: the view moves on, and roundings differ */
#define WIDEN       1.05 /* of the view */
#define GL_COMPILE  0x1300
#define GL_QUADS    0x0007

/* A plane's tiles along one axis: `count` of `width`, and at both ends one of `pad`. */
struct grid {
    double half, width, pad;
    int count; /* with the two at the ends */
};

struct polygon {
    int count;
    double corner[CORNERS_MAX][3];
};

/* --- what is in view ----------------------------------------------------------------------- */

/* Keep the part where normal . (p - origin) >= 0. */
static void cut(struct polygon *polygon, const double origin[3], const double normal[3])
{
    struct polygon kept = {0};
    double side[CORNERS_MAX];

    for (int i = 0; i < polygon->count; i++) {
        side[i] = 0;
        for (int k = 0; k < 3; k++)
            side[i] += normal[k] * (polygon->corner[i][k] - origin[k]);
    }
    for (int i = 0; i < polygon->count; i++) {
        int next = (i + 1) % polygon->count;

        TD_ASSERT(kept.count + 2 <= CORNERS_MAX, "%d corners", kept.count);
        if (side[i] >= 0)
            memcpy(kept.corner[kept.count++], polygon->corner[i], sizeof(kept.corner[0]));
        if ((side[i] >= 0) != (side[next] >= 0)) {
            double part = side[i] / (side[i] - side[next]);

            for (int k = 0; k < 3; k++)
                kept.corner[kept.count][k] =
                    polygon->corner[i][k] + part * (polygon->corner[next][k] - polygon->corner[i][k]);
            kept.count++;
        }
    }
    *polygon = kept;
}

/* Cut off what lies outside of the camera's pyramid, from the eye on. */
static void cut_to_view(struct polygon *polygon, const mjvScene *scene, double aspect)
{
    const mjvGLCamera *left = &scene->camera[0], *right = &scene->camera[1];
    double near = (double)left->frustum_near;
    double high = WIDEN * fmax(fabs((double)left->frustum_top), fabs((double)left->frustum_bottom)) / near;
    double wide = high * aspect, eye[3], forward[3], up[3], side[3], normal[3];

    for (int k = 0; k < 3; k++) {
        eye[k] = ((double)left->pos[k] + (double)right->pos[k]) / 2;
        forward[k] = (double)left->forward[k];
        up[k] = (double)left->up[k];
    }
    for (int k = 0; k < 3; k++)
        side[k] = forward[(k + 1) % 3] * up[(k + 2) % 3] - forward[(k + 2) % 3] * up[(k + 1) % 3];
    cut(polygon, eye, forward);
    for (int sign = -1; sign <= 1; sign += 2) {
        for (int k = 0; k < 3; k++)
            normal[k] = high * forward[k] + sign * up[k];
        cut(polygon, eye, normal);
        for (int k = 0; k < 3; k++)
            normal[k] = wide * forward[k] + sign * side[k];
        cut(polygon, eye, normal);
    }
}

/* --- tiles --------------------------------------------------------------------------------- */

static struct grid make_grid(double half, double spacing)
{
    struct grid grid = {.half = half};

    spacing = fmax(spacing, half / (mjMAXPLANEGRID - 2));
    grid.count = (int)floor(half / fmax(mjMINVAL, spacing));
    grid.count -= grid.count % 2;
    grid.pad = half - grid.count * spacing;
    grid.width = spacing * 2;
    grid.count += 2;
    return grid;
}

static double line(const struct grid *grid, int index)
{
    if (index == 0)
        return -grid->half;
    if (index == grid->count)
        return -grid->half + grid->pad + (index - 2) * grid->width + grid->pad;
    return -grid->half + grid->pad + (index - 1) * grid->width;
}

/* The tile that holds x, or the nearest. */
static int tile(const struct grid *grid, double x)
{
    double index = floor((x + grid->half - grid->pad) / grid->width) + 1;

    return index < 0 ? 0 : index > grid->count - 1 ? grid->count - 1 : (int)index;
}

static void make_list(const struct render_floor *floor, const struct grid grid[2])
{
    void (*new_list)(unsigned, unsigned), (*begin)(unsigned), (*end)(void), (*end_list)(void);
    void (*normal)(double, double, double), (*vertex)(double, double, double);

#define FUNCTION(pointer, name) pointer = (__typeof__(pointer))gl_function(name)
    FUNCTION(new_list, "glNewList");
    FUNCTION(begin, "glBegin");
    FUNCTION(normal, "glNormal3d");
    FUNCTION(vertex, "glVertex3d");
    FUNCTION(end, "glEnd");
    FUNCTION(end_list, "glEndList");
#undef FUNCTION
    new_list(floor->list, GL_COMPILE);
    begin(GL_QUADS);
    normal(0, 0, 1);
    for (int x = floor->from[0]; x < floor->before[0]; x++)
        for (int y = floor->from[1]; y < floor->before[1]; y++) {
            vertex(line(&grid[0], x), line(&grid[1], y), 0);
            vertex(line(&grid[0], x + 1), line(&grid[1], y), 0);
            vertex(line(&grid[0], x + 1), line(&grid[1], y + 1), 0);
            vertex(line(&grid[0], x), line(&grid[1], y + 1), 0);
        }
    end();
    end_list();
}

/* --- fitting ------------------------------------------------------------------------------- */

/* The one plane whose tiles may be left out, or NULL. */
static const mjvGeom *find_floor(const mjModel *model, const mjvScene *scene)
{
    const mjvGeom *floor = NULL;

    for (int i = 0; i < scene->ngeom; i++) {
        const mjvGeom *geom = &scene->geoms[i];

        if (geom->type == mjGEOM_BOX && geom->reflectance > 0)
            return NULL;
        if (geom->type != mjGEOM_PLANE)
            continue;
        if (floor != NULL || geom->dataid < 0 || geom->objtype != mjOBJ_GEOM)
            return NULL;
        floor = geom;
    }
    if (floor == NULL || model->geom_size[3 * floor->objid] <= 0 ||
        model->geom_size[3 * floor->objid + 1] <= 0)
        return NULL;
    return floor;
}

static bool from_behind(const mjvGeom *plane, const mjvScene *scene)
{
    double height = 0;

    for (int k = 0; k < 3; k++)
        height += (double)(scene->camera[0].pos[k] - plane->pos[k]) * (double)plane->mat[3 * k + 2];
    return height <= 0;
}

static struct polygon visible(const mjvGeom *plane, const struct grid grid[2], const mjvScene *scene,
                              double aspect)
{
    static const int sign[4][2] = {{-1, -1}, {1, -1}, {1, 1}, {-1, 1}};
    struct polygon polygon = {.count = 4};

    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 3; k++)
            polygon.corner[i][k] = (double)plane->pos[k] +
                                   sign[i][0] * grid[0].half * (double)plane->mat[3 * k] +
                                   sign[i][1] * grid[1].half * (double)plane->mat[3 * k + 1];
    cut_to_view(&polygon, scene, aspect);
    return polygon;
}

void render_floor_fit(struct render_floor *floor, const mjModel *model, const mjvScene *scene,
                      const mjrContext *context, double aspect)
{
    const mjvGeom *plane = find_floor(model, scene);
    int first[2], last[2];
    bool fits = floor->list != 0;
    struct polygon polygon;
    struct grid grid[2];

    if (plane == NULL || (from_behind(plane, scene) && floor->list == 0))
        return;
    for (int axis = 0; axis < 2; axis++) {
        grid[axis] = make_grid(model->geom_size[3 * plane->objid + axis], model->geom_size[3 * plane->objid + 2]);
        first[axis] = 0;
        last[axis] = grid[axis].count - 1;
    }
    polygon = visible(plane, grid, scene, aspect);
    for (int axis = 0; axis < 2 && !from_behind(plane, scene); axis++) {
        double least = grid[axis].half, most = -grid[axis].half;

        for (int i = 0; i < polygon.count; i++) {
            double at = 0;

            for (int k = 0; k < 3; k++)
                at += (polygon.corner[i][k] - (double)plane->pos[k]) * (double)plane->mat[3 * k + axis];
            least = fmin(least, at);
            most = fmax(most, at);
        }
        first[axis] = polygon.count == 0 ? 0 : tile(&grid[axis], least);
        last[axis] = polygon.count == 0 ? 0 : tile(&grid[axis], most);
    }
    for (int axis = 0; axis < 2; axis++)
        fits = fits && floor->from[axis] <= first[axis] && last[axis] < floor->before[axis];
    if (fits)
        return;
    floor->list = (unsigned)(context->basePlane + plane->dataid + 1);
    for (int axis = 0; axis < 2; axis++) {
        floor->from[axis] = first[axis] < MARGIN ? 0 : first[axis] - MARGIN;
        floor->before[axis] = last[axis] + 1 + MARGIN > grid[axis].count ? grid[axis].count : last[axis] + 1 + MARGIN;
    }
    make_list(floor, grid);
}
