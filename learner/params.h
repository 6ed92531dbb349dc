/*
 * params.h - the learner's two parameter snapshots and who is pulling them.
 *
 * One snapshot is the newest; the other's memory is filled next, once nobody pulls from it or those
 * who do have had their time. Every chunk is asked for on its own, so nothing is kept per puller but
 * when it was last heard of.
 *
 * Owns:    memory for two snapshots, unless they lie in a file.
 * Borrows: that file.
 * Thread:  the loop thread; the room handed out by params_fill is written elsewhere until params_filled.
 */
#ifndef TD_LEARNER_PARAMS_H
#define TD_LEARNER_PARAMS_H

#include "common/util/spill.h"
#include "common/wire/message.h"

#define PARAMS_SILENCE_MS 2000 /* a pull silent for so long is dropped */
#define PARAMS_PATIENCE_MS 2000 /* least time filling waits for pulls */

typedef struct params params_t;

/* Where one snapshot is written: memory [size], or a file from `at` on. */
struct params_room {
    char *memory; /* or NULL */
    const spill_t *file;
    uint64_t at;
};
int params_room_write(const struct params_room *room, size_t offset, const void *bytes, size_t length, struct error *err);

/* file: where both snapshots go, with room for them; NULL: into memory. TD_OK or TD_ENOMEM. */
int params_create(params_t **out, size_t size, const spill_t *file);
void params_destroy(params_t **params);

/*
 * Room for the next snapshot. False while pulls of the one it replaces are waited for (then *again_ms
 * says when to ask again) or while it is being filled. From now on that one is gone.
 */
bool params_fill(params_t *params, uint64_t now_ms, uint64_t *again_ms, struct params_room *room);

/* It is filled and becomes the newest. Its size is ours. */
void params_filled(params_t *params, uint32_t epoch, uint64_t version, uint64_t hash);

/* It must not be used (not finite): as if never filled. */
void params_dropped(params_t *params);

bool params_filling(const params_t *params);
size_t params_size(const params_t *params);

/* The model went back: what was announced may come again with other bytes. */
void params_forget(params_t *params);

/* Another learner epoch: what was announced is announced again under it. */
void params_set_epoch(params_t *params, uint32_t epoch);

/* The newest snapshot; epoch 0: none yet. */
const struct announcement *params_newest(const params_t *params);

/* The bytes asked for, good until the next pull or fill. TD_OK; TD_ENOTFOUND: gone; TD_EIO: the file cannot be read. */
int params_pull(params_t *params, uint64_t now_ms, uint64_t peer, const struct pull *pull,
                struct bulk *out, struct error *err);

#endif
