/* stop.c - `tdmpc2 stop`: ask a run to write its checkpoint and end, and wait until it has. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/net/channel.h"
#include "common/net/loop.h"
#include "common/net/post.h"
#include "common/net/process.h"
#include "common/net/rundir.h"
#include "common/util/clock.h"
#include "common/util/config.h"
#include "common/util/fs.h"
#include "common/wire/message.h"
#include "tools/cluster.h"
#include "tools/commands.h"
#include "tools/launch.h"
#include "tools/options.h"

#define REPEAT_MS   250u   /* the request is repeated until it shows */
#define PATIENCE_MS 5000u  /* then a local learner gets SIGTERM, a remote one is given up */
#define SAY_MS     10000u

struct request {
    loop_t *loop;
    guard_t *guard;           /* or NULL */
    post_t *post;
    loop_timer_t *repeat;
    const char *address;
    const char *run_dir;      /* of a run on this machine, or NULL */
    char lock[FS_PATH_MAX];
    uint64_t run_id;
    uint64_t started_ms, said_ms;
    bool answered, signalled;
    int code;                 /* as the learner said at last, and why */
    char why[WIRE_TEXT_MAX];
    int exit_code;
};

static void usage(FILE *out)
{
    fprintf(out, "usage: tdmpc2 stop [RUN_DIR|ADDRESS|CLUSTER.yaml] [keys=DIR|insecure=true]\n\n"
                 "Asks the learner of a run to write a checkpoint (in lock-step the last one stands), to tell all its\n"
                 "parts to end, and waits. Without an argument: the run under logs/ that changed last. ADDRESS is the\n"
                 "learner's control address; over tcp of a run with keys it takes the learner's key. CLUSTER.yaml is what the\n"
                 "run was launched with: all of its hosts or jobs are waited for.\n");
}

static void send_stop(struct request *request)
{
    struct peer peer = {.port = PORT_CONTROL};
    struct message message = {.kind = MESSAGE_STOP, .run = request->run_id};

    snprintf(message.stop.text, sizeof(message.stop.text), "asked by tdmpc2 stop");
    post_send(request->post, &peer, &message);
}

static void finish(struct request *request, int exit_code, const char *sentence)
{
    fprintf(exit_code == TD_EXIT_OK ? stdout : stderr, "%s\n", sentence);
    request->exit_code = exit_code;
    loop_stop(request->loop);
}

/* On this machine the lock tells when it has ended; patience ends in a signal. */
static void watch_local(struct request *request, uint64_t waited_ms)
{
    long pid = fs_lock_owner(request->lock);

    if (pid == 0 && request->code != TD_EXIT_OK) {
        char sentence[WIRE_TEXT_MAX + 80];

        snprintf(sentence, sizeof(sentence), "tdmpc2 stop: the run has ended, but %s", request->why);
        finish(request, request->code, sentence);
        return;
    }
    if (pid == 0) {
        finish(request, TD_EXIT_OK, "stopped");
        return;
    }
    if (waited_ms >= PATIENCE_MS && !request->answered && !request->signalled && pid > 0) {
        request->signalled = true;
        printf("no answer: sending SIGTERM to the learner, process %ld\n", pid);
        kill((pid_t)pid, SIGTERM);
    }
    if (clock_ms() - request->said_ms >= SAY_MS) {
        struct error err = {0};
        int fd;

        request->said_ms = clock_ms();
        if (fs_lock(&fd, request->lock, 0, &err) == TD_OK)
            fs_unlock(&fd);
        else
            printf("waiting: %s\n", err.text);
        fflush(stdout);
    }
}

static void on_repeat(void *context)
{
    struct request *request = context;
    uint64_t waited_ms = clock_ms() - request->started_ms;
    const char *why = request->post != NULL ? post_trouble(request->post) : NULL;

    if (request->run_dir != NULL) {
        watch_local(request, waited_ms);
    } else if (waited_ms >= PATIENCE_MS) {
        char sentence[CHANNEL_ADDRESS_MAX + 300];

        snprintf(sentence, sizeof(sentence), "tdmpc2 stop: no learner answers at %s%s%s", request->address,
                 why != NULL ? ": " : "", why != NULL ? why : "");
        finish(request, TD_EXIT_GAVE_UP, sentence);
        return;
    }
    if (!request->answered && request->post != NULL)
        send_stop(request);
}

static void on_message(void *context, const struct peer *peer, const struct message *message)
{
    struct request *request = context;
    char sentence[WIRE_TEXT_MAX + 80];

    (void)peer;
    if (message->kind == MESSAGE_STOP || message->kind == MESSAGE_LEAVING) {
        if (!request->answered && request->run_dir != NULL)
            printf("the learner ends the run: in lock-step its last checkpoint stands, else it writes one\n");
        request->answered = true;
        if (message->kind == MESSAGE_STOP && message->stop.code != TD_EXIT_OK) {
            request->code = message->stop.code <= TD_EXIT_FENCED ? (int)message->stop.code : TD_EXIT_GAVE_UP;
            snprintf(request->why, sizeof(request->why), "%s", message->stop.text);
        }
        if (request->run_dir == NULL)
            finish(request, TD_EXIT_OK, "the learner is stopping the run");
    } else if (message->kind == MESSAGE_REFUSED) {
        snprintf(sentence, sizeof(sentence), "tdmpc2 stop: refused: %s", message->refused.text);
        finish(request, TD_EXIT_BAD_INPUT, sentence);
    }
    fflush(stdout);
}

static int run_request(struct request *request, bool insecure, const char *keys, struct error *err)
{
    const struct identity self = {.role = ROLE_LEARNER};
    struct post_options options = {.process = process_random_id(),
                                   .run = request->run_id,
                                   .insecure = insecure,
                                   .silent = true,
                                   .on_message = on_message,
                                   .context = request};
    struct peer peer = {.port = PORT_CONTROL};
    int rc = loop_create(&request->loop, err);

    if (rc != TD_OK)
        return rc;
    request->started_ms = request->said_ms = clock_ms();
    if (keys[0] != '\0')
        rc = guard_open(&request->guard, request->loop, keys, &self, err);
    if (rc == TD_OK && request->address[0] != '\0') {
        options.guard = request->guard;
        rc = post_open(&request->post, request->loop, &options, err);
        if (rc == TD_OK)
            rc = post_connect(request->post, &peer, request->address, err);
    }
    if (rc == TD_OK)
        rc = loop_timer_start(&request->repeat, request->loop, 50, REPEAT_MS, on_repeat, request);
    if (rc == TD_OK)
        loop_run(request->loop);
    loop_timer_close(&request->repeat);
    if (request->post != NULL)
        post_close(&request->post, 200);
    guard_close(&request->guard);
    loop_destroy(&request->loop);
    channel_shutdown();
    return rc;
}

/* A run of this machine: who holds its lock, and where its learner listens. */
static int stop_run(struct request *request, const char *run_dir, struct error *err)
{
    struct rundir_part part = {0};
    long pid;
    int rc;

    if ((rc = rundir_check(run_dir, err)) != TD_OK ||
        (rc = fs_join(request->lock, run_dir, "learner.lock", err)) != TD_OK)
        return rc;
    pid = fs_lock_owner(request->lock);
    if (pid == 0) {
        printf("nothing is running in %s\n", run_dir);
        return TD_OK;
    }
    request->run_dir = run_dir;
    request->address = "";
    if (rundir_find(run_dir, "learner", 0, &part, NULL) == TD_OK && (pid < 0 || part.pid == pid)) {
        request->address = part.control;
        request->run_id = part.run_id;
    } else if (pid < 0) {
        return error_set(err, TD_ELOCKED, "the learner of %s runs on another machine: give its address", run_dir);
    }
    printf("stopping %s (learner: process %ld)\n", run_dir, pid);
    fflush(stdout);
    return run_request(request, true, "", err); /* what the run itself recorded */
}

static int stop(int argc, char **argv, struct request *request, struct error *err)
{
    const char *target = NULL;
    char newest[FS_PATH_MAX];
    struct config config;
    int rc;

    config_init(&config);
    for (int i = 0; i < argc; i++) {
        if (strchr(argv[i], '=') != NULL) {
            if ((rc = config_set(&config, argv[i], err)) != TD_OK)
                return rc;
        } else if (target == NULL) {
            target = argv[i];
        } else {
            return error_set(err, TD_EINVAL, "one run at a time: %s or %s?", target, argv[i]);
        }
    }
    if (target != NULL && strstr(target, "://") != NULL) {
        request->address = target;
        return run_request(request, config.insecure, config.keys, err);
    }
    if (target == NULL) {
        if ((rc = rundir_newest("logs", newest, sizeof(newest), err)) != TD_OK)
            return rc;
        target = newest;
    }
    return stop_run(request, target, err);
}

int cmd_stop(int argc, char **argv)
{
    struct request request = {0};
    struct error err = {0};
    int rc;

    if (options_help(argc, argv)) {
        usage(stdout);
        return TD_EXIT_OK;
    }
    for (int i = 1; i < argc; i++)
        if (strstr(argv[i], "://") == NULL && cluster_is_file(argv[i]))
            return launch_stop(argc, argv);
    rc = stop(argc - 1, argv + 1, &request, &err);
    if (rc == TD_OK)
        return request.exit_code;
    fprintf(stderr, "tdmpc2 stop: %s\n", err.text);
    return error_exit_code(rc);
}
