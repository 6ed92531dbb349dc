/*
 * admission.h - what the holder of a key may say: an actor under its own slot and process, a shard under
 * its own number, a stop from the learner's key alone. Pure.
 */
#ifndef TD_NET_ADMISSION_H
#define TD_NET_ADMISSION_H

#include "common/net/keys.h"
#include "common/wire/message.h"

/*
 * May `who` say this over a bound port, as the peer of that routing id (its process id)? lockstep: an
 * actor evaluates in place there. Returns NULL, or the reason why not.
 */
const char *admission_refusal(const struct identity *who, const struct peer *peer, const struct message *message,
                              bool lockstep);

#endif
