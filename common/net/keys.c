#include "common/net/keys.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <zmq.h>

#include "common/wire/message.h"

#define KEY_FILE_MAX     4096u
#define ALLOWED_FILE_MAX (KEYS_ALLOWED_MAX * 128u)
#define ALLOWED          "allowed"

/* --- names ------------------------------------------------------------------- */

static const struct {
    const char *name;
    uint32_t role;
    bool numbered;
    uint32_t most;
} roles[] = {
    {"learner", ROLE_LEARNER, false, 0}, {"shard", ROLE_SHARD, true, WIRE_SHARDS_MAX - 1},
    {"actor", ROLE_ACTOR, true, WIRE_SLOT_MAX}, {"evaluator", ROLE_EVALUATOR, false, 0},
    {"viewer", ROLE_TOOL, false, 0},
};

bool identity_same(const struct identity *a, const struct identity *b)
{
    return a->role == b->role && a->number == b->number;
}

char *identity_name(char out[IDENTITY_NAME_MAX], const struct identity *who)
{
    snprintf(out, IDENTITY_NAME_MAX, "nobody");
    for (size_t i = 0; i < TD_LEN(roles); i++)
        if (roles[i].role == who->role)
            snprintf(out, IDENTITY_NAME_MAX, roles[i].numbered ? "%s-%u" : "%s", roles[i].name, who->number);
    return out;
}

bool identity_parse(struct identity *who, const char *name)
{
    char again[IDENTITY_NAME_MAX];

    for (size_t i = 0; i < TD_LEN(roles); i++) {
        size_t length = strlen(roles[i].name);

        if (strncmp(name, roles[i].name, length) != 0)
            continue;
        *who = (struct identity){.role = roles[i].role};
        if (roles[i].numbered && name[length] == '-' && strlen(name + length + 1) <= 5)
            who->number = (uint32_t)strtoul(name + length + 1, NULL, 10);
        /* only the one way to write it, so that a file has one name */
        if (who->number <= roles[i].most && strcmp(identity_name(again, who), name) == 0)
            return true;
    }
    return false;
}

/* --- pairs ------------------------------------------------------------------- */

int keys_supported(struct error *err)
{
    if (zmq_has("curve"))
        return TD_OK;
    return error_set(err, TD_ESETUP, "keys= needs encryption, and this ZeroMQ library was built without it (CURVE): "
                                     "install one built with libsodium");
}

int keys_make(struct key_pair *pair, struct error *err)
{
    int rc = keys_supported(err);

    if (rc == TD_OK && zmq_curve_keypair(pair->public_key, pair->secret_key) != 0)
        rc = error_set(err, TD_ESETUP, "cannot make a key: %s", zmq_strerror(errno));
    return rc;
}

int keys_path(char out[FS_PATH_MAX], const char *dir, const struct identity *who, struct error *err)
{
    char name[IDENTITY_NAME_MAX], file[IDENTITY_NAME_MAX + 8];

    snprintf(file, sizeof(file), "%s.key", identity_name(name, who));
    return fs_join(out, dir, file, err);
}

/* Read a file that nobody else may write and, if `secret`, read. */
static int read_safely(const char *path, bool secret, size_t most, char **bytes, size_t *length, struct error *err)
{
    mode_t forbidden = secret ? 077 : 022;
    struct stat info;

    if (stat(path, &info) != 0)
        return error_set_errno(err, errno == ENOENT ? TD_ENOTFOUND : TD_EINVAL, errno, "cannot read %s", path);
    if (!S_ISREG(info.st_mode))
        return error_set(err, TD_EINVAL, "%s is not a file", path);
    if ((info.st_uid != geteuid() && info.st_uid != 0) || (info.st_mode & forbidden) != 0)
        return error_set(err, TD_EINVAL, "%s belongs to someone else or others may %s it: chmod %s it", path,
                         secret ? "read" : "write", secret ? "600" : "go-w");
    return fs_read_file(path, most, bytes, length, err);
}

static bool z85_valid(const char *text)
{
    uint8_t bytes[KEY_BYTES];

    return strlen(text) == KEY_TEXT_MAX - 1 && zmq_z85_decode(bytes, text) != NULL;
}

/* One line of a certificate, without the spaces around it: `name = "value"`, a section or a remark. */
static bool take_line(char *line, char *name, struct key_pair *pair)
{
    static const char *const keys[] = {"name", "public-key", "secret-key"};
    char *const values[] = {name, pair->public_key, pair->secret_key};
    const size_t sizes[] = {IDENTITY_NAME_MAX, KEY_TEXT_MAX, KEY_TEXT_MAX};
    char key[16], value[64];
    int end = 0;

    if (line[0] == '\0' || line[0] == '#' || strcmp(line, "metadata") == 0 || strcmp(line, "curve") == 0)
        return true;
    if (sscanf(line, "%15[a-z-] = \"%63[^\"]\"%n", key, value, &end) != 2 || end == 0 || line[end] != '\0')
        return false;
    for (size_t i = 0; i < TD_LEN(keys); i++)
        if (strcmp(key, keys[i]) == 0 && strlen(value) < sizes[i] && values[i][0] == '\0') {
            memcpy(values[i], value, strlen(value) + 1);
            explicit_bzero(value, sizeof(value));
            return true;
        }
    return false;
}

/* The next line of *text without the spaces around it, in place; NULL at the end. */
static char *next_line(char **text)
{
    char *line = *text, *end;

    if (line == NULL || *line == '\0')
        return NULL;
    end = line + strcspn(line, "\n");
    *text = *end == '\0' ? end : end + 1;
    while (end > line && strchr(" \t\r", end[-1]) != NULL)
        end--;
    *end = '\0';
    return line + strspn(line, " \t");
}

/* The secret fits the public key, and the name is the one asked for. */
static bool whole(const struct key_pair *pair, const char *name, const struct identity *who)
{
    char wanted[IDENTITY_NAME_MAX], derived[KEY_TEXT_MAX];

    return strcmp(name, identity_name(wanted, who)) == 0 && z85_valid(pair->public_key) &&
           z85_valid(pair->secret_key) && zmq_curve_public(derived, pair->secret_key) == 0 &&
           strcmp(derived, pair->public_key) == 0;
}

int keys_read(struct key_pair *pair, char *text, const struct identity *who)
{
    char name[IDENTITY_NAME_MAX] = "", *line;
    bool good = true;

    memset(pair, 0, sizeof(*pair));
    while (good && (line = next_line(&text)) != NULL)
        good = take_line(line, name, pair);
    if (good && whole(pair, name, who))
        return TD_OK;
    explicit_bzero(pair, sizeof(*pair));
    return TD_ECORRUPT;
}

int keys_load(struct key_pair *pair, const char *dir, const struct identity *who, struct error *err)
{
    char path[FS_PATH_MAX], wanted[IDENTITY_NAME_MAX], *bytes;
    size_t length;
    int rc;

    memset(pair, 0, sizeof(*pair));
    if ((rc = keys_supported(err)) != TD_OK || (rc = keys_path(path, dir, who, err)) != TD_OK)
        return rc;
    rc = read_safely(path, true, KEY_FILE_MAX, &bytes, &length, err);
    if (rc == TD_ENOTFOUND)
        return error_set(err, TD_ENOTFOUND, "keys=%.300s has no key of %s: make one there with `tdmpc2 keys`, or copy "
                         "%s.key from where they are made", dir, identity_name(wanted, who), wanted);
    if (rc != TD_OK)
        return rc;
    rc = keys_read(pair, bytes, who);
    explicit_bzero(bytes, length);
    free(bytes);
    if (rc == TD_OK)
        return TD_OK;
    return error_set(err, TD_EINVAL, "%s is not a whole key of %s: copy it again, or remove it and make a new one",
                     path, identity_name(wanted, who));
}

/* With a mode that lets nobody else in from the first byte. */
static int write_private(const char *path, const char *text, struct error *err)
{
    mode_t mask = umask(077);
    int rc = fs_write_file(path, text, strlen(text), err);

    umask(mask);
    return rc;
}

int keys_save(const struct key_pair *pair, const char *dir, const struct identity *who, struct error *err)
{
    char path[FS_PATH_MAX], name[IDENTITY_NAME_MAX], text[512];
    int rc = keys_path(path, dir, who, err);

    if (rc != TD_OK)
        return rc;
    snprintf(text, sizeof(text),
             "# tdmpc2: the key of %s. Who has this file is %s: keep it secret.\n"
             "metadata\n    name = \"%s\"\ncurve\n    public-key = \"%s\"\n    secret-key = \"%s\"\n",
             identity_name(name, who), name, name, pair->public_key, pair->secret_key);
    rc = write_private(path, text, err);
    explicit_bzero(text, sizeof(text));
    return rc;
}

int keys_only_actor(uint32_t *slot, const char *dir, struct error *err)
{
    DIR *folder = opendir(dir);
    struct dirent *entry;
    int found = 0;

    if (folder == NULL)
        return error_set_errno(err, TD_EINVAL, errno, "cannot read keys=%.300s", dir);
    while ((entry = readdir(folder)) != NULL) {
        char name[IDENTITY_NAME_MAX];
        size_t length = strlen(entry->d_name);
        struct identity who;

        if (length < 5 || length >= sizeof(name) + 4 || strcmp(entry->d_name + length - 4, ".key") != 0)
            continue;
        snprintf(name, sizeof(name), "%.*s", (int)(length - 4), entry->d_name);
        if (!identity_parse(&who, name) || who.role != ROLE_ACTOR)
            continue;
        *slot = who.number;
        found++;
    }
    closedir(folder);
    if (found == 1)
        return TD_OK;
    return error_set(err, TD_EINVAL, found == 0 ? "keys=%.300s has no key of an actor: copy an actor-N.key there"
                                                : "keys=%.300s has keys of several actors: say which with actor=N", dir);
}

/* --- the list ---------------------------------------------------------------- */

static int find_place(const struct allowed_keys *allowed, const char *public_key)
{
    int low = 0, high = allowed->count;

    while (low < high) {
        int middle = (low + high) / 2;

        if (strcmp(allowed->entries[middle].public_key, public_key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const struct allowed_key *allowed_by_key(const struct allowed_keys *allowed, const char *public_key)
{
    int place = find_place(allowed, public_key);

    if (place == allowed->count || strcmp(allowed->entries[place].public_key, public_key) != 0)
        return NULL;
    return &allowed->entries[place];
}

const struct allowed_key *allowed_by_name(const struct allowed_keys *allowed, const struct identity *who)
{
    for (int i = 0; i < allowed->count; i++)
        if (identity_same(&allowed->entries[i].who, who))
            return &allowed->entries[i];
    return NULL;
}

int allowed_add(struct allowed_keys *allowed, const struct identity *who, const char *public_key, struct error *err)
{
    int place = find_place(allowed, public_key);
    struct allowed_key *grown;
    char name[IDENTITY_NAME_MAX];

    if (!z85_valid(public_key))
        return error_set(err, TD_EINVAL, "%.60s is not a public key", public_key);
    if (allowed_by_key(allowed, public_key) != NULL || allowed_by_name(allowed, who) != NULL)
        return error_set(err, TD_EINVAL, "%s, or its key, is there twice", identity_name(name, who));
    if (allowed->count == KEYS_ALLOWED_MAX)
        return error_set(err, TD_EFULL, "more than %d keys", KEYS_ALLOWED_MAX);
    grown = realloc(allowed->entries, (size_t)(allowed->count + 1) * sizeof(*grown));
    if (grown == NULL)
        return error_set(err, TD_ENOMEM, "out of memory");
    memmove(grown + place + 1, grown + place, (size_t)(allowed->count - place) * sizeof(*grown));
    grown[place].who = *who;
    memcpy(grown[place].public_key, public_key, KEY_TEXT_MAX);
    allowed->entries = grown;
    allowed->count++;
    return TD_OK;
}

static int add_line(struct allowed_keys *allowed, const char *line, struct error *err)
{
    char name[IDENTITY_NAME_MAX], key[64];
    struct identity who;
    int end = 0;

    if (line[0] == '\0' || line[0] == '#')
        return TD_OK;
    if (sscanf(line, "%31s %63s%n", name, key, &end) != 2 || line[end] != '\0' || !identity_parse(&who, name))
        return error_set(err, TD_EINVAL, "expected NAME PUBLIC-KEY, as in \"actor-3 ...\"");
    return allowed_add(allowed, &who, key, err);
}

int allowed_read(struct allowed_keys *allowed, char *text, const char *name, struct error *err)
{
    struct error why = {0};
    int rc = TD_OK, number = 0;
    char *line;

    *allowed = (struct allowed_keys){0};
    while (rc == TD_OK && (line = next_line(&text)) != NULL) {
        number++;
        rc = add_line(allowed, line, &why);
    }
    if (rc == TD_OK)
        return TD_OK;
    allowed_release(allowed);
    return error_set(err, TD_EINVAL, "%s, line %d: %s", name, number, why.text);
}

int allowed_load(struct allowed_keys *allowed, const char *dir, struct error *err)
{
    char path[FS_PATH_MAX], *bytes;
    size_t length;
    int rc;

    *allowed = (struct allowed_keys){0};
    if ((rc = fs_join(path, dir, ALLOWED, err)) != TD_OK ||
        (rc = read_safely(path, false, ALLOWED_FILE_MAX, &bytes, &length, err)) != TD_OK)
        return rc;
    rc = allowed_read(allowed, bytes, path, err);
    free(bytes);
    return rc;
}

static size_t rank(uint32_t role)
{
    size_t i = 0;

    while (i < TD_LEN(roles) && roles[i].role != role)
        i++;
    return i;
}

static int compare_names(const void *a, const void *b)
{
    const struct identity *one = &(*(const struct allowed_key *const *)a)->who;
    const struct identity *other = &(*(const struct allowed_key *const *)b)->who;

    if (one->role != other->role)
        return rank(one->role) < rank(other->role) ? -1 : 1;
    return one->number < other->number ? -1 : one->number > other->number;
}

const struct allowed_key **allowed_in_order(const struct allowed_keys *allowed)
{
    const struct allowed_key **keys = calloc((size_t)allowed->count + 1, sizeof(*keys));

    for (int i = 0; keys != NULL && i < allowed->count; i++)
        keys[i] = &allowed->entries[i];
    if (keys != NULL)
        qsort(keys, (size_t)allowed->count, sizeof(*keys), compare_names);
    return keys;
}

int allowed_save(const struct allowed_keys *allowed, const char *dir, struct error *err)
{
    size_t size = 256 + (size_t)allowed->count * (IDENTITY_NAME_MAX + KEY_TEXT_MAX + 2), used;
    const struct allowed_key **keys = allowed_in_order(allowed);
    char path[FS_PATH_MAX], name[IDENTITY_NAME_MAX], *text = malloc(size);
    int rc;

    if (text == NULL || keys == NULL) {
        free(text);
        free(keys);
        return error_set(err, TD_ENOMEM, "out of memory");
    }
    used = (size_t)snprintf(text, size, "# Who may join this run: NAME PUBLIC-KEY. Read again whenever it changes; a key "
                                        "whose line goes is out at once.\n");
    for (int i = 0; i < allowed->count; i++)
        used += (size_t)snprintf(text + used, size - used, "%s %s\n", identity_name(name, &keys[i]->who),
                                 keys[i]->public_key);
    free(keys);
    rc = fs_join(path, dir, ALLOWED, err);
    if (rc == TD_OK)
        rc = write_private(path, text, err);
    free(text);
    return rc;
}

void allowed_release(struct allowed_keys *allowed)
{
    free(allowed->entries);
    *allowed = (struct allowed_keys){0};
}
