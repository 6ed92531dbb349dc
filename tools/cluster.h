/*
 * cluster.h - the cluster file of `tdmpc2 launch`: what runs where, read from YAML and checked.
 *
 *   name: walker
 *   engine: ssh                        # local, ssh or slurm
 *   dir: /data/runs/walker             # the run directory; %h stands for the host's name
 *   shared: true                       # ssh: all hosts see the same dir
 *   options: {task: walker-walk, model_size: 5}
 *   keys: true                         # or the directory of keys made before; ssh, slurm: true by default
 *   programs: copy                     # or the folder that has them on every host
 *   ssh: [-p, 2222]                    # further words for ssh
 *   # learner: {options: {replay_dir:}} is where the shard beside it stores
 *   learner: {host: trainer, address: 10.0.0.1, port: 0, options: {threads: 8}, partition: gpu, cpus: 8, time: "24:00:00"}
 *   shards: {count: 2, hosts: [store]} # beside the learner's own, which counts
 *   actors: {count: 16, hosts: [a, b], options: {envs: 2}, partition: cpu, cpus: 1, sbatch: ["--mem=2G"]}
 */
#ifndef TD_TOOLS_CLUSTER_H
#define TD_TOOLS_CLUSTER_H

#include <stdbool.h>

#include "common/util/error.h"
#include "common/util/fs.h"

#define CLUSTER_TEXT_MAX   512
#define CLUSTER_NAME_MAX   41
#define CLUSTER_WORDS_MAX  64
#define CLUSTER_ACTORS_MAX 2048
#define CLUSTER_HOSTS_MAX  256

enum cluster_engine { ENGINE_LOCAL, ENGINE_SSH, ENGINE_SLURM };

/* A list of texts, NULL-terminated. */
struct cluster_words {
    int count;
    char *word[CLUSTER_HOSTS_MAX + 1];
};

struct cluster_role {
    int count;
    struct cluster_words hosts;
    struct cluster_words options; /* key=value, of this role alone */
    struct cluster_words sbatch;  /* further words for sbatch */
    char address[CLUSTER_TEXT_MAX]; /* of the learner: the host that others connect to */
    int port;                       /* of the learner; 0: any */
    char partition[CLUSTER_TEXT_MAX], time[CLUSTER_TEXT_MAX];
    int cpus;                       /* 0: not said */
};

struct cluster {
    char file[FS_PATH_MAX];   /* as given */
    char state[FS_PATH_MAX];  /* folder beside the file for keys and scripts: FILE without .yaml, then .cluster */
    char name[CLUSTER_NAME_MAX];
    enum cluster_engine engine;
    char dir[CLUSTER_TEXT_MAX];
    bool shared;
    bool keys;
    char keys_dir[CLUSTER_TEXT_MAX]; /* "": made in `state` */
    char programs[CLUSTER_TEXT_MAX]; /* "copy", a folder, or "": that of this program */
    struct cluster_words ssh;
    struct cluster_words options;    /* of the run: the learner's; log, sandbox and insecure of all */
    bool insecure;
    struct cluster_role learner, shards, actors;
};

/*
 * Read a file; `engine` (may be NULL) wins over the one in it. A key that is not known names the nearest one and its line.
 * TD_OK, TD_EINVAL, TD_ENOTFOUND, TD_ENOMEM. cluster_release is due in every case.
 */
int cluster_load(struct cluster *cluster, const char *path, const char *engine, struct error *err);

/* The same of bytes; `path` stands for the file. */
int cluster_read(struct cluster *cluster, const char *bytes, size_t length, const char *path, const char *engine,
                 struct error *err);

void cluster_release(struct cluster *cluster);

/* Does this name a cluster file: .yaml or .yml at its end? */
bool cluster_is_file(const char *path);

/* dir= of a host: %h replaced by its name, user@ cut off. */
void cluster_dir(const struct cluster *cluster, const char *host, char out[FS_PATH_MAX]);

/* host without user@. */
const char *cluster_host_name(const char *host);

const char *cluster_engine_name(enum cluster_engine engine);

#endif
