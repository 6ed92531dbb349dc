/* tdmpc2-replay - one replay shard: keeps the actors' rows, serves the learner slices of them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/net/confine.h"
#include "common/net/guard.h"
#include "common/net/notify.h"
#include "common/net/process.h"
#include "common/net/rundir.h"
#include "common/util/config.h"
#include "common/util/fs.h"
#include "common/util/log.h"
#include "learner/replay/daemon.h"

static int usage(FILE *out, int code)
{
    fprintf(out,
            "usage: tdmpc2-replay learner=ADDRESS [shard=N] [replay_dir=DIR] [bind=tcp://HOST:PORT] "
            "[key=value ...]\n\n"
            "One replay shard. The learner starts the first by itself; further ones (shards=N) are\n"
            "started by hand, anywhere, with a directory of their own. Options:\n\n");
    config_help(out);
    return code;
}

/* work_dir, or the run directory that the other options name. */
static int find_folders(const struct config *config, struct daemon_config *daemon, char *dir, size_t size,
                        struct error *err)
{
    int length, rc;

    if (config->replay_dir[0] != '\0' && config->work_dir[0] == '\0') {
        snprintf(dir, size, "%s", config->replay_dir); /* nothing of the run is on this host */
        return TD_OK;
    }
    if ((rc = config_run_dir(config, daemon->run_dir, sizeof(daemon->run_dir), err)) != TD_OK)
        return rc;
    if (config->replay_dir[0] != '\0')
        length = snprintf(dir, size, "%s", config->replay_dir);
    else if (config->shard == 0)
        length = snprintf(dir, size, "%s/replay", daemon->run_dir);
    else
        length = snprintf(dir, size, "%s/replay-%d", daemon->run_dir, (int)config->shard);
    return length < (int)size ? TD_OK
                              : error_set(err, TD_EINVAL, "the replay directory's path is too long");
}

static int parse_run(const struct config *config, uint64_t *run, struct error *err)
{
    char *end;

    *run = 0;
    if (config->run_id[0] == '\0')
        return TD_OK;
    *run = strtoull(config->run_id, &end, 16);
    if (*end != '\0' || *run == 0)
        return error_set(err, TD_EINVAL, "run_id=%s is not a hexadecimal number", config->run_id);
    return TD_OK;
}

/* learner=@DIR: where the run directory says. */
static int find_learner(struct config *config, struct error *err)
{
    char found[ADDRESS_MAX];
    int rc;

    if (config->learner[0] != '@')
        return TD_OK;
    rc = rundir_await_learner(config->learner + 1, found, (uint64_t)(config->learner_timeout * 1000), err);
    if (rc == TD_OK)
        snprintf(config->learner, sizeof(config->learner), "%s", found);
    return rc;
}

static int configure(const struct config *config, struct daemon_config *daemon, char *dir, size_t size,
                     struct error *err)
{
    struct identity self = {ROLE_SHARD, (uint32_t)config->shard};
    bool network = config->insecure || config->keys[0] != '\0';
    int rc;

    if (config->learner[0] == '\0')
        return error_set(err, TD_EINVAL,
                         "a replay shard needs the learner's address: learner=ADDRESS (the learner "
                         "prints it, and starts the first shard by itself)");
    if ((rc = address_check(config->learner, network, err)) != TD_OK ||
        (config->bind[0] != '\0' && (rc = address_check(config->bind, network, err)) != TD_OK) ||
        (config->keys[0] != '\0' && (rc = guard_probe(config->keys, &self, err)) != TD_OK) ||
        (rc = parse_run(config, &daemon->shard.run, err)) != TD_OK ||
        (rc = find_folders(config, daemon, dir, size, err)) != TD_OK ||
        (rc = fs_check_writable(dir, err)) != TD_OK)
        return rc;
    daemon->shard.process = process_random_id();
    daemon->shard.shard = (uint32_t)config->shard;
    daemon->shard.dir = dir;
    snprintf(daemon->shard.control, sizeof(daemon->shard.control), "%.*s", WIRE_ADDRESS_MAX - 1,
             config->learner);
    daemon->shard.commit_interval_ms = (uint64_t)config->commit_interval_ms;
    daemon->shard.lock_wait_ms = STORE_LOCK_WAIT_MS;
    daemon->shard.bytes_limit = (uint64_t)(config->disk_limit * 1e9);
    daemon->shard.compress_frames = config->compress_frames;
    daemon->shard.force = config->force;
    snprintf(daemon->bind, sizeof(daemon->bind), "%.*s", ADDRESS_MAX - 1, config->bind);
    snprintf(daemon->advertise, sizeof(daemon->advertise), "%.*s", ADDRESS_MAX - 1, config->advertise);
    daemon->sample_tcp = !address_is_ipc(config->learner);
    daemon->insecure = config->insecure;
    snprintf(daemon->keys, sizeof(daemon->keys), "%s", config->keys);
    daemon->child = process_is_child() && config->shard == 0; /* the others join: whoever starts them, it is not the learner */
    if (daemon->sample_tcp && config->bind[0] == '\0')
        return error_set(err, TD_EINVAL,
                         "a shard that reaches its learner over tcp must be reached too: "
                         "bind=tcp://HOST:PORT of this host (with `keys=` beyond loopback)");
    return TD_OK;
}

int main(int argc, char **argv)
{
    static struct config config;
    static struct daemon_config daemon;
    static char dir[FS_PATH_MAX];
    static struct sandbox keep;
    char why[NOTIFY_WHY_MAX];
    struct error err = {0};

    process_leave_if_asked();
    if (process_follow_parent() != TD_OK)
        return TD_EXIT_OK;
    if (!notify_open(process_is_child(), why, sizeof(why)))
        fprintf(stderr, "tdmpc2-replay: %s\n", why);
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return usage(stdout, TD_EXIT_OK);
    config_init(&config);
    if (process_check_limits(&err) != TD_OK ||
        config_parse(&config, argc - 1, argv + 1, NULL, &err) != TD_OK ||
        config_check(&config, &err) != TD_OK || find_learner(&config, &err) != TD_OK ||
        configure(&config, &daemon, dir, sizeof(dir), &err) != TD_OK ||
        exporter_open(&daemon.exporter, &config, &err) != TD_OK) {
        fprintf(stderr, "tdmpc2-replay: %s\n", err.text);
        return TD_EXIT_BAD_INPUT;
    }
    log_set_format(config.log);
    log_init("replay", (int)daemon.shard.shard, daemon.shard.run, 2);
    confine_shard(&keep, &config, daemon.run_dir, dir);
    if (confine_files(&keep, &config, &err) != TD_OK) {
        fprintf(stderr, "tdmpc2-replay: %s\n", err.text);
        return error_exit_code(err.code);
    }
    daemon.options = &config;
    daemon.keep = &keep;
    return daemon_run(&daemon);
}
