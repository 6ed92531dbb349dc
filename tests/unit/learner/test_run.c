#include "tests/support/test.h"

#include <errno.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/ckpt/checkpoint.h"
#include "learner/run.h"

static struct config fresh;
static bool given[256];
static char dir[FS_PATH_MAX];

/* Options as if from a command line, in a work_dir of the test's folder. */
static void options(const char *const *words)
{
    char place[FS_PATH_MAX + 16], *argv[8] = {place};
    struct error err = {0};
    int argc = 1;

    snprintf(place, sizeof(place), "work_dir=%s", dir);
    memset(given, 0, sizeof(given));
    for (; words != NULL && *words != NULL; words++)
        argv[argc++] = (char *)(uintptr_t)*words;
    config_init(&fresh);
    assert_ok(config_parse(&fresh, argc, argv, given, &err), err);
}

static int fresh_folder(void **state)
{
    (void)state;
    assert_int_equal(fs_join(dir, test_folder(), "a/run", NULL), TD_OK);
    return fs_remove_tree(dir, NULL);
}

static void write_final(const struct run *run, uint64_t step)
{
    struct checkpoint_blob blob = {"environment.bin", "x", 1}; /* a checkpoint of no files is none */
    struct checkpoint_parts parts = {.blobs = &blob, .blob_count = 1};
    struct manifest manifest;
    struct error err = {0};
    char folder[FS_PATH_MAX];

    assert_int_equal(manifest_init(&manifest), TD_OK);
    manifest.kind = CHECKPOINT_FINAL;
    manifest.step = step;
    assert_int_equal(run_path(run, "checkpoints", folder, NULL), TD_OK);
    assert_ok(checkpoint_write(folder, "final", &manifest, &parts, &err), err);
    manifest_release(&manifest);
}

static void a_new_run_is_made_and_resumed(void **state)
{
    struct run run, again;
    struct error err = {0};
    uint64_t id;

    (void)state;
    options((const char *[]){"steps=100", "seed=3", NULL});
    assert_ok(run_look(&run, &fresh, given, NULL, &err), err);
    assert_false(run.resumed);
    assert_int_not_equal(access(dir, F_OK), 0); /* looking makes nothing */
    assert_ok(run_open(&run, &fresh, given, 0, NULL, &err), err);
    assert_false(run.resumed || run.finished);
    assert_int_equal(run.epoch, 1);
    assert_true(run.run_id != 0);
    assert_ok(run_check_epoch(&run, &err), err);
    id = run.run_id;
    run_close(&run);
    assert_int_equal(run.lock, -1);

    options((const char *[]){"steps=200", NULL});
    assert_ok(run_open(&again, &fresh, given, 0, NULL, &err), err);
    assert_true(again.resumed && !again.finished);
    assert_true(again.run_id == id);
    assert_int_equal(again.epoch, 2);
    assert_int_equal(again.config.seed, 3);
    assert_int_equal(again.config.steps, 200);
    assert_int_equal(run_check_epoch(&run, &err), TD_EFENCED); /* the first one is a zombie now */
    assert_int_equal(run_raise_epoch(&run, 9, &err), TD_EFENCED);
    assert_ok(run_raise_epoch(&again, 9, &err), err);
    assert_int_equal(again.epoch, 10);
    assert_ok(run_raise_epoch(&again, 3, &err), err);
    assert_int_equal(again.epoch, 11);
    run_close(&again);

    options((const char *[]){"seed=4", NULL});
    assert_int_equal(run_look(&run, &fresh, given, NULL, &err), TD_EINVAL);
    assert_non_null(strstr(err.text, "seed=3"));
}

static void resume_says_what_may_be_there(void **state)
{
    struct run run;
    struct error err = {0};

    (void)state;
    options((const char *[]){"resume=must", NULL});
    assert_int_equal(run_look(&run, &fresh, given, NULL, &err), TD_EINVAL);
    assert_non_null(strstr(err.text, "no run to go on with"));
    assert_int_not_equal(access(dir, F_OK), 0);
    options((const char *[]){"resume=never", NULL});
    assert_ok(run_open(&run, &fresh, given, 0, NULL, &err), err);
    run_close(&run);
    assert_int_equal(run_look(&run, &fresh, given, NULL, &err), TD_EINVAL);
    assert_non_null(strstr(err.text, "holds a run already"));
    assert_int_equal(run_open(&run, &fresh, given, 0, NULL, &err), TD_EINVAL);
    options((const char *[]){"resume=must", NULL});
    assert_ok(run_open(&run, &fresh, given, 0, NULL, &err), err);
    assert_string_equal(run.config.resume, "must"); /* of this start alone */
    run_close(&run);
    options(NULL);
    assert_ok(run_open(&run, &fresh, given, 0, NULL, &err), err);
    assert_string_equal(run.config.resume, "auto");
    run_close(&run);
}

/* The directory is the run: under another path and name it goes on as itself. */
static void a_moved_run_goes_on(void **state)
{
    char before[FS_PATH_MAX];
    struct error err = {0};
    struct run run;
    uint64_t id;

    (void)state;
    options((const char *[]){"seed=3", "exp_name=here", NULL});
    assert_ok(run_open(&run, &fresh, given, 0, NULL, &err), err);
    id = run.run_id;
    run_close(&run);
    memcpy(before, dir, sizeof(before));
    assert_int_equal(fs_join(dir, test_folder(), "moved", NULL), TD_OK);
    fs_remove_tree(dir, NULL);
    assert_int_equal(rename(before, dir), 0);
    options((const char *[]){"exp_name=there", "resume=must", NULL});
    assert_ok(run_open(&run, &fresh, given, 0, NULL, &err), err);
    assert_true(run.resumed && run.run_id == id && run.epoch == 2);
    assert_string_equal(run.config.exp_name, "there");
    assert_int_equal(run.config.seed, 3);
    assert_non_null(strstr(run.dir, "/moved"));
    run_close(&run);
}

static void where_replay_is_is_remembered(void **state)
{
    char here[FS_PATH_MAX], there[FS_PATH_MAX + 32], *text = NULL;
    struct error err = {0};
    struct run run;
    size_t size;
    FILE *report;

    (void)state;
    assert_non_null(getcwd(here, sizeof(here)));
    snprintf(there, sizeof(there), "%s/somewhere/replay", here);
    options((const char *[]){"replay_dir=somewhere/replay", NULL});
    assert_ok(run_open(&run, &fresh, given, 0, NULL, &err), err);
    assert_string_equal(run.config.replay_dir, there);
    run_close(&run);
    options(NULL);
    assert_ok(run_open(&run, &fresh, given, 0, NULL, &err), err);
    assert_string_equal(run.config.replay_dir, there);
    run_close(&run);
    options((const char *[]){"replay_dir=somewhere/replay", NULL}); /* the same one is no change */
    report = open_memstream(&text, &size);
    assert_ok(run_look(&run, &fresh, given, report, &err), err);
    fclose(report);
    assert_null(strstr(text, "replay_dir"));
    free(text);
    options((const char *[]){"replay_dir=/else/where", NULL}); /* it was moved */
    assert_ok(run_open(&run, &fresh, given, 0, NULL, &err), err);
    run_close(&run);
    options(NULL);
    assert_ok(run_open(&run, &fresh, given, 0, NULL, &err), err);
    assert_string_equal(run.config.replay_dir, "/else/where");
    run_close(&run);
}

static void a_finished_run_says_so_until_it_is_extended(void **state)
{
    struct run run;
    struct error err = {0};

    (void)state;
    options((const char *[]){"steps=100", NULL});
    assert_ok(run_open(&run, &fresh, given, 0, NULL, &err), err);
    write_final(&run, 101);
    run_close(&run);
    options(NULL);
    assert_ok(run_look(&run, &fresh, given, NULL, &err), err);
    assert_true(run.finished);
    assert_int_equal(run.finished_steps, 101);
    options((const char *[]){"steps=500", NULL});
    assert_ok(run_look(&run, &fresh, given, NULL, &err), err);
    assert_false(run.finished);
}

static void a_locked_run_names_its_owner(void **state)
{
    struct run run, other;
    struct error err = {0};
    int code;

    (void)state;
    options(NULL);
    assert_ok(run_open(&run, &fresh, given, 0, NULL, &err), err);
    pid_t pid = fork();
    if (pid == 0)
        _exit(run_open(&other, &fresh, given, 0, NULL, &err) == TD_ELOCKED &&
                      run_wait_unlocked(run.dir, 0, &err) == TD_ELOCKED && strstr(err.text, "running") != NULL
                  ? 0
                  : 1);
    assert_int_equal(waitpid(pid, &code, 0), pid);
    assert_int_equal(code, 0);
    run_close(&run);
    assert_ok(run_wait_unlocked(run.dir, 0, &err), err);
    assert_ok(run_wait_unlocked("no/such/run", 0, &err), err);
}

static void put(const char *name, const char *text)
{
    char path[FS_PATH_MAX];
    struct error err = {0};

    assert_int_equal(fs_join(path, dir, name, NULL), TD_OK);
    assert_ok(fs_mkdirs(dir, 0755, &err), err);
    assert_ok(fs_write_file(path, text, strlen(text), &err), err);
}

static void damaged_directories_are_refused(void **state)
{
    static const char *const spoilt[] = {"", "{", "[]", "{\"format\": 1}",
                                         "{\"format\": 1, \"run_id\": \"x\", \"learner_epoch\": 1}",
                                         "{\"format\": 1, \"run_id\": \"00000000000000ff\", \"learner_epoch\": -1}",
                                         "{\"format\": 1, \"run_id\": \"00000000000000ff\", \"learner_epoch\": 4294967296}"};
    struct run run;
    struct error err = {0};

    (void)state;
    options(NULL);
    for (size_t i = 0; i < TD_LEN(spoilt); i++) {
        put("config.yaml", "steps: 5\n");
        put("run.json", spoilt[i]);
        assert_int_equal(run_open(&run, &fresh, given, 0, NULL, &err), TD_ECORRUPT);
        assert_non_null(strstr(err.text, "run.json"));
    }
    put("config.yaml", ""); /* not a run with all defaults */
    assert_int_equal(run_open(&run, &fresh, given, 0, NULL, &err), TD_ECORRUPT);
    assert_non_null(strstr(err.text, "config.yaml is empty"));
    put("config.yaml", "steps: 5\n");
    put("run.json", "{\"format\": 2}");
    assert_int_equal(run_open(&run, &fresh, given, 0, NULL, &err), TD_EFOREIGN);
    put("config.yaml", "stepz: 5\n");
    assert_int_equal(run_open(&run, &fresh, given, 0, NULL, &err), TD_EINVAL);
    assert_non_null(strstr(err.text, "config.yaml:1"));

    fs_remove_tree(dir, &err);
    put("eval.csv", "step\n");
    assert_int_equal(run_open(&run, &fresh, given, 0, NULL, &err), TD_ECORRUPT);
    assert_non_null(strstr(err.text, "eval.csv"));
    assert_int_equal(run_open(&run, &fresh, given, 0, NULL, &err), TD_ECORRUPT);
}

static int steps_left;
static int die_at_k(const char *operation, const char *path)
{
    (void)operation;
    (void)path;
    return steps_left-- > 0 ? 0 : EIO;
}

/* Killed before any step of its making, a run directory can be taken by the next start. */
static void a_kill_while_it_is_made_blocks_nothing(void **state)
{
    struct run run;
    int rc = TD_EIO;

    (void)state;
    options(NULL);
    for (int k = 0; rc != TD_OK; k++) {
        struct error err = {0};

        assert_true(k < 60);
        fs_remove_tree(dir, &err);
        steps_left = k;
        fs_fault = die_at_k;
        rc = run_open(&run, &fresh, given, 0, NULL, &err);
        fs_fault = NULL;
        if (rc == TD_OK)
            run_close(&run);
        assert_ok(run_open(&run, &fresh, given, 0, NULL, &err), err);
        run_close(&run);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_new_run_is_made_and_resumed, fresh_folder),
        cmocka_unit_test_setup(resume_says_what_may_be_there, fresh_folder),
        cmocka_unit_test_setup(a_moved_run_goes_on, fresh_folder),
        cmocka_unit_test_setup(where_replay_is_is_remembered, fresh_folder),
        cmocka_unit_test_setup(a_finished_run_says_so_until_it_is_extended, fresh_folder),
        cmocka_unit_test_setup(a_locked_run_names_its_owner, fresh_folder),
        cmocka_unit_test_setup(damaged_directories_are_refused, fresh_folder),
        cmocka_unit_test_setup(a_kill_while_it_is_made_blocks_nothing, fresh_folder),
    };

    setenv("TMPDIR", "/dev/shm", 0); /* nothing here is about a real disk, which may be slow to sync */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
