/* eval.c - `tdmpc2 eval`: load a checkpoint, run episodes here, print the returns. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/ckpt/checkpoint.h"
#include "common/ckpt/weights.h"
#include "common/env/tasks.h"
#include "common/env/watch.h"
#include "common/model/dims.h"
#include "common/tensor/gemm.h"
#include "common/util/config_words.h"
#include "common/util/cores.h"
#include "learner/snapshot.h"
#include "tools/commands.h"
#include "tools/evaluation.h"
#include "tools/options.h"

struct eval {
    struct config config;  /* the run's, under what was given */
    const bool *given;
    bool noisy, random, json;
    char source[FS_PATH_MAX]; /* what was loaded */
    uint64_t step;
    bool has_step;
    world_model_t *model;
    struct config words;   /* what was given by itself: with a checkpoint of several tasks, which of them are wanted */
    struct task_set tasks; /* that the model knows, or the options name */
    struct evaluation_episode *episode;
    double score, mean;    /* over the tasks so far: the reference's normalised score, the returns */
};

static void usage(FILE *out)
{
    fprintf(out,
            "usage: tdmpc2 eval [task=TASK|tasks=TASK,...] checkpoint=RUN_DIR|CHECKPOINT_DIR|FILE.pt|FILE.safetensors [eval_episodes=N]\n"
            "                   [seed=N] [threads=N] [save_video=true] [--noisy] [--random] [--json]\n\n"
            "Runs episodes in this process and prints each return and their mean. A run directory stands for its newest\n"
            "valid checkpoint; without checkpoint= the run of task, seed and exp_name is taken. Actions are planned as in\n"
            "the evaluations during training; --noisy adds the exploration noise, as the reference's evaluate.py does\n"
            "(always with a *.pt file);\n"
            "--random needs no checkpoint and acts uniformly at random. A checkpoint brings its options, words win. Of a\n"
            "checkpoint of several tasks all are evaluated, or those that tasks= names, and their normalised score is told.\n");
}

/* --- finding and loading --- */

static void say_passed_over(void *context, const char *name, const char *why)
{
    (void)context;
    fprintf(stderr, "tdmpc2 eval: passing over checkpoint %s: %s\n", name, why);
}

/* The options of the run, and over them those that were given. */
static int take_options(struct eval *eval, const struct manifest *manifest, struct error *err)
{
    struct config fresh = eval->config;
    const struct config *run = &manifest->config;
    bool several = run->tasks[0] != '\0' || task_set_named(run->task) > 0;
    int count;
    const struct config_option *options = config_options(&count);
    char value[CONFIG_TEXT_MAX], word[CONFIG_TEXT_MAX + 64];

    eval->config = manifest->config;
    eval->step = manifest->step;
    eval->has_step = true;
    for (int i = 0; i < count; i++) {
        int rc;

        if (!eval->given[i] && config_is_stored(&options[i]))
            continue;
        if (several && (strcmp(options[i].name, "task") == 0 || strcmp(options[i].name, "tasks") == 0))
            continue; /* they choose from the checkpoint's */
        snprintf(word, sizeof(word), "%s=%s", options[i].name, config_format(&fresh, &options[i], value, sizeof(value)));
        if ((rc = config_set(&eval->config, word, err)) != TD_OK)
            return rc;
    }
    return config_check(&eval->config, err);
}

static int make_model(struct eval *eval, const safetensors_t *file, const char *name, struct error *err)
{
    struct model_dims dims;
    struct error why = {0};
    int rc;

    task_set_release(&eval->tasks);
    if ((rc = env_task_set(&eval->tasks, &eval->config, err)) != TD_OK ||
        (rc = model_dims_init_tasks(&dims, &eval->config, &eval->tasks, err)) != TD_OK ||
        (rc = world_model_create(&eval->model, &dims, false, err)) != TD_OK)
        return rc;
    if (eval->tasks.multitask)
        world_model_set_tasks(eval->model, &eval->tasks);
    rc = snapshot_load_parameters(file, eval->model, &why);
    if (rc == TD_ENOTFOUND || rc == TD_EINVAL)
        return error_set(err, TD_EINVAL, "%s does not fit task%s=%.200s model_size=%" PRId64 ": %s", name,
                         eval->config.tasks[0] != '\0' ? "s" : "", config_tasks(&eval->config), eval->config.model_size,
                         why.text);
    return rc == TD_OK ? rc : error_set(err, rc, "%s: %s", name, why.text);
}

static int load_folder(struct eval *eval, const char *path, struct error *err)
{
    checkpoint_t *checkpoint = NULL;
    safetensors_t *file = NULL;
    int rc = checkpoint_open_in(&checkpoint, path, say_passed_over, NULL, err);

    if (rc == TD_OK)
        rc = take_options(eval, checkpoint_manifest(checkpoint), err);
    if (rc == TD_OK)
        rc = checkpoint_open_tensors(checkpoint, SNAPSHOT_PARAMETERS, &file, err);
    if (rc == TD_OK) {
        snprintf(eval->source, sizeof(eval->source), "%s", checkpoint_path(checkpoint));
        rc = make_model(eval, file, eval->source, err);
    }
    safetensors_close(&file);
    checkpoint_close(&checkpoint);
    return rc;
}

/* A published model of as many tasks as a list of the reference's was trained on that list. */
static int adopt_tasks(struct eval *eval, const char *path, const struct model_dims *dims, struct error *err)
{
    const char *list = dims->num_tasks == 30 ? "tasks=mt30" : dims->num_tasks == 80 ? "tasks=mt80" : NULL;
    int rc;

    if (dims->num_tasks > 0 && eval->config.tasks[0] == '\0' && task_set_named(eval->config.task) == 0 && list != NULL &&
        (rc = config_set(&eval->config, list, err)) != TD_OK)
        return rc;
    task_set_release(&eval->tasks);
    if ((rc = env_task_set(&eval->tasks, &eval->config, err)) != TD_OK)
        return rc;
    if ((eval->tasks.multitask ? eval->tasks.count : 0) == dims->num_tasks)
        return TD_OK;
    if (dims->num_tasks == 0)
        return error_set(err, TD_EINVAL, "%s is of a single task, %.200s names %d", path, config_tasks(&eval->config),
                         eval->tasks.count);
    return error_set(err, TD_EINVAL, "%s was trained on %d tasks, %.200s names %d: give its list, tasks=NAME,NAME,...", path,
                     dims->num_tasks, config_tasks(&eval->config), eval->tasks.count);
}

/* The sizes are the file's; the tasks' must be those. */
static int load_weights(struct eval *eval, const weights_t *weights, const char *path, struct error *err)
{
    struct model_dims dims;
    int rc;

    if ((rc = model_dims_init(&dims, &eval->config, PIXEL_FRAME_BYTES, 1, err)) != TD_OK ||
        (rc = weights_dims(weights, &dims, err)) != TD_OK ||
        (dims.rgb && (rc = config_set(&eval->config, "obs=rgb", err)) != TD_OK) ||
        (rc = adopt_tasks(eval, path, &dims, err)) != TD_OK)
        return rc;
    if (dims.obs_dim != eval->tasks.obs_dim || dims.action_dim != eval->tasks.action_dim)
        return error_set(err, TD_EINVAL, "%s does not fit task=%.200s: it is of a task with %d observations and %d actions, "
                         "this one has %d and %d", path, config_tasks(&eval->config), dims.obs_dim, dims.action_dim,
                         eval->tasks.obs_dim, eval->tasks.action_dim);
    if ((rc = world_model_create(&eval->model, &dims, false, err)) != TD_OK)
        return rc;
    if (eval->tasks.multitask)
        world_model_set_tasks(eval->model, &eval->tasks);
    return weights_read(weights, &eval->model->layout, false, eval->model->parameters, err);
}

/* A file by itself: inside a checkpoint that one's options count, else its own sizes and what is given. */
static int load_file(struct eval *eval, const char *path, struct error *err)
{
    char folder[FS_PATH_MAX];
    weights_t *weights = NULL;
    int rc = fs_parent(path, folder, err);

    if (rc != TD_OK)
        return rc;
    if (fs_has(folder, "manifest.json") && strcmp(path + strlen(path) - strlen(SNAPSHOT_PARAMETERS), SNAPSHOT_PARAMETERS) == 0)
        return load_folder(eval, folder, err);
    if ((rc = weights_open(&weights, path, err)) != TD_OK)
        return rc;
    if (pt_looks_like(path))
        eval->noisy = true; /* as evaluate.py, which such files are made for */
    snprintf(eval->source, sizeof(eval->source), "%s", path);
    rc = load_weights(eval, weights, path, err);
    weights_close(&weights);
    return rc;
}

static int load(struct eval *eval, struct error *err)
{
    char run[FS_PATH_MAX];
    int rc;

    if (eval->config.checkpoint[0] != '\0') {
        const char *path = eval->config.checkpoint;

        if (access(path, F_OK) != 0)
            return error_set(err, TD_ENOTFOUND, "no checkpoint at %s", path);
        return fs_is_folder(path) ? load_folder(eval, path, err) : load_file(eval, path, err);
    }
    if ((rc = config_run_dir(&eval->config, run, sizeof(run), err)) != TD_OK)
        return rc;
    if (!fs_is_folder(run))
        return error_set(err, TD_ENOTFOUND, "give checkpoint=DIR or checkpoint=FILE.safetensors (there is no run in %s)", run);
    return load_folder(eval, run, err);
}

/* --- showing --- */

static void show_episode(void *context, int index)
{
    const struct eval *eval = context;
    const struct evaluation_episode *episode = &eval->episode[index];

    if (eval->json)
        return;
    printf("episode %d: return %.1f, %d agent steps%s\n", index + 1, episode->reward, episode->length,
           episode->success ? ", success" : "");
    fflush(stdout);
}

static void print_json(const struct eval *eval, const char *task, int count, double mean, double deviation, double success)
{
    printf("{\"name\":\"eval\",\"task\":\"%s\",\"seed\":%" PRId64 ",\"policy\":\"%s\",\"episodes\":%d,", task,
           eval->config.seed, eval->random ? "random" : eval->noisy ? "noisy" : "eval", count);
    if (eval->has_step)
        printf("\"step\":%" PRIu64 ",", eval->step);
    printf("\"return_mean\":%.6g,\"return_std\":%.6g,\"success_rate\":%.6g,\"returns\":[", mean, deviation, success);
    for (int i = 0; i < count; i++)
        printf("%s%.9g", i > 0 ? "," : "", eval->episode[i].reward);
    printf("]}\n");
}

static void print_mean(struct eval *eval, const char *task, int count)
{
    double mean = 0, square = 0, success = 0, deviation;

    for (int i = 0; i < count; i++) {
        mean += eval->episode[i].reward / count;
        success += eval->episode[i].success ? 1.0 / count : 0;
    }
    for (int i = 0; i < count; i++)
        square += (eval->episode[i].reward - mean) * (eval->episode[i].reward - mean);
    deviation = sqrt(square / count);
    eval->mean += mean;
    eval->score += strncmp(task, "mw-", 3) == 0 ? 100 * success : mean / 10;
    if (eval->json) {
        print_json(eval, task, count, mean, deviation, success);
        return;
    }
    printf("mean return %.1f (standard deviation %.1f, %d episode%s)", mean, deviation, count, count == 1 ? "" : "s");
    if (success > 0)
        printf(", success %.0f %%", success * 100);
    putchar('\n');
}

/* videos/<task>-0.mp4 of work_dir, or of the working directory; a plugin's task is a path. */
static int name_video(const struct eval *eval, const char *task, char out[FS_PATH_MAX], struct error *err)
{
    const char *dir = eval->config.work_dir[0] != '\0' ? eval->config.work_dir : ".", *name = strrchr(task, '/');
    char folder[FS_PATH_MAX], file[FS_PATH_MAX];
    int rc;

    snprintf(file, sizeof(file), "%.200s-0.mp4", name != NULL ? name + 1 : task);
    if ((rc = fs_join(folder, dir, "videos", err)) != TD_OK || (rc = fs_mkdirs(folder, 0755, err)) != TD_OK)
        return rc;
    return fs_join(out, folder, file, err);
}

static int evaluate_task(struct eval *eval, int index, struct error *err)
{
    const struct task *task = &eval->tasks.task[index];
    struct evaluation_options options = {.task = task->name,
                                         .index = (uint32_t)index,
                                         .env = env_options(eval->config.obs, eval->config.render),
                                         .seed = (uint64_t)eval->config.seed,
                                         .episodes = (int)eval->config.eval_episodes,
                                         .threads = eval->config.threads > 0 ? (int)eval->config.threads : cores_available(),
                                         .model = eval->model,
                                         .noisy = eval->noisy};
    char video[FS_PATH_MAX];
    int rc;

    mppi_config_init(&options.plan, &eval->config, eval->tasks.action_dim, task->episode_length);
    options.plan.half = derive_half(&eval->config);
    if (!eval->json) {
        printf("%s, seed %" PRId64 ": %s%s", options.task, eval->config.seed, eval->random ? "random actions" : eval->source,
               eval->noisy ? ", with exploration noise" : "");
        if (eval->has_step)
            printf(" (after %" PRIu64 " agent steps)", eval->step);
        putchar('\n');
        fflush(stdout);
    }
    if (eval->config.save_video && (rc = name_video(eval, task->name, video, err)) != TD_OK)
        return rc;
    options.video = eval->config.save_video ? video : NULL;
    rc = evaluation_run(&options, eval->episode, show_episode, eval, err);
    if (rc == TD_OK)
        print_mean(eval, options.task, options.episodes);
    return rc;
}

/* The tasks that the words name must be of those that there are; without words all are wanted. */
static int choose_tasks(const struct eval *eval, bool wanted[TASKS_MAX], struct error *err)
{
    const struct config *words = &eval->words;
    const char *list = words->tasks[0] != '\0' ? words->tasks : eval->given[config_find("task", 4)] ? words->task : "";
    char name[CONFIG_TEXT_MAX];

    for (int i = 0; i < eval->tasks.count; i++)
        wanted[i] = list[0] == '\0' || task_set_named(list) > 0;
    while (list[0] != '\0' && task_set_named(list) == 0) {
        size_t length = strcspn(list, ",");
        int index;

        snprintf(name, sizeof(name), "%.*s", (int)length, list);
        if ((index = task_set_find(&eval->tasks, name)) < 0)
            return error_set(err, TD_EINVAL, "%s is not one of this checkpoint's tasks: %.400s", name,
                             config_tasks(&eval->config));
        wanted[index] = true;
        list += length + (list[length] == ',');
    }
    return TD_OK;
}

static void print_score(const struct eval *eval, int count)
{
    if (eval->json)
        printf("{\"name\":\"eval_tasks\",\"tasks\":%d,\"return_mean\":%.6g,\"normalized_score\":%.6g}\n", count,
               eval->mean / count, eval->score / count);
    else
        printf("%d tasks: mean return %.1f, normalised score %.1f\n", count, eval->mean / count, eval->score / count);
}

static int evaluate(struct eval *eval, struct error *err)
{
    bool wanted[TASKS_MAX] = {true};
    int rc = TD_OK, count = 0;

    if (eval->tasks.multitask && (rc = choose_tasks(eval, wanted, err)) != TD_OK)
        return rc;
    if ((rc = gemm_start(eval->config.threads > 0 ? (int)eval->config.threads : cores_available(), err)) != TD_OK)
        return rc;
    if (derive_half(&eval->config) && eval->model != NULL && (rc = world_model_halve(&eval->model, err)) != TD_OK)
        return rc;
    eval->episode = calloc((size_t)eval->config.eval_episodes, sizeof(*eval->episode));
    if (eval->episode == NULL)
        return error_set(err, TD_ENOMEM, "out of memory");
    for (int i = 0; i < eval->tasks.count && rc == TD_OK; i++) {
        if (!wanted[i])
            continue;
        rc = evaluate_task(eval, i, err);
        count++;
    }
    if (rc == TD_OK && eval->tasks.multitask)
        print_score(eval, count);
    return rc;
}

/* Take --noisy and the like out of the words; returns how many are left. */
static int take_flags(struct eval *eval, int argc, char **argv)
{
    int kept = 0;

    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "--noisy") == 0)
            eval->noisy = true;
        else if (strcmp(argv[i], "--random") == 0)
            eval->random = true;
        else if (strcmp(argv[i], "--json") == 0)
            eval->json = true;
        else
            argv[kept++] = argv[i];
    }
    return kept;
}

static int run(struct eval *eval, int argc, char **argv, bool *given, struct error *err)
{
    int rc;

    eval->given = given;
    config_init(&eval->config);
    argc = take_flags(eval, argc, argv);
    if ((rc = config_parse(&eval->config, argc, argv, given, err)) != TD_OK ||
        (rc = config_check(&eval->config, err)) != TD_OK ||
        (rc = env_task_set(&eval->tasks, &eval->config, err)) != TD_OK)
        return rc;
    eval->words = eval->config;
    if (eval->random && eval->noisy)
        return error_set(err, TD_EINVAL, "--random and --noisy exclude each other");
    if (!eval->random && (rc = load(eval, err)) != TD_OK)
        return rc;
    return evaluate(eval, err);
}

int cmd_eval(int argc, char **argv)
{
    struct eval eval = {0};
    struct error err = {0};
    bool *given;
    int rc;

    if (options_help(argc, argv)) {
        usage(stdout);
        return TD_EXIT_OK;
    }
    watch_deaths();
    given = options_given();
    rc = given == NULL ? error_set(&err, TD_ENOMEM, "out of memory")
                       : watch_guard_begin("tdmpc2 eval", env_timeout_ms(), TD_EXIT_INTERRUPTED, &err);
    if (rc == TD_OK) {
        rc = run(&eval, argc - 1, argv + 1, given, &err);
        watch_guard_end();
    }
    free(given);
    free(eval.episode);
    world_model_destroy(&eval.model);
    task_set_release(&eval.tasks);
    if (rc == TD_OK)
        return TD_EXIT_OK;
    fprintf(stderr, "tdmpc2 eval: %s\n", err.text);
    return error_exit_code(rc);
}
