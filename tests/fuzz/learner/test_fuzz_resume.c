/*
 * Damage to a run's newest checkpoint, as the learner meets it: any bit flipped, any file cut short anywhere.
 * Each load gives what was written, or says what is wrong and gives the older checkpoint; alone, it is an
 * error with a sentence. Never another state, never worse. SIGALRM ends a hang.
 */
#include <unistd.h>
#include <xxhash.h>

#include "common/tensor/gemm.h"
#include "learner/resume.h"
#include "learner/snapshot.h"
#include "tests/support/test.h"

enum { OBS = 3, ACTION = 2, STATE = 700 };

static struct run run;
static world_model_t *model;
static update_t *update;
static pool_t *pool;
static uint64_t written[2]; /* the state that each checkpoint holds, as a hash */

static const char *const files[] = {"manifest.json", "manifest.sha256", "parameters.safetensors",
                                    "optimizer.safetensors", "environment.bin"};

/* --- the state ------------------------------------------------------------------- */

static uint64_t hash_of(const struct progress *progress, const void *state, size_t state_size)
{
    struct update_state moments = update_state(update);
    XXH3_state_t *sum = XXH3_createState();
    uint64_t hash;

    XXH3_64bits_reset(sum);
    XXH3_64bits_update(sum, model->parameters, model_all_floats(&model->layout) * sizeof(float));
    XXH3_64bits_update(sum, moments.m, moments.floats * sizeof(float));
    XXH3_64bits_update(sum, moments.v, moments.floats * sizeof(float));
    XXH3_64bits_update(sum, moments.steps, sizeof(*moments.steps));
    XXH3_64bits_update(sum, &moments.scale->value, sizeof(float));
    XXH3_64bits_update(sum, progress, sizeof(*progress));
    XXH3_64bits_update(sum, state, state_size);
    hash = XXH3_64bits_digest(sum);
    XXH3_freeState(sum);
    return hash;
}

/* Checkpoint number n: numbers of its own in every part. */
static void write_checkpoint(int n)
{
    struct progress progress = {.lockstep = true, .spec = {OBS_STATE, OBS, ACTION, 20, true, 0}, .seed_steps = 5,
                                .updates = (uint64_t)(10 * n), .step = (uint64_t)(20 * n), .rows = 30, .episode = 2,
                                .state_size = STATE};
    struct update_state moments = update_state(update);
    struct checkpoint_parts parts = {.group_count = SNAPSHOT_GROUPS, .blob_count = 1};
    char folder[FS_PATH_MAX], state[STATE];
    struct command_save command = {.id = 1, .kind = SAVE_CUT, .progress = &progress, .state = {state, STATE}};
    struct checkpoint_blob blob = {"environment.bin", state, STATE};
    struct resume_save *save;
    snapshot_t *snapshot;
    struct error err = {0};

    memset(state, 'a' + n, sizeof(state));
    world_model_init(model, (uint64_t)n);
    for (int i = 0; i < model->layout.tensors; i++)
        if (model->layout.tensor[i].part != MODEL_TARGET_Q) {
            rng_normal(test_rng(), moments.m + model->layout.tensor[i].offset, model->layout.tensor[i].count);
            rng_normal(test_rng(), moments.v + model->layout.tensor[i].offset, model->layout.tensor[i].count);
        }
    *moments.steps = (uint64_t)(77 * n);
    moments.scale->value = (float)n + 0.5f;
    save = resume_save_create(&run, &command, progress.step);
    assert_non_null(save);
    assert_ok(snapshot_create(&snapshot, model, update, SNAPSHOT_LIVE, NULL, &err), err);
    assert_int_equal(snapshot_take(snapshot, &err), TD_OK);
    assert_ok(run_path(&run, "checkpoints", folder, &err), err);
    parts.groups = snapshot_groups(snapshot);
    parts.blobs = &blob;
    assert_ok(checkpoint_write(folder, save->name, &save->manifest, &parts, &err), err);
    snapshot_destroy(&snapshot);
    resume_save_destroy(&save);
    written[n - 1] = hash_of(&progress, state, sizeof(state));
}

/* As a learner that starts; 1 or 2: which of them it went on with, 0: an error with a sentence. */
static int load(void)
{
    struct progress progress;
    checkpoint_t *checkpoint;
    struct error err = {0};
    size_t state_size = 0;
    void *state = NULL;
    uint64_t hash = 0;
    int rc;

    alarm(30);
    rc = resume_open(&checkpoint, &run, &err);
    if (rc == TD_OK && checkpoint == NULL)
        fail_msg("no checkpoint is seen at all");
    if (rc == TD_OK)
        rc = resume_progress(checkpoint, &progress, &state, &state_size, &err);
    if (rc == TD_OK)
        rc = snapshot_load(checkpoint, model, update, &err);
    checkpoint_close(&checkpoint);
    if (rc == TD_OK)
        hash = hash_of(&progress, state, state_size);
    free(state);
    alarm(0);
    if (rc != TD_OK) {
        assert_true(err.text[0] != '\0');
        return 0;
    }
    if (hash != written[0] && hash != written[1])
        fail_msg("a state was loaded that nobody wrote");
    return hash == written[0] ? 1 : 2;
}

/* --- damage ---------------------------------------------------------------------- */

static void newest(const char *file, char path[FS_PATH_MAX])
{
    struct error err = {0};

    assert_ok(run_path(&run, "checkpoints/step-40", path, &err), err);
    if (file != NULL)
        snprintf(path + strlen(path), FS_PATH_MAX - strlen(path), "/%s", file);
}

/* Behind its 64 digits the file of the hash only has a name. */
static int harmless(int file, size_t at)
{
    return file == 1 && at >= 64;
}

static void put(const char *path, const char *bytes, size_t length)
{
    FILE *out = fopen(path, "wb");

    assert_non_null(out);
    assert_int_equal(fwrite(bytes, 1, length, out), length);
    assert_int_equal(fclose(out), 0);
}

/* The other checkpoint moves out of sight, and back. */
static void hide(bool away)
{
    char seen[FS_PATH_MAX], hidden[FS_PATH_MAX];
    struct error err = {0};

    assert_ok(run_path(&run, "checkpoints/step-20", seen, &err), err);
    assert_ok(run_path(&run, "step-20", hidden, &err), err);
    assert_int_equal(rename(away ? seen : hidden, away ? hidden : seen), 0);
}

/* The log of what is passed over would be longer than this test is of use. */
static int quiet(void)
{
    int kept = dup(STDERR_FILENO);

    assert_non_null(freopen("/dev/null", "w", stderr));
    return kept;
}

static void loud(int kept)
{
    fflush(stderr);
    dup2(kept, STDERR_FILENO);
    close(kept);
}

static void every_flip_is_met(void **state)
{
    long flips = test_long() ? 100000 : 2000; /* of each file */
    int kept = quiet();

    (void)state;
    for (int file = 0; file < (int)TD_LEN(files); file++) {
        char path[FS_PATH_MAX], *bytes;
        struct error err = {0};
        size_t length;

        newest(files[file], path);
        assert_ok(fs_read_file(path, 1 << 24, &bytes, &length, &err), err);
        for (long k = 0; k < flips; k++) {
            /* the small ones bit by bit, the large ones anywhere */
            size_t bit = (size_t)flips >= 8 * length ? (size_t)k % (8 * length)
                                                     : (size_t)(rng_u64(test_rng()) % (8 * length));
            int found, wanted = harmless(file, bit / 8) ? 2 : 1;

            bytes[bit / 8] ^= (char)(1 << bit % 8);
            put(path, bytes, length);
            if (k % 10 == 9 && wanted == 1) { /* alone: an error */
                hide(true);
                wanted = 0;
            }
            found = load();
            if (wanted == 0)
                hide(false);
            bytes[bit / 8] ^= (char)(1 << bit % 8);
            if (found != wanted)
                fail_msg("%s: bit %zu: checkpoint %d was loaded instead of %d", files[file], bit, found, wanted);
        }
        put(path, bytes, length);
        free(bytes);
        assert_int_equal(load(), 2);
        printf("  %s: %ld flips of its %zu bytes\n", files[file], flips, length);
    }
    loud(kept);
}

static void every_truncation_is_met(void **state)
{
    size_t most = test_long() ? SIZE_MAX : 1500; /* lengths tried of each file */
    int kept = quiet();

    (void)state;
    for (int file = 0; file < (int)TD_LEN(files); file++) {
        char path[FS_PATH_MAX], *bytes;
        struct error err = {0};
        size_t length, stride, tried = 0;

        newest(files[file], path);
        assert_ok(fs_read_file(path, 1 << 24, &bytes, &length, &err), err);
        stride = length / most + 1;
        for (size_t at = 0; at < length; at += at < 64 ? 1 : stride, tried++) {
            int wanted = harmless(file, at) ? 2 : 1, found;

            put(path, bytes, at);
            found = load();
            if (found != wanted)
                fail_msg("%s: cut to %zu bytes: checkpoint %d was loaded instead of %d", files[file], at, found, wanted);
        }
        assert_int_equal(unlink(path), 0); /* and not there at all */
        assert_int_equal(load(), 1);
        put(path, bytes, length);
        free(bytes);
        assert_int_equal(load(), 2);
        printf("  %s: cut to %zu of its %zu lengths\n", files[file], tried, length);
    }
    loud(kept);
}

/* Of the files beside the checkpoints: a run's identity and its options. */
static void run_files_are_met(void **state)
{
    static const char *const names[] = {"run.json", "config.yaml"};
    bool given[256] = {false};
    long flips = test_long() ? 100000 : 2000;
    struct config fresh = run.config;
    int kept = quiet();

    (void)state;
    for (size_t i = 0; i < TD_LEN(names); i++) {
        char path[FS_PATH_MAX], *bytes;
        struct error err = {0};
        size_t length;
        long refused = 0, same = 0, other = 0;

        assert_ok(run_path(&run, names[i], path, &err), err);
        assert_ok(fs_read_file(path, 1 << 20, &bytes, &length, &err), err);
        for (long k = 0; k < flips; k++) {
            size_t bit = (size_t)(rng_u64(test_rng()) % (8 * length));
            checkpoint_t *checkpoint = NULL;
            struct run found;
            int rc;

            bytes[bit / 8] ^= (char)(1 << bit % 8);
            put(path, bytes, length);
            bytes[bit / 8] ^= (char)(1 << bit % 8);
            err.text[0] = '\0';
            rc = run_look(&found, &fresh, given, NULL, &err);
            if (rc == TD_OK)
                rc = resume_open(&checkpoint, &found, &err);
            assert_true(rc == TD_OK || err.text[0] != '\0');
            refused += rc != TD_OK;
            /* what fixes the run is as it was; options that may change are told by resume_tell */
            if (rc == TD_OK) {
                struct config merged = run.config, *now = &found.config;
                bool all[256];

                memset(all, true, sizeof(all));
                assert_ok(config_resume(&merged, now, all, NULL, &err), err);
                assert_true(found.run_id == run.run_id);
                same += memcmp(now, &run.config, sizeof(*now)) == 0;
                other += memcmp(now, &run.config, sizeof(*now)) != 0;
            }
            checkpoint_close(&checkpoint);
        }
        put(path, bytes, length);
        free(bytes);
        printf("  %s: %ld flips: %ld refused, %ld without effect, %ld change an option that may change\n", names[i],
               flips, refused, same, other);
        assert_true(refused > 0);
    }
    loud(kept);
}

/* --- life ------------------------------------------------------------------------ */

static int set_up(void **state)
{
    static const char *const words[] = {"lockstep=true", "actors=1",      "enc_dim=8",     "mlp_dim=8",  "latent_dim=8",
                                        "num_q=2",       "num_bins=5",    "batch_size=4",  "seed=1",     "num_samples=16",
                                        "num_elites=4",  "num_pi_trajs=4"};
    bool given[256] = {false};
    struct update_config options;
    struct config fresh;
    struct model_dims dims;
    struct error err = {0};

    (void)state;
    config_init(&fresh);
    snprintf(fresh.work_dir, sizeof(fresh.work_dir), "%s/run", test_folder());
    for (size_t i = 0; i < TD_LEN(words); i++)
        assert_ok(config_set(&fresh, words[i], &err), err);
    assert_ok(run_open(&run, &fresh, given, 0, NULL, &err), err);
    assert_ok(gemm_start(1, &err), err);
    assert_ok(pool_create(&pool, 1, &err), err);
    assert_ok(model_dims_init(&dims, &fresh, OBS, ACTION, &err), err);
    assert_ok(world_model_create(&model, &dims, true, &err), err);
    update_config_init(&options, &fresh, 20);
    assert_ok(update_create(&update, model, &options, pool, &err), err);
    write_checkpoint(1);
    write_checkpoint(2);
    assert_int_equal(load(), 2);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    run_close(&run);
    update_destroy(&update);
    world_model_destroy(&model);
    pool_destroy(&pool);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_flip_is_met),
        cmocka_unit_test(every_truncation_is_met),
        cmocka_unit_test(run_files_are_met),
    };

    setenv("TMPDIR", "/dev/shm", 0);
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
