/*
 * journal.h - what the learner writes down as it goes: train.csv, eval.csv, TensorBoard's events (the same numbers
 * under train/ and eval/, five episodes a second at most) and lines in its log.
 *
 * Thread:  the loop's. A row that cannot be written (full disk) is logged and given up.
 */
#ifndef TD_LEARNER_JOURNAL_H
#define TD_LEARNER_JOURNAL_H

#include "common/model/task_set.h"
#include "learner/coordinator.h"
#include "learner/run.h"
#include "learner/update.h"

typedef struct journal journal_t;

/*
 * action_repeat: environment steps per agent step, of several tasks in the mean. tasks: of a multi-task run their columns follow the usual ones of
 * eval.csv, normalized_score, then episode_reward+TASK and episode_success+TASK of each; borrowed, or NULL. Opens or
 * creates the files when save_csv is on.
 */
int journal_open(journal_t **out, const struct run *run, double action_repeat, const struct task_set *tasks,
                 struct error *err);

/*
 * The reference's normalised score, 0 to 100: the mean over tasks of 100 times the success of Meta-World's (mw-) and a
 * tenth of the others' return.
 */
double journal_score(const struct task_set *tasks, const struct task_score *scores);
void journal_close(journal_t **journal);

/* stats: of the last update; NULL: none yet. rate: agent steps per second. */
void journal_train(journal_t *journal, const struct command_train_row *row,
                   const struct update_stats *stats, double rate);
void journal_eval(journal_t *journal, const struct command_eval_row *row);

/* Remove the lines of steps that will come again. */
int journal_rollback(journal_t *journal, const struct command_rollback *rollback, struct error *err);

/* Make the lines durable, before a checkpoint that counts on them. */
void journal_sync(journal_t *journal);

/* Seconds since the run began, those of its earlier lives included. */
double journal_seconds(const journal_t *journal);

#endif
