/*
 * finetune.h - the trained model that a new run begins with: `checkpoint=` of train.
 *
 * A run directory or a checkpoint directory of ours, or a file by itself (pretrained.h): the reference's *.pt, or
 * safetensors of the same names. Model sizes come from it unless they are given; what becomes of other widths and tasks is transplant.h's. Only the first start of a run reads it: from the
 * first checkpoint of its own on, the run goes on from those.
 *
 * Owns:    a copy of the parameters, and of the optimiser's state when finetune_optimizer asks for it.
 * Thread:  one at a time.
 */
#ifndef TD_LEARNER_FINETUNE_H
#define TD_LEARNER_FINETUNE_H

#include "common/model/task_set.h"
#include "common/model/transplant.h"
#include "common/util/config.h"
#include "learner/update.h"

typedef struct finetune finetune_t;

/*
 * The sizes that the checkpoint was trained with, into every option of them that was not given. Does nothing
 * without `checkpoint`. TD_OK, or as pretrained_open.
 */
int finetune_adopt(struct config *config, const bool *given, struct error *err);

/*
 * Can a model of these dims begin so, with these tasks? Reads the tensors' shapes alone; say (may be NULL) gets
 * a line for whatever differs. As finetune_open.
 */
int finetune_check(const struct config *config, const struct model_dims *dims, const struct task_set *tasks,
                   transplant_say *say, void *context, struct error *err);

/*
 * Read all of it. TD_OK; TD_EINVAL (sizes that do not fit, finetune_task names none of its tasks),
 * TD_ENOTFOUND, TD_ECORRUPT, TD_EIO, TD_ENOMEM.
 */
int finetune_open(finetune_t **out, const struct config *config, const struct task_set *tasks, struct error *err);

/* Begin with it: model and update are freshly initialised. say as above. TD_OK or TD_EINVAL. */
int finetune_apply(const finetune_t *finetune, world_model_t *model, update_t *update, transplant_say *say,
                   void *context, struct error *err);

void finetune_close(finetune_t **finetune);

#endif
