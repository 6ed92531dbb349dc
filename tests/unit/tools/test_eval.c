#include "tests/support/test.h"

#include <math.h>
#include <unistd.h>

#include "common/env/tasks.h"
#include "learner/snapshot.h"
#include "tools/commands.h"
#include "tools/evaluation.h"

static char folder[FS_PATH_MAX], printed[1 << 16];

static void small(struct config *config)
{
    config_init(config);
    snprintf(config->task, sizeof(config->task), "toy:20");
    config->enc_dim = config->mlp_dim = 32;
    config->latent_dim = 16;
    config->num_samples = 32;
    config->num_elites = 8;
    config->num_pi_trajs = 4;
    config->eval_episodes = 3;
}

static world_model_t *make_model(const struct config *config, bool targets)
{
    world_model_t *model;
    struct model_dims dims;
    struct task_set tasks;
    struct error err = {0};

    assert_ok(env_task_set(&tasks, config, &err), err);
    assert_ok(model_dims_init_tasks(&dims, config, &tasks, &err), err);
    assert_ok(world_model_create(&model, &dims, targets, &err), err);
    if (tasks.multitask)
        world_model_set_tasks(model, &tasks);
    task_set_release(&tasks);
    world_model_init(model, 1);
    /* reward and Q start at zero: give them something to prefer */
    for (int i = 0; i < model->layout.tensors; i++) {
        const struct model_tensor *tensor = &model->layout.tensor[i];
        float scale = 0.05f;

        if (tensor->part != MODEL_REWARD && tensor->part != MODEL_Q && tensor->part != MODEL_PI)
            continue;
        rng_normal(test_rng(), model->parameters + tensor->offset, tensor->count);
        for (size_t j = 0; j < tensor->count; j++)
            model->parameters[tensor->offset + j] *= scale;
    }
    return model;
}

static void run(const struct config *config, const world_model_t *model, int threads, bool noisy,
                struct evaluation_episode *episode)
{
    struct evaluation_options options = {.task = config->task, .seed = 5, .episodes = 4, .threads = threads,
                                         .model = model, .noisy = noisy};
    struct env_spec spec;
    struct error err = {0};

    assert_ok(env_find(config->task, &spec, &err), err);
    mppi_config_init(&options.plan, config, (int)spec.action_dim, spec.episode_length);
    assert_ok(evaluation_run(&options, episode, NULL, NULL, &err), err);
    for (int i = 0; i < 4; i++)
        assert_true(episode[i].done && episode[i].length == 20);
}

static void returns_do_not_depend_on_threads(void **state)
{
    struct evaluation_episode one[4], three[4], noisy[4], random[4];
    struct config config;
    world_model_t *model;

    (void)state;
    small(&config);
    model = make_model(&config, false);
    run(&config, model, 1, false, one);
    run(&config, model, 3, false, three);
    run(&config, model, 2, true, noisy);
    run(&config, NULL, 2, false, random);
    for (int i = 0; i < 4; i++) {
        assert_true(one[i].reward == three[i].reward);
        assert_true(one[i].reward != noisy[i].reward);
        assert_true(one[i].reward != random[i].reward);
        assert_true(i == 0 || one[i].reward != one[i - 1].reward); /* other initial states */
    }
    world_model_destroy(&model);
}

static void what_is_not_finite_ends_it(void **state)
{
    struct evaluation_episode episode[4];
    struct evaluation_options options = {.task = "toy:20", .episodes = 4, .threads = 2};
    struct config config;
    struct error err = {0};
    world_model_t *model;

    (void)state;
    small(&config);
    config.mpc = false;
    model = make_model(&config, false);
    for (size_t i = 0; i < model_acting_floats(&model->layout); i++)
        model->parameters[i] = NAN;
    options.model = model;
    mppi_config_init(&options.plan, &config, 2, 20);
    assert_int_equal(evaluation_run(&options, episode, NULL, NULL, &err), TD_EDIVERGED);
    assert_non_null(strstr(err.text, "not finite"));
    world_model_destroy(&model);
}

/* Call a command with these words; what it prints goes to `printed`. */
static int call_command(int (*command)(int, char **), const char *name, const char *const *words)
{
    char file[FS_PATH_MAX], *argv[16] = {(char *)(uintptr_t)name}, *copies[16] = {0};
    int argc = 1, code, out = dup(STDOUT_FILENO), errors = dup(STDERR_FILENO);
    size_t length;
    FILE *sink;

    for (; *words != NULL; words++, argc++)
        argv[argc] = copies[argc] = strdup(*words);
    assert_int_equal(fs_join(file, test_folder(), "printed", NULL), TD_OK);
    fflush(stdout);
    fflush(stderr);
    sink = fopen(file, "w+");
    dup2(fileno(sink), STDOUT_FILENO);
    dup2(fileno(sink), STDERR_FILENO);
    code = command(argc, argv);
    fflush(stdout);
    fflush(stderr);
    dup2(out, STDOUT_FILENO);
    dup2(errors, STDERR_FILENO);
    close(out);
    close(errors);
    rewind(sink);
    length = fread(printed, 1, sizeof(printed) - 1, sink);
    printed[length] = '\0';
    fclose(sink);
    for (int i = 0; i < 16; i++)
        free(copies[i]);
    return code;
}

static int call(const char *const *words)
{
    return call_command(cmd_eval, "eval", words);
}

static void assert_says(const char *text)
{
    if (strstr(printed, text) == NULL)
        fail_msg("\"%s\" is not in:\n%s", text, printed);
}

static void assert_refused(const char *text, const char *const *words)
{
    assert_int_equal(call(words), TD_EXIT_BAD_INPUT);
    assert_says(text);
    assert_ptr_equal(strchr(printed, '\n'), printed + strlen(printed) - 1); /* one sentence */
}

static void write_config(const char *name, const struct config *config)
{
    struct update_config options;
    struct manifest manifest;
    struct error err = {0};
    world_model_t *model;
    snapshot_t *snapshot;
    update_t *update;
    pool_t *pool;

    assert_int_equal(manifest_init(&manifest), TD_OK);
    manifest.config = *config;
    manifest.config.batch_size = 4;
    manifest.step = 1234;
    model = make_model(&manifest.config, true);
    assert_ok(pool_create(&pool, 1, &err), err);
    update_config_init(&options, &manifest.config, 20);
    assert_ok(update_create(&update, model, &options, pool, &err), err);
    assert_ok(snapshot_create(&snapshot, model, update, SNAPSHOT_IN_MEMORY, NULL, &err), err);
    assert_int_equal(snapshot_take(snapshot, &err), TD_OK);
    struct checkpoint_parts parts = {.groups = snapshot_groups(snapshot), .group_count = SNAPSHOT_GROUPS};
    assert_ok(checkpoint_write(folder, name, &manifest, &parts, &err), err);
    snapshot_destroy(&snapshot);
    update_destroy(&update);
    pool_destroy(&pool);
    world_model_destroy(&model);
    manifest_release(&manifest);
}

static void write_checkpoint_of(const char *name, const char *tasks)
{
    struct config config;

    small(&config);
    snprintf(config.tasks, sizeof(config.tasks), "%s", tasks);
    write_config(name, &config);
}

static void write_checkpoint(const char *name)
{
    write_checkpoint_of(name, "");
}

static char *word(const char *name)
{
    static char out[4][FS_PATH_MAX + 16];
    static int next;

    next = (next + 1) % 4;
    snprintf(out[next], sizeof(out[next]), "checkpoint=%.4000s%.80s", folder, name);
    return out[next];
}

static void a_checkpoint_brings_its_options(void **state)
{
    char first[sizeof(printed)], file[FS_PATH_MAX];

    (void)state;
    assert_int_equal(fs_join(folder, test_folder(), "checkpoints", NULL), TD_OK);
    write_checkpoint("step-1");
    assert_int_equal(call((const char *const[]){word("/step-1"), NULL}), TD_EXIT_OK);
    assert_says("toy:20, seed 1: ");
    assert_says("(after 1234 agent steps)");
    assert_says("episode 3: return ");
    assert_says("mean return ");
    strcpy(first, strstr(printed, "mean return"));
    assert_int_equal(call((const char *const[]){word(""), NULL}), TD_EXIT_OK); /* the newest in the folder */
    assert_string_equal(strstr(printed, "mean return"), first);
    assert_int_equal(call((const char *const[]){word("/step-1/parameters.safetensors"), NULL}), TD_EXIT_OK);
    assert_string_equal(strstr(printed, "mean return"), first);
    assert_int_equal(call((const char *const[]){word(""), "--noisy", "eval_episodes=1", NULL}), TD_EXIT_OK);
    assert_says("with exploration noise");
    assert_null(strstr(printed, "episode 2"));
    assert_int_equal(call((const char *const[]){word(""), "--json", "seed=9", NULL}), TD_EXIT_OK);
    assert_says("\"seed\":9");
    assert_says("\"step\":1234");
    assert_int_equal(call((const char *const[]){"--random", "task=toy:5", "eval_episodes=2", NULL}), TD_EXIT_OK);
    assert_says("random actions");

    /* a file by itself says its sizes; those that are given must be its own */
    assert_int_equal(fs_join(file, test_folder(), "alone.safetensors", NULL), TD_OK);
    assert_int_equal(symlink("checkpoints/step-1/parameters.safetensors", file), 0);
    char alone[FS_PATH_MAX + 16];
    snprintf(alone, sizeof(alone), "checkpoint=%s", file);
    assert_int_equal(call((const char *const[]){alone, "task=toy:20", "eval_episodes=1", NULL}), TD_EXIT_OK);
    assert_says("mean return ");
    assert_int_equal(call((const char *const[]){alone, "task=toy:20", "enc_dim=32", "mlp_dim=32", "latent_dim=16",
                                                "eval_episodes=1", NULL}),
                     TD_EXIT_OK);
}

/* All of them, or those that are named; narrower ones are padded to the widest. */
static void several_tasks_are_told_one_by_one(void **state)
{
    (void)state;
    assert_int_equal(fs_join(folder, test_folder(), "several", NULL), TD_OK);
    write_checkpoint_of("step-1", "toy:9,toy-oppose:7,toy-copy:8");
    assert_int_equal(call((const char *const[]){word(""), "eval_episodes=2", NULL}), TD_EXIT_OK);
    assert_says("toy:9, seed 1: ");
    assert_says(", 9 agent steps");
    assert_says("toy-oppose:7, seed 1: ");
    assert_says(", 7 agent steps");
    assert_says("toy-copy:8, seed 1: ");
    assert_says("3 tasks: mean return ");
    assert_says(", normalised score ");
    assert_int_equal(call((const char *const[]){word(""), "--json", "tasks=toy-copy:8,toy:9", NULL}), TD_EXIT_OK);
    assert_says("{\"name\":\"eval\",\"task\":\"toy-copy:8\"");
    assert_says("{\"name\":\"eval_tasks\",\"tasks\":2,");
    assert_null(strstr(printed, "toy-oppose"));
    assert_int_equal(call((const char *const[]){word(""), "task=toy-oppose:7", NULL}), TD_EXIT_OK);
    assert_says("1 tasks: ");
    assert_refused("toy:10 is not one of this checkpoint's tasks: toy:9,toy-oppose:7,toy-copy:8",
                   (const char *const[]){word(""), "task=toy:10", NULL});
}

/* --- files by themselves, as models are published ------------------------------ */

/* A run's directory of that name with one checkpoint in it, and `export` of it as FILE. Returns checkpoint=FILE. */
static const char *publish(const char *run, const struct config *config, const char *file)
{
    static char out[4][FS_PATH_MAX + 16];
    static int next;
    char dir[FS_PATH_MAX], path[FS_PATH_MAX];

    next = (next + 1) % 4;
    assert_int_equal(fs_join(dir, test_folder(), run, NULL), TD_OK);
    assert_int_equal(fs_join(folder, dir, "checkpoints", NULL), TD_OK);
    assert_int_equal(fs_join(path, test_folder(), file, NULL), TD_OK);
    write_config("step-1", config);
    assert_int_equal(call_command(cmd_checkpoint, "checkpoint", (const char *const[]){"export", dir, path, NULL}), TD_EXIT_OK);
    snprintf(out[next], sizeof(out[next]), "checkpoint=%s", path);
    return out[next];
}

/* What comes out of a run's directory is what comes out of its checkpoint, and acts the same as both. */
static void a_run_is_published(void **state)
{
    static const char *const plan[] = {"num_samples=32", "num_elites=8", "num_pi_trajs=4", "eval_episodes=2"};
    char other[FS_PATH_MAX], *one, *two, expected[4096];
    struct config config;
    struct error err = {0};
    size_t length, length2;
    const char *file;

    (void)state;
    small(&config);
    file = publish("toys", &config, "toy.pt");
    assert_int_equal(fs_join(other, test_folder(), "other.pt", NULL), TD_OK);
    char step[FS_PATH_MAX + 16], ours[FS_PATH_MAX + 16], ours_word[FS_PATH_MAX + 32];
    snprintf(step, sizeof(step), "%s/step-1", folder);
    assert_int_equal(call_command(cmd_checkpoint, "checkpoint", (const char *const[]){"export", step, other, NULL}), TD_EXIT_OK);
    assert_ok(fs_read_file(strchr(file, '=') + 1, 1 << 24, &one, &length, &err), err);
    assert_ok(fs_read_file(other, 1 << 24, &two, &length2, &err), err);
    assert_int_equal(length, length2);
    assert_memory_equal(one, two, length);
    free(one);
    free(two);
    snprintf(ours, sizeof(ours), "%s/toy.safetensors", test_folder());
    assert_int_equal(call_command(cmd_checkpoint, "checkpoint", (const char *const[]){"import", other, ours, NULL}), TD_EXIT_OK);
    snprintf(ours_word, sizeof(ours_word), "checkpoint=%s", ours);

    assert_int_equal(call((const char *const[]){word(""), "--noisy", "--json", plan[3], NULL}), TD_EXIT_OK);
    snprintf(expected, sizeof(expected), "%s", strstr(printed, "\"return_mean\""));
    assert_int_equal(call((const char *const[]){"task=toy:20", file, "--json", plan[0], plan[1], plan[2], plan[3], NULL}), TD_EXIT_OK);
    assert_says("\"policy\":\"noisy\"");
    assert_string_equal(strstr(printed, "\"return_mean\""), expected);
    assert_int_equal(call((const char *const[]){"task=toy:20", ours_word, "--noisy", "--json", plan[0], plan[1], plan[2], plan[3],
                                                NULL}),
                     TD_EXIT_OK);
    assert_string_equal(strstr(printed, "\"return_mean\""), expected);
}

/* The reference's own file of a model on pixels: no word says that it is one. */
static void a_file_of_pixels_says_so(void **state)
{
    (void)state;
    if (!test_long()) /* 8 s of pictures */
        return;
    assert_int_equal(call((const char *const[]){"task=reacher-three-easy", "checkpoint=tests/golden/tiny-rgb.pt", "eval_episodes=1",
                                                NULL}), TD_EXIT_OK);
    assert_says("tiny-rgb.pt, with exploration noise");
    assert_says("episode 1: return ");
}

/* The task and the file, nothing else: kind and sizes of the model are the file's. */
static void two_words_are_enough(void **state)
{
    static const struct {
        const char *task, *file, *words[2];
        int64_t size; /* 0: small */
        bool episodic;
    } cases[] = {
        {"dog-run", "dog-1.pt", {"eval_episodes=1", "mpc=false"}, 0, false}, /* 11 s with its plans */
        {"toy:2", "one.pt", {NULL}, 1, false},
        {"toy:3", "five.pt", {"eval_episodes=1", NULL}, 5, false},
        {"toy-episodic:20", "fall.pt", {NULL}, 0, true},
        {"toy:9,toy-oppose:7", "several.pt", {NULL}, 0, false},
    };
    char line[200];

    (void)state;
    for (size_t i = 0; i < TD_LEN(cases); i++) {
        bool several = strchr(cases[i].task, ',') != NULL;
        struct config config;
        const char *file;
        char task[100];

        small(&config);
        if (cases[i].size > 0) {
            config_init(&config);
            snprintf(line, sizeof(line), "model_size=%d", (int)cases[i].size);
            assert_int_equal(config_parse(&config, 1, (char *[]){line}, NULL, NULL), TD_OK);
        }
        config.episodic = cases[i].episodic;
        snprintf(several ? config.tasks : config.task, sizeof(config.task), "%s", cases[i].task);
        snprintf(task, sizeof(task), "task%s=%s", several ? "s" : "", cases[i].task);
        file = publish(cases[i].file + 1, &config, cases[i].file);
        assert_int_equal(call((const char *const[]){task, file, test_long() ? NULL : cases[i].words[0], cases[i].words[1], NULL}),
                         TD_EXIT_OK);
        snprintf(line, sizeof(line), "%s, with exploration noise", cases[i].file);
        assert_says(line);
        assert_says(several ? "2 tasks: mean return " : "mean return ");
        assert_int_equal(call_command(cmd_checkpoint, "checkpoint", (const char *const[]){"show", strchr(file, '=') + 1, NULL}),
                         TD_EXIT_OK);
        snprintf(line, sizeof(line), cases[i].size > 0 ? "model_size=%d" : "mlp_dim=%d", cases[i].size > 0 ? (int)cases[i].size : 32);
        assert_says(line);
        assert_refused(several ? "was trained on 2 tasks, walker-walk names 1" : "does not fit task=walker-walk: it is of a task with",
                       (const char *const[]){"task=walker-walk", file, NULL});
    }
}

static void bad_input_is_one_sentence(void **state)
{
    char path[FS_PATH_MAX + 64];
    FILE *file;

    (void)state;
    assert_int_equal(fs_join(folder, test_folder(), "spoilt", NULL), TD_OK);
    assert_refused("no checkpoint at", (const char *const[]){word(""), NULL});
    assert_refused("unknown option 'episodez'", (const char *const[]){"episodez=3", NULL});
    assert_refused("unknown task", (const char *const[]){"task=nothing", "--random", NULL});
    assert_refused("exclude each other", (const char *const[]){"task=toy", "--random", "--noisy", NULL});
    assert_refused("there is no run in", (const char *const[]){"task=toy", "exp_name=none", NULL});
    write_checkpoint("step-1");
    assert_refused("does not fit task=cartpole-swingup", (const char *const[]){word(""), "task=cartpole-swingup", NULL});
    snprintf(path, sizeof(path), "%s/step-1/parameters.safetensors", folder);
    file = fopen(path, "r+");
    fseek(file, -1, SEEK_END);
    fputc('x', file);
    fclose(file);
    assert_refused("is damaged", (const char *const[]){word("/step-1"), NULL});
    assert_int_equal(truncate(path, 20), 0);
    assert_refused("bytes instead of", (const char *const[]){word("/step-1"), NULL});
    assert_int_equal(call((const char *const[]){word(""), NULL}), TD_EXIT_BAD_INPUT);
    assert_says("passing over checkpoint step-1");
    assert_says("every checkpoint in");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(returns_do_not_depend_on_threads),
        cmocka_unit_test(what_is_not_finite_ends_it),
        cmocka_unit_test(a_checkpoint_brings_its_options),
        cmocka_unit_test(several_tasks_are_told_one_by_one),
        cmocka_unit_test(a_run_is_published),
        cmocka_unit_test(a_file_of_pixels_says_so),
        cmocka_unit_test(two_words_are_enough),
        cmocka_unit_test(bad_input_is_one_sentence),
    };

    setenv("TMPDIR", "/dev/shm", 0); /* nothing here is about a real disk, which may be slow to sync */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
