/*
 * csv.h - eval.csv and train.csv: a header of columns, then one line of numbers per event.
 *
 * The first column is `step`, whole and never falling. A line is appended by one write; one that could
 * not be written whole is taken back. Lines of later steps are removed by one durable replacement.
 * NaN is an empty field, as pandas writes it.
 *
 * Owns:    the open file.
 * Thread:  one at a time.
 */
#ifndef TD_LEARNER_CSV_H
#define TD_LEARNER_CSV_H

#include <stdbool.h>
#include <stdint.h>

#include "common/util/error.h"
#include "learner/update.h"

#define CSV_COLUMNS_MAX 544 /* two for each of 256 tasks, and more than either file has besides */

/* The columns of the two files; the reference's eval.csv has the first two. */
enum csv_eval_column {
    CSV_EVAL_STEP,
    CSV_EVAL_REWARD,   /* mean return */
    CSV_EVAL_SUCCESS,  /* mean of the last steps' success */
    CSV_EVAL_LENGTH,   /* mean agent steps of an episode */
    CSV_EVAL_EPISODES,
    CSV_EVAL_ENV_STEP, /* environment steps: agent steps times the action repeat */
    CSV_EVAL_UPDATES,  /* of the parameters that were evaluated */
    CSV_EVAL_TIME,     /* seconds since the run began */
    CSV_EVAL_COUNT
};
enum csv_train_column {
    CSV_TRAIN_STEP,
    CSV_TRAIN_EPISODE,
    CSV_TRAIN_REWARD,
    CSV_TRAIN_SUCCESS,
    CSV_TRAIN_LENGTH,
    CSV_TRAIN_TERMINATED,
    CSV_TRAIN_UPDATES,
    CSV_TRAIN_TIME,
    CSV_TRAIN_RATE, /* agent steps per second */
    /* and the statistics of the last update, all that there are */
    CSV_TRAIN_STATS,
#define UPDATE_STAT(name) +1
    CSV_TRAIN_COUNT = CSV_TRAIN_STATS UPDATE_STATS(UPDATE_STAT)
#undef UPDATE_STAT
};
extern const char *const csv_eval_columns[CSV_EVAL_COUNT];
extern const char *const csv_train_columns[CSV_TRAIN_COUNT];

/* Fill the columns from CSV_TRAIN_STATS on; NaN without any (no update yet). */
void csv_train_stats(double values[CSV_TRAIN_COUNT], const struct update_stats *stats);

typedef struct csv csv_t;

/* What opening an existing file removed; zero for a new one. */
struct csv_cut {
    int later;   /* lines of later steps */
    int damaged; /* lines that are not numbers; the file as it was is kept as <path>.damaged */
    bool translated; /* it had the columns of an earlier version; as it was it is kept as <path>.old */
};

/*
 * Open or create a file of these columns, keeping the lines with step <= last_step (UINT64_MAX: all).
 * A torn last line goes. A file whose first column is the same and others are not is taken over column by column, by
 * name: what it has not is empty. cut may be NULL.
 * Returns TD_OK, TD_EFOREIGN (another kind of file), TD_EIO, TD_EFULL, TD_ENOMEM.
 */
int csv_open(csv_t **out, const char *path, const char *const *columns, int count, uint64_t last_step,
             struct csv_cut *cut, struct error *err);
void csv_close(csv_t **csv);

/* Append one line: values[0] is the step. TD_OK, TD_EIO, TD_EFULL; after an error nothing is added. */
int csv_append(csv_t *csv, const double *values, struct error *err);

/* Remove the lines with step > last_step, durably. */
int csv_cut(csv_t *csv, uint64_t last_step, struct error *err);

/* Make what was appended durable: before a checkpoint that counts on it. */
int csv_sync(csv_t *csv, struct error *err);

/* The numbers of one line [line, end), without its newline. False when it is not `count` numbers. */
bool csv_parse_line(const char *line, const char *end, double *values, int count);

/* A file's numbers, for curves: row-major, [rows][columns]. */
struct csv_data {
    char *text;                          /* the header, cut into names */
    const char *names[CSV_COLUMNS_MAX];
    int columns;
    double *values;
    int rows;
};

/* Lines that are not numbers are left out. TD_OK, TD_ENOTFOUND, TD_ECORRUPT, TD_EIO, TD_ENOMEM. */
int csv_load(struct csv_data *data, const char *path, struct error *err);
void csv_release(struct csv_data *data);

/* The column of this name, or -1. */
int csv_column(const struct csv_data *data, const char *name);

#endif
