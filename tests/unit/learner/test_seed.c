/* seed.c: whose rows come, how they look then, what is refused, and that a killed start goes on. */
#include <unistd.h>

#include "learner/dataset.h"
#include "learner/preflight.h"
#include "learner/seed.h"
#include "tests/support/test.h"

static const struct row_schema wide = {OBS_STATE, 7, 3};
static int folders;

/* Rows whose numbers say where they come from; `obs` and `action` of them are not padding. */
static void insert(store_t *store, uint32_t task, uint32_t rows, uint32_t obs, uint32_t action)
{
    struct store_record record = {.epoch = store_counts(store)->sealed, .rows = rows, .flags = EPISODE_TRUNCATED};
    size_t stride = row_stride(&wide);
    char *bytes = calloc(rows, stride);
    struct error err = {0};

    for (uint32_t i = 0; i < rows; i++) {
        void *row = bytes + i * stride;

        *row_head(row) = (struct row_head){.flags = i == 0 ? ROW_FIRST : i + 1 == rows ? ROW_TRUNCATED : 0, .task = task,
                                           .param_version = 77, .param_epoch = 3, .reward = i == 0 ? 0 : (float)i};
        for (uint32_t j = 0; j < obs; j++)
            ((float *)row_obs(row))[j] = (float)(1000 * record.epoch + 10 * i + j);
        for (uint32_t j = 0; i > 0 && j < action; j++)
            row_action(row, &wide)[j] = 0.25f * (float)(j + 1);
    }
    assert_ok(store_insert(store, &record, bytes, &err), err);
    free(bytes);
}

/* A data set of two tasks, 5 + 1 of 5 and 1 and of 7 and 3 components; its folder into dir. */
static void make_source(char dir[FS_PATH_MAX], uint32_t tasks, uint32_t beyond)
{
    struct store_config config = {.dir = dir, .schema = wide, .run_id = 1, .rows = 10000};
    struct dataset dataset = {.schema = wide, .tasks = tasks};
    struct error err = {0};
    store_t *store;

    snprintf(dir, FS_PATH_MAX, "%s/source%d", test_folder(), folders++);
    assert_ok(store_open(&store, &config, &err), err);
    for (uint32_t i = 0; i < 6; i++) {
        insert(store, 0, 11 + i, 5 + beyond, 1);
        if (tasks > 1)
            insert(store, 1, 8, 7, 3);
    }
    assert_ok(store_commit(store, &err), err);
    *dataset_add(&dataset) = (struct dataset_chunk){.name = "a.pt", .bytes = 1, .episodes = store_counts(store)->sealed, .rows = 1};
    store_close(&store);
    assert_ok(dataset_write(&dataset, dir, &err), err);
    dataset_release(&dataset);
}

struct fixture {
    struct run run;
    struct env_spec env;
    struct task task;
    struct task_set tasks;
};

static void open_fixture(struct fixture *f, const char *source, const char *names)
{
    *f = (struct fixture){.run = {.lock = -1, .run_id = 9}, .env = {.obs_type = OBS_STATE, .obs_dim = 5, .action_dim = 1}};
    f->env.episode_length = 100;
    f->task = (struct task){.name = "cartpole-balance", .obs_dim = 5, .action_dim = 1, .episode_length = 100};
    f->tasks = (struct task_set){.count = 1, .task = &f->task, .obs_dim = 5, .action_dim = 1};
    config_init(&f->run.config);
    f->run.config.buffer_size = 1000;
    snprintf(f->run.dir, sizeof(f->run.dir), "%s/run%d", test_folder(), folders++);
    snprintf(f->run.config.seed_data, sizeof(f->run.config.seed_data), "%.400s", source);
    snprintf(f->run.config.seed_tasks, sizeof(f->run.config.seed_tasks), "%s", names);
}

static void count_lines(void *context, const char *line)
{
    (void)line;
    ++*(int *)context;
}

static store_t *open_replay(const struct fixture *f, char dir[FS_PATH_MAX])
{
    struct store_config config;
    struct error err = {0};
    store_t *store;

    assert_ok(preflight_store(&config, dir, &f->run, &f->env, NULL, &err), err);
    assert_ok(store_open(&store, &config, &err), err);
    return store;
}

static void rows_of_the_task_come_in_its_widths(void **state)
{
    char dir[FS_PATH_MAX], replay[FS_PATH_MAX];
    struct fixture f;
    struct error err = {0};
    store_t *store;
    int lines = 0;

    (void)state;
    make_source(dir, 2, 0);
    open_fixture(&f, dir, "cartpole-balance,hopper-hop");
    assert_ok(seed_check(&f.run, &f.env, &f.tasks, count_lines, &lines, &err), err);
    assert_int_equal(lines, 1);
    assert_true(access(f.run.dir, F_OK) != 0);
    for (int again = 0; again < 2; again++) { /* a second start brings in nothing more */
        assert_ok(seed_replay(&f.run, &f.env, &f.tasks, count_lines, &lines, &err), err);
        store = open_replay(&f, replay);
        assert_int_equal(store_committed(store), 6);
        assert_int_equal(store_counts(store)->rows, 11 + 12 + 13 + 14 + 15 + 16);
        assert_int_equal(store_counts(store)->steps, 0); /* none of the run's own */
        assert_false(store_counts(store)->has_slot);
        for (uint64_t id = 0; id < 6; id++) {
            uint32_t count = 11 + (uint32_t)id;
            const char *rows = store_rows(store, id, 0, &count);

            assert_non_null(rows);
            assert_int_equal(count, 11 + id);
            for (uint32_t i = 0; i < count; i++) {
                char row[64];
                struct row_schema narrow = {OBS_STATE, 5, 1};

                memcpy(row, rows + i * row_stride(&narrow), row_stride(&narrow));
                assert_true(row_head(row)->task == 0 && row_head(row)->param_version == 0 && row_head(row)->param_epoch == 0);
                assert_true(((float *)row_obs(row))[4] == (float)(1000 * 2 * id + 10 * i + 4));
                assert_true(row_action(row, &narrow)[0] == (i == 0 ? 0 : 0.25f));
                assert_true(row_head(row)->reward == (float)i);
            }
            store_rows_end(store);
            assert_true((store_episode(store, id)->flags & EPISODE_TRUNCATED) != 0);
        }
        store_close(&store);
    }
}

/* A run of both tasks: each row is stored at its own task's widths and comes back padded. */
static void rows_of_several_tasks_are_stored_unpadded(void **state)
{
    struct task both[2] = {{.name = "cartpole-balance", .obs_dim = 5, .action_dim = 1, .episode_length = 100},
                           {.name = "hopper-hop", .obs_dim = 7, .action_dim = 3, .episode_length = 100}};
    char dir[FS_PATH_MAX], replay[FS_PATH_MAX];
    struct fixture f;
    struct error err = {0};
    store_t *store;
    int lines = 0;

    (void)state;
    make_source(dir, 2, 0);
    open_fixture(&f, dir, "cartpole-balance,hopper-hop");
    f.tasks = (struct task_set){.count = 2, .task = both, .obs_dim = 7, .action_dim = 3, .multitask = true};
    f.env.obs_dim = 7;
    f.env.action_dim = 3;
    assert_ok(seed_replay(&f.run, &f.env, &f.tasks, count_lines, &lines, &err), err);
    store = open_replay(&f, replay);
    assert_int_equal(store_committed(store), 12);
    for (uint64_t id = 0; id < 12; id++) {
        uint32_t task = (uint32_t)(id % 2), count = 8;
        struct row_schema schema = {OBS_STATE, 7, 3};
        struct segment_head head;
        size_t length;
        const void *bytes = store_segment(store, id, 0, &length);
        const char *rows;

        assert_non_null(bytes);
        assert_int_equal(segment_open(&head, bytes, length), TD_OK);
        assert_int_equal(head.packing, task == 0 ? SEGMENT_NARROW : SEGMENT_PLAIN);
        rows = store_rows(store, id, 0, &count);
        assert_non_null(rows);
        for (uint32_t i = 0; i < count; i++) {
            char row[80];

            memcpy(row, rows + i * row_stride(&schema), row_stride(&schema));
            assert_int_equal(row_head(row)->task, task);
            for (int j = 0; j < 7; j++)
                assert_true((((float *)row_obs(row))[j] == 0) == (task == 0 && j >= 5) || (id == 0 && i + (uint32_t)j == 0));
            for (int j = 0; j < 3; j++)
                assert_true(row_action(row, &schema)[j] == (i == 0 || (task == 0 && j > 0) ? 0 : 0.25f * (float)(j + 1)));
        }
        store_rows_end(store);
    }
    store_close(&store);
}

/* Killed after some of them were synced: the same plan goes on behind those. */
static void a_killed_start_goes_on(void **state)
{
    char dir[FS_PATH_MAX], replay[FS_PATH_MAX], path[FS_PATH_MAX], text[600];
    struct row_schema narrow = {OBS_STATE, 5, 1};
    struct store_record record = {.slot = STORE_SLOT_OUTSIDE, .rows = 11, .flags = EPISODE_TRUNCATED};
    struct store_config source = {.dir = dir, .reading = true};
    uint64_t source_id;
    struct fixture f;
    struct error err = {0};
    store_t *store;
    char *rows;

    (void)state;
    make_source(dir, 1, 0);
    open_fixture(&f, dir, "");
    source.any_shard = true;
    assert_ok(store_open(&store, &source, &err), err);
    source_id = store_identity(store)->store_id;
    store_close(&store);
    store = open_replay(&f, replay);
    rows = calloc(record.rows, row_stride(&narrow));
    for (uint32_t i = 0; i < record.rows; i++)
        row_head(rows + i * row_stride(&narrow))->flags = i == 0 ? ROW_FIRST : i + 1 == record.rows ? ROW_TRUNCATED : 0;
    assert_ok(store_insert(store, &record, rows, &err), err);
    assert_ok(store_commit(store, &err), err);
    store_close(&store);
    free(rows);
    assert_ok(fs_join(path, replay, SEED_FILE, &err), err);
    snprintf(text, sizeof(text), "{\"source\":\"\",\"store_id\":\"%016llx\",\"from\":0,\"to\":6,\"episodes\":6,\"rows\":81,"
             "\"done\":false}", (unsigned long long)source_id);
    assert_ok(fs_write_file(path, text, strlen(text), &err), err);
    assert_ok(seed_replay(&f.run, &f.env, &f.tasks, NULL, NULL, &err), err);
    store = open_replay(&f, replay);
    assert_int_equal(store_committed(store), 6);
    assert_int_equal(store_counts(store)->rows, 81);
    store_close(&store);
    /* another source in its place is not gone on with */
    snprintf(text, sizeof(text), "{\"source\":\"\",\"store_id\":\"01\",\"from\":0,\"to\":6,\"episodes\":6,\"rows\":81,"
             "\"done\":false}");
    assert_ok(fs_write_file(path, text, strlen(text), &err), err);
    assert_int_equal(seed_replay(&f.run, &f.env, &f.tasks, NULL, NULL, &err), TD_EFOREIGN);
    assert_ok(fs_write_file(path, "{", 1, &err), err);
    assert_int_equal(seed_replay(&f.run, &f.env, &f.tasks, NULL, NULL, &err), TD_ECORRUPT);
}

/* No more than the window holds: the newest. */
static void the_newest_fit(void **state)
{
    char dir[FS_PATH_MAX], replay[FS_PATH_MAX];
    struct fixture f;
    struct error err = {0};
    store_t *store;

    (void)state;
    make_source(dir, 1, 0);
    open_fixture(&f, dir, "");
    f.run.config.buffer_size = 32;
    assert_ok(seed_replay(&f.run, &f.env, &f.tasks, NULL, NULL, &err), err);
    store = open_replay(&f, replay);
    assert_int_equal(store_committed(store), 2);
    assert_int_equal(store_counts(store)->rows, 15 + 16);
    store_close(&store);
}

static void what_does_not_fit_is_refused(void **state)
{
    static const struct {
        uint32_t tasks, beyond;
        const char *names, *says;
        int obs, action;
    } cases[] = {
        {2, 0, "", "nothing says which tasks", 5, 1},
        {2, 0, "walker-walk,hopper-hop", "has no episode of cartpole-balance", 5, 1},
        {2, 0, "cartpole-balance,cartpole-balance", "cartpole-balance", 5, 1},
        {1, 0, "", "holds 7 observations and 3 actions, cartpole-balance has 8 and 1", 8, 1},
        {1, 0, "", "cartpole-balance has 5 and 4", 5, 4},
        {1, 1, "", "an observation is wider than the task's", 5, 1},
    };
    char dir[FS_PATH_MAX];
    struct fixture f;

    (void)state;
    for (size_t i = 0; i < TD_LEN(cases); i++) {
        struct error err = {0};
        int rc;

        make_source(dir, cases[i].tasks, cases[i].beyond);
        open_fixture(&f, dir, cases[i].names);
        f.task.obs_dim = f.tasks.obs_dim = cases[i].obs;
        f.task.action_dim = f.tasks.action_dim = cases[i].action;
        f.env.obs_dim = (uint32_t)cases[i].obs;
        f.env.action_dim = (uint32_t)cases[i].action;
        rc = cases[i].beyond > 0 ? seed_replay(&f.run, &f.env, &f.tasks, NULL, NULL, &err)
                                 : seed_check(&f.run, &f.env, &f.tasks, NULL, NULL, &err);
        assert_int_equal(rc, TD_EINVAL);
        if (strstr(err.text, cases[i].says) == NULL)
            fail_msg("%s", err.text);
    }
    open_fixture(&f, test_folder(), "");
    assert_int_equal(seed_check(&f.run, &f.env, &f.tasks, NULL, NULL, &(struct error){0}), TD_ENOTFOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_of_the_task_come_in_its_widths),
        cmocka_unit_test(rows_of_several_tasks_are_stored_unpadded),
        cmocka_unit_test(a_killed_start_goes_on),
        cmocka_unit_test(the_newest_fit),
        cmocka_unit_test(what_does_not_fit_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
