/*
 * transplant.h - a trained model's parameters as the beginning of another: other tasks, other widths.
 *
 * What has the same place in both models is copied. Where a layer reads observations, actions or a task
 * embedding, or the policy gives an action, the components that both have are copied in order: a wider
 * new model keeps what it was initialised with in the components that the old one lacks, a narrower one
 * leaves the rest out. A single task that begins from one of several has no embedding: what the first layers
 * made of the old task's is added to their biases, so that the new model computes what the old one did.
 *
 * Thread:  any, one at a time per destination.
 * Source:  widths and padding as in TD-MPC2 reference, `envs/wrappers/multitask.py`, `world_model.py`.
 */
#ifndef TD_MODEL_TRANSPLANT_H
#define TD_MODEL_TRANSPLANT_H

#include "common/model/world_model.h"

/* Where the embedding of a new task comes from, if not from the old task of this index. */
#define TRANSPLANT_MEAN  (-1) /* the mean of all old ones */
#define TRANSPLANT_FRESH (-2) /* nowhere: as it was initialised; for a single new task: nothing is added */

/*
 * Can parameters of `from` begin a model of `to`? All sizes but those of observations, actions, tasks and the
 * termination head must be the same. TD_OK, or TD_EINVAL naming the option and both values.
 */
int transplant_check(const struct model_dims *to, const struct model_dims *from, struct error *err);

/*
 * Copy into `parameters`, laid out like `to` and initialised, from `old`, laid out like `from` (both with
 * targets). embedding [max(1, num_tasks)] says for each new task which old one's it begins with; not read
 * when the old model has no tasks. Both must have passed transplant_check.
 */
void transplant_parameters(const struct model_layout *to, float *parameters, const struct model_layout *from,
                           const float *old, const int *embedding);

/* The same for an Adam moment (of the acting floats), zero where the new model has what the old one lacks. */
void transplant_moments(const struct model_layout *to, float *moments, const struct model_layout *from,
                        const float *old, const int *embedding);

/*
 * In sentences, for a log: what differs and what becomes of it. `names` [max(1, num_tasks)] are the new tasks',
 * old_names [from's num_tasks] the old ones' (NULL: not known).
 */
#define TRANSPLANT_LINE_MAX 300
typedef void transplant_say(void *context, const char *line);
void transplant_tell(const struct model_dims *to, const struct model_dims *from, const int *embedding,
                     const char *const *names, const char *const *old_names, transplant_say *say, void *context);

#endif
