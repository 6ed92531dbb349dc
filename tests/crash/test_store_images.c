/*
 * What a replay store's disk may be after power loss, at every moment of its life: whatever it is, the
 * store opens, every row that was promised is there or was let go of by order, and none is there twice.
 */
#include <dlfcn.h>
#include <inttypes.h>
#include <limits.h>
#include <unistd.h>

#include "common/store/store.h"
#include "common/util/fs.h"
#include "tests/support/disk.h"
#include "tests/support/promise.h"
#include "tests/support/rows.h"
#include "tests/support/test.h"

#define SLOTS  3u
#define RUN    77u
#define MAP    ((uint64_t)1 << 20)

static const struct row_schema schema = {OBS_STATE, 6, 2};
static const char *self;

/* Of as many tasks as there are streams. */
static void fill_row(void *row, const struct row_schema *of, uint32_t slot, uint64_t epoch, uint64_t sequence,
                     uint32_t flags)
{
    struct test_row_id id = {slot, 0, epoch, sequence};

    test_row_fill(row, of, &id, flags);
}

/* --- the life that is recorded: another process of this program -------------- */

struct life {
    store_t *store;
    struct store_config config;
    struct rng rng;
    uint64_t epoch[SLOTS];
    uint64_t ended[SLOTS]; /* rows of the epoch before, when the open transaction ended it */
    uint64_t evicted;
    void (*mark)(const char *text);
};

static void mark(struct life *life, const char *word, uint64_t a, uint64_t b, uint64_t c)
{
    char text[128];

    snprintf(text, sizeof(text), "%s %" PRIu64 " %" PRIu64 " %" PRIu64, word, a, b, c);
    life->mark(text);
}

static void mark_streams(struct life *life, const char *word)
{
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        if (life->ended[slot] != 0)
            mark(life, word, slot, life->epoch[slot] - 1, life->ended[slot]);
        mark(life, word, slot, life->epoch[slot], store_stream(life->store, slot, 0)->next);
    }
}

/* What the world is told once a commit has succeeded, and what it might find before. */
static void commit(struct life *life)
{
    struct error err = {0};

    mark_streams(life, "sent");
    mark(life, "evicting", life->evicted, 0, 0);
    TD_ASSERT(store_commit(life->store, &err) == TD_OK, "%s", err.text);
    mark_streams(life, "acked");
    memset(life->ended, 0, sizeof(life->ended));
}

/* Only in a transaction that will be committed. */
static void grant(struct life *life, uint32_t slot)
{
    const struct store_stream *stream = store_stream(life->store, slot, 0);
    struct error err = {0};

    life->ended[slot] = stream == NULL ? 0 : stream->next;
    TD_ASSERT(store_grant(life->store, slot, 0, ++life->epoch[slot], 1000 + slot, &err) == TD_OK, "%s", err.text);
}

static void append(struct life *life, uint32_t slot)
{
    const struct store_stream *stream = store_stream(life->store, slot, 0);
    uint32_t count = 1 + (uint32_t)rng_below(&life->rng, 12);
    size_t stride = row_stride(&schema);
    char rows[12 * 256];
    struct error err = {0};

    for (uint32_t i = 0; i < count; i++) {
        bool ends = i + 1 == count && rng_below(&life->rng, 4) == 0;

        fill_row(rows + i * stride, &schema, slot, stream->epoch, stream->next + i,
                 (i == 0 && stream->open_rows == 0 ? ROW_FIRST : 0u) | (ends ? ROW_TRUNCATED : 0u));
    }
    TD_ASSERT(store_append(life->store, slot, 0, rows, count, &err) == TD_OK, "%s", err.text);
}

static void evict(struct life *life, uint64_t keep)
{
    const struct store_counts *counts = store_counts(life->store);
    struct error err = {0};

    if (store_committed(life->store) < counts->first + keep)
        return;
    life->evicted = store_committed(life->store) - keep;
    TD_ASSERT(store_evict(life->store, life->evicted, 100, &err) == TD_OK, "%s", err.text);
}

static void open_store(struct life *life)
{
    struct error err = {0};

    TD_ASSERT(store_open(&life->store, &life->config, &err) == TD_OK, "%s", err.text);
}

/* Appends, commits, an abort now and then; some streams begin anew; the store is closed and reopened, padded and narrow. */
static void live(struct life *life, int steps)
{
    for (int step = 0; step < steps; step++) {
        uint32_t slot = (uint32_t)rng_below(&life->rng, SLOTS);
        uint64_t dice = rng_below(&life->rng, 100);

        for (uint64_t more = 1 + rng_below(&life->rng, 4); more > 0; more--)
            append(life, (uint32_t)rng_below(&life->rng, SLOTS));
        if (dice < 4 && life->epoch[slot] + 1 < PROMISE_EPOCHS)
            grant(life, slot);
        if (dice < 30)
            evict(life, 12);
        if (dice >= 96)
            store_abort(life->store);
        if (dice < 75 || dice >= 96)
            commit(life);
        if (step % 40 == 39) {
            commit(life);
            store_close(&life->store);
            life->config.narrow = !life->config.narrow;
            open_store(life);
        }
    }
}

static int record(const char *dir, int steps)
{
    struct life life = {
        .config = {.dir = dir, .schema = schema, .run_id = RUN, .rows = 1000, .map_bytes = MAP, .force = true,
                   .narrow = true},
    };
    struct rng_key key = {.seed = 5, .purpose = RNG_TEST};

    *(void **)&life.mark = dlsym(RTLD_DEFAULT, "record_mark");
    TD_ASSERT(life.mark != NULL, "bin_record.so is not preloaded");
    rng_init(&life.rng, &key);
    open_store(&life);
    for (uint32_t slot = 0; slot < SLOTS; slot++)
        grant(&life, slot);
    commit(&life);
    live(&life, steps);
    commit(&life);
    store_close(&life.store);
    return 0;
}

/* --- what was promised, at some moment --------------------------------------- */

/* The independent log: marks of the first `events` events. */
static void read_promise(const disk_t *disk, size_t events, struct promise *promise)
{
    memset(promise, 0, sizeof(*promise));
    promise->schema = schema;
    promise->row = fill_row;
    promise->run = RUN;
    for (size_t i = 0; i < events; i++) {
        uint64_t a, b, c;
        char word[16];

        if (disk_event(disk, i)->kind != RECORD_MARK)
            continue;
        assert_int_equal(sscanf(disk_payload(disk, i), "%15s %" SCNu64 " %" SCNu64 " %" SCNu64, word, &a, &b, &c), 4);
        if (strcmp(word, "evicting") == 0) {
            promise->evicting = a;
            continue;
        }
        assert_true(a < SLOTS && b < PROMISE_EPOCHS);
        if (strcmp(word, "sent") == 0)
            promise->sent[a][b] = c > promise->sent[a][b] ? c : promise->sent[a][b];
        else
            promise->acked[a][b] = c;
    }
}

/* --- the images ---------------------------------------------------------------- */

static disk_t *record_life(int steps, char image[FS_PATH_MAX])
{
    char dir[512], log[512], command[2048];
    disk_t *disk;

    snprintf(dir, sizeof(dir), "%s/disk", test_folder());
    snprintf(log, sizeof(log), "%s/record", test_folder());
    snprintf(image, FS_PATH_MAX, "%s/image", test_folder());
    assert_ok(fs_remove_tree(dir, NULL), (struct error){0});
    assert_ok(fs_mkdirs(dir, 0755, NULL), (struct error){0});
    snprintf(command, sizeof(command), "'%s' record '%s/replay' %d", self, dir, steps);
    disk_record(dir, log);
    assert_int_equal(system(command), 0);
    disk_record(NULL, NULL);
    disk = disk_load(dir, log);
    disk_expect_whole(disk, dir, image, "lock.mdb");
    return disk;
}

static void check_image(disk_t *disk, size_t events, enum disk_loss loss, uint64_t seed, const char *image)
{
    struct promise promise;
    char dir[FS_PATH_MAX];

    disk_image(disk, events, loss, seed, image);
    read_promise(disk, events, &promise);
    assert_int_equal(fs_join(dir, image, "replay", NULL), TD_OK);
    promise_audit(dir, &promise, disk_describe(disk, events, loss, seed));
}

/* Every prefix, as a kill leaves it and as power loss may; then more, at random moments. */
static void every_state_of_the_disk_keeps_its_promises(void **state)
{
    size_t images = test_long() ? 20000 : 1200, events, made = 0;
    char image[FS_PATH_MAX];
    disk_t *disk = record_life(test_long() ? 400 : 60, image);

    (void)state;
    events = disk_events(disk);
    for (size_t at = 0; at <= events && made < images; at++) {
        uint32_t kind = at > 0 ? disk_event(disk, at - 1)->kind : 0;

        if (kind == RECORD_MARK && at < events && disk_event(disk, at)->kind == RECORD_MARK)
            continue; /* the disk is the same */
        check_image(disk, at, DISK_KEPT, 0, image);
        made++;
    }
    while (made < images) { /* a tenth in its first moments: there is most to go wrong in few events */
        size_t at = rng_below(test_rng(), (rng_below(test_rng(), 10) == 0 && events > 40 ? 40 : events) + 1);

        check_image(disk, at, (enum disk_loss)(1 + rng_below(test_rng(), DISK_LOSSES - 1)), made, image);
        made++;
    }
    print_message("%zu images of %zu events\n", made, events);
    disk_destroy(&disk);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_state_of_the_disk_keeps_its_promises),
    };
    static char path[PATH_MAX];

    test_row_tasks = SLOTS;
    if (argc == 4 && strcmp(argv[1], "record") == 0)
        return record(argv[2], atoi(argv[3]));
    if (access("/dev/shm", W_OK) == 0)
        setenv("TMPDIR", "/dev/shm", 0); /* a disk of its own would wait for its syncs */
    self = realpath("/proc/self/exe", path);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
