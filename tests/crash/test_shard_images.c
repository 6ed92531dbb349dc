/*
 * A real replay shard's disk after power loss at any moment: whatever it had acknowledged by then - the
 * very frames that left the process - is there. tests/crash/test_store_images.c does the same to the store.
 */
#include <inttypes.h>
#include <unistd.h>

#include "common/store/store.h"
#include "common/util/fs.h"
#include "common/wire/codec.h"
#include "tests/support/disk.h"
#include "tests/support/live.h"
#include "tests/support/promise.h"
#include "tests/support/test.h"
#include "tools/straw.h"

#define WRITERS  3u
#define EPISODE  23u
#define CHUNK    7u
#define WINDOW   4u
#define CAPACITY 400u
#define TASKS    2u /* of one's rows the last columns are not stored */

static const struct row_schema schema = {OBS_STATE, 5, 2};

static void fill_row(void *row, const struct row_schema *of, uint32_t slot, uint64_t epoch, uint64_t sequence,
                     uint32_t flags)
{
    (void)flags;
    straw_row(row, of, slot, epoch, sequence, EPISODE);
    straw_task_row(row, of, slot, TASKS);
}

/* --- what was acknowledged ----------------------------------------------------- */

struct ack_sent {
    size_t event;
    uint32_t slot;
    uint64_t epoch, next;
};

struct acks {
    struct ack_sent *list;
    size_t count;
};

static void note_ack(struct acks *acks, size_t event, uint32_t slot, uint64_t epoch, uint64_t next)
{
    assert_true(slot < WRITERS && epoch < PROMISE_EPOCHS);
    acks->list = realloc(acks->list, (acks->count + 1) * sizeof(*acks->list));
    assert_non_null(acks->list);
    acks->list[acks->count++] = (struct ack_sent){event, slot, epoch, next};
}

/* A message without bulk follows its receiver's name, over a socket of many receivers. */
static void read_frame(const disk_t *disk, codec_t *codec, size_t event, struct acks *acks)
{
    static struct message message;
    const struct ingest_welcome *welcome = &message.ingest_welcome;
    const struct record *record = disk_event(disk, event);
    _Alignas(16) char bytes[1024];
    struct bulk frame = {bytes, record->payload};
    struct error err;

    if (record->kind != RECORD_FRAME || record->offset != 0 || record->payload == 0)
        return;
    assert_true(record->payload <= sizeof(bytes));
    memcpy(bytes, disk_payload(disk, event), record->payload);
    if (codec_decode(codec, &frame, 1, &message, &err) != TD_OK)
        return;
    if (message.kind == MESSAGE_ACK)
        note_ack(acks, event, message.ack.slot, message.ack.epoch, message.ack.next);
    for (uint32_t i = 0; message.kind == MESSAGE_INGEST_WELCOME && i < welcome->count; i++)
        note_ack(acks, event, welcome->slot, welcome->streams[i].epoch, welcome->streams[i].next);
}

static void read_acks(const disk_t *disk, struct acks *acks)
{
    codec_t *codec;

    assert_int_equal(codec_create(&codec), TD_OK);
    for (size_t i = 0; i < disk_events(disk); i++)
        read_frame(disk, codec, i, acks);
    codec_destroy(&codec);
    assert_true(acks->count > 0);
}

/* What holds after so many events; a writer has no more than its window unacknowledged. */
static struct promise promise_at(const struct acks *acks, size_t events)
{
    struct promise promise = {.schema = schema, .row = fill_row, .run = STRAW_RUN, .evicting = UINT64_MAX,
                              .kept = CAPACITY - EPISODE};

    for (size_t i = 0; i < acks->count && acks->list[i].event < events; i++) {
        const struct ack_sent *ack = &acks->list[i];
        uint64_t *next = &promise.acked[ack->slot][ack->epoch];

        *next = ack->next > *next ? ack->next : *next;
        promise.sent[ack->slot][ack->epoch] = *next + WINDOW * CHUNK;
    }
    return promise;
}

/* --- the shard ------------------------------------------------------------------ */

static disk_t *record_shard(uint64_t ms, char image[512])
{
    char dir[512], log[512], program[FS_PATH_MAX];
    struct straw_config config = {.dir = dir, .program = live_program("tdmpc2-replay", program), .schema = schema,
                                  .writers = WRITERS, .chunk = CHUNK, .window = WINDOW, .episode = EPISODE,
                                  .horizon = 3, .batch = 8, .capacity = CAPACITY, .map_rows = 4000, .pace_us = 3000, .tasks = TASKS};
    struct error err = {0};
    straw_t *straw;
    disk_t *disk;

    snprintf(dir, sizeof(dir), "%s/replay", test_folder());
    snprintf(log, sizeof(log), "%s/record", test_folder());
    snprintf(image, 512, "%s/image", test_folder());
    assert_ok(fs_mkdirs(dir, 0755, &err), err);
    disk_record(dir, log);
    assert_ok(straw_start(&straw, &config, &err), err);
    straw_sample(straw, 1);
    straw_write(straw, true);
    straw_run(straw, ms);
    assert_int_equal(straw_counts(straw)->refused, 0);
    straw_stop(&straw);
    disk_record(NULL, NULL);
    disk = disk_load(dir, log);
    disk_expect_whole(disk, dir, image, "lock.mdb");
    return disk;
}

static void what_was_acknowledged_survives(void **state)
{
    size_t images = test_long() ? 20000 : 400, events;
    uint64_t evicted = 0, kept = 0;
    struct acks acks = {0};
    char image[512];
    disk_t *disk = record_shard(test_long() ? 2000 : 400, image);

    (void)state;
    events = disk_events(disk);
    read_acks(disk, &acks);
    for (size_t i = 0; i < images; i++) {
        size_t at = rng_below(test_rng(), events + 1);
        enum disk_loss loss = (enum disk_loss)rng_below(test_rng(), DISK_LOSSES);
        struct promise promise = promise_at(&acks, at);
        struct promise_found found;

        disk_image(disk, at, loss, i, image);
        found = promise_audit(image, &promise, disk_describe(disk, at, loss, i));
        evicted += found.evicted;
        kept += found.kept;
    }
    assert_true(evicted > 0 && kept > 0); /* the table was full: eviction took part */
    print_message("%zu images of %zu events, %zu acknowledgements\n", images, events, acks.count);
    free(acks.list);
    disk_destroy(&disk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_acknowledged_survives),
    };

    if (access("/dev/shm", W_OK) == 0)
        setenv("TMPDIR", "/dev/shm", 0); /* a disk of its own would wait for its syncs */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
