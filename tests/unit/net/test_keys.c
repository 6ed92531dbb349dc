#include <sys/stat.h>
#include <unistd.h>

#include "common/net/admission.h"
#include "common/net/keys.h"
#include "tests/support/test.h"

static const char *fresh_folder(void)
{
    static char dir[300];
    static int number;

    snprintf(dir, sizeof(dir), "%s/keys-%d", test_folder(), number++);
    assert_int_equal(mkdir(dir, 0700), 0);
    return dir;
}

static void write_text(const char *dir, const char *file, const char *text, mode_t mode)
{
    char path[FS_PATH_MAX];
    struct error err;

    snprintf(path, sizeof(path), "%s/%s", dir, file);
    assert_ok(fs_write_file(path, text, strlen(text), &err), err);
    assert_int_equal(chmod(path, mode), 0);
}

static void names_have_one_way_to_be_written(void **state)
{
    static const char *const good[] = {"learner", "evaluator", "viewer", "shard-0", "shard-63", "actor-0", "actor-65535"};
    static const char *const bad[] = {"", "actor", "actor-", "actor-01", "actor--1", "actor-65536", "actor-3 ", "shard-64",
                                      "learner-0", "viewers", "Actor-1", "actor-1x", "actor-99999999999"};
    char name[IDENTITY_NAME_MAX];
    struct identity who;

    (void)state;
    for (size_t i = 0; i < TD_LEN(good); i++) {
        assert_true(identity_parse(&who, good[i]));
        assert_string_equal(identity_name(name, &who), good[i]);
    }
    for (size_t i = 0; i < TD_LEN(bad); i++)
        if (identity_parse(&who, bad[i]))
            fail_msg("\"%s\" is taken for a name", bad[i]);
}

static void a_key_comes_back_as_it_was_saved_and_only_for_its_owner(void **state)
{
    struct identity actor = {ROLE_ACTOR, 3}, other = {ROLE_ACTOR, 4};
    struct key_pair made, read, wrong;
    const char *dir = fresh_folder();
    char path[FS_PATH_MAX], copy[FS_PATH_MAX], text[600];
    struct stat info;
    struct error err;

    (void)state;
    assert_ok(keys_make(&made, &err), err);
    assert_ok(keys_make(&wrong, &err), err);
    assert_ok(keys_save(&made, dir, &actor, &err), err);
    assert_ok(keys_path(path, dir, &actor, &err), err);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 07777, 0600);
    assert_ok(keys_load(&read, dir, &actor, &err), err);
    assert_memory_equal(&made, &read, sizeof(made));
    assert_int_equal(keys_load(&read, dir, &other, &err), TD_ENOTFOUND);
    assert_non_null(strstr(err.text, "actor-4"));

    assert_int_equal(chmod(path, 0640), 0); /* others may read it */
    assert_int_equal(keys_load(&read, dir, &actor, &err), TD_EINVAL);
    assert_non_null(strstr(err.text, "chmod 600"));
    assert_int_equal(chmod(path, 0600), 0);
    assert_ok(keys_path(copy, dir, &other, &err), err); /* under another name */
    assert_int_equal(link(path, copy), 0);
    assert_int_equal(keys_load(&read, dir, &other, &err), TD_EINVAL);
    unlink(copy);

    memcpy(wrong.public_key, made.public_key, sizeof(made.public_key)); /* halves of two pairs */
    assert_ok(keys_save(&wrong, dir, &actor, &err), err);
    assert_int_equal(keys_load(&read, dir, &actor, &err), TD_EINVAL);
    snprintf(text, sizeof(text), "metadata\nname = \"actor-3\"\ncurve\npublic-key = \"%s\"\nsecret-key = \"%s\" ; more\n",
             made.public_key, made.secret_key);
    write_text(dir, "actor-3.key", text, 0600);
    assert_int_equal(keys_load(&read, dir, &actor, &err), TD_EINVAL);
    write_text(dir, "actor-3.key", "", 0600);
    assert_int_equal(keys_load(&read, dir, &actor, &err), TD_EINVAL);
}

static void the_only_key_of_an_actor_names_its_slot(void **state)
{
    const char *dir = fresh_folder();
    struct error err;
    uint32_t slot;

    (void)state;
    assert_int_equal(keys_only_actor(&slot, dir, &err), TD_EINVAL);
    write_text(dir, "learner.key", "", 0600);
    write_text(dir, "actor-12.key", "", 0600);
    assert_ok(keys_only_actor(&slot, dir, &err), err);
    assert_int_equal(slot, 12);
    write_text(dir, "actor-13.key", "", 0600);
    assert_int_equal(keys_only_actor(&slot, dir, &err), TD_EINVAL);
    assert_non_null(strstr(err.text, "actor=N"));
}

static void a_list_is_whole_or_nothing(void **state)
{
    struct identity actor = {ROLE_ACTOR, 1}, learner = {.role = ROLE_LEARNER};
    struct allowed_keys allowed = {0}, read;
    const char *dir = fresh_folder();
    struct key_pair one, two;
    char text[600];
    struct error err;

    (void)state;
    assert_ok(keys_make(&one, &err), err);
    assert_ok(keys_make(&two, &err), err);
    assert_int_equal(allowed_load(&read, dir, &err), TD_ENOTFOUND);
    assert_ok(allowed_add(&allowed, &actor, one.public_key, &err), err);
    assert_ok(allowed_add(&allowed, &learner, two.public_key, &err), err);
    assert_int_equal(allowed_add(&allowed, &actor, two.public_key, &err), TD_EINVAL);
    assert_ok(allowed_save(&allowed, dir, &err), err);
    assert_ok(allowed_load(&read, dir, &err), err);
    assert_int_equal(read.count, 2);
    assert_true(identity_same(&allowed_by_key(&read, one.public_key)->who, &actor));
    assert_string_equal(allowed_by_name(&read, &learner)->public_key, two.public_key);
    allowed_release(&read);
    allowed_release(&allowed);

    /* one bad line spoils it all: a name that is none, a key twice, a key too short, words behind it */
    for (int i = 0; i < 5; i++) {
        char *at;

        snprintf(text, sizeof(text), "learner %s\n", two.public_key);
        at = text + strlen(text);
        if (i == 0)
            snprintf(at, 200, "bob %s\n", one.public_key);
        else if (i == 1)
            snprintf(at, 200, "actor-1 %s\n", two.public_key);
        else if (i == 2)
            snprintf(at, 200, "actor-1 %.20s\n", one.public_key);
        else if (i == 3)
            snprintf(at, 200, "actor-1 %s x\n", one.public_key);
        else
            snprintf(at, 200, "actor-1\n");
        write_text(dir, "allowed", text, 0600);
        assert_int_equal(allowed_load(&read, dir, &err), TD_EINVAL);
        assert_non_null(strstr(err.text, "line 2"));
        assert_int_equal(read.count, 0);
    }
    snprintf(text, sizeof(text), "# remark\n\nlearner %s\r\n", two.public_key);
    write_text(dir, "allowed", text, 0600);
    assert_ok(allowed_load(&read, dir, &err), err);
    allowed_release(&read);
    write_text(dir, "allowed", text, 0660); /* a group may write it */
    assert_int_equal(allowed_load(&read, dir, &err), TD_EINVAL);
}

static const char *judged(uint32_t role, uint32_t number, uint32_t port, struct message message, bool lockstep)
{
    struct identity who = {role, number};
    struct peer peer = {.port = port, .id = 7};

    return admission_refusal(&who, &peer, &message, lockstep);
}

static void what_the_holder_of_a_key_may_say(void **state)
{
    struct message hello = {.kind = MESSAGE_HELLO, .hello = {.role = ROLE_SHARD, .process = 7, .shard = 1}};
    struct message end = {.kind = MESSAGE_EPISODE_END, .episode_end = {.slot = 2}};
    struct message evaluated = {.kind = MESSAGE_EVALUATED}, stop = {.kind = MESSAGE_STOP}, pull = {.kind = MESSAGE_PULL};
    struct message leave = {.kind = MESSAGE_LEAVE, .leave = {.role = ROLE_ACTOR, .slot = 2, .process = 7}};

    (void)state;
    assert_null(judged(ROLE_SHARD, 1, PORT_CONTROL, hello, false));
    assert_non_null(judged(ROLE_SHARD, 0, PORT_CONTROL, hello, false));
    assert_non_null(judged(ROLE_ACTOR, 1, PORT_CONTROL, hello, false));
    assert_null(judged(ROLE_ACTOR, 2, PORT_CONTROL, end, false));
    assert_non_null(judged(ROLE_ACTOR, 1, PORT_CONTROL, end, false));
    assert_non_null(judged(ROLE_EVALUATOR, 2, PORT_CONTROL, end, false));
    assert_null(judged(ROLE_EVALUATOR, 0, PORT_CONTROL, evaluated, false));
    assert_non_null(judged(ROLE_ACTOR, 0, PORT_CONTROL, evaluated, false));
    assert_null(judged(ROLE_ACTOR, 0, PORT_CONTROL, evaluated, true));
    assert_null(judged(ROLE_LEARNER, 0, PORT_CONTROL, stop, false));
    for (uint32_t role = ROLE_ACTOR; role <= ROLE_TOOL; role++) {
        if (role != ROLE_LEARNER)
            assert_non_null(judged(role, 2, PORT_CONTROL, stop, false));
        if (role != ROLE_LEARNER)
            assert_non_null(judged(role, 2, PORT_SAMPLE, hello, false));
        if (role != ROLE_ACTOR && role != ROLE_EVALUATOR)
            assert_non_null(judged(role, 2, PORT_PARAMS, pull, false));
        if (role != ROLE_ACTOR)
            assert_non_null(judged(role, 2, PORT_INGEST, leave, false));
    }
    assert_null(judged(ROLE_ACTOR, 2, PORT_INGEST, leave, false));
    leave.leave.process = 8;
    assert_non_null(judged(ROLE_ACTOR, 2, PORT_INGEST, leave, false));
    assert_non_null(judged(ROLE_ACTOR, 2, PORT_ANNOUNCE, pull, false));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_have_one_way_to_be_written),
        cmocka_unit_test(a_key_comes_back_as_it_was_saved_and_only_for_its_owner),
        cmocka_unit_test(the_only_key_of_an_actor_names_its_slot),
        cmocka_unit_test(a_list_is_whole_or_nothing),
        cmocka_unit_test(what_the_holder_of_a_key_may_say),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
