/*
 * salvage.h - what salvage and rescue share: the whole rows of a data file into a new store.
 *
 * Thread:  the caller's.
 */
#ifndef TD_STORE_SALVAGE_H
#define TD_STORE_SALVAGE_H

#include "common/store/verify.h"
#include "common/store/wreck.h"

/*
 * Save from dir's file, whose lock is held, into a store that is made in config->dir; its schema, run and sizes
 * are those of what was found. live: only episodes that the index keeps, with the epochs of streams and learner,
 * and after asking for room on the disk. Errors as of store_salvage and store_rescue; store_id may be NULL.
 */
int salvage_into(const char *dir, struct store_config *config, bool live, struct salvage_report *report,
                 uint64_t *store_id, struct error *err);

#endif
