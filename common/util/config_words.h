/*
 * config_words.h - what config's files share: finding keys, the sentence for unknown ones, text checks.
 */
#ifndef TD_UTIL_CONFIG_WORDS_H
#define TD_UTIL_CONFIG_WORDS_H

#include <stdbool.h>
#include <stddef.h>

#include "common/util/config.h"

/* The row of this key, or -1. */
int config_find(const char *name, size_t length);

/* Give row `index` the value that `text` means. TD_OK or TD_EINVAL. */
int config_set_value(struct config *config, int index, const char *text, struct error *err);

/*
 * The sentence for a key that is not in the table: how a derived key of the reference comes about, why
 * another of its keys is missing here, or else the nearest key. Returns TD_EINVAL.
 */
int config_unknown(const char *name, size_t length, struct error *err);

/* The one of words (NULL at the end) that is nearest to `word`; NULL when there are none. */
const char *config_nearest_word(const char *word, const char *const *words);

/* Valid UTF-8 that a YAML file on one line can carry. */
bool config_printable(const char *text);

/* text is one of "a|b|c"; any text when choices is "". */
bool config_is_choice(const char *choices, const char *text);

#endif
