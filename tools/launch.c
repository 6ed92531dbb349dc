/* launch.c - `tdmpc2 launch`, status, scale and logs: one cluster file, one run over machines. */
#include "tools/launch.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/net/keys.h"
#include "tools/commands.h"
#include "tools/keys.h"
#include "tools/options.h"

#define LOCK_WAIT_MS  20000u
#define LEARNER_S     120
#define KEY_LIMIT     4096
#define ALLOWED_LIMIT (1u << 20)

static void usage(FILE *out, const char *command)
{
    static const char *const lines[][2] = {
        {"launch", "usage: tdmpc2 launch CLUSTER.yaml [--on local|ssh|slurm] [--dry-run]\n\n"
                   "Starts what the file describes and does not run yet: learner, shards, actors; says where the learner is to\n"
                   "all of them. --dry-run prints what would be done. docs/launching.md has files to begin with.\n"},
        {"status", "usage: tdmpc2 status CLUSTER.yaml [--on local|ssh|slurm]\n\nWhich parts run where, and how far the run is.\n"},
        {"scale", "usage: tdmpc2 scale CLUSTER.yaml actors=N [--on local|ssh|slurm]\n\n"
                  "Starts further actors, or lets those with the highest numbers hand over their rows and leave.\n"},
        {"stop", "usage: tdmpc2 stop CLUSTER.yaml [--on local|ssh|slurm]\n\nThe learner writes its checkpoint, all parts end.\n"},
        {"logs", "usage: tdmpc2 logs CLUSTER.yaml [learner|actor-N|replay-N] [-f] [--on local|ssh|slurm]\n\n"
                 "The last lines of every part's log, or of one; -f goes on as they are written.\n"},
    };

    for (size_t i = 0; i < TD_LEN(lines); i++)
        if (strcmp(lines[i][0], command) == 0)
            fputs(lines[i][1], out);
}

/* --- keys ----------------------------------------------------------------- */

void launch_keys_dir(const struct launch *launch, char out[FS_PATH_MAX])
{
    const struct cluster *cluster = &launch->cluster;

    if (cluster->keys_dir[0] != '\0')
        snprintf(out, FS_PATH_MAX, "%s", cluster->keys_dir);
    else
        snprintf(out, FS_PATH_MAX, "%.*s/keys", FS_PATH_MAX - 8, cluster->state);
}

int launch_make_keys(const struct launch *launch, int actors, struct error *err)
{
    char dir[FS_PATH_MAX];

    if (!launch->cluster.keys)
        return TD_OK;
    launch_keys_dir(launch, dir);
    return keys_ensure(dir, actors, launch->cluster.shards.count, err);
}

static int pack_one(FILE *out, const char *dir, const char *file, size_t limit, struct error *err)
{
    char path[FS_PATH_MAX], *bytes = NULL;
    size_t length;
    int rc = fs_join(path, dir, file, err);

    if (rc == TD_OK && (rc = fs_read_file(path, limit, &bytes, &length, err)) == TD_OK) {
        fprintf(out, "%s %zu\n", file, length);
        fwrite(bytes, 1, length, out);
        explicit_bzero(bytes, length);
        free(bytes);
    }
    return rc;
}

int launch_pack_keys(const struct launch *launch, const char *const *names, int count, char **out, size_t *length,
                     struct error *err)
{
    char dir[FS_PATH_MAX], file[IDENTITY_NAME_MAX + 8];
    FILE *stream = open_memstream(out, length);
    int rc = TD_OK;

    if (stream == NULL)
        return error_set(err, TD_ENOMEM, "out of memory");
    launch_keys_dir(launch, dir);
    for (int i = 0; rc == TD_OK && i < count; i++) {
        snprintf(file, sizeof(file), "%s.key", names[i]);
        rc = pack_one(stream, dir, file, KEY_LIMIT, err);
    }
    if (rc == TD_OK) /* last: who is on the list has his key */
        rc = pack_one(stream, dir, "allowed", ALLOWED_LIMIT, err);
    fclose(stream);
    return rc;
}

/* --- the words of the parts --------------------------------------------------- */

/* An option as it is given, its % kept through `part start`. */
static int add_option(struct host_job *job, const char *word)
{
    char *doubled = malloc(2 * strlen(word) + 1), *to = doubled;
    int rc;

    if (doubled == NULL)
        return TD_ENOMEM;
    for (; *word != '\0'; word++) {
        if (*word == '%')
            *to++ = '%';
        *to++ = *word;
    }
    *to = '\0';
    rc = hosts_word(job, "%s", doubled);
    free(doubled);
    return rc;
}

static int add_options(struct host_job *job, const struct cluster_words *words)
{
    int rc = TD_OK;

    for (int i = 0; rc == TD_OK && i < words->count; i++)
        rc = add_option(job, words->word[i]);
    return rc;
}

/* Where the learner listens beyond its machine; "" when it need not. */
static int add_bind(const struct launch *launch, struct host_job *job)
{
    const struct cluster *cluster = &launch->cluster;
    const char *address = cluster->learner.address;
    char port[16] = "*";
    int rc;

    if (cluster->learner.port > 0)
        snprintf(port, sizeof(port), "%d", cluster->learner.port);
    if (cluster->engine == ENGINE_LOCAL)
        return cluster->keys || cluster->learner.port > 0 ? hosts_word(job, "bind=tcp://127.0.0.1:%s", port) : TD_OK;
    if (address[0] == '\0')
        address = cluster_host_name(cluster->learner.hosts.count > 0 ? cluster->learner.hosts.word[0] : "");
    if (strspn(address, "0123456789.") == strlen(address) && address[0] != '\0') /* of an interface of that host */
        return hosts_word(job, "bind=tcp://%s:%s", address, port);
    rc = hosts_word(job, "bind=tcp://0.0.0.0:%s", port);
    return rc == TD_OK && address[0] != '\0' ? hosts_word(job, "advertise=%s", address) : rc;
}

int launch_learner_words(const struct launch *launch, struct host_job *job)
{
    const struct cluster *cluster = &launch->cluster;
    int rc;

    if ((rc = add_options(job, &cluster->options)) != TD_OK || (rc = add_options(job, &cluster->learner.options)) != TD_OK ||
        (rc = hosts_word(job, "work_dir=%%d")) != TD_OK || (rc = add_bind(launch, job)) != TD_OK)
        return rc;
    if (cluster->shards.count > 1)
        rc = hosts_word(job, "shards=%d", cluster->shards.count);
    return rc == TD_OK && cluster->keys ? hosts_word(job, "keys=%%d/keys") : rc;
}

/* The learner tells an actor the run's options; what is its own it is given here. */
int launch_actor_words(const struct launch *launch, struct host_job *job)
{
    static const char *const own[] = {"insecure=", "sandbox=", "log=", "env="};
    const struct cluster *cluster = &launch->cluster;
    int rc = TD_OK;

    for (int i = 0; rc == TD_OK && i < cluster->options.count; i++)
        for (size_t k = 0; rc == TD_OK && k < TD_LEN(own); k++)
            if (strncmp(cluster->options.word[i], own[k], strlen(own[k])) == 0)
                rc = add_option(job, cluster->options.word[i]);
    if (rc == TD_OK && (rc = add_options(job, &cluster->actors.options)) == TD_OK &&
        (rc = hosts_word(job, "learner=@%%d")) == TD_OK && (rc = hosts_word(job, "work_dir=%%d")) == TD_OK)
        rc = hosts_word(job, "actor=%%n");
    return rc == TD_OK && cluster->keys ? hosts_word(job, "keys=%%d/keys") : rc;
}

/* --- what the learner says ------------------------------------------------------- */

static double number_of(const cJSON *metrics, const char *name)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(metrics, name);

    return cJSON_IsNumber(item) ? item->valuedouble : 0;
}

void launch_summary(const char *json, char *out, size_t size)
{
    cJSON *root = cJSON_Parse(json);
    const cJSON *metrics = cJSON_GetObjectItemCaseSensitive(root, "metrics");
    const char *phase = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(metrics, "phase"));

    out[0] = '\0';
    if (metrics != NULL)
        snprintf(out, size, "%s: %.0f of %.0f steps (%.1f %%), %.0f updates, %.0f actors heard", phase != NULL ? phase : "running",
                 number_of(metrics, "agent_steps"), number_of(metrics, "target_steps"), 100 * number_of(metrics, "progress"),
                 number_of(metrics, "updates"), number_of(metrics, "actors_live"));
    cJSON_Delete(root);
}

/* --- the commands ---------------------------------------------------------------- */

struct command {
    const char *name;
    int (*hosts)(struct launch *, struct error *), (*slurm)(struct launch *, struct error *);
    bool changes;
};

static const struct command commands[] = {
    {"launch", launch_hosts, launch_slurm, true},
    {"status", launch_hosts_status, launch_slurm_status, false},
    {"scale", launch_hosts_scale, launch_slurm_scale, true},
    {"stop", launch_hosts_stop, launch_slurm_stop, true},
    {"logs", launch_hosts_logs, launch_slurm_logs, false},
};

static int take_word(struct launch *launch, const char *command, const char *word, struct error *err)
{
    if (strcmp(word, "--dry-run") == 0 && strcmp(command, "launch") == 0)
        launch->dry_run = true;
    else if (strcmp(word, "-f") == 0 && strcmp(command, "logs") == 0)
        launch->follow = true;
    else if (strncmp(word, "actors=", 7) == 0 && strcmp(command, "scale") == 0) {
        char *end;
        long actors = strtol(word + 7, &end, 10);

        if (end == word + 7 || *end != '\0' || actors < 0 || actors > CLUSTER_ACTORS_MAX)
            return error_set(err, TD_EINVAL, "%.40s: a number from 0 to %d", word, CLUSTER_ACTORS_MAX);
        launch->actors = (int)actors;
    } else if (strcmp(command, "logs") == 0 && launch->role == NULL && word[0] != '-')
        launch->role = word;
    else
        return error_set(err, TD_EINVAL, "'%.60s' is not what %s takes: `tdmpc2 %s --help`", word, command, command);
    return TD_OK;
}

static int parse(struct launch *launch, const char **file, const char **engine, int argc, char **argv, struct error *err)
{
    int rc = TD_OK;

    launch->actors = -1;
    for (int i = 1; rc == TD_OK && i < argc; i++) {
        if (strcmp(argv[i], "--on") == 0 && i + 1 < argc)
            *engine = argv[++i];
        else if (strncmp(argv[i], "--on=", 5) == 0)
            *engine = argv[i] + 5;
        else if (*file == NULL && argv[i][0] != '-' && strchr(argv[i], '=') == NULL)
            *file = argv[i];
        else
            rc = take_word(launch, argv[0], argv[i], err);
    }
    if (rc == TD_OK && *file == NULL)
        rc = error_set(err, TD_EINVAL, "which run? name its cluster file: tdmpc2 %s CLUSTER.yaml", argv[0]);
    if (rc == TD_OK && strcmp(argv[0], "scale") == 0 && launch->actors < 0)
        rc = error_set(err, TD_EINVAL, "to how many? tdmpc2 scale %.200s actors=N", *file);
    return rc;
}

/* Two commands that change the same run wait for each other. */
static int lock_state(struct launch *launch, struct error *err)
{
    char path[FS_PATH_MAX];
    int rc;

    if ((rc = fs_mkdirs(launch->cluster.state, 0700, err)) != TD_OK ||
        (rc = fs_join(path, launch->cluster.state, "lock", err)) != TD_OK)
        return rc;
    return fs_lock(&launch->lock, path, LOCK_WAIT_MS, err);
}

static int find_programs(struct launch *launch, struct error *err)
{
    const struct cluster *cluster = &launch->cluster;
    char dir[FS_PATH_MAX];
    int rc;

    if (cluster->programs[0] != '\0' && strcmp(cluster->programs, "copy") != 0) {
        snprintf(launch->programs, sizeof(launch->programs), "%s/", cluster->programs);
        return TD_OK;
    }
    if ((rc = fs_program_dir(dir, err)) == TD_OK)
        snprintf(launch->programs, sizeof(launch->programs), "%.*s/", FS_PATH_MAX - 2, dir);
    return rc;
}

static int run(int argc, char **argv)
{
    struct launch *launch = calloc(1, sizeof(*launch));
    const struct command *command = commands;
    const char *file = NULL, *engine = NULL;
    struct error err = {0};
    int rc;

    if (launch == NULL)
        return TD_EXIT_GAVE_UP;
    launch->lock = -1;
    launch->patience_s = LEARNER_S;
    while (strcmp(command->name, argv[0]) != 0)
        command++;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if ((rc = parse(launch, &file, &engine, argc, argv, &err)) == TD_OK &&
        (rc = cluster_load(&launch->cluster, file, engine, &err)) == TD_OK && (rc = find_programs(launch, &err)) == TD_OK &&
        (!command->changes || launch->dry_run || (rc = lock_state(launch, &err)) == TD_OK))
        rc = (launch->cluster.engine == ENGINE_SLURM ? command->slurm : command->hosts)(launch, &err);
    if (launch->lock >= 0)
        fs_unlock(&launch->lock);
    if (file != NULL)
        cluster_release(&launch->cluster);
    free(launch);
    if (rc == TD_OK)
        return TD_EXIT_OK;
    fprintf(stderr, "tdmpc2 %s: %s\n", argv[0], err.text);
    return error_exit_code(rc);
}

static int command(int argc, char **argv)
{
    if (!options_help(argc, argv))
        return run(argc, argv);
    usage(stdout, argv[0]);
    return TD_EXIT_OK;
}

int cmd_launch(int argc, char **argv)
{
    return command(argc, argv);
}

int cmd_status(int argc, char **argv)
{
    return command(argc, argv);
}

int cmd_scale(int argc, char **argv)
{
    return command(argc, argv);
}

int cmd_logs(int argc, char **argv)
{
    return command(argc, argv);
}

int launch_stop(int argc, char **argv)
{
    return command(argc, argv);
}
