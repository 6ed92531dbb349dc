#include "learner/schedule.h"

/* The head of the reference's loop: is it over, is an evaluation due, did an episode end? */
static void loop_head(struct schedule *schedule)
{
    const struct schedule_config *config = &schedule->config;

    if (schedule->step > config->steps) {
        schedule->next = SCHEDULE_FINISH;
        return;
    }
    if (schedule->step % config->eval_freq == 0 && (schedule->step > 0 || config->eval_first))
        schedule->eval_due = true;
    if (!schedule->episode_over)
        schedule->next = SCHEDULE_STEP;
    else if (schedule->eval_due)
        schedule->next = SCHEDULE_EVALUATE;
    else
        schedule->next = schedule->step > 0 ? SCHEDULE_LOG_TRAIN : SCHEDULE_RESET;
}

/*
 * Updates owed after the step numbered `step`: none before seed_steps, seed_steps of them at it, one
 * more after each later step - in all, just as many as the step's number.
 */
static void after_step(struct schedule *schedule)
{
    if (schedule->step >= schedule->config.seed_steps && schedule->updates < schedule->step) {
        schedule->next = SCHEDULE_UPDATE;
        return;
    }
    schedule->step++;
    loop_head(schedule);
}

void schedule_init(struct schedule *schedule, const struct schedule_config *config)
{
    TD_ASSERT(config->eval_freq > 0, "eval_freq 0");
    *schedule = (struct schedule){.config = *config, .episode_over = true};
    loop_head(schedule);
}

void schedule_resume(struct schedule *schedule, const struct schedule_config *config, uint64_t step,
                     uint64_t updates, uint64_t episodes, uint64_t rows)
{
    TD_ASSERT(config->eval_freq > 0, "eval_freq 0");
    *schedule = (struct schedule){
        .config = *config,
        .next = step > config->steps ? SCHEDULE_FINISH : SCHEDULE_RESET,
        .step = step,
        .updates = updates,
        .episodes = episodes,
        .stored_rows = rows,
        .episode_over = true,
    };
}

void schedule_next(const struct schedule *schedule, struct schedule_event *event)
{
    *event = (struct schedule_event){
        .kind = schedule->next,
        .step = schedule->step,
        .episode = schedule->episodes,
        .update = schedule->updates,
        .rows = schedule->next == SCHEDULE_UPDATE ? schedule->stored_rows : schedule->episode_steps + 1,
        .random = schedule->next == SCHEDULE_STEP && schedule->step <= schedule->config.seed_steps,
        .first = schedule->next == SCHEDULE_STEP && schedule->episode_steps == 0,
    };
}

void schedule_done(struct schedule *schedule)
{
    switch (schedule->next) {
    case SCHEDULE_EVALUATE:
        schedule->next = SCHEDULE_LOG_EVAL;
        break;
    case SCHEDULE_LOG_EVAL:
        schedule->eval_due = false;
        schedule->next = schedule->step > 0 ? SCHEDULE_LOG_TRAIN : SCHEDULE_RESET;
        break;
    case SCHEDULE_LOG_TRAIN:
        schedule->next = SCHEDULE_STORE;
        break;
    case SCHEDULE_STORE:
        schedule->episodes++;
        schedule->stored_rows += schedule->episode_steps + 1;
        schedule->next = SCHEDULE_RESET;
        break;
    case SCHEDULE_RESET:
        schedule->episode_over = false;
        schedule->episode_steps = 0;
        schedule->next = SCHEDULE_STEP;
        break;
    case SCHEDULE_UPDATE:
        schedule->updates++;
        after_step(schedule);
        break;
    case SCHEDULE_STEP:
    case SCHEDULE_FINISH:
        TD_ASSERT(false, "event %d", (int)schedule->next);
    }
}

int schedule_stepped(struct schedule *schedule, bool over, bool terminated, struct error *err)
{
    TD_ASSERT(schedule->next == SCHEDULE_STEP, "event %d", (int)schedule->next);
    if (terminated && !schedule->config.episodic)
        return error_set(err, TD_EINVAL,
                         "the environment terminated at step %llu but terminations are not learned: "
                         "give episodic=true",
                         (unsigned long long)schedule->step);
    schedule->episode_steps++;
    schedule->episode_over = over;
    after_step(schedule);
    return TD_OK;
}

void evaluation_init(struct evaluation *evaluation, uint32_t episodes)
{
    *evaluation = (struct evaluation){.episodes = episodes};
}

enum evaluation_kind evaluation_next(const struct evaluation *evaluation, bool *first)
{
    *first = evaluation->open && evaluation->episode_steps == 0;
    if (evaluation->open)
        return EVALUATION_STEP;
    return evaluation->finished < evaluation->episodes ? EVALUATION_RESET : EVALUATION_FINISH;
}

void evaluation_reset_done(struct evaluation *evaluation)
{
    TD_ASSERT(!evaluation->open && evaluation->finished < evaluation->episodes);
    evaluation->open = true;
    evaluation->episode_steps = 0;
}

void evaluation_stepped(struct evaluation *evaluation, bool over)
{
    TD_ASSERT(evaluation->open);
    evaluation->episode_steps++;
    if (over) {
        evaluation->open = false;
        evaluation->finished++;
    }
}
