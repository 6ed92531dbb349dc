#include "tests/support/tap.h"

#include <dirent.h>
#include <dlfcn.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

#include "common/store/store.h"
#include "common/util/fs.h"
#include "common/wire/codec.h"
#include "tests/support/test.h"

#define SOCKETS_MAX 64
#define FILE_MAX    ((size_t)1 << 30)

/* --- switching it on -------------------------------------------------------- */

const char *tap_library(void)
{
    static char full[FS_PATH_MAX];
    const char *build = getenv("TD_BUILD");
    char path[FS_PATH_MAX], *real;

    snprintf(path, sizeof(path), "%s/tests/support/bin_tap.so", build == NULL ? "build/release" : build);
    real = realpath(path, NULL);
    if (real == NULL)
        return NULL;
    snprintf(full, sizeof(full), "%s", real);
    free(real);
    return full;
}

void tap_start(const char *folder)
{
    const char *library = tap_library(), *sanitizer = getenv("ASAN_OPTIONS");
    char options[512];

    if (folder == NULL) {
        unsetenv("LD_PRELOAD");
        unsetenv("TD_TAP");
        return;
    }
    if (library == NULL)
        fail_msg("bin_tap.so is missing: run 'make tests'");
    mkdir(folder, 0755);
    setenv("TD_TAP", folder, 1);
    setenv("LD_PRELOAD", library, 1);
    /* the sanitizer's library would rather be the first */
    snprintf(options, sizeof(options), "%s%sverify_asan_link_order=0", sanitizer == NULL ? "" : sanitizer,
             sanitizer == NULL ? "" : ":");
    setenv("ASAN_OPTIONS", options, 1);
}

void tap_preload(const char *name)
{
    const char *library = tap_library(), *slash = strrchr(library, '/');
    char list[3 * FS_PATH_MAX];

    snprintf(list, sizeof(list), "%s:%.*s/bin_%s.so", getenv("LD_PRELOAD"), (int)(slash - library), library, name);
    setenv("LD_PRELOAD", list, 1);
}

/* --- reading the notes ------------------------------------------------------ */

/* The frames of a message under way over one socket, in one direction. */
struct assembly {
    uint64_t socket;
    uint32_t kind;
    struct bulk frames[1 + WIRE_BULK_MAX];
    uint32_t count;
    bool broken;
};

static struct tap_stream *stream_of(struct tap *tap, uint64_t store, uint32_t slot, uint32_t env, uint64_t epoch)
{
    struct tap_stream *stream;

    for (size_t i = 0; i < tap->count; i++) {
        stream = &tap->streams[i];
        if (stream->store == store && stream->slot == slot && stream->env == env && stream->epoch == epoch)
            return stream;
    }
    tap->streams = realloc(tap->streams, (tap->count + 1) * sizeof(*tap->streams));
    assert_non_null(tap->streams);
    stream = &tap->streams[tap->count++];
    *stream = (struct tap_stream){.store = store, .slot = slot, .env = env, .epoch = epoch};
    return stream;
}

static void note_row(struct tap *tap, struct tap_stream *stream, uint64_t sequence, const void *row, size_t stride)
{
    uint64_t hash = XXH3_64bits(row, stride) | 1;

    if (sequence >= stream->capacity) {
        uint64_t capacity = sequence * 2 + 256;

        stream->hash = realloc(stream->hash, capacity * sizeof(*stream->hash));
        assert_non_null(stream->hash);
        memset(stream->hash + stream->capacity, 0, (capacity - stream->capacity) * sizeof(*stream->hash));
        stream->capacity = capacity;
    }
    if (stream->hash[sequence] != 0 && stream->hash[sequence] != hash)
        fail_msg("row %" PRIu64 " of epoch %" PRIu64 " of stream %u.%u was sent with two contents", sequence,
                 stream->epoch, stream->slot, stream->env);
    tap->resent += stream->hash[sequence] != 0;
    stream->hash[sequence] = hash;
    if (sequence >= stream->sent)
        stream->sent = sequence + 1;
    tap->rows++;
}

static void note_acked(struct tap *tap, uint64_t store, uint32_t slot, uint32_t env, uint64_t epoch, uint64_t next)
{
    struct tap_stream *stream = stream_of(tap, store, slot, env, epoch);

    if (next > stream->acked)
        stream->acked = next;
}

static void note_message(struct tap *tap, uint32_t kind, const struct message *message)
{
    const struct rows *rows = &message->rows;
    const struct ingest_welcome *welcome = &message->ingest_welcome;

    tap->messages++;
    if (kind == TAP_SENT && message->kind < TD_LEN(tap->said))
        tap->said[message->kind]++;
    if (kind == TAP_SENT && message->kind == MESSAGE_ROWS) {
        struct tap_stream *stream = stream_of(tap, rows->store, rows->slot, rows->environment, rows->epoch);

        for (uint32_t i = 0; i < rows->count; i++)
            note_row(tap, stream, rows->first + i, (const char *)message->bulk[0].data + (size_t)i * rows->stride,
                     rows->stride);
    } else if (kind == TAP_RECEIVED && message->kind == MESSAGE_ACK) {
        note_acked(tap, message->ack.store, message->ack.slot, message->ack.environment, message->ack.epoch,
                   message->ack.next);
    } else if (kind == TAP_RECEIVED && message->kind == MESSAGE_INGEST_WELCOME) {
        for (uint32_t i = 0; i < welcome->count; i++)
            if (welcome->streams[i].epoch != 0)
                note_acked(tap, welcome->store, welcome->slot, welcome->streams[i].environment,
                           welcome->streams[i].epoch, welcome->streams[i].next);
    }
}

static struct assembly *assembly_of(struct assembly *list, uint64_t socket, uint32_t kind)
{
    for (int i = 0; i < SOCKETS_MAX; i++) {
        if (list[i].socket == socket && list[i].kind == kind)
            return &list[i];
        if (list[i].socket == 0) {
            list[i].socket = socket;
            list[i].kind = kind;
            return &list[i];
        }
    }
    fail_msg("more than %d sockets", SOCKETS_MAX);
    return NULL;
}

static void read_notes(struct tap *tap, codec_t *codec, const char *bytes, size_t length)
{
    struct assembly list[SOCKETS_MAX] = {0};
    struct message *message = calloc(1, sizeof(*message));
    struct error err;
    size_t at = 0;

    assert_non_null(message);
    while (at + sizeof(struct tap_head) <= length) {
        struct assembly *one;
        struct tap_head head;

        memcpy(&head, bytes + at, sizeof(head));
        at += sizeof(head);
        if (head.length > length - at) /* the last one, torn */
            break;
        one = assembly_of(list, head.socket, head.kind == TAP_RECEIVED ? TAP_RECEIVED : TAP_SENT);
        if (head.kind == TAP_UNSENT) { /* sends fail at their first frame or not at all */
            one->count = 0;
            continue;
        }
        if (one->count < 1 + WIRE_BULK_MAX) {
            void *copy = malloc(head.length + 1); /* the codec wants it aligned */

            assert_non_null(copy);
            memcpy(copy, bytes + at, head.length);
            free((void *)(uintptr_t)one->frames[one->count].data);
            one->frames[one->count++] = (struct bulk){copy, head.length};
        }
        at += head.length;
        if (head.more)
            continue;
        if (codec_decode(codec, one->frames, one->count, message, &err) == TD_OK)
            note_message(tap, one->kind, message);
        one->count = 0;
    }
    for (int i = 0; i < SOCKETS_MAX; i++)
        for (int k = 0; k <= WIRE_BULK_MAX; k++)
            free((void *)(uintptr_t)list[i].frames[k].data);
    free(message);
}

void tap_load(struct tap *tap, const char *folder)
{
    DIR *list = opendir(folder);
    struct dirent *entry;
    codec_t *codec;
    struct error err;

    memset(tap, 0, sizeof(*tap));
    assert_non_null(list);
    assert_int_equal(codec_create(&codec), TD_OK);
    while ((entry = readdir(list)) != NULL) {
        char path[FS_PATH_MAX], *bytes;
        size_t length;

        if (strstr(entry->d_name, ".tap") == NULL)
            continue;
        snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
        assert_ok(fs_read_file(path, FILE_MAX, &bytes, &length, &err), err);
        read_notes(tap, codec, bytes, length);
        free(bytes);
        tap->files++;
    }
    closedir(list);
    codec_destroy(&codec);
}

void tap_release(struct tap *tap)
{
    for (size_t i = 0; i < tap->count; i++) {
        free(tap->streams[i].hash);
        free(tap->streams[i].seen);
    }
    free(tap->streams);
    memset(tap, 0, sizeof(*tap));
}

/* --- the store -------------------------------------------------------------- */

/* A copy of the store, all that is open in it sealed. */
static store_t *open_copy(const char *dir, char copy[FS_PATH_MAX])
{
    struct store_config config = {.dir = copy, .any_shard = true};
    char command[4 * FS_PATH_MAX];
    struct error err;
    store_t *store;

    snprintf(copy, FS_PATH_MAX, "%s/audit-%ld", test_folder(), (long)getpid());
    snprintf(command, sizeof(command), "rm -rf '%s' && mkdir '%s' && cp --sparse=always '%s/data.mdb' '%s'", copy, copy,
             dir, copy);
    assert_int_equal(system(command), 0);
    assert_ok(store_open(&store, &config, &err), err);
    for (size_t i = 0; i < store_stream_count(store); i++) {
        struct store_stream stream = *store_stream_at(store, i);

        if (stream.holder != 0)
            assert_ok(store_close_stream(store, stream.slot, stream.env, &err), err);
    }
    assert_ok(store_commit(store, &err), err);
    return store;
}

static void see_row(const struct store_record *record, struct tap_stream *stream, uint64_t id, uint32_t row,
                    const void *bytes, size_t stride)
{
    uint64_t sequence = record->sequence + row;

    if (sequence >= stream->sent || stream->hash[sequence] == 0)
        fail_msg("episode %" PRIu64 " holds row %" PRIu64 " of epoch %" PRIu64 " of stream %u.%u, which was never sent",
                 id, sequence, record->epoch, record->slot, record->env);
    if (stream->seen[sequence]++ != 0)
        fail_msg("row %" PRIu64 " of epoch %" PRIu64 " of stream %u.%u is there twice", sequence, record->epoch,
                 record->slot, record->env);
    if ((XXH3_64bits(bytes, stride) | 1) != stream->hash[sequence])
        fail_msg("row %" PRIu64 " of epoch %" PRIu64 " of stream %u.%u is not what was sent", sequence, record->epoch,
                 record->slot, record->env);
}

static uint64_t see_episode(struct tap *tap, store_t *store, uint64_t id)
{
    const struct store_identity *identity = store_identity(store);
    size_t stride = row_stride(&identity->schema);
    struct store_record record;
    struct tap_stream *stream;
    struct error err;
    uint32_t count;

    assert_ok(store_record(store, id, &record, &err), err);
    stream = stream_of(tap, identity->store_id, record.slot, record.env, record.epoch);
    if (stream->seen == NULL)
        assert_non_null(stream->seen = calloc(stream->capacity + 1, 1));
    for (uint32_t row = 0; row < record.rows; row += count) {
        const char *bytes;

        count = record.rows - row;
        bytes = store_rows(store, id, row, &count);
        if (bytes == NULL)
            fail_msg("episode %" PRIu64 " is damaged at row %u", id, row);
        for (uint32_t i = 0; i < count; i++)
            see_row(&record, stream, id, row + i, bytes + (size_t)i * stride, stride);
        store_rows_end(store);
    }
    return record.rows;
}

/* Is a later row of this stream in the store? Then this one was not evicted. */
static bool later_kept(const struct tap *tap, const struct tap_stream *stream, uint64_t sequence)
{
    for (size_t i = 0; i < tap->count; i++) {
        const struct tap_stream *other = &tap->streams[i];

        if (other->store == stream->store && other->slot == stream->slot && other->env == stream->env &&
            other->epoch < stream->epoch && other->seen != NULL)
            for (uint64_t k = 0; k < other->sent; k++)
                if (other->seen[k])
                    return true; /* an even older one is */
    }
    for (uint64_t k = 0; stream->seen != NULL && k < sequence; k++)
        if (stream->seen[k])
            return true;
    return false;
}

/* What is missing must be older than everything its stream still has. */
static void check_missing(const struct tap *tap, uint64_t store, struct tap_result *result, uint64_t *acked_missing,
                          uint64_t *sent_missing)
{
    for (size_t i = 0; i < tap->count; i++) {
        const struct tap_stream *stream = &tap->streams[i];

        if (stream->store != store)
            continue;
        if (stream->acked > stream->sent)
            fail_msg("stream %u.%u: %" PRIu64 " rows acknowledged, %" PRIu64 " sent", stream->slot, stream->env,
                     stream->acked, stream->sent);
        result->acked += stream->acked;
        for (uint64_t k = 0; k < stream->sent; k++) {
            bool seen = stream->seen != NULL && stream->seen[k];

            result->sent += stream->hash[k] != 0;
            if (seen)
                continue;
            (*sent_missing)++;
            if (k >= stream->acked)
                continue;
            (*acked_missing)++;
            if (later_kept(tap, stream, k))
                fail_msg("acknowledged row %" PRIu64 " of epoch %" PRIu64 " of stream %u.%u is lost", k, stream->epoch,
                         stream->slot, stream->env);
        }
    }
}

struct tap_result tap_audit(struct tap *tap, const char *dir, uint64_t buffer)
{
    struct tap_result result = {0};
    uint64_t acked_missing = 0, sent_missing = 0;
    const struct store_counts *counts;
    char copy[FS_PATH_MAX];
    store_t *store = open_copy(dir, copy);

    counts = store_counts(store);
    for (uint64_t id = counts->first; id < counts->sealed; id++)
        result.kept += see_episode(tap, store, id);
    assert_int_equal(counts->open_rows, 0);
    assert_int_equal(counts->bad, 0);
    assert_int_equal(counts->held_rows, result.kept);
    result.evicted = counts->rows - result.kept;
    check_missing(tap, store_identity(store)->store_id, &result, &acked_missing, &sent_missing);
    if (result.evicted < acked_missing)
        fail_msg("%" PRIu64 " acknowledged rows are gone, %" PRIu64 " were evicted", acked_missing, result.evicted);
    if (result.evicted > sent_missing)
        fail_msg("the store took in %" PRIu64 " rows more than it should have", result.evicted - sent_missing);
    if (result.evicted > 0 && result.kept < buffer)
        fail_msg("%" PRIu64 " rows kept, %" PRIu64 " expected", result.kept, buffer);
    store_close(&store);
    fs_remove_tree(copy, NULL);
    return result;
}
