/*
 * codec.h - messages to frames and back: a protobuf header, then raw bulk frames.
 *
 * Owns:    scratch for one header; a decoded message's text is copied out, its bulk borrowed.
 * Thread:  each codec belongs to one thread.
 *
 * What comes from outside is hostile until decoded: lengths, counts, enums, floats that must be
 * finite, text that must be printable, and how many bulk frames of which size a kind may carry.
 * After start-up nothing here allocates.
 */
#ifndef TD_WIRE_CODEC_H
#define TD_WIRE_CODEC_H

#include "common/util/error.h"
#include "common/wire/message.h"

typedef struct codec codec_t;

int codec_create(codec_t **out);
void codec_destroy(codec_t **codec);

/*
 * Write the header frame of `message`. Its bulk frames follow it on the wire as they are.
 *
 *   header  [WIRE_HEADER_MAX]  out
 *
 * Returns its length; asserts that the message is one that codec_decode would take.
 */
size_t codec_encode(codec_t *codec, const struct message *message, uint8_t *header);

/*
 * Read a message from its frames: frames[0] is the header, up to WIRE_BULK_MAX more follow.
 * message->bulk points into frames. Returns TD_OK, TD_EFOREIGN for another protocol version (message
 * holds nothing), TD_ECORRUPT for anything else that is wrong; err says what.
 */
int codec_decode(codec_t *codec, const struct bulk *frames, size_t count, struct message *message,
                 struct error *err);

/* The Refused to send to a peer that speaks another protocol version. */
void codec_refuse_version(struct message *out, uint64_t run);

#endif
