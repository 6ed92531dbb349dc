/* resume.c: what is said of a checkpoint that a run goes on from, and which ones it refuses. */
#include "learner/resume.h"

#include "common/tensor/gemm.h"
#include "tests/support/test.h"

static struct run run;
static char said[8192];
static int warnings;

static void note(void *context, bool warning, const char *line)
{
    size_t used = strlen(said);

    (void)context;
    warnings += warning;
    snprintf(said + used, sizeof(said) - used, "%s\n", line);
}

/* A manifest as this program writes it; `change` may alter it first. */
static void write_checkpoint(void (*change)(struct manifest *manifest))
{
    struct progress progress = {.lockstep = run.config.lockstep, .step = 7, .rows = 9, .state_size = 3, .phase = 4,
                                .excess = 5, .next_eval = 50};
    struct command_save command = {.id = 1, .kind = run.config.lockstep ? SAVE_CUT : SAVE_ORDINARY,
                                   .progress = &progress, .state = {"abc", 3}};
    struct resume_save *save = resume_save_create(&run, &command, 7);
    struct checkpoint_blob blob = {"environment.bin", "abc", 3};
    struct checkpoint_parts parts = {.blobs = &blob, .blob_count = 1};
    char folder[FS_PATH_MAX];
    struct error err = {0};

    assert_non_null(save);
    if (change != NULL)
        change(&save->manifest);
    assert_ok(run_path(&run, "checkpoints", folder, &err), err);
    fs_remove_tree(folder, NULL);
    assert_ok(checkpoint_write(folder, "step-7", &save->manifest, &parts, &err), err);
    resume_save_destroy(&save);
}

static int set_up(void **state)
{
    struct error err = {0};

    (void)state;
    memset(&run, 0, sizeof(run));
    run.lock = -1;
    run.run_id = 77;
    config_init(&run.config);
    run.config.lockstep = true;
    run.config.actors = 1;
    snprintf(run.dir, sizeof(run.dir), "%s/run", test_folder());
    assert_ok(fs_mkdirs(run.dir, 0755, &err), err);
    return build_of("/proc/self/exe", run.build);
}

static void tell(void)
{
    checkpoint_t *checkpoint;
    struct error err = {0};

    said[0] = '\0';
    warnings = 0;
    assert_ok(resume_open(&checkpoint, &run, &err), err);
    assert_non_null(checkpoint);
    resume_tell(checkpoint, &run, run.build, note, NULL);
    checkpoint_close(&checkpoint);
}

static void expect(const char *text, bool exact)
{
    if (strstr(said, text) == NULL)
        fail_msg("'%s' is not said:\n%s", text, said);
    if (exact != (strstr(said, "in the bits of one that was never stopped") != NULL))
        fail_msg("exact should be %d:\n%s", exact, said);
    assert_int_equal(exact, strstr(said, "exact     no") == NULL);
}

static void the_same_build_and_options_are_exact(void **state)
{
    (void)state;
    write_checkpoint(NULL);
    tell();
    expect("restored  step-7: 7 agent steps", true);
    expect("Adam's moments", true);
    expect("the environment's state", true);
    expect("replay goes back to 9 rows", true);
    assert_null(strstr(said, "differs"));
    assert_int_equal(warnings, 0);
}

static void other_version(struct manifest *manifest) { strcpy(manifest->version, "0.0.9"); }
static void other_build(struct manifest *manifest) { strcpy(manifest->build, "abcdef gcc 9.9.9"); }
static void other_libc(struct manifest *manifest) { strcpy(manifest->libc, "glibc 2.1"); }
static void other_machine(struct manifest *manifest) { strcpy(manifest->machine, "pdp11"); }
static void other_blas(struct manifest *manifest) { strcpy(manifest->blas, "Prescott"); }
static void other_simd(struct manifest *manifest) { strcpy(manifest->simd, "abacus"); }
static void other_eval_freq(struct manifest *manifest) { manifest->config.eval_freq = 12; }

static void each_difference_is_said_and_costs_exactness(void **state)
{
    static const struct {
        void (*change)(struct manifest *manifest);
        const char *said[2];
    } differences[] = {
        {other_version, {"differs   version: ", "the checkpoint's 0.0.9"}},
        {other_build, {"differs   build: ", "the checkpoint's abcdef gcc 9.9.9"}},
        {other_libc, {"differs   C library: glibc ", "the checkpoint's glibc 2.1"}},
        {other_machine, {"differs   machine: ", "the checkpoint's pdp11"}},
        {other_blas, {"differs   BLAS core: ", "the checkpoint's Prescott"}},
        {other_simd, {"differs   SIMD path: ", "the checkpoint's abacus"}},
        {other_eval_freq, {"differs   option eval_freq=50000", "the checkpoint's 12"}},
    };

    (void)state;
    for (size_t i = 0; i < TD_LEN(differences); i++) {
        write_checkpoint(differences[i].change);
        tell();
        expect(differences[i].said[0], false);
        expect(differences[i].said[1], false);
        assert_int_equal(warnings, 2); /* what differs, and what it costs */
    }
}

static void more_steps(struct manifest *manifest) { manifest->config.steps = 12; }
static void no_state(struct manifest *manifest)
{
    cJSON_ReplaceItemInObjectCaseSensitive(manifest->progress, "state_size", cJSON_CreateString("0"));
}
static void nothing_known(struct manifest *manifest)
{
    manifest->build[0] = manifest->libc[0] = manifest->machine[0] = '\0';
}

static void some_differences_cost_nothing(void **state)
{
    (void)state;
    write_checkpoint(more_steps);
    tell();
    expect("differs   option steps=10000000, the checkpoint's 12", true);
    assert_int_equal(warnings, 0);
    write_checkpoint(nothing_known);
    tell();
    expect("restored", true);
    write_checkpoint(no_state);
    tell();
    expect("restored", false);
    assert_null(strstr(said, "environment"));
}

/* Asynchronous runs are told what differs, and promised nothing that it could cost. */
static void asynchronous_runs_are_told_too(void **state)
{
    (void)state;
    run.config.lockstep = false;
    write_checkpoint(other_blas);
    tell();
    assert_non_null(strstr(said, "differs   BLAS core"));
    assert_non_null(strstr(said, "limiter: phase 4, 5 steps not owed; evaluation due at step 50; rows beyond it are kept"));
    assert_null(strstr(said, "exact"));
    assert_int_equal(warnings, 0);
}

static void other_seed(struct manifest *manifest) { manifest->config.seed = 3; }
static void other_lr(struct manifest *manifest) { manifest->config.lr = 0.25; }

static void fixed_options_that_differ_are_refused(void **state)
{
    void (*const changes[])(struct manifest *) = {other_seed, other_lr};
    static const char *const texts[] = {"seed=1, checkpoint ", "trained with 0.25: put that back"};
    checkpoint_t *checkpoint;
    struct error err = {0};

    (void)state;
    for (size_t i = 0; i < TD_LEN(changes); i++) {
        write_checkpoint(changes[i]);
        assert_int_equal(resume_open(&checkpoint, &run, &err), TD_EINVAL);
        assert_null(checkpoint);
        assert_non_null(strstr(err.text, texts[i]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(the_same_build_and_options_are_exact, set_up),
        cmocka_unit_test_setup(each_difference_is_said_and_costs_exactness, set_up),
        cmocka_unit_test_setup(some_differences_cost_nothing, set_up),
        cmocka_unit_test_setup(asynchronous_runs_are_told_too, set_up),
        cmocka_unit_test_setup(fixed_options_that_differ_are_refused, set_up),
    };
    struct error err = {0};

    setenv("TMPDIR", "/dev/shm", 0);
    if (gemm_start(1, &err) != TD_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
