#include "learner/csv.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/util/fs.h"

#define FILE_LIMIT ((size_t)1 << 30)
#define LINE_MAX_BYTES (CSV_COLUMNS_MAX * 26)

struct csv {
    char path[FS_PATH_MAX];
    int fd;
    int columns;
};

const char *const csv_eval_columns[CSV_EVAL_COUNT] = {
    "step", "episode_reward", "episode_success", "episode_length", "episodes", "env_step", "updates", "elapsed_time",
};
const char *const csv_train_columns[CSV_TRAIN_COUNT] = {
    "step", "episode", "episode_reward", "episode_success", "episode_length", "episode_terminated", "updates",
    "elapsed_time", "steps_per_second",
#define UPDATE_STAT(name) #name,
    UPDATE_STATS(UPDATE_STAT)
#undef UPDATE_STAT
};

void csv_train_stats(double values[CSV_TRAIN_COUNT], const struct update_stats *stats)
{
    double *next = values + CSV_TRAIN_STATS;

#define UPDATE_STAT(name) *next++ = stats != NULL ? (double)stats->name : NAN;
    UPDATE_STATS(UPDATE_STAT)
#undef UPDATE_STAT
}

/* --- lines --- */

/* As short as it reads back exactly; NaN is nothing. Returns the length. */
static int format_value(char *out, double value)
{
    static const int digits[] = {6, 9, 15, 16, 17};
    char text[32] = "";
    int length = 0;

    if (isnan(value))
        return 0;
    for (size_t i = 0; i < TD_LEN(digits); i++) {
        length = snprintf(text, sizeof(text), "%.*g", digits[i], value);
        if (strtod(text, NULL) == value)
            break;
    }
    memcpy(out, text, (size_t)length);
    return length;
}

static int format_line(char *out, const double *values, int count)
{
    int used = 0;

    for (int i = 0; i < count; i++) {
        if (i == 0)
            used += snprintf(out, 26, "%.0f", values[0]);
        else
            used += format_value(out + used, values[i]);
        out[used++] = i + 1 < count ? ',' : '\n';
    }
    return used;
}

bool csv_parse_line(const char *line, const char *end, double *values, int count)
{
    char field[64];

    for (int i = 0; i < count; i++) {
        const char *comma = memchr(line, ',', (size_t)(end - line));
        const char *stop = comma != NULL ? comma : end;
        char *rest;

        if ((comma == NULL) != (i + 1 == count) || (size_t)(stop - line) >= sizeof(field))
            return false;
        memcpy(field, line, (size_t)(stop - line));
        field[stop - line] = '\0';
        values[i] = field[0] == '\0' ? NAN : strtod(field, &rest);
        if (field[0] != '\0' && (*rest != '\0' || field[0] == ' '))
            return false;
        line = stop + 1;
    }
    return values[0] >= 0 && values[0] < 1e15 && values[0] == floor(values[0]);
}

/* --- opening --- */

static char *make_header(const char *const *columns, int count)
{
    size_t length = 1;
    char *header;

    for (int i = 0; i < count; i++)
        length += strlen(columns[i]) + 1;
    header = calloc(1, length);
    for (int i = 0; i < count && header != NULL; i++) {
        strcat(header, columns[i]);
        strcat(header, i + 1 < count ? "," : "\n");
    }
    return header;
}

struct kept {
    char *text; /* the header and the good lines */
    size_t length;
    int later, damaged;
    bool torn;  /* the last line had no end */
};

/* Go through text line by line, moving the lines that stay to its front. */
static void keep_lines(struct kept *kept, char *text, size_t length, int columns, uint64_t last_step)
{
    char *at = memchr(text, '\n', length), *end = text + length;
    double values[CSV_COLUMNS_MAX];

    at++;
    kept->text = text;
    kept->length = (size_t)(at - text);
    while (at < end) {
        char *stop = memchr(at, '\n', (size_t)(end - at));
        size_t bytes;

        if (stop == NULL) {
            kept->torn = true;
            return;
        }
        bytes = (size_t)(stop + 1 - at);
        if (!csv_parse_line(at, stop, values, columns)) {
            kept->damaged++;
        } else if (values[0] > (double)last_step) {
            kept->later++;
        } else {
            memmove(text + kept->length, at, bytes);
            kept->length += bytes;
        }
        at = stop + 1;
    }
}

/* Keep a file of which not all will be left under another name. */
static int set_aside(const char *path, const char *suffix, const char *text, size_t length, struct error *err)
{
    char aside[FS_PATH_MAX];

    if (snprintf(aside, sizeof(aside), "%s.%s", path, suffix) >= (int)sizeof(aside))
        return error_set(err, TD_EINVAL, "path longer than %d bytes: %.60s...", FS_PATH_MAX - 9, path);
    return fs_write_file(aside, text, length, err);
}

/* One field of a line, up to the next comma. */
struct field {
    const char *at;
    size_t length;
};

/* At most CSV_COLUMNS_MAX of them; fewer than there are: 0. */
static int split(const char *line, const char *end, struct field *fields)
{
    for (int count = 0; count < CSV_COLUMNS_MAX; count++) {
        const char *comma = memchr(line, ',', (size_t)(end - line)), *stop = comma != NULL ? comma : end;

        fields[count] = (struct field){line, (size_t)(stop - line)};
        if (comma == NULL)
            return count + 1;
        line = stop + 1;
    }
    return 0;
}

static bool same_field(const struct field *a, const struct field *b)
{
    return a->length == b->length && memcmp(a->at, b->at, a->length) == 0;
}

/* Where each of our columns stands in a file of these others, -1: nowhere. How many of ours are there; 0: it is no such file. */
static int match_columns(const struct field *ours, int columns, const struct field *its, int count, int *place)
{
    int found = 0;

    for (int i = 0; i < columns; i++) {
        place[i] = -1;
        for (int j = 0; j < count && place[i] < 0; j++)
            if (same_field(&ours[i], &its[j]))
                place[i] = j;
        found += place[i] >= 0;
    }
    return place[0] == 0 ? found : 0; /* the first is the step in every file of this kind */
}

/*
 * A file as an earlier version began it, in columns of today: what it has of them is kept by name, the others are
 * empty. Lines that do not fit its own header come as they are. NULL: it is another kind of file, or no memory (rc).
 */
static char *translate(const char *text, size_t length, const char *header, int columns, size_t *new_length, int *rc)
{
    struct field ours[CSV_COLUMNS_MAX], its[CSV_COLUMNS_MAX], value[CSV_COLUMNS_MAX];
    const char *end = text + length, *stop = memchr(text, '\n', length), *line;
    int place[CSV_COLUMNS_MAX], count = stop == NULL ? 0 : split(text, stop, its);
    char *out = NULL;
    FILE *file;

    *rc = TD_EFOREIGN;
    split(header, header + strlen(header) - 1, ours);
    if (count == 0 || match_columns(ours, columns, its, count, place) == 0)
        return NULL;
    *rc = TD_ENOMEM;
    if ((file = open_memstream(&out, new_length)) == NULL)
        return NULL;
    fputs(header, file);
    for (line = stop + 1; line < end; line = stop + 1) {
        if ((stop = memchr(line, '\n', (size_t)(end - line))) == NULL)
            break; /* torn */
        if (split(line, stop, value) != count) {
            fwrite(line, 1, (size_t)(stop + 1 - line), file);
            continue;
        }
        for (int i = 0; i < columns; i++)
            fprintf(file, "%.*s%c", place[i] < 0 ? 0 : (int)value[place[i]].length, place[i] < 0 ? "" : value[place[i]].at,
                    i + 1 < columns ? ',' : '\n');
    }
    if (fclose(file) == 0)
        return out;
    free(out);
    return NULL;
}

/* *text in our columns; the file as it was stays beside it. */
static int take_over(const char *path, char **text, size_t *length, const char *header, int columns, struct csv_cut *cut,
                     struct error *err)
{
    int rc;
    size_t new_length = 0;
    char *translated = translate(*text, *length, header, columns, &new_length, &rc);

    if (translated == NULL && rc == TD_EFOREIGN)
        return error_set(err, rc, "%s has other columns: move it away or choose another exp_name", path);
    if (translated == NULL)
        return error_set(err, rc, "out of memory reading %s", path);
    if ((rc = set_aside(path, "old", *text, *length, err)) != TD_OK ||
        (rc = fs_write_file(path, translated, new_length, err)) != TD_OK) {
        free(translated);
        return rc;
    }
    free(*text);
    *text = translated;
    *length = new_length;
    cut->translated = true;
    return TD_OK;
}

/* Bring an existing file into order: this header, whole good lines, none of later steps. */
static int tidy(const char *path, const char *header, int columns, uint64_t last_step, struct csv_cut *cut,
                struct error *err)
{
    struct kept kept = {0};
    char *text, *original;
    size_t length, header_length = strlen(header);
    int rc = fs_read_file(path, FILE_LIMIT, &text, &length, err);

    if (rc == TD_ENOTFOUND || (rc == TD_OK && length < header_length && memcmp(text, header, length) == 0)) {
        if (rc == TD_OK)
            free(text);
        return fs_write_file(path, header, header_length, err);
    }
    if (rc != TD_OK)
        return rc;
    if ((length < header_length || memcmp(text, header, header_length) != 0) &&
        (rc = take_over(path, &text, &length, header, columns, cut, err)) != TD_OK) {
        free(text);
        return rc;
    }
    original = malloc(length);
    if (original == NULL) {
        rc = error_set(err, TD_ENOMEM, "out of memory reading %s", path);
    } else {
        memcpy(original, text, length);
        keep_lines(&kept, text, length, columns, last_step);
        if (kept.damaged > 0)
            rc = set_aside(path, "damaged", original, length, err);
        if (rc == TD_OK && (kept.length < length))
            rc = fs_write_file(path, kept.text, kept.length, err);
        cut->later = kept.later;
        cut->damaged = kept.damaged;
    }
    free(original);
    free(text);
    return rc;
}

static int open_end(csv_t *csv, struct error *err)
{
    csv->fd = open(csv->path, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (csv->fd < 0)
        return error_set_errno(err, TD_EIO, errno, "cannot open %s", csv->path);
    return TD_OK;
}

int csv_open(csv_t **out, const char *path, const char *const *columns, int count, uint64_t last_step,
             struct csv_cut *cut, struct error *err)
{
    struct csv_cut unused;
    csv_t *csv = calloc(1, sizeof(*csv));
    char *header = make_header(columns, count);
    int rc;

    TD_ASSERT(count >= 1 && count <= CSV_COLUMNS_MAX, "%d columns", count);
    *out = NULL;
    if (cut == NULL)
        cut = &unused;
    memset(cut, 0, sizeof(*cut));
    if (csv == NULL || header == NULL) {
        rc = error_set(err, TD_ENOMEM, "out of memory");
        goto fail;
    }
    csv->fd = -1;
    csv->columns = count;
    if (strlen(path) >= sizeof(csv->path)) {
        rc = error_set(err, TD_EINVAL, "path longer than %d bytes: %.60s...", FS_PATH_MAX - 1, path);
        goto fail;
    }
    memcpy(csv->path, path, strlen(path) + 1);
    if ((rc = tidy(path, header, count, last_step, cut, err)) != TD_OK || (rc = open_end(csv, err)) != TD_OK)
        goto fail;
    free(header);
    *out = csv;
    return TD_OK;

fail:
    free(header);
    csv_close(&csv);
    return rc;
}

void csv_close(csv_t **csv)
{
    if (*csv == NULL)
        return;
    if ((*csv)->fd >= 0)
        close((*csv)->fd);
    free(*csv);
    *csv = NULL;
}

/* --- writing --- */

int csv_append(csv_t *csv, const double *values, struct error *err)
{
    char line[LINE_MAX_BYTES];
    int length = format_line(line, values, csv->columns);
    off_t before = lseek(csv->fd, 0, SEEK_END);
    int rc = fs_write_all(csv->fd, line, (size_t)length, csv->path, err);

    /* half a line would spoil the next one */
    if (rc != TD_OK && before >= 0 && ftruncate(csv->fd, before) != 0)
        return error_set_errno(err, TD_EIO, errno, "cannot take back half a line of %s", csv->path);
    return rc;
}

int csv_sync(csv_t *csv, struct error *err)
{
    if (fsync(csv->fd) != 0)
        return error_set_errno(err, TD_EIO, errno, "cannot sync %s", csv->path);
    return TD_OK;
}

int csv_cut(csv_t *csv, uint64_t last_step, struct error *err)
{
    struct kept kept = {0};
    char *text;
    size_t length;
    int rc = fs_read_file(csv->path, FILE_LIMIT, &text, &length, err);

    if (rc != TD_OK)
        return rc;
    if (memchr(text, '\n', length) == NULL) {
        free(text);
        return error_set(err, TD_ECORRUPT, "%s lost its header", csv->path);
    }
    keep_lines(&kept, text, length, csv->columns, last_step);
    if (kept.length < length && (rc = fs_write_file(csv->path, kept.text, kept.length, err)) == TD_OK) {
        close(csv->fd); /* the old file's */
        rc = open_end(csv, err);
    }
    free(text);
    return rc;
}

/* --- reading --- */

/* Cut the header line into names. */
static int split_header(struct csv_data *data, const char *path, struct error *err)
{
    char *at = data->text;

    for (data->columns = 0; at != NULL; data->columns++) {
        if (data->columns == CSV_COLUMNS_MAX)
            return error_set(err, TD_ECORRUPT, "%s has more than %d columns", path, CSV_COLUMNS_MAX);
        data->names[data->columns] = at;
        at = strchr(at, ',');
        if (at != NULL)
            *at++ = '\0';
    }
    return TD_OK;
}

static int parse_rows(struct csv_data *data, const char *at, const char *end, const char *path, struct error *err)
{
    int capacity = 0;

    while (at < end) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));

        if (stop == NULL)
            break;
        if (data->rows == capacity) {
            double *grown;

            capacity = capacity == 0 ? 64 : capacity * 2;
            grown = realloc(data->values, (size_t)capacity * (size_t)data->columns * sizeof(*grown));
            if (grown == NULL)
                return error_set(err, TD_ENOMEM, "out of memory reading %s", path);
            data->values = grown;
        }
        data->rows += csv_parse_line(at, stop, data->values + (size_t)data->rows * (size_t)data->columns, data->columns);
        at = stop + 1;
    }
    return TD_OK;
}

int csv_load(struct csv_data *data, const char *path, struct error *err)
{
    char *newline;
    size_t length;
    int rc;

    memset(data, 0, sizeof(*data));
    if ((rc = fs_read_file(path, FILE_LIMIT, &data->text, &length, err)) != TD_OK)
        return rc;
    newline = memchr(data->text, '\n', length);
    if (newline == NULL) {
        rc = error_set(err, TD_ECORRUPT, "%s has no header line", path);
    } else {
        *newline = '\0';
        rc = split_header(data, path, err);
    }
    if (rc == TD_OK)
        rc = parse_rows(data, newline + 1, data->text + length, path, err);
    if (rc != TD_OK)
        csv_release(data);
    return rc;
}

void csv_release(struct csv_data *data)
{
    free(data->text);
    free(data->values);
    memset(data, 0, sizeof(*data));
}

int csv_column(const struct csv_data *data, const char *name)
{
    for (int i = 0; i < data->columns; i++)
        if (strcmp(data->names[i], name) == 0)
            return i;
    return -1;
}
