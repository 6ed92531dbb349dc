/*
 * Learner and shard on one host, three actors on another, with keys: two network namespaces and a veth pair.
 * The link is cut, connections are reset: nothing acknowledged is lost, no process or stream gives up, all go
 * on within 20 s of healing, and nobody storms the learner meanwhile. Needs root; skipped, saying so, else.
 */
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include "common/util/clock.h"
#include "common/wire/message.h"
#include "tests/support/live.h"
#include "tests/support/tap.h"
#include "tests/support/test.h"

#define ACTORS     3
#define HEAL_MS    20000
#define SOCKETS    4   /* of an actor: control, ingest, parameters, announcements */
#define HELLOS_S   6   /* of an actor: two to the learner when that is silent, two to the shard, one for each Welcome */
#define TRIES_MORE 10  /* of a socket, before it waits as long as it will between attempts: 2 s */

static struct {
    char near[32], far[32]; /* namespaces: of the learner, of the actors */
    struct live live;
    pid_t learner, actors[ACTORS];
    char notes[500], keys_word[520], place[500];
    int home; /* the namespace the test began in */
    bool there;
} net;

/* --- the network ------------------------------------------------------------- */

static int run(const char *format, ...) __attribute__((format(printf, 1, 2)));
static int run(const char *format, ...)
{
    char command[1000];
    va_list list;
    int used;

    va_start(list, format);
    used = vsnprintf(command, sizeof(command), format, list);
    va_end(list);
    snprintf(command + used, sizeof(command) - (size_t)used, " >/dev/null 2>&1");
    return system(command);
}

/* What is started from now on is there; NULL: where the test began. */
static void enter(const char *name)
{
    char path[64];
    int fd = net.home;

    if (name != NULL) {
        snprintf(path, sizeof(path), "/run/netns/%s", name);
        fd = open(path, O_RDONLY | O_CLOEXEC);
    }
    assert_true(fd >= 0 && setns(fd, CLONE_NEWNET) == 0);
    if (name != NULL)
        close(fd);
}

static int tear_down(void **state)
{
    live_cleanup(state);
    if (net.there) {
        enter(NULL);
        run("ip netns del %s", net.near);
        run("ip netns del %s", net.far);
        close(net.home);
        net.there = false;
    }
    return 0;
}

static bool set_up(void)
{
    if (geteuid() != 0 || run("command -v ip") != 0) {
        print_message("skipped: namespaces of the network need root and iproute2\n");
        return false;
    }
    snprintf(net.near, sizeof(net.near), "tdn%d", (int)getpid());
    snprintf(net.far, sizeof(net.far), "tdf%d", (int)getpid());
    net.home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    assert_true(net.home >= 0);
    net.there = true;
    if (run("ip netns add %s && ip netns add %s", net.near, net.far) != 0 ||
        run("ip link add veth0 netns %s type veth peer name veth0 netns %s", net.near, net.far) != 0 ||
        run("ip -n %s addr add 10.213.7.1/24 dev veth0 && ip -n %s link set veth0 up", net.near, net.near) != 0 ||
        run("ip -n %s addr add 10.213.7.2/24 dev veth0 && ip -n %s link set veth0 up", net.far, net.far) != 0) {
        print_message("skipped: this kernel or container makes no network namespaces\n");
        return false;
    }
    run("ip -n %s link set lo up; ip -n %s link set lo up", net.near, net.far);
    return true;
}

/* The cable: pulled out at the learner's side (packets vanish) or at the actors' (they see no route). */
static void link_of(const char *name, bool up)
{
    assert_int_equal(run("ip -n %s link set veth0 %s", name, up ? "up" : "down"), 0);
}

/* Every connection dies with an error at once. False: this kernel cannot. */
static bool reset_all(void)
{
    return run("ip netns exec %s ss -K dst 10.213.7.2", net.near) == 0;
}

/* A counter of the actors' kernel: attempts to connect so far. */
static long attempts(void)
{
    char names[2000], values[2000], *name, *value, *in_names, *in_values;
    long found = -1;
    FILE *file;

    enter(net.far);
    file = fopen("/proc/thread-self/net/snmp", "r");
    assert_non_null(file);
    while (fgets(names, sizeof(names), file) != NULL && fgets(values, sizeof(values), file) != NULL) {
        if (strncmp(names, "Tcp:", 4) != 0)
            continue;
        name = strtok_r(names, " ", &in_names);
        value = strtok_r(values, " ", &in_values);
        for (; name != NULL && value != NULL; name = strtok_r(NULL, " ", &in_names), value = strtok_r(NULL, " ", &in_values))
            if (strcmp(name, "ActiveOpens") == 0)
                found = strtol(value, NULL, 10);
    }
    fclose(file);
    enter(NULL);
    assert_true(found >= 0);
    return found;
}

/* --- the run ------------------------------------------------------------------ */

static void start_learner(void)
{
    enter(net.near);
    net.learner = live_spawn("tdmpc2-learner", net.live.out, live_tiny, "task=toy", "seed_steps=200", "heartbeat=0.5",
                             "steps=100000000", "eval_freq=100000", "bind=tcp://10.213.7.1:7420", net.place,
                             net.keys_word, NULL);
    enter(NULL);
}

static void start(void)
{
    char text[4096], keys[500];
    int code;

    live_init(&net.live, "netns", false);
    snprintf(keys, sizeof(keys), "%s.keys", net.live.dir);
    snprintf(net.keys_word, sizeof(net.keys_word), "keys=%s", keys);
    snprintf(net.place, sizeof(net.place), "work_dir=%s", net.live.dir);
    snprintf(net.notes, sizeof(net.notes), "%s.notes", net.live.dir);
    code = live_run("tdmpc2", text, sizeof(text), 10000, "keys", keys, "actors=3", NULL);
    live_check(&net.live, code == 0, "tdmpc2 keys: %d %s", code, text);
    tap_start(net.notes);
    start_learner();
    enter(net.far);
    for (int i = 0; i < ACTORS; i++) {
        char slot[32];

        snprintf(slot, sizeof(slot), "actor=%d", i);
        net.actors[i] = live_spawn("tdmpc2-actor", net.live.out, NULL, "learner=tcp://10.213.7.1:7420", slot, net.place,
                                   net.keys_word, NULL);
    }
    enter(NULL);
    live_await(&net.live, "learner", 0, "updates", 250, LIVE_START_MS);
}

/* Every actor's rows come in again within 20 s, from the same process. How long it took. */
static uint64_t all_go_on(const char *after)
{
    uint64_t start = clock_ms();

    for (int i = 0; i < ACTORS; i++) {
        int left = (int)(start + HEAL_MS - clock_ms());

        live_rises(&net.live, "actor", i, "env_steps", 60, /* more than it may do unheard */
                   left > 0 ? left : 1);
        assert_int_equal(live_part(&net.live, "actor", i, 0), net.actors[i]);
    }
    live_rises(&net.live, "learner", 0, "updates", 20, HEAL_MS);
    print_message("  %s: all went on after %llu ms\n", after, (unsigned long long)(clock_ms() - start));
    return clock_ms() - start;
}

/* No more attempts than sockets, each with a wait that grows to 2 s between two. */
static void check_attempts(long before, uint64_t since, const char *what)
{
    long made = attempts() - before;
    long most = (long)(ACTORS * SOCKETS) * (TRIES_MORE + (long)((clock_ms() - since) / 1000));

    print_message("  %s: %ld attempts to connect in %llu ms, %ld would be too many\n", what, made,
                  (unsigned long long)(clock_ms() - since), most);
    live_check(&net.live, made <= most, "%s: %ld attempts to connect", what, made);
}

static void cut(const char *side, int ms, const char *what)
{
    uint64_t since = clock_ms();
    long before = attempts();

    link_of(side, false);
    live_sleep(ms);
    link_of(side, true);
    all_go_on(what);
    check_attempts(before, since, what);
}

static void reset(int times)
{
    uint64_t since = clock_ms();
    long before = attempts();

    for (int i = 0; i < times; i++) {
        if (!reset_all()) {
            print_message("  no resets: this kernel has no ss -K\n");
            return;
        }
        live_sleep(300);
    }
    all_go_on("resets");
    check_attempts(before, since, "resets");
}

/* Nobody answers at the learner's address for a while: every attempt is refused at once. */
static void away(int ms)
{
    uint64_t since = clock_ms();
    long before = attempts();

    kill(net.learner, SIGKILL);
    live_wait(net.learner, 5000);
    live_sleep(ms);
    start_learner();
    live_part(&net.live, "learner", 0, 0);
    all_go_on("the learner away");
    check_attempts(before, since, "the learner away");
}

/* Streams kept their epochs, rows are what was sent; there were no more Hellos than time explains. */
static void finish(uint64_t began)
{
    double seconds = (double)(clock_ms() - began) / 1000;
    uint64_t hellos, most = (uint64_t)(ACTORS * (seconds * HELLOS_S + 20));
    struct tap_result result;
    char store[500];
    struct tap tap;

    for (int i = 0; i < ACTORS; i++)
        kill(net.actors[i], SIGTERM);
    for (int i = 0; i < ACTORS; i++)
        live_check(&net.live, live_wait(net.actors[i], 15000) == 0, "actor %d does not end with 0", i);
    kill(net.learner, SIGTERM);
    live_check(&net.live, live_wait(net.learner, 15000) == 0, "the learner does not end with 0");
    live_no_orphans(&net.live, 1000);
    tap_start(NULL);
    snprintf(store, sizeof(store), "%s/replay", net.live.dir);
    tap_load(&tap, net.notes);
    result = tap_audit(&tap, store, 0);
    for (size_t i = 0; i < tap.count; i++)
        live_check(&net.live, tap.streams[i].epoch == 1, "stream %u.%u began epoch %llu", tap.streams[i].slot,
                   tap.streams[i].env, (unsigned long long)tap.streams[i].epoch);
    hellos = tap.said[MESSAGE_HELLO] + tap.said[MESSAGE_INGEST_HELLO];
    print_message("  %llu rows acknowledged, %llu resent, %llu Hellos of %d actors in %.0f s\n",
                  (unsigned long long)result.acked, (unsigned long long)tap.resent, (unsigned long long)hellos, ACTORS, seconds);
    live_check(&net.live, hellos <= most, "%llu Hellos in %.0f s", (unsigned long long)hellos, seconds);
    tap_release(&tap);
}

static void partitions_and_resets_lose_nothing(void **state)
{
    uint64_t began;

    (void)state;
    if (!set_up())
        skip();
    began = clock_ms();
    start();
    reset(4);
    cut(net.near, 2500, "2.5 s without packets");
    cut(net.far, 4000, "4 s without a route");
    cut(net.near, 12000, "12 s without packets"); /* connections are given up and made anew */
    away(4000);
    for (int round = 0; round < (test_long() ? 20 : 0); round++) {
        int ms = (int)rng_below(test_rng(), 20000);

        cut(rng_below(test_rng(), 2) ? net.near : net.far, ms, "a random cut");
        reset(1 + (int)rng_below(test_rng(), 5));
    }
    if (test_long())
        cut(net.near, 20000, "20 s without packets");
    finish(began);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(partitions_and_resets_lose_nothing, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
