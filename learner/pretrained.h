/*
 * pretrained.h - where a trained model comes from: a run directory or a checkpoint of ours, or a file by itself, the
 * reference's *.pt or safetensors of the same names (common/ckpt/weights.h).
 *
 * A checkpoint's options say what it is. Of a file the shapes of the tensors say it, and a file that `tdmpc2 checkpoint
 * export` wrote also its note; a file of 30 or 80 tasks without one is of mt30 or mt80, the tasks of another are not known
 * by name.
 *
 * Owns:    the open files and the list of tasks.
 * Thread:  one at a time.
 */
#ifndef TD_LEARNER_PRETRAINED_H
#define TD_LEARNER_PRETRAINED_H

#include "common/ckpt/checkpoint.h"
#include "common/ckpt/weights.h"
#include "common/model/task_set.h"
#include "common/util/config.h"

struct pretrained {
    char path[FS_PATH_MAX];
    checkpoint_t *checkpoint; /* NULL: a file by itself */
    safetensors_t *file;      /* the checkpoint's parameters */
    weights_t *weights;       /* the file */
    struct config config;     /* its sizes as options; a checkpoint's with all the others */
    struct model_dims dims;
    struct task_set tasks;    /* names alone; of a file whose tasks are not known, none */
};

/*
 * Open and look at everything but the numbers. TD_OK; TD_ENOTFOUND, TD_ECORRUPT, TD_EFOREIGN as checkpoint_open_in;
 * TD_EINVAL, TD_ECORRUPT as weights_open, weights_dims. What was opened is to be closed after an error, too.
 */
int pretrained_open(struct pretrained *pretrained, const char *path, struct error *err);
void pretrained_close(struct pretrained *pretrained);

/* All parameters, laid out like its dims, with targets. TD_OK, TD_EINVAL, TD_ECORRUPT, TD_EIO. */
int pretrained_read(const struct pretrained *pretrained, const struct model_layout *layout, float *parameters,
                    struct error *err);

/*
 * Is `path` the parameters.safetensors of a checkpoint? Then its folder, whose manifest says more, into out
 * [FS_PATH_MAX].
 */
bool pretrained_folder(const char *path, char *out);

#endif
