/*
 * guard.h - who may come in over tcp when a part was given keys: this part's own key, the list of
 * allowed ones, and the handler that ZeroMQ asks at every handshake (ZAP, RFC 27).
 *
 * Identity comes from the key. ZeroMQ marks every message of a connection with the public key it was
 * made with; each message is checked against the list as it is now, so that a key that is taken off
 * the list is out at once, open connections included. The routing id a peer shows is only a name: the
 * first key to use it holds it, and from another key it is not heard.
 *
 * Fails closed: no handler, no handshake (ZMQ_ZAP_ENFORCE_DOMAIN); a list that cannot be read admits
 * nobody; a message without a key is none.
 *
 * Owns:    key pair, list, the handler's socket, its timer.
 * Thread:  the loop's.
 */
#ifndef TD_NET_GUARD_H
#define TD_NET_GUARD_H

#include "common/net/keys.h"
#include "common/net/loop.h"

#define GUARD_HOLDINGS 16 /* routing ids that one key may hold; the one unused for longest gives way */

typedef struct guard guard_t;

/* This part's own key and the list, from DIR. TD_OK or as keys_load and allowed_load. */
int guard_open(guard_t **out, loop_t *loop, const char *dir, const struct identity *self, struct error *err);

/* After every channel that borrows it. */
void guard_close(guard_t **guard);

/* Could it be opened? For checks before anything is begun. */
int guard_probe(const char *dir, const struct identity *self, struct error *err);

/*
 * Answer handshakes from now on: before the first encrypted bind. One guard of a process may; again is
 * fine. TD_OK, TD_EIO.
 */
int guard_serve(guard_t *guard, struct error *err);

const struct key_pair *guard_self(const guard_t *guard);

/* The public key of a peer that is to be connected to; NULL: not on the list. */
const char *guard_key_of(const guard_t *guard, const struct identity *who);

/* Whose key is it, as the list is now? False: nobody's. */
bool guard_who(const guard_t *guard, const char *public_key, struct identity *who);

/* Let this key shake no hands for so long: it floods. */
void guard_exclude(guard_t *guard, const char *public_key, uint64_t ms);

/*
 * Connections that flood before their first whole message do not show their key. A key that shook hands is owed
 * a connection that is heard; whoever is owed one when such a flood is told of is suspected, the second time in
 * GUARD_SUSPECT_MS excluded for so long.
 */
#define GUARD_SUSPECT_MS 10000
void guard_heard(guard_t *guard, const char *public_key);
void guard_suspect(guard_t *guard, uint64_t ms);

/* Has this role any business at the sockets of this name ("control", "ingest", ...)? */
bool guard_may_enter(uint32_t role, const char *domain);

/* A peer with this key shows this routing id. False: another key holds it. */
bool guard_claim(guard_t *guard, const char *public_key, uint64_t id);

/* Is the holder of this routing id still on the list? */
bool guard_holds(const guard_t *guard, uint64_t id);

/* Counts up whenever a key has gone from the list: subscribers are to be let in anew. */
unsigned guard_removals(const guard_t *guard);

#endif
