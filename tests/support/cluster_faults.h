/*
 * cluster_faults.h - a seeded plan of faults for the simulated cluster, and what must hold in spite of it.
 *
 * A plan is drawn from its seed alone: how many messages are lost, doubled and late, until when, and a
 * list of troubles with their times: kills, SIGTERMs, SIGSTOPs, connections reset with what is under way,
 * partitions of any subset. Every trouble ends by itself, so at the end all is healed. A trouble left out
 * (`skip`) changes nothing else of the plan: that is how a failing one is made small.
 */
#ifndef TD_TEST_CLUSTER_FAULTS_H
#define TD_TEST_CLUSTER_FAULTS_H

#include "tests/support/cluster.h"

#define TROUBLES_MAX 24

enum trouble_kind { TROUBLE_KILL, TROUBLE_TERMINATE, TROUBLE_STOP, TROUBLE_RESET, TROUBLE_LOSE,
                    TROUBLE_PART, TROUBLE_KINDS };

struct trouble {
    enum trouble_kind kind;
    uint64_t at_ms;     /* after the start of the run */
    uint64_t for_ms;    /* down, stopped, parted so long */
    uint64_t nodes;     /* bit i: the i-th node (modulo their number) */
    bool held;          /* PART: messages wait for the end of it; else they are lost */
    bool one_way;       /* PART: only what these nodes send */
};

struct fault_plan {
    uint64_t seed;
    struct cluster_options options;
    double loss, twice, late;
    uint64_t late_ms, until_ms;
    bool wild;          /* beyond what a connection does: any order, old copies at any time */
    int count, next;
    struct trouble troubles[TROUBLES_MAX];
    uint64_t skip;      /* bit i: leave the i-th trouble out */
    uint64_t started;
    /* what was seen while it ran */
    uint64_t checks;
};

/* The plan of this seed: an asynchronous run of random size, or one in lock-step. */
void plan_draw(struct fault_plan *plan, uint64_t seed);

/* Let it happen to this cluster, which begins now. */
void plan_attach(struct fault_plan *plan, struct cluster *cluster);

/* When the last of it is over. */
uint64_t plan_end_ms(const struct fault_plan *plan);

/* A line for the rates and one for each trouble that is not skipped. */
void plan_print(const struct fault_plan *plan);

/*
 * The limiter's promises, at any moment: counts only rise within a learner's life, updates never exceed
 * what is owed, limits never exceed the run once seeding is over. Fails the test.
 */
void plan_check(struct fault_plan *plan, struct cluster *cluster);

#endif
