#include <unistd.h>

#include "common/env/tasks.h"
#include "common/net/channel.h"
#include "common/util/fs.h"
#include "learner/coordinator.h"
#include "learner/preflight.h"
#include "learner/settings.h"
#include "tests/support/test.h"

static struct config config_of(const char *const *words)
{
    struct config config;
    struct error err = {0};
    char *argv[8];
    int argc = 0;

    for (; *words != NULL; words++)
        argv[argc++] = (char *)(uintptr_t)*words;
    config_init(&config);
    assert_ok(config_parse(&config, argc, argv, NULL, &err), err);
    return config;
}

static void addresses_that_cannot_be_listened_on(void **state)
{
    static const char *const bad[][4] = {
        {"bind=ipc:///tmp/x", "is for tcp"},
        {"bind=nonsense", "tcp://HOST:PORT"},
        {"bind=tcp://0.0.0.0:5", "insecure=true"},
        {"bind=tcp://0.0.0.0:*", "advertise=HOST", "insecure=true"},
        {"bind=tcp://127.0.0.1:*", "not a host name", "advertise=a b"},
        {"bind=tcp://192.0.2.1:5", "no such address", "insecure=true"},
    };
    struct error err = {0};
    struct config config;

    (void)state;
    for (size_t i = 0; i < TD_LEN(bad); i++) {
        config = config_of((const char *const[]){bad[i][0], bad[i][2], NULL});
        assert_int_equal(preflight_address(&config, &err), TD_EINVAL);
        if (strstr(err.text, bad[i][1]) == NULL)
            fail_msg("%s: %s", bad[i][0], err.text);
    }
    config = config_of((const char *const[]){"bind=tcp://127.0.0.1:*", NULL});
    assert_ok(preflight_address(&config, &err), err);
    config = config_of((const char *const[]){NULL});
    assert_ok(preflight_address(&config, &err), err);
}

/* A run that is new, or that has this id. */
static int look(const char *dir, const char *word, uint64_t run_id, struct preflight_replay *replay, struct error *err)
{
    struct run run = {.lock = -1, .run_id = run_id, .resumed = run_id != 0};
    struct env_spec env;

    snprintf(run.dir, sizeof(run.dir), "%s", dir);
    run.config = config_of((const char *const[]){word, NULL});
    assert_ok(env_find("toy", &env, err), *err);
    return preflight_replay(replay, &run, &env, NULL, 0, err);
}

static void a_store_must_be_the_runs_own(void **state)
{
    char dir[FS_PATH_MAX], path[FS_PATH_MAX], word[FS_PATH_MAX + 16];
    struct preflight_replay replay;
    struct error err = {0};
    struct env_spec env;
    store_t *store;

    (void)state;
    assert_int_equal(fs_join(dir, test_folder(), "run", NULL), TD_OK);
    assert_int_equal(fs_join(path, dir, "replay", NULL), TD_OK);
    assert_ok(look(dir, "buffer_size=1000", 0, &replay, &err), err);
    assert_string_equal(replay.dir, path);
    assert_ok(env_find("toy", &env, &err), err);
    assert_true(replay.rows == coordinator_map_rows(1000, 3, 5000, 1, env.episode_length));
    assert_true(replay.rows > 1000 && replay.outlook.needed_bytes > 0 && !replay.outlook.exists);
    assert_ok(look(dir, "steps=500", 0, &replay, &err), err); /* of a million rows it will use these */
    assert_true(replay.rows >= 500 && replay.rows <= 500 + 500 / env.episode_length + env.episode_length + 1);
    assert_true(replay.outlook.needed_bytes < 300000);
    assert_int_not_equal(access(dir, F_OK), 0);
    assert_int_equal(look(dir, "disk_limit=0.0001", 0, &replay, &err), TD_EINVAL);
    assert_non_null(strstr(err.text, "disk_limit"));
    assert_int_equal(look("/proc/run", "force=true", 0, &replay, &err), TD_EINVAL);

    struct store_config config = {
        .dir = path, .schema = {env.obs_type, env.obs_dim, env.action_dim}, .run_id = 7, .rows = 1000};
    snprintf(word, sizeof(word), "replay_dir=%s", path);
    assert_ok(store_open(&store, &config, &err), err);
    assert_int_equal(look("/dev/shm/another", word, 0, &replay, &err), TD_ELOCKED);
    store_close(&store);
    assert_int_equal(look("/dev/shm/another", word, 0, &replay, &err), TD_EFOREIGN);
    assert_non_null(strstr(err.text, "0000000000000007"));
    assert_int_equal(look(dir, word, 8, &replay, &err), TD_EFOREIGN);
    assert_ok(look(dir, word, 7, &replay, &err), err);
    assert_true(replay.outlook.exists && replay.outlook.run_id == 7);
}

/* Rows of several tasks are stored without padding: what they need is counted so, as of the sets that are written down. */
static void rows_are_counted_without_padding(void **state)
{
    struct config config = config_of((const char *const[]){"task=mt80", "disk_limit=1000", NULL});
    struct run run = {.lock = -1};
    struct env_spec env = {.obs_type = OBS_STATE, .obs_dim = 39, .action_dim = 6, .episode_length = 500};
    const struct row_schema schema = {OBS_STATE, 39, 6};
    char dir[FS_PATH_MAX];
    struct store_config padded, store;
    struct task_set tasks;
    struct error err;
    double each;

    (void)state;
    assert_ok(env_task_set(&tasks, &config, &err), err);
    assert_int_equal(tasks.obs_dim, 39);
    run.config = config;
    snprintf(run.dir, sizeof(run.dir), "%s", test_folder());
    assert_ok(preflight_store(&padded, dir, &run, &env, NULL, &err), err);
    assert_int_equal(padded.row_bytes, 0);
    assert_ok(preflight_store(&store, dir, &run, &env, &tasks, &err), err);
    each = (double)store_bytes_needed(&schema, 1000000, store.row_bytes) * 1e-6;
    print_message("%.0f bytes a row, %.0f padded\n", each, (double)store_bytes_needed(&schema, 1000000, padded.row_bytes) * 1e-6);
    assert_true(each > 150 && each < 200); /* 155 are the rows themselves */
    assert_true(store_bytes_needed(&schema, 1000000, 10000) == store_bytes_needed(&schema, 1000000, 0));
    snprintf(run.config.obs, sizeof(run.config.obs), "rgb");
    assert_int_equal(settings_row_bytes(&run.config, &tasks), 0);
    task_set_release(&tasks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_that_cannot_be_listened_on),
        cmocka_unit_test(rows_are_counted_without_padding),
        cmocka_unit_test(a_store_must_be_the_runs_own),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
