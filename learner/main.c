/* tdmpc2-learner - trains: parameters, schedule, checkpoints; starts its replay shard and evaluator. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/net/channel.h"
#include "common/net/confine.h"
#include "common/net/notify.h"
#include "common/net/process.h"
#include "learner/learner.h"

static void usage(void)
{
    fputs("usage: tdmpc2-learner task=TASK [key=value ...]\n\n"
          "Trains in logs/<task>/<seed>/<exp_name> (work_dir= names another), resuming what is there. Starts\n"
          "its own replay shard and evaluator. Actors join with tdmpc2-actor learner=ADDRESS; the address is\n"
          "in its log. `tdmpc2 train` does all of this on one machine.\n\n", stdout);
    config_help(stdout);
}

static bool asks_help(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return true;
    return false;
}

static int run(int argc, char **argv, bool *given, int *code, struct error *err)
{
    struct config config;
    learner_t *learner;
    bool finished;
    int rc;

    *code = TD_EXIT_OK;
    config_init(&config);
    if ((rc = config_parse(&config, argc - 1, argv + 1, given, err)) != TD_OK ||
        (rc = process_check_limits(err)) != TD_OK || (rc = confine_start(&config, argc, argv, err)) != TD_OK ||
        (rc = learner_create(&learner, &config, given, &finished, err)) != TD_OK)
        return rc;
    if (finished)
        return TD_OK;
    *code = learner_run(learner);
    learner_destroy(&learner);
    return TD_OK;
}

int main(int argc, char **argv)
{
    struct error err = {0};
    char why[NOTIFY_WHY_MAX];
    bool *given;
    int count, rc, code;

    process_leave_if_asked();
    if (process_follow_parent() != TD_OK)
        return TD_EXIT_OK;
    if (!notify_open(process_is_child(), why, sizeof(why)))
        fprintf(stderr, "tdmpc2-learner: %s\n", why);
    if (asks_help(argc, argv)) {
        usage();
        return TD_EXIT_OK;
    }
    config_options(&count);
    given = calloc((size_t)count, sizeof(*given));
    if (given == NULL) {
        fputs("tdmpc2-learner: out of memory\n", stderr);
        return TD_EXIT_GAVE_UP;
    }
    rc = run(argc, argv, given, &code, &err);
    free(given);
    channel_shutdown();
    if (rc == TD_OK)
        return code;
    fprintf(stderr, "tdmpc2-learner: %s\n", err.text);
    return error_exit_code(rc);
}
