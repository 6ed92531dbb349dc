/*
 * A store's file with a bit flipped, or its end cut off, at any place: the store refuses it in a sentence,
 * or serves what is whole and sets the rest aside. Never another row, never a crash, never a hang; and
 * what is written and freed afterwards destroys nothing.
 */
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <xxhash.h>

#include "common/store/tree.h"
#include "common/store/verify.h"
#include "common/util/clock.h"
#include "tests/support/rows.h"
#include "tests/support/test.h"

static const struct row_schema schema = {OBS_STATE, 4, 1};
#define STRIDE  row_stride(&schema)
#define STREAMS 70u /* so many that their table has branches */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLOW 10 /* what a sanitizer costs: so much less is done */
#else
#define SLOW 1
#endif

static uint32_t below(uint32_t n)
{
    return rng_below(test_rng(), n);
}

static struct store_config config_for(const char *dir)
{
    return (struct store_config){.dir = dir, .schema = schema, .run_id = 3, .rows = 60000};
}

/* --- a store with everything in it ------------------------------------------ */

static void append(store_t *store, uint32_t slot, uint32_t count, uint32_t ends)
{
    test_rows_append(store, &schema, slot, count, ends);
}

static void commit(store_t *store)
{
    struct error err = {0};

    assert_ok(store_commit(store, &err), err);
}

static void step(store_t *store, uint32_t streams)
{
    static const uint32_t lengths[] = {1, 3, 20, 60, 300, 1500, 7000};
    uint32_t slot = below(streams);
    struct error err = {0};

    if (store_stream(store, slot, 0) == NULL || store_stream(store, slot, 0)->holder == 0 || below(40) == 0) {
        const struct store_stream *stream = store_stream(store, slot, 0);

        assert_ok(store_grant(store, slot, 0, stream == NULL ? 1 : stream->epoch + 1, 7, &err), err);
    }
    append(store, slot, 1 + below(lengths[below(TD_LEN(lengths))]), below(3) != 0 ? (uint32_t)ROW_TRUNCATED : 0u);
    if (store_counts(store)->held_rows > 30000)
        assert_ok(store_evict(store, store_counts(store)->sealed - 40, 1 + below(60), &err), err);
}

/* The store's tables; what LMDB calls MDB_INTEGERKEY is 8. */
static const struct tree_table tables[] = {
    {.name = "meta", .runs_whole = true},
    {.name = "streams", .key_size = 8, .runs_whole = true},
    {.name = "open", .key_size = 16, .runs_whole = true},
    {.name = "episodes", .flags = 8, .key_size = 8, .runs_whole = true},
    {.name = "segments", .flags = 8, .key_size = 8, .runs_whole = true},
};

static int walk(const char *path, bool deep, struct error *err)
{
    struct tree_options options = {.tables = tables, .table_count = TD_LEN(tables), .deep = deep};
    int fd = open(path, O_RDONLY), rc = tree_walk(fd, path, &options, err);

    close(fd);
    return rc;
}

/* What LMDB makes of any history is whole. */
static void no_false_alarm(void **state)
{
    int rounds = test_long() ? 60 : 3, steps = (test_long() ? 1500 : 400) / SLOW;
    char dir[512], path[600];

    (void)state;
    for (int round = 0; round < rounds; round++) {
        struct store_config config;
        struct error err = {0};
        store_t *store;

        snprintf(dir, sizeof(dir), "%s/churn%d", test_folder(), round);
        snprintf(path, sizeof(path), "%s/data.mdb", dir);
        config = config_for(dir);
        assert_ok(store_open(&store, &config, &err), err);
        assert_ok(walk(path, true, &err), err);
        for (int i = 0; i < steps; i++) {
            step(store, 1 + below(STREAMS));
            if (below(60) == 0) {
                const struct store_counts *counts = store_counts(store);
                uint64_t sealed = store_committed(store), rows;

                commit(store);
                sealed = counts->sealed;
                rows = counts->rows - counts->open_rows;
                assert_ok(store_rewind(store, counts->generation + 1, rows, sealed, &err), err);
            }
            if (below(3) == 0)
                commit(store);
            assert_ok(walk(path, true, &err), err);
            if (below(50) == 0) {
                store_close(&store);
                config.check = below(2);
                assert_ok(store_open(&store, &config, &err), err);
            }
        }
        store_close(&store);
        assert_int_equal(unlink(path), 0);
    }
}

/* --- what it was ------------------------------------------------------------ */

struct oracle {
    char dir[512], path[600], mark[600];
    char *whole;
    size_t length;
    struct store_counts counts;
    struct store_stream streams[STREAMS];
    struct store_record *records;
    uint64_t **hashes; /* per episode and row */
    char why[768];     /* of the child: what went wrong */
};

static uint64_t row_hash(const void *row)
{
    return XXH3_64bits(row, STRIDE);
}

static void remember_rows(struct oracle *oracle, store_t *store, uint64_t id)
{
    struct store_record *record = &oracle->records[id];
    struct error err = {0};

    assert_ok(store_record(store, id, record, &err), err);
    oracle->hashes[id] = malloc(record->rows * sizeof(uint64_t));
    for (uint32_t row = 0; row < record->rows;) {
        uint32_t count = record->rows - row;
        const char *rows = store_rows(store, id, row, &count);

        assert_non_null(rows);
        for (uint32_t i = 0; i < count; i++)
            oracle->hashes[id][row + i] = row_hash(rows + i * STRIDE);
        row += count;
    }
    store_rows_end(store);
}

static void make_oracle(struct oracle *oracle, const char *name)
{
    struct store_config config;
    struct error err = {0};
    struct stat info;
    store_t *store;
    int fd;

    snprintf(oracle->dir, sizeof(oracle->dir), "%s/%s", test_folder(), name);
    snprintf(oracle->path, sizeof(oracle->path), "%s/data.mdb", oracle->dir);
    snprintf(oracle->mark, sizeof(oracle->mark), "%s/closed", oracle->dir);
    config = config_for(oracle->dir);
    assert_ok(store_open(&store, &config, &err), err);
    for (uint32_t slot = 0; slot < STREAMS; slot++) {
        assert_ok(store_grant(store, slot, 0, 1, 7, &err), err);
        append(store, slot, 1 + below(30), 0);
    }
    commit(store);
    for (int i = 0; i < 150; i++) {
        if (i % 10 == 5) { /* epochs differ, so that a row of another one is another row */
            uint32_t slot = i % 20 == 5 ? below(4) : below(STREAMS);

            assert_ok(store_grant(store, slot, 0, store_stream(store, slot, 0)->epoch + 1 + below(3), 7, &err), err);
            append(store, slot, 1 + below(30), 0);
        }
        append(store, below(4), 1 + below(i < 100 ? 400 : 80), ROW_TRUNCATED);
        if (i % 4 == 3)
            commit(store);
    }
    append(store, 3, 300, 0); /* an append that is a run */
    commit(store);
    assert_ok(store_evict(store, 100, 100, &err), err); /* a free list of a page and more */
    commit(store);
    append(store, 0, 6600, ROW_TRUNCATED); /* at the end of the file */
    commit(store);
    oracle->counts = *store_counts(store);
    for (uint32_t slot = 0; slot < STREAMS; slot++)
        oracle->streams[slot] = *store_stream(store, slot, 0);
    oracle->records = calloc(oracle->counts.sealed, sizeof(*oracle->records));
    oracle->hashes = calloc(oracle->counts.sealed, sizeof(*oracle->hashes));
    for (uint64_t id = oracle->counts.first; id < oracle->counts.sealed; id++)
        remember_rows(oracle, store, id);
    store_close(&store);
    (void)unlink(oracle->mark); /* as if it had not been closed */
    fd = open(oracle->path, O_RDONLY);
    assert_int_equal(fstat(fd, &info), 0);
    oracle->length = test_used_bytes(oracle->dir); /* the zeros behind are nothing */
    oracle->whole = malloc(oracle->length);
    assert_int_equal(read(fd, oracle->whole, oracle->length), oracle->length);
    close(fd);
}

static void drop_oracle(struct oracle *oracle)
{
    for (uint64_t id = oracle->counts.first; id < oracle->counts.sealed; id++)
        free(oracle->hashes[id]);
    free(oracle->hashes);
    free(oracle->records);
    free(oracle->whole);
}

/* --- one damaged file, in a child ------------------------------------------- */

enum outcome { UNHARMED = 10, SET_ASIDE, REFUSED, WRONG };

static bool same_counts(const struct store_counts *a, const struct store_counts *b)
{
    return a->rows == b->rows && a->steps == b->steps && a->sealed == b->sealed && a->aborted == b->aborted &&
           a->generation == b->generation && a->learner_epoch == b->learner_epoch && a->first == b->first &&
           a->held_rows == b->held_rows && a->open_rows == b->open_rows && a->streams == b->streams;
}

static bool same_streams(const struct oracle *oracle, store_t *store)
{
    for (uint32_t slot = 0; slot < STREAMS; slot++) {
        const struct store_stream *stream = store_stream(store, slot, 0), *was = &oracle->streams[slot];

        if (stream == NULL || stream->epoch != was->epoch || stream->next != was->next ||
            stream->steps != was->steps || stream->holder != was->holder ||
            stream->open_rows != was->open_rows || stream->waiting != was->waiting)
            return false;
    }
    return true;
}

static enum outcome wrong(struct oracle *oracle, const char *why)
{
    snprintf(oracle->why, sizeof(oracle->why), "%s", why);
    return WRONG;
}

/* Every row that is served is the one that was there. */
static enum outcome read_all(struct oracle *oracle, store_t *store, enum outcome outcome)
{
    for (uint64_t id = store_counts(store)->first; id < oracle->counts.sealed; id++) {
        struct store_record record, *was = &oracle->records[id];

        if (store_record(store, id, &record, NULL) != TD_OK)
            return REFUSED;
        if (memcmp(&record, was, sizeof(record)) != 0)
            return wrong(oracle, "another index record");
        for (uint32_t row = 0; row < record.rows;) {
            uint32_t count = record.rows - row < 16 ? record.rows - row : 16, asked = count;
            const char *rows = store_rows(store, id, row, &count);

            if (rows == NULL)
                outcome = SET_ASIDE;
            for (uint32_t i = 0; rows != NULL && i < count; i++)
                if (row_hash(rows + i * STRIDE) != oracle->hashes[id][row + i])
                    return wrong(oracle, "another row");
            row += rows == NULL ? asked : count;
        }
        store_rows_end(store);
    }
    return outcome;
}

/* Write, seal what was under way and free; TD_OK or the store's refusal. */
static int work(struct oracle *oracle, store_t *store)
{
    struct error err = {0};
    uint64_t middle = (oracle->counts.first + oracle->counts.sealed) / 2;
    int rc;

    for (int round = 0; round < 3; round++) {
        append(store, 1, 150, ROW_TRUNCATED);
        if ((rc = store_commit(store, &err)) != TD_OK ||
            (rc = store_close_stream(store, 3 + (uint32_t)round, 0, &err)) != TD_OK ||
            (rc = store_evict(store, middle, 1000, &err)) != TD_OK || (rc = store_commit(store, &err)) != TD_OK)
            return rc;
        middle += 10;
    }
    return TD_OK;
}

/* Rows of an episode under way, sealed: the very ones, or marked damaged. */
static bool sealed_honestly(struct oracle *oracle, store_t *store)
{
    for (uint64_t id = oracle->counts.sealed; id < store_committed(store); id++) {
        struct store_record record;

        if (store_record(store, id, &record, NULL) != TD_OK)
            return false;
        for (uint32_t row = 0; row < record.rows && !(record.flags & EPISODE_DAMAGED);) {
            uint32_t count = record.rows - row;
            const char *rows = store_rows(store, id, row, &count);

            if (rows == NULL)
                return false;
            for (uint32_t i = 0; i < count; i++) {
                struct row_head head;
                struct test_row_id name = {record.slot, record.env, record.epoch, record.sequence + row + i};
                char expected[256];

                memcpy(&head, rows + i * STRIDE, sizeof(head));
                test_row_fill(expected, &schema, &name, head.flags);
                if (memcmp(expected, rows + i * STRIDE, STRIDE) != 0)
                    return false;
            }
            row += count;
        }
    }
    store_rows_end(store);
    (void)oracle;
    return true;
}

static enum outcome judge(struct oracle *oracle)
{
    struct store_config config = config_for(oracle->dir);
    enum outcome outcome = UNHARMED, was;
    struct error err = {0};
    store_t *store;
    int rc;

    if ((rc = store_open(&store, &config, &err)) != TD_OK)
        return err.text[0] == '\0' ? wrong(oracle, "no sentence") : rc != TD_ECORRUPT ? wrong(oracle, err.text) : REFUSED;
    if (store_identity(store)->created)
        return wrong(oracle, "made anew");
    if (!same_counts(store_counts(store), &oracle->counts) || !same_streams(oracle, store))
        return wrong(oracle, "other counts or streams");
    outcome = read_all(oracle, store, outcome);
    if (outcome >= REFUSED)
        return outcome;
    if ((rc = work(oracle, store)) != TD_OK) /* only damage is rescued */
        return rc == TD_ECORRUPT ? REFUSED : wrong(oracle, "refused as something else than damage");
    if (!sealed_honestly(oracle, store))
        return wrong(oracle, "what was sealed is not what was written");
    was = outcome;
    outcome = read_all(oracle, store, outcome);
    if (was == UNHARMED && outcome == SET_ASIDE) /* a page in use had been on the free list */
        outcome = wrong(oracle, "rows that were whole were destroyed by what was written later");
    store_close(&store);
    if (outcome != WRONG && walk(oracle->path, false, &err) != TD_OK)
        return wrong(oracle, err.text);
    return outcome;
}

/* --- rescued ------------------------------------------------------------------ */

/* What rescues brought back, and did not. */
struct toll {
    long rescues, sealed_lost, open_lost, evicted_back, uncertain;
};

/* The episode of the oracle that this row belongs to, or NULL: it had been evicted. */
static uint64_t *expected_hash(struct oracle *oracle, const struct store_record *record, uint64_t sequence, uint64_t *id)
{
    for (*id = oracle->counts.first; *id < oracle->counts.sealed; ++*id) {
        const struct store_record *was = &oracle->records[*id];

        if (was->slot == record->slot && was->epoch == record->epoch && sequence >= was->sequence &&
            sequence - was->sequence < was->rows)
            return &oracle->hashes[*id][sequence - was->sequence];
    }
    return NULL;
}

static bool is_genuine(const struct store_record *record, uint64_t sequence, const char *row)
{
    struct test_row_id name = {record->slot, record->env, record->epoch, sequence};
    char expected[256];
    struct row_head head;

    memcpy(&head, row, sizeof(head));
    test_row_fill(expected, &schema, &name, head.flags & ROW_FLAGS_KNOWN);
    return memcmp(expected, row, STRIDE) == 0;
}

/* Every row of the new store is one that was, and is there once. */
static const char *recount(struct oracle *oracle, store_t *store, long *sealed, long *open, long *evicted)
{
    static struct {
        uint32_t slot;
        uint64_t epoch, sequence;
    } seen[1 << 17];
    static uint8_t taken[1 << 17]; /* by episode and row, or by stream and row under way */
    const uint32_t mask = (1 << 17) - 1;

    memset(taken, 0, sizeof(taken));
    for (uint64_t id = store_counts(store)->first; id < store_committed(store); id++) {
        struct store_record record;

        if (store_record(store, id, &record, NULL) != TD_OK)
            return "a record of the new store";
        for (uint32_t row = 0; row < record.rows; row++) {
            uint64_t sequence = record.sequence + row, was;
            uint32_t count = 1, place = (record.slot * 7919 + (uint32_t)record.epoch * 65539 + (uint32_t)sequence) & mask;
            const char *bytes = store_rows(store, id, row, &count);
            const uint64_t *hash = expected_hash(oracle, &record, sequence, &was);
            const struct store_stream *stream = &oracle->streams[record.slot % STREAMS];

            if (bytes == NULL || !is_genuine(&record, sequence, bytes) || (hash != NULL && *hash != row_hash(bytes)))
                return "another row in the new store";
            for (; taken[place]; place = (place + 1) & mask)
                if (seen[place].slot == record.slot && seen[place].epoch == record.epoch && seen[place].sequence == sequence)
                    return "a row twice in the new store";
            taken[place] = 1;
            seen[place].slot = record.slot;
            seen[place].epoch = record.epoch;
            seen[place].sequence = sequence;
            if (hash != NULL)
                ++*sealed;
            else if (record.epoch == stream->epoch && sequence >= stream->next - stream->open_rows)
                ++*open;
            else
                ++*evicted;
        }
        store_rows_end(store);
    }
    return NULL;
}

/* What was refused is served by a new store: all that is whole, and what is not is counted. */
static const char *rescue(struct oracle *oracle, struct toll *toll, bool flipped)
{
    struct store_config config = config_for(oracle->dir);
    long sealed = 0, open = 0, evicted = 0, missing, missing_open;
    uint32_t streams = 0;
    struct rescue_report report;
    struct error err = {0};
    char aside[1200];
    const char *why;
    store_t *store;
    int rc = store_rescue(&config, &report, &err);

    if (rc == TD_ENOTFOUND && !flipped)
        return NULL; /* of a page or two nothing can be told */
    if (rc != TD_OK)
        return "it could not be rescued";
    snprintf(aside, sizeof(aside), "%s/%s", oracle->dir, report.aside);
    if (unlink(aside) != 0)
        return "the damaged file is gone";
    config.check = true;
    if (store_open(&store, &config, &err) != TD_OK)
        return "the new store is refused";
    if ((why = recount(oracle, store, &sealed, &open, &evicted)) != NULL)
        return why;
    for (uint32_t slot = 0; flipped && slot < STREAMS; slot++)
        streams += store_stream(store, slot, 0) != NULL && store_stream(store, slot, 0)->holder == 0 &&
                   store_stream(store, slot, 0)->epoch == oracle->streams[slot].epoch;
    if (flipped && streams < STREAMS - 1)
        return "streams of the new store";
    store_close(&store);
    missing = (long)oracle->counts.held_rows - sealed;
    missing_open = (long)oracle->counts.open_rows - open;
    if ((uint64_t)(missing + missing_open) > report.salvaged.lost_rows && report.salvaged.unknown_episodes == 0 &&
        (flipped || !report.salvaged.uncertain))
        return "more was lost than was said";
    toll->uncertain += report.salvaged.uncertain;
    if (flipped && missing > (long)segment_block_rows(&schema))
        return "more than a block was lost";
    toll->rescues++;
    toll->sealed_lost += missing;
    toll->open_lost += missing_open;
    toll->evicted_back += evicted;
    return NULL;
}

/* Whatever harms is damage to `verify`, too. */
static bool verify_sees(struct oracle *oracle)
{
    struct store_config config = config_for(oracle->dir);
    struct verify_report report;
    struct error err = {0};
    store_t *store;
    bool clean;

    config.check = true;
    if (store_open(&store, &config, &err) != TD_OK)
        return true;
    clean = store_verify(store, &report, NULL, NULL, &err) == TD_OK && verify_clean(&report);
    store_close(&store);
    return !clean;
}

typedef void damage_fn(struct oracle *oracle, size_t at, int bit, int fd);

static void flip(struct oracle *oracle, size_t at, int bit, int fd)
{
    char byte = (char)(oracle->whole[at] ^ (1 << bit));

    assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
}

static void cut(struct oracle *oracle, size_t at, int bit, int fd)
{
    (void)oracle;
    (void)bit;
    assert_int_equal(ftruncate(fd, (off_t)at), 0);
}

static void lay_out(struct oracle *oracle, damage_fn *damage, size_t at, int bit)
{
    int fd = open(oracle->path, O_WRONLY | O_CREAT, 0644);

    assert_int_equal(write(fd, oracle->whole, oracle->length), oracle->length);
    assert_int_equal(ftruncate(fd, (off_t)oracle->length), 0);
    damage(oracle, at, bit, fd);
    close(fd);
    (void)unlink(oracle->mark);
}

/* What happened so far; shared with the child, which may not live to tell. */
struct diary {
    struct toll toll;
    long found[3]; /* UNHARMED.. */
    long done;
    size_t at;
    int bit;
    char why[sizeof(((struct error *)NULL)->text)];
};

struct damage {
    damage_fn *inflict;
    size_t at;
    int bit;
};

static bool endure(struct oracle *oracle, const struct damage *damage, struct diary *diary)
{
    enum outcome outcome;

    diary->at = damage->at;
    diary->bit = damage->bit;
    alarm(30); /* a hang */
    lay_out(oracle, damage->inflict, damage->at, damage->bit);
    outcome = judge(oracle);
    if (outcome != UNHARMED && outcome != WRONG) {
        lay_out(oracle, damage->inflict, damage->at, damage->bit);
        if (!verify_sees(oracle))
            outcome = wrong(oracle, "verify found nothing");
    }
    if (outcome == REFUSED) {
        const char *why;

        lay_out(oracle, damage->inflict, damage->at, damage->bit);
        if ((why = rescue(oracle, &diary->toll, damage->inflict == flip)) != NULL)
            outcome = wrong(oracle, why);
    }
    if (outcome == WRONG) {
        snprintf(diary->why, sizeof(diary->why), "%s", oracle->why);
        return false;
    }
    diary->found[outcome - UNHARMED]++;
    diary->done++;
    return true;
}

#define BATCH 20 /* per child */

static void endure_all(struct oracle *oracle, const struct damage *damages, long count, const char *what)
{
    struct diary *diary = mmap(NULL, sizeof(*diary), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    uint64_t start = clock_ms();

    assert_true(diary != MAP_FAILED);
    while (diary->done < count) {
        int status;
        pid_t child;

        fflush(NULL);
        if ((child = fork()) == 0) {
            for (int i = 0; i < BATCH && diary->done < count; i++)
                if (!endure(oracle, &damages[diary->done], diary))
                    _exit(1);
            _exit(0);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
            fail_msg("damage at byte %zu (page %zu, offset %zu) bit %d: %s %d: %s", diary->at, diary->at / 4096,
                     diary->at % 4096, diary->bit, WIFEXITED(status) ? "code" : "signal",
                     WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status), diary->why);
    }
    printf("%ld %s of a file of %zu pages in %.1f s: %ld harmless, %ld met by hashes, %ld refused\n", count, what,
           oracle->length / 4096, (double)(clock_ms() - start) * 1e-3, diary->found[0], diary->found[1],
           diary->found[2]);
    printf("%ld rescued: %ld sealed rows and %ld rows under way lost of %ld and %ld each, %ld evicted rows back, %ld not sure of all\n",
           diary->toll.rescues, diary->toll.sealed_lost, diary->toll.open_lost, (long)oracle->counts.held_rows,
           (long)oracle->counts.open_rows, diary->toll.evicted_back, diary->toll.uncertain);
    assert_true(count == 1 || (diary->found[1] > 0 && diary->found[2] > 0));
    munmap(diary, sizeof(*diary));
}

/* One of the page numbers that the free list's oldest records hold, which LMDB takes first: its low bytes. */
static size_t choose_freed(const struct oracle *oracle)
{
    size_t metas[2] = {0, 4096}, leaf;
    uint64_t txns[2], page;
    uint16_t depth, lower, at, node[4], child[4];
    int newer;

    for (int i = 0; i < 2; i++)
        memcpy(&txns[i], oracle->whole + metas[i] + 144, sizeof(txns[i]));
    newer = txns[1] > txns[0];
    memcpy(&depth, oracle->whole + metas[newer] + 46, sizeof(depth));
    memcpy(&page, oracle->whole + metas[newer] + 80, sizeof(page));
    for (; depth > 1; depth--) {
        memcpy(&at, oracle->whole + page * 4096 + 16, sizeof(at));
        memcpy(child, oracle->whole + page * 4096 + at, sizeof(child));
        page = child[0] | (uint64_t)child[1] << 16 | (uint64_t)child[2] << 32;
    }
    leaf = page * 4096;
    memcpy(&lower, oracle->whole + leaf + 12, sizeof(lower));
    memcpy(&at, oracle->whole + leaf + 16 + 2 * below((lower - 16u) / 2), sizeof(at));
    memcpy(node, oracle->whole + leaf + at, sizeof(node));
    leaf += at + 16u; /* behind node and key: a count, then numbers */
    if (node[2] & 1) {
        memcpy(&page, oracle->whole + leaf, sizeof(page));
        leaf = page * 4096 + 16;
    }
    memcpy(&page, oracle->whole + leaf, sizeof(page));
    return leaf + 8 + 8 * (size_t)below((uint32_t)page) + below(2);
}

/* A byte of a leaf's key, often of its last: nothing in the page stands behind it. */
static size_t choose_key(const struct oracle *oracle, size_t page)
{
    uint16_t lower, at, node[4];
    uint32_t count;

    memcpy(&lower, oracle->whole + page + 12, sizeof(lower));
    count = (lower - 16u) / 2;
    memcpy(&at, oracle->whole + page + 16 + 2 * (below(2) ? count - 1 : below(count)), sizeof(at));
    memcpy(node, oracle->whole + page + at, sizeof(node));
    return page + at + sizeof(node) + below(node[3]);
}

/* A byte of a meta, of a branch or leaf, of the front of a run, of the free list, of a key, or any. */
static size_t choose(const struct oracle *oracle, uint32_t kind)
{
    for (;;) {
        size_t page = below((uint32_t)(oracle->length / 4096)), at = page * 4096;
        uint16_t flags;

        memcpy(&flags, oracle->whole + at + 10, sizeof(flags));
        if (kind == 0)
            return below(2) * 4096 + below(152);
        if (kind == 1 && (flags == 1 || flags == 2))
            return at + (below(2) ? below(4096) : below(128));
        if (kind == 2 && flags == 4)
            return at + below(16);
        if (kind == 5 && flags == 2)
            return choose_key(oracle, at);
        if (kind == 4)
            return choose_freed(oracle);
        if (kind == 3)
            return below((uint32_t)oracle->length);
    }
}

/* TD_FLIP=BYTE:BIT, of a file made from TD_SEED: that flip alone. */
static long named_flip(struct damage *damage)
{
    const char *name = getenv("TD_FLIP");

    if (name == NULL || sscanf(name, "%zu:%d", &damage->at, &damage->bit) != 2)
        return 0;
    damage->inflict = flip;
    return 1;
}

static void every_flip_is_met(void **state)
{
    static const uint32_t kinds[] = {0, 1, 1, 1, 2, 3, 4, 5};
    long flips = (test_long() ? 100000 : 2000) / SLOW, named;
    struct damage *damages = calloc((size_t)flips, sizeof(*damages));
    struct oracle oracle = {0};

    (void)state;
    make_oracle(&oracle, "flips");
    for (long i = 0; i < flips; i++)
        damages[i] = (struct damage){flip, choose(&oracle, kinds[i % 8]), (int)below(8)};
    named = named_flip(damages);
    endure_all(&oracle, damages, named != 0 ? named : flips, "flips");
    drop_oracle(&oracle);
    free(damages);
}

static void every_truncation_is_met(void **state)
{
    struct oracle oracle = {0};
    struct damage *damages;
    long cuts = 0;

    (void)state;
    make_oracle(&oracle, "cuts");
    damages = calloc(oracle.length / 4096, sizeof(*damages));
    for (size_t at = 4096; at < oracle.length; at += 4096 * SLOW)
        damages[cuts++] = (struct damage){cut, at - (at / 4096 / SLOW % 3 == 0 ? below(4095) : 0), 0};
    endure_all(&oracle, damages, cuts, "truncations");
    drop_oracle(&oracle);
    free(damages);
}

/* Without one page of the tree salvage still brings every sealed row. */
static void salvage_needs_no_tree(void **state)
{
    struct oracle oracle = {0};
    struct salvage_report report;
    struct error err = {0};
    char out[600];
    uint64_t rows = 0;
    int fd;

    (void)state;
    make_oracle(&oracle, "treeless");
    for (size_t at = 0; at < oracle.length; at += 4096) {
        uint16_t flags;

        memcpy(&flags, oracle.whole + at + 10, sizeof(flags));
        if (at < 8192 || flags == 1)
            memset(oracle.whole + at, 0xff, 4096);
        else if (flags == 2)
            memset(oracle.whole + at, 0xff, 16); /* small segments lie in leaves: only what leads to them goes */
    }
    fd = open(oracle.path, O_WRONLY | O_TRUNC);
    assert_int_equal(write(fd, oracle.whole, oracle.length), oracle.length);
    close(fd);
    snprintf(out, sizeof(out), "%s/salvaged", test_folder());
    assert_ok(store_salvage(oracle.dir, out, false, 0, &report, NULL, NULL, &err), err);
    for (uint64_t id = oracle.counts.first; id < oracle.counts.sealed; id++)
        rows += oracle.records[id].rows;
    assert_true(report.rows >= rows);
    drop_oracle(&oracle);
}

/* Each test draws from the beginning of the seed's stream: alone it does what it does among the others. */
static int begin_stream(void **state)
{
    struct rng_key key = {.purpose = RNG_TEST};
    const char *seed = getenv("TD_SEED");

    (void)state;
    key.seed = seed == NULL ? 1 : strtoull(seed, NULL, 10);
    rng_init(test_rng(), &key);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(no_false_alarm, begin_stream),
        cmocka_unit_test_setup(every_flip_is_met, begin_stream),
        cmocka_unit_test_setup(every_truncation_is_met, begin_stream),
        cmocka_unit_test_setup(salvage_needs_no_tree, begin_stream),
    };

    if (getenv("TD_ONLY") != NULL)
        cmocka_set_test_filter(getenv("TD_ONLY"));
    if (access("/dev/shm", W_OK) == 0) /* what a crash of the machine leaves is not the question here */
        setenv("TMPDIR", "/dev/shm", 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
