#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/net/notify.h"
#include "learner/learner_private.h"
#include "learner/task_line.h"

#define ESTIMATE_AFTER 20 /* updates, before the time left is estimated */

static const char learner_bound[] = "the learner's updates bound the run: more actors will not help; lower "
                                    "utd, choose a smaller model or add cores";
static const char actors_bound[] = "the learner waits for agent steps: more actors, or more cores for them, "
                                   "would help";
static const char shard_bound[] = "the learner waits for slices: the replay shard or its disk bounds the run";

/* --- samples ----------------------------------------------------------------- */

static const struct status_sample *newest(const struct live_status *status)
{
    return &status->samples[(status->count - 1) % STATUS_SECONDS];
}

/* The sample `seconds` ago, or the oldest there is. */
static const struct status_sample *sample_ago(const struct live_status *status, unsigned seconds)
{
    unsigned kept = status->count < STATUS_SECONDS ? status->count : STATUS_SECONDS;

    if (seconds > kept - 1)
        seconds = kept - 1;
    return &status->samples[(status->count - 1 - seconds) % STATUS_SECONDS];
}

static double seconds_between(const struct status_sample *from, const struct status_sample *to)
{
    return (double)(to->time_ms - from->time_ms) / 1000.0;
}

static void take_sample(struct live_status *status, uint64_t now_ms, const struct coordinator_view *view)
{
    struct status_sample *sample = &status->samples[status->count++ % STATUS_SECONDS];

    sample->time_ms = now_ms;
    sample->steps = view->steps;
    sample->updates = view->updates;
    sample->busy_ms = (uint64_t)status->busy_ms;
    memcpy(sample->wait_ms, view->wait_ms, sizeof(sample->wait_ms));
}

double status_step_rate(const learner_t *learner)
{
    const struct live_status *status = &learner->status;
    const struct status_sample *from, *to;
    double seconds;

    if (status->count < 2)
        return NAN;
    from = sample_ago(status, STATUS_SECONDS - 1);
    to = newest(status);
    seconds = seconds_between(from, to);
    return seconds > 0 && to->steps >= from->steps ? (double)(to->steps - from->steps) / seconds : NAN;
}

/* --- what it means ------------------------------------------------------------ */

/* Share of the run that is done: of its steps or of its updates, whichever is behind. */
static double progress(const struct coordinator_view *view)
{
    double steps = fmin(1, (double)view->steps / (double)view->steps_total);

    return view->left == 0 ? steps
                           : fmin(steps, (double)view->updates / (double)(view->updates + view->left));
}

/* Seconds to the end of the run; NAN: too early to say. */
static double time_left(const learner_t *learner, const struct coordinator_view *view)
{
    const struct live_status *status = &learner->status;
    const struct status_sample *from = sample_ago(status, STATUS_SECONDS - 1), *to = newest(status);
    double seconds = seconds_between(from, to), rate;

    if (view->updates < ESTIMATE_AFTER || seconds <= 0 || to->updates <= from->updates)
        return NAN;
    rate = (double)(to->updates - from->updates) / seconds;
    return (double)view->left / rate;
}

static const char *bottleneck(const learner_t *learner, const struct coordinator_view *view)
{
    const struct status_sample *from = sample_ago(&learner->status, 10), *to = newest(&learner->status);
    double seconds = seconds_between(from, to);

    if (view->trouble[0] != '\0')
        return view->trouble;
    if (seconds < 5 || view->phase != PHASE_RUNNING)
        return "";
    if ((double)(to->busy_ms - from->busy_ms) > 900 * seconds)
        return learner_bound;
    if ((double)(to->wait_ms[0] - from->wait_ms[0]) > 300 * seconds)
        return actors_bound;
    if ((double)(to->wait_ms[1] - from->wait_ms[1]) > 300 * seconds)
        return shard_bound;
    return "";
}

/* --- into the metrics ---------------------------------------------------------- */

/* Totals that the coordinator keeps become counters here; after a rewind they stand still. */
static void raise_counter(learner_t *learner, enum metric metric, uint64_t total, uint64_t last)
{
    if (total > last)
        metrics_add(learner->metrics, metric, total - last);
}

static void set_counters(learner_t *learner, const struct coordinator_view *view)
{
    const struct coordinator_view *last = &learner->status.last;
    bool found = learner->run.resumed && last->steps == 0; /* steps of earlier lives, all at once: no rate */

    raise_counter(learner, METRIC_env_steps, (uint64_t)((double)view->steps * learner->repeat),
                  (uint64_t)((double)(found ? view->steps : last->steps) * learner->repeat));
    raise_counter(learner, METRIC_wait_steps_ms, view->wait_ms[0], last->wait_ms[0]);
    raise_counter(learner, METRIC_wait_samples_ms, view->wait_ms[1], last->wait_ms[1]);
    raise_counter(learner, METRIC_wait_checkpoint_ms, view->wait_ms[2], last->wait_ms[2]);
}

static void set_gauges(learner_t *learner, const struct coordinator_view *view)
{
    metrics_t *metrics = learner->metrics;

    metrics_set(metrics, METRIC_agent_steps, (double)view->steps);
    metrics_set(metrics, METRIC_target_steps, (double)view->steps_total);
    metrics_set(metrics, METRIC_progress, progress(view));
    metrics_set(metrics, METRIC_learner_epoch, learner->run.epoch);
    metrics_set(metrics, METRIC_parameter_version, (double)view->newest.version);
    if (view->oldest_version != UINT64_MAX)
        metrics_set(metrics, METRIC_parameter_lag, (double)view->updates - (double)view->oldest_version);
    metrics_set(metrics, METRIC_limiter_cursor, (double)view->cursor);
    metrics_set(metrics, METRIC_limiter_slack, learner->run.config.slack * view->streams);
    metrics_set(metrics, METRIC_replay_rows, (double)view->rows);
    metrics_set(metrics, METRIC_replay_episodes, (double)view->samplable);
    metrics_set(metrics, METRIC_replay_steps, (double)view->drawable);
    metrics_set(metrics, METRIC_replay_capacity, (double)learner->run.config.buffer_size);
    metrics_set(metrics, METRIC_replay_retired, (double)view->retired);
    metrics_set(metrics, METRIC_actors_live, view->actors);
    metrics_set(metrics, METRIC_streams_live, view->streams);
    metrics_set(metrics, METRIC_shards_live, view->shards);
    metrics_set(metrics, METRIC_target_ratio, learner->run.config.utd);
    if (view->phase == PHASE_RUNNING && view->steps >= view->steps_total && view->left > 0)
        metrics_text(metrics, METRIC_phase, "catching up: %llu updates left", (unsigned long long)view->left);
    else
        metrics_text(metrics, METRIC_phase, "%s", phase_name(view->phase));
    metrics_text(metrics, METRIC_waiting, "%s", view->wait);
}

static void set_tasks(learner_t *learner)
{
    struct coordinator_task tasks[TASKS_MAX];
    char text[METRICS_LONG_MAX];
    int count = coordinator_tasks(learner->coordinator, loop_now_ms(learner->loop), tasks, TASKS_MAX);

    (void)task_line(text, sizeof(text), &learner->tasks, tasks, learner->status.task_return, count);
    metrics_text(learner->metrics, METRIC_tasks, "%s", text);
}

static void set_estimates(learner_t *learner, const struct coordinator_view *view)
{
    const struct status_sample *from = sample_ago(&learner->status, STATUS_SECONDS - 1);
    const struct status_sample *to = newest(&learner->status);
    double left = time_left(learner, view);

    if (to->steps > from->steps && to->updates >= from->updates)
        metrics_set(learner->metrics, METRIC_ratio,
                    (double)(to->updates - from->updates) / (double)(to->steps - from->steps));
    metrics_set(learner->metrics, METRIC_time_left, left); /* NAN is left out of snapshots */
    metrics_text(learner->metrics, METRIC_bottleneck, "%s", bottleneck(learner, view));
}

static void set_present(learner_t *learner, const struct coordinator_view *view)
{
    set_counters(learner, view);
    set_gauges(learner, view);
    if (learner->tasks.multitask)
        set_tasks(learner);
    learner->status.last = *view;
}

void status_refresh(void *context)
{
    learner_t *learner = context;
    struct coordinator_view view;

    coordinator_view(learner->coordinator, loop_now_ms(learner->loop), &view);
    set_present(learner, &view);
}

/* Actors may come once one of its shards has. */
static void tell_systemd(const struct coordinator_view *view, uint64_t now_ms)
{
    if (view->phase > PHASE_STARTING || view->shards_known > 0)
        notify_ready();
    notify_status("%s, %llu of %llu agent steps, %u actors%s%s", phase_name(view->phase), (unsigned long long)view->steps,
                  (unsigned long long)view->steps_total, view->actors, view->wait[0] != '\0' ? ", waits for " : "", view->wait);
    notify_beat(now_ms);
}

/* Who takes part, and all the metrics, for the page. */
static void show(learner_t *learner, uint64_t now)
{
    struct coordinator_member members[DASHBOARD_PARTS];
    int count;

    if (learner->dashboard == NULL)
        return;
    count = coordinator_shards(learner->coordinator, now, members, DASHBOARD_PARTS);
    count += coordinator_members(learner->coordinator, now, members + count, DASHBOARD_PARTS - count);
    dashboard_update(learner->dashboard, learner->metrics, members, count, now, journal_seconds(learner->journal));
}

void status_second(void *context)
{
    learner_t *learner = context;
    uint64_t now = loop_now_ms(learner->loop);
    struct coordinator_view view;

    coordinator_view(learner->coordinator, now, &view);
    take_sample(&learner->status, now, &view);
    set_present(learner, &view);
    set_estimates(learner, &view);
    show(learner, now);
    if (!learner->exiting)
        tell_systemd(&view, now);
}

void status_episode(learner_t *learner, double reward, uint32_t task)
{
    struct live_status *status = &learner->status;
    double *late = &status->task_return[task < TASKS_MAX ? task : 0];
    unsigned kept;
    double sum = 0;

    *late = isnan(*late) ? reward : 0.75 * *late + 0.25 * reward;
    status->returns[status->return_count++ % RETURNS_KEPT] = reward;
    kept = status->return_count < RETURNS_KEPT ? status->return_count : RETURNS_KEPT;
    for (unsigned i = 0; i < kept; i++)
        sum += status->returns[i];
    metrics_set(learner->metrics, METRIC_episode_return, sum / kept);
}
