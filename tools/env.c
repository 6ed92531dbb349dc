/* env.c - `tdmpc2 env`: list the tasks, check one, replay recorded trajectories. */
#include "tools/env.h"

#include <string.h>

#include "common/env/env.h"
#include "common/env/gl.h"
#include "common/env/probe.h"
#include "common/util/config.h"
#include "common/util/log.h"
#include "tools/commands.h"
#include "tools/files.h"

static void usage(FILE *out)
{
    fprintf(out, "usage: tdmpc2 env list               every task: domain, sizes, episode length, availability\n"
                 "       tdmpc2 env check [--verbose] TASK... [obs=rgb] [render=fast]\n"
                 "                                     shapes, bounds, determinism, saved states, steps per second;\n"
                 "                                     verbose: with what an environment in Python prints\n"
                 "       tdmpc2 env replay FILE|DIR... recorded trajectories (*.traj.safetensors) to the bit\n"
                 "              replay --exact FILE... the same even where this machine can't be exact\n"
                 "              replay render=fast ... frames drawn in less time, within the tolerance\n"
                 "       tdmpc2 env bench [--json]     agent steps per second beside bare mj_step\n");
}

static void list_task(const struct env_spec *spec, const struct env_about *about)
{
    printf("%-28s %-12s %4u%s %6u %6u %7u  %s%s%s\n", spec->task, about->domain, spec->obs_dim,
           about->rgb ? ", rgb" : "     ", spec->action_dim, spec->action_repeat, spec->episode_length,
           about->available ? "yes" : "no", about->note != NULL ? ": " : "",
           about->note != NULL ? about->note : "");
}

/* What ends a suite's rows: its note, and what its first missing task lacks. */
static void end_suite(const char *note, const struct error *missing)
{
    if (note != NULL)
        printf("note: %s\n", note);
    if (missing->code != TD_OK)
        printf("not available: %s\n", missing->text);
}

static void list_suites(void)
{
    struct env_about suite = {.suite = ""};
    struct error missing = {0};

    for (int i = 0; i < env_task_count(); i++) {
        struct env_about about;
        struct env_spec spec;
        int rc = env_find(env_task_name(i), &spec, NULL);

        TD_ASSERT(rc == TD_OK, "%s is listed but not found", env_task_name(i));
        env_describe(spec.task, &about);
        if (strcmp(suite.suite, about.suite) != 0) {
            end_suite(suite.suite_note, &missing);
            missing.code = TD_OK;
            printf("%s%-28s %-12s %9s %6s %6s %7s  %s\n", i == 0 ? "" : "\n", about.suite, "domain", "obs",
                   "action", "repeat", "episode", "available");
        }
        suite = about;
        list_task(&spec, &about);
        if (!about.available && missing.code == TD_OK)
            missing = about.why;
    }
    end_suite(suite.suite_note, &missing);
}

static void list_drawing(void)
{
    struct error err = {0};
    gl_t *gl;

    if (gl_open(&gl, &err) != TD_OK)
        printf("\nnot available: obs=rgb of DMControl's tasks: %s\n", err.text);
    gl_close(&gl);
}

static int list(void)
{
    list_suites();
    list_drawing();
    printf("\nepisode: agent steps until it is cut off; repeat: environment steps in each, rewards summed.\n"
           "For tests of the system: toy[:LIMIT] and toy-episodic[:LIMIT], a point mass (obs 4, rgb, action 2).\n");
    return TD_EXIT_OK;
}

/* Several words' outcomes together: bad input outweighs a difference, that outweighs success. */
static int worse(int exit_code, int rc, const struct error *err)
{
    int here = rc == TD_OK ? TD_EXIT_OK : rc == TD_EAGAIN ? TD_EXIT_GAVE_UP : error_exit_code(rc);

    if (rc != TD_OK && rc != TD_EAGAIN)
        fprintf(stderr, "tdmpc2 env: %s\n", err->text);
    return here > exit_code ? here : exit_code;
}

/* env=X and task=X, as `train` has it, are the task X. */
static char *without_key(char *word)
{
    return strncmp(word, "env=", 4) == 0 ? word + 4 : strncmp(word, "task=", 5) == 0 ? word + 5 : word;
}

/* A word that sets an option: a name and = before anything that a task's name may hold. */
static bool is_option(const char *word)
{
    size_t name = strspn(word, "abcdefghijklmnopqrstuvwxyz_");

    return name > 0 && word[name] == '=';
}

/* Take the options out from between the tasks; returns how many words are left, or an error. */
static int take_options(int count, char **words, struct env_options *options, struct error *err)
{
    struct config config;
    int kept = 0, rc;

    config_init(&config);
    for (int i = 0; i < count; i++) {
        char *word = without_key(words[i]);

        if (word != words[i] || !is_option(word))
            words[kept++] = word;
        else if (strncmp(word, "obs=", 4) != 0 && strncmp(word, "render=", 7) != 0)
            return error_set(err, TD_EINVAL, "%s: of the options only obs= and render= have a meaning here", word);
        else if ((rc = config_set(&config, word, err)) != TD_OK)
            return rc;
    }
    *options = env_options(config.obs, config.render);
    return kept;
}

struct checked {
    const char *task;
    struct env_options options;
};

static int check_it(void *context, struct trial *trial)
{
    const struct checked *checked = context;

    return env_check_task(checked->task, &checked->options, stdout, trial, &trial->err);
}

/* What an environment prints is shown only on demand: a sentence says what is wrong. */
static int check(int count, char **tasks)
{
    struct checked checked = {0};
    struct error err = {0};
    int exit_code = TD_EXIT_OK;

    if (count > 0 && strcmp(tasks[0], "--verbose") == 0) {
        tasks++;
        count--;
    } else {
        log_set_level(LOG_WARN);
    }
    if ((count = take_options(count, tasks, &checked.options, &err)) < 0)
        return worse(exit_code, count, &err);
    if (count == 0) {
        usage(stderr);
        return TD_EXIT_BAD_INPUT;
    }
    for (int i = 0; i < count; i++) {
        checked.task = tasks[i];
        err = (struct error){0};
        printf("%s%s\n", i == 0 ? "" : "\n", tasks[i]);
        exit_code = worse(exit_code, trial_run(tasks[i], check_it, &checked, &err), &err);
    }
    return exit_code;
}

static int replay(int count, char **files)
{
    struct env_options options;
    static const char *const ends[] = {".safetensors", NULL};
    struct error why = {0}, err = {0};
    char **paths;
    int exit_code = TD_EXIT_OK, rc;
    enum env_replay_bits bits = probe_exact(&why) ? ENV_REPLAY_EXACT : ENV_REPLAY_STEP;

    if ((count = take_options(count, files, &options, &why)) < 0)
        return worse(exit_code, count, &why);
    if (count > 0 && strcmp(files[0], "--exact") == 0) {
        bits = ENV_REPLAY_ALL;
        files++;
        count--;
    }
    if (count == 0) {
        usage(stderr);
        return TD_EXIT_BAD_INPUT;
    }
    if ((rc = files_expand(files, count, ends, &paths, &count, &err)) != TD_OK)
        return worse(exit_code, rc, &err);
    if (bits != ENV_REPLAY_STEP)
        printf("observations must be equal, rewards within 1e-9\n");
    else
        printf("%s: only each episode's reset and first step are judged, within 1e-6\n", why.text);
    for (int i = 0; i < count; i++) {
        err = (struct error){0};
        rc = env_replay_file(paths[i], bits, options.drawing, stdout, &err);
        fflush(stdout);
        exit_code = worse(exit_code, rc, &err);
    }
    files_free(paths);
    return exit_code;
}

/* `tdmpc2 bench env` under the name that one looks for here. */
static int bench(int argc, char **argv)
{
    char name[] = "env";

    argv[1] = name;
    return cmd_bench(argc, argv);
}

int cmd_env(int argc, char **argv)
{
    if (argc >= 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        usage(stdout);
        return TD_EXIT_OK;
    }
    if (argc == 2 && strcmp(argv[1], "list") == 0)
        return list();
    if (argc >= 3 && strcmp(argv[1], "check") == 0)
        return check(argc - 2, argv + 2);
    if (argc >= 3 && strcmp(argv[1], "replay") == 0)
        return replay(argc - 2, argv + 2);
    if (argc >= 2 && strcmp(argv[1], "bench") == 0)
        return bench(argc, argv);
    usage(stderr);
    return TD_EXIT_BAD_INPUT;
}
