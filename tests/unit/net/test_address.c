#include "tests/support/test.h"

#include "common/net/address.h"

static void loopback_and_ipc_need_no_permission(void **state)
{
    static const char *const good[] = {
        "tcp://127.0.0.1:5555", "tcp://127.8.9.10:1",     "tcp://localhost:65535", "tcp://[::1]:7",
        "tcp://127.0.0.1:*",    "ipc:///tmp/some/socket",
    };
    struct error err;

    (void)state;
    for (size_t i = 0; i < TD_LEN(good); i++) {
        assert_ok(address_check(good[i], false, &err), err);
        assert_true(address_is_local(good[i]));
    }
    assert_true(address_is_ipc("ipc:///tmp/x"));
    assert_false(address_is_ipc("tcp://127.0.0.1:1"));
}

static void the_network_must_be_asked_for(void **state)
{
    static const char *const far[] = {
        "tcp://0.0.0.0:5555", "tcp://*:5555",         "tcp://10.0.0.1:5555",      "tcp://[::]:5",
        "tcp://eth0:5555",    "tcp://example.org:80", "tcp://[2001:db8::1]:5555", "tcp://128.0.0.1:1",
        "tcp://127.1:5555",   "tcp://localhost.:5",
    };
    struct error err;

    (void)state;
    for (size_t i = 0; i < TD_LEN(far); i++) {
        assert_int_equal(address_check(far[i], false, &err), TD_EINVAL);
        assert_non_null(strstr(err.text, "insecure=true"));
        assert_false(address_is_local(far[i]));
        assert_ok(address_check(far[i], true, &err), err);
    }
}

static void malformed_ones_are_refused_always(void **state)
{
    static const char *const bad[] = {
        "",
        "tcp://",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:",
        "tcp://127.0.0.1:0",
        "tcp://127.0.0.1:65536",
        "tcp://127.0.0.1:5x",
        "tcp://127.0.0.1:-5",
        "tcp://127.0.0.1: 55",
        "tcp://:5555",
        "tcp://[::1:5555",
        "tcp://::1:5555",
        "tcp://[]:1",
        "tcp://[zz]:1",
        "tcp://127.0.0.1;10.0.0.1:5555",
        "udp://127.0.0.1:5555",
        "inproc://x",
        "pgm://127.0.0.1:5",
        "ipc://relative/path",
        "ipc://",
        "ipc://@abstract",
        "ipc:///tmp/two words",
        "127.0.0.1:5555",
        "tcp://127.0.0.1:5555\n",
    };
    char longest[600];
    struct error err;

    (void)state;
    for (size_t i = 0; i < TD_LEN(bad); i++) {
        if (address_check(bad[i], true, &err) != TD_EINVAL)
            fail_msg("\"%s\" was accepted", bad[i]);
        assert_true(strlen(err.text) > 20);
        assert_false(address_is_local(bad[i]));
    }
    memset(longest, 'a', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    assert_int_equal(address_check(longest, true, &err), TD_EINVAL);
    memcpy(longest, "ipc:///", 7);
    longest[6 + 107] = '\0'; /* sun_path has 108 bytes, the last for the NUL: "/" and 106 more */
    assert_ok(address_check(longest, false, &err), err);
    longest[6 + 107] = 'a';
    longest[6 + 108] = '\0';
    assert_int_equal(address_check(longest, false, &err), TD_EINVAL);
    assert_non_null(strstr(err.text, "shorter"));
}

static void the_host_can_be_replaced(void **state)
{
    char out[ADDRESS_MAX];
    struct error err;

    (void)state;
    assert_ok(address_with_host(out, "tcp://0.0.0.0:5555", "10.0.0.1", &err), err);
    assert_string_equal(out, "tcp://10.0.0.1:5555");
    assert_ok(address_with_host(out, "tcp://[::]:5555", "2001:db8::7", &err), err);
    assert_string_equal(out, "tcp://[2001:db8::7]:5555");
    assert_ok(address_with_host(out, "tcp://*:77", "node-3.example.org", &err), err);
    assert_string_equal(out, "tcp://node-3.example.org:77");
    assert_int_equal(address_with_host(out, "ipc:///tmp/x", "10.0.0.1", &err), TD_EINVAL);
    assert_int_equal(address_with_host(out, "tcp://*:77", "a b", &err), TD_EINVAL);
    assert_int_equal(address_with_host(out, "tcp://*:77", "", &err), TD_EINVAL);
}

static void the_port_can_be_replaced(void **state)
{
    char out[ADDRESS_MAX];
    struct error err;

    (void)state;
    assert_ok(address_with_port(out, "tcp://10.0.0.1:5555", "*", &err), err);
    assert_string_equal(out, "tcp://10.0.0.1:*");
    assert_ok(address_with_port(out, "tcp://[::1]:5555", "77", &err), err);
    assert_string_equal(out, "tcp://[::1]:77");
    assert_int_equal(address_with_port(out, "ipc:///tmp/x", "*", &err), TD_EINVAL);
    assert_int_equal(address_with_port(out, "tcp://[::1]:5555", "x", &err), TD_EINVAL);
    assert_true(address_is_wildcard("tcp://*:1") && address_is_wildcard("tcp://0.0.0.0:1"));
    assert_true(address_is_wildcard("tcp://[::]:1"));
    assert_false(address_is_wildcard("tcp://10.0.0.1:1") || address_is_wildcard("ipc:///tmp/x"));
}

static void localhost_never_meets_a_resolver(void **state)
{
    char out[ADDRESS_MAX];

    (void)state;
    assert_string_equal(address_for_zmq(out, "tcp://localhost:12"), "tcp://127.0.0.1:12");
    assert_string_equal(address_for_zmq(out, "tcp://[::1]:12"), "tcp://[::1]:12");
    assert_string_equal(address_for_zmq(out, "ipc:///tmp/localhost:1"), "ipc:///tmp/localhost:1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loopback_and_ipc_need_no_permission),
        cmocka_unit_test(the_network_must_be_asked_for),
        cmocka_unit_test(malformed_ones_are_refused_always),
        cmocka_unit_test(the_host_can_be_replaced),
        cmocka_unit_test(the_port_can_be_replaced),
        cmocka_unit_test(localhost_never_meets_a_resolver),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
