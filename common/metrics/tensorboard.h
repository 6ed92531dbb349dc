/*
 * tensorboard.h - event files for TensorBoard, written as a run goes.
 *
 * A file per life of the learner, `events.out.tfevents.<seconds>.<host>.<pid>` in the run directory; it is never
 * appended to by another life, so a torn end of one that was killed hurts nobody. Every record is one write and
 * can be read at once. A life that goes on from an earlier one, or goes back within itself, says from which step
 * on what was written before is void (SessionLog START, as TensorFlow does); TensorBoard drops those points.
 *
 * Records: length (u64), masked CRC32C of it, a protobuf Event, masked CRC32C of that; little-endian.
 *
 * Owns:    the open file.
 * Thread:  one at a time. A record that cannot be written whole is taken back. NULL is allowed and does nothing.
 * Source:  tensorflow/core/lib/io/record_writer.cc, tensorboard/compat/proto/event.proto.
 */
#ifndef TD_METRICS_TENSORBOARD_H
#define TD_METRICS_TENSORBOARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/util/error.h"

#define TENSORBOARD_TAGS_MAX   256             /* of one call */
#define TENSORBOARD_RECORD_MAX (64u << 20)     /* bytes; a longer one is left out */

typedef struct tensorboard tensorboard_t;

/* Begin a file in `folder`. Its name sorts behind those that are there. TD_OK, TD_EIO, TD_EFULL, TD_ENOMEM. */
int tensorboard_open(tensorboard_t **out, const char *folder, struct error *err);
void tensorboard_close(tensorboard_t **tensorboard);

/* What was written for `step` and later ones, here and in earlier files, is void. */
int tensorboard_purge(tensorboard_t *tensorboard, uint64_t step, struct error *err);

struct tensorboard_scalar {
    const char *tag; /* "train/episode_reward" */
    double value;    /* NaN: left out */
};
int tensorboard_scalars(tensorboard_t *tensorboard, uint64_t step, const struct tensorboard_scalar *scalars, int count,
                        struct error *err);

/* Markdown, under the tab TEXT. */
int tensorboard_text(tensorboard_t *tensorboard, uint64_t step, const char *tag, const char *text, struct error *err);

/* A PNG, GIF or JPEG, under IMAGES. */
int tensorboard_image(tensorboard_t *tensorboard, uint64_t step, const char *tag, const void *bytes, size_t length,
                      int width, int height, struct error *err);

/* What the run was made with, under HPARAMS: a number, a truth, or, when text is not NULL, that. */
struct tensorboard_hparam {
    const char *name, *text;
    bool is_bool;
    double number;
};
int tensorboard_hparams(tensorboard_t *tensorboard, const struct tensorboard_hparam *hparams, int count,
                        struct error *err);

/* The name of the file, with its folder. */
const char *tensorboard_path(const tensorboard_t *tensorboard);

#endif
