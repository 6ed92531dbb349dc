#include "tests/support/test.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/ckpt/checkpoint.h"

static char folder[FS_PATH_MAX], path_text[FS_PATH_MAX];
static int steps_left, passed;
static char passed_name[MANIFEST_NAME_MAX];

static int fresh_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof(folder), "%s/checkpoints", test_folder());
    passed = 0;
    return fs_remove_tree(folder, NULL);
}

static const char *in_folder(const char *name)
{
    assert_int_equal(fs_join(path_text, folder, name, NULL), TD_OK);
    return path_text;
}

static int die_at_k(const char *operation, const char *path)
{
    (void)operation;
    (void)path;
    return steps_left-- > 0 ? 0 : EIO;
}

static int no_exchange(const char *operation, const char *path)
{
    (void)path;
    return strcmp(operation, "exchange") == 0 ? EINVAL : 0;
}

static int die_at_k_without_exchange(const char *operation, const char *path)
{
    int errnum = die_at_k(operation, path);

    return errnum != 0 ? errnum : no_exchange(operation, path);
}

/* A checkpoint whose contents all follow from `step`. */
static int write_one(const char *name, enum checkpoint_kind kind, uint64_t step, struct error *err)
{
    float weights[600], moments[10];
    char state[100];
    struct safetensors_tensor parameters[] = {
        {.name = "a", .type = SAFETENSORS_F32, .dims = 2, .shape = {20, 30}, .data = weights},
    };
    struct safetensors_tensor adam[] = {
        {.name = "m", .type = SAFETENSORS_F32, .dims = 1, .shape = {10}, .data = moments},
    };
    struct checkpoint_group groups[] = {{"parameters.safetensors", parameters, 1}, {"adam.safetensors", adam, 1}};
    struct checkpoint_blob blob = {"environment.bin", state, sizeof(state)};
    struct checkpoint_parts parts = {.groups = groups, .group_count = 2, .blobs = &blob, .blob_count = 1};
    struct manifest manifest;
    int rc;

    for (int i = 0; i < 600; i++)
        weights[i] = (float)step + (float)i;
    for (int i = 0; i < 10; i++)
        moments[i] = (float)step - (float)i;
    memset(state, (int)(step & 127), sizeof(state));
    assert_int_equal(manifest_init(&manifest), TD_OK);
    manifest.kind = kind;
    manifest.step = step;
    rc = checkpoint_write(folder, name, &manifest, &parts, err);
    manifest_release(&manifest);
    return rc;
}

static void write_step(uint64_t step)
{
    struct error err = {0};
    char name[32];

    snprintf(name, sizeof(name), "step-%llu", (unsigned long long)step);
    assert_ok(write_one(name, CHECKPOINT_ASYNC, step, &err), err);
}

static void note_passed(void *context, const char *name, const char *why)
{
    (void)context;
    assert_true(why[0] != '\0');
    snprintf(passed_name, sizeof(passed_name), "%s", name);
    passed++;
}

/* Read everything back and compare with what its step says. Returns the step. */
static uint64_t read_newest(unsigned kinds)
{
    checkpoint_t *checkpoint;
    safetensors_t *tensors;
    struct error err = {0};
    float weights[600], moments[10];
    uint64_t step;
    size_t length;
    char *state;

    assert_ok(checkpoint_open_newest(&checkpoint, folder, kinds, note_passed, NULL, &err), err);
    step = checkpoint_manifest(checkpoint)->step;
    assert_ok(checkpoint_open_tensors(checkpoint, "parameters.safetensors", &tensors, &err), err);
    assert_ok(safetensors_get(tensors, "a", SAFETENSORS_F32, 2, (uint64_t[]){20, 30}, weights, &err), err);
    safetensors_close(&tensors);
    assert_ok(checkpoint_open_tensors(checkpoint, "adam.safetensors", &tensors, &err), err);
    assert_ok(safetensors_get(tensors, "m", SAFETENSORS_F32, 1, (uint64_t[]){10}, moments, &err), err);
    safetensors_close(&tensors);
    assert_true(weights[0] == (float)step && weights[599] == (float)step + 599);
    assert_true(moments[9] == (float)step - 9);
    assert_ok(checkpoint_read_blob(checkpoint, "environment.bin", 1000, &state, &length, &err), err);
    assert_int_equal(length, 100);
    assert_int_equal(state[99], (int)(step & 127));
    free(state);
    assert_int_equal(checkpoint_open_tensors(checkpoint, "other.safetensors", &tensors, &err), TD_ENOTFOUND);
    assert_null(tensors);
    checkpoint_close(&checkpoint);
    return step;
}

static int count_entries(void)
{
    DIR *list = opendir(folder);
    struct dirent *entry;
    int count = 0;

    while ((entry = readdir(list)) != NULL)
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(list);
    return count;
}

static void the_newest_loads(void **state)
{
    checkpoint_t *checkpoint;
    struct error err = {0};

    (void)state;
    assert_int_equal(checkpoint_open_newest(&checkpoint, folder, CHECKPOINT_ANY, note_passed, NULL, &err), TD_ENOTFOUND);
    write_step(20);
    write_step(10); /* newest is what was written last, not what counts highest */
    assert_int_equal(read_newest(CHECKPOINT_ANY), 10);
    assert_ok(write_one("final", CHECKPOINT_FINAL, 30, &err), err);
    assert_int_equal(read_newest(CHECKPOINT_ANY), 30);
    assert_int_equal(read_newest(CHECKPOINT_ASYNC | CHECKPOINT_CUT), 10);
    assert_int_equal(checkpoint_open_newest(&checkpoint, folder, CHECKPOINT_CUT, NULL, NULL, &err), TD_ENOTFOUND);
    assert_int_equal(passed, 0);
    assert_int_equal(checkpoint_open(&checkpoint, in_folder("step-11"), &err), TD_ENOTFOUND);
}

static void a_name_can_be_written_again(void **state)
{
    struct error err = {0};

    (void)state;
    for (int round = 0; round < 2; round++) {
        fs_fault = round == 0 ? NULL : no_exchange;
        assert_ok(write_one("final", CHECKPOINT_FINAL, 1, &err), err);
        assert_ok(write_one("final", CHECKPOINT_FINAL, 2, &err), err);
        fs_fault = NULL;
        assert_int_equal(read_newest(CHECKPOINT_ANY), 2);
        assert_int_equal(count_entries(), 1);
    }
}

/* Killed before any of its steps, a write leaves the checkpoint before it or its own, whole. */
static void kill_at_every_step(fs_fault_fn *fault, bool same_name)
{
    int rc = TD_EIO, survived = 0, k;

    for (k = 0; rc != TD_OK; k++) {
        struct error err = {0};
        uint64_t step;

        assert_true(k < 200);
        fs_remove_tree(folder, &err);
        assert_ok(write_one("step-1", CHECKPOINT_CUT, 1, &err), err);
        steps_left = k;
        fs_fault = fault;
        rc = write_one(same_name ? "step-1" : "step-2", CHECKPOINT_CUT, 2, &err);
        fs_fault = NULL;
        passed = 0;
        step = read_newest(CHECKPOINT_ANY);
        assert_true(step == 2 || (step == 1 && rc != TD_OK));
        assert_int_equal(passed, 0); /* what was not published is not even seen */
        survived += step == 1;
        /* and the next write is not hindered by what is left */
        assert_ok(write_one("step-3", CHECKPOINT_CUT, 3, &err), err);
        assert_int_equal(read_newest(CHECKPOINT_ANY), 3);
        assert_ok(checkpoint_prune(folder, 1, CHECKPOINT_ANY, &err), err);
        assert_int_equal(count_entries(), 1);
    }
    assert_true(survived > 5 && k > 10);
}

static void a_kill_at_any_step_leaves_a_valid_newest(void **state)
{
    (void)state;
    kill_at_every_step(die_at_k, false);
    kill_at_every_step(die_at_k, true);
    kill_at_every_step(die_at_k_without_exchange, true);
}

static void damage_file(const char *path, int how)
{
    struct stat info;
    FILE *file = fopen(path, "r+");
    long at;
    int byte;

    assert_non_null(file);
    assert_int_equal(fstat(fileno(file), &info), 0);
    at = (long)(rng_u32(test_rng()) % (uint32_t)info.st_size);
    if (how == 0) { /* one bit */
        fseek(file, at, SEEK_SET);
        byte = fgetc(file);
        fseek(file, at, SEEK_SET);
        fputc(byte ^ (1 << (rng_u32(test_rng()) % 8)), file);
    } else if (how == 1) { /* cut short */
        assert_int_equal(ftruncate(fileno(file), at), 0);
    } else { /* longer */
        fseek(file, 0, SEEK_END);
        fputc('x', file);
    }
    fclose(file);
}

static void a_damaged_newest_falls_back_loudly(void **state)
{
    static const char *const files[] = {"manifest.json", "manifest.sha256", "parameters.safetensors",
                                        "adam.safetensors", "environment.bin"};
    char path[FS_PATH_MAX];

    (void)state;
    for (size_t i = 0; i < TD_LEN(files); i++) {
        for (int how = 0; how < 4; how++) {
            struct error err = {0};

            fs_remove_tree(folder, &err);
            write_step(1);
            write_step(2);
            assert_int_equal(fs_join(path, in_folder("step-2"), files[i], &err), TD_OK);
            if (how == 3)
                unlink(path);
            else if (i == 1) /* beyond its 64 digits the sum file is free text */
                assert_int_equal(truncate(path, 10 + how), 0);
            else
                damage_file(path, how);
            passed = 0;
            assert_int_equal(read_newest(CHECKPOINT_ANY), 1);
            assert_int_equal(passed, 1);
            assert_string_equal(passed_name, "step-2");
        }
    }
}

static void all_damaged_is_an_error(void **state)
{
    checkpoint_t *checkpoint;
    struct error err = {0};

    (void)state;
    write_step(1);
    unlink(in_folder("step-1/adam.safetensors"));
    assert_int_equal(checkpoint_open_newest(&checkpoint, folder, CHECKPOINT_ANY, note_passed, NULL, &err), TD_ECORRUPT);
    assert_null(checkpoint);
    assert_int_equal(checkpoint_open(&checkpoint, in_folder("step-1"), &err), TD_ECORRUPT);
    assert_non_null(strstr(err.text, "adam.safetensors"));
}

/* A file replaced by a link, folder or pipe is damage, not a way out of the folder. */
static void links_and_pipes_are_not_followed(void **state)
{
    checkpoint_t *checkpoint;
    struct error err = {0};

    (void)state;
    write_step(1);
    char target[FS_PATH_MAX];
    snprintf(target, sizeof(target), "%s/adam", test_folder());
    assert_int_equal(rename(in_folder("step-1/adam.safetensors"), target), 0);
    assert_int_equal(symlink(target, in_folder("step-1/adam.safetensors")), 0);
    assert_int_equal(checkpoint_open(&checkpoint, in_folder("step-1"), &err), TD_ECORRUPT);
    unlink(in_folder("step-1/adam.safetensors"));
    assert_int_equal(mkfifo(in_folder("step-1/adam.safetensors"), 0600), 0);
    assert_int_equal(checkpoint_open(&checkpoint, in_folder("step-1"), &err), TD_ECORRUPT);
    unlink(in_folder("step-1/manifest.json"));
    assert_int_equal(mkfifo(in_folder("step-1/manifest.json"), 0600), 0);
    assert_int_equal(checkpoint_open(&checkpoint, in_folder("step-1"), &err), TD_EINVAL);
}

static void a_later_format_stops_the_search(void **state)
{
    char *text, *at, hex[FS_SHA256_HEX + 1];
    checkpoint_t *checkpoint;
    struct error err = {0};

    (void)state;
    write_step(1);
    write_step(2);
    assert_ok(fs_read_file(in_folder("step-2/manifest.json"), 1 << 20, &text, NULL, &err), err);
    at = strstr(text, "\"format\":\t1");
    assert_non_null(at);
    at[10] = '2';
    assert_ok(fs_write_file(in_folder("step-2/manifest.json"), text, strlen(text), &err), err);
    fs_sha256(text, strlen(text), hex);
    assert_ok(fs_write_file(in_folder("step-2/manifest.sha256"), hex, strlen(hex), &err), err);
    assert_int_equal(checkpoint_open_newest(&checkpoint, folder, CHECKPOINT_ANY, note_passed, NULL, &err), TD_EFOREIGN);
    free(text);
}

static void pruning_keeps_enough_complete_ones(void **state)
{
    struct checkpoint_entry *entries;
    struct error err = {0};
    int count;

    (void)state;
    for (uint64_t step = 1; step <= 6; step++)
        write_step(step);
    assert_ok(write_one("final", CHECKPOINT_FINAL, 6, &err), err);
    assert_int_equal(truncate(in_folder("step-5/adam.safetensors"), 3), 0);
    assert_ok(fs_mkdirs(in_folder(".new-step-7/x"), 0755, &err), err);
    assert_ok(checkpoint_prune(folder, 3, CHECKPOINT_ASYNC | CHECKPOINT_CUT, &err), err);
    assert_ok(checkpoint_list(folder, &entries, &count, &err), err);
    assert_int_equal(count, 5);
    assert_int_equal(count_entries(), 5);
    assert_string_equal(entries[0].name, "final");
    assert_string_equal(entries[1].name, "step-6");
    assert_string_equal(entries[2].name, "step-5");
    assert_int_equal(entries[2].code, TD_ECORRUPT); /* neither counted nor deleted */
    assert_string_equal(entries[3].name, "step-4");
    assert_string_equal(entries[4].name, "step-3");
    assert_true(entries[0].bytes > 2400);
    free(entries);
    assert_ok(checkpoint_prune(folder, 1, CHECKPOINT_ASYNC, &err), err);
    assert_int_equal(read_newest(CHECKPOINT_ASYNC), 6);
}

static int cancel(void *context, uint64_t done, uint64_t total)
{
    (void)context;
    (void)done;
    (void)total;
    return 1;
}

static void a_cancelled_write_leaves_nothing(void **state)
{
    static float weights[1000];
    struct safetensors_tensor tensor = {.name = "a", .type = SAFETENSORS_F32, .dims = 1, .shape = {1000}, .data = weights};
    struct checkpoint_group group = {"parameters.safetensors", &tensor, 1};
    struct checkpoint_parts parts = {.groups = &group, .group_count = 1, .progress = cancel};
    struct manifest manifest;
    struct error err = {0};

    (void)state;
    assert_int_equal(manifest_init(&manifest), TD_OK);
    assert_int_equal(checkpoint_write(folder, "step-1", &manifest, &parts, &err), TD_EAGAIN);
    assert_int_equal(count_entries(), 0);
    manifest_release(&manifest);
}

static void *write_in_background(void *unused)
{
    (void)unused;
    for (uint64_t step = 1; step <= 20; step++)
        write_step(step);
    return NULL;
}

static void a_reader_beside_the_writer_sees_whole_ones(void **state)
{
    pthread_t thread;
    uint64_t last = 0;

    (void)state;
    write_step(0);
    assert_int_equal(pthread_create(&thread, NULL, write_in_background, NULL), 0);
    while (last < 20) {
        uint64_t step = read_newest(CHECKPOINT_ANY);

        assert_true(step >= last);
        last = step;
    }
    pthread_join(thread, NULL);
    assert_int_equal(passed, 0);
}

/*
 * A bit flipped anywhere in any file of a checkpoint, or its end cut off: it is passed over, and the one
 * before it loads whole.
 */
static void every_flip_in_every_file_is_met(void **state)
{
    static const char *const names[] = {"manifest.json", "manifest.sha256", "parameters.safetensors",
                                        "adam.safetensors", "environment.bin"};
    long flips = test_long() ? 20000 : 400; /* per file */

    (void)state;
    write_step(1);
    write_step(2);
    assert_int_equal(read_newest(CHECKPOINT_ANY), 2);
    for (size_t i = 0; i < TD_LEN(names); i++) {
        char path[FS_PATH_MAX], *bytes;
        size_t length;
        struct error err = {0};

        assert_int_equal(fs_join(path, in_folder("step-2"), names[i], NULL), TD_OK);
        assert_ok(fs_read_file(path, 1 << 20, &bytes, &length, &err), err);
        for (long k = 0; k < flips; k++) { /* behind its 64 digits the hash's file only has a name */
            size_t at = rng_below(test_rng(), i == 1 ? 64 : (uint32_t)length);
            char bit = (char)(1 << rng_below(test_rng(), 8));
            FILE *file = fopen(path, "r+b");

            assert_non_null(file);
            bytes[at] ^= bit;
            if (k % 8 == 7) /* a truncation */
                assert_int_equal(ftruncate(fileno(file), (off_t)at), 0);
            else
                assert_int_equal(pwrite(fileno(file), bytes + at, 1, (off_t)at), 1);
            bytes[at] ^= bit;
            passed = 0;
            if (read_newest(CHECKPOINT_ANY) != 1 || passed != 1)
                fail_msg("%s: bit %d of byte %zu was not noticed", names[i], bit, at);
            assert_int_equal(pwrite(fileno(file), bytes, length, 0), length);
            assert_int_equal(fclose(file), 0);
        }
        free(bytes);
        assert_int_equal(read_newest(CHECKPOINT_ANY), 2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(the_newest_loads, fresh_folder),
        cmocka_unit_test_setup(a_name_can_be_written_again, fresh_folder),
        cmocka_unit_test_setup(a_kill_at_any_step_leaves_a_valid_newest, fresh_folder),
        cmocka_unit_test_setup(a_damaged_newest_falls_back_loudly, fresh_folder),
        cmocka_unit_test_setup(all_damaged_is_an_error, fresh_folder),
        cmocka_unit_test_setup(links_and_pipes_are_not_followed, fresh_folder),
        cmocka_unit_test_setup(a_later_format_stops_the_search, fresh_folder),
        cmocka_unit_test_setup(pruning_keeps_enough_complete_ones, fresh_folder),
        cmocka_unit_test_setup(a_cancelled_write_leaves_nothing, fresh_folder),
        cmocka_unit_test_setup(a_reader_beside_the_writer_sees_whole_ones, fresh_folder),
        cmocka_unit_test_setup(every_flip_in_every_file_is_met, fresh_folder),
    };

    setenv("TMPDIR", "/dev/shm", 0); /* nothing here is about a real disk, which may be slow to sync */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
