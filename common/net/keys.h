/*
 * keys.h - who is who on the network: key files, and the list of the public keys that are allowed.
 *
 * A directory of keys (`tdmpc2 keys DIR`) holds
 *   NAME.key   one certificate, mode 0600, in the plain text of CZMQ's zcert:
 *
 *     metadata
 *         name = "actor-3"
 *     curve
 *         public-key = "40 characters of Z85"
 *         secret-key = "40 characters of Z85"
 *
 *   allowed    one line `NAME PUBLIC-KEY` for each that may come in; lines that begin with # are remarks
 *
 * NAME is learner, shard-N, actor-N, evaluator or viewer. A part needs its own .key and `allowed`.
 * What these files hold is not believed: a file that others may read (secret) or write (either) is
 * refused, and so is one with a line that does not belong there.
 *
 * Thread:  any; nothing is kept here.
 */
#ifndef TD_NET_KEYS_H
#define TD_NET_KEYS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/util/error.h"
#include "common/util/fs.h"

#define KEY_TEXT_MAX      41 /* Z85 of 32 bytes, and a NUL */
#define KEY_BYTES         32
#define KEYS_ALLOWED_MAX  4096
#define IDENTITY_NAME_MAX 32

/* Who a key belongs to. */
struct identity {
    uint32_t role;   /* enum role of wire/message.h; ROLE_TOOL is the viewer */
    uint32_t number; /* slot of an actor, number of a shard, else 0 */
};

struct key_pair {
    char public_key[KEY_TEXT_MAX], secret_key[KEY_TEXT_MAX];
};

struct allowed_key {
    struct identity who;
    char public_key[KEY_TEXT_MAX];
};

/* The allow-list: sorted by key, each key and each name once. */
struct allowed_keys {
    struct allowed_key *entries;
    int count;
};

bool identity_same(const struct identity *a, const struct identity *b);

/* "actor-3", "shard-0", "learner", "evaluator", "viewer". Returns out. */
char *identity_name(char out[IDENTITY_NAME_MAX], const struct identity *who);

/* The reverse; false for anything else. */
bool identity_parse(struct identity *who, const char *name);

/* Does this ZeroMQ encrypt? TD_OK or TD_ESETUP with a sentence. */
int keys_supported(struct error *err);

/* A new pair from the system's random numbers. TD_OK or TD_ESETUP. */
int keys_make(struct key_pair *pair, struct error *err);

/* DIR/NAME.key. TD_OK, TD_ENOTFOUND, or TD_EINVAL when it is unsafe, damaged or another's. */
int keys_load(struct key_pair *pair, const char *dir, const struct identity *who, struct error *err);

/* The same of a file's text, which is cut up. TD_OK or TD_ECORRUPT. */
int keys_read(struct key_pair *pair, char *text, const struct identity *who);

/* Write DIR/NAME.key, whole and 0600. */
int keys_save(const struct key_pair *pair, const char *dir, const struct identity *who, struct error *err);

/* The path of DIR/NAME.key. */
int keys_path(char out[FS_PATH_MAX], const char *dir, const struct identity *who, struct error *err);

/* The slot of the one actor's key in DIR. TD_EINVAL when there are several or none. */
int keys_only_actor(uint32_t *slot, const char *dir, struct error *err);

/* DIR/allowed. On an error the list is empty. */
int allowed_load(struct allowed_keys *allowed, const char *dir, struct error *err);
/* The same of a file's text, which is cut up; `name` stands for its path in errors. */
int allowed_read(struct allowed_keys *allowed, char *text, const char *name, struct error *err);
int allowed_save(const struct allowed_keys *allowed, const char *dir, struct error *err);
void allowed_release(struct allowed_keys *allowed);

/* Add one. TD_OK; TD_EINVAL when key or name is there already; TD_EFULL; TD_ENOMEM. */
int allowed_add(struct allowed_keys *allowed, const struct identity *who, const char *public_key,
                struct error *err);

/* Its entries by role and number, as people read them: malloc'd, or NULL when out of memory. */
const struct allowed_key **allowed_in_order(const struct allowed_keys *allowed);

/* NULL: not on the list. The pointer holds until the list changes. */
const struct allowed_key *allowed_by_key(const struct allowed_keys *allowed, const char *public_key);
const struct allowed_key *allowed_by_name(const struct allowed_keys *allowed, const struct identity *who);

#endif
