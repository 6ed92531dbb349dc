/* keys.c - `tdmpc2 keys`: make, list and revoke the keys that parts of a run know each other by. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/net/keys.h"
#include "common/wire/message.h"
#include "tools/commands.h"
#include "tools/keys.h"
#include "tools/options.h"

#define LOCK_WAIT_MS 5000

/* What was asked for. Counts and numbers are -1 where nothing was said. */
struct order {
    const char *dir;
    long actors, shards, actor, shard;
    struct identity revoked;
    bool revoke, quiet;
};

static void usage(FILE *out)
{
    fputs("usage: tdmpc2 keys DIR [actors=N] [shards=N]     make what is missing: learner, evaluator, viewer,\n"
          "                                               shard-0..N-1 (default 1), actor-0..N-1 (default 2)\n"
          "       tdmpc2 keys DIR actor=N | shard=N        make this one\n"
          "       tdmpc2 keys DIR revoke=NAME              take NAME off the list and remove its key\n"
          "       tdmpc2 keys DIR list                     who is on the list, and whose key is here\n\n"
          "DIR/NAME.key (mode 0600, in the form of CZMQ's certificates) is the secret of that part; DIR/allowed is\n"
          "the public list of who may join. Every part is started with keys=DIR, and needs in its DIR its own .key\n"
          "and `allowed` alone: copy these two to another host (scp keeps a secret), nothing else. Keys that exist\n"
          "are never overwritten. Running parts read `allowed` again by themselves when it changes.\n", out);
}

/* --- words ------------------------------------------------------------------- */

static int parse_number(const char *word, const char *text, long least, long most, long *out, struct error *err)
{
    char *end;

    errno = 0;
    *out = strtol(text, &end, 10);
    if (errno == 0 && *end == '\0' && end != text && *out >= least && *out <= most)
        return TD_OK;
    return error_set(err, TD_EINVAL, "%.40s: expected a number from %ld to %ld", word, least, most);
}

static int take_word(struct order *order, const char *word, struct error *err)
{
    const char *value = strchr(word, '=');

    if (strcmp(word, "list") == 0)
        return TD_OK;
    if (value == NULL)
        return error_set(err, TD_EINVAL, "one directory at a time: %.100s or %.100s?", order->dir, word);
    value++;
    if (strncmp(word, "actors=", 7) == 0)
        return parse_number(word, value, 0, KEYS_ALLOWED_MAX / 2, &order->actors, err);
    if (strncmp(word, "shards=", 7) == 0)
        return parse_number(word, value, 1, WIRE_SHARDS_MAX, &order->shards, err);
    if (strncmp(word, "actor=", 6) == 0)
        return parse_number(word, value, 0, WIRE_SLOT_MAX, &order->actor, err);
    if (strncmp(word, "shard=", 6) == 0)
        return parse_number(word, value, 0, WIRE_SHARDS_MAX - 1, &order->shard, err);
    if (strncmp(word, "revoke=", 7) != 0)
        return error_set(err, TD_EINVAL, "%.60s: expected actors=, shards=, actor=, shard=, revoke= or list", word);
    order->revoke = true;
    if (!identity_parse(&order->revoked, value))
        return error_set(err, TD_EINVAL, "%.60s: a key is called learner, evaluator, viewer, shard-N or actor-N", word);
    return TD_OK;
}

/* --- making -------------------------------------------------------------------- */

/* The key of one part, unless it is on the list already. The file first: a list never names a key that is lost. */
static int make_one(struct allowed_keys *allowed, const struct order *order, uint32_t role, long number, struct error *err)
{
    struct identity who = {role, (uint32_t)number};
    char path[FS_PATH_MAX], name[IDENTITY_NAME_MAX];
    struct key_pair pair;
    int rc;

    if (allowed_by_name(allowed, &who) != NULL)
        return TD_OK;
    if ((rc = keys_path(path, order->dir, &who, err)) != TD_OK)
        return rc;
    if (access(path, F_OK) == 0) /* an earlier run of this command was cut off before the list was written */
        rc = keys_load(&pair, order->dir, &who, err);
    else if ((rc = keys_make(&pair, err)) == TD_OK)
        rc = keys_save(&pair, order->dir, &who, err);
    if (rc == TD_OK)
        rc = allowed_add(allowed, &who, pair.public_key, err);
    explicit_bzero(&pair, sizeof(pair));
    if (rc == TD_OK && !order->quiet)
        printf("made %s\n", identity_name(name, &who));
    return rc;
}

static int make_all(struct allowed_keys *allowed, const struct order *order, struct error *err)
{
    static const uint32_t single[] = {ROLE_LEARNER, ROLE_EVALUATOR, ROLE_TOOL};
    long actors = order->actors < 0 ? 2 : order->actors, shards = order->shards < 0 ? 1 : order->shards;
    int rc = TD_OK;

    for (size_t i = 0; rc == TD_OK && i < TD_LEN(single); i++)
        rc = make_one(allowed, order, single[i], 0, err);
    for (long i = 0; rc == TD_OK && i < shards; i++)
        rc = make_one(allowed, order, ROLE_SHARD, i, err);
    for (long i = 0; rc == TD_OK && i < actors; i++)
        rc = make_one(allowed, order, ROLE_ACTOR, i, err);
    return rc;
}

static int make(struct allowed_keys *allowed, const struct order *order, struct error *err)
{
    int rc = TD_OK;

    if (order->actor >= 0)
        rc = make_one(allowed, order, ROLE_ACTOR, order->actor, err);
    if (rc == TD_OK && order->shard >= 0)
        rc = make_one(allowed, order, ROLE_SHARD, order->shard, err);
    if (rc == TD_OK && order->actor < 0 && order->shard < 0)
        rc = make_all(allowed, order, err);
    return rc == TD_OK ? allowed_save(allowed, order->dir, err) : rc;
}

/* The list first: from then on the key opens nothing. */
static int revoke_one(struct allowed_keys *allowed, const struct order *order, struct error *err)
{
    struct allowed_keys left = {0};
    char path[FS_PATH_MAX], name[IDENTITY_NAME_MAX];
    int rc = TD_OK;

    identity_name(name, &order->revoked);
    if (allowed_by_name(allowed, &order->revoked) == NULL)
        return error_set(err, TD_ENOTFOUND, "%s is not on the list of %.300s", name, order->dir);
    for (int i = 0; rc == TD_OK && i < allowed->count; i++)
        if (!identity_same(&allowed->entries[i].who, &order->revoked))
            rc = allowed_add(&left, &allowed->entries[i].who, allowed->entries[i].public_key, err);
    if (rc == TD_OK)
        rc = allowed_save(&left, order->dir, err);
    allowed_release(&left);
    if (rc == TD_OK && (rc = keys_path(path, order->dir, &order->revoked, err)) == TD_OK)
        unlink(path);
    if (rc == TD_OK)
        printf("revoked %s: copy %s/allowed to every host that has the list\n", name, order->dir);
    return rc;
}

static void list(const struct allowed_keys *allowed, const char *dir)
{
    const struct allowed_key **keys = allowed_in_order(allowed);
    char path[FS_PATH_MAX], name[IDENTITY_NAME_MAX];

    for (int i = 0; keys != NULL && i < allowed->count; i++) {
        const struct allowed_key *key = keys[i];
        bool here = keys_path(path, dir, &key->who, NULL) == TD_OK && access(path, F_OK) == 0;

        printf("%-12s %s  %s\n", identity_name(name, &key->who), key->public_key, here ? "key here" : "");
    }
    free(keys);
}

/* --- the command ---------------------------------------------------------------- */

static int open_list(struct allowed_keys *allowed, const struct order *order, bool reading, struct error *err)
{
    int rc = allowed_load(allowed, order->dir, err);

    if (rc == TD_ENOTFOUND && !reading)
        return TD_OK; /* a new directory */
    if (rc == TD_ENOTFOUND)
        return error_set(err, rc, "%.300s has no list of allowed keys: `tdmpc2 keys DIR` makes one", order->dir);
    return rc;
}

static int carry_out(const struct order *order, bool reading, struct error *err)
{
    struct allowed_keys allowed = {0};
    char lock[FS_PATH_MAX];
    int fd = -1, rc;

    if ((rc = keys_supported(err)) != TD_OK)
        return rc;
    if (!reading && ((rc = fs_mkdirs(order->dir, 0700, err)) != TD_OK ||
                     (rc = fs_join(lock, order->dir, ".lock", err)) != TD_OK ||
                     (rc = fs_lock(&fd, lock, LOCK_WAIT_MS, err)) != TD_OK))
        return rc;
    rc = open_list(&allowed, order, reading || order->revoke, err);
    if (rc == TD_OK && reading)
        list(&allowed, order->dir);
    else if (rc == TD_OK)
        rc = order->revoke ? revoke_one(&allowed, order, err) : make(&allowed, order, err);
    allowed_release(&allowed);
    if (!reading)
        fs_unlock(&fd);
    return rc;
}

int keys_ensure(const char *dir, int actors, int shards, struct error *err)
{
    struct order order = {.dir = dir, .actors = actors, .shards = shards, .actor = -1, .shard = -1, .quiet = true};

    return carry_out(&order, false, err);
}

int cmd_keys(int argc, char **argv)
{
    struct order order = {.actors = -1, .shards = -1, .actor = -1, .shard = -1};
    struct error err = {0};
    int rc = TD_OK;

    if (options_help(argc, argv) || argc < 2) {
        usage(argc < 2 ? stderr : stdout);
        return argc < 2 ? TD_EXIT_BAD_INPUT : TD_EXIT_OK;
    }
    order.dir = argv[1];
    if (strchr(order.dir, '=') != NULL)
        rc = error_set(&err, TD_EINVAL, "the directory comes first: tdmpc2 keys DIR [actors=N] ...");
    for (int i = 2; rc == TD_OK && i < argc; i++)
        rc = take_word(&order, argv[i], &err);
    if (rc == TD_OK)
        rc = carry_out(&order, argc > 2 && strcmp(argv[2], "list") == 0, &err);
    if (rc == TD_OK)
        return TD_EXIT_OK;
    fprintf(stderr, "tdmpc2 keys: %s\n", err.text);
    return error_exit_code(rc);
}
