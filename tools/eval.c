/* eval.c - `tdmpc2 eval`: load a checkpoint, run episodes here, print the returns. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/ckpt/checkpoint.h"
#include "common/env/watch.h"
#include "common/model/dims.h"
#include "common/tensor/gemm.h"
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
    struct evaluation_episode *episode;
};

static void usage(FILE *out)
{
    fprintf(out,
            "usage: tdmpc2 eval [task=TASK] checkpoint=RUN_DIR|CHECKPOINT_DIR|FILE.safetensors [eval_episodes=N]\n"
            "                   [seed=N] [threads=N] [--noisy] [--random] [--json]\n\n"
            "Runs episodes in this process and prints each return and their mean. A run directory stands for its newest\n"
            "valid checkpoint; without checkpoint= the run of task, seed and exp_name is taken. Actions are planned as in\n"
            "the evaluations during training; --noisy adds the exploration noise, as the reference's evaluate.py does;\n"
            "--random needs no checkpoint and acts uniformly at random. A checkpoint brings its options, words win.\n");
}

static bool in_folder(const char *folder, const char *name)
{
    char path[FS_PATH_MAX];

    return fs_join(path, folder, name, NULL) == TD_OK && access(path, F_OK) == 0;
}

static bool is_folder(const char *path)
{
    struct stat info;

    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

/* --- finding and loading --- */

static void say_passed_over(void *context, const char *name, const char *why)
{
    (void)context;
    fprintf(stderr, "tdmpc2 eval: passing over checkpoint %s: %s\n", name, why);
}

/* The checkpoint that a folder is or holds. */
static int open_folder(checkpoint_t **checkpoint, const char *path, struct error *err)
{
    char inside[FS_PATH_MAX];
    int rc;

    if (in_folder(path, "manifest.json"))
        return checkpoint_open(checkpoint, path, err);
    if (in_folder(path, "checkpoints")) {
        if ((rc = fs_join(inside, path, "checkpoints", err)) != TD_OK)
            return rc;
        path = inside;
    }
    return checkpoint_open_newest(checkpoint, path, CHECKPOINT_ANY, say_passed_over, NULL, err);
}

/* The options of the run, and over them those that were given. */
static int take_options(struct eval *eval, const struct manifest *manifest, struct error *err)
{
    struct config fresh = eval->config;
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
        snprintf(word, sizeof(word), "%s=%s", options[i].name, config_format(&fresh, &options[i], value, sizeof(value)));
        if ((rc = config_set(&eval->config, word, err)) != TD_OK)
            return rc;
    }
    return config_check(&eval->config, err);
}

static int find_env(const struct eval *eval, struct env_spec *spec, struct error *err)
{
    struct env_options options = env_options(eval->config.obs, eval->config.render);

    return env_find_with(eval->config.task, &options, spec, err);
}

static int make_model(struct eval *eval, const safetensors_t *file, const char *name, struct error *err)
{
    struct model_dims dims;
    struct env_spec spec;
    struct error why = {0};
    int rc;

    if ((rc = find_env(eval, &spec, err)) != TD_OK ||
        (rc = model_dims_init(&dims, &eval->config, (int)spec.obs_dim, (int)spec.action_dim, err)) != TD_OK ||
        (rc = world_model_create(&eval->model, &dims, false, err)) != TD_OK)
        return rc;
    rc = snapshot_load_parameters(file, eval->model, &why);
    if (rc == TD_ENOTFOUND || rc == TD_EINVAL)
        return error_set(err, TD_EINVAL, "%s does not fit task=%s model_size=%" PRId64 ": %s", name, eval->config.task,
                         eval->config.model_size, why.text);
    return rc == TD_OK ? rc : error_set(err, rc, "%s: %s", name, why.text);
}

static int load_folder(struct eval *eval, const char *path, struct error *err)
{
    checkpoint_t *checkpoint = NULL;
    safetensors_t *file = NULL;
    int rc = open_folder(&checkpoint, path, err);

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

/* A file by itself: inside a checkpoint that one's options count, else those that are given. */
static int load_file(struct eval *eval, const char *path, struct error *err)
{
    char folder[FS_PATH_MAX];
    const char *end = strrchr(path, '.');
    safetensors_t *file = NULL;
    int rc = fs_parent(path, folder, err);

    if (rc != TD_OK)
        return rc;
    if (end != NULL && strcmp(end, ".pt") == 0)
        return error_set(err, TD_EINVAL, "%s is a PyTorch file, which cannot be read yet: give a checkpoint directory or a safetensors file", path);
    if (in_folder(folder, "manifest.json") && strcmp(path + strlen(path) - strlen(SNAPSHOT_PARAMETERS), SNAPSHOT_PARAMETERS) == 0)
        return load_folder(eval, folder, err);
    if ((rc = safetensors_open(&file, path, err)) != TD_OK)
        return rc;
    snprintf(eval->source, sizeof(eval->source), "%s", path);
    rc = make_model(eval, file, path, err);
    safetensors_close(&file);
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
        return is_folder(path) ? load_folder(eval, path, err) : load_file(eval, path, err);
    }
    if ((rc = config_run_dir(&eval->config, run, sizeof(run), err)) != TD_OK)
        return rc;
    if (!is_folder(run))
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

static void print_json(const struct eval *eval, int count, double mean, double deviation, double success)
{
    printf("{\"name\":\"eval\",\"task\":\"%s\",\"seed\":%" PRId64 ",\"policy\":\"%s\",\"episodes\":%d,", eval->config.task,
           eval->config.seed, eval->random ? "random" : eval->noisy ? "noisy" : "eval", count);
    if (eval->has_step)
        printf("\"step\":%" PRIu64 ",", eval->step);
    printf("\"return_mean\":%.6g,\"return_std\":%.6g,\"success_rate\":%.6g,\"returns\":[", mean, deviation, success);
    for (int i = 0; i < count; i++)
        printf("%s%.9g", i > 0 ? "," : "", eval->episode[i].reward);
    printf("]}\n");
}

static void print_mean(const struct eval *eval, int count)
{
    double mean = 0, square = 0, success = 0, deviation;

    for (int i = 0; i < count; i++) {
        mean += eval->episode[i].reward / count;
        success += eval->episode[i].success ? 1.0 / count : 0;
    }
    for (int i = 0; i < count; i++)
        square += (eval->episode[i].reward - mean) * (eval->episode[i].reward - mean);
    deviation = sqrt(square / count);
    if (eval->json) {
        print_json(eval, count, mean, deviation, success);
        return;
    }
    printf("mean return %.1f (standard deviation %.1f, %d episode%s)", mean, deviation, count, count == 1 ? "" : "s");
    if (success > 0)
        printf(", success %.0f %%", success * 100);
    putchar('\n');
}

static int evaluate(struct eval *eval, struct error *err)
{
    struct evaluation_options options = {.task = eval->config.task,
                                         .env = env_options(eval->config.obs, eval->config.render),
                                         .seed = (uint64_t)eval->config.seed,
                                         .episodes = (int)eval->config.eval_episodes,
                                         .model = eval->model,
                                         .noisy = eval->noisy};
    struct env_spec spec;
    int rc = find_env(eval, &spec, err);

    options.threads = eval->config.threads > 0 ? (int)eval->config.threads : cores_available();
    if (rc != TD_OK || (rc = gemm_start(options.threads, err)) != TD_OK)
        return rc;
    mppi_config_init(&options.plan, &eval->config, (int)spec.action_dim, spec.episode_length);
    options.plan.half = derive_half(&eval->config);
    if (options.plan.half && eval->model != NULL && (rc = world_model_halve(&eval->model, err)) != TD_OK)
        return rc;
    options.model = eval->model;
    eval->episode = calloc((size_t)options.episodes, sizeof(*eval->episode));
    if (eval->episode == NULL)
        return error_set(err, TD_ENOMEM, "out of memory");
    if (!eval->json) {
        printf("%s, seed %" PRId64 ": %s%s", options.task, eval->config.seed, eval->random ? "random actions" : eval->source,
               eval->noisy ? ", with exploration noise" : "");
        if (eval->has_step)
            printf(" (after %" PRIu64 " agent steps)", eval->step);
        putchar('\n');
        fflush(stdout);
    }
    rc = evaluation_run(&options, eval->episode, show_episode, eval, err);
    if (rc == TD_OK)
        print_mean(eval, options.episodes);
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
    struct env_spec spec;
    int rc;

    eval->given = given;
    config_init(&eval->config);
    argc = take_flags(eval, argc, argv);
    if ((rc = config_parse(&eval->config, argc, argv, given, err)) != TD_OK ||
        (rc = config_check(&eval->config, err)) != TD_OK || (rc = find_env(eval, &spec, err)) != TD_OK)
        return rc;
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
    rc = given == NULL ? error_set(&err, TD_ENOMEM, "out of memory") : run(&eval, argc - 1, argv + 1, given, &err);
    free(given);
    free(eval.episode);
    world_model_destroy(&eval.model);
    if (rc == TD_OK)
        return TD_EXIT_OK;
    fprintf(stderr, "tdmpc2 eval: %s\n", err.text);
    return error_exit_code(rc);
}
