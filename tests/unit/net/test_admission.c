/* admission.c - for every kind of message, port and role: exactly what the table below allows is admitted. */
#include "common/net/admission.h"

#include "tests/support/test.h"

enum { SLOT = 2, PROCESS = 7, KINDS = 64 };

static const char *judged_as(uint32_t role, uint32_t number, uint32_t port, const struct message *message, bool lockstep)
{
    struct identity who = {role, number};
    struct peer peer = {.port = port, .id = PROCESS};

    return admission_refusal(&who, &peer, message, lockstep);
}

/* A message as the true holder of such a key says it. */
static struct message honest(uint32_t kind, uint32_t role)
{
    struct message message = {.kind = kind};

    switch (kind) {
    case MESSAGE_HELLO:
        message.hello = (struct hello){.role = role, .process = PROCESS, .has_slot = role == ROLE_ACTOR, .slot = SLOT, .shard = SLOT};
        break;
    case MESSAGE_HEARTBEAT:
        message.heartbeat = (struct heartbeat){.role = role, .process = PROCESS, .slot = SLOT};
        break;
    case MESSAGE_LEAVE:
        message.leave = (struct leave){.role = role, .process = PROCESS, .slot = SLOT};
        break;
    case MESSAGE_NEXT_TASK:
        message.next_task = (struct next_task){.slot = SLOT, .process = PROCESS};
        break;
    case MESSAGE_EPISODE_END:
        message.episode_end.slot = SLOT;
        break;
    case MESSAGE_TURNED:
        message.turned.slot = SLOT;
        break;
    case MESSAGE_INGEST_HELLO:
        message.ingest_hello = (struct ingest_hello){.slot = SLOT, .process = PROCESS};
        break;
    case MESSAGE_ROWS:
        message.rows = (struct rows){.slot = SLOT, .process = PROCESS};
        break;
    default:
        break;
    }
    return message;
}

/* Written down here anew, from proto/README.md and SECURITY.md: whoever is not named is refused. */
static bool allowed(uint32_t role, uint32_t port, uint32_t kind, bool lockstep)
{
    bool member = role == ROLE_ACTOR || role == ROLE_EVALUATOR;

    if (port == PORT_SAMPLE)
        return role == ROLE_LEARNER;
    if (port == PORT_PARAMS)
        return member && kind == MESSAGE_PULL;
    if (port == PORT_INGEST)
        return role == ROLE_ACTOR && (kind == MESSAGE_INGEST_HELLO || kind == MESSAGE_ROWS || kind == MESSAGE_LEAVE);
    if (port != PORT_CONTROL)
        return false;
    switch (kind) {
    case MESSAGE_HELLO:
        return member || role == ROLE_SHARD;
    case MESSAGE_HEARTBEAT:
    case MESSAGE_LEAVE:
        return member;
    case MESSAGE_EPISODE_END:
    case MESSAGE_NEXT_TASK:
    case MESSAGE_TURNED:
        return role == ROLE_ACTOR;
    case MESSAGE_EVALUATED:
        return role == ROLE_EVALUATOR || (lockstep && role == ROLE_ACTOR);
    case MESSAGE_STOP:
        return role == ROLE_LEARNER;
    default:
        return false;
    }
}

static void nothing_else_is_admitted(void **state)
{
    int admitted = 0;

    (void)state;
    for (uint32_t role = ROLE_ACTOR; role <= ROLE_TOOL; role++)
        for (uint32_t port = 0; port <= PORT_ANNOUNCE + 1; port++)
            for (uint32_t kind = 0; kind < KINDS; kind++)
                for (int lockstep = 0; lockstep < 2; lockstep++) {
                    struct message message = honest(kind, role);
                    const char *why = judged_as(role, SLOT, port, &message, lockstep);

                    if ((why == NULL) != allowed(role, port, kind, lockstep))
                        fail_msg("%s (%u) of role %u on port %u, lockstep=%d: %s", message_name(kind), kind, role, port,
                                 lockstep, why != NULL ? why : "admitted");
                    admitted += why == NULL;
                }
    assert_true(admitted > 0);
}

/* Each thing an actor says, with another slot, process or role named than its key and connection have. */
static void an_actor_names_itself(void **state)
{
    static const struct {
        uint32_t port, kind;
        bool process; /* it names one */
    } said[] = {
        {PORT_CONTROL, MESSAGE_HELLO, true},        {PORT_CONTROL, MESSAGE_HEARTBEAT, true},
        {PORT_CONTROL, MESSAGE_LEAVE, true},        {PORT_CONTROL, MESSAGE_NEXT_TASK, true},
        {PORT_CONTROL, MESSAGE_EPISODE_END, false}, {PORT_CONTROL, MESSAGE_TURNED, false},
        {PORT_INGEST, MESSAGE_INGEST_HELLO, true},  {PORT_INGEST, MESSAGE_ROWS, true},
        {PORT_INGEST, MESSAGE_LEAVE, true},
    };

    (void)state;
    for (size_t i = 0; i < TD_LEN(said); i++) {
        struct message message = honest(said[i].kind, ROLE_ACTOR);
        struct peer other = {.port = said[i].port, .id = PROCESS + 1};
        struct identity who = {ROLE_ACTOR, SLOT};

        assert_null(judged_as(ROLE_ACTOR, SLOT, said[i].port, &message, false));
        assert_non_null(judged_as(ROLE_ACTOR, SLOT + 1, said[i].port, &message, false));
        assert_non_null(judged_as(ROLE_ACTOR, 0, said[i].port, &message, false));
        if (said[i].process)
            assert_non_null(admission_refusal(&who, &other, &message, false));
        for (uint32_t role = ROLE_EVALUATOR; role <= ROLE_TOOL; role++)
            assert_non_null(judged_as(role, SLOT, said[i].port, &message, false));
    }
}

/* A Hello alone may name no slot: with a key it must, or it would be granted another's. */
static void a_hello_with_a_key_names_its_slot(void **state)
{
    struct message hello = honest(MESSAGE_HELLO, ROLE_ACTOR);

    (void)state;
    hello.hello.has_slot = false;
    assert_non_null(strstr(judged_as(ROLE_ACTOR, SLOT, PORT_CONTROL, &hello, false), "does not name its slot"));
    hello.hello.slot = 0;
    assert_non_null(judged_as(ROLE_ACTOR, 0, PORT_CONTROL, &hello, false));
}

static void a_shard_names_its_number_and_process(void **state)
{
    struct message hello = honest(MESSAGE_HELLO, ROLE_SHARD);

    (void)state;
    assert_null(judged_as(ROLE_SHARD, SLOT, PORT_CONTROL, &hello, false));
    assert_non_null(judged_as(ROLE_SHARD, SLOT + 1, PORT_CONTROL, &hello, false));
    for (uint32_t role = ROLE_ACTOR; role <= ROLE_TOOL; role++)
        if (role != ROLE_SHARD)
            assert_non_null(judged_as(role, SLOT, PORT_CONTROL, &hello, false));
    hello.hello.process = PROCESS + 1;
    assert_non_null(judged_as(ROLE_SHARD, SLOT, PORT_CONTROL, &hello, false));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_else_is_admitted),
        cmocka_unit_test(an_actor_names_itself),
        cmocka_unit_test(a_hello_with_a_key_names_its_slot),
        cmocka_unit_test(a_shard_names_its_number_and_process),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
