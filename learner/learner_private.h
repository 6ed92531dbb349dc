/*
 * learner_private.h - the inside of the learner daemon, shared by its files:
 *   learner.c          life: creation, signals, the end
 *   learner_outputs.c  what the coordinator wants done, and the results of computing
 *   learner_sockets.c  addresses, sockets, children
 *   learner_status.c   metrics, the estimate of the time left, the bottleneck in words
 */
#ifndef TD_LEARNER_LEARNER_PRIVATE_H
#define TD_LEARNER_LEARNER_PRIVATE_H

#include "common/env/env.h"
#include "common/metrics/metrics.h"
#include "common/model/task_set.h"
#include "common/net/loop.h"
#include "common/net/post.h"
#include "common/net/rundir.h"
#include "common/net/stats.h"
#include "learner/child.h"
#include "learner/compute.h"
#include "learner/coordinator.h"
#include "learner/dashboard/dashboard.h"
#include "learner/journal.h"
#include "learner/learner.h"
#include "learner/run.h"

#define STATUS_SECONDS 61 /* samples of the last minute */
#define RETURNS_KEPT   10

/* Counts once a second, to take rates of; a ring. */
struct status_sample {
    uint64_t time_ms, steps, updates, busy_ms;
    uint64_t wait_ms[3];
};

struct live_status {
    struct status_sample samples[STATUS_SECONDS];
    unsigned count;
    struct coordinator_view last; /* totals that counters have been raised to */
    double returns[RETURNS_KEPT];
    unsigned return_count;
    double task_return[TASKS_MAX]; /* of late: each new one counts a quarter; NAN: none yet */
    double busy_ms;               /* spent in updates */
    uint64_t requested_ns;        /* when slices were last asked for; 0: no request is open */
};

struct learner {
    struct run run;
    struct task_set tasks;
    struct env_spec env; /* of the only one; of several, their widest sizes */
    double repeat;       /* environment steps per agent step, the mean over tasks */
    uint64_t process;
    int cores, threads;
    loop_t *loop;
    metrics_t *metrics;
    guard_t *guard;                      /* or NULL */
    post_t *post;
    stats_t *stats;
    exporter_t *exporter;                /* or NULL */
    dashboard_t *dashboard;              /* or NULL */
    char network[ADDRESS_MAX]; /* where other machines join, or "" */
    struct rundir_part record;
    bool recorded;
    char folder[RUNTIME_PATH_MAX];       /* of the ipc sockets */
    char *options;                       /* config.yaml, as told to actors */
    size_t options_size;
    struct coordinator_config settings;
    coordinator_t *coordinator;
    loop_timer_t *deadline, *second;
    /* computing */
    compute_t *compute;
    loop_wake_t *computed;
    checkpoint_t *checkpoint;            /* to go on from, until the model is built */
    finetune_t *finetune;                /* to begin with, until the model is built */
    struct compute_batch batches[2];
    channel_blob_t *blobs[2][WIRE_SHARDS_MAX]; /* the memory of their parts */
    struct update_stats last_stats;
    bool has_stats;
    bool raise_epoch;                    /* asked for while draining */
    uint32_t raise_above;
    /* files and children */
    journal_t *journal;
    child_t *shard, *evaluator;
    loop_timer_t *evaluator_again; /* its next start after exit code 4 */
    /* the end */
    bool over;    /* the coordinator has told all parts that it ends: nobody starts it again */
    bool childless; /* the spawner was killed */
    bool exiting;
    int code;
    struct live_status status;
};

/* learner.c */
/* Begin to end: stop evaluator, then shard, then the loop. Later calls change nothing. */
void learner_exit(learner_t *learner, int code, const char *why);

/* learner_outputs.c */
/* Carry out what the coordinator wants; after every call that feeds it. */
void learner_drain(learner_t *learner);
/* Results of the compute thread. */
void learner_computed(void *learner);

/* learner_sockets.c */
int learner_bind(learner_t *learner, struct error *err);
int learner_start_children(learner_t *learner, struct error *err);
void learner_stop_children(learner_t *learner);

/* learner_status.c */
/* Counts as of now, whenever somebody asks; rates and estimates once a second. */
void status_refresh(void *learner);
void status_second(void *learner);
void status_episode(learner_t *learner, double reward, uint32_t task);
double status_step_rate(const learner_t *learner);

#endif
