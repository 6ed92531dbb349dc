/* Finding and loading MuJoCo and the model files; its errors and warnings. */
#include "common/env/mujoco.h"

#include <dlfcn.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/env/env.h"
#include "tests/support/test.h"

/* A folder of assets holding `library` under MuJoCo's name: a link, or a text file when NULL. */
static void offer_library(const char *name, const char *library)
{
    char folder[300], path[400];

    snprintf(folder, sizeof(folder), "%s/%s", test_folder(), name);
    snprintf(path, sizeof(path), "%s/libmujoco.so.3.1.2", folder);
    assert_int_equal(mkdir(folder, 0755), 0);
    if (library != NULL) {
        assert_int_equal(symlink(library, path), 0);
    } else {
        FILE *file = fopen(path, "w");

        assert_non_null(file);
        fputs("not a library\n", file);
        fclose(file);
    }
    setenv("TDMPC2_ASSETS", folder, 1);
}

/* Before the library is open for good: what is no library, and what is another one. */
static void wrong_libraries_are_refused(void **state)
{
    struct error err = {0};
    Dl_info info;

    (void)state;
    offer_library("text", NULL);
    assert_null(mujoco_open(&err));
    assert_int_equal(err.code, TD_ESETUP);
    assert_non_null(strstr(err.text, "make setup"));

    assert_int_not_equal(dladdr((void *)_cmocka_run_group_tests, &info), 0);
    offer_library("other", info.dli_fname);
    assert_null(mujoco_open(&err));
    assert_int_equal(err.code, TD_EFOREIGN);
    unsetenv("TDMPC2_ASSETS");
}

static void the_library_is_of_the_headers_version(void **state)
{
    struct error err = {0};
    const struct mujoco *mj = mujoco_open(&err);

    (void)state;
    if (mj == NULL)
        fail_msg("%s", err.text);
    assert_int_equal(mj->mj_version(), mjVERSION_HEADER);
    assert_ptr_equal(mujoco_open(&err), mj);
}

static void missing_models_say_what_to_run(void **state)
{
    struct error err = {0};
    env_t *env = NULL;

    (void)state;
    setenv("TDMPC2_ASSETS", test_folder(), 1);
    assert_int_equal(env_create(&env, "walker-walk", 1, &err), TD_ESETUP);
    assert_null(env);
    assert_non_null(strstr(err.text, "make setup"));
    assert_non_null(strstr(err.text, test_folder()));
    assert_int_equal(error_exit_code(TD_ESETUP), TD_EXIT_BAD_INPUT);
    unsetenv("TDMPC2_ASSETS");
}

/* Text put where a model file is looked for. */
static int load(const char *text, struct error *err)
{
    char path[400];
    FILE *file;
    env_t *env = NULL;
    int rc;

    snprintf(path, sizeof(path), "%s/suite", test_folder());
    mkdir(path, 0755);
    snprintf(path, sizeof(path), "%s/suite/pendulum.xml", test_folder());
    file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    setenv("TDMPC2_ASSETS", test_folder(), 1);
    rc = env_create(&env, "pendulum-swingup", 1, err);
    unsetenv("TDMPC2_ASSETS");
    assert_null(env);
    return rc;
}

static void wrong_models_are_refused(void **state)
{
    struct error err = {0};

    (void)state;
    assert_int_equal(load("<mujoco><worldbody><nonsense/></worldbody></mujoco>", &err), TD_ECORRUPT);
    assert_null(strchr(err.text, '\n'));
    assert_int_equal(load("no xml", &err), TD_ECORRUPT);
    assert_int_equal(load("<mujoco><worldbody/></mujoco>", &err), TD_ECORRUPT);
    assert_non_null(strstr(err.text, "sizes differ"));
    assert_int_equal(load("<mujoco><worldbody><body name='pole'><joint name='other'/><geom size='.1'/></body>"
                          "</worldbody><actuator><motor joint='other' ctrllimited='true' ctrlrange='-1 1'/>"
                          "</actuator></mujoco>", &err), TD_ECORRUPT);
    assert_non_null(strstr(err.text, "'hinge'"));
    assert_int_equal(load("<mujoco><worldbody><body name='pole'><joint name='hinge'/><geom size='.1'/></body>"
                          "</worldbody><actuator><motor joint='hinge'/></actuator></mujoco>", &err),
                     TD_ECORRUPT);
    assert_non_null(strstr(err.text, "no limits"));
}

static void raise_error(void *context)
{
    const struct mujoco *mj = mujoco_open(NULL);

    mj->mju_error("number %d", *(int *)context);
}

static void do_nothing(void *context)
{
    ++*(int *)context;
}

static void errors_inside_come_back(void **state)
{
    struct error err = {0};
    int number = 7;

    (void)state;
    for (int i = 0; i < 3; i++) {
        number = 7 + i;
        assert_int_equal(mujoco_run(raise_error, &number, &err), TD_EIO);
        assert_non_null(strstr(err.text, i == 0 ? "number 7" : i == 1 ? "number 8" : "number 9"));
    }
    assert_ok(mujoco_run(do_nothing, &number, &err), err);
    assert_int_equal(number, 10);
}

static void nothing_is_logged_to_the_working_directory(void **state)
{
    (void)state;
    assert_int_not_equal(access("MUJOCO_LOG.TXT", F_OK), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_libraries_are_refused),
        cmocka_unit_test(the_library_is_of_the_headers_version),
        cmocka_unit_test(missing_models_say_what_to_run),
        cmocka_unit_test(wrong_models_are_refused),
        cmocka_unit_test(errors_inside_come_back),
        cmocka_unit_test(nothing_is_logged_to_the_working_directory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
