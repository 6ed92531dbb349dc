/* plot.c - `tdmpc2 plot`: curves for a paper, a panel for each task. */
#include "tools/plot.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/util/config.h"
#include "common/util/fs.h"
#include "tools/commands.h"
#include "tools/options.h"

#define GROUPS_MAX 64
#define SEEDS_MAX  32
#define PANELS_MAX 36
#define POINTS_MAX 4096
#define PANEL_W    460
#define PANEL_H    340

/* t quantiles, two-sided 95 %, of n - 1 degrees of freedom. */
static const double student[] = {0, 0, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262};

/* One line of one panel: the seeds of one experiment on one task, or the published ones. */
struct group {
    char name[256];
    int panel;
    bool published;
    struct curve_series series[SEEDS_MAX];
    int count;
    struct plot_point *points;
    int point_count;
};

struct panel {
    char task[CONFIG_TEXT_MAX];
    char published[FS_PATH_MAX]; /* "" without */
    bool success;
};

struct plot {
    struct panel panels[PANELS_MAX];
    int panel_count;
    struct group groups[GROUPS_MAX];
    int group_count;
    const char *official; /* or NULL */
    bool svg;
};

/* --- means ------------------------------------------------------------------ */

/* The curve's height at step; false where it does not reach. */
static bool height(const struct curve_series *series, double step, double *out)
{
    int low = 0, high = series->count - 1;
    double share;

    if (series->count == 0 || step < series->steps[0] || step > series->steps[high])
        return false;
    while (high - low > 1) {
        int middle = (low + high) / 2;

        if (series->steps[middle] <= step)
            low = middle;
        else
            high = middle;
    }
    if (step >= series->steps[high])
        low = high;
    share = high > low ? (step - series->steps[low]) / (series->steps[high] - series->steps[low]) : 0;
    *out = series->values[low] + share * (series->values[high] - series->values[low]);
    return true;
}

static struct plot_point point_at(const struct curve_series *series, int count, double step)
{
    struct plot_point point = {.step = step};
    double values[SEEDS_MAX], square = 0, half;

    for (int i = 0; i < count && point.seeds < SEEDS_MAX; i++)
        if (height(&series[i], step, &values[point.seeds]))
            point.seeds++;
    for (int i = 0; i < point.seeds; i++)
        point.mean += values[i] / point.seeds;
    for (int i = 0; i < point.seeds; i++)
        square += (values[i] - point.mean) * (values[i] - point.mean);
    half = point.seeds < 2 ? 0
                           : (point.seeds < (int)TD_LEN(student) ? student[point.seeds] : 1.96) *
                                 sqrt(square / (point.seeds - 1) / point.seeds);
    point.low = point.mean - half;
    point.high = point.mean + half;
    return point;
}

int plot_mean(const struct curve_series *series, int count, struct plot_point *points, int max)
{
    double last = -INFINITY;
    int used = 0;

    while (used < max) {
        double next = INFINITY;

        for (int i = 0; i < count; i++)
            for (int j = 0; j < series[i].count; j++)
                if (series[i].steps[j] > last && series[i].steps[j] < next)
                    next = series[i].steps[j];
        if (isinf(next))
            break;
        points[used++] = point_at(series, count, last = next);
    }
    return used;
}

/* --- reading ---------------------------------------------------------------- */

static int find_panel(struct plot *plot, const char *task, int *out, struct error *err)
{
    struct panel *panel;

    for (*out = 0; *out < plot->panel_count; (*out)++)
        if (strcmp(plot->panels[*out].task, task) == 0)
            return TD_OK;
    if (plot->panel_count == PANELS_MAX)
        return error_set(err, TD_EINVAL, "more than %d tasks in one picture", PANELS_MAX);
    panel = &plot->panels[plot->panel_count++];
    snprintf(panel->task, sizeof(panel->task), "%s", task);
    if (plot->official == NULL)
        return TD_OK;
    if (snprintf(panel->published, sizeof(panel->published), "%s/%.200s.csv", plot->official, task) >=
            (int)sizeof(panel->published) || access(panel->published, R_OK) != 0) {
        fprintf(stderr, "tdmpc2 plot: no published curve of %s in %s\n", task, plot->official);
        panel->published[0] = '\0';
    }
    panel->success = panel->published[0] != '\0' && curve_counts_success(panel->published);
    return TD_OK;
}

static struct group *find_group(struct plot *plot, int panel, const char *name, bool published, struct error *err)
{
    struct group *group;

    for (int i = 0; i < plot->group_count; i++)
        if (plot->groups[i].panel == panel && plot->groups[i].published == published &&
            strcmp(plot->groups[i].name, name) == 0)
            return &plot->groups[i];
    if (plot->group_count == GROUPS_MAX) {
        error_set(err, TD_EINVAL, "more than %d curves in one picture", GROUPS_MAX);
        return NULL;
    }
    group = &plot->groups[plot->group_count++];
    snprintf(group->name, sizeof(group->name), "%s", name);
    group->panel = panel;
    group->published = published;
    return group;
}

/* All series of a run or file; the group takes them. */
static int add_file(struct plot *plot, int panel, const char *name, bool published, const char *path, struct error *err)
{
    struct curve curve = {.success = plot->panels[panel].success};
    struct group *group = find_group(plot, panel, name, published, err);
    int rc = group == NULL ? TD_EINVAL : curve_add(&curve, path, true, err);

    for (int i = 0; i < curve.count && rc == TD_OK; i++) {
        if (group->count == SEEDS_MAX) {
            rc = error_set(err, TD_EINVAL, "more than %d seeds of %s", SEEDS_MAX, name);
            break;
        }
        group->series[group->count++] = curve.series[i];
        curve.series[i] = (struct curve_series){.count = 0};
    }
    curve_release(&curve);
    return rc;
}

static int add_run(struct plot *plot, const char *dir, struct error *err)
{
    static struct config config; /* large */
    char path[FS_PATH_MAX];
    int panel, rc;

    config_init(&config);
    if ((rc = fs_join(path, dir, "config.yaml", err)) != TD_OK)
        return rc;
    if (access(path, R_OK) != 0)
        return error_set(err, TD_ENOTFOUND, "%s is not a run directory: it has no config.yaml", dir);
    if ((rc = config_load(&config, path, NULL, err)) != TD_OK || (rc = find_panel(plot, config.task, &panel, err)) != TD_OK)
        return rc;
    return add_file(plot, panel, config.exp_name, false, dir, err);
}

static int add_published(struct plot *plot, struct error *err)
{
    int rc = TD_OK;

    for (int i = 0; i < plot->panel_count && rc == TD_OK; i++)
        if (plot->panels[i].published[0] != '\0')
            rc = add_file(plot, i, "published", true, plot->panels[i].published, err);
    return rc;
}

static int take_means(struct plot *plot, struct error *err)
{
    int points = 0;

    for (int i = 0; i < plot->group_count; i++) {
        struct group *group = &plot->groups[i];

        group->points = calloc(POINTS_MAX, sizeof(*group->points));
        if (group->points == NULL)
            return error_set(err, TD_ENOMEM, "out of memory");
        group->point_count = plot_mean(group->series, group->count, group->points, POINTS_MAX);
        points += group->published ? 0 : group->point_count;
    }
    return points > 0 ? TD_OK : error_set(err, TD_ENOTFOUND, "no evaluation to draw yet");
}

/* --- drawing ------------------------------------------------------------------ */

/* Colours that also differ for the colour-blind (Okabe and Ito). */
static const char *const colours[] = {"#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"};

static void write_data(FILE *out, const struct plot *plot)
{
    for (int i = 0; i < plot->group_count; i++) {
        const struct group *group = &plot->groups[i];

        fprintf(out, "$data%d << EOD\n", i);
        for (int j = 0; j < group->point_count; j++)
            fprintf(out, "%.17g %.17g %.17g %.17g\n", group->points[j].step, group->points[j].mean, group->points[j].low,
                    group->points[j].high);
        fputs("EOD\n", out);
    }
}

static void write_line(FILE *out, const struct plot *plot, int index, const char *before, int colour)
{
    const struct group *group = &plot->groups[index];
    const char *paint = group->published ? "#777777" : colours[(size_t)colour % TD_LEN(colours)];
    char name[320];

    if (group->count > 1)
        fprintf(out, "%s$data%d using 1:3:4 with filledcurves fillcolor rgb '%s' fillstyle transparent solid 0.2 noborder notitle",
                before, index, paint);
    snprintf(name, sizeof(name), "%s (%d seed%s)", group->name, group->count, group->count == 1 ? "" : "s");
    fprintf(out, "%s$data%d using 1:2 with %s linewidth 2 linecolor rgb '%s' title ", group->count > 1 ? ", " : before, index,
            group->published ? "lines dashtype 2" : group->point_count == 1 ? "points pointtype 7" : "lines", paint);
    curve_quote(out, name);
}

static void write_panel(FILE *out, const struct plot *plot, int panel)
{
    const char *before = "plot ";
    int colour = 0;

    fputs("set title ", out);
    curve_quote(out, plot->panels[panel].task);
    fprintf(out, " noenhanced\nset ylabel '%s'\nset yrange [%s]\n", plot->panels[panel].success ? "success rate" : "return",
            plot->panels[panel].success ? "0:1" : "*<0:*");
    for (int i = 0; i < plot->group_count; i++) {
        if (plot->groups[i].panel != panel || plot->groups[i].point_count == 0)
            continue;
        write_line(out, plot, i, before, colour);
        colour += !plot->groups[i].published;
        before = ", ";
    }
    fputs(strcmp(before, "plot ") == 0 ? "set multiplot next\n" : "\n", out);
}

static void write_plot(FILE *out, const void *context, const char *picture)
{
    const struct plot *plot = context;
    int columns = plot->panel_count < 3 ? plot->panel_count : (int)ceil(sqrt(plot->panel_count));
    int rows = (plot->panel_count + columns - 1) / columns;

    if (plot->panel_count == 1)
        fprintf(out, "set terminal %s size 900,560\n", plot->svg ? "svg" : "png truecolor");
    else
        fprintf(out, "set terminal %s size %d,%d\n", plot->svg ? "svg" : "png truecolor", columns * PANEL_W, rows * PANEL_H);
    fputs("set output ", out);
    curve_quote(out, picture);
    fputs("\nset xlabel 'environment steps'\nset grid\nset format x '%.1s%c'\nset key noenhanced top left\n", out);
    write_data(out, plot);
    fprintf(out, "set multiplot layout %d,%d\n", rows, columns);
    for (int i = 0; i < plot->panel_count; i++)
        write_panel(out, plot, i);
    fputs("unset multiplot\n", out);
}

/* The last mean of every line. */
static void print_ends(const struct plot *plot)
{
    for (int i = 0; i < plot->group_count; i++) {
        const struct group *group = &plot->groups[i];
        const struct plot_point *end = &group->points[group->point_count - 1];

        if (group->point_count == 0)
            printf("%s, %s: no evaluation yet\n", plot->panels[group->panel].task, group->name);
        else
            printf("%s, %s: %.*f +- %.*f (%d seed%s) after %.0f environment steps\n", plot->panels[group->panel].task, group->name,
                   plot->panels[group->panel].success ? 3 : 1, end->mean, plot->panels[group->panel].success ? 3 : 1,
                   end->high - end->mean, end->seeds, end->seeds == 1 ? "" : "s", end->step);
    }
}

/* --- the command ---------------------------------------------------------------- */

static void usage(FILE *out)
{
    fputs("usage: tdmpc2 plot RUN_DIR ... [--official DIR] [--out FILE.png|FILE.svg]\n\n"
          "Draws learning curves over environment steps: a panel for each task, a line for each exp_name, the mean of\n"
          "its seeds with the 95 % confidence of the mean as a band. --official: a directory of published csv files\n"
          "(task.csv with the columns step, reward or success, seed), drawn dashed beside. Without --out: plot.png.\n", out);
}

static int take_words(struct plot *plot, int argc, char **argv, const char **picture, struct error *err)
{
    int rc = TD_OK;

    for (int i = 1; i < argc && rc == TD_OK; i++) {
        const char **value = strcmp(argv[i], "--official") == 0 ? &plot->official : strcmp(argv[i], "--out") == 0 ? picture : NULL;

        if (value != NULL && i + 1 < argc)
            *value = argv[++i];
        else if (value != NULL)
            rc = error_set(err, TD_EINVAL, "%s needs a name behind it", argv[i]);
        else if (argv[i][0] == '-')
            rc = error_set(err, TD_EINVAL, "'%s' is neither a run directory, --official DIR nor --out FILE", argv[i]);
    }
    return rc;
}

static int check_words(struct plot *plot, const char *picture, struct error *err)
{
    const char *end = strrchr(picture, '.');
    struct stat info;

    if (end == NULL || (strcmp(end, ".png") != 0 && strcmp(end, ".svg") != 0))
        return error_set(err, TD_EINVAL, "--out %s: a picture ends with .png or .svg", picture);
    plot->svg = strcmp(end, ".svg") == 0;
    if (plot->official != NULL && (stat(plot->official, &info) != 0 || !S_ISDIR(info.st_mode)))
        return error_set(err, TD_ENOTFOUND, "--official %s is not a directory", plot->official);
    return TD_OK;
}

static int draw(struct plot *plot, int argc, char **argv, struct error *err)
{
    const char *picture = "plot.png";
    int rc, runs = 0;

    if ((rc = take_words(plot, argc, argv, &picture, err)) != TD_OK || (rc = check_words(plot, picture, err)) != TD_OK)
        return rc;
    for (int i = 1; i < argc && rc == TD_OK; i++) {
        if (argv[i][0] == '-')
            i++;
        else if ((rc = add_run(plot, argv[i], err)) == TD_OK)
            runs++;
    }
    if (rc == TD_OK && runs == 0)
        rc = error_set(err, TD_EINVAL, "name the run directories to draw, as in logs/*/*/default");
    if (rc != TD_OK || (rc = add_published(plot, err)) != TD_OK || (rc = take_means(plot, err)) != TD_OK)
        return rc;
    print_ends(plot);
    fflush(stdout);
    if ((rc = curve_gnuplot(write_plot, plot, picture, err)) == TD_OK)
        printf("%s\n", picture);
    return rc;
}

static void release(struct plot *plot)
{
    for (int i = 0; i < plot->group_count; i++) {
        for (int j = 0; j < plot->groups[i].count; j++) {
            free(plot->groups[i].series[j].steps);
            free(plot->groups[i].series[j].values);
        }
        free(plot->groups[i].points);
    }
    free(plot);
}

int cmd_plot(int argc, char **argv)
{
    struct plot *plot;
    struct error err = {0};
    int rc;

    if (options_help(argc, argv)) {
        usage(stdout);
        return TD_EXIT_OK;
    }
    plot = calloc(1, sizeof(*plot));
    if (plot == NULL) {
        fputs("tdmpc2 plot: out of memory\n", stderr);
        return TD_EXIT_GAVE_UP;
    }
    rc = draw(plot, argc, argv, &err);
    release(plot);
    if (rc == TD_OK)
        return TD_EXIT_OK;
    fprintf(stderr, "tdmpc2 plot: %s\n", err.text);
    return error_exit_code(rc);
}
