/* top_files.c - logs and curves of a run directory on this machine, for `tdmpc2 top`. */
#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "learner/csv.h"
#include "tools/top.h"

#define TAIL_BYTES 8192 /* of what a log held at the start */

/* --- logs -------------------------------------------------------------------- */

/* [text, end) without " name=word"; the words before msg= are log.c's own and hold no blanks. */
static void put_without_keys(char *out, size_t size, const char *text, const char *end)
{
    static const char *const keys[] = {"role=", "id=", "host=", "run=", "level=info"};
    size_t used = 0;

    while (text < end && strncmp(text, "msg=", 4) != 0) {
        const char *stop = memchr(text, ' ', (size_t)(end - text));
        bool keep = true;

        stop = stop != NULL ? stop + 1 : end;
        for (size_t i = 0; i < TD_LEN(keys); i++)
            keep = keep && strncmp(text, keys[i], strlen(keys[i])) != 0;
        if (keep)
            used += (size_t)snprintf(out + used, size - used, "%.*s", (int)(stop - text), text);
        if (used >= size)
            return;
        text = stop;
    }
    snprintf(out + used, size - used, "%.*s", (int)(end - text), text);
}

/* The word behind key in [text, end), "" when it is not there before msg=. */
static void word_of(char *out, size_t size, const char *text, const char *end, const char *key)
{
    const char *message = memmem(text, (size_t)(end - text), " msg=", 5), *at;
    const char *limit = message != NULL ? message : end;

    out[0] = '\0';
    at = memmem(text, (size_t)(limit - text), key, strlen(key));
    if (at == NULL)
        return;
    at += strlen(key);
    snprintf(out, size, "%.*s", (int)strcspn(at, " "), at);
}

/* A line of log=json in the same words; false: it is none. */
static bool from_json(char *out, size_t size, const char *text, const char *end)
{
    static const char *const known[] = {"time", "role", "id", "host", "run", "level", "msg"};
    cJSON *json = text < end && *text == '{' ? cJSON_ParseWithLength(text, (size_t)(end - text)) : NULL;
    const char *words[TD_LEN(known)];
    const cJSON *item;
    bool ours;

    for (size_t i = 0; i < TD_LEN(known); i++)
        words[i] = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, known[i]));
    ours = words[0] != NULL && words[1] != NULL && words[5] != NULL && words[6] != NULL;
    if (ours) {
        const cJSON *id = cJSON_GetObjectItemCaseSensitive(json, "id");
        int used = snprintf(out, size, "%s level=%s role=%s", words[0], words[5], words[1]);

        if (cJSON_IsNumber(id) && fabs(id->valuedouble) < 1e6 && used < (int)size)
            used += snprintf(out + used, size - (size_t)used, " id=%d", (int)id->valuedouble);
        if (used < (int)size)
            used += snprintf(out + used, size - (size_t)used, " msg=\"%s\"", words[6]);
        cJSON_ArrayForEach(item, json) {
            bool said = false;

            for (size_t i = 0; i < TD_LEN(known); i++)
                said = said || strcmp(item->string, known[i]) == 0;
            if (!said && used < (int)size && cJSON_IsString(item))
                used += snprintf(out + used, size - (size_t)used, " %s=%s", item->string, item->valuestring);
            else if (!said && used < (int)size && cJSON_IsNumber(item))
                used += snprintf(out + used, size - (size_t)used, " %s=%.15g", item->string, item->valuedouble);
        }
    }
    cJSON_Delete(json);
    return ours;
}

static bool has_stamp(const char *text)
{
    return strlen(text) > 25 && text[4] == '-' && text[7] == '-' && text[10] == 'T' && text[13] == ':' &&
           text[16] == ':' && text[19] == '.' && text[23] == 'Z' && text[24] == ' ';
}

void top_log_add(struct top *top, const char *text, const char *end)
{
    char *line = top->log[(top->log_first + top->log_count) % TOP_LOG_MAX];
    char whole[1024], role[24], id[12], rest[TOP_LOG_WIDTH];

    if (!from_json(whole, sizeof(whole), text, end))
        snprintf(whole, sizeof(whole), "%.*s", (int)(end - text < 1000 ? end - text : 1000), text);
    stats_printable(whole);
    if (whole[0] == '\0')
        return;
    if (has_stamp(whole)) {
        const char *words = whole + 25, *stop = whole + strlen(whole);

        word_of(role, sizeof(role), words - 1, stop, " role=");
        word_of(id, sizeof(id), words - 1, stop, " id=");
        put_without_keys(rest, sizeof(rest), words, stop);
        snprintf(line, TOP_LOG_WIDTH, "%.8s %s%s%s %.340s", whole + 11, role, id[0] != '\0' ? "-" : "", id, rest);
    } else {
        snprintf(line, TOP_LOG_WIDTH, "%.*s", TOP_LOG_WIDTH - 1, whole);
    }
    if (top->log_count < TOP_LOG_MAX)
        top->log_count++;
    else
        top->log_first = (top->log_first + 1) % TOP_LOG_MAX;
}

static void take_log(void *context, const char *text, const char *end)
{
    top_log_add(context, text, end);
}

static bool is_log(const char *name)
{
    size_t length = strlen(name);

    return length > 4 && length < sizeof(((struct top_file *)0)->name) && strcmp(name + length - 4, ".log") == 0;
}

static bool is_followed(const struct top_files *files, const char *name)
{
    for (int i = 0; i < files->count; i++)
        if (strcmp(files->logs[i].name, name) == 0)
            return true;
    return false;
}

/* From near its end on: what happened before anybody looked. A line that is cut there is shown as it is. */
static void follow_log(struct top_files *files, const char *name)
{
    struct top_file *file = &files->logs[files->count];
    char path[FS_PATH_MAX + 80];

    if (snprintf(path, sizeof(path), "%s/%s", files->run_dir, name) >= FS_PATH_MAX)
        return;
    follow_init(&file->follow, path, 0);
    if (file->follow.offset > TAIL_BYTES)
        file->follow.offset -= TAIL_BYTES;
    else
        file->follow.offset = 0;
    snprintf(file->name, sizeof(file->name), "%s", name);
    files->count++;
}

static void find_logs(struct top_files *files)
{
    DIR *folder = opendir(files->run_dir);
    const struct dirent *entry;

    if (folder == NULL)
        return;
    while (files->count < TOP_FILES_MAX && (entry = readdir(folder)) != NULL)
        if (is_log(entry->d_name) && !is_followed(files, entry->d_name))
            follow_log(files, entry->d_name);
    closedir(folder);
}

/* --- curves ------------------------------------------------------------------ */

struct curve {
    struct top_history *history;
    int column;
};

static void take_row(void *context, const double *values)
{
    const struct curve *curve = context;

    top_history_add(curve->history, values[curve->column]);
}

/* The whole file once it is there, then what is appended. */
static void poll_curve(const char *run_dir, const char *name, struct follow *follow, int *column,
                       struct top_history *history)
{
    struct curve curve = {history, *column};
    char path[FS_PATH_MAX + 16];
    struct csv_data data;
    struct error err;

    if (*column >= 0) {
        follow_poll(follow, take_row, &curve);
        return;
    }
    if (snprintf(path, sizeof(path), "%s/%s", run_dir, name) >= FS_PATH_MAX || csv_load(&data, path, &err) != TD_OK)
        return;
    *column = csv_column(&data, "episode_reward");
    if (*column >= 0) {
        follow_init(follow, path, data.columns);
        for (int i = 0; i < data.rows; i++)
            top_history_add(history, data.values[(size_t)i * (size_t)data.columns + (size_t)*column]);
    }
    csv_release(&data);
}

void top_files_init(struct top_files *files, const char *run_dir)
{
    memset(files, 0, sizeof(*files));
    snprintf(files->run_dir, sizeof(files->run_dir), "%s", run_dir);
    files->train_column = files->eval_column = -1;
}

static int by_time(const void *a, const void *b)
{
    return strncmp(a, b, 8); /* the time of day */
}

void top_files_poll(struct top_files *files, struct top *top)
{
    bool first = files->count == 0 && top->log_count == 0;

    find_logs(files);
    for (int i = 0; i < files->count; i++)
        follow_lines(&files->logs[i].follow, take_log, top);
    if (first && top->log_first == 0) /* of several files, one after the other: now by time */
        qsort(top->log, (size_t)top->log_count, sizeof(top->log[0]), by_time);
    top->curves = true;
    poll_curve(files->run_dir, "train.csv", &files->train, &files->train_column, &top->returns);
    poll_curve(files->run_dir, "eval.csv", &files->eval, &files->eval_column, &top->evals);
}
