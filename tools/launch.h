/*
 * launch.h - what the commands on a cluster file share: launch, status, scale, stop, logs.
 *
 * Two engines: hosts (local and ssh are the same, `tdmpc2 part` does it there) and Slurm (scripts for sbatch).
 */
#ifndef TD_TOOLS_LAUNCH_H
#define TD_TOOLS_LAUNCH_H

#include <stdbool.h>

#include "tools/cluster.h"
#include "tools/hosts.h"

struct launch {
    struct cluster cluster;
    bool dry_run, follow;
    int actors;                 /* scale: as many as wanted */
    int patience_s;             /* for the learner to say where it is */
    const char *role;           /* logs: of whom; NULL: all */
    char programs[FS_PATH_MAX]; /* folder of the programs on the hosts, "/" at its end */
    int lock;
};

/* Run a command on a cluster file as an engine does it. */
int launch_hosts(struct launch *launch, struct error *err);
int launch_hosts_status(struct launch *launch, struct error *err);
int launch_hosts_scale(struct launch *launch, struct error *err);
int launch_hosts_stop(struct launch *launch, struct error *err);
int launch_hosts_logs(struct launch *launch, struct error *err);

int launch_slurm(struct launch *launch, struct error *err);
int launch_slurm_status(struct launch *launch, struct error *err);
int launch_slurm_scale(struct launch *launch, struct error *err);
int launch_slurm_stop(struct launch *launch, struct error *err);
int launch_slurm_logs(struct launch *launch, struct error *err);

/* `tdmpc2 stop FILE.yaml`: the exit code. */
int launch_stop(int argc, char **argv);

/* Make the keys of the run, of so many actors, unless the file names a directory that has them. */
int launch_make_keys(const struct launch *launch, int actors, struct error *err);

/* Where they are on this machine. */
void launch_keys_dir(const struct launch *launch, char out[FS_PATH_MAX]);

/*
 * The keys of these parts ("actor-3", "learner", ...) and the list, as `part keys` reads them. malloc'd, a secret:
 * explicit_bzero before free.
 */
int launch_pack_keys(const struct launch *launch, const char *const *names, int count, char **out, size_t *length,
                     struct error *err);

/* The words of a part, %d and %n left to be filled in by `part start`; appended to the job. */
int launch_learner_words(const struct launch *launch, struct host_job *job);
int launch_actor_words(const struct launch *launch, struct host_job *job);

/* launch->programs for `programs: copy`: they are put on these hosts, unless they are there. launch_copy.c */
int launch_copy_programs(struct launch *launch, const char *const *hosts, int count, struct error *err);

/* One line about the run from the learner's snapshot (`part ask`); "" when it does not answer. */
void launch_summary(const char *json, char *out, size_t size);

#endif
