/*
 * What a disk may be after power loss while checkpoints are written, replaced and deleted on it, at every
 * moment: the newest one that was reported written, or one begun since, always loads, whole.
 */
#include <dlfcn.h>
#include <inttypes.h>
#include <limits.h>
#include <unistd.h>

#include "common/ckpt/checkpoint.h"
#include "common/util/fs.h"
#include "tests/support/disk.h"
#include "tests/support/test.h"

#define WEIGHTS 6000
#define KEEP    2

static const char *self;

/* Everything in a checkpoint follows from its step. */
static void contents(uint64_t step, float weights[WEIGHTS], char blob[100])
{
    for (int i = 0; i < WEIGHTS; i++)
        weights[i] = (float)(step * 10000) + (float)i;
    memset(blob, (int)(step % 100) + 1, 100);
}

/* --- the life that is recorded: another process of this program -------------- */

static void write_one(const char *folder, const char *name, uint64_t step)
{
    static float weights[WEIGHTS];
    char bytes[100];
    struct safetensors_tensor tensor = {.name = "a", .type = SAFETENSORS_F32, .dims = 1, .shape = {WEIGHTS}, .data = weights};
    struct checkpoint_group group = {"parameters.safetensors", &tensor, 1};
    struct checkpoint_blob blob = {"environment.bin", bytes, sizeof(bytes)};
    struct checkpoint_parts parts = {.groups = &group, .group_count = 1, .blobs = &blob, .blob_count = 1};
    struct manifest manifest;
    struct error err = {0};

    contents(step, weights, bytes);
    TD_ASSERT(manifest_init(&manifest) == TD_OK);
    manifest.kind = CHECKPOINT_ASYNC;
    manifest.step = step;
    TD_ASSERT(checkpoint_write(folder, name, &manifest, &parts, &err) == TD_OK, "%s", err.text);
    manifest_release(&manifest);
}

/* Every fourth takes the name of the one before; after each the old ones go. */
static int record(const char *folder, int count)
{
    void (*mark)(const char *text);
    struct error err = {0};

    *(void **)&mark = dlsym(RTLD_DEFAULT, "record_mark");
    TD_ASSERT(mark != NULL, "bin_record.so is not preloaded");
    for (int step = 1; step <= count; step++) {
        char name[64], text[64];

        snprintf(name, sizeof(name), "step-%d", step % 4 == 0 ? step - 1 : step);
        snprintf(text, sizeof(text), "begun %d", step);
        mark(text);
        write_one(folder, name, (uint64_t)step);
        snprintf(text, sizeof(text), "written %d", step);
        mark(text);
        TD_ASSERT(checkpoint_prune(folder, KEEP, CHECKPOINT_ASYNC, &err) == TD_OK, "%s", err.text);
    }
    return 0;
}

/* --- the images ---------------------------------------------------------------- */

static void read_promise(const disk_t *disk, size_t events, uint64_t *begun, uint64_t *written)
{
    *begun = *written = 0;
    for (size_t i = 0; i < events; i++)
        if (disk_event(disk, i)->kind == RECORD_MARK && sscanf(disk_payload(disk, i), "begun %" SCNu64, begun) != 1)
            assert_int_equal(sscanf(disk_payload(disk, i), "written %" SCNu64, written), 1);
}

static void expect_contents(checkpoint_t *checkpoint, uint64_t step, const char *where)
{
    static float weights[WEIGHTS], expected[WEIGHTS];
    char blob[100], *bytes;
    safetensors_t *tensors;
    struct error err = {0};
    size_t length;

    contents(step, expected, blob);
    assert_ok(checkpoint_open_tensors(checkpoint, "parameters.safetensors", &tensors, &err), err);
    assert_ok(safetensors_get(tensors, "a", SAFETENSORS_F32, 1, (uint64_t[]){WEIGHTS}, weights, &err), err);
    safetensors_close(&tensors);
    assert_ok(checkpoint_read_blob(checkpoint, "environment.bin", 1000, &bytes, &length, &err), err);
    if (memcmp(weights, expected, sizeof(weights)) != 0 || length != sizeof(blob) || memcmp(bytes, blob, length) != 0)
        fail_msg("%s: checkpoint %" PRIu64 " is not what was written", where, step);
    free(bytes);
}

static void check_image(disk_t *disk, size_t events, enum disk_loss loss, uint64_t seed, const char *image)
{
    const char *where = disk_describe(disk, events, loss, seed);
    uint64_t begun, written, step;
    checkpoint_t *checkpoint;
    char folder[FS_PATH_MAX];
    struct error err = {0};
    int rc;

    read_promise(disk, events, &begun, &written);
    disk_image(disk, events, loss, seed, image);
    assert_int_equal(fs_join(folder, image, "checkpoints", NULL), TD_OK);
    rc = checkpoint_open_newest(&checkpoint, folder, CHECKPOINT_ASYNC, NULL, NULL, &err);
    if (rc == TD_OK) {
        step = checkpoint_manifest(checkpoint)->step;
        if (step < written || step > begun)
            fail_msg("%s: checkpoint %" PRIu64 " loads, %" PRIu64 " was written", where, step, written);
        expect_contents(checkpoint, step, where);
        checkpoint_close(&checkpoint);
    } else if (written != 0) {
        fail_msg("%s: checkpoint %" PRIu64 " was written, none loads: %s", where, written, err.text);
    }
    /* and work goes on: the next one stands beside or in the place of what is there */
    write_one(folder, "step-1000", 1000);
    assert_ok(checkpoint_prune(folder, 1, CHECKPOINT_ASYNC, &err), err);
    assert_ok(checkpoint_open_newest(&checkpoint, folder, CHECKPOINT_ASYNC, NULL, NULL, &err), err);
    if (checkpoint_manifest(checkpoint)->step != 1000)
        fail_msg("%s: the next checkpoint is not the newest", where);
    checkpoint_close(&checkpoint);
}

static void images(size_t most, int count)
{
    char dir[512], log[512], image[512], command[2048];
    size_t made = 0;
    disk_t *disk;

    snprintf(dir, sizeof(dir), "%s/disk", test_folder());
    snprintf(log, sizeof(log), "%s/record", test_folder());
    snprintf(image, sizeof(image), "%s/image", test_folder());
    assert_ok(fs_remove_tree(dir, NULL), (struct error){0});
    assert_ok(fs_mkdirs(dir, 0755, NULL), (struct error){0});
    snprintf(command, sizeof(command), "'%s' record '%s/checkpoints' %d", self, dir, count);
    disk_record(dir, log);
    assert_int_equal(system(command), 0);
    disk_record(NULL, NULL);
    disk = disk_load(dir, log);
    disk_expect_whole(disk, dir, image, "nothing");
    for (size_t at = 0; at <= disk_events(disk); at++, made++)
        check_image(disk, at, DISK_KEPT, 0, image); /* a kill at each system call */
    for (; made < most; made++)
        check_image(disk, rng_below(test_rng(), disk_events(disk) + 1),
                    (enum disk_loss)(1 + rng_below(test_rng(), DISK_LOSSES - 1)), made, image);
    print_message("%zu images of %zu events\n", made, disk_events(disk));
    disk_destroy(&disk);
}

static void the_newest_loads_from_every_state_of_the_disk(void **state)
{
    (void)state;
    images(test_long() ? 30000 : 600, test_long() ? 40 : 9);
}

static void and_where_names_cannot_be_exchanged(void **state)
{
    (void)state;
    setenv("TD_RECORD_NO_EXCHANGE", "1", 1);
    images(test_long() ? 10000 : 400, 5);
    unsetenv("TD_RECORD_NO_EXCHANGE");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_newest_loads_from_every_state_of_the_disk),
        cmocka_unit_test(and_where_names_cannot_be_exchanged),
    };
    static char path[PATH_MAX];

    if (argc == 4 && strcmp(argv[1], "record") == 0)
        return record(argv[2], atoi(argv[3]));
    if (access("/dev/shm", W_OK) == 0)
        setenv("TMPDIR", "/dev/shm", 0); /* a disk of its own would wait for its syncs */
    self = realpath("/proc/self/exe", path);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
