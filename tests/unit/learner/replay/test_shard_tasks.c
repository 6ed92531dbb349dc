/*
 * A shard that serves a run of several tasks stores each row at its own task's widths: by the growth of its file, and
 * what it deals is bit for bit what a store of padded rows deals - new, killed and resumed, rewound, emptied of its
 * oldest episodes, rescued, or begun by a program that padded.
 */
#include <unistd.h>

#include "common/store/verify.h"
#include "common/util/fs.h"
#include "learner/replay/sampler.h"
#include "learner/replay/shard.h"
#include "tests/support/rows.h"
#include "tests/support/test.h"

#define RUN     77u
#define LEARNER 500u
#define ACTOR   1000u
#define TASKS   4u
#define ROWS    501u /* of an episode */
#define CHUNK   167u
#define BATCH   64u
#define SEED    4u

static const struct row_schema schema = {OBS_STATE, 39, 6}; /* mt80's */
static const uint32_t obs_dims[TASKS] = {24, 39, 3, 5}, action_dims[TASKS] = {6, 4, 1, 1};

struct rig {
    shard_t *shard;
    char dir[512];
    uint64_t now, epoch, next; /* of the writer's stream */
    struct message said;  /* the last of the kind that was waited for */
    uint64_t episodes;    /* sent in all */
    store_t *padded;      /* the same rows, every one as wide as the widest */
    char bulk[1 << 18];
};

static char padded_dir[512];

/* Row `row` of episode `id`, which is of task id % TASKS. */
static void fill_row(char *out, uint64_t id, uint32_t row)
{
    struct rng_key key = {.seed = id, .step = row, .purpose = RNG_TEST};
    uint32_t task = (uint32_t)(id % TASKS);
    struct row_head head = {.task = task, .reward = row == 0 ? 0 : (float)row / 8, .param_version = id,
                            .flags = row == 0 ? ROW_FIRST : row == ROWS - 1 ? ROW_TRUNCATED : 0u};
    float obs[39] = {0}, action[6] = {0};
    struct rng rng;

    rng_init(&rng, &key);
    rng_normal(&rng, obs, obs_dims[task]);
    if (row > 0)
        rng_uniform(&rng, action, action_dims[task], -1, 1);
    memcpy(out, &head, sizeof(head));
    memcpy(out + sizeof(head), obs, sizeof(obs));
    memcpy(out + sizeof(head) + sizeof(obs), action, sizeof(action));
}

/* --- the shard --------------------------------------------------------------- */

static void drain(struct rig *rig, uint32_t kind)
{
    struct shard_output output;

    while (shard_next(rig->shard, &output)) {
        assert_int_not_equal(output.kind, OUTPUT_EXIT);
        if (output.kind != OUTPUT_SEND || output.message.kind != kind)
            continue;
        rig->said = output.message;
        if (kind == MESSAGE_SLICES && output.message.bulks == 1) {
            assert_true(output.message.bulk[0].size <= sizeof(rig->bulk));
            memcpy(rig->bulk, output.message.bulk[0].data, output.message.bulk[0].size);
        }
    }
}

/* Say it, commit, and have the answer of this kind in rig->said. */
static void ask(struct rig *rig, uint32_t port, const struct message *message, uint32_t kind)
{
    struct peer peer = {.port = port, .id = port == PORT_SAMPLE ? LEARNER : ACTOR};

    memset(&rig->said, 0, sizeof(rig->said));
    shard_receive(rig->shard, rig->now, &peer, message);
    drain(rig, kind);
    if (shard_dirty(rig->shard))
        shard_commit(rig->shard, rig->now);
    drain(rig, kind);
    assert_int_equal(rig->said.kind, kind);
}

static void start(struct rig *rig, bool lockstep, uint64_t capacity)
{
    struct shard_config config = {.run = RUN, .process = 900, .dir = rig->dir, .control = "ipc:///control",
                                  .sample = "ipc:///sample", .ingest_ipc = "ipc:///ingest", .commit_interval_ms = 10};
    struct message_spec spec = {schema.obs_type, schema.obs_dim, schema.action_dim, 0, false, TASKS};
    struct message learner = {.kind = MESSAGE_SAMPLE_HELLO, .run = RUN};
    struct message actor = {.kind = MESSAGE_INGEST_HELLO, .run = RUN};
    struct message credit = {.kind = MESSAGE_CREDIT, .run = RUN, .credit = {.learner_epoch = 1, .steps = LIMIT_NONE}};
    struct peer peer = {.port = PORT_SAMPLE, .id = LEARNER};
    const struct store_stream *stream;
    struct error err = {0};

    assert_ok(shard_create(&rig->shard, &config, rig->now, &err), err);
    learner.sample_hello = (struct sample_hello){.learner_epoch = 1, .process = LEARNER, .spec = spec, .shards = 1,
                                                 .horizon = 3, .batch_size = BATCH, .seed = SEED, .lockstep = lockstep,
                                                 .capacity = capacity, .map_rows = 60000, .heartbeat_ms = 2000,
                                                 .timeout_ms = 60000};
    ask(rig, PORT_SAMPLE, &learner, MESSAGE_SAMPLE_WELCOME);
    shard_receive(rig->shard, rig->now, &peer, &credit);
    actor.ingest_hello = (struct ingest_hello){.slot = 0, .process = ACTOR, .spec = spec, .count = 1};
    ask(rig, PORT_INGEST, &actor, MESSAGE_INGEST_WELCOME);
    rig->epoch = rig->said.ingest_welcome.streams[0].epoch;
    rig->next = rig->said.ingest_welcome.streams[0].next;
    stream = store_stream(rig->padded, 0, 0);
    if (stream == NULL || stream->epoch != rig->epoch) { /* what was under way is closed there too */
        assert_ok(store_grant(rig->padded, 0, 0, rig->epoch, ACTOR, &err), err);
        assert_ok(store_commit(rig->padded, &err), err);
    }
}

/* One more episode, in chunks as an actor sends them; into the padded store as well. */
static void episode(struct rig *rig)
{
    static char rows[ROWS * 256];
    size_t stride = row_stride(&schema);
    struct error err = {0};

    for (uint32_t row = 0; row < ROWS; row++)
        fill_row(rows + row * stride, rig->episodes, row);
    for (uint32_t row = 0; row < ROWS; row += CHUNK) {
        struct message message = {.kind = MESSAGE_ROWS, .run = RUN, .bulks = 1};

        message.rows = (struct rows){.slot = 0, .process = ACTOR, .store = store_identity(shard_store(rig->shard))->store_id,
                                     .epoch = rig->epoch, .first = rig->next, .count = CHUNK,
                                     .stride = (uint32_t)stride};
        message.bulk[0] = (struct bulk){rows + row * stride, CHUNK * stride};
        ask(rig, PORT_INGEST, &message, MESSAGE_ACK);
        rig->next += CHUNK;
        assert_true(rig->said.ack.next == rig->next);
        assert_ok(store_append(rig->padded, 0, 0, rows + row * stride, CHUNK, &err), err);
    }
    assert_ok(store_commit(rig->padded, &err), err);
    rig->episodes++;
}

static void open_padded(struct rig *rig)
{
    struct store_config config = {.dir = padded_dir, .schema = schema, .run_id = RUN, .rows = 60000};
    struct error err = {0};

    assert_ok(store_open(&rig->padded, &config, &err), err);
}

static struct rig *rig_with(bool lockstep, uint64_t capacity)
{
    static struct rig rig;
    static int count;

    shard_destroy(&rig.shard);
    store_close(&rig.padded);
    memset(&rig, 0, sizeof(rig));
    rig.now = 1000;
    snprintf(rig.dir, sizeof(rig.dir), "%s/shard%d", test_folder(), count);
    snprintf(padded_dir, sizeof(padded_dir), "%s/padded%d", test_folder(), count++);
    open_padded(&rig);
    start(&rig, lockstep, capacity);
    return &rig;
}

/* What the shard deals for some updates is what is drawn from the padded rows of its window. */
static void expect_same_slices(struct rig *rig, uint64_t capacity)
{
    struct sampler_config config = {.horizon = 3, .capacity = capacity, .seed = SEED, .tasks = TASKS};
    static char expected[sizeof(rig->bulk)];
    uint32_t seen[TASKS] = {0};
    sampler_t *sampler;

    assert_int_equal(sampler_create(&sampler, rig->padded, &config), TD_OK);
    sampler_window(sampler, SAMPLER_NEWEST);
    for (uint64_t update = 1; update <= 20; update++) {
        struct message request = {.kind = MESSAGE_SAMPLE_REQUEST, .run = RUN};
        size_t size = sampler_bytes(sampler, BATCH);
        const uint32_t *tasks;

        request.sample_request = (struct sample_request){.learner_epoch = 1, .id = update, .update = update,
                                                         .count = BATCH, .credit = LIMIT_NONE};
        ask(rig, PORT_SAMPLE, &request, MESSAGE_SLICES);
        assert_int_equal(rig->said.slices.count, BATCH);
        assert_int_equal(rig->said.bulk[0].size, size);
        assert_int_equal(sampler_draw(sampler, update, BATCH, expected), TD_OK);
        assert_memory_equal(rig->bulk, expected, size);
        tasks = (const uint32_t *)(const void *)(expected + size - BATCH * sizeof(uint32_t));
        for (uint32_t i = 0; i < BATCH; i++)
            seen[tasks[i]]++;
    }
    for (uint32_t task = 0; task < TASKS; task++)
        assert_true(seen[task] > 100); /* of 1,280 */
    sampler_destroy(&sampler);
}

/* Every hash, and every row as it was sent. */
static void expect_rows(const char *dir, uint64_t first, uint64_t end)
{
    struct store_config config = {.dir = dir, .any_shard = true, .reading = true, .check = true};
    struct verify_report report;
    struct error err = {0};
    char row[256];
    store_t *store;

    assert_ok(store_open(&store, &config, &err), err);
    assert_ok(store_verify(store, &report, NULL, NULL, &err), err);
    assert_true(verify_clean(&report));
    assert_true(store_counts(store)->first == first && store_counts(store)->sealed == end);
    for (uint64_t id = first; id < end; id++)
        for (uint32_t at = 0, count; at < ROWS; at += count) {
            count = ROWS - at;
            const char *rows = store_rows(store, id, at, &count);

            assert_non_null(rows);
            assert_int_equal(episode_task(store_episode(store, id)->flags), id % TASKS);
            for (uint32_t i = 0; i < count; i++) {
                fill_row(row, id, at + i);
                assert_memory_equal(rows + i * row_stride(&schema), row, row_stride(&schema));
            }
        }
    store_rows_end(store);
    store_close(&store);
}

static double file_growth(struct rig *rig, uint32_t episodes)
{
    uint64_t before = test_used_bytes(rig->dir);

    for (uint32_t i = 0; i < episodes; i++)
        episode(rig);
    return (double)(test_used_bytes(rig->dir) - before) / (episodes * ROWS);
}

/* Bytes of a row of all four tasks alike, as they are and padded; hashes and half a page an episode come on top. */
static double mean_row(bool padded)
{
    double bytes = 0;

    for (uint32_t task = 0; task < TASKS; task++)
        bytes += padded ? (double)row_stride(&schema)
                        : (double)sizeof(struct row_head) + 4. * (obs_dims[task] + action_dims[task]);
    return bytes / TASKS;
}

static void expect_narrow(double growth)
{
    assert_true(growth > mean_row(false) && growth < 1.12 * mean_row(false));
}

/* --- tests --------------------------------------------------------------------- */

/* 112 bytes a row and not 204, before and after its owner was killed. */
static void rows_take_the_widths_of_their_tasks(void **state)
{
    struct rig *rig = rig_with(false, 1000000);
    double fresh, resumed;

    (void)state;
    (void)file_growth(rig, 8); /* room for the rows under way, which later ones use again */
    fresh = file_growth(rig, 16);
    expect_same_slices(rig, 1000000);
    shard_destroy(&rig->shard); /* nothing was said to it: as a kill */
    start(rig, false, 1000000);
    (void)file_growth(rig, 8);
    resumed = file_growth(rig, 16);
    print_message("%.1f bytes of file a row, %.1f resumed; %.1f of row, %.1f padded\n", fresh, resumed, mean_row(false),
                  mean_row(true));
    expect_narrow(fresh);
    expect_narrow(resumed);
    expect_same_slices(rig, 1000000);
    shard_destroy(&rig->shard);
    expect_rows(rig->dir, 0, 48);
}

/* A store whose rows were padded is gone on with: what is there is read, what comes is narrow. */
static void a_padded_store_is_gone_on_with(void **state)
{
    struct rig *rig = rig_with(false, 1000000);
    char other[512];

    (void)state;
    for (int i = 0; i < 12; i++)
        episode(rig);
    shard_destroy(&rig->shard);
    store_close(&rig->padded);
    memcpy(other, rig->dir, sizeof(other)); /* they change places */
    memcpy(rig->dir, padded_dir, sizeof(other));
    memcpy(padded_dir, other, sizeof(other));
    open_padded(rig);
    start(rig, false, 1000000);
    (void)file_growth(rig, 8);
    expect_narrow(file_growth(rig, 16));
    expect_same_slices(rig, 1000000);
    shard_destroy(&rig->shard);
    expect_rows(rig->dir, 0, 36);
}

/* The window moves, its oldest episodes go, and the file stops growing. */
static void oldest_episodes_go(void **state)
{
    uint64_t capacity = 12 * ROWS, first;
    struct rig *rig = rig_with(false, capacity);
    uint64_t full;

    (void)state;
    (void)file_growth(rig, 12);
    expect_same_slices(rig, capacity); /* nothing goes before the learner has asked for the first time */
    (void)file_growth(rig, 28);
    full = test_used_bytes(rig->dir);
    (void)file_growth(rig, 40);
    assert_true(test_used_bytes(rig->dir) < full + full / 10);
    expect_same_slices(rig, capacity);
    first = store_counts(shard_store(rig->shard))->first;
    assert_true(first >= 60 && first <= 80 - 12);
    shard_destroy(&rig->shard);
    expect_rows(rig->dir, first, 80);
}

/* Back to a cut between two episodes: what comes again lies where the rows taken back lay. */
static void rewound_rows_come_again(void **state)
{
    struct rig *rig = rig_with(true, 1000000);
    struct message order = {.kind = MESSAGE_REWIND, .run = RUN};
    struct error err = {0};

    (void)state;
    for (int i = 0; i < 14; i++)
        episode(rig);
    order.rewind = (struct rewind_order){.learner_epoch = 1, .generation = 1, .rows = 9 * ROWS, .sealed = 9};
    ask(rig, PORT_SAMPLE, &order, MESSAGE_REWOUND);
    assert_true(rig->said.rewound.done);
    assert_ok(store_rewind(rig->padded, 1, 9 * ROWS, 9, &err), err);
    assert_ok(store_commit(rig->padded, &err), err);
    shard_destroy(&rig->shard);
    rig->episodes = 9;
    start(rig, true, 1000000);
    for (int i = 0; i < 7; i++)
        episode(rig);
    shard_destroy(&rig->shard);
    start(rig, false, 1000000); /* which publishes by itself */
    expect_same_slices(rig, 1000000);
    shard_destroy(&rig->shard);
    expect_rows(rig->dir, 0, 16);
}

/* Both metas are gone: the shard saves what is whole, narrow as it was. */
static void a_damaged_store_is_rescued(void **state)
{
    struct rig *rig = rig_with(false, 1000000);
    char path[600], zeros[8192] = {0};
    uint64_t used;
    FILE *file;

    (void)state;
    for (int i = 0; i < 12; i++)
        episode(rig);
    shard_destroy(&rig->shard);
    used = test_used_bytes(rig->dir);
    snprintf(path, sizeof(path), "%s/data.mdb", rig->dir);
    file = fopen(path, "r+");
    assert_non_null(file);
    assert_int_equal(fwrite(zeros, 1, sizeof(zeros), file), sizeof(zeros));
    assert_int_equal(fclose(file), 0);
    start(rig, false, 1000000);
    assert_true(test_used_bytes(rig->dir) < used + used / 20);
    (void)file_growth(rig, 8);
    expect_narrow(file_growth(rig, 16));
    expect_same_slices(rig, 1000000);
    shard_destroy(&rig->shard);
    expect_rows(rig->dir, 0, 36);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_take_the_widths_of_their_tasks),
        cmocka_unit_test(a_padded_store_is_gone_on_with),
        cmocka_unit_test(oldest_episodes_go),
        cmocka_unit_test(rewound_rows_come_again),
        cmocka_unit_test(a_damaged_store_is_rescued),
    };

    if (access("/dev/shm", W_OK) == 0) /* what a crash of the machine leaves is not the question here */
        setenv("TMPDIR", "/dev/shm", 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
