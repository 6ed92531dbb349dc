#include "learner/child.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/util/fs.h"
#include "common/util/log.h"

#define TAIL_LINES 5

struct child {
    loop_t *loop;
    struct child_options options;
    char *words[CHILD_WORDS_MAX];
    char log_path[FS_PATH_MAX];
    process_t *process;    /* NULL: not running */
    loop_timer_t *timer;   /* the next start, or the end of patience */
    struct restart restart;
    bool stopping, may_end, ended;
};

static void process_ended(void *context, int code, int signum);

static int spawn(child_t *child, struct error *err)
{
    struct process_options options = {
        .program = child->options.program,
        .args = (const char *const *)child->words,
        .log_path = child->log_path,
        .on_exit = process_ended,
        .context = child,
    };

    return process_spawn(&child->process, child->loop, &options, err);
}

static void end(child_t *child, int code, const char *why)
{
    child->ended = true;
    loop_timer_close(&child->timer);
    child->options.on_end(child->options.context, child, code, why);
}

/* Its last words go into the learner's log, where they are looked for. */
static void log_tail(child_t *child)
{
    char tail[1200], *line = tail;

    process_log_tail(child->log_path, TAIL_LINES, tail, sizeof(tail));
    while (line != NULL && *line != '\0') {
        char *next = strchr(line, '\n');

        if (next != NULL)
            *next++ = '\0';
        log_warn("from its log", "part=%s line=\"%s\"", child->options.name, line);
        line = next;
    }
}

static void start_again(void *context)
{
    child_t *child = context;
    struct error err = {0};

    loop_timer_close(&child->timer);
    metrics_add(child->options.metrics, METRIC_restarts, 1);
    if (spawn(child, &err) != TD_OK)
        end(child, TD_EXIT_GAVE_UP, err.text);
}

static void plan_restart(child_t *child, int code, int signum, uint64_t lived_ms)
{
    int64_t wait_ms = restart_after(&child->restart, lived_ms);
    char how[64], why[256];

    process_describe_exit(code, signum, how, sizeof(how));
    log_warn("part died", "part=%s how=\"%s\" again_ms=%lld", child->options.name, how, (long long)wait_ms);
    log_tail(child);
    if (wait_ms < 0) {
        snprintf(why, sizeof(why), "the %s died %d times within %u s of its start: %s", child->options.name,
                 RESTART_LIMIT, RESTART_YOUNG_MS / 1000, how);
        end(child, TD_EXIT_GAVE_UP, why);
    } else if (loop_timer_start(&child->timer, child->loop, (uint64_t)wait_ms, 0, start_again, child) != TD_OK) {
        end(child, TD_EXIT_GAVE_UP, "out of memory");
    } else if (child->options.on_death != NULL) {
        child->options.on_death(child->options.context, child);
    }
}

static void process_ended(void *context, int code, int signum)
{
    child_t *child = context;
    uint64_t lived_ms = process_age_ms(child->process);
    char why[256];

    process_close(&child->process);
    snprintf(why, sizeof(why), "the %s ended with exit code %d", child->options.name, code);
    if (child->stopping) { /* SIGTERM may have met it before it could listen */
        end(child, signum == SIGTERM ? TD_EXIT_OK : code < 0 ? TD_EXIT_GAVE_UP : code, why);
    } else if (code == TD_EXIT_OK && child->may_end) {
        end(child, code, why);
    } else if (code == TD_EXIT_BAD_INPUT || code == TD_EXIT_FENCED) {
        log_tail(child);
        end(child, code, why);
    } else {
        plan_restart(child, code, signum, lived_ms);
    }
}

int child_start(child_t **out, loop_t *loop, const struct child_options *options, struct error *err)
{
    child_t *child = calloc(1, sizeof(*child));
    int rc = TD_OK;

    *out = NULL;
    if (child == NULL)
        return error_set(err, TD_ENOMEM, "out of memory");
    child->loop = loop;
    child->options = *options;
    snprintf(child->log_path, sizeof(child->log_path), "%s", options->log_path);
    for (int i = 0; options->words[i] != NULL && rc == TD_OK; i++) {
        TD_ASSERT(i + 1 < CHILD_WORDS_MAX, "too many words");
        child->words[i] = strdup(options->words[i]);
        if (child->words[i] == NULL)
            rc = error_set(err, TD_ENOMEM, "out of memory");
    }
    if (rc == TD_OK)
        rc = spawn(child, err);
    if (rc != TD_OK)
        child_close(&child);
    *out = child;
    return rc;
}

static void patience_over(void *context)
{
    child_t *child = context;

    log_warn("part does not stop: killed", "part=%s", child->options.name);
    process_signal(child->process, SIGKILL);
}

void child_stop(child_t *child, uint64_t patience_ms)
{
    if (child->ended || child->stopping)
        return;
    child->stopping = true;
    loop_timer_close(&child->timer);
    if (child->process == NULL) {
        end(child, TD_EXIT_OK, "it was not running");
        return;
    }
    process_signal(child->process, SIGTERM);
    if (loop_timer_start(&child->timer, child->loop, patience_ms, 0, patience_over, child) != TD_OK)
        process_signal(child->process, SIGKILL);
}

void child_may_end(child_t *child)
{
    child->may_end = true;
}

bool child_ended(const child_t *child)
{
    return child->ended;
}

void child_close(child_t **out)
{
    child_t *child = *out;

    if (child == NULL)
        return;
    if (child->process != NULL)
        process_signal(child->process, SIGKILL);
    process_close(&child->process);
    loop_timer_close(&child->timer);
    for (int i = 0; i < CHILD_WORDS_MAX; i++)
        free(child->words[i]);
    free(child);
    *out = NULL;
}
