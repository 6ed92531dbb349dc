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

#define LOCK_WAIT_MS     5000
#define REVOKED          "revoked"
#define REVOKED_FILE_MAX (KEYS_ALLOWED_MAX * IDENTITY_NAME_MAX * 4u)

/* What was asked for. Counts and numbers are -1 where nothing was said. */
struct order {
    const char *dir;
    long actors, shards, actor, shard;
    struct identity revoked, made;
    bool revoke, make, list, quiet;
};

static void usage(FILE *out)
{
    fputs("usage: tdmpc2 keys DIR [actors=N] [shards=N]     make what is missing: learner, evaluator, viewer,\n"
          "                                               shard-0..N-1 (default 1), actor-0..N-1 (default 2)\n"
          "       tdmpc2 keys DIR actor=N | shard=N        make this one, even if it was revoked\n"
          "       tdmpc2 keys DIR make=NAME                the same of any name\n"
          "       tdmpc2 keys DIR revoke=NAME              take NAME off the list and remove its key\n"
          "       tdmpc2 keys DIR list                     who is on the list, and whose key is here\n\n"
          "DIR/NAME.key (mode 0600, in the form of CZMQ's certificates) is the secret of that part; DIR/allowed is\n"
          "the public list of who may join. Every part is started with keys=DIR, and needs in its DIR its own .key\n"
          "and `allowed` alone: copy these two to another host (scp keeps a secret), nothing else. Keys that exist\n"
          "are never overwritten, and what was revoked (DIR/revoked) is not made again unless it is named. Running\n"
          "parts read `allowed` again by themselves when it changes.\n", out);
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

    if (strcmp(word, "list") == 0) {
        order->list = true;
        return TD_OK;
    }
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
    if (strncmp(word, "revoke=", 7) == 0)
        order->revoke = true;
    else if (strncmp(word, "make=", 5) == 0)
        order->make = true;
    else
        return error_set(err, TD_EINVAL, "%.60s: expected actors=, shards=, actor=, shard=, make=, revoke= or list", word);
    if (!identity_parse(value == word + 7 ? &order->revoked : &order->made, value))
        return error_set(err, TD_EINVAL, "%.60s: a key is called learner, evaluator, viewer, shard-N or actor-N", word);
    return TD_OK;
}

/* One thing at a time: nothing that was asked for is left out in silence. */
static int check_order(const struct order *order, int words, struct error *err)
{
    bool many = order->actors >= 0 || order->shards >= 0;
    bool one = order->actor >= 0 || order->shard >= 0 || order->make;

    if ((order->revoke || order->list) && words > 1)
        return error_set(err, TD_EINVAL, "%s stands alone: give the other words to a second `tdmpc2 keys %.300s`",
                         order->revoke ? "revoke=" : "list", order->dir);
    if (many && one)
        return error_set(err, TD_EINVAL, "actors= and shards= make all that is missing, actor=, shard= and make= one: use "
                                         "two commands");
    return TD_OK;
}

/* --- what was revoked ---------------------------------------------------------- */

/* DIR/revoked: a name a line; nothing else, or what was revoked would be forgotten in silence. TD_OK also without the file. */
static int read_revoked(const char *dir, struct identity **out, int *count, struct error *err)
{
    char path[FS_PATH_MAX], *text, *line, *rest = NULL;
    size_t length;
    int rc = fs_join(path, dir, REVOKED, err);

    *out = NULL;
    *count = 0;
    if (rc != TD_OK || access(path, F_OK) != 0)
        return rc;
    if ((rc = fs_read_file(path, REVOKED_FILE_MAX, &text, &length, err)) != TD_OK)
        return rc;
    *out = calloc(length / 2 + 1, sizeof(**out)); /* a name and its end are two bytes at least */
    if (*out == NULL)
        rc = error_set(err, TD_ENOMEM, "out of memory");
    if (rc == TD_OK && strlen(text) != length)
        rc = error_set(err, TD_EINVAL, "%s holds more than names of keys: mend it, or remove it", path);
    for (line = rc != TD_OK ? NULL : strtok_r(text, "\n", &rest); rc == TD_OK && line != NULL; line = strtok_r(NULL, "\n", &rest))
        if (identity_parse(&(*out)[*count], line))
            ++*count;
        else
            rc = error_set(err, TD_EINVAL, "%s: \"%.40s\" is no name of a key: mend the line, or remove the file", path, line);
    free(text);
    if (rc != TD_OK) {
        free(*out);
        *out = NULL;
        *count = 0;
    }
    return rc;
}

static bool contains(const struct identity *list, int count, const struct identity *who)
{
    for (int i = 0; i < count; i++)
        if (identity_same(&list[i], who))
            return true;
    return false;
}

/* Note that `who` is revoked, or not any more. */
static int note_revoked(const char *dir, const struct identity *who, bool revoked, struct error *err)
{
    char path[FS_PATH_MAX], name[IDENTITY_NAME_MAX], *text;
    struct identity *list;
    size_t size, used = 0;
    int count, rc = read_revoked(dir, &list, &count, err);

    if (rc != TD_OK || contains(list, count, who) == revoked) {
        free(list);
        return rc;
    }
    size = ((size_t)count + 1) * (IDENTITY_NAME_MAX + 1) + 1;
    if ((text = malloc(size)) == NULL)
        rc = error_set(err, TD_ENOMEM, "out of memory");
    for (int i = 0; rc == TD_OK && i < count; i++)
        if (!identity_same(&list[i], who))
            used += (size_t)snprintf(text + used, size - used, "%s\n", identity_name(name, &list[i]));
    if (rc == TD_OK && revoked)
        used += (size_t)snprintf(text + used, size - used, "%s\n", identity_name(name, who));
    if (rc == TD_OK && (rc = fs_join(path, dir, REVOKED, err)) == TD_OK)
        rc = fs_write_file(path, text, used, err);
    free(text);
    free(list);
    return rc;
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

/* One of many: not where it was revoked. */
static int make_missing(struct allowed_keys *allowed, const struct order *order, const struct identity *who,
                        const struct identity *revoked, int count, struct error *err)
{
    char name[IDENTITY_NAME_MAX];

    if (allowed_by_name(allowed, who) != NULL || !contains(revoked, count, who))
        return make_one(allowed, order, who->role, who->number, err);
    if (!order->quiet)
        printf("%s was revoked and is left out: `tdmpc2 keys %s make=%s` makes a new key for it\n",
               identity_name(name, who), order->dir, name);
    return TD_OK;
}

static int make_all(struct allowed_keys *allowed, const struct order *order, struct error *err)
{
    const struct { uint32_t role; long count; } wanted[] = {
        {ROLE_LEARNER, 1}, {ROLE_EVALUATOR, 1}, {ROLE_TOOL, 1},
        {ROLE_SHARD, order->shards < 0 ? 1 : order->shards}, {ROLE_ACTOR, order->actors < 0 ? 2 : order->actors},
    };
    struct identity *revoked;
    int count, rc = read_revoked(order->dir, &revoked, &count, err);

    for (size_t i = 0; i < TD_LEN(wanted); i++)
        for (long k = 0; rc == TD_OK && k < wanted[i].count; k++) {
            struct identity who = {wanted[i].role, (uint32_t)k};

            rc = make_missing(allowed, order, &who, revoked, count, err);
        }
    free(revoked);
    return rc;
}

/* Those that were named, revoked or not. */
static int make_named(struct allowed_keys *allowed, const struct order *order, struct error *err)
{
    struct identity named[3];
    int count = 0, rc = TD_OK;

    if (order->actor >= 0)
        named[count++] = (struct identity){ROLE_ACTOR, (uint32_t)order->actor};
    if (order->shard >= 0)
        named[count++] = (struct identity){ROLE_SHARD, (uint32_t)order->shard};
    if (order->make)
        named[count++] = order->made;
    for (int i = 0; rc == TD_OK && i < count; i++)
        rc = make_one(allowed, order, named[i].role, named[i].number, err);
    if (rc == TD_OK)
        rc = allowed_save(allowed, order->dir, err);
    for (int i = 0; rc == TD_OK && i < count; i++)
        rc = note_revoked(order->dir, &named[i], false, err);
    return rc;
}

static int make(struct allowed_keys *allowed, const struct order *order, struct error *err)
{
    int rc;

    if (order->actor >= 0 || order->shard >= 0 || order->make)
        return make_named(allowed, order, err);
    rc = make_all(allowed, order, err);
    return rc == TD_OK ? allowed_save(allowed, order->dir, err) : rc;
}

/* The list before the file: from then on the key opens nothing. The note before both: it harms nobody who is listed; where it cannot be made, the key is out all the same. */
static int revoke_one(struct allowed_keys *allowed, const struct order *order, struct error *err)
{
    struct allowed_keys left = {0};
    char path[FS_PATH_MAX], name[IDENTITY_NAME_MAX];
    struct error why = {0};
    int rc = TD_OK, noted = TD_OK;

    identity_name(name, &order->revoked);
    if (allowed_by_name(allowed, &order->revoked) == NULL)
        return error_set(err, TD_ENOTFOUND, "%s is not on the list of %.300s", name, order->dir);
    for (int i = 0; rc == TD_OK && i < allowed->count; i++)
        if (!identity_same(&allowed->entries[i].who, &order->revoked))
            rc = allowed_add(&left, &allowed->entries[i].who, allowed->entries[i].public_key, err);
    if (rc == TD_OK)
        noted = note_revoked(order->dir, &order->revoked, true, &why);
    if (rc == TD_OK)
        rc = allowed_save(&left, order->dir, err);
    allowed_release(&left);
    if (rc == TD_OK && (rc = keys_path(path, order->dir, &order->revoked, err)) == TD_OK)
        unlink(path);
    if (rc == TD_OK)
        printf("revoked %s: copy %s/allowed to every host that has the list\n", name, order->dir);
    return rc != TD_OK || noted == TD_OK ? rc : error_set(err, noted, "but `keys` may make it again: %.400s", why.text);
}

/* What there is to say of the key file of one on the list. */
static const char *file_state(const char *dir, const struct allowed_key *key)
{
    char path[FS_PATH_MAX];
    struct key_pair pair;
    struct stat info;
    bool same;

    if (keys_path(path, dir, &key->who, NULL) != TD_OK || stat(path, &info) != 0)
        return "";
    if ((info.st_mode & 077) != 0)
        return "UNSAFE: others may read or write its key here; make a new one (revoke=, then make=)";
    if (keys_load(&pair, dir, &key->who, NULL) != TD_OK)
        return "UNUSABLE: the key here is damaged, or belongs to someone else";
    same = strcmp(pair.public_key, key->public_key) == 0;
    explicit_bzero(&pair, sizeof(pair));
    return same ? "key here" : "ANOTHER key than the listed one is here";
}

static void list(const struct allowed_keys *allowed, const char *dir)
{
    const struct allowed_key **keys = allowed_in_order(allowed);
    char name[IDENTITY_NAME_MAX];

    for (int i = 0; keys != NULL && i < allowed->count; i++)
        printf("%-12s %s  %s\n", identity_name(name, &keys[i]->who), keys[i]->public_key, file_state(dir, keys[i]));
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

static int carry_out(const struct order *order, struct error *err)
{
    bool reading = order->list;
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

    return carry_out(&order, err);
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
        rc = check_order(&order, argc - 2, &err);
    if (rc == TD_OK)
        rc = carry_out(&order, &err);
    if (rc == TD_OK)
        return TD_EXIT_OK;
    fprintf(stderr, "tdmpc2 keys: %s\n", err.text);
    return error_exit_code(rc);
}
