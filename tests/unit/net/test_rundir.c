#include "tests/support/test.h"

#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "common/net/rundir.h"
#include "common/util/fs.h"

static const char *folder_of(const char *name)
{
    static char paths[4][512];
    static int next;
    char *path = paths[next++ % 4];

    snprintf(path, sizeof(paths[0]), "%s/%s", test_folder(), name);
    return path;
}

static struct rundir_part part_of(const char *role, int id)
{
    struct rundir_part part = {.id = id, .pid = 1234, .process = 0xfedcba9876543210u, .run_id = 42};

    snprintf(part.role, sizeof(part.role), "%s", role);
    snprintf(part.stats, sizeof(part.stats), "ipc:///tmp/stats-%s-%d", role, id);
    return part;
}

static void write_text(const char *path, const char *text)
{
    struct error err;

    assert_ok(fs_write_file(path, text, strlen(text), &err), err);
}

static void parts_are_recorded_listed_and_forgotten(void **state)
{
    const char *run = folder_of("run-a");
    struct rundir_part parts[8], part = part_of("actor", 11), found;
    struct error err;
    int count;

    (void)state;
    assert_int_equal(rundir_list(run, parts, 8, &count, &err), TD_ENOTFOUND);
    assert_ok(rundir_record(run, &part, &err), err);
    part = part_of("replay", 0);
    assert_ok(rundir_record(run, &part, &err), err);
    part = part_of("actor", 2);
    assert_ok(rundir_record(run, &part, &err), err);
    part = part_of("learner", 0);
    snprintf(part.control, sizeof(part.control), "tcp://127.0.0.1:5555");
    assert_ok(rundir_record(run, &part, &err), err);
    assert_ok(rundir_record(run, &part, &err), err); /* again: replaced */

    assert_ok(rundir_list(run, parts, 8, &count, &err), err);
    assert_int_equal(count, 4);
    assert_string_equal(parts[0].role, "learner");
    assert_string_equal(parts[0].control, "tcp://127.0.0.1:5555");
    assert_string_equal(parts[1].role, "replay");
    assert_int_equal(parts[2].id, 2);
    assert_int_equal(parts[3].id, 11);
    assert_string_equal(parts[3].stats, "ipc:///tmp/stats-actor-11");
    assert_true(parts[3].process == 0xfedcba9876543210u && parts[3].run_id == 42);
    assert_int_equal(parts[3].pid, 1234);
    assert_ok(rundir_list(run, parts, 2, &count, &err), err);
    assert_int_equal(count, 2);

    part = part_of("actor", 2);
    part.process = 1; /* another life of the part recorded itself since */
    rundir_forget(run, &part);
    assert_ok(rundir_find(run, "actor", 2, &found, &err), err);
    rundir_forget(run, &found);
    assert_int_equal(rundir_find(run, "actor", 2, &found, &err), TD_ENOTFOUND);
}

/* Prometheus finds a part by its file, as long as the part is there. */
static void a_target_is_written_beside(void **state)
{
    const char *run = folder_of("run-t");
    struct rundir_part part = part_of("actor", 7), parts[4];
    char path[600], *text;
    struct error err;
    size_t length;
    int count;

    (void)state;
    snprintf(path, sizeof(path), "%s/run/actor-7.metrics.json", run);
    assert_ok(rundir_record(run, &part, &err), err);
    assert_int_equal(fs_read_file(path, 1000, &text, &length, NULL), TD_ENOTFOUND);
    strcpy(part.metrics, "127.0.0.1:9100");
    assert_ok(rundir_record(run, &part, &err), err);
    assert_ok(fs_read_file(path, 1000, &text, &length, &err), err);
    assert_string_equal(text, "[{\"targets\":[\"127.0.0.1:9100\"],\"labels\":{\"run\":\"000000000000002a\"}}]\n");
    free(text);
    assert_ok(rundir_list(run, parts, 4, &count, &err), err);
    assert_int_equal(count, 1);
    rundir_forget(run, &part);
    assert_int_equal(fs_read_file(path, 1000, &text, &length, NULL), TD_ENOTFOUND);
}

static void corrupt_files_are_passed_over(void **state)
{
    static const char *const bad[] = {
        "", "{", "[]", "{\"role\":\"actor\"}", "{\"role\":\"../x\",\"id\":1,\"pid\":1,\"stats\":\"\",\"control\":\"\"}",
        "{\"role\":\"actor\",\"id\":-1,\"pid\":1,\"stats\":\"\",\"control\":\"\"}",
        "{\"role\":\"actor\",\"id\":1e300,\"pid\":1,\"stats\":\"\",\"control\":\"\"}",
        "{\"role\":7,\"id\":1,\"pid\":1,\"stats\":\"\",\"control\":\"\"}",
        "{\"role\":\"averyveryveryverylongrole\",\"id\":1,\"pid\":1,\"stats\":\"\",\"control\":\"\"}",
    };
    const char *run = folder_of("run-b");
    struct rundir_part parts[16], part = part_of("learner", 0);
    char path[600], huge[600];
    struct error err;
    int count;

    (void)state;
    assert_ok(rundir_record(run, &part, &err), err);
    for (size_t i = 0; i < TD_LEN(bad); i++) {
        snprintf(path, sizeof(path), "%s/run/actor-%zu.addr", run, i);
        write_text(path, bad[i]);
        assert_int_not_equal(rundir_find(run, "actor", (int)i, &part, &err), TD_OK);
    }
    memset(huge, 'x', sizeof(huge) - 1);
    huge[sizeof(huge) - 1] = '\0';
    snprintf(path, sizeof(path), "%s/run/actor-99.addr", run);
    write_text(path, huge);
    snprintf(path, sizeof(path), "%s/run/notes.txt", run);
    write_text(path, "not an address");
    assert_ok(rundir_list(run, parts, 16, &count, &err), err);
    assert_int_equal(count, 1);
}

static void set_age(const char *path, int seconds)
{
    struct timeval times[2];

    gettimeofday(&times[0], NULL);
    times[0].tv_sec -= seconds;
    times[1] = times[0];
    assert_int_equal(utimes(path, times), 0);
}

static void the_newest_run_is_found(void **state)
{
    const char *logs = folder_of("logs");
    char path[600], out[FS_PATH_MAX];
    struct error err;

    (void)state;
    assert_int_equal(rundir_newest(logs, out, sizeof(out), &err), TD_ENOTFOUND);
    for (int seed = 1; seed <= 3; seed++) {
        snprintf(path, sizeof(path), "%s/walker-walk/%d/default", logs, seed);
        assert_ok(fs_mkdirs(path, 0755, &err), err);
        snprintf(path, sizeof(path), "%s/walker-walk/%d/default/config.yaml", logs, seed);
        write_text(path, "task: walker-walk\n");
        set_age(path, seed == 2 ? 10 : 1000 * seed);
    }
    assert_ok(rundir_newest(logs, out, sizeof(out), &err), err);
    snprintf(path, sizeof(path), "%s/walker-walk/2/default", logs);
    assert_string_equal(out, path);
    assert_ok(rundir_check(path, &err), err);
    assert_int_equal(rundir_check(logs, &err), TD_ENOTFOUND);
    assert_int_equal(rundir_check(folder_of("nothing"), &err), TD_ENOTFOUND);
    assert_int_equal(rundir_newest(logs, out, 10, &err), TD_EINVAL);
}

static void sockets_of_a_folder_have_addresses(void **state)
{
    char folder[RUNTIME_PATH_MAX], address[CHANNEL_ADDRESS_MAX];
    struct error err;

    (void)state;
    setenv("TDMPC2_RUNTIME_DIR", folder_of("rt"), 1);
    assert_ok(runtime_folder(folder, 0xabc, &err), err);
    assert_ok(rundir_address(address, folder, "control", 0, &err), err);
    assert_true(strlen(address) == strlen(folder) + strlen("ipc:///control"));
    assert_ok(rundir_address(address, folder, "ingest", 0x100000002u, &err), err);
    assert_non_null(strstr(address, "/ingest-00000003"));
    unsetenv("TDMPC2_RUNTIME_DIR");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_are_recorded_listed_and_forgotten),
        cmocka_unit_test(a_target_is_written_beside),
        cmocka_unit_test(corrupt_files_are_passed_over),
        cmocka_unit_test(the_newest_run_is_found),
        cmocka_unit_test(sockets_of_a_folder_have_addresses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
