/* part.c - `tdmpc2 part`: what launch does on a host, over ssh or here. */
#include "tools/part.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/net/keys.h"
#include "common/net/process.h"
#include "common/net/rundir.h"
#include "common/util/clock.h"
#include "tools/commands.h"
#include "tools/options.h"
#include "tools/part_keep.h"
#include "tools/stats.h"
#include "tools/supervisor.h"

#define PARTS_MAX       4200
#define LOOK_MS         20u
#define NOTED_MS 10000 /* for keepers to note their parts */
#define INPUT_LIMIT     (1u << 22)
#define LEARNER_STOP_MS 600000u /* a large checkpoint */
#define ACTOR_STOP_MS   15000u  /* it hands over rows for ten seconds at most */

static void usage(FILE *out)
{
    fprintf(out, "usage: tdmpc2 part start DIR PROGRAM NAME[,NAME...] [key=value ...]\n"
                 "       tdmpc2 part keep DIR PROGRAM NAME [key=value ...]\n"
                 "       tdmpc2 part status DIR\n"
                 "       tdmpc2 part stop DIR SECONDS all|NAME...\n"
                 "       tdmpc2 part learner DIR SECONDS\n"
                 "       tdmpc2 part joined DIR ACTORS SECONDS\n"
                 "       tdmpc2 part ask DIR\n"
                 "       tdmpc2 part keys|record DIR <FILE\n\n"
                 "What `tdmpc2 launch` does on each host, in the run directory DIR there. start: each part (learner, actor-N,\n"
                 "replay-N) gets a keeper that starts it again when it dies; in values %%d is DIR, %%n the part's number, %%%% a\n"
                 "%%. keep: be that keeper. learner: its record, once it is there. joined: wait until it hears so many actors.\n"
                 "ask: what it counts, as JSON. keys, record: put what is read where parts look for it.\n");
}

/* --- starting ------------------------------------------------------------- */

/* %d, %n, %%. */
static char *fill_word(const char *word, const char *dir, int number)
{
    size_t size = strlen(word) + 1;
    char *out, *to;

    for (const char *at = word; (at = strstr(at, "%")) != NULL; at++)
        size += strlen(dir) + 12;
    out = to = malloc(size);
    for (; out != NULL && *word != '\0'; word++) {
        if (*word == '%' && word[1] != '\0') {
            word++;
            to += *word == 'd' ? sprintf(to, "%s", dir) : *word == 'n' ? sprintf(to, "%d", number) : sprintf(to, "%c", *word);
        } else {
            *to++ = *word;
        }
    }
    if (out != NULL)
        *to = '\0';
    return out;
}

/* `ready` -1: be its keeper; *code is its end. Else that is closed once the part is noted. */
static int start_one(const char *dir, const char *program, const char *name, int count, char **words, int ready, int *code,
                     struct error *err)
{
    struct part_order order = {.dir = dir, .program = program, .ready = ready};
    const char *dash = strchr(name, '-');
    struct part_note note;
    char **filled;
    int rc = TD_OK;

    if (!part_name_valid(name))
        return error_set(err, TD_EINVAL, "'%.40s' is no part: learner, actor-N or replay-N", name);
    if (part_note_read(dir, name, &note, err) == TD_OK && part_alive(&note)) {
        printf("running %s\n", name);
        return TD_OK;
    }
    snprintf(order.name, sizeof(order.name), "%s", name);
    order.number = dash != NULL ? atoi(dash + 1) : 0;
    order.patience_ms = dash != NULL ? ACTOR_STOP_MS : LEARNER_STOP_MS;
    filled = calloc((size_t)count + 1, sizeof(*filled));
    for (int i = 0; filled != NULL && i < count && rc == TD_OK; i++)
        if ((filled[i] = fill_word(words[i], dir, order.number)) == NULL)
            rc = TD_ENOMEM;
    if (filled == NULL || rc != TD_OK)
        return error_set(err, TD_ENOMEM, "out of memory");
    order.words = (const char *const *)filled;
    if (ready < 0)
        *code = part_run(&order);
    else if ((rc = part_keep(&order, err)) == TD_OK)
        printf("started %s\n", name);
    options_words_free(filled);
    return rc;
}

static int make_dir(const char *dir, char out[FS_PATH_MAX], struct error *err)
{
    char run[FS_PATH_MAX];
    int rc;

    if ((rc = fs_join(run, dir, "run", err)) != TD_OK || (rc = fs_mkdirs(run, 0755, err)) != TD_OK)
        return rc;
    if (realpath(dir, out) == NULL)
        return error_set_errno(err, TD_EIO, errno, "run directory %s", dir);
    return TD_OK;
}

/* Until every keeper holding the other end has closed it: who looks next reads its note, not that of an earlier part. */
static void await_notes(int ready)
{
    struct pollfd look = {.fd = ready, .events = POLLIN};
    uint64_t end = clock_ms() + NOTED_MS;
    int events = 0;

    while (events == 0 || (events < 0 && errno == EINTR)) {
        uint64_t now = clock_ms();

        if (now >= end)
            return;
        events = poll(&look, 1, (int)(end - now));
    }
}

static int start(const char *dir, int argc, char **argv, bool here, int *code, struct error *err)
{
    int ready[2] = {-1, -1}, rc = TD_OK;
    char *name, *rest = NULL;

    if (argc < 2)
        return error_set(err, TD_EINVAL, "start takes a program and names of parts");
    if (!here && pipe2(ready, O_CLOEXEC) != 0)
        return error_set_errno(err, TD_EIO, errno, "cannot make a pipe");
    for (name = strtok_r(argv[1], ",", &rest); name != NULL && rc == TD_OK; name = strtok_r(NULL, ",", &rest))
        rc = start_one(dir, argv[0], name, argc - 2, argv + 2, ready[1], code, err);
    if (!here) {
        close(ready[1]);
        await_notes(ready[0]);
        close(ready[0]);
    }
    return rc;
}

/* --- looking ------------------------------------------------------------- */

static int compare_notes(const void *a, const void *b)
{
    const struct part_note *x = a, *y = b;

    return strverscmp(x->name, y->name);
}

/* The parts noted in DIR by this machine. malloc'd. */
static int read_notes(const char *dir, struct part_note **out, int *count, struct error *err)
{
    struct part_note *notes = calloc(PARTS_MAX, sizeof(*notes));
    char folder[FS_PATH_MAX], name[PART_NAME_MAX];
    struct dirent *entry;
    DIR *files;
    int rc = fs_join(folder, dir, "run", err);

    *count = 0;
    *out = notes;
    if (notes == NULL)
        return error_set(err, TD_ENOMEM, "out of memory");
    files = rc == TD_OK ? opendir(folder) : NULL;
    while (files != NULL && *count < PARTS_MAX && (entry = readdir(files)) != NULL) {
        size_t length = strlen(entry->d_name);

        if (length < 5 || length - 4 >= sizeof(name) || strcmp(entry->d_name + length - 4, ".pid") != 0)
            continue;
        memcpy(name, entry->d_name, length - 4);
        name[length - 4] = '\0';
        if (part_name_valid(name) && part_note_read(dir, name, &notes[*count], NULL) == TD_OK &&
            strcmp(notes[*count].host, rundir_here()) == 0)
            (*count)++;
    }
    if (files != NULL)
        closedir(files);
    qsort(notes, (size_t)*count, sizeof(*notes), compare_notes);
    return rc;
}

/* Keeper or part: a keeper that was killed leaves its part for a moment. */
static bool there(const struct part_note *note)
{
    return part_alive(note) || (note->child > 1 && note->child_start != 0 && part_start_time(note->child) == note->child_start);
}

static int status(const char *dir, struct error *err)
{
    struct part_note *notes;
    int count, rc = read_notes(dir, &notes, &count, err);

    for (int i = 0; rc == TD_OK && i < count; i++) {
        if (notes[i].code < 0 && !there(&notes[i]))
            notes[i].code = 255; /* nobody noted its end */
        part_note_print(&notes[i], stdout);
    }
    free(notes);
    return rc;
}

/* --- stopping ------------------------------------------------------------ */

static void signal_note(const struct part_note *note, int signum)
{
    if (part_alive(note))
        kill(note->keeper, signum);
    if ((signum == SIGKILL || !part_alive(note)) && note->child > 1 && note->child_start != 0 &&
        part_start_time(note->child) == note->child_start)
        kill(note->child, signum);
}

static bool is_named(const char *name, int argc, char **argv)
{
    for (int i = 0; i < argc; i++)
        if (strcmp(argv[i], "all") == 0 || strcmp(argv[i], name) == 0)
            return true;
    return false;
}

static int count_there(const struct part_note *notes, int count)
{
    int left = 0;

    for (int i = 0; i < count; i++)
        left += there(&notes[i]);
    return left;
}

static int stop(const char *dir, int argc, char **argv, struct error *err)
{
    struct part_note *notes;
    uint64_t end;
    int all, count = 0, left, rc;

    if (argc < 2)
        return error_set(err, TD_EINVAL, "stop takes the seconds to wait and names of parts");
    if ((rc = read_notes(dir, &notes, &all, err)) != TD_OK)
        return rc;
    for (int i = 0; i < all; i++)
        if (is_named(notes[i].name, argc - 1, argv + 1) && there(&notes[i]))
            notes[count++] = notes[i];
    end = clock_ms() + (uint64_t)(atof(argv[0]) * 1000);
    for (int i = 0; i < count; i++)
        signal_note(&notes[i], SIGTERM);
    while ((left = count_there(notes, count)) > 0 && clock_ms() < end)
        clock_sleep_ms(LOOK_MS);
    for (int i = 0; i < count; i++)
        if (there(&notes[i])) {
            printf("killed %s\n", notes[i].name);
            signal_note(&notes[i], SIGKILL);
        }
    for (int i = 0; i < count; i++)
        printf("stopped %s\n", notes[i].name);
    free(notes);
    return TD_OK;
}

/* --- the learner's address --------------------------------------------------- */

static int say_why(const char *dir, int code, struct error *err)
{
    char path[FS_PATH_MAX], tail[4096] = "", why[512];

    if (fs_join(path, dir, "learner.log", NULL) == TD_OK)
        process_log_tail(path, 12, tail, sizeof(tail));
    supervisor_reason(tail, why, sizeof(why));
    return error_set(err, code == TD_EXIT_BAD_INPUT ? TD_EINVAL : TD_EIO, "the learner ended with exit code %d: %s", code,
                     why[0] != '\0' ? why : "its log says no more");
}

/* Its record once it is that of the process its keeper started; on an end before, the reason from its log. */
static int learner(const char *dir, const char *seconds, struct error *err)
{
    uint64_t end = clock_ms() + (uint64_t)(atof(seconds) * 1000);
    char path[FS_PATH_MAX], *text;
    struct rundir_part part;
    struct part_note note;
    size_t length;
    int rc;

    if ((rc = fs_join(path, dir, "run/learner-0.addr", err)) != TD_OK)
        return rc;
    for (; clock_ms() < end; clock_sleep_ms(LOOK_MS)) {
        if (part_note_read(dir, "learner", &note, NULL) != TD_OK)
            continue;
        if (note.code >= 0 && note.code != TD_EXIT_OK)
            return say_why(dir, note.code, err);
        if (note.code == TD_EXIT_OK) {
            printf("complete\n");
            return TD_OK;
        }
        if (rundir_find(dir, "learner", 0, &part, NULL) == TD_OK && part.pid == note.child &&
            fs_read_file(path, 4096, &text, &length, NULL) == TD_OK) {
            fputs(text, stdout);
            free(text);
            return TD_OK;
        }
    }
    return error_set(err, TD_ETIMEOUT, "the learner has not said where it listens within %s s; see its log, %.200s/learner.log",
                     seconds, dir);
}

/* --- what the learner counts ------------------------------------------------- */

/* Its snapshot, or NULL; the caller's. */
static cJSON *ask_learner(const char *dir)
{
    struct stats_run *run = calloc(1, sizeof(*run));
    struct rundir_part part;
    cJSON *json = NULL;

    if (run != NULL && rundir_find(dir, "learner", 0, &part, NULL) == TD_OK && part.stats[0] != '\0' &&
        stats_find(run, part.stats, NULL) == TD_OK && stats_ask(run, false, "", 2000, NULL) > 0) {
        json = run->parts[0].json;
        run->parts[0].json = NULL;
    }
    if (run != NULL)
        stats_forget(run);
    free(run);
    return json;
}

static int ask(const char *dir, struct error *err)
{
    cJSON *json = ask_learner(dir);
    char *text = json != NULL ? cJSON_PrintUnformatted(json) : NULL;

    cJSON_Delete(json);
    if (text == NULL)
        return error_set(err, TD_ETIMEOUT, "the learner does not answer");
    puts(text);
    free(text);
    return TD_OK;
}

/* Wait until so many actors are heard of; how many there are at last is printed. */
static int joined(const char *dir, const char *wanted, const char *seconds)
{
    uint64_t end = clock_ms() + (uint64_t)(atof(seconds) * 1000);
    double live = 0;

    do {
        cJSON *json = ask_learner(dir);
        const cJSON *metrics = cJSON_GetObjectItemCaseSensitive(json, "metrics");
        const cJSON *count = cJSON_GetObjectItemCaseSensitive(metrics, "actors_live");

        live = cJSON_IsNumber(count) ? count->valuedouble : 0;
        cJSON_Delete(json);
        if (live < atof(wanted))
            clock_sleep_ms(100);
    } while (live < atof(wanted) && clock_ms() < end);
    printf("%.0f\n", live);
    return TD_OK;
}

/* --- files put here ----------------------------------------------------------- */

static int read_input(char **out, size_t *length, struct error *err)
{
    char *bytes = malloc(INPUT_LIMIT + 1);

    if (bytes == NULL)
        return error_set(err, TD_ENOMEM, "out of memory");
    *length = fread(bytes, 1, INPUT_LIMIT + 1, stdin);
    if (*length > INPUT_LIMIT || ferror(stdin)) {
        free(bytes);
        return error_set(err, TD_EINVAL, "standard input is too long or cannot be read");
    }
    bytes[*length] = '\0';
    *out = bytes;
    return TD_OK;
}

static bool is_key_file(const char *name)
{
    char part[IDENTITY_NAME_MAX];
    struct identity who;
    size_t length = strlen(name);

    if (strcmp(name, "allowed") == 0)
        return true;
    if (length < 5 || length - 4 >= sizeof(part) || strcmp(name + length - 4, ".key") != 0)
        return false;
    memcpy(part, name, length - 4);
    part[length - 4] = '\0';
    return identity_parse(&who, part);
}

/* "NAME BYTES\n" and the bytes, file after file: into DIR/keys, 0600. */
static int put_keys(const char *dir, char *bytes, size_t length, struct error *err)
{
    char folder[FS_PATH_MAX], path[FS_PATH_MAX], name[64];
    size_t at = 0, size;
    int used, rc;

    umask(077);
    if ((rc = fs_join(folder, dir, "keys", err)) != TD_OK || (rc = fs_mkdirs(folder, 0700, err)) != TD_OK)
        return rc;
    while (rc == TD_OK && at < length) {
        if (sscanf(bytes + at, "%63s %zu%n", name, &size, &used) != 2 || bytes[at + (size_t)used] != '\n' ||
            size > length - at - (size_t)used - 1 || !is_key_file(name))
            return error_set(err, TD_EINVAL, "standard input does not hold keys as launch sends them");
        at += (size_t)used + 1;
        if ((rc = fs_join(path, folder, name, err)) == TD_OK)
            rc = fs_write_file(path, bytes + at, size, err);
        at += size;
    }
    return rc;
}

static int put_record(const char *dir, const char *text, size_t length, struct error *err)
{
    struct rundir_part part;
    char path[FS_PATH_MAX];
    int rc = fs_join(path, dir, "run/learner-0.addr", err);

    if (rc == TD_OK && !rundir_parse(text, &part))
        rc = error_set(err, TD_EINVAL, "standard input is not a learner's record");
    return rc == TD_OK ? fs_write_file(path, text, length, err) : rc;
}

static int put(const char *dir, bool keys, struct error *err)
{
    char *bytes = NULL;
    size_t length = 0;
    int rc = read_input(&bytes, &length, err);

    if (rc == TD_OK)
        rc = keys ? put_keys(dir, bytes, length, err) : put_record(dir, bytes, length, err);
    if (bytes != NULL)
        explicit_bzero(bytes, length);
    free(bytes);
    return rc;
}

/* --- the command ---------------------------------------------------------------- */

static int carry_out(int argc, char **argv, int *code, struct error *err)
{
    const char *verb = argv[1];
    char dir[FS_PATH_MAX];
    bool starts = strcmp(verb, "start") == 0 || strcmp(verb, "keep") == 0, makes = starts || strcmp(verb, "keys") == 0 || strcmp(verb, "record") == 0;
    int rc = TD_OK;

    if (makes)
        rc = make_dir(argv[2], dir, err);
    else
        snprintf(dir, sizeof(dir), "%s", argv[2]);
    if (rc != TD_OK)
        return rc;
    if (starts)
        return start(dir, argc - 3, argv + 3, verb[0] == 'k', code, err);
    if (makes)
        return put(dir, strcmp(verb, "keys") == 0, err);
    if (strcmp(verb, "status") == 0)
        return status(dir, err);
    if (strcmp(verb, "stop") == 0)
        return stop(dir, argc - 3, argv + 3, err);
    if (strcmp(verb, "ask") == 0)
        return ask(dir, err);
    if (strcmp(verb, "joined") == 0 && argc == 5)
        return joined(dir, argv[3], argv[4]);
    if (strcmp(verb, "learner") == 0 && argc == 4)
        return learner(dir, argv[3], err);
    return error_set(err, TD_EINVAL, "'%.40s' is not what it does: `tdmpc2 part --help`", verb);
}

int cmd_part(int argc, char **argv)
{
    struct error err = {0};
    int code = TD_EXIT_OK;

    if (options_help(argc, argv) || argc < 3) {
        usage(argc < 3 && !options_help(argc, argv) ? stderr : stdout);
        return argc < 3 && !options_help(argc, argv) ? TD_EXIT_BAD_INPUT : TD_EXIT_OK;
    }
    if (carry_out(argc, argv, &code, &err) == TD_OK)
        return code;
    fprintf(stderr, "tdmpc2 part: %s\n", err.text);
    return error_exit_code(err.code);
}
