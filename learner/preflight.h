/*
 * preflight.h - what can be known to be wrong before a run directory is begun: its place, the address to
 * listen on, the replay directory and the room for it. Leaves nothing behind.
 *
 * Thread:  any, while no channel of the same address is open.
 */
#ifndef TD_LEARNER_PREFLIGHT_H
#define TD_LEARNER_PREFLIGHT_H

#include "common/env/env.h"
#include "common/model/task_set.h"
#include "common/store/store.h"
#include "learner/run.h"

/* The private folder for sockets is there or can be made; keys= are whole, bind= and advertise= make sense, and nobody listens there. TD_OK, or as channel_bind. */
int preflight_address(const struct config *config, struct error *err);

struct preflight_replay {
    char dir[FS_PATH_MAX];        /* of the learner's own shard */
    uint64_t rows;                /* so many will come */
    struct store_outlook outlook;
};

/*
 * Where and how the learner's own shard has its store, into *store (tasks: of the options, or NULL: one); dir holds its path and is borrowed by it. TD_OK or
 * TD_EINVAL (a path too long).
 */
int preflight_store(struct store_config *store, char dir[FS_PATH_MAX], const struct run *look, const struct env_spec *env,
                    const struct task_set *tasks, struct error *err);

/*
 * The run directory can be made, and the learner's own shard will find or make its store. `look` as
 * run_look filled it. Waits up to lock_wait_ms for a store's owner to go. TD_OK; TD_EINVAL (cannot be
 * written, an unsafe file system, no room), TD_EFOREIGN, TD_ELOCKED, TD_ECORRUPT as store_open's.
 */
int preflight_replay(struct preflight_replay *replay, const struct run *look, const struct env_spec *env,
                     const struct task_set *tasks, uint64_t lock_wait_ms, struct error *err);

#endif
