#include "common/net/guard.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <zmq.h>

#include "common/net/channel.h"
#include "common/util/clock.h"
#include "common/util/log.h"
#include "common/wire/message.h"

#define HANDLER   "inproc://zeromq.zap.01"
#define WATCH_MS  100  /* between two looks at the list; 250 ms are promised: the rest is for a loop held up by a sync */
#define FRAMES    7    /* of a CURVE request: version, request, domain, address, identity, mechanism, key */
#define GUARD_EXCLUDED 64 /* keys kept out at a time; more than will flood at once */
#define REPLY     6    /* version, request, status, text, user id, metadata */

enum { VERSION, REQUEST, DOMAIN, ADDRESS, OWN_IDENTITY, MECHANISM, CREDENTIALS };

/* A routing id and the key that holds it. */
struct holding {
    uint64_t id;
    uint64_t used; /* a count that only grows */
    char public_key[KEY_TEXT_MAX];
};

/* A key that is kept out for a while. */
struct excluded {
    char public_key[KEY_TEXT_MAX];
    uint64_t until_ms;
};

/* A key that shook hands of late, and how often that came to nothing but a flood. */
struct suspect {
    char public_key[KEY_TEXT_MAX];
    uint64_t admitted_ms, struck_ms;
    int owed, strikes;
};

struct guard {
    loop_t *loop;
    char dir[FS_PATH_MAX], list[FS_PATH_MAX];
    struct key_pair self;
    struct allowed_keys allowed;
    struct stat seen;   /* of the list that was read */
    bool readable;
    unsigned removals;
    loop_timer_t *watch;
    channel_t *handler;
    struct holding *holdings;
    int held, room;
    uint64_t uses;
    struct excluded excluded[GUARD_EXCLUDED];
    struct suspect suspects[GUARD_EXCLUDED];
    struct log_limit log_refused;
};

/* --- the list ------------------------------------------------------------------ */

static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_dev == b->st_dev && a->st_size == b->st_size &&
           a->st_mode == b->st_mode && a->st_uid == b->st_uid && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
           a->st_mtim.tv_nsec == b->st_mtim.tv_nsec && a->st_ctim.tv_sec == b->st_ctim.tv_sec &&
           a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

static void forget_unlisted(guard_t *guard)
{
    int kept = 0;

    for (int i = 0; i < guard->held; i++)
        if (allowed_by_key(&guard->allowed, guard->holdings[i].public_key) != NULL)
            guard->holdings[kept++] = guard->holdings[i];
    guard->held = kept;
}

/* Has a key of the old list lost its name? */
static bool any_removed(const struct allowed_keys *old, const struct allowed_keys *now)
{
    for (int i = 0; i < old->count; i++) {
        const struct allowed_key *key = allowed_by_key(now, old->entries[i].public_key);

        if (key == NULL || !identity_same(&key->who, &old->entries[i].who))
            return true;
    }
    return false;
}

/* Read the list; what cannot be read admits nobody. */
static int read_list(guard_t *guard, struct error *err)
{
    struct allowed_keys old = guard->allowed;
    struct stat info;
    int rc;

    memset(&guard->seen, 0, sizeof(guard->seen));
    if (stat(guard->list, &info) == 0)
        guard->seen = info;
    rc = allowed_load(&guard->allowed, guard->dir, err);
    guard->readable = rc == TD_OK;
    guard->removals += any_removed(&old, &guard->allowed);
    forget_unlisted(guard);
    allowed_release(&old);
    return rc;
}

static void look(void *context)
{
    guard_t *guard = context;
    struct error err = {0};
    struct stat info;

    if (stat(guard->list, &info) != 0)
        memset(&info, 0, sizeof(info));
    if (same_file(&info, &guard->seen))
        return;
    if (read_list(guard, &err) == TD_OK)
        log_info("the list of allowed keys was read again", "keys=%d", guard->allowed.count);
    else
        log_error("the list of allowed keys cannot be read: nobody is let in until it can", "why=\"%s\"", err.text);
}

const char *guard_key_of(const guard_t *guard, const struct identity *who)
{
    const struct allowed_key *key = allowed_by_name(&guard->allowed, who);

    return key == NULL ? NULL : key->public_key;
}

bool guard_who(const guard_t *guard, const char *public_key, struct identity *who)
{
    const struct allowed_key *key = allowed_by_key(&guard->allowed, public_key);

    if (key != NULL)
        *who = key->who;
    return key != NULL;
}

unsigned guard_removals(const guard_t *guard)
{
    return guard->removals;
}

bool guard_may_enter(uint32_t role, const char *domain)
{
    static const struct {
        const char *domain;
        uint32_t roles;
    } doors[] = {
        {"control", 1u << ROLE_ACTOR | 1u << ROLE_EVALUATOR | 1u << ROLE_SHARD | 1u << ROLE_LEARNER},
        {"params", 1u << ROLE_ACTOR | 1u << ROLE_EVALUATOR},
        {"announce", 1u << ROLE_ACTOR | 1u << ROLE_EVALUATOR},
        {"ingest", 1u << ROLE_ACTOR},
        {"sample", 1u << ROLE_LEARNER},
        {"stats", 1u << ROLE_TOOL | 1u << ROLE_LEARNER},
    };

    for (size_t i = 0; i < TD_LEN(doors); i++)
        if (strcmp(doors[i].domain, domain) == 0)
            return role < 32 && (doors[i].roles >> role & 1u) != 0;
    return false;
}

void guard_exclude(guard_t *guard, const char *public_key, uint64_t ms)
{
    struct excluded *place = &guard->excluded[0];

    for (int i = 0; i < GUARD_EXCLUDED; i++) {
        if (strcmp(guard->excluded[i].public_key, public_key) == 0) {
            place = &guard->excluded[i];
            break;
        }
        if (guard->excluded[i].until_ms < place->until_ms)
            place = &guard->excluded[i];
    }
    snprintf(place->public_key, sizeof(place->public_key), "%s", public_key);
    place->until_ms = clock_ms() + ms;
}

static bool is_excluded(const guard_t *guard, const char *public_key)
{
    uint64_t now = clock_ms();

    for (int i = 0; i < GUARD_EXCLUDED; i++)
        if (now < guard->excluded[i].until_ms && strcmp(guard->excluded[i].public_key, public_key) == 0)
            return true;
    return false;
}

/* Its place, or that of the key that shook hands longest ago. */
static struct suspect *suspect_of(guard_t *guard, const char *public_key)
{
    struct suspect *oldest = &guard->suspects[0];

    for (int i = 0; i < GUARD_EXCLUDED; i++) {
        struct suspect *one = &guard->suspects[i];

        if (strcmp(one->public_key, public_key) == 0)
            return one;
        if (one->admitted_ms < oldest->admitted_ms)
            oldest = one;
    }
    memset(oldest, 0, sizeof(*oldest));
    snprintf(oldest->public_key, sizeof(oldest->public_key), "%s", public_key);
    return oldest;
}

static void note_admitted(guard_t *guard, const char *public_key)
{
    struct suspect *one = suspect_of(guard, public_key);

    one->admitted_ms = clock_ms();
    one->owed++;
}

void guard_heard(guard_t *guard, const char *public_key)
{
    struct suspect *one = suspect_of(guard, public_key);

    one->owed -= one->owed > 0;
}

void guard_suspect(guard_t *guard, uint64_t ms)
{
    uint64_t now = clock_ms();

    for (int i = 0; i < GUARD_EXCLUDED; i++) {
        struct suspect *one = &guard->suspects[i];

        if (one->owed == 0 || now > one->admitted_ms + GUARD_SUSPECT_MS)
            continue;
        if (now > one->struck_ms + GUARD_SUSPECT_MS)
            one->strikes = 0;
        one->struck_ms = now;
        one->owed = 0;
        if (++one->strikes > 1)
            guard_exclude(guard, one->public_key, ms);
    }
}

/* --- routing ids ---------------------------------------------------------------- */

static struct holding *find_holding(const guard_t *guard, uint64_t id)
{
    for (int i = 0; i < guard->held; i++)
        if (guard->holdings[i].id == id)
            return &guard->holdings[i];
    return NULL;
}

/* A new place, or that of the key's own oldest one. NULL: out of memory. */
static struct holding *make_holding(guard_t *guard, const char *public_key)
{
    struct holding *oldest = NULL, *grown;
    int own = 0;

    for (int i = 0; i < guard->held; i++)
        if (strcmp(guard->holdings[i].public_key, public_key) == 0) {
            own++;
            if (oldest == NULL || guard->holdings[i].used < oldest->used)
                oldest = &guard->holdings[i];
        }
    if (own >= GUARD_HOLDINGS)
        return oldest;
    if (guard->held == guard->room) {
        grown = realloc(guard->holdings, (size_t)(2 * guard->room + 16) * sizeof(*grown));
        if (grown == NULL)
            return NULL;
        guard->holdings = grown;
        guard->room = 2 * guard->room + 16;
    }
    return &guard->holdings[guard->held++];
}

bool guard_claim(guard_t *guard, const char *public_key, uint64_t id)
{
    struct holding *holding = find_holding(guard, id);

    if (holding == NULL) {
        holding = make_holding(guard, public_key);
        if (holding == NULL)
            return false;
        holding->id = id;
        memcpy(holding->public_key, public_key, KEY_TEXT_MAX);
    }
    holding->used = ++guard->uses;
    return strcmp(holding->public_key, public_key) == 0;
}

bool guard_holds(const guard_t *guard, uint64_t id)
{
    const struct holding *holding = find_holding(guard, id);

    return holding != NULL && allowed_by_key(&guard->allowed, holding->public_key) != NULL;
}

/* --- the handler ------------------------------------------------------------------ */

static bool is_text(const struct channel_frame *frame, const char *text)
{
    return frame->length == strlen(text) && memcmp(frame->bytes, text, frame->length) == 0;
}

/* May this handshake go on? Fills the key as text if there is one. */
static bool admits(guard_t *guard, const struct channel_frame *frames, int count, char key[KEY_TEXT_MAX],
                   struct identity *who)
{
    char domain[16] = "";

    if (count != FRAMES || !is_text(&frames[VERSION], "1.0") || !is_text(&frames[MECHANISM], "CURVE") ||
        frames[CREDENTIALS].length != KEY_BYTES || frames[DOMAIN].length >= sizeof(domain) ||
        zmq_z85_encode(key, frames[CREDENTIALS].bytes, KEY_BYTES) == NULL)
        return false;
    memcpy(domain, frames[DOMAIN].bytes, frames[DOMAIN].length);
    look(guard);
    return guard_who(guard, key, who) && guard_may_enter(who->role, domain) && !is_excluded(guard, key);
}

/*
 * The answer: 200, with the key as the name that every message will carry; or 300, "not now": the connection
 * is cut at the handshake's deadline and the peer's ZeroMQ tries again, so a key put on the list later comes
 * in without a restart. (After a 400 libzmq 4.3.4 never would.)
 */
static void on_handshake(void *context, uint64_t peer, const struct channel_frame *frames, int count)
{
    guard_t *guard = context;
    char key[KEY_TEXT_MAX] = "", name[IDENTITY_NAME_MAX];
    struct identity who = {0};
    bool good = admits(guard, frames, count, key, &who);
    struct channel_part reply[REPLY] = {
        {.bytes = "1.0", .length = 3},
        {.bytes = count > REQUEST ? frames[REQUEST].bytes : "", .length = count > REQUEST ? frames[REQUEST].length : 0},
        {.bytes = good ? "200" : "300", .length = 3},
        {.bytes = "", .length = 0},
        {.bytes = key, .length = good ? strlen(key) : 0},
        {.bytes = "", .length = 0},
    };

    (void)peer;
    channel_send(guard->handler, 0, reply, REPLY);
    if (good) {
        if (!is_text(&frames[DOMAIN], "announce")) /* where one only listens */
            note_admitted(guard, key);
        return;
    }
    if (log_allow(&guard->log_refused, 5000))
        log_warn("a key was not let in", "who=%s key=\"%s\" at=%.*s from=%.*s repeats=%u",
                 who.role == 0 ? "unknown" : identity_name(name, &who), key,
                 count > DOMAIN ? (int)frames[DOMAIN].length : 0, count > DOMAIN ? (const char *)frames[DOMAIN].bytes : "",
                 count > ADDRESS ? (int)frames[ADDRESS].length : 0,
                 count > ADDRESS ? (const char *)frames[ADDRESS].bytes : "", guard->log_refused.suppressed_last);
}

int guard_serve(guard_t *guard, struct error *err)
{
    struct channel_options options = {
        .name = "zap",
        .pattern = CHANNEL_REP,
        .max_message = 4096,
        .on_message = on_handshake,
        .context = guard,
    };
    int rc;

    if (guard->handler != NULL)
        return TD_OK;
    if ((rc = channel_open(&guard->handler, guard->loop, &options, err)) != TD_OK ||
        (rc = channel_bind_inside(guard->handler, HANDLER, err)) != TD_OK)
        channel_close(&guard->handler);
    return rc;
}

/* --- life --------------------------------------------------------------------------- */

const struct key_pair *guard_self(const guard_t *guard)
{
    return &guard->self;
}

static int load(guard_t *guard, const char *dir, const struct identity *self, struct error *err)
{
    const struct allowed_key *listed;
    char name[IDENTITY_NAME_MAX];
    int rc;

    if (strlen(dir) >= sizeof(guard->dir))
        return error_set(err, TD_EINVAL, "keys=%.60s...: too long a path", dir);
    strcpy(guard->dir, dir);
    if ((rc = fs_join(guard->list, dir, "allowed", err)) != TD_OK ||
        (rc = keys_load(&guard->self, dir, self, err)) != TD_OK)
        return rc;
    if ((rc = read_list(guard, err)) != TD_OK)
        return rc;
    listed = allowed_by_key(&guard->allowed, guard->self.public_key);
    if (listed != NULL && identity_same(&listed->who, self))
        return TD_OK;
    return error_set(err, TD_EINVAL, "%s does not list the key of %s that lies beside it: it was revoked, or one of the "
                     "two files is old", guard->list, identity_name(name, self));
}

int guard_open(guard_t **out, loop_t *loop, const char *dir, const struct identity *self, struct error *err)
{
    guard_t *guard = calloc(1, sizeof(*guard));
    int rc;

    *out = NULL;
    if (guard == NULL)
        return error_set(err, TD_ENOMEM, "out of memory for keys");
    guard->loop = loop;
    rc = load(guard, dir, self, err);
    if (rc == TD_OK && loop != NULL && (rc = loop_timer_start(&guard->watch, loop, WATCH_MS, WATCH_MS, look, guard)) != TD_OK)
        error_set(err, rc, "out of memory for keys");
    if (rc != TD_OK)
        guard_close(&guard);
    *out = guard;
    return rc;
}

int guard_probe(const char *dir, const struct identity *self, struct error *err)
{
    guard_t *guard;
    int rc = guard_open(&guard, NULL, dir, self, err);

    guard_close(&guard);
    return rc;
}

void guard_close(guard_t **out)
{
    guard_t *guard = *out;

    if (guard == NULL)
        return;
    loop_timer_close(&guard->watch);
    channel_close(&guard->handler);
    allowed_release(&guard->allowed);
    explicit_bzero(&guard->self, sizeof(guard->self));
    free(guard->holdings);
    free(guard);
    *out = NULL;
}
