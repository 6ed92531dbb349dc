/* tdmpc2 replay: exit codes, and the columns of an export. */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/ckpt/safetensors.h"
#include "tests/support/rows.h"
#include "tests/support/test.h"
#include "tools/commands.h"
#include "tools/replay.h"

static const struct row_schema schema = {OBS_STATE, 5, 2};

static store_t *open_store(const char *dir)
{
    struct store_config config = {.dir = dir, .schema = schema, .run_id = 5, .rows = 3000};
    struct error err = {0};
    store_t *store;

    assert_ok(store_open(&store, &config, &err), err);
    return store;
}

/* Three episodes of 20 rows. */
static void fill(const char *dir)
{
    store_t *store = open_store(dir);
    size_t stride = row_stride(&schema);
    char *rows = malloc(20 * stride);
    struct error err = {0};

    for (uint32_t k = 0; k < 3; k++) {
        struct store_record record = {.slot = k, .epoch = 1, .rows = 20,
                                      .flags = k == 1 ? EPISODE_ABORTED : EPISODE_TERMINATED};

        for (uint32_t i = 0; i < 20; i++) {
            struct test_row_id id = {k, 0, 1, i};

            test_row_fill(rows + i * stride, &schema, &id,
                          i == 0 ? ROW_FIRST : i == 19 && k != 1 ? ROW_TERMINATED : 0);
        }
        assert_ok(store_insert(store, &record, rows, &err), err);
    }
    assert_ok(store_commit(store, &err), err);
    store_close(&store);
    free(rows);
}

static int run(const char *part, const char *dir, const char *target)
{
    char words[4][1024] = {"replay"};
    char *argv[5] = {words[0], words[1], words[2], words[3], NULL};

    snprintf(words[1], sizeof(words[1]), "%s", part);
    snprintf(words[2], sizeof(words[2]), "%s", dir);
    snprintf(words[3], sizeof(words[3]), "%s", target == NULL ? "" : target);
    return cmd_replay(target == NULL ? 3 : 4, argv);
}

static void flip_a_bit(const char *dir)
{
    char path[700], *bytes, *found;
    struct stat info;
    int fd;

    snprintf(path, sizeof(path), "%s/data.mdb", dir);
    fd = open(path, O_RDWR);
    assert_int_equal(fstat(fd, &info), 0);
    bytes = malloc((size_t)info.st_size);
    assert_int_equal(pread(fd, bytes, (size_t)info.st_size, 0), info.st_size);
    found = memmem(bytes, (size_t)info.st_size, SEGMENT_MAGIC, 8);
    assert_non_null(found);
    found[300] ^= 1;
    assert_int_equal(pwrite(fd, found + 300, 1, found + 300 - bytes), 1);
    close(fd);
    free(bytes);
}

static void exit_codes_say_what_was_found(void **state)
{
    char run_dir[512], dir[600], out[700];

    (void)state;
    snprintf(run_dir, sizeof(run_dir), "%s/run", test_folder());
    snprintf(dir, sizeof(dir), "%s/replay", run_dir);
    snprintf(out, sizeof(out), "%s/out", run_dir);
    fill(dir);
    assert_int_equal(run("info", dir, NULL), 0);
    assert_int_equal(run("info", run_dir, NULL), 0); /* the run directory will do */
    assert_int_equal(run("info", dir, "--json"), 0);
    assert_int_equal(run("verify", dir, NULL), 0);
    assert_int_equal(run("info", "/nowhere", NULL), 2);
    assert_int_equal(run("verify", "/nowhere", NULL), 2);
    assert_int_equal(run("frobnicate", dir, NULL), 2);
    assert_int_equal(run("salvage", dir, NULL), 2);
    assert_int_equal(run("verify", dir, out), 2);
    flip_a_bit(dir);
    assert_int_equal(run("verify", dir, NULL), 1);
    assert_int_equal(run("export", dir, "/nonexist/x"), 2);
    assert_int_equal(run("salvage", dir, out), 0);
    assert_int_equal(run("verify", out, NULL), 0);
}

static void columns_hold_the_rows(void **state)
{
    char dir[512], path[600];
    struct error err = {0};
    safetensors_t *file;
    float obs[40 * 5], reward[40];
    unsigned char first[40], terminated[40];
    int64_t episode[40], start[2], rows[2];

    (void)state;
    snprintf(dir, sizeof(dir), "%s/export", test_folder());
    snprintf(path, sizeof(path), "%s/rows.safetensors", test_folder());
    fill(dir);
    flip_a_bit(dir); /* the last episode is left out: it comes first in its page */
    assert_int_equal(run("export", dir, path), 1);
    assert_ok(safetensors_open(&file, path, &err), err);
    assert_string_equal(safetensors_note(file, "format"), "tdmpc2-replay-1");
    assert_string_equal(safetensors_note(file, "run"), "0000000000000005");
    assert_ok(safetensors_get(file, "obs", SAFETENSORS_F32, 2, (uint64_t[]){40, 5}, obs, &err), err);
    assert_ok(safetensors_get(file, "reward", SAFETENSORS_F32, 1, (uint64_t[]){40}, reward, &err), err);
    assert_ok(safetensors_get(file, "first", SAFETENSORS_BOOL, 1, (uint64_t[]){40}, first, &err), err);
    assert_ok(safetensors_get(file, "terminated", SAFETENSORS_BOOL, 1, (uint64_t[]){40}, terminated, &err),
              err);
    assert_ok(safetensors_get(file, "episode", SAFETENSORS_I64, 1, (uint64_t[]){40}, episode, &err), err);
    assert_ok(safetensors_get(file, "episode_start", SAFETENSORS_I64, 1, (uint64_t[]){2}, start, &err), err);
    assert_ok(safetensors_get(file, "episode_rows", SAFETENSORS_I64, 1, (uint64_t[]){2}, rows, &err), err);
    for (uint32_t i = 0; i < 40; i++) {
        struct test_row_id id = {i / 20, 0, 1, i % 20};
        char row[256];

        test_row_fill(row, &schema, &id, i % 20 == 0 ? ROW_FIRST : i == 19 ? ROW_TERMINATED : 0);
        assert_memory_equal(obs + i * 5, row_obs(row), 5 * sizeof(float));
        assert_true(reward[i] == row_head(row)->reward);
        assert_int_equal(first[i], i % 20 == 0);
        assert_int_equal(terminated[i], i == 19);
        assert_int_equal(episode[i], i / 20);
    }
    assert_int_equal(start[1], 20);
    assert_int_equal(rows[0], 20);
    safetensors_close(&file);
}

static void frames_are_a_column_of_bytes(void **state)
{
    static const struct row_schema frames = {OBS_RGB, 27, 2};
    struct store_config config = {.schema = frames, .run_id = 5, .rows = 100};
    struct store_record record = {.epoch = 1, .rows = 30, .flags = EPISODE_TERMINATED};
    char dir[512], path[600], rows[30 * 64], obs[30 * 27];
    size_t stride = row_stride(&frames);
    struct error err = {0};
    safetensors_t *file;
    store_t *store;

    (void)state;
    snprintf(dir, sizeof(dir), "%s/export-frames", test_folder());
    snprintf(path, sizeof(path), "%s/frames.safetensors", test_folder());
    config.dir = dir;
    assert_ok(store_open(&store, &config, &err), err);
    for (uint32_t i = 0; i < 30; i++)
        test_row_fill(rows + i * stride, &frames, &(struct test_row_id){0, 0, 1, i},
                      i == 0 ? ROW_FIRST : i == 29 ? ROW_TERMINATED : 0);
    assert_ok(store_insert(store, &record, rows, &err), err);
    assert_ok(store_commit(store, &err), err);
    store_close(&store);
    assert_int_equal(run("info", dir, NULL), 0);
    assert_int_equal(run("verify", dir, NULL), 0);
    assert_int_equal(run("export", dir, path), 0);
    assert_ok(safetensors_open(&file, path, &err), err);
    assert_ok(safetensors_get(file, "obs", SAFETENSORS_U8, 2, (uint64_t[]){30, 27}, obs, &err), err);
    for (uint32_t i = 0; i < 30; i++)
        assert_memory_equal(obs + i * 27, row_obs(rows + i * stride), 27);
    safetensors_close(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exit_codes_say_what_was_found),
        cmocka_unit_test(columns_hold_the_rows),
        cmocka_unit_test(frames_are_a_column_of_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
