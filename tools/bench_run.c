#include "tools/bench_run.h"

#include <dirent.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/net/channel.h"
#include "common/net/loop.h"
#include "common/net/process.h"
#include "common/net/rundir.h"
#include "common/util/clock.h"
#include "common/util/fs.h"

#define PARENT   "build"
#define PREFIX   "bench-actors-"
#define START_MS 60000u
#define STOP_MS  20000u
#define ASK_MS   5000u
#define WORDS    96

struct part {
    process_t *process; /* NULL: none */
    char log[FS_PATH_MAX];
    bool leaving;       /* told to end */
};

struct bench_run {
    char dir[FS_PATH_MAX];
    loop_t *loop;
    struct part learner, actors[BENCH_ACTORS_MAX];
    struct rundir_part record; /* the learner's addresses */
    channel_t *stats;
    struct run_status status;
    bool answered, interrupted;
};

/* --- folders -------------------------------------------------------------------- */

/* What benchmarks left that were killed: the folder's name ends in the pid of its owner. */
static void sweep(void)
{
    DIR *folder = opendir(PARENT);
    struct dirent *entry;

    while (folder != NULL && (entry = readdir(folder)) != NULL) {
        char path[FS_PATH_MAX];
        long pid;

        if (sscanf(entry->d_name, PREFIX "%ld", &pid) != 1 || pid <= 0 || kill((pid_t)pid, 0) == 0)
            continue;
        if (fs_join(path, PARENT, entry->d_name, NULL) == TD_OK)
            (void)fs_remove_tree(path, NULL);
    }
    if (folder != NULL)
        closedir(folder);
}

/* --- processes ------------------------------------------------------------------ */

static bool running(const struct part *part)
{
    return part->process != NULL && process_running(part->process);
}

static int spawn(bench_run_t *run, struct part *part, const char *name, const char *program,
                 const char *const *words, struct error *err)
{
    struct process_options options = {.program = program, .args = words, .log_path = part->log};
    char file[40];
    int rc;

    snprintf(file, sizeof(file), "%s.log", name);
    if ((rc = fs_join(part->log, run->dir, file, err)) != TD_OK)
        return rc;
    process_close(&part->process);
    part->leaving = false;
    return process_spawn(&part->process, run->loop, &options, err);
}

static int start_actor(bench_run_t *run, int number, struct error *err)
{
    char learner[CHANNEL_ADDRESS_MAX + 16], actor[32], id[40], dir[FS_PATH_MAX + 16], name[24];
    const char *words[] = {learner, actor, id, dir, NULL};

    snprintf(learner, sizeof(learner), "learner=%s", run->record.control);
    snprintf(actor, sizeof(actor), "actor=%d", number);
    snprintf(id, sizeof(id), "run_id=%016" PRIx64, run->record.run_id);
    snprintf(dir, sizeof(dir), "work_dir=%s", run->dir);
    snprintf(name, sizeof(name), "actor-%d", number);
    return spawn(run, &run->actors[number], name, "tdmpc2-actor", words, err);
}

static void tell_to_end(struct part *part, int signum)
{
    part->leaving = true;
    if (running(part))
        process_signal(part->process, signum);
}

/* --- waiting -------------------------------------------------------------------- */

static void on_signal(void *context, int signum, int count)
{
    bench_run_t *run = context;

    (void)signum;
    (void)count;
    run->interrupted = true;
}

static int died(const struct part *part, struct error *err)
{
    char tail[400];

    process_log_tail(part->log, 2, tail, sizeof(tail));
    return error_set(err, TD_EIO, "a part of the measured run has ended; the end of its log: %s", tail);
}

/* Is all that should run still running? */
static int check(const bench_run_t *run, struct error *err)
{
    if (run->interrupted)
        return error_set(err, TD_EAGAIN, "interrupted");
    if (!run->learner.leaving && !running(&run->learner))
        return died(&run->learner, err);
    for (int i = 0; i < BENCH_ACTORS_MAX; i++) {
        const struct part *actor = &run->actors[i];

        if (actor->process != NULL && !actor->leaving && !running(actor))
            return died(actor, err);
    }
    return TD_OK;
}

int bench_run_for(bench_run_t *run, uint64_t ms, struct error *err)
{
    uint64_t end = clock_ms() + ms, now;
    int rc = check(run, err);

    while (rc == TD_OK && (now = clock_ms()) < end) {
        loop_run_for(run->loop, end - now < 100 ? end - now : 100);
        rc = check(run, err);
    }
    return rc;
}

static bool any_left(const bench_run_t *run)
{
    bool left = run->learner.leaving && running(&run->learner);

    for (int i = 0; i < BENCH_ACTORS_MAX; i++)
        left |= run->actors[i].leaving && running(&run->actors[i]);
    return left;
}

/* Until all that were told to end have; killed when they take too long. */
static void wait_left(bench_run_t *run)
{
    uint64_t end = clock_ms() + STOP_MS;

    while (any_left(run)) {
        loop_run_for(run->loop, 50);
        if (clock_ms() < end)
            continue;
        for (int i = 0; i < BENCH_ACTORS_MAX; i++)
            if (run->actors[i].leaving)
                tell_to_end(&run->actors[i], SIGKILL);
        if (run->learner.leaving)
            tell_to_end(&run->learner, SIGKILL);
    }
}

/* --- asking --------------------------------------------------------------------- */

static void on_stats(void *context, uint64_t peer, const struct channel_frame *frames, int count)
{
    bench_run_t *run = context;

    (void)peer;
    if (count >= 1 && status_parse(&run->status, frames[0].bytes, frames[0].length))
        run->answered = true;
}

int bench_run_status(bench_run_t *run, struct run_status *status, struct error *err)
{
    struct channel_part part = {.bytes = "stats", .length = 5};
    uint64_t end = clock_ms() + ASK_MS;
    int rc = check(run, err);

    run->answered = false;
    channel_send(run->stats, 0, &part, 1);
    while (rc == TD_OK && !run->answered) {
        loop_run_for(run->loop, 20);
        rc = check(run, err);
        if (rc == TD_OK && clock_ms() >= end)
            rc = error_set(err, TD_ETIMEOUT, "the learner does not answer for %u s", ASK_MS / 1000);
    }
    *status = run->status;
    return rc;
}

int bench_run_phase(bench_run_t *run, const char *phase, uint64_t timeout_ms, struct error *err)
{
    uint64_t end = clock_ms() + timeout_ms;
    struct run_status status;
    int rc;

    while ((rc = bench_run_status(run, &status, err)) == TD_OK && strcmp(status.phase, phase) != 0) {
        if (clock_ms() >= end)
            return error_set(err, TD_ETIMEOUT, "the run is still %s after %.0f s (%s)", status.phase,
                             (double)timeout_ms * 1e-3, status.waiting);
        if ((rc = bench_run_for(run, 200, err)) != TD_OK)
            break;
    }
    return rc;
}

int bench_run_actors(bench_run_t *run, int count, struct error *err)
{
    uint64_t end = clock_ms() + START_MS;
    struct run_status status;
    int rc = TD_OK;

    for (int i = count; i < BENCH_ACTORS_MAX; i++)
        if (running(&run->actors[i]))
            tell_to_end(&run->actors[i], SIGTERM);
    wait_left(run);
    for (int i = 0; i < count && rc == TD_OK; i++)
        if (!running(&run->actors[i]))
            rc = start_actor(run, i, err);
    while (rc == TD_OK && (rc = bench_run_status(run, &status, err)) == TD_OK &&
           status.actors != count) {
        if (clock_ms() >= end)
            return error_set(err, TD_ETIMEOUT, "the learner knows of %.0f actors, not of %d, after %u s",
                             status.actors, count, START_MS / 1000);
        rc = bench_run_for(run, 200, err);
    }
    return rc;
}

/* --- processor time ------------------------------------------------------------- */

static double cpu_of(pid_t pid)
{
    char path[64], text[1024], *at;
    unsigned long user = 0, system = 0;
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%ld/stat", (long)pid);
    file = fopen(path, "r");
    if (file == NULL)
        return 0;
    if (fgets(text, sizeof(text), file) != NULL && (at = strrchr(text, ')')) != NULL)
        (void)sscanf(at + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system);
    fclose(file);
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

double bench_run_cpu(const bench_run_t *run)
{
    struct rundir_part shard;
    double seconds = running(&run->learner) ? cpu_of(process_pid(run->learner.process)) : 0;

    if (rundir_find(run->dir, "replay", 0, &shard, NULL) == TD_OK)
        seconds += cpu_of(shard.pid);
    for (int i = 0; i < BENCH_ACTORS_MAX; i++)
        if (running(&run->actors[i]))
            seconds += cpu_of(process_pid(run->actors[i].process));
    return seconds;
}

/* --- life ----------------------------------------------------------------------- */

static int find_learner(bench_run_t *run, struct error *err)
{
    struct channel_options options = {.name = "stats", .pattern = CHANNEL_REQ, .max_message = 1u << 20,
                                      .on_message = on_stats, .context = run};
    uint64_t end = clock_ms() + START_MS;
    int rc;

    while (rundir_find(run->dir, "learner", 0, &run->record, NULL) != TD_OK ||
           run->record.control[0] == '\0') {
        if ((rc = bench_run_for(run, 50, err)) != TD_OK)
            return rc;
        if (clock_ms() >= end)
            return error_set(err, TD_ETIMEOUT, "the learner has not started after %u s", START_MS / 1000);
    }
    if ((rc = channel_open(&run->stats, run->loop, &options, err)) != TD_OK)
        return rc;
    return channel_connect(run->stats, run->record.stats, err);
}

static int start(bench_run_t *run, const char *const *words, struct error *err)
{
    char dir[FS_PATH_MAX + 16];
    const char *all[WORDS];
    int count = 0, rc;

    if ((rc = loop_create(&run->loop, err)) != TD_OK ||
        (rc = loop_signals(run->loop, on_signal, run, err)) != TD_OK ||
        (rc = fs_mkdirs(run->dir, 0755, err)) != TD_OK)
        return rc;
    for (; words[count] != NULL; count++) {
        if (count + 2 >= WORDS)
            return error_set(err, TD_EINVAL, "more than %d options", WORDS - 2);
        all[count] = words[count];
    }
    snprintf(dir, sizeof(dir), "work_dir=%s", run->dir);
    all[count++] = dir;
    all[count] = NULL;
    rc = spawn(run, &run->learner, "learner", "tdmpc2-learner", all, err);
    return rc == TD_OK ? find_learner(run, err) : rc;
}

int bench_run_start(bench_run_t **out, const char *const *words, struct error *err)
{
    bench_run_t *run = calloc(1, sizeof(*run));
    int rc;

    *out = NULL;
    if (run == NULL)
        return error_set(err, TD_ENOMEM, "out of memory");
    sweep();
    snprintf(run->dir, sizeof(run->dir), "%s/%s%ld", PARENT, PREFIX, (long)getpid());
    if ((rc = start(run, words, err)) != TD_OK)
        bench_run_stop(&run);
    *out = run;
    return rc;
}

/* The shard is the learner's child: it follows it, and must be gone before its folder is. */
static void wait_shard(const bench_run_t *run, pid_t pid)
{
    uint64_t end = clock_ms() + STOP_MS;

    while (pid > 0 && kill(pid, 0) == 0 && clock_ms() < end)
        loop_run_for(run->loop, 20);
}

void bench_run_stop(bench_run_t **out)
{
    bench_run_t *run = *out;
    struct rundir_part shard = {0};

    if (run == NULL)
        return;
    (void)rundir_find(run->dir, "replay", 0, &shard, NULL);
    for (int i = 0; i < BENCH_ACTORS_MAX; i++)
        if (run->actors[i].process != NULL)
            tell_to_end(&run->actors[i], SIGTERM);
    wait_left(run);
    if (run->learner.process != NULL)
        tell_to_end(&run->learner, SIGTERM);
    wait_left(run);
    wait_shard(run, shard.pid);
    channel_close(&run->stats);
    process_close(&run->learner.process);
    for (int i = 0; i < BENCH_ACTORS_MAX; i++)
        process_close(&run->actors[i].process);
    loop_destroy(&run->loop);
    channel_shutdown();
    (void)fs_remove_tree(run->dir, NULL);
    free(run);
    *out = NULL;
}
