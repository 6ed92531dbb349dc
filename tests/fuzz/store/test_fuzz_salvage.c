/*
 * Segments and data files with any damage: reading never faults, and a row that is handed out is one
 * that was written, to the bit.
 */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/store/verify.h"
#include "tests/support/rows.h"
#include "tests/support/segments.h"
#include "tests/support/test.h"

struct kind {
    struct row_schema schema;
    bool packed;
    uint32_t tasks; /* of states: 0, or rows of the later ones are stored narrow */
};
static struct kind states = {{OBS_STATE, 4, 1}, false, 0}, frames = {{OBS_RGB, 27, 1}, false, 0},
                   packed = {{OBS_RGB, 700, 1}, true, 0}, narrow = {{OBS_STATE, 9, 3}, true, 2};
static struct row_schema schema; /* of the test under way */
static packer_t *packer;
#define STRIDE row_stride(&schema)

static uint32_t below(size_t n)
{
    return rng_below(test_rng(), (uint32_t)n);
}

static void expect_genuine(const char *rows, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++, rows += STRIDE) {
        struct row_head head;
        struct test_row_id id = {0};
        float part[4];

        memcpy(&head, rows, sizeof(head));
        memcpy(part, rows + sizeof(head), sizeof(part));
        id.sequence = head.param_version;
        id.epoch = 2;
        if (schema.obs_type == OBS_STATE) {
            id.slot = (uint32_t)part[0];
            id.env = (uint32_t)part[1];
            id.epoch = (uint64_t)part[2];
        }
        test_row_expect(rows, &schema, &id, head.flags);
    }
}

static void mutate(char *bytes, size_t *length, size_t capacity)
{
    for (uint32_t changes = 1 + below(6); changes > 0 && *length > 1; changes--) {
        size_t at = below(*length), run = 1 + below(64);

        if (run > *length - at)
            run = *length - at;
        switch (below(6)) {
        case 0: bytes[at] ^= (char)(1 << below(8)); break;
        case 1: memset(bytes + at, (int)below(256), run); break;
        case 2: *length = at + 1; break;
        case 3: memmove(bytes + below(*length - run + 1), bytes + at, run); break;
        case 4: memcpy(bytes + at, SEGMENT_MAGIC, run < 8 ? run : 8); break;
        default:
            if (*length + run <= capacity) {
                memmove(bytes + at + run, bytes + at, *length - at);
                *length += run;
            }
        }
    }
}

/* Every segment that is found in bytes of which nothing else is known. Returns how many. */
static long read_all(const char *bytes, size_t length, bool genuine)
{
    struct segment_head head;
    volatile char sink = 0;
    long opened = 0;

    for (size_t from = segment_find(bytes, length, 0); from < length; from = segment_find(bytes, length, from + 1)) {
        if (segment_open(&head, bytes + from, length - from) != TD_OK)
            continue;
        opened++;
        for (uint32_t row = 0; row < head.rows; row++) {
            const char *rows = segment_rows(&head, bytes + from, row, 1, packer);

            for (size_t i = 0; rows != NULL && !genuine && i < row_stride(&head.schema); i++)
                sink ^= rows[i];
            if (rows != NULL && genuine)
                expect_genuine(rows, 1);
        }
    }
    (void)sink;
    return opened;
}

/* Damaged segments; and, every other round, hashes that are then made to hold over whatever lies there. */
static void segments_never_fault(void **state)
{
    const struct kind *kind = *state;
    long rounds = test_long() ? 2000000 : kind->packed ? 10000 : 50000, opened = 0, honest = 0;

    schema = kind->schema;
    test_row_tasks = kind->tasks;
    for (long round = 0; round < rounds; round++) {
        uint32_t rows = 1 + below(60);
        struct segment_head head = {.schema = schema, .rows = rows, .episode_rows = rows, .slot = 1,
                                    .epoch = 2, .flags = EPISODE_TRUNCATED};
        size_t length = segment_bytes(&schema, rows), capacity = length + 512;
        char *bytes = calloc(1, capacity), *at, *exact;

        at = segment_begin(bytes, &head);
        for (uint32_t i = 0; i < rows; i++) {
            struct test_row_id id = {1, 0, 2, i};

            test_row_fill(at + i * STRIDE, &schema, &id, i == 0 ? ROW_FIRST : 0);
        }
        if (kind->packed) {
            char *room = malloc(SEGMENT_BYTES_MAX);

            length = schema.obs_type == OBS_RGB ? segment_pack(room, &head, at, packer) : segment_narrow(room, &head, at);
            assert_true(length > 0 && length < capacity);
            memcpy(bytes, room, length);
            free(room);
        } else {
            segment_finish(bytes, &head);
        }
        mutate(bytes, &length, capacity);
        exact = malloc(length); /* so that a sanitizer sees reads past the end */
        memcpy(exact, bytes, length);
        opened += read_all(exact, length, true);
        if (round % 2 == 0 && test_segment_rehash(exact, length))
            honest += read_all(exact, length, false);
        free(exact);
        free(bytes);
    }
    assert_true(opened > 0 && honest > 0);
}

static void fill(const char *dir, bool compress)
{
    struct store_config config = {.dir = dir, .schema = schema, .run_id = 3, .rows = 20000,
                                  .compress_frames = compress, .narrow = compress};
    struct error err = {0};
    char *rows = malloc(7000 * STRIDE);
    store_t *store;

    assert_ok(store_open(&store, &config, &err), err);
    for (uint32_t k = 0; k < 40; k++) {
        struct store_record record = {.slot = 1, .epoch = 2, .sequence = k * 10000, .flags = EPISODE_TRUNCATED,
                                      .rows = k % 10 == 9 ? 6500 : 1 + below(200)};

        for (uint32_t i = 0; i < record.rows; i++) {
            struct test_row_id id = {1, 0, 2, record.sequence + i};

            test_row_fill(rows + i * STRIDE, &schema, &id, i == 0 ? ROW_FIRST : 0);
        }
        assert_ok(store_insert(store, &record, rows, &err), err);
        if (k % 5 == 4)
            assert_ok(store_commit(store, &err), err);
    }
    store_close(&store);
    free(rows);
}

static void salvage_never_faults(void **state)
{
    char dir[512], out[600], path[600];
    const struct kind *kind = *state;
    int rounds = test_long() ? 1500 : kind->packed ? 25 : 50, saved = 0;
    size_t length, capacity;
    struct stat info;
    char *whole, *bytes;
    int fd;

    schema = kind->schema;
    test_row_tasks = kind->tasks;
    snprintf(dir, sizeof(dir), "%s/fuzz%u", test_folder(), schema.obs_dim);
    snprintf(path, sizeof(path), "%s/data.mdb", dir);
    snprintf(out, sizeof(out), "%s/out", test_folder());
    fill(dir, kind->packed);
    fd = open(path, O_RDONLY);
    assert_int_equal(fstat(fd, &info), 0);
    capacity = (size_t)info.st_size + 4096;
    whole = malloc(capacity);
    bytes = malloc(capacity);
    assert_int_equal(read(fd, whole, capacity), info.st_size);
    close(fd);
    for (int round = 0; round < rounds; round++) {
        struct salvage_report report;
        struct error err = {0};
        char command[700];
        store_t *store;
        struct store_config config = {.dir = out};

        length = (size_t)info.st_size;
        memcpy(bytes, whole, length);
        for (uint32_t i = 1 + below(20); i > 0; i--)
            mutate(bytes, &length, capacity);
        fd = open(path, O_WRONLY | O_TRUNC);
        assert_int_equal(write(fd, bytes, length), length);
        close(fd);
        if (store_salvage(dir, out, false, 0, &report, NULL, NULL, &err) == TD_OK) {
            saved++;
            assert_ok(store_open(&store, &config, &err), err);
            for (uint64_t id = 0; id < store_counts(store)->sealed; id++)
                for (uint32_t row = 0; row < store_episode(store, id)->rows;) {
                    uint32_t count = store_episode(store, id)->rows - row;
                    const char *rows = store_rows(store, id, row, &count);

                    assert_non_null(rows);
                    expect_genuine(rows, count);
                    row += count;
                }
            store_close(&store);
        }
        snprintf(command, sizeof(command), "rm -rf '%s'", out);
        assert_int_equal(system(command), 0);
    }
    assert_true(saved > rounds / 4);
    free(whole);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(segments_never_fault, &states),
        cmocka_unit_test_prestate(segments_never_fault, &frames),
        cmocka_unit_test_prestate(salvage_never_faults, &states),
        cmocka_unit_test_prestate(salvage_never_faults, &frames),
        cmocka_unit_test_prestate(segments_never_fault, &packed),
        cmocka_unit_test_prestate(salvage_never_faults, &packed),
        cmocka_unit_test_prestate(segments_never_fault, &narrow),
        cmocka_unit_test_prestate(salvage_never_faults, &narrow),
    };

    if (access("/dev/shm", W_OK) == 0) /* what a crash of the machine leaves is not the question here */
        setenv("TMPDIR", "/dev/shm", 0);
    if (packer_create(&packer) != TD_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
