/* sampler.c on frames: unstacked, and stacked they are what the reference's wrapper would have stored. */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "learner/replay/sampler.h"
#include "tests/support/rows.h"
#include "tests/support/test.h"

#define HORIZON 3u
#define FRAME   12288u
#define STACK   3u

static const struct row_schema schema = {OBS_RGB, FRAME, 2};
static const uint32_t lengths[] = {4, 64, 3, 23};

/* The frame of row `sequence` of an episode. */
static void frame_of(uint64_t epoch, uint64_t sequence, uint32_t ends, char *row)
{
    test_row_fill(row, &schema, &(struct test_row_id){0, 0, epoch, sequence},
                  (sequence == 0 ? (uint32_t)ROW_FIRST : 0u) | ends);
    memcpy(row_obs(row), &epoch, sizeof(epoch)); /* no two are alike */
    memcpy((char *)row_obs(row) + FRAME - sizeof(sequence), &sequence, sizeof(sequence));
}

static store_t *filled(char dir[512], bool compress)
{
    static int count;
    struct store_config config = {.dir = dir, .schema = schema, .run_id = 1, .rows = 1000,
                                  .compress_frames = compress};
    size_t stride = row_stride(&schema);
    struct error err = {0};
    store_t *store;

    snprintf(dir, 512, "%s/frames%d", test_folder(), count++);
    assert_ok(store_open(&store, &config, &err), err);
    for (size_t id = 0; id < TD_LEN(lengths); id++) {
        struct store_record record = {.epoch = id + 1, .rows = lengths[id], .flags = EPISODE_TERMINATED};
        char *rows = malloc(lengths[id] * stride);

        for (uint32_t i = 0; i < lengths[id]; i++)
            frame_of(id + 1, i, i + 1 == lengths[id] ? (uint32_t)ROW_TERMINATED : 0u, rows + i * stride);
        assert_ok(store_insert(store, &record, rows, &err), err);
        free(rows);
    }
    assert_ok(store_commit(store, &err), err);
    return store;
}

static sampler_t *sampler_on(store_t *store)
{
    struct sampler_config config = {.horizon = HORIZON, .capacity = 1000, .seed = 9};
    sampler_t *sampler;

    assert_int_equal(sampler_create(&sampler, store, &config), TD_OK);
    (void)sampler_window(sampler, SAMPLER_NEWEST);
    return sampler;
}

/* The wrapper: a queue of three frames, filled with the first at a reset; what it holds at row `at`. */
static void wrapped(uint64_t epoch, uint32_t at, char out[STACK][FRAME])
{
    static char row[16384];

    for (uint32_t i = 0; i <= at; i++) {
        frame_of(epoch, i, 0, row);
        if (i == 0) {
            for (uint32_t k = 0; k < STACK; k++)
                memcpy(out[k], row_obs(row), FRAME);
            continue;
        }
        memmove(out[0], out[1], (STACK - 1) * FRAME);
        memcpy(out[STACK - 1], row_obs(row), FRAME);
    }
}

/* Which episode and row has this frame? */
static void origin(const char *frame, uint64_t *id, uint32_t *at)
{
    static char row[16384];

    for (*id = 0; *id < TD_LEN(lengths); ++*id)
        for (*at = 0; *at < lengths[*id]; ++*at) {
            frame_of(*id + 1, *at, 0, row);
            if (memcmp(row_obs(row), frame, FRAME) == 0)
                return;
        }
    fail_msg("a frame that no episode has");
}

static void stacked_frames_are_the_wrappers(bool compress)
{
    enum { BATCH = 80 };
    char dir[512];
    store_t *store = filled(dir, compress);
    sampler_t *sampler = sampler_on(store);
    static char row[16384], expected[STACK][FRAME];
    size_t bytes = sampler_bytes(sampler, BATCH), begun = 0, across = 0;
    char *out = malloc(bytes);
    const float *action, *reward, *terminated;

    assert_int_equal(bytes, (HORIZON + STACK) * BATCH * FRAME + (HORIZON * BATCH * 4 + BATCH) * 4);
    assert_int_equal(bytes, row_slices_bytes(&schema, HORIZON, BATCH));
    test_poison(out, bytes);
    assert_int_equal(sampler_draw(sampler, 3, BATCH, out), TD_OK);
    action = (const float *)(out + (HORIZON + STACK) * BATCH * FRAME);
    reward = action + HORIZON * BATCH * 2;
    terminated = reward + HORIZON * BATCH;
    for (uint32_t b = 0; b < BATCH; b++) {
        uint32_t start, task;
        uint64_t id;

        origin(out + ((size_t)(STACK - 1) * BATCH + b) * FRAME, &id, &start);
        assert_true(start + HORIZON < lengths[id]);
        begun += start < STACK - 1;
        across += start / segment_rows_max(&schema) != (start + HORIZON) / segment_rows_max(&schema);
        memcpy(&task, terminated + HORIZON * BATCH + b, sizeof(task));
        assert_int_equal(task, 0);
        for (uint32_t t = 0; t <= HORIZON; t++) {
            wrapped(id + 1, start + t, expected);
            for (uint32_t k = 0; k < STACK; k++)
                assert_memory_equal(out + ((size_t)(t + k) * BATCH + b) * FRAME, expected[k], FRAME);
            if (t == 0)
                continue;
            frame_of(id + 1, start + t, 0, row);
            assert_memory_equal(action + ((t - 1) * BATCH + b) * 2, row_action(row, &schema), 8);
            assert_true(reward[(t - 1) * BATCH + b] == row_head(row)->reward);
            assert_true(terminated[(t - 1) * BATCH + b] == (start + t + 1 == lengths[id] ? 1.0f : 0.0f));
        }
    }
    assert_true(begun > 0 && across > 0); /* both were among them */
    free(out);
    sampler_destroy(&sampler);
    store_close(&store);
}

static void plain_frames_stacked_are_the_wrappers(void **state)
{
    (void)state;
    stacked_frames_are_the_wrappers(false);
}

static void packed_frames_stacked_are_the_wrappers(void **state)
{
    (void)state;
    stacked_frames_are_the_wrappers(true);
}

/* One changed byte of one frame: its episode is left out as soon as the frame is read. */
static void a_damaged_frame_is_noticed(void **state)
{
    enum { BATCH = 64 };
    char dir[512], path[600], *file, *found;
    store_t *store = filled(dir, false);
    static char row[16384];
    struct store_config config = {.dir = dir};
    struct error err = {0};
    sampler_t *sampler;
    struct stat info;
    char *out;
    int fd;

    (void)state;
    store_close(&store);
    snprintf(path, sizeof(path), "%s/data.mdb", dir);
    fd = open(path, O_RDWR);
    assert_int_equal(fstat(fd, &info), 0);
    file = malloc((size_t)info.st_size);
    assert_int_equal(pread(fd, file, (size_t)info.st_size, 0), info.st_size);
    frame_of(2, 30, 0, row);
    found = memmem(file, (size_t)info.st_size, row_obs(row), FRAME);
    assert_non_null(found);
    assert_int_equal(pwrite(fd, "?", 1, found - file + 5000), 1);
    close(fd);
    free(file);

    assert_ok(store_open(&store, &config, &err), err);
    sampler = sampler_on(store);
    out = malloc(sampler_bytes(sampler, BATCH));
    for (uint64_t update = 0; update < 20; update++) {
        assert_int_equal(sampler_draw(sampler, update, BATCH, out), TD_OK);
        for (uint32_t b = 0; b < BATCH; b++) {
            uint64_t id;
            uint32_t start;

            for (uint32_t t = 0; t < HORIZON + STACK && update == 19; t++) {
                origin(out + ((size_t)t * BATCH + b) * FRAME, &id, &start);
                assert_int_not_equal(id, 1);
            }
        }
    }
    assert_int_equal(store_counts(store)->bad, 1);
    free(out);
    sampler_destroy(&sampler);
    store_close(&store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_frames_stacked_are_the_wrappers),
        cmocka_unit_test(packed_frames_stacked_are_the_wrappers),
        cmocka_unit_test(a_damaged_frame_is_noticed),
    };

    if (access("/dev/shm", W_OK) == 0)
        setenv("TMPDIR", "/dev/shm", 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
