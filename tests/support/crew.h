/*
 * crew.h - a learner (with its shard and evaluator) and actors of the real programs over tcp on the loopback,
 * started by hand and started again by the test whenever they die: no supervisor gives up on them.
 *
 * What actors send and what is acknowledged is noted outside the code under test (tap.h).
 */
#ifndef TD_TEST_CREW_H
#define TD_TEST_CREW_H

#include "tests/support/live.h"
#include "tests/support/tap.h"

#define CREW_ACTORS 2

/* Whom a fault may strike. */
enum crew_part { CREW_LEARNER, CREW_SHARD, CREW_EVALUATOR, CREW_ACTOR, CREW_PARTS = CREW_ACTOR + CREW_ACTORS };

struct crew {
    struct live live;
    pid_t learner, actors[CREW_ACTORS];
    char notes[500], words[4][520];
    uint32_t children; /* deaths of the learner's own since it started: it gives up at five young ones */
};

/* Start all; `buffer` rows are kept, on a disk whose syncs take so much longer. Noted: it can be audited. */
void crew_start(struct crew *crew, const char *name, int buffer, int slow_disk_ms, bool noted);

/* The part's process now, 0: none. */
pid_t crew_find(const struct crew *crew, enum crew_part part);
const char *crew_name(enum crew_part part);

/* A random part that may be struck now. */
enum crew_part crew_choose(const struct crew *crew);

/* SIGTERM or SIGSTOP of an actor, learner, ...; false: it was not there. */
bool crew_signal(struct crew *crew, enum crew_part part, int number);

/* kill -9; `crew_tend` starts it again. False: it was not there. */
bool crew_kill(struct crew *crew, enum crew_part part);

/* Start again who was killed. An end that nobody asked for fails the test. */
void crew_tend(struct crew *crew);

/* Steps and updates rise, whatever they are at now; fails the test after `ms`. */
void crew_goes_on(struct crew *crew, int ms);

/* Compare the store with the notes: `kill` stops the learner, kills the shard first (it is started again). */
struct tap_result crew_audit(struct crew *crew, int kept, bool kill);

/* All leave in good order with exit code 0; the last checkpoint loads. */
void crew_stop(struct crew *crew);

#endif
