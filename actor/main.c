/* main.c - tdmpc2-actor: joins a run and acts in it, or evaluates for it. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "actor/actor.h"
#include "common/net/confine.h"
#include "common/net/notify.h"
#include "common/net/process.h"

static void usage(FILE *out)
{
    fprintf(out, "usage: tdmpc2-actor learner=ADDRESS [actor=N] [key=value ...]\n"
                 "       tdmpc2-actor work_dir=DIR    join the run in this directory of this machine\n\n"
                 "Acts in the environment of a run and streams what happens to its replay shard. The learner\n"
                 "tells the run's options; an actor may come, go and be killed at any time. SIGTERM: finish the\n"
                 "step, hand over what is not acknowledged, leave.\n\n"
                 "  learner=ADDRESS    the learner's control address, as it prints it\n"
                 "  learner=@DIR       the learner of the run directory DIR, which it may share with other machines: waited\n"
                 "                     for, and looked for again there when it is not heard: it may have moved\n"
                 "  actor=N            the slot to take; without it the learner grants one\n"
                 "  role=evaluator     run evaluations when the learner orders them\n"
                 "  run_id=HEX         the run that must be there\n"
                 "  work_dir=DIR       the run directory, when it is on this machine: for `tdmpc2 stats`\n"
                 "  learner_timeout=S  how long to wait for a lost learner\n"
                 "  threads=N          of an evaluation that has the machine to itself\n"
                 "  keys=DIR           this actor's key and the allowed ones (`tdmpc2 keys`): encrypts and authenticates\n"
                 "  insecure=true      allow addresses beyond loopback, unencrypted\n\n"
                 "Exit codes: 0 asked to stop or the run is over, 1 gave up, 2 bad input, 3 parameters have\n"
                 "diverged, 4 another process took the slot.\n");
}

static bool wants_help(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return true;
    return false;
}

static int parse_run(const char *text, uint64_t *run, struct error *err)
{
    char *end;

    *run = 0;
    if (text[0] == '\0')
        return TD_OK;
    errno = 0;
    *run = strtoull(text, &end, 16);
    if (strspn(text, "0123456789abcdefABCDEF") != strlen(text) || errno != 0 || *end != '\0' || *run == 0)
        return error_set(err, TD_EINVAL, "run_id=%.60s: give the up to 16 hexadecimal digits that the learner "
                                         "printed", text);
    return TD_OK;
}

static int parse(int argc, char **argv, struct actor_options *options, bool *given, struct error *err)
{
    int rc;

    config_init(&options->config);
    options->given = given;
    options->process = process_random_id();
    if ((rc = config_parse(&options->config, argc - 1, argv + 1, given, err)) != TD_OK)
        return rc;
    return parse_run(options->config.run_id, &options->run, err);
}

/* The exit code of the whole program. */
static int run(int argc, char **argv, bool *given)
{
    static struct actor_options options; /* large */
    struct error err = {0};
    actor_t *actor = NULL;
    int rc = parse(argc, argv, &options, given, &err), code;

    if (rc == TD_OK)
        rc = process_check_limits(&err);
    if (rc == TD_OK)
        rc = confine_start(&options.config, argc, argv, &err);
    if (rc == TD_OK)
        rc = actor_create(&actor, &options, &err);
    if (rc != TD_OK) {
        fprintf(stderr, "tdmpc2-actor: %s\n", err.text);
        return error_exit_code(rc);
    }
    code = actor_run(actor);
    if (!actor_destroy(&actor))
        _exit(code); /* a step that does not end; nobody waits for it any more */
    return code;
}

int main(int argc, char **argv)
{
    char why[NOTIFY_WHY_MAX];
    int count, code;
    bool *given;

    process_leave_if_asked();
    if (process_follow_parent() != TD_OK)
        return TD_EXIT_OK; /* the parent is gone already */
    if (!notify_open(process_is_child(), why, sizeof(why)))
        fprintf(stderr, "tdmpc2-actor: %s\n", why);
    if (wants_help(argc, argv)) {
        usage(stdout);
        return TD_EXIT_OK;
    }
    config_options(&count);
    given = calloc((size_t)count, sizeof(*given));
    if (given == NULL) {
        fprintf(stderr, "tdmpc2-actor: out of memory\n");
        return TD_EXIT_GAVE_UP;
    }
    code = run(argc, argv, given);
    free(given);
    return code;
}
