/*
 * supervisor.h - the parts that `tdmpc2 train` starts: one learner and its local actors, followed,
 * restarted and stopped as PROTOCOL, section 7 has it.
 *
 * Owns:    the loop and the processes. Runs on the main thread.
 */
#ifndef TD_TOOLS_SUPERVISOR_H
#define TD_TOOLS_SUPERVISOR_H

#include "common/model/task_set.h"
#include "tools/console.h"

#include "common/util/error.h"

struct supervisor_options {
    const char *name;             /* of the run, for the status line */
    const char *run_dir;
    const char *const *learner_args; /* key=value words, NULL-terminated */
    const char *const *actor_args;   /* beside learner=, actor=, run_id= and work_dir= */
    int actors;                   /* local ones */
    const char *ending;           /* what the learner does when it is asked to end, in words */
    struct console *console;
    const struct task_set *tasks; /* of the run; with several eval.csv has columns for each */
};

struct supervisor_result {
    int exit_code;
    bool asked;         /* a signal ended it */
    char sentence[512]; /* why it ended with 2, 3 or 4, from the part's log; "" when it says nothing */
};

/* Are the programs beside this one? TD_OK, or TD_ESETUP naming what is missing. */
int supervisor_check_programs(struct error *err);

/* Log lines in the plain form, in place: those of log=json are rewritten, others stay. Returns lines. */
char *supervisor_plain(char *lines);

/*
 * The reason in the last lines of a part's log: of the first line at level error its why, else its msg,
 * or what follows "tdmpc2-...: ". Returns out, "" when there is none.
 */
char *supervisor_reason(const char *lines, char *out, size_t size);

/* What a line of the learner's log tells about a failure, of its own or of a part it starts; else "". */
char *supervisor_trouble(const char *line, const char *end, char *out, size_t size);

/*
 * Start everything and stay until it has ended. Returns TD_OK with *result, or an error when nothing
 * could be started.
 */
int supervisor_run(const struct supervisor_options *options, struct supervisor_result *result, struct error *err);

#endif
