/*
 * launch_slurm.c - the engine Slurm: a job for the learner, an array for the actors.
 *
 * The run directory is on a file system that all nodes share; actors find the learner by its record there
 * (learner=@DIR), so nothing waits for the queue here. What runs is asked of squeue: jobs called NAME-learner and
 * NAME-actor with the run directory as their comment; a task of the array is the actor of its number.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/net/rundir.h"
#include "common/util/clock.h"
#include "tools/launch.h"
#include "tools/options.h"

#define QUICK_MS 60000
#define LEAVE_MS 900000u
#define SAY_MS   2000u
#define LOOK_MS  500u

struct task {
    char id[40]; /* "12", or "13_4" */
    int actor;   /* -1: the learner */
    char state[32], node[128];
};

struct queue {
    struct task *tasks; /* malloc'd */
    int count;
};

/* The run directory as jobs see it. */
static int run_dir(const struct launch *launch, char out[FS_PATH_MAX], struct error *err)
{
    char here[FS_PATH_MAX];

    if (launch->cluster.dir[0] == '/') {
        snprintf(out, FS_PATH_MAX, "%s", launch->cluster.dir);
        return TD_OK;
    }
    if (getcwd(here, sizeof(here)) == NULL)
        return error_set_errno(err, TD_EIO, errno, "working directory");
    return fs_join(out, here, launch->cluster.dir, err);
}

/* Words on this machine; the job keeps what they say. */
static int command(struct launch *launch, struct host_job *job, const char *doing, struct error *err, ...)
    __attribute__((sentinel));
static int command(struct launch *launch, struct host_job *job, const char *doing, struct error *err, ...)
{
    const char *word;
    va_list words;
    int rc = TD_OK;

    memset(job, 0, sizeof(*job));
    job->host = "";
    va_start(words, err);
    while (rc == TD_OK && (word = va_arg(words, const char *)) != NULL)
        rc = hosts_word(job, "%s", word);
    va_end(words);
    return rc == TD_OK ? hosts_must(&launch->cluster, job, 1, doing, QUICK_MS, err) : error_set(err, rc, "out of memory");
}

/* --- what is queued or runs ------------------------------------------------------ */

/* "ID|NAME|STATE|NODE|COMMENT" */
static bool parse_task(const struct launch *launch, const char *dir, char *line, struct task *task)
{
    char *fields[5], *at = line, actor[CLUSTER_NAME_MAX + 16];
    const char *number;

    for (int i = 0; i < 5; i++)
        fields[i] = i < 4 ? strsep(&at, "|") : at;
    if (fields[3] == NULL || fields[4] == NULL || strcmp(fields[4], dir) != 0)
        return false;
    snprintf(actor, sizeof(actor), "%s-actor", launch->cluster.name);
    number = strchr(fields[0], '_');
    task->actor = strcmp(fields[1], actor) == 0 && number != NULL ? atoi(number + 1) : -1;
    snprintf(task->id, sizeof(task->id), "%s", fields[0]);
    snprintf(task->state, sizeof(task->state), "%s", fields[2]);
    snprintf(task->node, sizeof(task->node), "%s", fields[3]);
    return task->actor >= 0 || strcmp(fields[1], actor) != 0;
}

static int look(struct launch *launch, const char *dir, struct queue *queue, struct error *err)
{
    char names[2 * CLUSTER_NAME_MAX + 40], *line, *rest = NULL;
    struct host_job job;
    int rc;

    memset(queue, 0, sizeof(*queue));
    snprintf(names, sizeof(names), "--name=%s-learner,%s-actor", launch->cluster.name, launch->cluster.name);
    rc = command(launch, &job, "asking Slurm", err, "squeue", "--noheader", "--array", "--me", names, "--format=%i|%j|%T|%N|%k", NULL);
    if (rc == TD_OK && (queue->tasks = calloc(job.length / 8 + 1, sizeof(*queue->tasks))) == NULL)
        rc = error_set(err, TD_ENOMEM, "out of memory");
    for (line = rc == TD_OK ? strtok_r(job.output, "\n", &rest) : NULL; line != NULL; line = strtok_r(NULL, "\n", &rest))
        queue->count += parse_task(launch, dir, line, &queue->tasks[queue->count]);
    hosts_release(&job, 1);
    return rc;
}

static void forget(struct queue *queue)
{
    free(queue->tasks);
    memset(queue, 0, sizeof(*queue));
}

static const struct task *find_task(const struct queue *queue, int actor)
{
    for (int i = 0; i < queue->count; i++)
        if (queue->tasks[i].actor == actor && strcmp(queue->tasks[i].state, "COMPLETING") != 0)
            return &queue->tasks[i];
    return NULL;
}

/* --- scripts ---------------------------------------------------------------------- */

static void print_role(FILE *out, const struct cluster_role *role)
{
    if (role->partition[0] != '\0')
        fprintf(out, "#SBATCH --partition=%s\n", role->partition);
    if (role->cpus > 0)
        fprintf(out, "#SBATCH --cpus-per-task=%d\n", role->cpus);
    if (role->time[0] != '\0')
        fprintf(out, "#SBATCH --time=%s\n", role->time);
    for (int i = 0; i < role->sbatch.count; i++)
        fprintf(out, "#SBATCH %s\n", role->sbatch.word[i]);
}

/*
 * The keeper starts the part again when it dies and hands SIGTERM (scancel, preemption) on; two minutes before the
 * time limit USR1 ends it the same way, and the job goes back into the queue.
 */
static int print_script(struct launch *launch, const char *dir, bool learner, FILE *out)
{
    const struct cluster *cluster = &launch->cluster;
    const struct cluster_role *role = learner ? &cluster->learner : &cluster->actors;
    const char *what = learner ? "learner" : "actor";
    struct host_job words = {.host = ""};
    bool advertised = role->address[0] != '\0';
    char *quoted_dir = hosts_quote(dir), *program = NULL;
    int rc = quoted_dir == NULL ? TD_ENOMEM : learner ? launch_learner_words(launch, &words) : launch_actor_words(launch, &words);

    if (asprintf(&program, "%stdmpc2", launch->programs) < 0)
        program = NULL, rc = TD_ENOMEM;
    if (rc == TD_OK) {
        char *quoted = hosts_quote(program);

        fprintf(out, "#!/bin/bash\n#SBATCH --job-name=%s-%s\n#SBATCH --comment=%s\n#SBATCH --output=%s/%s.log\n", cluster->name, what,
                quoted_dir, quoted_dir, learner ? "learner" : "actor-%a");
        fputs("#SBATCH --open-mode=append\n#SBATCH --requeue\n#SBATCH --signal=B:USR1@120\n", out);
        print_role(out, role);
        fputs("# the time limit is near: leave with a checkpoint, then wait in the queue again\n"
              "trap 'again=1; kill -TERM \"$keeper\"' USR1\n# scancel, preemption: Slurm tells the keeper too\ntrap : TERM\n", out);
        fprintf(out, "%s part keep %s tdmpc2-%s %s", quoted != NULL ? quoted : "", quoted_dir, what, learner ? "learner" : "\"actor-$SLURM_ARRAY_TASK_ID\"");
        free(quoted);
        for (int i = 0; i < words.argc; i++) {
            char *word = hosts_quote(words.argv[i]);

            fprintf(out, " \\\n    %s", word != NULL ? word : "");
            free(word);
        }
        if (learner && !advertised)
            fputs(" \\\n    advertise=\"$(hostname)\"", out);
        fputs(" &\nkeeper=$!\nwait \"$keeper\"; code=$?\n"
              "while kill -0 \"$keeper\" 2>/dev/null; do wait \"$keeper\"; code=$?; done\n"
              "[ -n \"$again\" ] && exec scontrol requeue \"${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}\"\n"
              "exit \"$code\"\n", out);
    }
    hosts_release(&words, 1);
    free(quoted_dir);
    free(program);
    return rc;
}

static int write_script(struct launch *launch, const char *dir, bool learner, char path[FS_PATH_MAX], struct error *err)
{
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    int rc = out == NULL ? TD_ENOMEM : print_script(launch, dir, learner, out);

    if (out != NULL)
        fclose(out);
    if (rc != TD_OK)
        error_set(err, rc, "out of memory");
    else if ((rc = fs_join(path, launch->cluster.state, learner ? "learner.sbatch" : "actor.sbatch", err)) == TD_OK)
        rc = fs_write_file(path, text, length, err);
    free(text);
    return rc;
}

/* Submit a script; `array` is NULL for the learner. */
static int submit(struct launch *launch, const char *dir, const char *array, struct error *err)
{
    char path[FS_PATH_MAX], *words = NULL;
    struct host_job job;
    int rc = write_script(launch, dir, array == NULL, path, err);

    if (rc != TD_OK)
        return rc;
    if (asprintf(&words, "--array=%s", array != NULL ? array : "") < 0)
        return error_set(err, TD_ENOMEM, "out of memory");
    if (array != NULL)
        rc = command(launch, &job, "submitting actors", err, "sbatch", "--parsable", words, path, NULL);
    else
        rc = command(launch, &job, "submitting the learner", err, "sbatch", "--parsable", path, NULL);
    if (rc == TD_OK)
        printf("submitted: job %.*s, %s%s\n", (int)strcspn(job.output, ";\n"), job.output, array != NULL ? "actors " : "the learner",
               array != NULL ? array : "");
    hosts_release(&job, 1);
    free(words);
    return rc;
}

/* Those of 0 to actors-1 that have no task, "0-3,7"; malloc'd, "" for none. */
static char *missing(const struct queue *queue, int actors)
{
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);

    for (int i = 0; out != NULL && i < actors; i++) {
        int first = i;

        if (find_task(queue, i) != NULL)
            continue;
        while (i + 1 < actors && find_task(queue, i + 1) == NULL)
            i++;
        fprintf(out, first == i ? "%s%d" : "%s%d-%d", ftell(out) > 0 ? "," : "", first, i);
    }
    if (out != NULL)
        fclose(out);
    return text;
}

/* --- keys --------------------------------------------------------------------------- */

static int put_keys(struct launch *launch, const char *dir, int actors, struct error *err)
{
    static const char *const first[] = {"learner", "evaluator", "viewer", "shard-0"};
    struct host_job job = {.host = ""};
    char (*text)[24] = calloc((size_t)actors + 1, sizeof(*text)), *packed = NULL;
    const char **names = calloc((size_t)actors + TD_LEN(first), sizeof(*names));
    int rc = text != NULL && names != NULL ? launch_make_keys(launch, actors, err) : error_set(err, TD_ENOMEM, "out of memory");

    for (size_t i = 0; rc == TD_OK && i < TD_LEN(first); i++)
        names[i] = first[i];
    for (int i = 0; rc == TD_OK && i < actors; i++) {
        snprintf(text[i], sizeof(text[i]), "actor-%d", i);
        names[TD_LEN(first) + (size_t)i] = text[i];
    }
    if (rc == TD_OK && (rc = launch_pack_keys(launch, names, actors + (int)TD_LEN(first), &packed, &job.input_length, err)) == TD_OK) {
        job.input = packed;
        if (hosts_word(&job, "%stdmpc2", launch->programs) != TD_OK || hosts_word(&job, "part") != TD_OK ||
            hosts_word(&job, "keys") != TD_OK || hosts_word(&job, "%s", dir) != TD_OK)
            rc = error_set(err, TD_ENOMEM, "out of memory");
        else
            rc = hosts_must(&launch->cluster, &job, 1, "handing out keys", QUICK_MS, err);
        explicit_bzero(packed, job.input_length);
    }
    hosts_release(&job, 1);
    free(packed);
    free(names);
    free(text);
    return rc;
}

/* --- the commands ---------------------------------------------------------------------- */

static int dry_run(struct launch *launch, const char *dir)
{
    int actors = launch->cluster.actors.count, rc;

    printf("# %s/learner.sbatch, submitted by sbatch\n", launch->cluster.state);
    if ((rc = print_script(launch, dir, true, stdout)) != TD_OK || actors == 0)
        return rc;
    printf("\n# %s/actor.sbatch, submitted by sbatch --array=0-%d\n", launch->cluster.state, actors - 1);
    return print_script(launch, dir, false, stdout);
}

static int start_actors(struct launch *launch, const char *dir, const struct queue *queue, int actors, struct error *err)
{
    char *array = missing(queue, actors);
    int rc = array == NULL ? error_set(err, TD_ENOMEM, "out of memory") : array[0] != '\0' ? submit(launch, dir, array, err) : TD_OK;

    free(array);
    return rc;
}

int launch_slurm(struct launch *launch, struct error *err)
{
    const struct cluster *cluster = &launch->cluster;
    char dir[FS_PATH_MAX], run[FS_PATH_MAX];
    struct queue queue = {0};
    int rc = run_dir(launch, dir, err);

    if (rc == TD_OK && launch->dry_run)
        return dry_run(launch, dir) == TD_OK ? TD_OK : error_set(err, TD_ENOMEM, "out of memory");
    if (rc == TD_OK && (rc = fs_join(run, dir, "run", err)) == TD_OK && (rc = look(launch, dir, &queue, err)) == TD_OK &&
        (rc = fs_mkdirs(run, 0755, err)) == TD_OK &&
        (!cluster->keys || (rc = put_keys(launch, dir, cluster->actors.count, err)) == TD_OK)) {
        if (find_task(&queue, -1) != NULL)
            printf("learner: job %s is there already\n", find_task(&queue, -1)->id);
        else
            rc = submit(launch, dir, NULL, err);
        if (rc == TD_OK)
            rc = start_actors(launch, dir, &queue, cluster->actors.count, err);
    }
    forget(&queue);
    return rc;
}

/* Wait until none of the actors from `from` on (-1: nothing at all) is left. */
static int await_gone(struct launch *launch, const char *dir, int from, struct error *err)
{
    uint64_t now = clock_ms(), end = now + LEAVE_MS, say = now + SAY_MS;
    int left = 1, rc = TD_OK;

    while (left > 0) {
        struct queue queue;

        left = 0;
        if ((rc = look(launch, dir, &queue, err)) != TD_OK)
            return rc;
        for (int i = 0; i < queue.count; i++)
            left += queue.tasks[i].actor >= from;
        forget(&queue);
        now = clock_ms();
        if (left > 0 && now >= end)
            return error_set(err, TD_ETIMEOUT, "%d jobs have not ended within %d s: squeue says more", left, (int)(LEAVE_MS / 1000));
        if (left > 0 && now >= say) {
            fprintf(stderr, "waiting for %d jobs to end\n", left);
            say = now + SAY_MS;
        }
        if (left > 0)
            clock_sleep_ms(LOOK_MS);
    }
    return rc;
}

/* scancel what has a number from `from` on; SIGTERM first, Slurm's KillWait later SIGKILL. */
static int cancel(struct launch *launch, const struct queue *queue, int from, int *cancelled, struct error *err)
{
    struct host_job job = {.host = ""};
    int rc = hosts_word(&job, "scancel");

    *cancelled = 0;
    for (int i = 0; rc == TD_OK && i < queue->count; i++)
        if (queue->tasks[i].actor >= from) {
            rc = hosts_word(&job, "%s", queue->tasks[i].id);
            (*cancelled)++;
        }
    if (rc != TD_OK)
        error_set(err, rc, "out of memory");
    else if (*cancelled > 0)
        rc = hosts_must(&launch->cluster, &job, 1, "cancelling jobs", QUICK_MS, err);
    hosts_release(&job, 1);
    return rc;
}

int launch_slurm_scale(struct launch *launch, struct error *err)
{
    char dir[FS_PATH_MAX];
    struct queue queue = {0};
    int left, rc = run_dir(launch, dir, err);

    if (rc == TD_OK && (rc = look(launch, dir, &queue, err)) == TD_OK && find_task(&queue, -1) == NULL)
        rc = error_set(err, TD_ENOTFOUND, "the run does not run: tdmpc2 launch %s", launch->cluster.file);
    if (rc == TD_OK && launch->cluster.keys)
        rc = put_keys(launch, dir, launch->actors, err);
    if (rc == TD_OK && (rc = cancel(launch, &queue, launch->actors, &left, err)) == TD_OK &&
        (rc = await_gone(launch, dir, launch->actors, err)) == TD_OK &&
        (rc = start_actors(launch, dir, &queue, launch->actors, err)) == TD_OK)
        printf("%d actors: %d left\n", launch->actors, left);
    forget(&queue);
    return rc;
}

/* The learner's record, if this run has one. */
static bool read_record(const char *dir, struct rundir_part *part)
{
    return rundir_find(dir, "learner", 0, part, NULL) == TD_OK;
}

/* Ask the learner over the network, with its own key. False: it did not answer. */
static bool ask_to_stop(struct launch *launch, const char *dir)
{
    char keys[FS_PATH_MAX], word[FS_PATH_MAX + 8];
    struct rundir_part part;
    struct host_job job;
    char program[FS_PATH_MAX + 16];
    bool done;

    if (!read_record(dir, &part) || part.network[0] == '\0')
        return false;
    launch_keys_dir(launch, keys);
    snprintf(word, sizeof(word), launch->cluster.keys ? "keys=%s" : "insecure=true", keys);
    snprintf(program, sizeof(program), "%stdmpc2", launch->programs);
    done = command(launch, &job, "asking the learner to stop", NULL, program, "stop", part.network, word, NULL) == TD_OK;
    hosts_release(&job, 1);
    return done;
}

int launch_slurm_stop(struct launch *launch, struct error *err)
{
    char dir[FS_PATH_MAX];
    struct queue queue = {0};
    const struct task *learner;
    int all = 0, cancelled, rc = run_dir(launch, dir, err);

    if (rc == TD_OK && (rc = look(launch, dir, &queue, err)) == TD_OK) {
        all = queue.count;
        learner = find_task(&queue, -1);
        if (all > 0 && (learner == NULL || strcmp(learner->state, "RUNNING") != 0 || !ask_to_stop(launch, dir)))
            rc = cancel(launch, &queue, -1, &cancelled, err);
        for (int i = 0; rc == TD_OK && i < queue.count; i++) /* what waits in the queue would start without a learner */
            if (strcmp(queue.tasks[i].state, "PENDING") == 0) {
                struct queue one = {.tasks = &queue.tasks[i], .count = 1};

                rc = cancel(launch, &one, -1, &cancelled, err);
            }
    }
    if (rc == TD_OK && (rc = await_gone(launch, dir, -1, err)) == TD_OK)
        printf(all > 0 ? "stopped: %d jobs\n" : "nothing runs\n", all);
    forget(&queue);
    return rc;
}

int launch_slurm_status(struct launch *launch, struct error *err)
{
    static const char *const states[] = {"RUNNING", "PENDING"};
    char dir[FS_PATH_MAX];
    struct queue queue = {0};
    struct rundir_part part;
    const struct task *learner;
    int rc = run_dir(launch, dir, err);

    if (rc != TD_OK || (rc = look(launch, dir, &queue, err)) != TD_OK)
        return rc;
    learner = find_task(&queue, -1);
    printf("%s (slurm): learner %s%s%s%s%s\n", launch->cluster.name, learner != NULL ? "job " : "does not run", learner != NULL ? learner->id : "",
           learner != NULL ? " " : "", learner != NULL ? learner->state : "", "");
    if (learner != NULL && learner->node[0] != '\0')
        printf("  node %s%s%s\n", learner->node, read_record(dir, &part) ? ", listens on " : "", read_record(dir, &part) ? part.network : "");
    for (size_t i = 0; i < TD_LEN(states); i++) {
        int count = 0;

        for (int k = 0; k < queue.count; k++)
            count += queue.tasks[k].actor >= 0 && strcmp(queue.tasks[k].state, states[i]) == 0;
        printf("  actors %s: %d\n", states[i], count);
    }
    forget(&queue);
    return TD_OK;
}

int launch_slurm_logs(struct launch *launch, struct error *err)
{
    char dir[FS_PATH_MAX], path[FS_PATH_MAX + 64];
    const char *words[8] = {"tail", launch->role != NULL ? "-n40" : "-n20"};
    int count = 2, rc = run_dir(launch, dir, err);

    if (rc != TD_OK)
        return rc;
    snprintf(path, sizeof(path), "%s/%.40s.log", dir, launch->role != NULL ? launch->role : "learner");
    if (access(path, R_OK) != 0)
        return error_set(err, TD_ENOTFOUND, "there is no log %s (yet): `tdmpc2 status %s` tells what waits in the queue", path,
                         launch->cluster.file);
    if (launch->follow)
        words[count++] = "-F";
    words[count++] = path;
    fflush(stdout);
    execvp(words[0], (char *const *)words);
    return error_set_errno(err, TD_EIO, errno, "cannot start tail");
}
