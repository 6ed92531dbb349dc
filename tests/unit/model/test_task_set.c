/* Lists of tasks: mt30 and mt80 as written down, own lists as the environments say. */
#include "common/env/env.h"
#include "common/env/tasks.h"
#include "common/model/dims.h"
#include "common/model/task_set.h"
#include "common/model/world_model.h"
#include "tests/support/test.h"

static int no_environment(const void *context, struct task *task, struct error *err)
{
    (void)context;
    return error_set(err, TD_ENOTFOUND, "asked for %s", task->name);
}

static const struct task_source nobody = {.ask = no_environment};

static void options(struct config *config, const char *task, const char *tasks)
{
    config_init(config);
    snprintf(config->task, sizeof(config->task), "%s", task);
    snprintf(config->tasks, sizeof(config->tasks), "%s", tasks);
}

static void the_reference_lists_need_no_environment(void **state)
{
    struct config config;
    struct task_set set;
    struct error err;
    float mask[6];

    (void)state;
    options(&config, "mt80", "");
    assert_ok(task_set_init(&set, &config, &nobody, &err), err);
    assert_int_equal(set.count, 80);
    assert_int_equal(set.obs_dim, 39);
    assert_int_equal(set.action_dim, 6);
    assert_true(set.multitask);
    assert_int_equal(task_set_find(&set, "walker-stand"), 0);
    assert_int_equal(task_set_find(&set, "fish-swim"), 16);
    assert_int_equal(task_set_find(&set, "pendulum-spin"), 29);
    assert_int_equal(task_set_find(&set, "mw-assembly"), 30);
    assert_int_equal(task_set_find(&set, "mw-push"), 63);
    assert_int_equal(task_set_find(&set, "mw-hand-insert"), 79);
    assert_int_equal(task_set_find(&set, "dog-run"), -1);
    /* Of the tasks' own lengths, not of the first's as the reference's other uses of episode_length. */
    assert_true(set.task[29].discount == 0.99 && set.task[30].discount == 0.95);
    task_set_mask(&set, 16, mask);
    for (int i = 0; i < 6; i++)
        assert_true(mask[i] == (i < 5 ? 1.0f : 0.0f));
    task_set_release(&set);

    options(&config, "mt30", "");
    assert_ok(task_set_init(&set, &config, &nobody, &err), err);
    assert_int_equal(set.count, 30);
    assert_int_equal(set.obs_dim, 24);
    task_set_release(&set);
}

static int small_task(const void *context, struct task *task, struct error *err)
{
    (void)context;
    (void)err;
    task->obs_dim = task->action_dim = 1;
    task->episode_length = 10;
    return TD_OK;
}

/* All of mt80 by their names: the list is taken, written down with the run and read again. */
static void eighty_names_fit(void **state)
{
    const struct task_source source = {.ask = small_task};
    struct config config, again;
    struct task_set set, same;
    char word[CONFIG_TEXT_MAX] = "tasks=", path[512];
    struct error err;

    (void)state;
    options(&config, "mt80", "");
    assert_ok(task_set_init(&set, &config, &nobody, &err), err);
    for (int i = 0; i < set.count; i++) {
        assert_true(strlen(word) + strlen(set.task[i].name) + 2 < sizeof(word));
        sprintf(word + strlen(word), "%s%s", i > 0 ? "," : "", set.task[i].name);
    }
    config_init(&config);
    assert_ok(config_parse(&config, 1, (char *[]){word}, NULL, &err), err);
    snprintf(path, sizeof(path), "%s/config.yaml", test_folder());
    assert_ok(config_save(&config, path, &err), err);
    config_init(&again);
    assert_ok(config_load(&again, path, NULL, &err), err);
    assert_string_equal(again.tasks, word + 6);
    assert_ok(task_set_init(&same, &again, &source, &err), err);
    assert_int_equal(same.count, 80);
    for (int i = 0; i < 80; i++)
        assert_string_equal(same.task[i].name, set.task[i].name);
    task_set_release(&set);
    task_set_release(&same);
}

/* What is written down is what the environments say, for the 30 tasks that are built in. */
static void mt30_is_as_its_environments_are(void **state)
{
    struct config config;
    struct task_set set;
    struct error err;

    (void)state;
    options(&config, "mt30", "");
    assert_ok(env_task_set(&set, &config, &err), err);
    for (int i = 0; i < set.count; i++) {
        struct env_spec spec;

        assert_ok(env_find(set.task[i].name, &spec, &err), err);
        assert_int_equal(set.task[i].obs_dim, spec.obs_dim);
        assert_int_equal(set.task[i].action_dim, spec.action_dim);
        assert_int_equal(set.task[i].episode_length, spec.episode_length);
    }
    task_set_release(&set);
}

static void own_lists_ask_the_environments(void **state)
{
    struct config config;
    struct task_set set;
    struct error err;

    (void)state;
    options(&config, "walker-walk", "cartpole-swingup,dog-run,toy:20");
    assert_ok(env_task_set(&set, &config, &err), err);
    assert_int_equal(set.count, 3);
    assert_true(set.multitask);
    assert_int_equal(set.obs_dim, 223);
    assert_int_equal(set.action_dim, 38);
    assert_int_equal(set.task[0].obs_dim, 5);
    assert_int_equal(set.task[2].episode_length, 20);
    task_set_release(&set);

    options(&config, "walker-walk", "");
    assert_ok(env_task_set(&set, &config, &err), err);
    assert_int_equal(set.count, 1);
    assert_false(set.multitask);
    task_set_release(&set);
}

static void bad_lists_are_refused_in_a_sentence(void **state)
{
    static const struct {
        const char *tasks, *word;
    } bad[] = {
        {"walker-walk,,cup-catch", "0 characters"}, {"cup-catch,", "0 characters"},
        {"cup-catch,cup-catch", "twice"},           {"mt30,cup-catch", "twice"},
        {"cup-catch,no-such-task", "no-such-task"}, {"mt30,mt80", "twice"},
    };
    struct config config;
    struct task_set set;
    struct error err;

    (void)state;
    for (size_t i = 0; i < TD_LEN(bad); i++) {
        options(&config, "walker-walk", bad[i].tasks);
        assert_int_not_equal(env_task_set(&set, &config, &err), TD_OK);
        assert_non_null(strstr(err.text, bad[i].word));
        assert_null(set.task);
    }
}

/* The figures of the reference, for every size; no parameter is allocated. */
static void parameter_counts_of_multi_task_models(void **state)
{
    static const struct {
        int size, task_dim[2];
        uint64_t parameters[2]; /* mt30, mt80 */
    } counts[] = {
        {1, {96, 96}, {1426427, 1435067}},       {5, {64, 96}, {5241066, 5389930}},
        {19, {64, 96}, {16031210, 18970218}},    {48, {64, 96}, {48242410, 48791146}},
        {317, {96, 96}, {317316889, 317383129}},
    };
    struct model_layout *layout = malloc(sizeof(*layout));
    struct model_dims dims;
    struct config config;
    struct task_set set;
    struct error err;

    (void)state;
    assert_non_null(layout);
    for (int many = 0; many < 2; many++) {
        options(&config, many ? "mt80" : "mt30", "");
        assert_ok(task_set_init(&set, &config, &nobody, &err), err);
        for (size_t i = 0; i < TD_LEN(counts); i++) {
            const struct model_tensor *table;

            config.model_size = counts[i].size;
            assert_ok(model_dims_init_tasks(&dims, &config, &set, &err), err);
            model_layout_init(layout, &dims);
            assert_int_equal(dims.task_dim, counts[i].task_dim[many]);
            assert_int_equal(layout->parameters, counts[i].parameters[many]);
            table = &layout->tensor[0];
            assert_string_equal(table->name, "_task_emb.weight");
            assert_true(table->dims == 2 && table->shape[0] == (uint64_t)set.count &&
                        table->shape[1] == (uint64_t)dims.task_dim);
        }
        task_set_release(&set);
    }
    free(layout);
}

static void sizes_of_lists_that_do_not_fit(void **state)
{
    struct model_dims dims;
    struct config config;
    struct task_set set;
    struct error err;

    (void)state;
    options(&config, "mt30", "");
    config.episodic = true;
    assert_ok(task_set_init(&set, &config, &nobody, &err), err);
    assert_int_equal(model_dims_init_tasks(&dims, &config, &set, &err), TD_EINVAL);
    assert_non_null(strstr(err.text, "episodic"));
    config.episodic = false;
    config.task_dim = 7;
    assert_ok(model_dims_init_tasks(&dims, &config, &set, &err), err);
    assert_int_equal(dims.task_dim, 7);
    task_set_release(&set);
}

static void rows_above_norm_1_are_rescaled(void **state)
{
    float row[4] = {3, 0, -4, 0}, small[4] = {0.3f, 0, -0.4f, 0};

    (void)state;
    assert_true(embedding_renorm(row, 4));
    assert_float_equal(row[0], 0.6, 1e-6);
    assert_float_equal(row[2], -0.8, 1e-6);
    assert_false(embedding_renorm(small, 4));
    assert_true(small[0] == 0.3f && small[2] == -0.4f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_reference_lists_need_no_environment),
        cmocka_unit_test(eighty_names_fit),
        cmocka_unit_test(mt30_is_as_its_environments_are),
        cmocka_unit_test(own_lists_ask_the_environments),
        cmocka_unit_test(bad_lists_are_refused_in_a_sentence),
        cmocka_unit_test(parameter_counts_of_multi_task_models),
        cmocka_unit_test(sizes_of_lists_that_do_not_fit),
        cmocka_unit_test(rows_above_norm_1_are_rescaled),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
