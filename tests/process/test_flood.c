/*
 * An actor with an allowed key that does its worst, in a process of its own: what it costs another actor and
 * the daemons' memory.
 *
 * The other actor is honest and slow: a row every 10 ms, the next one only when the last is acknowledged, now
 * and then a word with the learner. What it gets answered in a window with the attack is compared with the
 * window before, without; the medians over some pairs must be within a fifth. Its own pace, a hundredth of what
 * a shard can take, is what bounds it, so a busy machine slows both windows alike, and the attacker is nice.
 */
#include <math.h>
#include <netinet/in.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "tests/support/keyed.h"
#include "tests/support/messages.h"

#define PACE_MS   10
#define WINDOW_MS 350
#define PAIRS     3
#define TRIES     3
#define COST_MAX  0.2
#define ATTACK_SLOT 3

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MEMORY_MAX (1024.0 * (1 << 20)) /* what is freed is kept for a while */
#else
#define MEMORY_MAX (64.0 * (1 << 20))
#endif

/* --- the honest one ------------------------------------------------------------- */

struct honest {
    struct line ingest, control;
    uint64_t store, epoch, next;
    char row[256];
    uint32_t stride;
    unsigned turn;
};

static const struct row_schema schema = {OBS_STATE, 4, 2};

/* The stream's epoch and where it goes on. */
static void join(struct scene *scene, struct honest *honest)
{
    struct message hello = ingest_hello_of(scene, 1, honest->ingest.id);
    const struct ingest_welcome *welcome = &scene->answer->ingest_welcome;
    uint64_t end = clock_ms() + ANSWER_MS;
    bool heard = false;

    while (!heard && clock_ms() < end) {
        say(&honest->ingest, &hello);
        heard = hear(&honest->ingest, MESSAGE_INGEST_WELCOME, scene->answer, 500);
    }
    live_check(&scene->live, heard && welcome->count == 1, "the shard does not answer the honest actor");
    honest->store = welcome->store;
    honest->epoch = welcome->streams[0].epoch;
    honest->next = welcome->streams[0].next;
}

static void open_honest(struct scene *scene, struct honest *honest)
{
    struct intruder who = with_key(scene, &scene->actor_keys[1], INGEST);

    memset(honest, 0, sizeof(*honest));
    honest->stride = (uint32_t)row_stride(&schema);
    honest->ingest = knock(scene, INGEST, &who);
    who = with_key(scene, &scene->actor_keys[1], CONTROL);
    honest->control = knock(scene, CONTROL, &who);
    join(scene, honest);
}

static void send_row(struct scene *scene, struct honest *honest)
{
    struct message message = {.kind = MESSAGE_ROWS, .run = scene->run, .bulks = 1};
    struct row_head head = {.flags = honest->next % 50 == 0 ? ROW_FIRST : honest->next % 50 == 49 ? ROW_TRUNCATED : 0};

    memset(honest->row, 0, sizeof(honest->row));
    memcpy(honest->row, &head, sizeof(head));
    message.rows = (struct rows){1, 0, honest->ingest.id, honest->store, honest->epoch, honest->next, 1, honest->stride};
    message.bulk[0] = (struct bulk){honest->row, honest->stride};
    say(&honest->ingest, &message);
}

/* One row stored, and every fourth time an answer of the learner. False: not within its patience. */
static bool one_turn(struct scene *scene, struct honest *honest, uint64_t end)
{
    const struct ack *ack = &scene->answer->ack;
    struct message hello;

    send_row(scene, honest);
    do {
        if (!hear(&honest->ingest, MESSAGE_ACK, scene->answer, 200)) {
            if (clock_ms() >= end)
                return false;
            send_row(scene, honest); /* as our actors do after a silence */
        }
    } while (ack->slot != 1 || ack->next <= honest->next);
    honest->next++;
    if (honest->turn++ % 4 != 0)
        return true;
    hello = hello_of(scene, &honest->control, 1);
    say(&honest->control, &hello);
    while (!hear(&honest->control, MESSAGE_WELCOME, scene->answer, 200)) {
        if (clock_ms() >= end)
            return false;
        say(&honest->control, &hello);
    }
    return true;
}

/* Turns a second, over a window. */
static double rate(struct scene *scene, struct honest *honest)
{
    uint64_t begin = clock_ms(), end = begin + WINDOW_MS, due = begin;
    int turns = 0;

    while (clock_ms() < end) {
        turns += one_turn(scene, honest, end);
        due += PACE_MS; /* what was late is caught up with: rows do not wait for each other in our actors either */
        if (due > clock_ms())
            live_sleep((int)(due - clock_ms()));
    }
    return turns * 1000.0 / (double)(clock_ms() - begin);
}

/* --- the attacks ------------------------------------------------------------------- */

static char junk[1 << 20];
static uint32_t slot;        /* each attack has a slot and a key of its own: what is done to one is not done to the next */
static struct key_pair key;
static bool steady; /* the rate that a key is granted (meter.h): nobody cuts who keeps to it */

/* As fast as it goes, or some 4,000 messages a second. */
static void tell(struct line *line, const struct message *message)
{
    say(line, message);
    if (steady)
        usleep(170);
}

static struct line attacker(const struct scene *scene, enum door door)
{
    struct intruder who = with_key(scene, &key, door);

    who.id = rng_u64(test_rng()) ^ (uint64_t)getpid() << 20; /* a child has its parent's numbers, and a name is taken by its first key */
    return knock(scene, door, &who);
}

/* A stream of its own, as any actor gets it. */
static void be_granted(struct scene *scene, struct line *line)
{
    struct message hello = ingest_hello_of(scene, slot, line->id);

    do
        say(line, &hello);
    while (!hear(line, MESSAGE_INGEST_WELCOME, scene->answer, 300));
}

/* One message of 192 MB in frames of 64 KB, at both doors: no frame, and no number of messages, is too large. */
static void endless_messages(struct scene *scene)
{
    struct line lines[2] = {attacker(scene, INGEST), attacker(scene, CONTROL)};

    for (;;)
        for (int i = 0; i < 2; i++)
            for (int frame = 0; frame < 3072; frame++)
                zmq_send(lines[i].socket, junk, 65536, frame + 1 < 3072 ? ZMQ_SNDMORE : 0);
}

static void frames_too_large(struct scene *scene)
{
    struct line lines[3] = {attacker(scene, INGEST), attacker(scene, CONTROL), attacker(scene, PARAMS)};

    for (;;)
        for (int i = 0; i < 3; i++)
            zmq_send(lines[i].socket, junk, i == 1 ? sizeof(junk) : 262144, 0);
}

/* Whole chunks of rows that are not numbers, in its own stream. */
static void rows_of_nan(struct scene *scene)
{
    struct line line = attacker(scene, INGEST);
    struct message message = {.kind = MESSAGE_ROWS, .run = scene->run, .bulks = 1};
    uint32_t stride = (uint32_t)row_stride(&schema), count = (steady ? 7000 : 200000) / stride;

    be_granted(scene, &line);
    memset(junk, 0xff, sizeof(junk));
    message.rows = (struct rows){slot, 0, line.id, scene->answer->ingest_welcome.store,
                                 scene->answer->ingest_welcome.streams[0].epoch, 0, count, stride};
    message.bulk[0] = (struct bulk){junk, (size_t)count * stride};
    for (;;)
        tell(&line, &message);
}

static void forged_names(struct scene *scene)
{
    struct line line = attacker(scene, INGEST), control = attacker(scene, CONTROL);
    struct message message;

    for (unsigned i = 0;; i++) {
        message = ingest_hello_of(scene, i % 2, rng_u64(test_rng()) | 1);
        message.run = i % 3 == 0 ? rng_u64(test_rng()) : scene->run;
        tell(&line, &message);
        message = hello_of(scene, &control, i % 2);
        message.run = i % 3 == 0 ? rng_u64(test_rng()) : scene->run;
        tell(&control, &message);
    }
}

/* Each of these is a new epoch, and a commit. */
static void new_epochs(struct scene *scene)
{
    struct line line = attacker(scene, INGEST);
    struct message message = ingest_hello_of(scene, slot, line.id);

    be_granted(scene, &line);
    message.ingest_hello.count = WIRE_STREAMS_MAX;
    for (uint64_t epoch = scene->answer->ingest_welcome.streams[0].epoch;; epoch++) {
        for (uint32_t i = 0; i < WIRE_STREAMS_MAX; i++)
            message.ingest_hello.streams[i] =
                (struct stream_shown){i, scene->answer->ingest_welcome.store, epoch, true};
        tell(&line, &message);
    }
}

/* Each is answered with a Welcome, and costs nothing else; and the answers are never read. */
static void ingest_hellos(struct scene *scene)
{
    struct line line = attacker(scene, INGEST);
    struct message message = ingest_hello_of(scene, slot, line.id);

    message.ingest_hello.count = WIRE_STREAMS_MAX;
    for (uint32_t i = 0; i < WIRE_STREAMS_MAX; i++)
        message.ingest_hello.streams[i] = (struct stream_shown){.environment = i};
    for (;;)
        tell(&line, &message);
}

static void hellos(struct scene *scene)
{
    struct line line = attacker(scene, CONTROL);
    struct message message = hello_of(scene, &line, slot);

    for (;;)
        tell(&line, &message); /* and never reads the answers */
}

static void pulls_without_reading(struct scene *scene)
{
    struct line lines[2] = {attacker(scene, PARAMS), attacker(scene, PARAMS)};
    struct message message = {.kind = MESSAGE_PULL, .run = scene->run};

    message.pull = (struct pull){scene->answer->welcome.newest.epoch, scene->answer->welcome.newest.version, 0};
    for (unsigned i = 0;; i++)
        tell(&lines[i % 2], &message);
}

static void every_kind(struct scene *scene)
{
    struct line lines[3] = {attacker(scene, INGEST), attacker(scene, CONTROL), attacker(scene, PARAMS)};
    static struct message message;

    for (unsigned i = 0;; i++) {
        messages_random(test_rng(), messages_kind((int)(i % (unsigned)messages_kinds())), &message);
        message.run = scene->run;
        if (message.kind == MESSAGE_ROWS)
            message.rows.slot = slot;
        tell(&lines[i % 3], &message);
    }
}

/* Some hundred connections that greet a byte at a time. */
static void slow_loris(struct scene *scene)
{
    static int fds[300];

    for (unsigned round = 0;; round++) {
        for (int i = 0; i < 300; i++) {
            const char *door = scene->doors[i % 2 == 0 ? INGEST : CONTROL];
            struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

            if (fds[i] > 0 && send(fds[i], "\xff", 1, MSG_NOSIGNAL) == 1)
                continue;
            if (fds[i] > 0)
                close(fds[i]);
            to.sin_port = htons((uint16_t)strtoul(strrchr(door, ':') + 1, NULL, 10));
            fds[i] = socket(AF_INET, SOCK_STREAM, 0);
            if (connect(fds[i], (struct sockaddr *)&to, sizeof(to)) != 0) {
                close(fds[i]);
                fds[i] = 0;
            }
        }
        live_sleep(20);
    }
}

/* Without a key: connections that say something odd and go, as many as can be made. */
static void strangers_come_and_go(struct scene *scene)
{
    for (unsigned i = 0;; i++) {
        const char *door = scene->doors[i % 2 == 0 ? INGEST : CONTROL];
        struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        struct linger now = {1, 0};

        to.sin_port = htons((uint16_t)strtoul(strrchr(door, ':') + 1, NULL, 10));
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)); /* no port is left waiting */
        connect(fd, (struct sockaddr *)&to, sizeof(to));
        send(fd, junk + i % 4096, 64 + i % 64, MSG_NOSIGNAL);
        close(fd);
    }
}

/* The costliest that a key which is not on the list can ask for: whole handshakes, one after the other. */
static void handshakes_of_a_stranger(struct scene *scene)
{
    struct key_pair own;
    struct error err;

    if (keys_make(&own, &err) != TD_OK)
        return;
    for (unsigned i = 0;; i++) {
        struct line lines[16];
        struct intruder who = with_key(scene, &own, i % 2 == 0 ? INGEST : CONTROL);

        for (int k = 0; k < 16; k++)
            lines[k] = knock(scene, i % 2 == 0 ? INGEST : CONTROL, &who);
        live_sleep(5);
        for (int k = 0; k < 16; k++)
            close_line(&lines[k]);
    }
}

/* The viewer's key: each question is a text of some 10 KB to be made. It reads none. */
static void questions_without_end(struct scene *scene)
{
    struct intruder who = with_key(scene, &scene->viewer_key, STATS);
    struct line line;

    who.id = (uint64_t)getpid();
    line = open_line(ZMQ_DEALER, scene->doors[STATS], &who);
    for (;;) {
        zmq_send(line.socket, "", 0, ZMQ_SNDMORE);
        zmq_send(line.socket, "?", 1, 0);
        if (steady)
            usleep(170);
    }
}

static void topics_without_end(struct scene *scene)
{
    struct line line = attacker(scene, ANNOUNCE);

    for (uint64_t i = 0;; i++) {
        memcpy(junk, &i, sizeof(i));
        zmq_setsockopt(line.socket, ZMQ_SUBSCRIBE, junk, 8192);
        if (i % 64 == 0)
            live_sleep(1);
    }
}

static const struct {
    const char *name;
    void (*run)(struct scene *scene);
    int warm_ms; /* until it has begun, if that takes longer */
    bool steady;
} attacks[] = {
    {"endless messages", endless_messages, 1500, false}, {"frames too large", frames_too_large, 0, false}, {"rows of NaN", rows_of_nan, 0, false},
    {"forged names", forged_names, 0, false}, {"new epochs", new_epochs, 0, false}, {"ingest hellos", ingest_hellos, 0, false}, {"hellos", hellos, 0, false},
    {"pulls without reading", pulls_without_reading, 0, false}, {"every kind", every_kind, 0, false}, {"slow loris", slow_loris, 0, false},
    {"strangers come and go", strangers_come_and_go, 0, false}, {"a stranger's handshakes", handshakes_of_a_stranger, 0, false},
    {"questions", questions_without_end, 0, false}, {"questions within", questions_without_end, 0, true},
    {"topics without end", topics_without_end, 0, false},
    {"epochs within its rate", new_epochs, 0, true}, {"hellos within its rate", hellos, 0, true},
    {"ingest hellos within", ingest_hellos, 0, true}, {"pulls within its rate", pulls_without_reading, 0, true},
    {"NaN within its rate", rows_of_nan, 0, true},
};

static pid_t begin_attack(struct scene *scene, size_t which)
{
    pid_t child;

    fflush(stdout);
    child = fork();
    if (child != 0)
        return child;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (nice(19) == -1)
        _exit(1);
    context = zmq_ctx_new();
    steady = attacks[which].steady;
    attacks[which].run(scene);
    _exit(0);
}

static void end_attack(pid_t child)
{
    int status = 0;

    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status)); /* it was at it all the while */
}

/* --- what it costs -------------------------------------------------------------------- */

/* A process's own memory now: bytes. */
static double memory_of(pid_t pid)
{
    char path[64], line[256];
    double kilobytes = NAN;
    FILE *in;

    snprintf(path, sizeof(path), "/proc/%ld/status", (long)pid);
    in = fopen(path, "r");
    while (in != NULL && fgets(line, sizeof(line), in) != NULL)
        if (strncmp(line, "RssAnon:", 8) == 0)
            kilobytes = strtod(line + 8, NULL);
    if (in != NULL)
        fclose(in);
    return kilobytes * 1024;
}

static double median(double *values, int count)
{
    for (int i = 1; i < count; i++)
        for (int j = i; j > 0 && values[j - 1] > values[j]; j--) {
            double swap = values[j];

            values[j] = values[j - 1];
            values[j - 1] = swap;
        }
    return values[count / 2];
}

struct watch {
    pid_t pids[2];
    double before[2], most[2];
};

static void look(struct watch *watch)
{
    for (int i = 0; i < 2; i++)
        watch->most[i] = fmax(watch->most[i], memory_of(watch->pids[i]) - watch->before[i]);
}

/*
 * The part of its rate that the attack costs the honest one, the median over some pairs of windows. Once most of
 * the pairs are within the bound it is kept, and the rest cannot change that: returns 0.
 */
static double cost_of(struct scene *scene, struct honest *honest, struct watch *watch, size_t which)
{
    double quiet[PAIRS], attacked[PAIRS];
    int pairs = 0, within = 0;

    while (pairs < PAIRS && within < (PAIRS + 1) / 2) {
        pid_t child;
        int pair = pairs++;

        quiet[pair] = rate(scene, honest);
        child = begin_attack(scene, which);
        for (int ms = 0; ms < 150 + attacks[which].warm_ms; ms += 50) { /* its handshake, and the first of it */
            live_sleep(50);
            look(watch);
        }
        attacked[pair] = rate(scene, honest);
        look(watch);
        end_attack(child);
        within += attacked[pair] >= quiet[pair] * (1 - COST_MAX);
    }
    printf("  %-22s %5.1f turns/s, attacked %5.1f; learner %+5.1f MiB, shard %+5.1f MiB\n", attacks[which].name,
           median(quiet, pairs), median(attacked, pairs), watch->most[0] / (1 << 20), watch->most[1] / (1 << 20));
    live_check(&scene->live, median(quiet, pairs) > 10, "the honest actor does not get on by itself");
    return within >= (PAIRS + 1) / 2 ? 0 : 1 - median(attacked, pairs) / median(quiet, pairs);
}

/* Measured again when something else may have kept the machine busy: a missing cap shows every time. */
static void one_attack(struct scene *scene, struct honest *honest, struct watch *watch, size_t which)
{
    double cost = 1;

    slot = ATTACK_SLOT + (uint32_t)which;
    load_key(scene, &key, ROLE_ACTOR, slot);
    for (int tries = 0; tries < TRIES && cost > COST_MAX; tries++)
        cost = cost_of(scene, honest, watch, which);
    live_check(&scene->live, cost <= COST_MAX, "%s cost the honest actor %.0f %% of its rate", attacks[which].name,
               100 * cost);
    for (int i = 0; i < 2; i++)
        live_check(&scene->live, watch->most[i] <= MEMORY_MAX, "%s: the %s took %.0f MiB more", attacks[which].name,
                   i == 0 ? "learner" : "shard", watch->most[i] / (1 << 20));
}

/* A run whose actor has been there and gone: there is a model, and nothing to do but what the test asks. */
static void begin(struct scene *scene)
{
    struct intruder who;
    struct message hello;
    struct rundir_part part;
    struct line line;

    prepare(scene, "flood");
    scene->extra = "slack=1000000";
    run_keys(scene, "actors=32");
    start_learner(scene);
    scene->actor = start_actor(scene, scene->doors[CONTROL], "actor=0");
    address_of(scene, "replay.log", "tcp=", scene->doors[INGEST]);
    live_await(&scene->live, "learner", 0, "updates", 220, LIVE_START_MS);
    assert_true(live_find(&scene->live, "actor", 0, &part));
    scene->run = part.run_id;
    kill(scene->actor, SIGTERM);
    live_check(&scene->live, live_wait(scene->actor, 15000) == 0, "the actor does not end with 0");
    who = with_key(scene, &scene->actor_keys[2], CONTROL);
    line = knock(scene, CONTROL, &who);
    hello = hello_of(scene, &line, 2);
    say(&line, &hello);
    live_check(&scene->live, hear(&line, MESSAGE_WELCOME, scene->answer, ANSWER_MS), "no Welcome");
    snprintf(scene->doors[PARAMS], 256, "%s", scene->answer->welcome.params);
    snprintf(scene->doors[ANNOUNCE], 256, "%s", scene->answer->welcome.announce);
    close_line(&line);
}

static void a_hostile_actor_costs_others_little(void **state)
{
    const char *only = getenv("TD_FLOOD"); /* one of them, by a part of its name */
    struct honest honest;
    struct scene scene;
    struct watch watch = {0};

    (void)state;
    begin(&scene);
    open_honest(&scene, &honest);
    rate(&scene, &honest);
    watch.pids[0] = scene.learner;
    watch.pids[1] = live_part(&scene.live, "replay", 0, 0);
    for (int i = 0; i < 2; i++)
        watch.before[i] = memory_of(watch.pids[i]);
    for (size_t i = 0; i < TD_LEN(attacks); i++)
        if (only == NULL || strstr(attacks[i].name, only) != NULL)
            one_attack(&scene, &honest, &watch, i);
    close_line(&honest.ingest);
    close_line(&honest.control);
    live_check(&scene.live, live_part(&scene.live, "replay", 0, 0) == watch.pids[1], "the shard was replaced");
    live_check(&scene.live, live_count(&scene.live, "replay.log", "another key holds") == 0, "attacks on the shard were not heard");
    live_check(&scene.live, live_count(&scene.live, "../flood.out", "another key holds") == 0, "attacks on the learner were not heard");
    kill(scene.learner, SIGTERM);
    live_check(&scene.live, live_wait(scene.learner, 20000) == 0, "the learner does not end with 0");
    live_no_orphans(&scene.live, 2000);
    free(scene.answer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(a_hostile_actor_costs_others_little, live_cleanup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
