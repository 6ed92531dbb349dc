#include "tools/curve.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/net/rundir.h"
#include "common/util/fs.h"
#include "learner/csv.h"
#include "tools/commands.h"
#include "tools/console.h"
#include "tools/options.h"

#define LABEL 10 /* characters left of the plot */

extern char **environ;

static const char marks[CURVE_SERIES_MAX + 1] = "*o+x#@%&ABCDEFGH";

/* --- reading --- */

static int first_column(const struct csv_data *data, const char *const *names)
{
    for (; *names != NULL; names++)
        if (csv_column(data, *names) >= 0)
            return csv_column(data, *names);
    return -1;
}

static int add_point(struct curve_series *series, double step, double value)
{
    /* grown in powers of two */
    if ((series->count & (series->count - 1)) == 0) {
        size_t capacity = series->count == 0 ? 1 : (size_t)series->count * 2;
        double *steps = realloc(series->steps, capacity * sizeof(double));
        double *values = steps == NULL ? NULL : realloc(series->values, capacity * sizeof(double));

        if (steps != NULL)
            series->steps = steps;
        if (values == NULL)
            return TD_ENOMEM;
        series->values = values;
    }
    series->steps[series->count] = step;
    series->values[series->count++] = value;
    return TD_OK;
}

/* The rows whose seed is `seed` (or all, where there is no such column) as one more curve. */
static int add_series(struct curve *curve, const struct csv_data *data, const char *path, int seed_column, double seed,
                      int step_column, int value_column, struct error *err)
{
    struct curve_series *series = &curve->series[curve->count];

    if (curve->count == CURVE_SERIES_MAX)
        return error_set(err, TD_EINVAL, "more than %d curves", CURVE_SERIES_MAX);
    memset(series, 0, sizeof(*series));
    curve->count++;
    if (seed_column >= 0)
        snprintf(series->name, sizeof(series->name), "%.230s, seed %.0f", path, seed);
    else
        snprintf(series->name, sizeof(series->name), "%.255s", path);
    for (int i = 0; i < data->rows; i++) {
        const double *row = data->values + (size_t)i * (size_t)data->columns;

        if (seed_column >= 0 && row[seed_column] != seed)
            continue;
        if (!isfinite(row[value_column]) || !isfinite(row[step_column]))
            continue;
        if (add_point(series, row[step_column], row[value_column]) != TD_OK)
            return error_set(err, TD_ENOMEM, "out of memory");
    }
    return TD_OK;
}

static int add_data(struct curve *curve, const struct csv_data *data, const char *path, bool env_steps,
                    struct error *err)
{
    static const char *const returns[] = {"episode_reward", "reward", "success", NULL};
    static const char *const successes[] = {"episode_success", "success", NULL};
    int value_column = first_column(data, curve->success ? successes : returns), seed_column = csv_column(data, "seed");
    int step_column = csv_column(data, "step"), env_column = csv_column(data, "env_step");
    int rc = TD_OK;

    if (step_column < 0 || value_column < 0)
        return error_set(err, TD_ECORRUPT, "%s has no columns step and %s", path,
                         curve->success ? "episode_success (or success)" : "episode_reward (or reward, success)");
    if (env_steps && env_column >= 0)
        step_column = env_column;
    curve->env_steps |= env_steps;
    if (seed_column < 0)
        return add_series(curve, data, path, -1, 0, step_column, value_column, err);
    for (int i = 0; i < data->rows && rc == TD_OK; i++) {
        double seed = data->values[(size_t)i * (size_t)data->columns + (size_t)seed_column];
        bool seen = false;

        for (int j = 0; j < i && !seen; j++)
            seen = data->values[(size_t)j * (size_t)data->columns + (size_t)seed_column] == seed;
        if (!seen && isfinite(seed))
            rc = add_series(curve, data, path, seed_column, seed, step_column, value_column, err);
    }
    return rc;
}

bool curve_counts_success(const char *path)
{
    struct csv_data data;
    bool counts;

    if (fs_is_folder(path) || csv_load(&data, path, NULL) != TD_OK)
        return false;
    counts = csv_column(&data, "success") >= 0 && csv_column(&data, "reward") < 0;
    csv_release(&data);
    return counts;
}

bool curve_counts_env_steps(const char *path)
{
    struct csv_data data;
    bool counts;

    if (fs_is_folder(path) || csv_load(&data, path, NULL) != TD_OK)
        return false;
    counts = csv_column(&data, "seed") >= 0;
    csv_release(&data);
    return counts;
}

int curve_add(struct curve *curve, const char *path, bool env_steps, struct error *err)
{
    char file[FS_PATH_MAX];
    struct csv_data data;
    int rc = TD_OK;

    if (fs_is_folder(path)) {
        if ((rc = rundir_check(path, err)) != TD_OK || (rc = fs_join(file, path, "eval.csv", err)) != TD_OK)
            return rc;
        if (access(file, F_OK) != 0)
            return error_set(err, TD_ENOTFOUND, "%s has no eval.csv yet", path);
    }
    if ((rc = csv_load(&data, fs_is_folder(path) ? file : path, err)) != TD_OK)
        return rc;
    rc = add_data(curve, &data, path, env_steps, err);
    csv_release(&data);
    return rc;
}

void curve_release(struct curve *curve)
{
    for (int i = 0; i < curve->count; i++) {
        free(curve->series[i].steps);
        free(curve->series[i].values);
    }
    memset(curve, 0, sizeof(*curve));
}

/* --- text --- */

struct range {
    double low, high;
};

static void widen(struct range *range, double value)
{
    range->low = fmin(range->low, value);
    range->high = fmax(range->high, value);
}

static void ranges(const struct curve *curve, struct range *x, struct range *y)
{
    *x = (struct range){INFINITY, -INFINITY};
    *y = (struct range){0, 0}; /* returns are read against zero */
    for (int i = 0; i < curve->count; i++) {
        for (int j = 0; j < curve->series[i].count; j++) {
            widen(x, curve->series[i].steps[j]);
            widen(y, curve->series[i].values[j]);
        }
    }
    if (x->low == x->high)
        x->high = x->low + 1;
    if (y->low == y->high)
        y->high = y->low + 1;
}

static int place(double value, const struct range *range, int cells)
{
    return (int)lround((value - range->low) / (range->high - range->low) * (cells - 1));
}

/* Dots between neighbouring points, then a mark on each point. */
static void plot_series(const struct curve_series *series, char mark, char *cells, int columns, int rows,
                        const struct range *x, const struct range *y)
{
    for (int j = 0; j + 1 < series->count; j++) {
        int from = place(series->steps[j], x, columns), to = place(series->steps[j + 1], x, columns);

        for (int column = from + 1; column < to; column++) {
            double share = (double)(column - from) / (to - from);
            double value = series->values[j] + share * (series->values[j + 1] - series->values[j]);
            char *cell = &cells[(rows - 1 - place(value, y, rows)) * columns + column];

            if (*cell == ' ')
                *cell = '.';
        }
    }
    for (int j = 0; j < series->count; j++)
        cells[(rows - 1 - place(series->values[j], y, rows)) * columns + place(series->steps[j], x, columns)] = mark;
}

static void print_axis(FILE *out, const struct curve *curve, const struct range *x, int columns)
{
    char low[32], high[32];
    const char *what = curve->env_steps ? "environment steps" : "agent steps";
    int gap;

    fprintf(out, "%*s+", LABEL, "");
    for (int i = 0; i < columns; i++)
        fputc('-', out);
    console_format_count(low, sizeof(low), x->low);
    console_format_count(high, sizeof(high), x->high);
    gap = columns - (int)(strlen(low) + strlen(high) + strlen(what));
    fprintf(out, "\n%*s%s%*s%s%*s%s\n", LABEL + 1, "", low, gap > 1 ? gap / 2 : 1, "", what,
            gap > 1 ? gap - gap / 2 : 1, "", high);
}

void curve_draw(const struct curve *curve, FILE *out, int width, int height)
{
    int columns = (width < 30 ? 30 : width) - LABEL - 1, rows = (height < 5 ? 5 : height) - 2;
    char *cells = malloc((size_t)columns * (size_t)rows);
    struct range x, y;
    int points = 0;

    for (int i = 0; i < curve->count; i++)
        points += curve->series[i].count;
    if (points == 0 || cells == NULL) {
        fprintf(out, "no evaluation yet\n");
        free(cells);
        return;
    }
    ranges(curve, &x, &y);
    memset(cells, ' ', (size_t)columns * (size_t)rows);
    for (int i = 0; i < curve->count; i++)
        plot_series(&curve->series[i], marks[i], cells, columns, rows, &x, &y);
    for (int row = 0; row < rows; row++) {
        int end = columns;
        double value = y.high - (y.high - y.low) * row / (rows - 1);

        while (end > 0 && cells[row * columns + end - 1] == ' ')
            end--;
        if (row % 4 == 0 || row == rows - 1)
            fprintf(out, "%*.1f |%.*s\n", LABEL - 1, value, end, cells + row * columns);
        else
            fprintf(out, "%*s|%.*s\n", LABEL, "", end, cells + row * columns);
    }
    print_axis(out, curve, &x, columns);
    for (int i = 0; i < curve->count && curve->count > 1; i++)
        fprintf(out, "%*s%c %s\n", LABEL + 1, "", marks[i], curve->series[i].name);
    free(cells);
}

/* --- PNG --- */

/* In gnuplot's single quotes only the quote itself is special. */
void curve_quote(FILE *out, const char *text)
{
    fputc('\'', out);
    for (; *text != '\0'; text++) {
        if (*text == '\'')
            fputc('\'', out);
        if (*text != '\n')
            fputc(*text, out);
    }
    fputc('\'', out);
}

static void write_script(FILE *out, const struct curve *curve, const char *picture)
{
    fputs("set terminal png size 900,560\nset output ", out);
    curve_quote(out, picture);
    fprintf(out, "\nset xlabel '%s'\nset ylabel 'return'\nset grid\nset yrange [*<0:*]\nset format x '%%.0f'\n"
                 "set key noenhanced top left\n",
            curve->env_steps ? "environment steps" : "agent steps");
    for (int i = 0; i < curve->count; i++) {
        fprintf(out, "$data%d << EOD\n", i);
        for (int j = 0; j < curve->series[i].count; j++)
            fprintf(out, "%.17g %.17g\n", curve->series[i].steps[j], curve->series[i].values[j]);
        fputs("EOD\n", out);
    }
    for (int i = 0, first = 1; i < curve->count; i++) {
        if (curve->series[i].count == 0)
            continue;
        fprintf(out, "%s$data%d using 1:2 with linespoints linewidth 2 pointtype 7 title ", first ? "plot " : ", ", i);
        curve_quote(out, curve->series[i].name);
        first = 0;
    }
    fputc('\n', out);
}

/* Run gnuplot with its script on stdin. Returns its wait status, or -1 with errno. */
static int run_gnuplot(const char *script, size_t length)
{
    char *argv[] = {"gnuplot", "-d", NULL};
    posix_spawn_file_actions_t actions;
    int ends[2], status = -1, failed;
    pid_t pid;

    if (pipe(ends) != 0)
        return -1;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[0], STDIN_FILENO);
    posix_spawn_file_actions_addclose(&actions, ends[0]);
    /* it would draw on the terminal what it cannot write into the file */
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addclose(&actions, ends[1]);
    failed = posix_spawnp(&pid, "gnuplot", &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[0]);
    if (failed == 0) {
        fs_write_all(ends[1], script, length, "the pipe to gnuplot", NULL);
        close(ends[1]);
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
            ;
        return status;
    }
    close(ends[1]);
    errno = failed;
    return -1;
}

/* gnuplot only fails, without a reason. */
static int check_target(const char *path, struct error *err)
{
    char folder[FS_PATH_MAX];
    int rc = fs_parent(path, folder, err);

    if (rc == TD_OK && access(folder, W_OK | X_OK) != 0)
        rc = error_set_errno(err, TD_EINVAL, errno, "cannot write %s: name another place", path);
    return rc;
}

static void write_curve(FILE *out, const void *curve, const char *picture)
{
    write_script(out, curve, picture);
}

int curve_png(const struct curve *curve, const char *path, struct error *err)
{
    int points = 0;

    for (int i = 0; i < curve->count; i++)
        points += curve->series[i].count;
    if (points == 0)
        return error_set(err, TD_ENOTFOUND, "no evaluation to draw yet");
    return curve_gnuplot(write_curve, curve, path, err);
}

int curve_gnuplot(curve_script_fn *write, const void *context, const char *path, struct error *err)
{
    char beside[FS_PATH_MAX], *script = NULL;
    size_t length = 0;
    int status, rc;
    FILE *out;

    if (snprintf(beside, sizeof(beside), "%s.tmp", path) >= (int)sizeof(beside))
        return error_set(err, TD_EINVAL, "path longer than %d bytes: %.60s...", FS_PATH_MAX - 5, path);
    if ((rc = check_target(path, err)) != TD_OK)
        return rc;
    out = open_memstream(&script, &length);
    if (out == NULL)
        return error_set(err, TD_ENOMEM, "out of memory");
    write(out, context, beside);
    if (fclose(out) != 0) {
        free(script);
        return error_set(err, TD_ENOMEM, "out of memory");
    }
    signal(SIGPIPE, SIG_IGN);
    status = run_gnuplot(script, length);
    free(script);
    if (status == -1 && errno == ENOENT)
        return error_set(err, TD_ENOTFOUND, "no picture: gnuplot is not installed (apt-get install gnuplot-nox)");
    if (status == -1)
        return error_set_errno(err, TD_EIO, errno, "cannot run gnuplot");
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0 || access(beside, F_OK) != 0) {
        unlink(beside);
        return error_set(err, TD_EIO, "gnuplot could not write %s", path);
    }
    rc = fs_rename(beside, path, err);
    if (rc != TD_OK)
        unlink(beside);
    return rc;
}

/* --- the command --- */

static void usage(FILE *out)
{
    fprintf(out, "usage: tdmpc2 curve [RUN_DIR|FILE.csv ...] [png=FILE]\n\n"
                 "Draws the learning curves of runs (without one: the run under logs/ that changed last) as text, and\n"
                 "with gnuplot as RUN_DIR/curve.png. A csv file with a seed column, such as the published results, is\n"
                 "drawn beside them over environment steps.\n");
}

static int terminal_width(void)
{
    struct winsize size;

    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0)
        return 80;
    return size.ws_col > 120 ? 120 : size.ws_col;
}

static int draw_all(struct curve *curve, char **paths, int count, const char *png, struct error *err)
{
    char picture[FS_PATH_MAX];
    bool env_steps = false;
    int rc = TD_OK;

    for (int i = 0; i < count; i++)
        env_steps |= curve_counts_env_steps(paths[i]);
    for (int i = 0; i < count && rc == TD_OK; i++)
        rc = curve_add(curve, paths[i], env_steps, err);
    if (rc != TD_OK)
        return rc;
    curve_draw(curve, stdout, terminal_width(), 20);
    fflush(stdout);
    if (png == NULL && !fs_is_folder(paths[0]))
        return TD_OK;
    if (png == NULL && (rc = fs_join(picture, paths[0], "curve.png", err)) != TD_OK)
        return rc;
    rc = curve_png(curve, png != NULL ? png : picture, err);
    if (rc == TD_OK) {
        printf("%s\n", png != NULL ? png : picture);
    } else if (png == NULL && rc == TD_ENOTFOUND) {
        printf("%s\n", err->text); /* nothing to draw, or no gnuplot: the text stands */
        rc = TD_OK;
    }
    return rc;
}

int cmd_curve(int argc, char **argv)
{
    char newest[FS_PATH_MAX], *last = newest;
    struct curve curve = {0};
    struct error err = {0};
    const char *png = NULL;
    int rc = TD_OK, count = 0;

    if (options_help(argc, argv)) {
        usage(stdout);
        return TD_EXIT_OK;
    }
    for (int i = 1; i < argc && rc == TD_OK; i++) {
        if (strncmp(argv[i], "png=", 4) == 0 && argv[i][4] != '\0')
            png = argv[i] + 4;
        else if (argv[i][0] == '-' || strncmp(argv[i], "png=", 4) == 0)
            rc = error_set(&err, TD_EINVAL, "'%s' is neither a run directory, a csv file nor png=FILE", argv[i]);
        else
            argv[1 + count++] = argv[i];
    }
    if (rc == TD_OK && count == 0)
        rc = rundir_newest("logs", newest, sizeof(newest), &err);
    if (rc == TD_OK)
        rc = draw_all(&curve, count > 0 ? argv + 1 : &last, count > 0 ? count : 1, png, &err);
    curve_release(&curve);
    if (rc == TD_OK)
        return TD_EXIT_OK;
    fprintf(stderr, "tdmpc2 curve: %s\n", err.text);
    return error_exit_code(rc);
}
