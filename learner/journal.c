#include "learner/journal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/metrics/tensorboard.h"
#include "common/util/clock.h"
#include "common/util/fs.h"
#include "common/util/log.h"
#include "learner/csv.h"

#define EVENTS_EVERY_MS 200 /* between two train rows in the event file; train.csv has them all */
#define GIF_MAX         (32u << 20)
#define EVENT_TAGS      64  /* in one event; lines of many tasks take several */
#define TAG_MAX         (TASK_NAME_MAX + 40)

struct file {
    const char *name;
    const char *const *columns;
    int count, time_column;
    char path[FS_PATH_MAX];
    csv_t *csv;  /* NULL: not wanted */
    double step; /* of the last line: the column never falls, though counts of several shards may */
};

struct journal {
    struct file train, eval;
    const struct task_set *tasks; /* of a multi-task run, or NULL */
    const char **columns;         /* of eval.csv then; the names behind csv_eval_columns are owned */
    double action_repeat;
    double seconds_before; /* of earlier lives */
    uint64_t start_ms;
    struct log_limit failed;
    tensorboard_t *events; /* or NULL */
    char videos[FS_PATH_MAX]; /* folder; "" when none are made */
    uint64_t events_ms;    /* of the last train row in it */
};

/* The last time and step that an earlier life wrote. */
static double last_time(struct file *file)
{
    struct csv_data data;
    double time = 0;

    if (csv_load(&data, file->path, NULL) != TD_OK)
        return 0;
    for (int row = 0; row < data.rows && data.columns > file->time_column; row++) {
        double at = data.values[(size_t)row * (size_t)data.columns + (size_t)file->time_column];

        time = at > time ? at : time;
        file->step = fmax(file->step, data.values[(size_t)row * (size_t)data.columns]);
    }
    csv_release(&data);
    return time;
}

static int open_file(journal_t *journal, struct file *file, const struct run *run, struct error *err)
{
    struct csv_cut cut = {0};
    double before;
    int rc = run_path(run, file->name, file->path, err);

    if (rc != TD_OK)
        return rc;
    before = last_time(file);
    journal->seconds_before = fmax(journal->seconds_before, before);
    if (!run->config.save_csv)
        return TD_OK;
    rc = csv_open(&file->csv, file->path, file->columns, file->count, UINT64_MAX, &cut, err);
    if (rc == TD_OK && cut.translated)
        log_warn("begun by an earlier version with other columns: taken over", "file=%s kept_as=%s.old", file->path, file->path);
    if (rc == TD_OK && cut.damaged > 0)
        log_warn("damaged lines removed", "file=%s lines=%d kept_as=%s.damaged", file->path, cut.damaged,
                 file->path);
    return rc;
}

/* The usual columns, the score, two of each task. */
static int name_columns(journal_t *journal)
{
    int count = CSV_EVAL_COUNT + 1 + 2 * journal->tasks->count;
    char name[TASK_NAME_MAX + 32];

    journal->columns = calloc((size_t)count, sizeof(*journal->columns));
    if (journal->columns == NULL)
        return TD_ENOMEM;
    memcpy(journal->columns, csv_eval_columns, sizeof(csv_eval_columns));
    for (int i = CSV_EVAL_COUNT; i < count; i++) {
        int at = i - CSV_EVAL_COUNT - 1;

        if (at < 0)
            snprintf(name, sizeof(name), "normalized_score");
        else
            snprintf(name, sizeof(name), "episode_%s+%s", at % 2 == 0 ? "reward" : "success",
                     journal->tasks->task[at / 2].name);
        if ((journal->columns[i] = strdup(name)) == NULL)
            return TD_ENOMEM;
    }
    journal->eval.columns = journal->columns;
    journal->eval.count = count;
    return TD_OK;
}

static void free_columns(journal_t *journal)
{
    for (int i = CSV_EVAL_COUNT; journal->columns != NULL && i < CSV_EVAL_COUNT + 1 + 2 * journal->tasks->count; i++)
        free((void *)(uintptr_t)journal->columns[i]);
    free(journal->columns);
}

/* --- TensorBoard ---------------------------------------------------------------- */

static void complain(journal_t *journal, const char *path, const struct error *err)
{
    if (log_allow(&journal->failed, 10000))
        log_error("a line could not be written", "file=%s why=\"%s\" repeats=%u", path, err->text,
                  journal->failed.suppressed_last);
}

static void put_options(journal_t *journal, const struct config *config)
{
    static char values[TENSORBOARD_TAGS_MAX][CONFIG_TEXT_MAX];
    struct tensorboard_hparam hparams[TENSORBOARD_TAGS_MAX];
    int options_count, count = 0;
    const struct config_option *options = config_options(&options_count);
    char *text = NULL;
    size_t length = 0;
    struct error err = {0};
    FILE *out = open_memstream(&text, &length);

    if (out == NULL)
        return;
    for (int i = 0; i < options_count && count < TENSORBOARD_TAGS_MAX; i++) {
        const struct config_option *option = &options[i];
        char *value = values[count];

        if (!config_is_stored(option))
            continue;
        config_format(config, option, value, CONFIG_TEXT_MAX);
        fprintf(out, "    %s: %s\n", option->name, value); /* four blanks: Markdown's verbatim */
        hparams[count++] = (struct tensorboard_hparam){
            .name = option->name,
            .text = option->type == CONFIG_TEXT ? value : NULL,
            .is_bool = option->type == CONFIG_BOOL,
            .number = option->type == CONFIG_BOOL ? value[0] == 't' : strtod(value, NULL),
        };
    }
    if (fclose(out) == 0 && (tensorboard_text(journal->events, 0, "config", text, &err) != TD_OK ||
                             tensorboard_hparams(journal->events, hparams, count, &err) != TD_OK))
        complain(journal, tensorboard_path(journal->events), &err);
    free(text);
}

/* A run without them is a run all the same. */
static void open_events(journal_t *journal, const struct run *run)
{
    struct error err = {0};

    if (!run->config.tensorboard)
        return;
    if (run->config.save_video && run_path(run, "videos", journal->videos, &err) != TD_OK)
        journal->videos[0] = '\0';
    if (tensorboard_open(&journal->events, run->dir, &err) != TD_OK)
        log_warn("no events for TensorBoard", "why=\"%s\"", err.text);
    else
        put_options(journal, &run->config);
}

/* The values of a csv line, but for its step, under category/column. */
static void put_events(journal_t *journal, const char *category, const struct file *file, const double *values)
{
    struct tensorboard_scalar scalars[EVENT_TAGS];
    char tags[EVENT_TAGS][TAG_MAX];
    struct error err = {0};
    int rc = TD_OK;

    for (int from = 1; from < file->count && journal->events != NULL && rc == TD_OK; from += EVENT_TAGS) {
        int count = file->count - from < EVENT_TAGS ? file->count - from : EVENT_TAGS;

        for (int i = 0; i < count; i++) {
            snprintf(tags[i], TAG_MAX, "%s/%s", category, file->columns[from + i]);
            scalars[i] = (struct tensorboard_scalar){tags[i], values[from + i]};
        }
        rc = tensorboard_scalars(journal->events, (uint64_t)values[0], scalars, count, &err);
    }
    if (rc != TD_OK)
        complain(journal, tensorboard_path(journal->events), &err);
}

/* The evaluator of this machine has left the evaluation's GIF before it reported. */
static void put_video(journal_t *journal, uint64_t step)
{
    char name[64], path[FS_PATH_MAX], *bytes;
    struct error err = {0};
    size_t length;
    int width, height;

    if (journal->videos[0] == '\0' || journal->events == NULL)
        return;
    snprintf(name, sizeof(name), "eval-%llu.gif", (unsigned long long)step);
    if (fs_join(path, journal->videos, name, NULL) != TD_OK ||
        fs_read_file(path, GIF_MAX, &bytes, &length, NULL) != TD_OK)
        return;
    if (length >= 10 && memcmp(bytes, "GIF8", 4) == 0) {
        width = (uint8_t)bytes[6] | (uint8_t)bytes[7] << 8;
        height = (uint8_t)bytes[8] | (uint8_t)bytes[9] << 8;
        if (tensorboard_image(journal->events, step, "eval/video", bytes, length, width, height, &err) != TD_OK)
            complain(journal, tensorboard_path(journal->events), &err);
    }
    free(bytes);
}

/* --- life ------------------------------------------------------------------------ */

int journal_open(journal_t **out, const struct run *run, double action_repeat, const struct task_set *tasks,
                 struct error *err)
{
    journal_t *journal = calloc(1, sizeof(*journal));
    int rc;

    *out = NULL;
    if (journal == NULL)
        return error_set(err, TD_ENOMEM, "out of memory");
    journal->action_repeat = action_repeat;
    journal->start_ms = clock_ms();
    journal->train = (struct file){.name = "train.csv", .columns = csv_train_columns,
                                   .count = CSV_TRAIN_COUNT, .time_column = CSV_TRAIN_TIME};
    journal->eval = (struct file){.name = "eval.csv", .columns = csv_eval_columns,
                                  .count = CSV_EVAL_COUNT, .time_column = CSV_EVAL_TIME};
    journal->tasks = tasks != NULL && tasks->multitask ? tasks : NULL;
    if (journal->tasks != NULL && name_columns(journal) != TD_OK) {
        journal_close(&journal);
        return error_set(err, TD_ENOMEM, "out of memory");
    }
    if ((rc = open_file(journal, &journal->train, run, err)) != TD_OK ||
        (rc = open_file(journal, &journal->eval, run, err)) != TD_OK) {
        journal_close(&journal);
        return rc;
    }
    open_events(journal, run);
    *out = journal;
    return TD_OK;
}

void journal_close(journal_t **journal)
{
    if (*journal == NULL)
        return;
    csv_close(&(*journal)->train.csv);
    csv_close(&(*journal)->eval.csv);
    free_columns(*journal);
    tensorboard_close(&(*journal)->events);
    free(*journal);
    *journal = NULL;
}

double journal_seconds(const journal_t *journal)
{
    return journal->seconds_before + (double)(clock_ms() - journal->start_ms) / 1000.0;
}

static void append(journal_t *journal, struct file *file, double *values)
{
    struct error err = {0};

    values[0] = file->step = fmax(values[0], file->step);
    if (file->csv != NULL && csv_append(file->csv, values, &err) != TD_OK)
        complain(journal, file->path, &err);
}

void journal_train(journal_t *journal, const struct command_train_row *row,
                   const struct update_stats *stats, double rate)
{
    double values[CSV_TRAIN_COUNT];

    values[CSV_TRAIN_STEP] = (double)row->step;
    values[CSV_TRAIN_EPISODE] = (double)row->episode;
    values[CSV_TRAIN_REWARD] = row->reward;
    values[CSV_TRAIN_SUCCESS] = row->has_success ? row->success : NAN;
    values[CSV_TRAIN_LENGTH] = (double)row->length;
    values[CSV_TRAIN_TERMINATED] = row->terminated;
    values[CSV_TRAIN_UPDATES] = (double)row->updates;
    values[CSV_TRAIN_TIME] = journal_seconds(journal);
    values[CSV_TRAIN_RATE] = rate;
    csv_train_stats(values, stats);
    append(journal, &journal->train, values);
    if (clock_ms() - journal->events_ms >= EVENTS_EVERY_MS) {
        put_events(journal, "train", &journal->train, values);
        journal->events_ms = clock_ms();
    }
    log_info("train", "step=%llu episode=%llu reward=%.2f length=%llu updates=%llu actor=%u task=%s",
             (unsigned long long)row->step, (unsigned long long)row->episode, row->reward,
             (unsigned long long)row->length, (unsigned long long)row->updates, row->slot,
             journal->tasks != NULL && (int)row->task < journal->tasks->count ? journal->tasks->task[row->task].name : "");
}

double journal_score(const struct task_set *tasks, const struct task_score *scores)
{
    double sum = 0;

    for (int i = 0; i < tasks->count; i++)
        sum += strncmp(tasks->task[i].name, "mw-", 3) == 0 ? 100 * scores[i].success : scores[i].reward / 10;
    return sum / tasks->count;
}

/* A task that was not evaluated leaves its columns empty. */
static void put_scores(const journal_t *journal, const struct command_eval_row *row, double *values)
{
    bool all = row->score_count == (uint32_t)journal->tasks->count;

    *values++ = all ? journal_score(journal->tasks, row->scores) : NAN;
    for (uint32_t i = 0; i < (uint32_t)journal->tasks->count; i++) {
        const struct task_score *score = &row->scores[i];

        *values++ = i < row->score_count ? score->reward : NAN;
        *values++ = i < row->score_count && score->has_success ? score->success : NAN;
        if (i < row->score_count)
            log_info("eval of a task", "step=%llu task=%s reward=%.2f length=%.0f success=%.2f",
                     (unsigned long long)row->step, journal->tasks->task[i].name, score->reward, score->length,
                     score->has_success ? score->success : 0);
    }
}

void journal_eval(journal_t *journal, const struct command_eval_row *row)
{
    double values[CSV_COLUMNS_MAX];

    values[CSV_EVAL_STEP] = (double)row->step;
    values[CSV_EVAL_REWARD] = row->reward;
    values[CSV_EVAL_SUCCESS] = row->has_success ? row->success : NAN;
    values[CSV_EVAL_LENGTH] = row->length;
    values[CSV_EVAL_EPISODES] = row->episodes;
    values[CSV_EVAL_ENV_STEP] = (double)row->step * journal->action_repeat;
    values[CSV_EVAL_UPDATES] = (double)row->version;
    values[CSV_EVAL_TIME] = journal_seconds(journal);
    if (journal->tasks != NULL)
        put_scores(journal, row, values + CSV_EVAL_COUNT);
    append(journal, &journal->eval, values);
    put_events(journal, "eval", &journal->eval, values);
    put_video(journal, row->step);
    log_info("eval", "step=%llu reward=%.2f episodes=%u updates=%llu final=%d",
             (unsigned long long)row->step, row->reward, row->episodes, (unsigned long long)row->version,
             row->final);
}

/* Keep the lines of steps below `below`. */
static int cut_file(struct file *file, uint64_t below, struct error *err)
{
    file->step = 0;
    if (file->csv == NULL || below == UINT64_MAX)
        return TD_OK;
    if (below > 0)
        return csv_cut(file->csv, below - 1, err);
    csv_close(&file->csv);
    if (unlink(file->path) != 0)
        return error_set(err, TD_EIO, "cannot start %s anew", file->path);
    return csv_open(&file->csv, file->path, file->columns, file->count, UINT64_MAX, NULL, err);
}

int journal_rollback(journal_t *journal, const struct command_rollback *rollback, struct error *err)
{
    uint64_t below = rollback->train_below > rollback->eval_below ? rollback->train_below : rollback->eval_below;
    struct error why = {0};
    int rc = cut_file(&journal->train, rollback->train_below, err);

    /* What lies between the two comes again with the same values. */
    if (below != UINT64_MAX && tensorboard_purge(journal->events, below, &why) != TD_OK)
        complain(journal, tensorboard_path(journal->events), &why);

    return rc != TD_OK ? rc : cut_file(&journal->eval, rollback->eval_below, err);
}

void journal_sync(journal_t *journal)
{
    struct error err = {0};

    if ((journal->train.csv != NULL && csv_sync(journal->train.csv, &err) != TD_OK) ||
        (journal->eval.csv != NULL && csv_sync(journal->eval.csv, &err) != TD_OK))
        log_error("the csv files could not be synced", "why=\"%s\"", err.text);
}
