/*
 * rundir.h - where the parts of a run are found: addresses recorded in the run directory, and those in the
 * private folder for ipc sockets (util/runtime.h).
 *
 * <run directory>/run/<role>-<id>.addr is a small JSON file, written whole by the part it names when
 * it has bound its sockets and removed when it leaves. A part that was killed leaves its file behind:
 * whoever reads one must expect no answer. Beside it lies <role>-<id>.metrics.json when the part shows its
 * metrics over HTTP: a target of Prometheus' file_sd_configs (all that end with .metrics.json in RUN/run).
 */
#ifndef TD_NET_RUNDIR_H
#define TD_NET_RUNDIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/net/channel.h"
#include "common/util/error.h"
#include "common/util/runtime.h"

#define RUNDIR_ROLE_MAX 16
#define RUNDIR_HOST_MAX 128

struct rundir_part {
    char role[RUNDIR_ROLE_MAX];         /* "learner", "replay", "actor", "evaluator" */
    int id;
    pid_t pid;
    uint64_t process;                   /* its random id */
    uint64_t run_id;
    char stats[CHANNEL_ADDRESS_MAX];
    char control[CHANNEL_ADDRESS_MAX];  /* of the learner, else "" */
    char network[CHANNEL_ADDRESS_MAX];  /* of the learner, where other machines join it, or "" */
    char host[RUNDIR_HOST_MAX];         /* the machine it runs on; rundir_record fills it */
    char dashboard[CHANNEL_ADDRESS_MAX]; /* of the learner, HOST:PORT for a browser, or "" */
    char metrics[CHANNEL_ADDRESS_MAX];  /* HOST:PORT that Prometheus asks, or ""; not read back */
};

/* Write run/<role>-<id>.addr. Returns TD_OK, TD_EINVAL (role) or what fs_write_file says. */
int rundir_record(const char *run_dir, const struct rundir_part *part, struct error *err);

/* Remove it, if it is this process's. */
void rundir_forget(const char *run_dir, const struct rundir_part *part);

/* Read one; TD_ENOTFOUND, TD_ECORRUPT. */
int rundir_find(const char *run_dir, const char *role, int id, struct rundir_part *part,
                struct error *err);

/* The same of such a file's text. False: it is none. */
bool rundir_parse(const char *text, struct rundir_part *part);

/* This machine: its name and this boot of its kernel. The first call reads them. */
const char *rundir_here(void);

/*
 * Where the learner of this run is reached from here: its control address on its own machine, on others that of
 * the network. TD_OK; TD_ENOTFOUND: no learner is recorded; TD_EINVAL: not reached from other machines (bind=).
 */
int rundir_learner(const char *run_dir, char out[CHANNEL_ADDRESS_MAX], struct error *err);

/*
 * learner=@DIR: as rundir_learner, but waits for a learner that has not said yet where it is, at most wait_ms,
 * and says so in the log. TD_OK; TD_ETIMEOUT; TD_EINVAL.
 */
int rundir_await_learner(const char *run_dir, char out[CHANNEL_ADDRESS_MAX], uint64_t wait_ms, struct error *err);

/* All parts, learner first, then by role and id; at most max. Corrupt files are passed over. */
int rundir_list(const char *run_dir, struct rundir_part *parts, int max, int *count,
                struct error *err);

/* The run directory under root (logs) that changed last. TD_ENOTFOUND says what to do. */
int rundir_newest(const char *root, char *out, size_t size, struct error *err);

/* Is there a run in this directory (a config.yaml or a run/ folder)? */
int rundir_check(const char *run_dir, struct error *err);

/* "ipc://<folder>/<name>-<8 digits of process>"; process 0: no digits, an address that stays put. */
int rundir_address(char out[CHANNEL_ADDRESS_MAX], const char *folder, const char *name,
                    uint64_t process, struct error *err);

#endif
