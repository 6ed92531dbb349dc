/*
 * train_offline.h - `tdmpc2 train data_dir=DIR`: updates alone, from an imported data set, in this process.
 *
 * As the reference's offline trainer: iterations 0 .. steps-1 of one update each; losses are logged at every 10,000th,
 * all tasks evaluated at every eval_freq-th, and a checkpoint written there. No actors, no shard: slices are drawn
 * from the store, which is only read.
 *
 *   train.csv  step (the iteration), elapsed_time, the statistics of that update
 *   eval.csv   step, episode_reward (mean), the reference's means episode_reward+avg_dmcontrol,
 *              episode_reward+avg_metaworld and episode_success+avg_metaworld, normalized_score, then
 *              episode_reward+TASK and episode_success+TASK of each; empty where a task's environment is not here
 *
 * Event files for TensorBoard have the same under the reference's keys, pretrain/iteration, pretrain/reward_loss,
 * pretrain/episode_reward+TASK, ...
 *
 * Source:  TD-MPC2 reference, trainer/offline_trainer.py.
 */
#ifndef TD_TOOLS_TRAIN_OFFLINE_H
#define TD_TOOLS_TRAIN_OFFLINE_H

#include "common/util/config.h"
#include "common/util/error.h"

/* Until all iterations are done, or SIGINT or SIGTERM came: then after a checkpoint. */
int train_offline(const struct config *fresh, const bool *given, struct error *err);

#endif
