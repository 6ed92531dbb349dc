/* train.c - `tdmpc2 train`: check everything, start learner and actors, show how it goes. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/ckpt/checkpoint.h"
#include "common/env/env.h"
#include "common/env/tasks.h"
#include "common/env/watch.h"
#include "common/model/dims.h"
#include "common/net/channel.h"
#include "common/net/exporter.h"
#include "common/net/process.h"
#include "common/util/config.h"
#include "common/util/log.h"
#include "learner/csv.h"
#include "learner/finetune.h"
#include "learner/preflight.h"
#include "learner/resume.h"
#include "learner/seed.h"
#include "common/wire/message.h"
#include "tools/commands.h"
#include "tools/console.h"
#include "tools/options.h"
#include "tools/supervisor.h"
#include "tools/train_offline.h"

static void usage(FILE *out)
{
    fprintf(out, "usage: tdmpc2 train task=TASK|tasks=TASK,TASK,... [key=value ...]\n\n"
                 "Starts a learner, its replay shard and evaluator, and actors=N actors on this machine.\n"
                 "With data_dir=DIR it trains offline instead, from what `tdmpc2 data import DIR` made of a data set.\n"
                 "An existing run directory (logs/<task>/<seed>/<exp_name>) is resumed. Ctrl-C stops with a\n"
                 "checkpoint (in lock-step with the last one); the same command goes on from there.\n\n");
    config_help(out);
}

/* Open the task here; of several, what takes long is left to the actors. */
static int try_task(const struct config *config, const char *task, bool only, struct error *err)
{
    struct env_options options = env_options(config->obs, config->render);
    env_t *env = NULL;
    int rc = (only ? env_create_with : env_create_later)(&env, task, &options, 0, err);

    env_close(&env);
    return rc;
}

static void print_beginning(void *context, const char *line)
{
    (void)context;
    printf("%s\n", line);
}

/* The tasks exist, library and model files are there, the model's widths fit each other. */
static int check_tasks(const struct run *run, struct env_spec *spec, struct task_set *tasks, struct error *err)
{
    const struct config *config = &run->config;
    struct model_dims dims;
    int rc;

    if ((rc = env_task_set(tasks, config, err)) != TD_OK)
        return rc;
    for (int i = 0; i < tasks->count && rc == TD_OK; i++)
        rc = try_task(config, tasks->task[i].name, tasks->count == 1, err);
    if (rc == TD_OK)
        rc = env_task_specs(NULL, spec, tasks, config, err);
    if (rc == TD_OK)
        rc = model_dims_init_tasks(&dims, config, tasks, err);
    if (rc == TD_OK && !run->resumed && config->checkpoint[0] != '\0')
        rc = finetune_check(config, &dims, tasks, print_beginning, NULL, err);
    if (rc == TD_OK && !run->resumed)
        rc = seed_check(run, spec, tasks, print_beginning, NULL, err);
    return rc;
}

/* An environment in this process may hang; nothing has begun yet that a signal could interrupt. */
static int check_world(const struct run *run, struct env_spec *spec, struct task_set *tasks, struct error *err)
{
    int rc;

    log_set_level(LOG_WARN); /* what an environment in Python prints is read in the actors' logs */
    watch_deaths();
    if ((rc = watch_guard_begin("tdmpc2 train", env_timeout_ms(), TD_EXIT_OK, err)) != TD_OK)
        return rc;
    rc = check_tasks(run, spec, tasks, err);
    watch_guard_end();
    return rc != TD_OK ? rc : supervisor_check_programs(err);
}

/* Whoever has the directory is gone; address and replay directory are free, and there is room. */
static int check_place(const struct run *run, const struct env_spec *spec, const struct task_set *tasks,
                       struct preflight_replay *replay, struct error *err)
{
    int rc;

    if ((rc = run_wait_unlocked(run->dir, 0, err)) == TD_ELOCKED) {
        fprintf(stderr, "tdmpc2 train: %s; waiting up to %u s\n", err->text, RUN_LOCK_WAIT_MS / 1000);
        rc = run_wait_unlocked(run->dir, RUN_LOCK_WAIT_MS, err);
    }
    if (rc != TD_OK || (rc = preflight_address(&run->config, err)) != TD_OK)
        return rc;
    for (int64_t i = 0; run->config.keys[0] != '\0' && i < run->config.actors; i++) {
        struct identity actor = {ROLE_ACTOR, (uint32_t)i};

        if ((rc = guard_probe(run->config.keys, &actor, err)) != TD_OK)
            return rc;
    }
    rc = preflight_replay(replay, run, spec, tasks, STORE_LOCK_WAIT_MS, err);
    if (rc != TD_ECORRUPT || !run->resumed || run->config.lockstep)
        return rc;
    /* the shard sees to it; lock-step could not go on exactly */
    printf("note: %s\nnote: the shard saves what is whole into a new store and keeps the damaged file beside it\n", err->text);
    replay->outlook.exists = true;
    return TD_OK;
}

/* The last evaluation in eval.csv, as a sentence. */
static void print_result(const struct run *run)
{
    struct csv_data eval;
    char path[FS_PATH_MAX], steps[32];
    const double *last;

    if (run_path(run, "eval.csv", path, NULL) != TD_OK || csv_load(&eval, path, NULL) != TD_OK)
        return;
    if (eval.rows > 0 && eval.columns > CSV_EVAL_EPISODES) {
        last = eval.values + (size_t)(eval.rows - 1) * (size_t)eval.columns;
        printf("last evaluation, at step %s: return %.1f, the mean of ",
               console_format_count(steps, sizeof(steps), last[CSV_EVAL_STEP]), last[CSV_EVAL_REWARD]);
        if (eval.columns > CSV_EVAL_COUNT)
            printf("%d tasks with ", (eval.columns - CSV_EVAL_COUNT) / 2);
        printf("%.0f episode%s", last[CSV_EVAL_EPISODES], last[CSV_EVAL_EPISODES] == 1 ? "" : "s");
        if (eval.columns > CSV_EVAL_COUNT)
            printf("%s, normalised score %.1f", last[CSV_EVAL_EPISODES] == 1 ? "" : " each", last[CSV_EVAL_COUNT]);
        putchar('\n');
    }
    csv_release(&eval);
}

static void print_finished(const struct run *run)
{
    uint64_t wanted = (uint64_t)run->config.steps;
    char steps[32];

    printf("%s is finished: %s agent steps\n", run->dir,
           console_format_count(steps, sizeof(steps), (double)run->finished_steps));
    print_result(run);
    printf("to extend it give more steps, e.g. steps=%" PRIu64 "; another exp_name starts anew\n",
           2 * (run->finished_steps > wanted ? run->finished_steps : wanted));
}

static const char *bytes(char out[32], uint64_t count)
{
    if (count >= 1000000000)
        snprintf(out, 32, "%.1f GB", (double)count * 1e-9);
    else if (count >= 1000000)
        snprintf(out, 32, "%.1f MB", (double)count * 1e-6);
    else
        snprintf(out, 32, "%.1f kB", (double)count * 1e-3);
    return out;
}

/* What will run where, before it does. */
static void print_plan(const struct run *run, const struct preflight_replay *replay)
{
    char steps[32], rows[32], needed[32], left[32];

    printf("%s %s: %s, %s agent steps, %s%" PRId64 " actor%s, seed %" PRId64 "\n",
           run->resumed ? "resuming" : "starting", run->dir, config_tasks(&run->config),
           console_format_count(steps, sizeof(steps), (double)run->config.steps),
           run->config.lockstep ? "lock-step, " : "", run->config.actors, run->config.actors == 1 ? "" : "s",
           run->config.seed);
    if (replay->outlook.needed_bytes > 0)
        printf("replay in %s: %s rows need %s, %s are free\n", replay->dir,
               console_format_count(rows, sizeof(rows), (double)replay->rows),
               bytes(needed, replay->outlook.needed_bytes), bytes(left, replay->outlook.free_bytes));
    fflush(stdout);
}

/* The newest that could be gone on from: whole, and of the run's way of training. */
static bool find_checkpoint(const struct run *run, struct checkpoint_entry *newest)
{
    struct checkpoint_entry *entries;
    char folder[FS_PATH_MAX];
    bool found = false;
    int count;

    if (run_path(run, "checkpoints", folder, NULL) != TD_OK || checkpoint_list(folder, &entries, &count, NULL) != TD_OK)
        return false;
    for (int i = 0; i < count && !found; i++) {
        found = entries[i].code == TD_OK && (resume_kinds(run->config.lockstep) & (unsigned)entries[i].kind) != 0;
        if (found)
            *newest = entries[i];
    }
    free(entries);
    return found;
}

/* What the same command will do. */
static void print_stopped(const struct run *run)
{
    struct checkpoint_entry newest;
    char steps[32];

    if (!find_checkpoint(run, &newest)) {
        printf("stopped; there is no checkpoint yet: the same command begins the training anew in %s\n", run->dir);
        return;
    }
    console_format_count(steps, sizeof(steps), (double)newest.step);
    if (run->config.lockstep)
        printf("stopped; the same command goes on from the newest checkpoint of %s, at step %s: what came after it is "
               "played again\n", run->dir, steps);
    else
        printf("stopped; the same command goes on from the newest checkpoint of %s, at step %s\n", run->dir, steps);
}

/* How the run stands after the parts have ended. */
static void print_end(const struct run *before, const struct config *fresh, const bool *given,
                      const struct supervisor_result *result)
{
    struct run run;

    if (run_look(&run, fresh, given, NULL, NULL) != TD_OK)
        return;
    if (run.finished && result->exit_code == TD_EXIT_OK) {
        print_finished(&run);
    } else if (result->exit_code == TD_EXIT_OK) {
        print_result(&run);
        print_stopped(before);
    }
}

/* Words for the learner: what was given, and where; `config=` has been read. */
static char **learner_words(const struct run *run, const struct config *fresh, const bool *given)
{
    char place[FS_PATH_MAX + 16], **words;
    bool *passed = options_given();
    int count;
    const struct config_option *options = config_options(&count);

    if (passed == NULL)
        return NULL;
    for (int i = 0; i < count; i++) /* resume= was obeyed here; a learner that is started again resumes */
        passed[i] = given[i] && strcmp(options[i].name, "resume") != 0;
    snprintf(place, sizeof(place), "work_dir=%s", run->dir);
    words = options_words(fresh, passed, place);
    free(passed);
    return words;
}

static void print_passed_over(void *context, const char *name, const char *why)
{
    (void)context;
    printf("note: checkpoint %s is passed over: %s\n", name, why);
}

static void print_line(void *context, bool warning, const char *line)
{
    (void)context;
    (void)warning;
    printf("%s\n", line);
}

/* What a resumed run goes on with. What it lost since it was stopped is no reason not to, but one to know of. */
static int print_losses(const struct run *run, const struct preflight_replay *replay, struct error *err)
{
    checkpoint_t *checkpoint = NULL;
    char folder[FS_PATH_MAX];
    int rc;

    if (!run->resumed || run_path(run, "checkpoints", folder, NULL) != TD_OK || access(folder, F_OK) != 0)
        return TD_OK;
    rc = checkpoint_open_newest(&checkpoint, folder, resume_kinds(run->config.lockstep), print_passed_over, NULL, NULL);
    if (rc == TD_OK && (rc = resume_check(checkpoint, run, err)) != TD_OK) {
        checkpoint_close(&checkpoint);
        return rc;
    }
    if (rc != TD_OK)
        printf("note: %s holds no checkpoint to go on from: training begins anew\n", folder);
    else {
        char programs[FS_PATH_MAX], learner[FS_PATH_MAX], build[BUILD_TEXT_MAX] = "unknown";

        if (fs_program_dir(programs, NULL) == TD_OK && fs_join(learner, programs, "tdmpc2-learner", NULL) == TD_OK)
            build_of(learner, build);
        resume_tell(checkpoint, run, build, print_line, NULL);
    }
    if (rc == TD_OK && !replay->outlook.exists && checkpoint_manifest(checkpoint)->step > 0)
        printf("note: the rows in %s are gone: replay begins empty\n", replay->dir);
    checkpoint_close(&checkpoint);
    fflush(stdout);
    return TD_OK;
}

static const char async_ending[] = "it writes a checkpoint",
                  lockstep_ending[] = "in lock-step it writes one only while it pretrains: else the last one stands";

/* The words of every actor, beside those that the supervisor knows. */
struct actor_words {
    char text[6][CONFIG_TEXT_MAX + 24];
    const char *args[7]; /* NULL-terminated */
    int count;
};

static void add_actor_word(struct actor_words *words, const char *name, const char *value)
{
    if (value[0] == '\0')
        return;
    snprintf(words->text[words->count], sizeof(words->text[0]), "%s=%s", name, value);
    words->args[words->count] = words->text[words->count];
    words->args[++words->count] = NULL;
}

static void fill_actor_words(struct actor_words *words, const struct config *fresh)
{
    char metrics[ADDRESS_MAX];

    words->count = 0;
    exporter_for_child(fresh->metrics, metrics);
    add_actor_word(words, "sandbox", fresh->sandbox);
    add_actor_word(words, "keys", fresh->keys);
    add_actor_word(words, "insecure", fresh->insecure && (fresh->keys[0] == '\0' || metrics[0] != '\0') ? "true" : "");
    add_actor_word(words, "metrics", metrics);
    add_actor_word(words, "log", strcmp(fresh->log, "text") != 0 ? fresh->log : "");
    add_actor_word(words, "metrics_token", metrics[0] != '\0' ? fresh->metrics_token : "");
}

static int train(const struct config *fresh, const bool *given, struct run *run, int *exit_code,
                 struct error *err)
{
    struct actor_words actor;
    struct supervisor_result result = {0};
    struct console console;
    char **words = learner_words(run, fresh, given);
    struct task_set tasks = {0};
    int rc;

    if (words == NULL)
        return error_set(err, TD_ENOMEM, "out of memory");
    fill_actor_words(&actor, fresh);
    console_init(&console, stdout);
    struct supervisor_options options = {.name = config_tasks(&run->config),
                                         .run_dir = run->dir,
                                         .learner_args = (const char *const *)words,
                                         .actor_args = actor.args,
                                         .actors = (int)run->config.actors,
                                         .ending = run->config.lockstep ? lockstep_ending : async_ending,
                                         .console = &console,
                                         .tasks = &tasks};
    if ((rc = env_task_set(&tasks, &run->config, err)) == TD_OK)
        rc = supervisor_run(&options, &result, err);
    task_set_release(&tasks);
    options_words_free(words);
    if (rc != TD_OK)
        return rc;
    print_end(run, fresh, given, &result);
    fflush(stdout);
    if (result.sentence[0] != '\0')
        fprintf(stderr, "tdmpc2 train: %s (more in %s/learner.log)\n", result.sentence, run->dir);
    *exit_code = result.exit_code;
    return TD_OK;
}

/* Options of other programs' that train would leave unread. */
static int check_words(const bool *given, struct error *err)
{
    static const struct {
        const char *name, *sentence;
    } others[] = {
        {"learner", "train starts a learner of its own; `tdmpc2-actor learner=ADDRESS` joins one that runs"},
        {"role", "it belongs to tdmpc2-actor; evaluator= says who evaluates"},
        {"actor", "it belongs to tdmpc2-actor; actors=N says how many are started"},
        {"run_id", "it belongs to tdmpc2-actor and tdmpc2-replay; a run's directory tells its id"},
    };
    int count;
    const struct config_option *options = config_options(&count);

    for (int i = 0; i < count; i++)
        for (size_t j = 0; j < TD_LEN(others); j++)
            if (given[i] && strcmp(options[i].name, others[j].name) == 0)
                return error_set(err, TD_EINVAL, "%s= cannot be given to train: %s", others[j].name, others[j].sentence);
    return TD_OK;
}

static int check_and_train(int argc, char **argv, bool *given, int *exit_code, struct error *err)
{
    struct preflight_replay replay;
    struct task_set tasks = {0};
    struct config fresh;
    struct env_spec spec;
    struct run run;
    int rc;

    config_init(&fresh);
    if ((rc = process_check_limits(err)) != TD_OK ||
        (rc = config_parse(&fresh, argc, argv, given, err)) != TD_OK || (rc = check_words(given, err)) != TD_OK ||
        (rc = run_look(&run, &fresh, given, stdout, err)) != TD_OK)
        return rc;
    if (run.config.data_dir[0] != '\0' && !run.finished)
        return train_offline(&fresh, given, err);
    if ((rc = check_world(&run, &spec, &tasks, err)) == TD_OK && !run.finished)
        rc = check_place(&run, &spec, &tasks, &replay, err);
    task_set_release(&tasks);
    if (rc != TD_OK)
        return rc;
    if (run.finished) {
        print_finished(&run);
        return TD_OK;
    }
    print_plan(&run, &replay);
    if ((rc = print_losses(&run, &replay, err)) != TD_OK)
        return rc;
    if (run.config.lockstep && !spec.exact_state)
        printf("note: the state of %s can't be saved: if this run is stopped and resumed, it goes on from other episodes\n",
               run.config.task);
    fflush(stdout);
    return train(&fresh, given, &run, exit_code, err);
}

int cmd_train(int argc, char **argv)
{
    struct error err = {0};
    bool *given;
    int exit_code = TD_EXIT_OK, rc;

    process_leave_if_asked();
    if (options_help(argc, argv)) {
        usage(stdout);
        return TD_EXIT_OK;
    }
    if (argc == 2 && strcmp(argv[1], "--markdown") == 0) {
        config_markdown(stdout);
        return TD_EXIT_OK;
    }
    given = options_given();
    rc = given == NULL ? error_set(&err, TD_ENOMEM, "out of memory")
                       : check_and_train(argc - 1, argv + 1, given, &exit_code, &err);
    free(given);
    if (rc == TD_OK)
        return exit_code;
    fprintf(stderr, "tdmpc2 train: %s\n", err.text);
    return error_exit_code(rc);
}
