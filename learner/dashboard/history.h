/*
 * history.h - how a run's rates, lags and waits went, from its beginning, in bounded memory.
 *
 * Times are seconds of the run, those of its earlier lives included. The last HISTORY_RECENT samples are kept as
 * they came; all of them also as means over intervals, each interval twice as long whenever there are more than
 * HISTORY_WHOLE. A value is NaN where there was none.
 *
 * Owns:    nothing beside itself: may be copied.
 * Thread:  one at a time.
 */
#ifndef TD_LEARNER_DASHBOARD_HISTORY_H
#define TD_LEARNER_DASHBOARD_HISTORY_H

#include <stddef.h>
#include <stdint.h>

#include "common/metrics/metrics.h"

#define HISTORY_RECENT 600
#define HISTORY_WHOLE  1000

/* What is kept: metrics of the registry, under their names there; of counters the rate. */
#define HISTORY_COLUMNS(RATE, VALUE)                                                                                      \
    RATE(env_steps) RATE(updates) RATE(slices) VALUE(ratio) VALUE(target_ratio) VALUE(parameter_lag) VALUE(limiter_cursor) \
    VALUE(limiter_slack) RATE(wait_steps_ms) RATE(wait_samples_ms) RATE(wait_checkpoint_ms) VALUE(replay_steps)            \
    VALUE(replay_capacity) VALUE(replay_episodes) VALUE(replay_retired) VALUE(actors_live) VALUE(resident_bytes)

enum history_column {
#define HISTORY_ONE(name) HISTORY_##name,
    HISTORY_COLUMNS(HISTORY_ONE, HISTORY_ONE)
#undef HISTORY_ONE
    HISTORY_COUNT
};

struct history_row {
    double time;
    float value[HISTORY_COUNT];
};

struct history {
    struct history_row recent[HISTORY_RECENT]; /* a ring */
    uint64_t recent_count;                     /* ever */
    struct history_row whole[HISTORY_WHOLE];
    int whole_count;
    double interval;       /* seconds */
    struct history_row sum; /* of the interval under way; time is its start */
    uint32_t counts[HISTORY_COUNT];
    uint32_t rows; /* in it */
    double last;   /* time of the newest; -1: none */
};

void history_init(struct history *history);

/* The registry as it stands, at this second of the run. The loop's thread, as metrics_rate is. */
void history_add(struct history *history, metrics_t *metrics, uint64_t now_ms, double time);

/* One row; times that do not rise are passed over. recent: not only into the means. */
void history_push(struct history *history, const struct history_row *row, bool recent);

/*
 * What an earlier life of the run wrote into train.csv: rates and the update ratio. repeat: environment
 * steps per agent step. Nothing happens when there is no such file.
 */
void history_restore(struct history *history, const char *train_csv, double repeat);

/* {"columns":["time",...],"rows":[[...],...]}, malloc'd, oldest row first; NULL: out of memory. */
char *history_json(const struct history *history, size_t *length);

#endif
