/*
 * schedule.h - the reference's lock-step schedule as a pure state machine: what comes next.
 *
 *   struct schedule_event event;
 *   while (schedule_next(&schedule, &event), event.kind != SCHEDULE_FINISH)
 *       if (event.kind == SCHEDULE_STEP)
 *           schedule_stepped(&schedule, over, terminated, err);   after acting in the environment
 *       else
 *           schedule_done(&schedule);                             after doing what it says
 *
 * schedule_next only looks: asking again gives the same event. All state is in the struct, plain data.
 * An evaluation is one event here; struct evaluation below is its inside, for whoever runs it.
 * Source: reference trainer/online_trainer.py, `train` and `eval`.
 */
#ifndef TD_LEARNER_SCHEDULE_H
#define TD_LEARNER_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/util/error.h"

enum schedule_kind {
    SCHEDULE_EVALUATE,  /* whole episodes, in place */
    SCHEDULE_LOG_EVAL,  /* log what it gave */
    SCHEDULE_LOG_TRAIN, /* log the episode that ended */
    SCHEDULE_STORE,     /* it becomes samplable */
    SCHEDULE_RESET,     /* begin an episode; the state just before is where a cut may be made */
    SCHEDULE_STEP,      /* act (at random or planned) and step the environment once */
    SCHEDULE_UPDATE,    /* one update */
    SCHEDULE_FINISH,    /* all done; stays */
};

struct schedule_config {
    uint64_t steps;      /* the last step; steps + 1 are taken */
    uint64_t seed_steps; /* actions are random while step <= seed_steps */
    uint64_t eval_freq;  /* > 0 */
    bool eval_first;     /* evaluate at step 0 too, as the reference does */
    bool episodic;       /* terminations are allowed */
};

struct schedule_event {
    enum schedule_kind kind;
    uint64_t step;    /* agent steps before this one */
    uint64_t episode; /* episodes stored so far = number of the one now open or just ended */
    uint64_t rows;    /* LOG_TRAIN, STORE: rows of that episode; UPDATE: rows stored in all */
    uint64_t update;  /* updates done before this event = the parameters' version */
    bool random;      /* STEP: act at random */
    bool first;       /* STEP: the first of its episode */
};

struct schedule {
    struct schedule_config config;
    enum schedule_kind next;
    uint64_t step, updates, episodes;
    uint64_t episode_steps; /* taken in the open episode */
    uint64_t stored_rows;
    bool eval_due, episode_over;
};

/* Nothing done yet. Asserts eval_freq > 0. */
void schedule_init(struct schedule *schedule, const struct schedule_config *config);

/*
 * Go on just before the RESET that follows `step` steps: `episodes` stored with `rows` rows in all.
 * `updates` may be ahead of the step while the burst is unfinished (those are not repeated).
 */
void schedule_resume(struct schedule *schedule, const struct schedule_config *config, uint64_t step,
                     uint64_t updates, uint64_t episodes, uint64_t rows);

/* What comes next. */
void schedule_next(const struct schedule *schedule, struct schedule_event *event);

/* The event (not STEP, not FINISH) has been carried out. */
void schedule_done(struct schedule *schedule);

/*
 * The STEP has been carried out: whether it ended the episode, and by termination.
 * Returns TD_OK, or TD_EINVAL for a termination without `episodic` (nothing then changes).
 */
int schedule_stepped(struct schedule *schedule, bool over, bool terminated, struct error *err);

/* The inside of an evaluation: episode by episode, reset then planned steps until each is over. */
struct evaluation {
    uint32_t episodes; /* wanted */
    uint32_t finished;
    uint64_t episode_steps; /* taken in the open episode */
    bool open;              /* an episode is running */
};

enum evaluation_kind { EVALUATION_RESET, EVALUATION_STEP, EVALUATION_FINISH };

void evaluation_init(struct evaluation *evaluation, uint32_t episodes);

/* What comes next; *first tells STEP that it begins an episode. */
enum evaluation_kind evaluation_next(const struct evaluation *evaluation, bool *first);

void evaluation_reset_done(struct evaluation *evaluation);
void evaluation_stepped(struct evaluation *evaluation, bool over);

#endif
