/*
 * daemon.h - the process around the shard's machine: sockets, clock, signals, statistics.
 *
 * Received messages are fed to the machine as they come and committed together when no more are
 * waiting, at the latest after `commit_interval_ms`. Transactions, draws and sockets share the one
 * loop thread.
 *
 * Owns:    loop, sockets, machine, metrics.
 * Thread:  the one that calls daemon_run.
 */
#ifndef TD_REPLAY_DAEMON_H
#define TD_REPLAY_DAEMON_H

#include <stdbool.h>

#include "common/net/address.h"
#include "common/net/confine.h"
#include "common/net/exporter.h"
#include "common/util/fs.h"
#include "learner/replay/shard.h"

struct daemon_config {
    struct shard_config shard;         /* its addresses are filled in here */
    char run_dir[FS_PATH_MAX];         /* where to record the address of the statistics; empty: nowhere */
    char bind[ADDRESS_MAX];            /* empty: ipc only */
    char advertise[ADDRESS_MAX];       /* host to be told instead of bind's, or empty */
    bool sample_tcp;                   /* the learner is on another host */
    bool insecure;
    char keys[FS_PATH_MAX];            /* directory of keys, or empty */
    const struct config *options;      /* for sandbox=, with what stays allowed: borrowed */
    const struct sandbox *keep;
    exporter_t *exporter;              /* taken; or NULL */
    bool child;                        /* of the learner: leaves when that dies */
};

/*
 * Run until the machine says exit, or a second signal. Returns the exit code; the sentence that goes
 * with a code other than 0 has been logged.
 */
int daemon_run(const struct daemon_config *config);

#endif
