/*
 * raw_peer.h - messages over a plain ZeroMQ socket, for tests that speak to a daemon as a stranger.
 *
 * The socket is a DEALER or SUB with a short receive timeout; the codec is the caller's.
 */
#ifndef TD_TEST_RAW_PEER_H
#define TD_TEST_RAW_PEER_H

#include <stdbool.h>

#include "common/wire/codec.h"

/* Send this message, as well as the socket takes it. */
void raw_say(codec_t *codec, void *socket, const struct message *message);

/* The next message of this kind, or of any (0), within `ms`; its bulks are borrowed until the next call. */
bool raw_hear(codec_t *codec, void *socket, uint32_t kind, struct message *message, int ms);

#endif
