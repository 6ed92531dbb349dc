#include "tests/support/test.h"

#include <unistd.h>

#include "common/ckpt/weights.h"
#include "learner/finetune.h"
#include "learner/snapshot.h"

static pool_t *pool;
static int folders;

static struct config tiny(const char *task, const char *tasks)
{
    struct config config;

    config_init(&config);
    snprintf(config.task, sizeof(config.task), "%s", task);
    snprintf(config.tasks, sizeof(config.tasks), "%s", tasks);
    config.enc_dim = config.mlp_dim = 24;
    config.latent_dim = 16;
    config.num_bins = 11;
    config.batch_size = 4;
    config.task_dim = 6;
    return config;
}

/* walker: 24 observations, 6 actions; cartpole: 5 and 1; anything else: 3 and 2. */
static int ask(const void *context, struct task *task, struct error *err)
{
    bool walker = strncmp(task->name, "walker", 6) == 0, cartpole = strncmp(task->name, "cartpole", 8) == 0;

    (void)context;
    (void)err;
    task->obs_dim = walker ? 24 : cartpole ? 5 : 3;
    task->action_dim = walker ? 6 : cartpole ? 1 : 2;
    task->episode_length = 100;
    return TD_OK;
}

struct made {
    struct task_set tasks;
    world_model_t *model;
    update_t *update;
};

static struct made make(const struct config *config)
{
    const struct task_source source = {.ask = ask};
    struct update_config options;
    struct model_dims dims;
    struct error err = {0};
    struct made made;

    assert_ok(task_set_init(&made.tasks, config, &source, &err), err);
    assert_ok(model_dims_init_tasks(&dims, config, &made.tasks, &err), err);
    assert_ok(world_model_create(&made.model, &dims, true, &err), err);
    if (made.tasks.multitask)
        world_model_set_tasks(made.model, &made.tasks);
    world_model_init(made.model, (uint64_t)config->seed);
    update_config_init(&options, config, 100);
    assert_ok(update_create(&made.update, made.model, &options, pool, &err), err);
    return made;
}

static void unmake(struct made *made)
{
    update_destroy(&made->update);
    world_model_destroy(&made->model);
    task_set_release(&made->tasks);
}

/* A trained model as a checkpoint of a run; its place goes to path. */
static struct made trained(const struct config *config, char path[FS_PATH_MAX])
{
    struct made made = make(config);
    struct update_state state = update_state(made.update);
    struct checkpoint_parts parts = {.group_count = SNAPSHOT_GROUPS};
    char folder[FS_PATH_MAX], name[32];
    struct manifest manifest;
    struct error err = {0};
    snapshot_t *snapshot;

    for (int i = 0; i < made.model->layout.tensors; i++) {
        const struct model_tensor *tensor = &made.model->layout.tensor[i];

        rng_normal(test_rng(), made.model->parameters + tensor->offset, tensor->count);
        if (tensor->part != MODEL_TARGET_Q)
            rng_normal(test_rng(), state.m + tensor->offset, tensor->count);
    }
    *state.steps = 777;
    state.scale->value = 2.5f;
    assert_ok(snapshot_create(&snapshot, made.model, made.update, SNAPSHOT_LIVE, NULL, &err), err);
    assert_int_equal(snapshot_take(snapshot, &err), TD_OK);
    parts.groups = snapshot_groups(snapshot);
    assert_int_equal(manifest_init(&manifest), TD_OK);
    manifest.kind = CHECKPOINT_FINAL;
    manifest.config = *config;
    snprintf(name, sizeof(name), "run%d", folders++);
    assert_ok(fs_join(path, test_folder(), name, &err), err);
    assert_ok(fs_join(folder, path, "checkpoints", &err), err);
    assert_ok(checkpoint_write(folder, "final", &manifest, &parts, &err), err);
    manifest_release(&manifest);
    snapshot_destroy(&snapshot);
    return made;
}

static void gather(void *context, const char *line)
{
    strncat(context, line, 400);
    strncat(context, "\n", 2);
}

static void the_same_task_goes_on_where_it_was(void **state)
{
    struct config config = tiny("cartpole-swingup", "");
    char path[FS_PATH_MAX], text[3000] = "";
    struct made old = trained(&config, path), new;
    struct update_state was = update_state(old.update), now;
    size_t all = model_all_floats(&old.model->layout), acting = model_acting_floats(&old.model->layout);
    struct error err = {0};
    finetune_t *finetune;

    (void)state;
    for (int optimizer = 0; optimizer < 2; optimizer++) {
        config.seed = 9;
        config.finetune_optimizer = optimizer;
        snprintf(config.checkpoint, sizeof(config.checkpoint), "%.500s", path);
        new = make(&config);
        now = update_state(new.update);
        assert_ok(finetune_open(&finetune, &config, &new.tasks, &err), err);
        assert_ok(finetune_apply(finetune, new.model, new.update, gather, text, &err), err);
        finetune_close(&finetune);
        assert_memory_equal(new.model->parameters, old.model->parameters, all * sizeof(float));
        assert_true((*now.steps == 777) == optimizer && (now.scale->value == 2.5f) == optimizer);
        assert_true((memcmp(now.m, was.m, acting * sizeof(float)) == 0) == optimizer);
        assert_memory_equal(now.v, was.v, acting * sizeof(float));
        unmake(&new);
    }
    assert_non_null(strstr(text, "checkpoints/final, its optimiser anew\n"));
    assert_non_null(strstr(text, "checkpoints/final, its optimiser too\n"));
    unmake(&old);
}

/* Known tasks by name; others as finetune_task says. */
static void tasks_find_their_embeddings(void **state)
{
    static const struct {
        const char *word, *begins;
    } cases[] = {
        {"", "pendulum begins with the mean of 2 embeddings"},
        {"mean", "pendulum begins with the mean of 2 embeddings"},
        {"fresh", "pendulum begins with a fresh embedding"},
        {"1", "pendulum begins with the embedding of cartpole-balance"},
        {"walker-walk", "pendulum begins with the embedding of walker-walk"},
    };
    struct config config = tiny("none", "walker-walk,cartpole-balance");
    char path[FS_PATH_MAX];
    struct made old = trained(&config, path), new;
    struct error err = {0};

    (void)state;
    config = tiny("none", "pendulum,cartpole-balance");
    snprintf(config.checkpoint, sizeof(config.checkpoint), "%.500s", path);
    for (size_t i = 0; i < TD_LEN(cases); i++) {
        char text[3000] = "";

        snprintf(config.finetune_task, sizeof(config.finetune_task), "%s", cases[i].word);
        new = make(&config);
        assert_ok(finetune_check(&config, &new.model->layout.dims, &new.tasks, gather, text, &err), err);
        assert_non_null(strstr(text, cases[i].begins));
        assert_non_null(strstr(text, "cartpole-balance begins with the embedding of cartpole-balance"));
        assert_non_null(strstr(text, "observations: 5 components, the checkpoint has 24"));
        unmake(&new);
    }
    for (int bad = 0; bad < 2; bad++) {
        snprintf(config.finetune_task, sizeof(config.finetune_task), "%s", bad ? "2" : "hopper-hop");
        new = make(&config);
        assert_int_equal(finetune_check(&config, &new.model->layout.dims, &new.tasks, NULL, NULL, &err), TD_EINVAL);
        assert_non_null(strstr(err.text, "is none of the checkpoint's tasks, nor one of 0 to 1, mean, fresh"));
        unmake(&new);
    }
    unmake(&old);
}

static void sizes_come_from_the_checkpoint_unless_given(void **state)
{
    struct config config = tiny("walker-walk", ""), fresh;
    char path[FS_PATH_MAX];
    struct made old = trained(&config, path), new;
    struct error err = {0};
    bool *given;
    int count;

    (void)state;
    config_options(&count);
    given = calloc((size_t)count, sizeof(*given));
    config_init(&fresh);
    snprintf(fresh.checkpoint, sizeof(fresh.checkpoint), "%.500s", path);
    assert_ok(finetune_adopt(&fresh, given, &err), err);
    assert_true(fresh.mlp_dim == 24 && fresh.latent_dim == 16 && fresh.num_bins == 11 && fresh.batch_size == 256);
    for (int i = 0; i < count; i++)
        given[i] = strcmp(config_options(&count)[i].name, "mlp_dim") == 0;
    fresh.mlp_dim = 32;
    assert_ok(finetune_adopt(&fresh, given, &err), err);
    assert_int_equal(fresh.mlp_dim, 32);
    new = make(&fresh);
    assert_int_equal(finetune_check(&fresh, &new.model->layout.dims, &new.tasks, NULL, NULL, &err), TD_EINVAL);
    assert_non_null(strstr(err.text, "does not fit: the checkpoint was trained with mlp_dim=24, this run has mlp_dim=32"));
    snprintf(fresh.checkpoint, sizeof(fresh.checkpoint), "%.400s/nothing", path);
    assert_int_equal(finetune_adopt(&fresh, given, &err), TD_ENOTFOUND);
    free(given);
    unmake(&new);
    unmake(&old);
}

/* The model of `made` as a file, as `checkpoint export` writes it; note may be NULL. */
static void export(const struct made *made, const char *name, const char *note, char path[FS_PATH_MAX])
{
    int actions[TASKS_MAX], rc;
    struct error err = {0};

    for (int i = 0; i < made->tasks.count; i++)
        actions[i] = made->tasks.task[i].action_dim;
    assert_ok(fs_join(path, test_folder(), name, &err), err);
    unlink(path);
    rc = strstr(name, ".pt") != NULL
             ? weights_write_pt(path, &made->model->layout, made->model->parameters, actions, &err)
             : weights_write_safetensors(path, &made->model->layout, made->model->parameters, actions,
                                         &(struct safetensors_note){"config", note}, note != NULL, &err);
    assert_ok(rc, err);
}

/* `train task=X checkpoint=FILE`: what stands in a folder beside it plays no part. */
static void a_file_by_itself_begins_a_run(void **state)
{
    static const char *const names[] = {"model.pt", "model.safetensors"};
    char folder[FS_PATH_MAX], path[FS_PATH_MAX];
    struct config config = tiny("cartpole-swingup", "");
    struct made old = trained(&config, folder), new;
    struct error err = {0};
    finetune_t *finetune;
    bool *given;
    int count;

    (void)state;
    config_options(&count);
    given = calloc((size_t)count, sizeof(*given));
    for (size_t i = 0; i < TD_LEN(names); i++) {
        char text[3000] = "";

        export(&old, names[i], "{\"vmin\":-10,\"vmax\":10,\"simnorm_dim\":8}", path);
        config_init(&config);
        strcpy(config.task, "cartpole-swingup");
        strcpy(config.checkpoint, path);
        config.batch_size = 4;
        assert_ok(finetune_adopt(&config, given, &err), err);
        assert_true(config.model_size == 0 && config.mlp_dim == 24 && config.latent_dim == 16 && config.num_bins == 11);
        new = make(&config);
        assert_ok(finetune_open(&finetune, &config, &new.tasks, &err), err);
        assert_ok(finetune_apply(finetune, new.model, new.update, gather, text, &err), err);
        finetune_close(&finetune);
        assert_memory_equal(new.model->parameters, old.model->parameters,
                            model_all_floats(&old.model->layout) * sizeof(float));
        assert_int_equal(*update_state(new.update).steps, 0);
        assert_non_null(strstr(text, names[i]));
        config.finetune_optimizer = true;
        assert_int_equal(finetune_check(&config, &new.model->layout.dims, &new.tasks, NULL, NULL, &err), TD_EINVAL);
        assert_non_null(strstr(err.text, "holds no optimiser's state"));
        unmake(&new);
    }
    /* a file of pixels does not tell the sizes of an encoder of states */
    strcpy(config.checkpoint, "tests/golden/tiny-rgb.pt");
    assert_ok(finetune_adopt(&config, given, &err), err);
    assert_true(config.enc_dim == 256 && config.num_enc_layers == 2);
    /* the parameters inside a checkpoint are that checkpoint */
    snprintf(config.checkpoint, sizeof(config.checkpoint), "%.400s/checkpoints/final/parameters.safetensors", folder);
    assert_ok(finetune_adopt(&config, given, &err), err);
    assert_string_equal(strrchr(config.checkpoint, '/'), "/final");
    free(given);
    unmake(&old);
}

/* A file names its tasks in the note of our export; else an index, or the mean, is all there is. */
static void tasks_of_a_file(void **state)
{
    static const struct {
        const char *note, *word, *begins;
    } cases[] = {
        {NULL, "", "walker-walk, a single task, has no embedding: the mean of 2 embeddings"},
        {NULL, "1", "walker-walk, a single task, has no embedding: embedding 1 is added"},
        {NULL, "walker-walk", NULL},
        {"{\"tasks\":\"walker-walk,cartpole-balance\"}", "", "no embedding: the embedding of walker-walk"},
        {"{\"tasks\":\"walker-stand,cartpole-balance\"}", "1", "no embedding: the embedding of cartpole-balance"},
    };
    struct config config = tiny("none", "walker-walk,cartpole-balance");
    char path[FS_PATH_MAX];
    struct made old = make(&config), new;
    struct error err = {0};

    (void)state;
    for (size_t i = 0; i < TD_LEN(cases); i++) {
        char text[3000] = "";
        int rc;

        export(&old, i == 0 ? "several.pt" : "several.safetensors", cases[i].note, path);
        config = tiny("walker-walk", "");
        strcpy(config.checkpoint, path);
        strcpy(config.finetune_task, cases[i].word);
        new = make(&config);
        rc = finetune_check(&config, &new.model->layout.dims, &new.tasks, gather, text, &err);
        if (cases[i].begins != NULL) {
            assert_ok(rc, err);
            assert_non_null(strstr(text, cases[i].begins));
        } else {
            assert_int_equal(rc, TD_EINVAL);
            assert_non_null(strstr(err.text, "the file does not name its tasks; give one of 0 to 1, mean, fresh"));
        }
        unmake(&new);
    }
    unmake(&old);
}

static void files_that_are_refused(void **state)
{
    static const struct {
        const char *note, *says;
    } cases[] = {
        {"{\"tasks\":\"a,b,c\"}", "names 3 tasks and holds embeddings of 2"},
        {"{\"tasks\":\"a,a\"}", "its list of tasks: "},
        {"{\"simnorm_dim\":-3}", "its note says simnorm_dim"},
        {"{\"vmin\":20}", "vmin=20"},
    };
    struct config config = tiny("none", "walker-walk,cartpole-balance");
    struct made old = make(&config);
    char path[FS_PATH_MAX];
    struct error err = {0};
    FILE *file;

    (void)state;
    for (size_t i = 0; i < TD_LEN(cases); i++) {
        export(&old, "bad.safetensors", cases[i].note, path);
        strcpy(config.checkpoint, path);
        assert_true(finetune_check(&config, &old.model->layout.dims, &old.tasks, NULL, NULL, &err) != TD_OK);
        assert_non_null(strstr(err.text, "bad.safetensors"));
        assert_non_null(strstr(err.text, cases[i].says));
    }
    export(&old, "bad.pt", NULL, path);
    strcpy(config.checkpoint, path);
    assert_int_equal(truncate(path, 5000), 0);
    assert_int_equal(finetune_check(&config, &old.model->layout.dims, &old.tasks, NULL, NULL, &err), TD_ECORRUPT);
    assert_non_null(strstr(err.text, "bad.pt"));
    assert_non_null(file = fopen(path, "w"));
    fputs("task: walker-walk\n", file);
    fclose(file);
    assert_int_equal(finetune_check(&config, &old.model->layout.dims, &old.tasks, NULL, NULL, &err), TD_ECORRUPT);
    strcpy(config.checkpoint, "/dev/null");
    assert_int_equal(finetune_check(&config, &old.model->layout.dims, &old.tasks, NULL, NULL, &err), TD_EINVAL);
    assert_non_null(strstr(err.text, "neither a directory nor a file"));
    unmake(&old);
}

static int set_up(void **state)
{
    struct error err = {0};

    (void)state;
    assert_ok(pool_create(&pool, 1, &err), err);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    pool_destroy(&pool);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_task_goes_on_where_it_was),
        cmocka_unit_test(tasks_find_their_embeddings),
        cmocka_unit_test(sizes_come_from_the_checkpoint_unless_given),
        cmocka_unit_test(a_file_by_itself_begins_a_run),
        cmocka_unit_test(tasks_of_a_file),
        cmocka_unit_test(files_that_are_refused),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
