/*
 * journal.h - what the learner writes down as it goes: train.csv, eval.csv and lines in its log.
 *
 * Thread:  the loop's. A row that cannot be written (full disk) is logged and given up.
 */
#ifndef TD_LEARNER_JOURNAL_H
#define TD_LEARNER_JOURNAL_H

#include "learner/coordinator.h"
#include "learner/run.h"
#include "learner/update.h"

typedef struct journal journal_t;

/* action_repeat: environment steps per agent step. Opens or creates the files when save_csv is on. */
int journal_open(journal_t **out, const struct run *run, uint32_t action_repeat, struct error *err);
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
