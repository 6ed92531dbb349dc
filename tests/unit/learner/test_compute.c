#include "tests/support/test.h"

#include <semaphore.h>
#include <unistd.h>
#include <xxhash.h>

#include "common/util/clock.h"
#include "learner/compute.h"
#include "learner/training_memory.h"
#include "tests/support/count_allocations.h"

#define OBS        5
#define ACTION     2
#define BATCH      8
#define HORIZON    3
#define DEADLINE_MS 60000

static const struct row_schema schema = {OBS_STATE, OBS, ACTION}, pixels = {OBS_RGB, 12288, ACTION};

static struct run make_run(const char *name, bool lockstep)
{
    struct run run = {.lock = -1, .run_id = 77, .epoch = 1};
    struct error err;

    snprintf(run.dir, sizeof(run.dir), "%s/%s", test_folder(), name);
    assert_ok(fs_mkdirs(run.dir, 0755, &err), err);
    config_init(&run.config);
    run.config.mlp_dim = run.config.enc_dim = run.config.latent_dim = 32;
    run.config.num_enc_layers = 2;
    run.config.batch_size = BATCH;
    run.config.horizon = HORIZON;
    run.config.num_bins = 11;
    run.config.keep_checkpoints = 2;
    run.config.lockstep = lockstep;
    run.config.shards = lockstep ? 1 : 2; /* so batches may come in parts */
    if (lockstep)
        run.config.actors = 1;
    return run;
}

static compute_t *make_compute(const struct run *run, int threads)
{
    struct error err;
    compute_t *compute;

    assert_ok(compute_create(&compute, run, threads, NULL, NULL, &err), err);
    return compute;
}

static struct compute_result wait_result(compute_t *compute, enum compute_kind kind)
{
    struct compute_result result;
    uint64_t start = clock_ms();

    while (!compute_pop(compute, &result)) {
        assert_true(clock_ms() - start < DEADLINE_MS);
        clock_sleep_ms(1);
    }
    assert_int_equal(result.kind, kind);
    return result;
}

static const spill_t *snapshots; /* of the last model built */

static size_t build(compute_t *compute, checkpoint_t *checkpoint)
{
    struct compute_job job = {.kind = COMPUTE_MODEL};
    struct compute_result result;

    job.model.spec = (struct message_spec){.obs_type = 1, .obs_dim = OBS, .action_dim = ACTION, .episode_length = 50};
    job.model.checkpoint = checkpoint;
    compute_push(compute, &job);
    result = wait_result(compute, COMPUTE_MODEL);
    assert_ok(result.rc, result.err);
    snapshots = result.model.snapshots;
    return result.model.snapshot_bytes;
}

/* One message's worth of random slices. */
static float *make_slices(uint32_t seed)
{
    struct rng_key key = {.seed = seed, .purpose = RNG_TEST};
    size_t floats = row_slices_bytes(&schema, HORIZON, BATCH) / sizeof(float);
    float *slices = malloc(floats * sizeof(float));
    size_t action = (HORIZON + 1) * BATCH * OBS, flags = action + HORIZON * BATCH * (ACTION + 1);
    struct rng rng;

    rng_init(&rng, &key);
    rng_uniform(&rng, slices, floats, -1, 1);
    memset(slices + flags, 0, (HORIZON * BATCH + BATCH) * sizeof(float)); /* terminated, task */
    return slices;
}

static void update(compute_t *compute, uint64_t number, const struct compute_batch *batch, uint32_t parts, int active)
{
    struct compute_job job = {.kind = COMPUTE_UPDATE};
    struct compute_result result;

    job.update.update = number;
    job.update.batch = batch;
    job.update.parts = parts;
    job.update.active = active;
    compute_push(compute, &job);
    result = wait_result(compute, COMPUTE_UPDATE);
    assert_ok(result.rc, result.err);
    assert_true(result.update.finite);
    assert_true(result.update.update == number && result.update.stats.total_loss > 0);
}

static void updates(compute_t *compute, uint64_t from, uint64_t to)
{
    for (uint64_t i = from; i < to; i++) {
        float *slices = make_slices((uint32_t)i);
        struct compute_batch batch = {.part = {{slices, row_slices_bytes(&schema, HORIZON, BATCH), BATCH}}};

        update(compute, i, &batch, 1, 1);
        free(slices);
    }
}

static uint64_t publish(compute_t *compute, const struct params_room *room)
{
    struct compute_job job = {.kind = COMPUTE_PUBLISH};
    struct compute_result result;

    job.publish.room = *room;
    job.publish.version = 9;
    compute_push(compute, &job);
    result = wait_result(compute, COMPUTE_PUBLISH);
    assert_ok(result.rc, result.err);
    assert_true(result.publish.finite && result.publish.version == 9);
    return result.publish.hash;
}

static uint64_t hash_of(compute_t *compute, size_t bytes)
{
    struct params_room room = {.memory = malloc(bytes)};
    uint64_t hash = publish(compute, &room);

    assert_true(hash == XXH3_64bits(room.memory, bytes));
    free(room.memory);
    return hash;
}

static void save(compute_t *compute, const struct run *run, uint32_t kind, const struct progress *progress,
                 uint64_t steps, struct bulk state, const char *name)
{
    struct command_save command = {.id = steps, .kind = kind, .progress = progress, .state = state};
    struct compute_job job = {.kind = COMPUTE_SAVE};
    struct compute_result result;

    job.save = resume_save_create(run, &command, steps);
    assert_non_null(job.save);
    compute_push(compute, &job);
    result = wait_result(compute, COMPUTE_SAVE);
    assert_ok(result.rc, result.err);
    assert_true(result.save.id == steps);
    assert_string_equal(result.save.name, name);
}

/* [H+1][B][O] and so on of slices from..from+count-1 of a whole batch. */
static float *cut(const float *whole, uint32_t from, uint32_t count)
{
    static const uint32_t widths[] = {OBS, ACTION, 1, 1, 1}, steps[] = {HORIZON + 1, HORIZON, HORIZON, HORIZON, 1};
    float *part = malloc(row_slices_bytes(&schema, HORIZON, count)), *to = part;

    for (size_t field = 0; field < TD_LEN(widths); field++)
        for (uint32_t t = 0; t < steps[field]; t++) {
            memcpy(to, whole + from * widths[field], count * widths[field] * sizeof(float));
            to += count * widths[field];
            whole += BATCH * widths[field];
        }
    return part;
}

static void parts_of_a_batch_count_as_the_whole(void **state)
{
    struct run run = make_run("parts", false);
    compute_t *one = make_compute(&run, 1), *two = make_compute(&run, 2);
    float *whole = make_slices(1), *first = cut(whole, 0, 3), *second = cut(whole, 3, 5);
    struct compute_batch together = {.part = {{whole, row_slices_bytes(&schema, HORIZON, BATCH), BATCH}}};
    struct compute_batch apart = {.part = {{first, row_slices_bytes(&schema, HORIZON, 3), 3},
                                           {second, row_slices_bytes(&schema, HORIZON, 5), 5}}};
    size_t bytes = build(one, NULL);

    (void)state;
    assert_int_equal(build(two, NULL), bytes);
    assert_true(hash_of(one, bytes) == hash_of(two, bytes));
    update(one, 0, &together, 1, 1);
    assert_true(hash_of(one, bytes) != hash_of(two, bytes));
    update(two, 0, &apart, 2, 2); /* with two threads, too */
    assert_true(hash_of(one, bytes) == hash_of(two, bytes));
    compute_destroy(&one);
    compute_destroy(&two);
    assert_null(two);
    free(whole);
    free(first);
    free(second);
}

/* Batches whole and in parts, with one thread and with two, and copies for the actors between them. */
static void computing_allocates_nothing(void **state)
{
    struct run run = make_run("allocations", false);
    float *whole = make_slices(1), *first = cut(whole, 0, 3), *second = cut(whole, 3, 5);
    struct compute_batch together = {.part = {{whole, row_slices_bytes(&schema, HORIZON, BATCH), BATCH}}};
    struct compute_batch apart = {.part = {{first, row_slices_bytes(&schema, HORIZON, 3), 3},
                                           {second, row_slices_bytes(&schema, HORIZON, 5), 5}}};
    unsigned long before;
    compute_t *compute;
    size_t bytes;

    (void)state;
    compute = make_compute(&run, 2);
    before = counted_allocations;
    atomic_store(&counting_allocations, true);
    bytes = build(compute, NULL);
    assert_true(counted_allocations > before || !COUNTS_ALLOCATIONS); /* building does: the count is a count */
    before = counted_allocations;
    for (uint64_t i = 0; i < 40; i++) {
        update(compute, i, i % 2 == 0 ? &together : &apart, i % 2 == 0 ? 1 : 2, 1 + (int)(i % 3 == 0));
        if (i % 10 == 0)
            hash_of(compute, bytes);
    }
    assert_int_equal(counted_allocations, before);
    atomic_store(&counting_allocations, false);
    compute_destroy(&compute);
    free(whole);
    free(first);
    free(second);
}

static struct progress progress_at(uint64_t updates_done, uint64_t steps)
{
    struct progress progress = {.updates = updates_done, .learner_epoch = 1, .phase = PHASE_RUNNING, .seed_steps = 10};

    progress.spec = (struct message_spec){.obs_type = 1, .obs_dim = OBS, .action_dim = ACTION, .episode_length = 50};
    progress.stores = 1;
    progress.store[0] = (struct progress_store){5, steps};
    return progress;
}

static void a_resumed_run_ends_in_the_same_bits(void **state)
{
    struct run run = make_run("resume", false);
    compute_t *compute = make_compute(&run, 1), *resumed = make_compute(&run, 2);
    struct progress progress = progress_at(4, 100), found;
    struct bulk none = {NULL, 0};
    checkpoint_t *checkpoint;
    size_t bytes = build(compute, NULL), state_size;
    void *env_state;
    struct error err;
    uint64_t hash;

    (void)state;
    assert_ok(resume_open(&checkpoint, &run, &err), err);
    assert_null(checkpoint); /* nothing yet is no error */
    updates(compute, 0, 4);
    save(compute, &run, SAVE_ORDINARY, &progress, 100, none, "step-100");
    updates(compute, 4, 7);
    hash = hash_of(compute, bytes);

    assert_ok(resume_open(&checkpoint, &run, &err), err);
    assert_ok(resume_progress(checkpoint, &found, &env_state, &state_size, &err), err);
    assert_true(found.updates == 4 && found.store[0].steps == 100 && env_state == NULL);
    assert_int_equal(build(resumed, checkpoint), bytes);
    updates(resumed, 4, 7);
    assert_true(hash_of(resumed, bytes) == hash);
    compute_destroy(&compute);
    compute_destroy(&resumed);
}

/* --- saving beside updates ------------------------------------------------------- */

static sem_t writing, go_on;

/* The writer stands still at its first file until it is told to go on. */
static int hold_the_writer(const char *operation, const char *path)
{
    if (strcmp(operation, "create") == 0 && strstr(path, SNAPSHOT_PARAMETERS) != NULL) {
        sem_post(&writing);
        sem_wait(&go_on);
    }
    return 0;
}

static void updates_go_on_while_a_checkpoint_is_written(void **state)
{
    struct run run = make_run("beside", false);
    compute_t *compute = make_compute(&run, 1), *resumed = make_compute(&run, 1);
    struct progress progress = progress_at(4, 100);
    struct command_save command = {.id = 100, .kind = SAVE_ORDINARY, .progress = &progress};
    struct compute_job job = {.kind = COMPUTE_SAVE};
    size_t bytes = build(compute, NULL);
    struct compute_result result;
    checkpoint_t *checkpoint;
    struct error err;
    uint64_t hash;

    (void)state;
    sem_init(&writing, 0, 0);
    sem_init(&go_on, 0, 0);
    updates(compute, 0, 4);
    hash = hash_of(compute, bytes);
    fs_fault = hold_the_writer;
    job.save = resume_save_create(&run, &command, 100);
    compute_push(compute, &job);
    sem_wait(&writing);
    updates(compute, 4, 7); /* their results come while the file is not even begun */
    assert_false(compute_pop(compute, &result));
    sem_post(&go_on);
    result = wait_result(compute, COMPUTE_SAVE);
    fs_fault = NULL;
    assert_ok(result.rc, result.err);
    assert_true(result.save.stall_ms > 0 && result.save.stall_ms < result.ms);
    assert_true(hash_of(compute, bytes) != hash);

    assert_ok(resume_open(&checkpoint, &run, &err), err); /* and holds what was there before them */
    assert_int_equal(build(resumed, checkpoint), bytes);
    assert_true(hash_of(resumed, bytes) == hash);
    compute_destroy(&compute);
    compute_destroy(&resumed);
}

static void lock_step_goes_back_to_its_newest_cut(void **state)
{
    struct run run = make_run("cuts", true);
    compute_t *compute = make_compute(&run, 1);
    struct progress progress = progress_at(2, 0);
    struct compute_job job = {.kind = COMPUTE_LOAD};
    struct compute_result result;
    char environment[] = "the environment's state";
    struct bulk bulk = {environment, sizeof(environment)};
    size_t bytes = build(compute, NULL);
    uint64_t hash;

    (void)state;
    progress.lockstep = true;
    progress.state_size = sizeof(environment);
    updates(compute, 0, 2);
    for (uint64_t step = 20; step <= 60; step += 20) { /* three cuts, two are kept */
        char name[32];

        progress.step = step;
        snprintf(name, sizeof(name), "step-%d", (int)step);
        save(compute, &run, SAVE_CUT, &progress, step, bulk, name);
    }
    hash = hash_of(compute, bytes);
    progress.step = 61;
    save(compute, &run, SAVE_FINAL, &progress, 61, bulk, "final"); /* not to be gone on from */
    updates(compute, 2, 3);
    assert_true(hash_of(compute, bytes) != hash);
    compute_push(compute, &job);
    result = wait_result(compute, COMPUTE_LOAD);
    assert_ok(result.rc, result.err);
    assert_true(result.load.progress->step == 60 && result.load.state_size == sizeof(environment));
    assert_memory_equal(result.load.state, environment, sizeof(environment));
    assert_true(hash_of(compute, bytes) == hash);
    free(result.load.progress);
    free(result.load.state);

    progress.step = 5; /* inside the burst: a Go at a step without updates, yet some are done */
    save(compute, &run, SAVE_CUT, &progress, 5, bulk, "step-5-update-2");
    compute_destroy(&compute);
}

static void foreign_and_damaged_checkpoints_are_told(void **state)
{
    struct run run = make_run("foreign", false), other;
    compute_t *compute = make_compute(&run, 1);
    struct progress progress = progress_at(0, 1);
    struct bulk none = {NULL, 0};
    checkpoint_t *checkpoint;
    char path[FS_PATH_MAX];
    struct error err;

    (void)state;
    build(compute, NULL);
    save(compute, &run, SAVE_ORDINARY, &progress, 1, none, "step-1");
    compute_destroy(&compute);
    other = run;
    other.run_id = 78;
    assert_int_equal(resume_open(&checkpoint, &other, &err), TD_EFOREIGN);
    assert_null(checkpoint);
    assert_ok(run_path(&run, "checkpoints/step-1/optimizer.safetensors", path, &err), err);
    assert_int_equal(truncate(path, 100), 0);
    assert_int_equal(resume_open(&checkpoint, &run, &err), TD_ECORRUPT);
    assert_null(checkpoint);
}

static void sizes_that_make_no_model_are_an_error(void **state)
{
    struct run run = make_run("sizes", false);
    struct compute_job job = {.kind = COMPUTE_MODEL};
    struct compute_result result;
    compute_t *compute;

    (void)state;
    run.config.latent_dim = 33; /* simnorm_dim does not divide it */
    compute = make_compute(&run, 1);
    job.model.spec = (struct message_spec){.obs_type = 1, .obs_dim = OBS, .action_dim = ACTION, .episode_length = 50};
    compute_push(compute, &job);
    result = wait_result(compute, COMPUTE_MODEL);
    assert_int_equal(result.rc, TD_EINVAL);
    assert_non_null(strstr(result.err.text, "latent_dim"));
    compute_destroy(&compute);
}

/* Slices from..from+count-1 of a whole batch of frames. */
static char *cut_frames(const char *whole, uint32_t from, uint32_t count)
{
    const uint32_t widths[] = {12288, 4 * ACTION, 4, 4, 4}, steps[] = {HORIZON + 3, HORIZON, HORIZON, HORIZON, 1};
    char *part = malloc(row_slices_bytes(&pixels, HORIZON, count)), *to = part;

    for (size_t field = 0; field < TD_LEN(widths); field++)
        for (uint32_t t = 0; t < steps[field]; t++) {
            memcpy(to, whole + from * widths[field], (size_t)count * widths[field]);
            to += (size_t)count * widths[field];
            whole += (size_t)BATCH * widths[field];
        }
    return part;
}

static compute_t *make_pixels(struct run *run, int threads)
{
    struct compute_job job = {.kind = COMPUTE_MODEL};
    compute_t *compute = make_compute(run, threads);
    struct compute_result result;

    job.model.spec = (struct message_spec){OBS_RGB, pixels.obs_dim, ACTION, 50, true, 0};
    compute_push(compute, &job);
    result = wait_result(compute, COMPUTE_MODEL);
    assert_ok(result.rc, result.err);
    return compute;
}

static void parts_of_a_batch_of_frames_count_as_the_whole(void **state)
{
    struct run run = make_run("frames", false);
    size_t bytes = row_slices_bytes(&pixels, HORIZON, BATCH), frames = (HORIZON + 3) * (size_t)BATCH * 12288;
    char *whole = calloc(1, bytes), *first, *second;
    struct compute_batch together = {.part = {{whole, bytes, BATCH}}}, apart;
    struct model_dims dims;
    struct error err;
    compute_t *one, *two;
    world_model_t *model;

    (void)state;
    for (size_t i = 0; i < frames; i++)
        whole[i] = (char)rng_below(test_rng(), 256);
    rng_uniform(test_rng(), (float *)(void *)(whole + frames), HORIZON * BATCH * (ACTION + 1), -1, 1);
    first = cut_frames(whole, 0, 3);
    second = cut_frames(whole, 3, 5);
    apart = (struct compute_batch){.part = {{first, row_slices_bytes(&pixels, HORIZON, 3), 3},
                                            {second, row_slices_bytes(&pixels, HORIZON, 5), 5}}};
    snprintf(run.config.obs, sizeof(run.config.obs), "rgb");
    run.config.num_channels = 2;
    assert_ok(model_dims_init(&dims, &run.config, 12288, ACTION, &err), err);
    assert_ok(world_model_create(&model, &dims, false, &err), err);
    one = make_pixels(&run, 1);
    two = make_pixels(&run, 2);
    update(one, 0, &together, 1, 1);
    update(two, 0, &apart, 2, 2);
    bytes = model_acting_floats(&model->layout) * sizeof(float);
    assert_true(hash_of(one, bytes) == hash_of(two, bytes));
    compute_destroy(&one);
    compute_destroy(&two);
    world_model_destroy(&model);
    free(whole);
    free(first);
    free(second);
}

/* What actors are sent follows actor_dtype, and what is trained does not. */
static void actors_may_be_sent_bfloat16(void **state)
{
    struct run run = make_run("bf16", false), same = run;
    compute_t *one, *two;
    size_t whole, half;

    (void)state;
    model_half_least = 0; /* these models are tiny */
    snprintf(same.config.actor_dtype, sizeof(same.config.actor_dtype), "bf16");
    one = make_compute(&run, 1);
    two = make_compute(&same, 1);
    whole = build(one, NULL);
    half = build(two, NULL);
    assert_true(half < whole * 3 / 4);
    updates(one, 0, 1);
    updates(two, 0, 1);
    assert_true(hash_of(one, whole) != hash_of(two, half));
    assert_true(hash_of(two, half) == hash_of(two, half));
    model_half_least = MODEL_HALF_LEAST;
    compute_destroy(&one);
    compute_destroy(&two);
}

/* Snapshots and the copy for a checkpoint of a large model lie in files: the same bytes. */
static void large_models_are_copied_into_files(void **state)
{
    struct run run = make_run("files", false);
    struct progress progress = progress_at(3, 100);
    struct bulk none = {NULL, 0};

    (void)state;
    model_half_least = 0;
    for (int half = 0; half < 2; half++) {
        compute_t *small, *large, *resumed;
        struct params_room room = {0};
        checkpoint_t *checkpoint;
        struct error err;
        size_t bytes;
        uint64_t usual;
        char *back;

        snprintf(run.config.actor_dtype, sizeof(run.config.actor_dtype), "%s", half ? "bf16" : "float32");
        small = make_compute(&run, 1);
        build(small, NULL);
        assert_null(snapshots);
        usual = training_in_memory_max;
        training_in_memory_max = 0;
        large = make_compute(&run, 1);
        bytes = build(large, NULL);
        assert_non_null(snapshots);
        room.file = snapshots;
        room.at = bytes; /* the second one's place */
        updates(small, 0, 3);
        updates(large, 0, 3);
        assert_true(publish(large, &room) == hash_of(small, bytes));
        back = malloc(bytes);
        assert_ok(spill_read(snapshots, bytes, back, bytes, &err), err);
        assert_true(XXH3_64bits(back, bytes) == hash_of(small, bytes));
        free(back);

        save(large, &run, SAVE_ORDINARY, &progress, 100, none, "step-100");
        updates(large, 3, 5); /* what comes later is not in it */
        assert_ok(resume_open(&checkpoint, &run, &err), err);
        resumed = make_compute(&run, 1);
        build(resumed, checkpoint);
        assert_true(hash_of(resumed, bytes) == hash_of(small, bytes));
        compute_destroy(&small);
        compute_destroy(&large);
        compute_destroy(&resumed);
        training_in_memory_max = usual;
    }
    model_half_least = MODEL_HALF_LEAST;
}

/* MiB that this process holds and the kernel cannot drop; the most there were, since it was reset. */
static double resident(bool most)
{
    FILE *file = fopen("/proc/self/status", "re");
    char line[256];
    double kib = 0, part;

    assert_non_null(file);
    while (fgets(line, sizeof(line), file) != NULL)
        if (most ? sscanf(line, "VmHWM: %lf", &part) == 1
                 : sscanf(line, "RssAnon: %lf", &part) == 1 || sscanf(line, "RssFile: %lf", &part) == 1 ||
                       sscanf(line, "RssShmem: %lf", &part) == 1)
            kib += part;
    fclose(file);
    return kib / 1024;
}

static void forget_the_most(void)
{
    FILE *file = fopen("/proc/self/clear_refs", "we");

    assert_non_null(file);
    assert_true(fputs("5", file) >= 0);
    assert_int_equal(fclose(file), 0);
}

/*
 * 19 million parameters, updated, published twice and saved: never more than 1.15 times parameters, targets, moments,
 * gradients and what the batch leaves behind; and about what was said before.
 */
static void training_takes_little_beside_its_numbers(void **state)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    (void)state;
    skip(); /* their own memory would count */
#else
    struct training_beside beside = {.copy = true, .actors = true};
    struct run run = make_run("little", false);
    struct progress progress = progress_at(1, 100);
    struct bulk none = {NULL, 0};
    struct training_memory plan;
    struct update_config config;
    struct model_dims dims;
    double before, took, must, said;
    struct params_room room = {0};
    compute_t *compute;
    struct error err;

    (void)state;
    run.config.model_size = 19;
    run.config.mlp_dim = run.config.enc_dim = run.config.latent_dim = 0;
    run.config.batch_size = BATCH;
    update_config_init(&config, &run.config, 50);
    assert_ok(model_dims_init(&dims, &run.config, OBS, ACTION, &err), err);
    assert_ok(training_memory_plan(&plan, &dims, &config, 1, &beside, &err), err);
    forget_the_most();
    before = resident(false);
    compute = make_compute(&run, 1);
    room.at = build(compute, NULL);
    room.file = snapshots;
    updates(compute, 0, 1);
    publish(compute, &room);
    room.at = 0;
    publish(compute, &room);
    save(compute, &run, SAVE_ORDINARY, &progress, 100, none, "step-100");
    updates(compute, 1, 2);
    took = resident(true) - before;
    compute_destroy(&compute);
    must = (double)(plan.update.total - plan.update.working) / (1 << 20);
    said = (double)plan.total / (1 << 20);
    print_message("%.0f MiB, %.3f of %.0f; %.0f were said\n", took, took / must, must, said);
    assert_true(took > must && took < 1.15 * must);
    assert_true(took < said + 24 && said < 1.15 * must); /* stacks, buffers of the products */
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(actors_may_be_sent_bfloat16),
        cmocka_unit_test(parts_of_a_batch_count_as_the_whole),
        cmocka_unit_test(parts_of_a_batch_of_frames_count_as_the_whole),
        cmocka_unit_test(computing_allocates_nothing),
        cmocka_unit_test(a_resumed_run_ends_in_the_same_bits),
        cmocka_unit_test(updates_go_on_while_a_checkpoint_is_written),
        cmocka_unit_test(lock_step_goes_back_to_its_newest_cut),
        cmocka_unit_test(foreign_and_damaged_checkpoints_are_told),
        cmocka_unit_test(large_models_are_copied_into_files),
        cmocka_unit_test(training_takes_little_beside_its_numbers),
        cmocka_unit_test(sizes_that_make_no_model_are_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
