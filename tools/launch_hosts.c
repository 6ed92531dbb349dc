/* launch_hosts.c - the engines local and ssh: `tdmpc2 part` on every host does it. */
#include <cjson/cJSON.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/net/rundir.h"
#include "tools/launch.h"
#include "tools/options.h"
#include "tools/part.h"

#define QUICK_MS     60000
#define STOP_MS      900000
#define ACTORS_GO_S  "20"
#define JOIN_S       60
#define NAMES_MAX    (CLUSTER_ACTORS_MAX + 80)

struct seen {
    int host;
    struct part_note note;
};

struct fleet {
    struct launch *launch;
    const struct cluster *cluster;
    const char *hosts[CLUSTER_HOSTS_MAX * 2 + 2]; /* [0] is the learner's */
    int count;
    struct seen *seen; /* what is noted on them, malloc'd */
    int seen_count;
    struct host_job jobs[CLUSTER_HOSTS_MAX * 2 + 2];
};

/* --- the hosts ---------------------------------------------------------------- */

static int host_index(struct fleet *fleet, const char *host)
{
    for (int i = 0; i < fleet->count; i++)
        if (strcmp(fleet->hosts[i], host) == 0)
            return i;
    fleet->hosts[fleet->count] = host;
    return fleet->count++;
}

/* Where a part belongs. */
static int place_of(struct fleet *fleet, const struct cluster_role *role, int number)
{
    if (fleet->cluster->engine == ENGINE_LOCAL || role->hosts.count == 0)
        return 0;
    return host_index(fleet, role->hosts.word[number % role->hosts.count]);
}

static struct fleet *open_fleet(struct launch *launch, struct error *err)
{
    struct fleet *fleet = calloc(1, sizeof(*fleet));
    const struct cluster *cluster = &launch->cluster;

    if (fleet == NULL) {
        error_set(err, TD_ENOMEM, "out of memory");
        return NULL;
    }
    fleet->launch = launch;
    fleet->cluster = cluster;
    host_index(fleet, cluster->engine == ENGINE_LOCAL ? "" : cluster->learner.hosts.word[0]);
    for (int i = 0; i < cluster->shards.hosts.count; i++)
        place_of(fleet, &cluster->shards, i);
    for (int i = 0; i < cluster->actors.hosts.count; i++)
        place_of(fleet, &cluster->actors, i);
    return fleet;
}

static void close_fleet(struct fleet *fleet)
{
    if (fleet == NULL)
        return;
    hosts_release(fleet->jobs, fleet->count);
    free(fleet->seen);
    free(fleet);
}

/* Begin a job: PROGRAMS/tdmpc2 part VERB DIR. */
static int begin(struct fleet *fleet, int host, const char *verb)
{
    struct host_job *job = &fleet->jobs[host];
    char dir[FS_PATH_MAX];

    hosts_release(job, 1);
    job->host = fleet->hosts[host];
    cluster_dir(fleet->cluster, job->host, dir);
    if (hosts_word(job, "%stdmpc2", fleet->launch->programs) != TD_OK || hosts_word(job, "part") != TD_OK ||
        hosts_word(job, "%s", verb) != TD_OK)
        return TD_ENOMEM;
    return hosts_word(job, "%s", dir);
}

/* One job on one host. */
static int run_one(struct fleet *fleet, int host, const char *doing, int timeout_ms, struct error *err)
{
    if (fleet->launch->dry_run) {
        hosts_print(fleet->cluster, &fleet->jobs[host], stdout);
        return TD_OK;
    }
    return hosts_must(fleet->cluster, &fleet->jobs[host], 1, doing, timeout_ms, err);
}

/* --- what is there -------------------------------------------------------------- */

static int take_status(struct fleet *fleet, int host, char *text, struct error *err)
{
    char *line, *rest = NULL;

    for (line = strtok_r(text, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
        struct seen *grown = realloc(fleet->seen, ((size_t)fleet->seen_count + 1) * sizeof(*grown));

        if (grown == NULL)
            return error_set(err, TD_ENOMEM, "out of memory");
        fleet->seen = grown;
        grown[fleet->seen_count].host = host;
        fleet->seen_count += part_note_parse(line, &grown[fleet->seen_count].note);
    }
    return TD_OK;
}

/* Ask all hosts. `all`: each must answer; else those that do not are named on standard error. */
static int look(struct fleet *fleet, bool all, struct error *err)
{
    int rc = TD_OK;

    for (int i = 0; rc == TD_OK && i < fleet->count; i++)
        rc = begin(fleet, i, "status");
    if (rc != TD_OK)
        return error_set(err, rc, "out of memory");
    rc = all ? hosts_must(fleet->cluster, fleet->jobs, fleet->count, "looking at", QUICK_MS, err)
             : hosts_run(fleet->cluster, fleet->jobs, fleet->count, "looking at", QUICK_MS, err);
    fleet->seen_count = 0;
    for (int i = 0; rc == TD_OK && i < fleet->count; i++) {
        if (fleet->jobs[i].code == 0)
            rc = take_status(fleet, i, fleet->jobs[i].output, err);
        else
            fprintf(stderr, "%s does not answer: %.300s", fleet->hosts[i], fleet->jobs[i].errors);
    }
    return rc;
}

/* The part that runs, or NULL. */
static const struct seen *running(const struct fleet *fleet, const char *name)
{
    for (int i = 0; i < fleet->seen_count; i++)
        if (fleet->seen[i].note.code < 0 && strcmp(fleet->seen[i].note.name, name) == 0)
            return &fleet->seen[i];
    return NULL;
}

static int actor_number(const char *name)
{
    return strncmp(name, "actor-", 6) == 0 ? atoi(name + 6) : -1;
}

/* --- keys ------------------------------------------------------------------------- */

/* Who needs his key on this host; the names are put into `text`. */
static int names_of(struct fleet *fleet, int host, int actors, const char **names, char (*text)[PART_NAME_MAX])
{
    static const char *const learner[] = {"learner", "evaluator", "viewer", "shard-0"};
    bool everything = fleet->cluster->shared;
    int count = 0;

    for (size_t i = 0; host == 0 && i < TD_LEN(learner); i++)
        names[count++] = learner[i];
    for (int i = 1; i < fleet->cluster->shards.count; i++)
        if (everything || place_of(fleet, &fleet->cluster->shards, i) == host) {
            snprintf(text[count], PART_NAME_MAX, "shard-%d", i);
            names[count] = text[count];
            count++;
        }
    for (int i = 0; i < actors; i++)
        if (everything || place_of(fleet, &fleet->cluster->actors, i) == host) {
            snprintf(text[count], PART_NAME_MAX, "actor-%d", i);
            names[count] = text[count];
            count++;
        }
    return count;
}

/* Through standard input alone; where the directory is shared, to one host. */
static int push_keys(struct fleet *fleet, int actors, struct error *err)
{
    int hosts = fleet->cluster->shared ? 1 : fleet->count, rc = TD_OK;
    char (*text)[PART_NAME_MAX] = calloc(NAMES_MAX, sizeof(*text));
    const char **names = calloc(NAMES_MAX, sizeof(*names));
    char **packed = calloc((size_t)hosts, sizeof(*packed));

    if (text == NULL || names == NULL || packed == NULL)
        rc = error_set(err, TD_ENOMEM, "out of memory");
    for (int i = 0; rc == TD_OK && i < hosts; i++) {
        struct host_job *job = &fleet->jobs[i];

        if ((rc = begin(fleet, i, "keys")) == TD_OK &&
            (rc = launch_pack_keys(fleet->launch, names, names_of(fleet, i, actors, names, text), &packed[i], &job->input_length, err)) == TD_OK)
            job->input = packed[i];
    }
    if (rc == TD_OK)
        rc = hosts_must(fleet->cluster, fleet->jobs, hosts, "handing out keys", QUICK_MS, err);
    for (int i = 0; packed != NULL && i < hosts; i++) {
        if (packed[i] != NULL)
            explicit_bzero(packed[i], fleet->jobs[i].input_length);
        free(packed[i]);
        fleet->jobs[i].input = NULL;
        fleet->jobs[i].input_length = 0;
    }
    free(packed);
    free(names);
    free(text);
    return rc;
}

static int hand_out_keys(struct fleet *fleet, int actors, struct error *err)
{
    int rc;

    if (!fleet->cluster->keys)
        return TD_OK;
    if (fleet->launch->dry_run) {
        printf("# keys of %d actors, made here, to %s\n", actors, fleet->cluster->shared ? "the shared directory" : "each host its own");
        return TD_OK;
    }
    rc = launch_make_keys(fleet->launch, actors, err);
    return rc == TD_OK ? push_keys(fleet, actors, err) : rc;
}

/* --- the learner ---------------------------------------------------------------------- */

/* What the others are handed: the address over the network in place of that on the learner's machine. */
static int network_record(char *record, char **out, struct error *err)
{
    cJSON *json = cJSON_Parse(record), *network = cJSON_GetObjectItemCaseSensitive(json, "network");
    const char *address = cJSON_GetStringValue(network);
    int rc = TD_OK;

    *out = NULL;
    if (address == NULL || address[0] == '\0')
        rc = error_set(err, TD_EINVAL, "the learner listens on its own machine only");
    else if (!cJSON_ReplaceItemInObjectCaseSensitive(json, "control", cJSON_CreateString(address)) ||
             (out[0] = cJSON_PrintUnformatted(json)) == NULL)
        rc = error_set(err, TD_ENOMEM, "out of memory");
    cJSON_Delete(json);
    return rc;
}

static int hand_out_address(struct fleet *fleet, char *record, struct error *err)
{
    char *text;
    int rc = network_record(record, &text, err);

    for (int i = 1; rc == TD_OK && i < fleet->count; i++)
        if ((rc = begin(fleet, i, "record")) == TD_OK) {
            fleet->jobs[i].input = text;
            fleet->jobs[i].input_length = strlen(text);
        }
    if (rc == TD_OK)
        rc = hosts_must(fleet->cluster, fleet->jobs + 1, fleet->count - 1, "handing out the learner's address", QUICK_MS, err);
    free(text);
    return rc;
}

/* Start it unless it runs; *fresh says which. False *going: the run is complete. */
static int start_learner(struct fleet *fleet, bool *fresh, bool *going, struct error *err)
{
    const struct seen *there = running(fleet, "learner");
    struct rundir_part part;
    int rc;

    *fresh = there == NULL;
    *going = true;
    if (there != NULL && there->host != 0)
        return error_set(err, TD_ELOCKED, "the learner runs on %s: stop the run, or end it there, before it is launched on %s",
                         fleet->hosts[there->host], fleet->hosts[0]);
    if (there == NULL) {
        if ((rc = begin(fleet, 0, "start")) != TD_OK || (rc = hosts_word(&fleet->jobs[0], "tdmpc2-learner")) != TD_OK ||
            (rc = hosts_word(&fleet->jobs[0], "learner")) != TD_OK || (rc = launch_learner_words(fleet->launch, &fleet->jobs[0])) != TD_OK)
            return error_set(err, rc, "out of memory");
        if ((rc = run_one(fleet, 0, "starting the learner", QUICK_MS, err)) != TD_OK)
            return rc;
    }
    if (fleet->launch->dry_run)
        return TD_OK;
    if ((rc = begin(fleet, 0, "learner")) != TD_OK || (rc = hosts_word(&fleet->jobs[0], "%d", fleet->launch->patience_s)) != TD_OK)
        return error_set(err, rc, "out of memory");
    if ((rc = run_one(fleet, 0, "waiting for the learner to listen", (fleet->launch->patience_s + 20) * 1000, err)) != TD_OK)
        return rc;
    if (strncmp(fleet->jobs[0].output, "complete", 8) == 0) {
        *going = false;
        return TD_OK;
    }
    if (!rundir_parse(fleet->jobs[0].output, &part))
        return error_set(err, TD_ECORRUPT, "the learner's record is not one");
    printf("learner: %s, pid %d, listens on %s\n", *fresh ? "started" : "runs already", (int)part.pid,
           part.network[0] != '\0' ? part.network : part.control);
    if (!fleet->cluster->shared && fleet->count > 1)
        return hand_out_address(fleet, fleet->jobs[0].output, err);
    return TD_OK;
}

/* --- shards and actors -------------------------------------------------------------------- */

typedef int words_fn(struct fleet *fleet, int host, struct host_job *job);

/* On every host those of NAME-first to NAME-(last-1) that belong there and do not run. */
static int start_parts(struct fleet *fleet, const char *role, const struct cluster_role *where, int first, int last,
                       const char *program, words_fn *words, int *started, struct error *err)
{
    struct host_job *used[TD_LEN(fleet->jobs)];
    int rc = TD_OK;

    *started = 0;
    for (int host = 0; rc == TD_OK && host < fleet->count; host++) {
        char *names = NULL, name[PART_NAME_MAX];
        size_t length = 0;
        FILE *list = open_memstream(&names, &length);

        used[host] = NULL;
        for (int i = first; list != NULL && i < last; i++) {
            snprintf(name, sizeof(name), "%s-%d", role, i);
            if (place_of(fleet, where, i) != host || running(fleet, name) != NULL)
                continue;
            fprintf(list, "%s%s", used[host] != NULL ? "," : "", name);
            used[host] = &fleet->jobs[host];
            (*started)++;
        }
        if (list == NULL || fclose(list) != 0)
            return error_set(err, TD_ENOMEM, "out of memory");
        if (used[host] != NULL &&
            ((rc = begin(fleet, host, "start")) != TD_OK || (rc = hosts_word(&fleet->jobs[host], "%s", program)) != TD_OK ||
             (rc = hosts_word(&fleet->jobs[host], "%s", names)) != TD_OK || (rc = words(fleet, host, &fleet->jobs[host])) != TD_OK))
            error_set(err, rc, "out of memory");
        free(names);
    }
    for (int host = 0; rc == TD_OK && fleet->launch->dry_run && host < fleet->count; host++)
        if (used[host] != NULL)
            hosts_print(fleet->cluster, used[host], stdout);
    for (int host = 0; rc == TD_OK && !fleet->launch->dry_run && host < fleet->count;) { /* neighbours at once */
        int end = host;

        while (end < fleet->count && used[end] != NULL)
            end++;
        if (end > host)
            rc = hosts_must(fleet->cluster, &fleet->jobs[host], end - host, "starting parts", QUICK_MS, err);
        host = end > host ? end : host + 1;
    }
    return rc;
}

static int actor_words(struct fleet *fleet, int host, struct host_job *job)
{
    (void)host;
    return launch_actor_words(fleet->launch, job);
}

static int shard_words(struct fleet *fleet, int host, struct host_job *job)
{
    const struct cluster *cluster = fleet->cluster;
    const char *address = cluster_host_name(fleet->hosts[host]);
    int rc = TD_OK;

    for (int i = 0; rc == TD_OK && i < cluster->shards.options.count; i++)
        rc = hosts_word(job, "%s", cluster->shards.options.word[i]);
    if (rc == TD_OK && cluster->insecure)
        rc = hosts_word(job, "insecure=true");
    if (rc == TD_OK && cluster->engine != ENGINE_LOCAL) {
        bool number = strspn(address, "0123456789.") == strlen(address);

        rc = number ? hosts_word(job, "bind=tcp://%s:*", address) : hosts_word(job, "bind=tcp://0.0.0.0:*");
        if (rc == TD_OK && !number)
            rc = hosts_word(job, "advertise=%s", address);
    }
    if (rc == TD_OK && (rc = hosts_word(job, "learner=@%%d")) == TD_OK && (rc = hosts_word(job, "work_dir=%%d")) == TD_OK)
        rc = hosts_word(job, "shard=%%n");
    return rc == TD_OK && cluster->keys ? hosts_word(job, "keys=%%d/keys") : rc;
}

/* --- ending parts ------------------------------------------------------------------------------ */

/* Those that run and whose number is at least `from`; they hand over their rows first. */
static int stop_actors(struct fleet *fleet, int from, int *stopped, struct error *err)
{
    int rc = TD_OK;

    *stopped = 0;
    for (int host = 0; rc == TD_OK && host < fleet->count; host++) {
        bool any = false;

        for (int i = 0; rc == TD_OK && i < fleet->seen_count; i++) {
            const struct seen *seen = &fleet->seen[i];

            if (seen->host != host || seen->note.code >= 0 || actor_number(seen->note.name) < from)
                continue;
            if (!any && (rc = begin(fleet, host, "stop")) == TD_OK)
                rc = hosts_word(&fleet->jobs[host], ACTORS_GO_S);
            any = true;
            if (rc == TD_OK)
                rc = hosts_word(&fleet->jobs[host], "%s", seen->note.name);
            (*stopped)++;
        }
        if (!any && rc == TD_OK && (rc = begin(fleet, host, "status")) != TD_OK) /* keeps the jobs side by side */
            break;
    }
    if (rc != TD_OK)
        return error_set(err, rc, "out of memory");
    return *stopped == 0 ? TD_OK : hosts_must(fleet->cluster, fleet->jobs, fleet->count, "waiting for actors to leave", STOP_MS, err);
}

/* --- launch and scale ----------------------------------------------------------------------------- */

/* Wait until the learner hears them. */
static int await_actors(struct fleet *fleet, int actors, struct error *err)
{
    int rc, live;

    if (actors == 0)
        return TD_OK;
    if ((rc = begin(fleet, 0, "joined")) != TD_OK || (rc = hosts_word(&fleet->jobs[0], "%d", actors)) != TD_OK ||
        (rc = hosts_word(&fleet->jobs[0], "%d", JOIN_S)) != TD_OK)
        return error_set(err, rc, "out of memory");
    if ((rc = run_one(fleet, 0, "waiting for actors to join", (JOIN_S + 20) * 1000, err)) != TD_OK)
        return rc;
    live = atoi(fleet->jobs[0].output);
    if (live < actors)
        return error_set(err, TD_ETIMEOUT, "%d of %d actors have joined within %d s: `tdmpc2 status %s` and `tdmpc2 logs %s` say more",
                         live, actors, JOIN_S, fleet->cluster->file, fleet->cluster->file);
    printf("actors: %d joined\n", live);
    return TD_OK;
}

static int start_all(struct fleet *fleet, struct error *err)
{
    const struct cluster *cluster = fleet->cluster;
    bool fresh, going;
    int started, rc;

    if ((rc = start_learner(fleet, &fresh, &going, err)) != TD_OK)
        return rc;
    if (!going) {
        printf("the run is complete: more steps= in the options make it go on\n");
        return TD_OK;
    }
    if ((rc = start_parts(fleet, "replay", &cluster->shards, 1, cluster->shards.count, "tdmpc2-replay", shard_words, &started, err)) != TD_OK ||
        (rc = start_parts(fleet, "actor", &cluster->actors, 0, cluster->actors.count, "tdmpc2-actor", actor_words, &started, err)) != TD_OK ||
        fleet->launch->dry_run)
        return rc;
    if ((rc = await_actors(fleet, cluster->actors.count, err)) == TD_OK)
        printf("running; see: tdmpc2 status %s, tdmpc2 logs %s -f, tdmpc2 stop %s\n", cluster->file, cluster->file, cluster->file);
    return rc;
}

int launch_hosts(struct launch *launch, struct error *err)
{
    struct fleet *fleet = open_fleet(launch, err);
    int rc = TD_OK;

    if (fleet == NULL)
        return TD_ENOMEM;
    if (launch->cluster.engine == ENGINE_SSH && strcmp(launch->cluster.programs, "copy") == 0)
        rc = launch_copy_programs(launch, fleet->hosts, fleet->count, err);
    if (rc == TD_OK && !launch->dry_run)
        rc = look(fleet, true, err);
    if (rc == TD_OK)
        rc = hand_out_keys(fleet, launch->cluster.actors.count, err);
    if (rc == TD_OK)
        rc = start_all(fleet, err);
    close_fleet(fleet);
    return rc;
}

/* Where copies of the programs lie, for the commands after launch. */
static struct fleet *open_running(struct launch *launch, bool all, struct error *err)
{
    struct fleet *fleet = open_fleet(launch, err);

    if (fleet == NULL)
        return NULL;
    if ((launch->cluster.engine == ENGINE_SSH && strcmp(launch->cluster.programs, "copy") == 0 &&
         launch_copy_programs(launch, fleet->hosts, fleet->count, err) != TD_OK) ||
        look(fleet, all, err) != TD_OK)
        close_fleet(fleet), fleet = NULL;
    return fleet;
}

int launch_hosts_scale(struct launch *launch, struct error *err)
{
    struct fleet *fleet = open_running(launch, true, err);
    int started, stopped, rc;

    if (fleet == NULL)
        return err->code;
    if (running(fleet, "learner") == NULL)
        rc = error_set(err, TD_ENOTFOUND, "the run does not run: tdmpc2 launch %s", launch->cluster.file);
    else if ((rc = hand_out_keys(fleet, launch->actors, err)) == TD_OK &&
             (rc = stop_actors(fleet, launch->actors, &stopped, err)) == TD_OK &&
             (rc = start_parts(fleet, "actor", &launch->cluster.actors, 0, launch->actors, "tdmpc2-actor", actor_words, &started, err)) ==
                 TD_OK &&
             (rc = await_actors(fleet, launch->actors, err)) == TD_OK)
        printf("%d actors: %d started, %d left\n", launch->actors, started, stopped);
    close_fleet(fleet);
    return rc;
}

/* --- status -------------------------------------------------------------------------------------------- */

static void print_host(const struct fleet *fleet, int host)
{
    int runs = 0, restarts = 0;

    printf("%-20s", fleet->hosts[host][0] != '\0' ? fleet->hosts[host] : "this machine");
    for (int i = 0; i < fleet->seen_count; i++) {
        const struct seen *seen = &fleet->seen[i];

        if (seen->host != host || seen->note.code >= 0)
            continue;
        restarts += seen->note.restarts;
        if (++runs <= 8)
            printf(" %s", seen->note.name);
    }
    if (runs > 8)
        printf(" ... (%d parts)", runs);
    printf(runs == 0 ? " nothing runs\n" : restarts > 0 ? ", restarts: %d\n" : "\n", restarts);
    for (int i = 0; i < fleet->seen_count; i++) {
        const struct seen *seen = &fleet->seen[i];

        if (seen->host == host && seen->note.code > 0)
            printf("%-20s %s %s%.0d\n", "", seen->note.name, seen->note.code == 255 ? "is gone" : "ended with exit code ",
                   seen->note.code == 255 ? 0 : seen->note.code);
    }
}

int launch_hosts_status(struct launch *launch, struct error *err)
{
    struct fleet *fleet = open_running(launch, false, err);
    char line[300] = "";
    int rc = TD_OK;

    if (fleet == NULL)
        return err->code;
    if (running(fleet, "learner") != NULL && begin(fleet, 0, "ask") == TD_OK &&
        hosts_run(fleet->cluster, fleet->jobs, 1, "asking the learner", QUICK_MS, err) == TD_OK)
        launch_summary(fleet->jobs[0].output, line, sizeof(line));
    printf("%s (%s): %s\n", launch->cluster.name, cluster_engine_name(launch->cluster.engine),
           line[0] != '\0' ? line : running(fleet, "learner") != NULL ? "the learner does not answer" : "no learner runs");
    for (int i = 0; i < fleet->count; i++)
        print_host(fleet, i);
    close_fleet(fleet);
    return rc;
}

/* --- stop ----------------------------------------------------------------------------------------------- */

static int stop_learner(struct fleet *fleet, int host, struct error *err)
{
    struct host_job *job = &fleet->jobs[host];
    char dir[FS_PATH_MAX];

    cluster_dir(fleet->cluster, fleet->hosts[host], dir);
    hosts_release(job, 1);
    job->host = fleet->hosts[host];
    if (hosts_word(job, "%stdmpc2", fleet->launch->programs) != TD_OK || hosts_word(job, "stop") != TD_OK || hosts_word(job, "%s", dir) != TD_OK)
        return error_set(err, TD_ENOMEM, "out of memory");
    return run_one(fleet, host, "waiting for the learner's checkpoint", STOP_MS, err);
}

int launch_hosts_stop(struct launch *launch, struct error *err)
{
    struct fleet *fleet = open_running(launch, false, err);
    const struct seen *learner = fleet != NULL ? running(fleet, "learner") : NULL;
    int rc = TD_OK, parts = 0;

    if (fleet == NULL)
        return err->code;
    for (int i = 0; i < fleet->seen_count; i++)
        parts += fleet->seen[i].note.code < 0;
    if (learner != NULL)
        rc = stop_learner(fleet, learner->host, err);
    for (int i = 0; rc == TD_OK && i < fleet->count; i++) /* actors were told by the learner: they end by themselves */
        if ((rc = begin(fleet, i, "stop")) != TD_OK || (rc = hosts_word(&fleet->jobs[i], ACTORS_GO_S)) != TD_OK ||
            (rc = hosts_word(&fleet->jobs[i], "all")) != TD_OK)
            error_set(err, rc, "out of memory");
    if (rc == TD_OK)
        rc = hosts_must(fleet->cluster, fleet->jobs, fleet->count, "waiting for parts to end", STOP_MS, err);
    if (rc == TD_OK)
        printf(parts > 0 ? "stopped: %d parts\n" : "nothing runs\n", parts);
    close_fleet(fleet);
    return rc;
}

/* --- logs ------------------------------------------------------------------------------------------------ */

/* tail of the logs on one host; false: none of them is there. */
static bool tail_words(struct fleet *fleet, int host)
{
    static const char *const learner[] = {"learner", "replay", "evaluator"};
    const char *role = fleet->launch->role;
    struct host_job *job = &fleet->jobs[host];
    char dir[FS_PATH_MAX];
    bool any = false;

    cluster_dir(fleet->cluster, fleet->hosts[host], dir);
    hosts_release(job, 1);
    job->host = fleet->hosts[host];
    if (hosts_word(job, "tail") != TD_OK || hosts_word(job, "-n%d", role != NULL ? 40 : 5) != TD_OK)
        return false;
    if (fleet->launch->follow && hosts_word(job, "-F") != TD_OK)
        return false;
    for (size_t i = 0; host == 0 && i < TD_LEN(learner); i++)
        if (role != NULL ? strcmp(role, learner[i]) == 0 : i == 0)
            any = hosts_word(job, "%s/%s.log", dir, learner[i]) == TD_OK;
    for (int i = 0; i < fleet->seen_count; i++) {
        const struct seen *seen = &fleet->seen[i];

        if (seen->host == host && strcmp(seen->note.name, "learner") != 0 &&
            (role != NULL ? strcmp(role, seen->note.name) == 0 : seen->note.code != 0))
            any = hosts_word(job, "%s/%s.log", dir, seen->note.name) == TD_OK;
    }
    return any;
}

int launch_hosts_logs(struct launch *launch, struct error *err)
{
    struct fleet *fleet = open_running(launch, false, err);
    int children = 0, rc = TD_OK;

    if (fleet == NULL)
        return err->code;
    for (int i = 0; i < fleet->count; i++) {
        char **argv;
        pid_t pid;

        if (!tail_words(fleet, i))
            continue;
        argv = hosts_command(fleet->cluster, &fleet->jobs[i]);
        fflush(stdout);
        pid = argv != NULL ? fork() : -1;
        if (pid == 0) {
            execvp(argv[0], argv);
            _exit(127);
        }
        options_words_free(argv);
        children += pid > 0;
        if (!launch->follow && pid > 0)
            waitpid(pid, NULL, 0);
    }
    if (children == 0)
        rc = error_set(err, TD_ENOTFOUND, "there is no log of %.60s", launch->role != NULL ? launch->role : "this run");
    while (launch->follow && (wait(NULL) >= 0 || errno == EINTR))
        ;
    close_fleet(fleet);
    return rc;
}
