/* tdmpc2 replay: exit codes, and the columns of an export. */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/ckpt/safetensors.h"
#include "common/util/fs.h"
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

/* The number behind `key` in what the words print; its exit code. */
static uint64_t printed(const char *part, const char *dir, const char *target, const char *key, int *code)
{
    char path[600], *text, *at;
    int fd, kept = dup(1);
    struct error err = {0};
    size_t length;

    snprintf(path, sizeof(path), "%s/printed", test_folder());
    fflush(stdout);
    fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(dup2(fd, 1) == 1);
    *code = run(part, dir, target);
    fflush(stdout);
    assert_true(dup2(kept, 1) == 1);
    close(kept);
    close(fd);
    assert_ok(fs_read_file(path, 1u << 20, &text, &length, &err), err);
    at = strstr(text, key);
    if (at == NULL)
        fail_msg("no %s in %s", key, text);
    length = strtoull(at + strlen(key), NULL, 10);
    free(text);
    return length;
}

/* What verify counts as whole is what export writes, damaged or not, rows under way or not. */
static void verify_and_export_count_alike(void **state)
{
    char dir[600], out[700];
    int code;

    (void)state;
    snprintf(dir, sizeof(dir), "%s/alike", test_folder());
    snprintf(out, sizeof(out), "%s/alike.safetensors", test_folder());
    fill(dir);
    for (int damaged = 0; damaged < 2; damaged++) {
        uint64_t episodes = 3 - (uint64_t)damaged;

        assert_int_equal(printed("verify", dir, "--json", "\"whole_rows\":", &code), episodes * 20);
        assert_int_equal(code, damaged);
        assert_int_equal(printed("verify", dir, "--json", "\"whole_episodes\":", &code), episodes);
        unlink(out);
        assert_int_equal(printed("export", dir, out, "wrote ", &code), episodes * 20);
        assert_int_equal(code, damaged);
        unlink(out);
        assert_int_equal(printed("export", dir, out, "rows of ", &code), episodes);
        if (damaged == 0)
            flip_a_bit(dir);
    }
}

/* One sentence that tells what is not there, and exit code 2; nothing is made. */
static void where_no_store_is_it_is_said(void **state)
{
    static const struct {
        const char *name, *sentence;
        bool folder, mark, file, beneath; /* with lock.mdb; an empty data.mdb; a folder in its place */
    } cases[] = {
        {"none", "No such file", false, false, false, false}, {"bare", "it has no data.mdb", true, false, false, false},
        {"gone", "which held the rows, is gone", true, true, false, false}, {"empty", "is empty", true, true, true, false},
        {"odd", "is no file", true, false, false, true},
    };
    static const char *const parts[] = {"info", "verify", "export", "salvage", "hash"};

    (void)state;
    for (size_t i = 0; i < TD_LEN(cases); i++)
        for (size_t p = 0; p < TD_LEN(parts); p++) {
            char dir[600], path[700], out[700], said[600], *text;
            struct error err = {0};
            int code, kept = dup(2), fd;
            size_t length;

            snprintf(dir, sizeof(dir), "%s/%s", test_folder(), cases[i].name);
            snprintf(out, sizeof(out), "%s.out", dir);
            snprintf(said, sizeof(said), "%s/said", test_folder());
            if (cases[i].folder)
                mkdir(dir, 0700);
            snprintf(path, sizeof(path), "%s/lock.mdb", dir);
            if (cases[i].mark)
                assert_ok(fs_write_file(path, "x", 1, &err), err);
            snprintf(path, sizeof(path), "%s/data.mdb", dir);
            if (cases[i].file)
                assert_ok(fs_write_file(path, "", 0, &err), err);
            if (cases[i].beneath)
                mkdir(path, 0700);
            fd = open(said, O_RDWR | O_CREAT | O_TRUNC, 0600);
            fflush(stderr);
            assert_true(dup2(fd, 2) == 2);
            code = run(parts[p], dir, p == 2 || p == 3 ? out : NULL);
            fflush(stderr);
            assert_true(dup2(kept, 2) == 2);
            close(kept);
            close(fd);
            assert_ok(fs_read_file(said, 1u << 16, &text, &length, &err), err);
            if (code != 2 || strstr(text, cases[i].sentence) == NULL || strchr(text, '\n') != text + length - 1)
                fail_msg("%s of %s: exit %d, said: %s", parts[p], cases[i].name, code, text);
            free(text);
            assert_int_not_equal(access(out, F_OK), 0);
        }
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
        cmocka_unit_test(verify_and_export_count_alike),
        cmocka_unit_test(where_no_store_is_it_is_said),
        cmocka_unit_test(columns_hold_the_rows),
        cmocka_unit_test(frames_are_a_column_of_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
