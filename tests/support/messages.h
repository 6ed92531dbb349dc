/*
 * messages.h - random valid messages of every kind, made from the table the codec is made from.
 */
#ifndef TD_TEST_MESSAGES_H
#define TD_TEST_MESSAGES_H

#include "common/util/rng.h"
#include "common/wire/message.h"

/* How many kinds there are, and the i-th. */
int messages_kinds(void);
uint32_t messages_kind(int index);

/* A valid message of this kind; bulk frames point into static memory. */
void messages_random(struct rng *rng, uint32_t kind, struct message *out);

/* Field by field, bulk by content. */
int messages_equal(const struct message *a, const struct message *b);

#endif
