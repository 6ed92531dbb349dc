#include "tools/supervisor.h"

#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/net/address.h"
#include "common/net/channel.h"
#include "common/net/loop.h"
#include "common/net/process.h"
#include "common/net/rundir.h"
#include "common/util/clock.h"
#include "common/util/fs.h"
#include "learner/csv.h"
#include "tools/follow.h"

#define ACTORS_MAX     64
#define POLL_MS        500u
#define ASK_MS         1000u  /* between questions to the stats socket */
#define SILENT_MS      5000u  /* without an answer: look for the learner's address again */
#define GRACE_MS       3000u  /* parts were told to stop by the learner: leave them this long */
#define ACTORS_STOP_MS 15000u /* an actor flushes ten seconds at most */
#define SAY_MS         30000u /* between status lines where there is no terminal */
#define ESTIMATE_AFTER 20     /* updates */
#define DISPLACED_MS   3000u  /* an actor's place that was taken has to be free for so long */

enum stage {
    STAGE_RUN,
    STAGE_GRACE,   /* the learner has ended and told the actors */
    STAGE_ACTORS,  /* SIGTERM is on its way to the actors */
    STAGE_LEARNER, /* and now to the learner */
};

typedef struct supervisor supervisor_t;

struct part {
    supervisor_t *supervisor;
    char name[24];            /* "learner", "actor-0" */
    char log[FS_PATH_MAX];
    off_t log_start;          /* where this start's lines begin */
    process_t *process;       /* NULL: not running */
    loop_timer_t *again;      /* the next start */
    struct restart restart;
    bool ended;               /* not to be started any more */
    uint64_t displaced_ms;    /* another process was last in its place then; 0: none took it */
};

struct supervisor {
    const struct supervisor_options *options;
    loop_t *loop;
    loop_timer_t *poll, *escalate;
    struct part learner, actors[ACTORS_MAX];
    enum stage stage;
    int exit_code;
    bool asked;
    char sentence[512];
    /* the learner's addresses, once it has recorded them */
    struct rundir_part record;
    bool found;
    channel_t *stats;
    uint64_t asked_ms, answered_ms, said_ms;
    struct run_status status;
    bool have_status, estimated;
    char dashboard[CHANNEL_ADDRESS_MAX]; /* as it was last said */
    char bottleneck[200];     /* as it was last said, and when */
    uint64_t bottleneck_ms;
    struct follow train, eval, trouble;
};

static void part_exited(void *context, int code, int signal);
static void advance(supervisor_t *supervisor);

/* --- starting parts --- */

static int spawn(struct part *part, const char *program, const char *const *args, struct error *err)
{
    struct process_options options = {
        .program = program, .args = args, .log_path = part->log, .on_exit = part_exited, .context = part};
    struct stat info;

    part->log_start = stat(part->log, &info) == 0 ? info.st_size : 0;
    return process_spawn(&part->process, part->supervisor->loop, &options, err);
}

static int start_learner(supervisor_t *supervisor, struct error *err)
{
    supervisor->found = false;
    return spawn(&supervisor->learner, "tdmpc2-learner", supervisor->options->learner_args, err);
}

static int start_actor(supervisor_t *supervisor, int number, struct error *err)
{
    const char *const *given = supervisor->options->actor_args;
    const char *args[64];
    char learner[CHANNEL_ADDRESS_MAX + 16], actor[32], run[40], dir[FS_PATH_MAX + 16];
    int count = 0;

    snprintf(learner, sizeof(learner), "learner=%s", supervisor->record.control);
    snprintf(actor, sizeof(actor), "actor=%d", number);
    snprintf(run, sizeof(run), "run_id=%016" PRIx64, supervisor->record.run_id);
    snprintf(dir, sizeof(dir), "work_dir=%s", supervisor->options->run_dir);
    args[count++] = learner;
    args[count++] = actor;
    args[count++] = run;
    args[count++] = dir;
    for (; *given != NULL && count + 1 < (int)TD_LEN(args); given++)
        args[count++] = *given;
    args[count] = NULL;
    return spawn(&supervisor->actors[number], "tdmpc2-actor", args, err);
}

/* Start the actors that are not running and not to be waited for, once the learner can be reached. */
static void start_actors(supervisor_t *supervisor)
{
    for (int i = 0; i < supervisor->options->actors; i++) {
        struct part *part = &supervisor->actors[i];
        struct error err = {0};

        if (part->process != NULL || part->again != NULL || part->ended)
            continue;
        if (start_actor(supervisor, i, &err) != TD_OK) {
            console_print(supervisor->options->console, "%s: %s", part->name, err.text);
            part->ended = true;
        }
    }
}

/* --- ending --- */

static void signal_actors(supervisor_t *supervisor, int signum)
{
    for (int i = 0; i < supervisor->options->actors; i++)
        if (supervisor->actors[i].process != NULL)
            process_signal(supervisor->actors[i].process, signum);
}

static bool actors_running(const supervisor_t *supervisor)
{
    for (int i = 0; i < supervisor->options->actors; i++)
        if (supervisor->actors[i].process != NULL)
            return true;
    return false;
}

static void drop_restarts(supervisor_t *supervisor)
{
    loop_timer_close(&supervisor->learner.again);
    for (int i = 0; i < supervisor->options->actors; i++)
        loop_timer_close(&supervisor->actors[i].again);
}

/* Go through the stages of stopping as far as the parts that are left allow. */
static void advance(supervisor_t *supervisor)
{
    if (supervisor->stage == STAGE_RUN || actors_running(supervisor))
        return;
    if (supervisor->stage != STAGE_LEARNER) {
        supervisor->stage = STAGE_LEARNER;
        loop_timer_pause(supervisor->escalate);
        if (supervisor->learner.process != NULL)
            process_signal(supervisor->learner.process, SIGTERM);
    }
    if (supervisor->learner.process == NULL)
        loop_stop(supervisor->loop);
}

static void stop_actors(supervisor_t *supervisor)
{
    supervisor->stage = STAGE_ACTORS;
    signal_actors(supervisor, SIGTERM);
    loop_timer_again(supervisor->escalate, ACTORS_STOP_MS, 0);
    advance(supervisor);
}

/* End the run with this code: actors first, then the learner. The first reason stays. */
static void stop(supervisor_t *supervisor, int exit_code)
{
    if (supervisor->stage != STAGE_RUN)
        return;
    supervisor->exit_code = exit_code;
    drop_restarts(supervisor);
    stop_actors(supervisor);
}

/* The learner has ended and told its actors: a moment for them to hear it. */
static void learner_ended(supervisor_t *supervisor, int exit_code)
{
    if (supervisor->stage != STAGE_RUN) {
        if (exit_code != TD_EXIT_OK && supervisor->exit_code == TD_EXIT_OK)
            supervisor->exit_code = exit_code;
        advance(supervisor);
        return;
    }
    supervisor->exit_code = exit_code;
    supervisor->stage = STAGE_GRACE;
    drop_restarts(supervisor);
    loop_timer_again(supervisor->escalate, GRACE_MS, 0);
    advance(supervisor);
}

static void escalate(void *context)
{
    supervisor_t *supervisor = context;

    if (supervisor->stage == STAGE_GRACE) {
        stop_actors(supervisor);
        return;
    }
    console_print(supervisor->options->console, "an actor does not end: killing it");
    signal_actors(supervisor, SIGKILL);
}

static void on_signal(void *context, int signum, int count)
{
    supervisor_t *supervisor = context;

    if (count == 1 && supervisor->stage == STAGE_RUN) {
        supervisor->asked = true;
        console_print(supervisor->options->console,
                      "%s: stopping the actors, then the learner (once more: kill all); %s",
                      signum == SIGINT ? "interrupted" : "asked to end", supervisor->options->ending);
        stop(supervisor, TD_EXIT_OK);
    } else if (count >= 2) {
        supervisor->asked = true;
        supervisor->exit_code = TD_EXIT_INTERRUPTED;
        signal_actors(supervisor, SIGKILL);
        if (supervisor->learner.process != NULL)
            process_signal(supervisor->learner.process, SIGKILL);
        loop_stop(supervisor->loop);
    }
}

/* --- parts that died --- */

/* The end of what this start of the part has logged; "" when there is nothing. */
static char *read_last_lines(const struct part *part, char *out, size_t size)
{
    int fd = open(part->log, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    off_t from = part->log_start;
    struct stat info;
    ssize_t got = 0;

    if (fd >= 0) {
        if (fstat(fd, &info) == 0 && info.st_size - from >= (off_t)size)
            from = info.st_size - (off_t)size + 1;
        got = pread(fd, out, size - 1, from);
        close(fd);
    }
    out[got > 0 ? got : 0] = '\0';
    return supervisor_plain(out);
}

/* A part that knows why it ended says it in its log, in the last lines of this start. */
static bool take_reason(struct part *part, int code)
{
    supervisor_t *supervisor = part->supervisor;
    char tail[4096], *lines;

    if (supervisor->sentence[0] != '\0')
        return true;
    read_last_lines(part, tail, sizeof(tail));
    lines = code == TD_EXIT_GAVE_UP ? strstr(tail, "msg=\"leaving\"") : NULL; /* what it gave up on, not all that it tried */
    while (lines != NULL && lines > tail && lines[-1] != '\n')
        lines--;
    supervisor_reason(lines != NULL ? lines : tail, supervisor->sentence, sizeof(supervisor->sentence));
    return supervisor->sentence[0] != '\0';
}

/* Exit code 0 without a word, while nobody wanted that: something in it called exit. */
static bool left_without_order(const struct part *part, int code)
{
    char tail[4096];

    return code == TD_EXIT_OK && part != &part->supervisor->learner && part->supervisor->stage == STAGE_RUN &&
           strstr(read_last_lines(part, tail, sizeof(tail)), "msg=\"leaving\"") == NULL;
}

static void print_tail(struct part *part)
{
    struct console *console = part->supervisor->options->console;
    char tail[4096], *line, *rest = NULL;

    if (process_log_tail(part->log, 10, tail, sizeof(tail)) == 0)
        return;
    console_print(console, "the last lines of %s:", part->log);
    for (line = strtok_r(tail, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest))
        console_print(console, "  | %s", line);
}

static void start_again(void *context)
{
    struct part *part = context;
    supervisor_t *supervisor = part->supervisor;
    struct error err = {0};
    int rc = TD_OK;

    loop_timer_close(&part->again);
    if (part == &supervisor->learner)
        rc = start_learner(supervisor, &err);
    else if (supervisor->found)
        rc = start_actor(supervisor, (int)(part - supervisor->actors), &err);
    if (rc == TD_OK)
        return;
    console_print(supervisor->options->console, "%s: %s", part->name, err.text);
    stop(supervisor, TD_EXIT_GAVE_UP);
}

/* It died: again after a pause, or, when it keeps dying young, never. */
static void restart_part(struct part *part, const char *how, uint64_t lived_ms)
{
    supervisor_t *supervisor = part->supervisor;
    int64_t pause_ms = restart_after(&part->restart, lived_ms);

    if (pause_ms < 0) {
        console_print(supervisor->options->console, "%s died %d times within %u s of its start, now: %s; giving up",
                      part->name, RESTART_LIMIT, RESTART_YOUNG_MS / 1000, how);
        part->ended = true;
        stop(supervisor, TD_EXIT_GAVE_UP);
        return;
    }
    console_print(supervisor->options->console, "starting %s again in %.2g s", part->name, (double)pause_ms / 1000);
    if (loop_timer_start(&part->again, supervisor->loop, (uint64_t)pause_ms, 0, start_again, part) != TD_OK)
        stop(supervisor, TD_EXIT_GAVE_UP);
}

/*
 * A learner that has told all parts to end takes its record away, whatever its exit code; one that was
 * killed or failed by itself leaves it.
 */
static bool learner_is_over(const supervisor_t *supervisor)
{
    struct rundir_part record;

    return supervisor->found && rundir_find(supervisor->options->run_dir, "learner", 0, &record, NULL) == TD_ENOTFOUND;
}

/* SIGTERM may have met it before its main began. */
static bool asked_by(const supervisor_t *supervisor, int signal)
{
    return supervisor->stage != STAGE_RUN && signal == SIGTERM;
}

static bool code_ends_learner(int code)
{
    return code == TD_EXIT_OK || code == TD_EXIT_BAD_INPUT || code == TD_EXIT_DIVERGED || code == TD_EXIT_FENCED;
}

static void learner_exited(struct part *part, int code, int signal, const char *how, uint64_t lived_ms)
{
    supervisor_t *supervisor = part->supervisor;
    bool over = code == TD_EXIT_GAVE_UP && learner_is_over(supervisor);

    channel_close(&supervisor->stats);
    supervisor->found = false;
    if (code_ends_learner(code) || over || supervisor->stage != STAGE_RUN) {
        part->ended = true;
        learner_ended(supervisor, code >= 0 ? code : asked_by(supervisor, signal) ? TD_EXIT_OK : TD_EXIT_GAVE_UP);
        return;
    }
    restart_part(part, how, lived_ms);
}

static void actor_exited(struct part *part, int code, const char *how, uint64_t lived_ms)
{
    supervisor_t *supervisor = part->supervisor;

    if (supervisor->stage != STAGE_RUN) {
        advance(supervisor);
    } else if (code == TD_EXIT_BAD_INPUT) {
        part->ended = true;
        stop(supervisor, TD_EXIT_BAD_INPUT);
    } else if (code == TD_EXIT_OK || code == TD_EXIT_FENCED) {
        part->ended = true;
        if (code == TD_EXIT_FENCED)
            console_print(supervisor->options->console,
                          "another process took the place of %s; it is started again when that one is gone", part->name);
        if (code == TD_EXIT_FENCED)
            part->displaced_ms = clock_ms();
    } else {
        restart_part(part, how, lived_ms);
    }
}

static void report_death(struct part *part, int code, int signal, const char *how)
{
    supervisor_t *supervisor = part->supervisor;
    bool over = code == TD_EXIT_GAVE_UP && part == &supervisor->learner && learner_is_over(supervisor);
    bool knows_why = over || code == TD_EXIT_BAD_INPUT || code == TD_EXIT_DIVERGED || code == TD_EXIT_FENCED;

    if (code == TD_EXIT_OK || asked_by(supervisor, signal) || (supervisor->stage != STAGE_RUN && signal == SIGKILL))
        return;
    if (knows_why && part == &supervisor->learner && take_reason(part, code))
        return; /* said at the end */
    console_print(supervisor->options->console, "%s: %s", part->name, how);
    print_tail(part);
}

static void part_exited(void *context, int code, int signal)
{
    struct part *part = context;
    supervisor_t *supervisor = part->supervisor;
    uint64_t lived_ms = process_age_ms(part->process);
    char how[100];

    process_close(&part->process);
    process_describe_exit(code, signal, how, sizeof(how));
    if (left_without_order(part, code)) {
        snprintf(how, sizeof(how), "it called exit, code 0, though nobody asked it to");
        code = TD_EXIT_GAVE_UP;
    }
    report_death(part, code, signal, how);
    if (part == &supervisor->learner)
        learner_exited(part, code, signal, how, lived_ms);
    else
        actor_exited(part, code, how, lived_ms);
}

/* --- watching --- */

/* The estimate once, the bottleneck when it changes; where there is no terminal, now and then a line. */
static void say(supervisor_t *supervisor)
{
    struct console *console = supervisor->options->console;
    const struct run_status *status = &supervisor->status;
    char one[64], line[CONSOLE_LINE_MAX];
    uint64_t now = clock_ms();

    if (!supervisor->estimated && status->updates >= ESTIMATE_AFTER && status->time_left_s >= 1) { /* not NAN, nor the end */
        supervisor->estimated = true;
        console_print(console, "estimate: %s to the end of the run (%.1f updates/s)",
                      console_format_time(one, sizeof(one), status->time_left_s),
                      isnan(status->updates_per_s) ? 0.0 : status->updates_per_s);
    }
    if (status->bottleneck[0] != '\0' && strcmp(status->bottleneck, supervisor->bottleneck) != 0 &&
        (supervisor->bottleneck_ms == 0 || now - supervisor->bottleneck_ms >= SAY_MS)) {
        memcpy(supervisor->bottleneck, status->bottleneck, sizeof(supervisor->bottleneck));
        supervisor->bottleneck_ms = now;
        console_print(console, "bottleneck: %s", status->bottleneck);
    }
    if (console->live)
        return;
    if (now - supervisor->said_ms >= SAY_MS) {
        supervisor->said_ms = now;
        console_print(console, "%s", console_format_status(line, supervisor->options->name, status, 0));
    }
}

/*
 * The learner hears of no actors but ours: whoever took the place of one of them is gone. While there
 * are others the run goes on with those.
 */
static void take_places_back(supervisor_t *supervisor)
{
    int ours = 0;

    if (supervisor->stage != STAGE_RUN || !supervisor->found)
        return;
    for (int i = 0; i < supervisor->options->actors; i++)
        ours += supervisor->actors[i].process != NULL;
    for (int i = 0; i < supervisor->options->actors; i++) {
        struct part *part = &supervisor->actors[i];

        if (part->displaced_ms != 0 && !(supervisor->status.actors <= ours))
            part->displaced_ms = clock_ms();
        if (part->displaced_ms == 0 || clock_ms() - part->displaced_ms < DISPLACED_MS)
            continue;
        console_print(supervisor->options->console, "the place of %s is free again: starting it", part->name);
        part->displaced_ms = 0;
        part->ended = false;
        start_actors(supervisor);
        ours++;
    }
}

static void on_stats(void *context, uint64_t peer, const struct channel_frame *frames, int count)
{
    supervisor_t *supervisor = context;

    (void)peer;
    if (count < 1 || !status_parse(&supervisor->status, frames[0].bytes, frames[0].length))
        return;
    supervisor->answered_ms = clock_ms();
    supervisor->have_status = true;
    take_places_back(supervisor);
    say(supervisor);
    console_status(supervisor->options->console, supervisor->options->name, &supervisor->status);
}

static void open_stats(supervisor_t *supervisor)
{
    struct channel_options options = {.name = "stats", .pattern = CHANNEL_REQ, .max_message = 1u << 20,
                                      .on_message = on_stats, .context = supervisor};
    struct error err;

    channel_close(&supervisor->stats);
    if (supervisor->record.stats[0] == '\0' || channel_open(&supervisor->stats, supervisor->loop, &options, &err) != TD_OK)
        return;
    if (channel_connect(supervisor->stats, supervisor->record.stats, &err) != TD_OK)
        channel_close(&supervisor->stats);
    supervisor->answered_ms = clock_ms();
}

/* Where a browser finds the run, once for each place. The token itself is for its file alone. */
static void show_dashboard(supervisor_t *supervisor)
{
    const char *address = supervisor->record.dashboard;
    char token[FS_PATH_MAX] = "", tcp[CHANNEL_ADDRESS_MAX + 8];

    if (address[0] == '\0' || strcmp(address, supervisor->dashboard) == 0)
        return;
    snprintf(supervisor->dashboard, sizeof(supervisor->dashboard), "%s", address);
    snprintf(tcp, sizeof(tcp), "tcp://%s", address);
    if (!address_is_local(tcp) && fs_join(token, supervisor->options->run_dir, "dashboard.token", NULL) == TD_OK)
        console_print(supervisor->options->console, "dashboard: http://%s/?token=... with the token in %s", address, token);
    else
        console_print(supervisor->options->console, "dashboard: http://%s/", address);
}

/* Has our learner bound its sockets and said where? */
static void find_learner(supervisor_t *supervisor)
{
    struct rundir_part record;

    if (supervisor->learner.process == NULL ||
        rundir_find(supervisor->options->run_dir, "learner", 0, &record, NULL) != TD_OK ||
        record.pid != process_pid(supervisor->learner.process) || record.control[0] == '\0')
        return;
    supervisor->record = record;
    supervisor->found = true;
    open_stats(supervisor);
    start_actors(supervisor);
    show_dashboard(supervisor);
}

static void ask_stats(supervisor_t *supervisor)
{
    static const char question[] = "stats";
    struct channel_part part = {.bytes = question, .length = sizeof(question) - 1};
    uint64_t now = clock_ms();

    if (supervisor->stats == NULL || now - supervisor->asked_ms < ASK_MS)
        return;
    supervisor->asked_ms = now;
    if (now - supervisor->answered_ms > SILENT_MS)
        open_stats(supervisor);
    if (supervisor->stats != NULL)
        channel_send(supervisor->stats, 0, &part, 1);
}

static void show_train(void *context, const double *values)
{
    supervisor_t *supervisor = context;
    bool pretrain = strcmp(supervisor->status.phase, "pretraining") == 0;
    struct console_row row = {.category = pretrain ? "pretrain" : "train",
                              .episode = values[CSV_TRAIN_EPISODE],
                              .step = values[CSV_TRAIN_STEP],
                              .reward = values[CSV_TRAIN_REWARD],
                              .success = values[CSV_TRAIN_SUCCESS],
                              .time_s = values[CSV_TRAIN_TIME]};

    supervisor->said_ms = clock_ms();
    console_row(supervisor->options->console, &row);
}

static void show_eval(void *context, const double *values)
{
    supervisor_t *supervisor = context;
    struct console_row row = {.category = "eval",
                              .episode = NAN,
                              .step = values[CSV_EVAL_STEP],
                              .reward = values[CSV_EVAL_REWARD],
                              .success = values[CSV_EVAL_SUCCESS],
                              .time_s = values[CSV_EVAL_TIME]};

    supervisor->said_ms = clock_ms();
    console_row(supervisor->options->console, &row);
    if (supervisor->eval.columns > CSV_EVAL_COUNT) {
        char line[CONSOLE_LINE_MAX];

        console_print(supervisor->options->console, "%s",
                      console_format_tasks(line, supervisor->options->tasks, values + CSV_EVAL_COUNT));
    }
}

/* What goes wrong in the learner and in the parts that it starts is said in its log. */
static void show_trouble(void *context, const char *line, const char *end)
{
    supervisor_t *supervisor = context;
    char text[600];

    if (*supervisor_trouble(line, end, text, sizeof(text)) != '\0')
        console_print(supervisor->options->console, "%s", text);
}

static void show_rows(supervisor_t *supervisor)
{
    follow_lines(&supervisor->trouble, show_trouble, supervisor);
    follow_poll(&supervisor->train, show_train, supervisor);
    follow_poll(&supervisor->eval, show_eval, supervisor);
}

static void on_poll(void *context)
{
    supervisor_t *supervisor = context;

    show_rows(supervisor);
    if (supervisor->stage == STAGE_RUN && !supervisor->found)
        find_learner(supervisor);
    ask_stats(supervisor);
}

/* --- the whole --- */

static int init_part(supervisor_t *supervisor, struct part *part, const char *name, struct error *err)
{
    char file[40];

    part->supervisor = supervisor;
    snprintf(part->name, sizeof(part->name), "%s", name);
    snprintf(file, sizeof(file), "%s.log", part->name);
    return fs_join(part->log, supervisor->options->run_dir, file, err);
}

static int init_parts(supervisor_t *supervisor, struct error *err)
{
    bool several = supervisor->options->tasks != NULL && supervisor->options->tasks->multitask;
    char path[FS_PATH_MAX], name[24];
    int rc;

    if ((rc = init_part(supervisor, &supervisor->learner, "learner", err)) != TD_OK)
        return rc;
    for (int i = 0; i < supervisor->options->actors; i++) {
        snprintf(name, sizeof(name), "actor-%d", i);
        if ((rc = init_part(supervisor, &supervisor->actors[i], name, err)) != TD_OK)
            return rc;
    }
    if ((rc = fs_join(path, supervisor->options->run_dir, "train.csv", err)) != TD_OK)
        return rc;
    follow_init(&supervisor->train, path, CSV_TRAIN_COUNT);
    if ((rc = fs_join(path, supervisor->options->run_dir, "eval.csv", err)) != TD_OK)
        return rc;
    follow_init(&supervisor->eval, path,
                CSV_EVAL_COUNT + (several ? 1 + 2 * supervisor->options->tasks->count : 0));
    follow_init(&supervisor->trouble, supervisor->learner.log, 0);
    return TD_OK;
}

int supervisor_check_programs(struct error *err)
{
    static const char *const programs[] = {"tdmpc2-learner", "tdmpc2-replay", "tdmpc2-actor"};
    char dir[FS_PATH_MAX], path[FS_PATH_MAX];
    int rc = fs_program_dir(dir, err);

    for (size_t i = 0; i < TD_LEN(programs) && rc == TD_OK; i++) {
        rc = fs_join(path, dir, programs[i], err);
        if (rc == TD_OK && access(path, X_OK) != 0)
            rc = error_set(err, TD_ESETUP, "%s is missing: run 'make' (or 'make install' again)", path);
    }
    return rc;
}

static void release(supervisor_t *supervisor)
{
    if (supervisor->loop == NULL)
        return;
    drop_restarts(supervisor);
    channel_close(&supervisor->stats);
    process_close(&supervisor->learner.process);
    for (int i = 0; i < supervisor->options->actors; i++)
        process_close(&supervisor->actors[i].process);
    loop_timer_close(&supervisor->poll);
    loop_timer_close(&supervisor->escalate);
    loop_destroy(&supervisor->loop);
    channel_shutdown();
}

int supervisor_run(const struct supervisor_options *options, struct supervisor_result *result, struct error *err)
{
    static supervisor_t supervisor; /* large, and there is one */
    int rc;

    TD_ASSERT(options->actors >= 0 && options->actors <= ACTORS_MAX, "%d actors", options->actors);
    memset(&supervisor, 0, sizeof(supervisor));
    supervisor.options = options;
    supervisor.said_ms = clock_ms();
    if ((rc = fs_mkdirs(options->run_dir, 0755, err)) != TD_OK ||
        (rc = init_parts(&supervisor, err)) != TD_OK || (rc = loop_create(&supervisor.loop, err)) != TD_OK)
        return rc;
    if ((rc = loop_signals(supervisor.loop, on_signal, &supervisor, err)) != TD_OK ||
        (rc = loop_timer_start(&supervisor.poll, supervisor.loop, POLL_MS, POLL_MS, on_poll, &supervisor)) != TD_OK ||
        (rc = loop_timer_start(&supervisor.escalate, supervisor.loop, GRACE_MS, 0, escalate, &supervisor)) != TD_OK)
        goto done;
    loop_timer_pause(supervisor.escalate);
    if ((rc = start_learner(&supervisor, err)) != TD_OK)
        goto done;
    loop_run(supervisor.loop);
    show_rows(&supervisor);
    console_clear(options->console);
    result->exit_code = supervisor.exit_code;
    result->asked = supervisor.asked;
    memcpy(result->sentence, supervisor.sentence, sizeof(result->sentence));

done:
    release(&supervisor);
    return rc;
}
