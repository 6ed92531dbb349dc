/* stats.c - `tdmpc2 stats`: what every part of a run counts and measures, once or refreshed live. */
#include "tools/stats.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/metrics/metrics.h"
#include "common/util/clock.h"
#include "common/wire/message.h"
#include "tools/commands.h"

#define ANSWER_MAX  (4u * METRICS_JSON_MAX)
#define DEADLINE_MS 1000
#define REFRESH_MS  1000

/* --- finding ----------------------------------------------------------------- */

static int find_endpoint(struct stats_run *run, const char *address, struct error *err)
{
    struct rundir_part *part = &run->parts[0].where;
    int rc = address_check(address, true, err);

    if (rc != TD_OK)
        return rc;
    snprintf(part->role, sizeof(part->role), "part");
    snprintf(part->stats, sizeof(part->stats), "%s", address);
    run->count = 1;
    return TD_OK;
}

int stats_find(struct stats_run *run, const char *where, struct error *err)
{
    struct rundir_part parts[STATS_PARTS_MAX];
    int rc;

    memset(run, 0, sizeof(*run));
    if (where[0] == '\0') {
        if ((rc = rundir_newest("logs", run->name, sizeof(run->name), err)) != TD_OK)
            return rc;
    } else {
        snprintf(run->name, sizeof(run->name), "%s", where);
        if (strstr(where, "://") != NULL)
            return find_endpoint(run, where, err);
    }
    if ((rc = rundir_check(run->name, err)) != TD_OK)
        return rc;
    rc = rundir_list(run->name, parts, STATS_PARTS_MAX, &run->count, err);
    for (int i = 0; i < run->count; i++)
        run->parts[i].where = parts[i];
    if (rc == TD_OK && run->count == 0)
        return error_set(err, TD_ENOTFOUND, "nothing runs in %s", run->name);
    return rc;
}

/* --- asking ------------------------------------------------------------------ */

struct question {
    struct stats_part *part;
    channel_t *channel;
    int *waiting;
};

cJSON *stats_read(const char *answer, size_t length)
{
    cJSON *json = cJSON_ParseWithLength(answer, length);

    if (cJSON_IsString(cJSON_GetObjectItemCaseSensitive(json, "role")) &&
        cJSON_IsObject(cJSON_GetObjectItemCaseSensitive(json, "metrics")))
        return json;
    cJSON_Delete(json);
    return NULL;
}

static void on_answer(void *context, uint64_t peer, const struct channel_frame *frames, int count)
{
    struct question *question = context;

    (void)peer;
    (void)count;
    if (question->part->json != NULL)
        return;
    question->part->json = stats_read(frames[0].bytes, frames[0].length);
    if (question->part->json != NULL)
        (*question->waiting)--;
}

static int ask_one(struct question *question, loop_t *loop, bool insecure, guard_t *guard, struct error *err)
{
    struct channel_options options = {
        .name = "stats",
        .pattern = CHANNEL_REQ,
        .max_message = ANSWER_MAX,
        .insecure = insecure,
        .guard = guard,
        .server = {.role = ROLE_LEARNER},
        .on_message = on_answer,
        .context = question,
    };
    struct channel_part part = {.bytes = "?", .length = 1};
    int rc = channel_open(&question->channel, loop, &options, err);

    if (rc == TD_OK)
        rc = channel_connect(question->channel, question->part->where.stats, err);
    if (rc == TD_OK)
        channel_send(question->channel, 0, &part, 1);
    return rc;
}

int stats_ask(struct stats_run *run, bool insecure, const char *keys, int deadline_ms, struct error *err)
{
    const struct identity viewer = {.role = ROLE_TOOL};
    struct question *questions = calloc((size_t)run->count, sizeof(*questions));
    uint64_t start = clock_ms(), now;
    int waiting = run->count, rc = TD_OK;
    loop_t *loop = NULL;
    guard_t *guard = NULL;

    if (questions == NULL)
        return error_set(err, TD_ENOMEM, "out of memory");
    rc = loop_create(&loop, err);
    if (rc == TD_OK && keys[0] != '\0')
        rc = guard_open(&guard, loop, keys, &viewer, err);
    for (int i = 0; rc == TD_OK && i < run->count; i++) {
        questions[i] = (struct question){.part = &run->parts[i], .waiting = &waiting};
        rc = ask_one(&questions[i], loop, insecure, guard, err);
        if (rc == TD_EINVAL && run->count > 1) { /* one strange address among many */
            waiting--;
            rc = TD_OK;
        }
    }
    while (rc == TD_OK && waiting > 0 && (now = clock_ms()) < start + (uint64_t)deadline_ms)
        loop_run_for(loop, start + (uint64_t)deadline_ms - now);
    for (int i = 0; i < run->count; i++)
        channel_close(&questions[i].channel);
    guard_close(&guard);
    loop_destroy(&loop);
    free(questions);
    if (rc != TD_OK)
        return rc;
    for (int i = 0; i < run->count; i++)
        rc += run->parts[i].json != NULL;
    return rc;
}

void stats_forget(struct stats_run *run)
{
    for (int i = 0; i < run->count; i++) {
        cJSON_Delete(run->parts[i].json);
        run->parts[i].json = NULL;
    }
}

int stats_print_json(const struct stats_run *run, FILE *out)
{
    cJSON *json = cJSON_CreateObject(), *parts = cJSON_AddArrayToObject(json, "parts");
    char *text = NULL;

    cJSON_AddStringToObject(json, "run", run->name);
    cJSON_AddNumberToObject(json, "time_ms", (double)clock_wall_ms());
    for (int i = 0; i < run->count; i++) {
        const struct stats_part *part = &run->parts[i];
        cJSON *item = part->json != NULL ? cJSON_Duplicate(part->json, 1) : cJSON_CreateObject();

        if (part->json == NULL) {
            cJSON_AddStringToObject(item, "role", part->where.role);
            cJSON_AddNumberToObject(item, "id", part->where.id);
            cJSON_AddNumberToObject(item, "pid", part->where.pid);
        }
        cJSON_AddStringToObject(item, "address", part->where.stats);
        cJSON_AddBoolToObject(item, "reachable", part->json != NULL);
        cJSON_AddItemToArray(parts, item);
    }
    text = cJSON_PrintUnformatted(json);
    if (text != NULL)
        fprintf(out, "%s\n", text);
    cJSON_Delete(json);
    free(text);
    return text != NULL ? TD_OK : TD_ENOMEM;
}

/* --- the command -------------------------------------------------------------- */

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signum)
{
    (void)signum;
    interrupted = 1;
}

static int terminal_width(void)
{
    struct winsize size;

    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= 40)
        return size.ws_col;
    return isatty(STDOUT_FILENO) ? 80 : 1000;
}

static int complain(const struct error *err)
{
    fprintf(stderr, "tdmpc2 stats: %s\n", err->text);
    return error_exit_code(err->code);
}

static int show_once(const char *where, bool insecure, const char *keys, bool json, bool clear)
{
    struct stats_run *run = calloc(1, sizeof(*run));
    struct error err = {0};
    int rc, answered = 0;

    if (run == NULL) {
        fprintf(stderr, "tdmpc2 stats: out of memory\n");
        return TD_EXIT_GAVE_UP;
    }
    rc = stats_find(run, where, &err);
    if (rc == TD_OK && (answered = stats_ask(run, insecure, keys, DEADLINE_MS, &err)) < 0)
        rc = answered;
    if (rc != TD_OK) {
        free(run);
        return complain(&err);
    }
    if (clear)
        fputs("\033[H\033[J", stdout);
    if (json)
        rc = stats_print_json(run, stdout);
    else
        stats_print_table(run, terminal_width(), stdout);
    fflush(stdout);
    if (answered == 0)
        fprintf(stderr, "tdmpc2 stats: no part of %s answers\n", run->name);
    stats_forget(run);
    free(run);
    return rc == TD_OK && answered > 0 ? TD_EXIT_OK : TD_EXIT_GAVE_UP;
}

static void show_live(const char *where, bool insecure, const char *keys)
{
    signal(SIGINT, on_interrupt);
    signal(SIGTERM, on_interrupt);
    while (!interrupted) {
        uint64_t start = clock_ms();

        show_once(where, insecure, keys, false, true);
        for (uint64_t now = start; !interrupted && now < start + REFRESH_MS; now = clock_ms())
            usleep(20000);
    }
}

static void usage(FILE *out)
{
    fputs("usage: tdmpc2 stats [RUN_DIR|ADDRESS] [--json] [keys=DIR|insecure=true]\n\n"
          "Shows what every part of a run counts and measures: a table, refreshed until Ctrl-C on a\n"
          "terminal; with --json one JSON object, once. Without RUN_DIR: the newest run under logs/.\n"
          "An ADDRESS (ipc:///..., tcp://HOST:PORT) asks that part alone. keys=DIR: over tcp with the\n"
          "viewer's key, at the address that the learner of a run with keys logs; insecure=true allows one beyond\n"
          "this machine without. --markdown prints the table of metrics for documents.\n\n"
          "Counters are shown with their rate per second over the last ten seconds, histograms as\n"
          "median / 99th percentile of the last minute.\n\n", out);
    metrics_help(out);
}

int cmd_stats(int argc, char **argv)
{
    bool json = false, insecure = false;
    const char *where = "", *keys = "";
    int rc;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            usage(stdout);
            return TD_EXIT_OK;
        } else if (strcmp(argv[i], "--markdown") == 0) {
            metrics_markdown(stdout);
            return TD_EXIT_OK;
        } else if (strcmp(argv[i], "--json") == 0) {
            json = true;
        } else if (strcmp(argv[i], "insecure=true") == 0) {
            insecure = true;
        } else if (strncmp(argv[i], "keys=", 5) == 0) {
            keys = argv[i] + 5;
        } else if (argv[i][0] == '-' || where[0] != '\0') {
            fprintf(stderr, "tdmpc2 stats: unknown word '%s'; tdmpc2 stats --help tells more\n", argv[i]);
            return TD_EXIT_BAD_INPUT;
        } else {
            where = argv[i];
        }
    }
    rc = show_once(where, insecure, keys, json, false);
    if (rc == TD_EXIT_OK && !json && isatty(STDOUT_FILENO))
        show_live(where, insecure, keys);
    channel_shutdown();
    return rc;
}
