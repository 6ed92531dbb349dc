/* replay.c - `tdmpc2 replay`: look at, check, save and convert the directory of a replay shard. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/util/clock.h"
#include "common/env/tasks.h"
#include "common/util/fs.h"
#include "learner/digest.h"
#include "learner/progress.h"
#include "tools/commands.h"
#include "tools/options.h"
#include "tools/replay.h"

struct request {
    char dir[FS_PATH_MAX];
    const char *name;   /* as it was given */
    const char *target; /* OUT or FILE */
    bool json, force;
};

static void usage(FILE *out)
{
    fprintf(out,
            "usage: tdmpc2 replay info DIR [--json]\n"
            "       tdmpc2 replay verify DIR [--json]      the tree, every hash, index against segments; exit 1 on damage,\n"
            "                                              2 when it cannot be opened\n"
            "       tdmpc2 replay salvage DIR OUT          rows of a damaged store into a new one\n"
            "       tdmpc2 replay export DIR FILE.safetensors | FILE.pt\n"
            "       tdmpc2 replay hash DIR                 one SHA-256 per column; of a lock-step run directory over the\n"
            "                                              episodes its newest checkpoint may draw from, else over all\n\n"
            "DIR is a shard's directory or the run directory above it. Nobody may be using it. info, verify and\n"
            "export need no leave to write there. export without damaged episodes ends with 1.\n\n"
            "export writes, for N rows of E episodes in order of their numbers:\n"
            "  obs [N, O] F32 (frames: [N, bytes] U8), action [N, A] F32, reward [N] F32,\n"
            "  first, terminated, truncated [N] BOOL, task [N] I32,\n"
            "  param_epoch [N] I32, param_version [N] I64 (the parameters that chose the action;\n"
            "  epoch 0: a random one), episode [N] I64,\n"
            "  episode_id, episode_start, episode_rows, episode_aborted, episode_slot,\n"
            "  episode_environment [E] I64\n"
            "action, reward and terminated of a row led to its obs; they are 0 where first is set.\n\n"
            "FILE.pt is a chunk as the official data sets have: a TensorDict [episodes, rows] that torch.load gives, of\n"
            "obs, action, reward (NaN in first rows), task and, where there is one, terminated; episodes of one length.\n"
            "`tdmpc2 data import` reads both.\n");
}

/* --- progress -------------------------------------------------------------- */

void replay_progress(void *context, uint64_t done, uint64_t total)
{
    struct replay_progress *progress = context;
    uint64_t now = clock_ms();
    bool live = isatty(STDERR_FILENO);

    if (progress->start_ms == 0) {
        progress->start_ms = now;
        progress->next_ms = now + 2000;
    }
    if (now < progress->next_ms || total == 0)
        return;
    progress->next_ms = now + (live ? 200 : 2000);
    progress->drawn = true;
    fprintf(stderr, "%s%s %5.1f %%%s", live ? "\r" : "", progress->what,
            100.0 * (double)(done < total ? done : total) / (double)total, live ? "" : "\n");
}

void replay_progress_end(struct replay_progress *progress)
{
    if (progress->drawn && isatty(STDERR_FILENO))
        fprintf(stderr, "\n");
}

/* --- the parts ------------------------------------------------------------- */

static int open_dir(store_t **store, const struct request *request, bool check, struct error *err)
{
    struct replay_progress progress = {.what = "tree"};
    struct store_config config = {.dir = request->dir, .any_shard = true, .reading = true, .force = request->force,
                                  .check = check,
                                  .progress = replay_progress, .context = &progress};
    int rc;

    if ((rc = store_open(store, &config, err)) == TD_ELOCKED) {
        fprintf(stderr, "tdmpc2 replay: %s; waiting up to %u s\n", err->text, STORE_LOCK_WAIT_MS / 1000);
        config.lock_wait_ms = STORE_LOCK_WAIT_MS;
        rc = store_open(store, &config, err);
    }
    replay_progress_end(&progress);
    return rc;
}

/* Rows and episodes that are kept, by task; returns one more than the highest task there is. */
static uint32_t count_tasks(store_t *store, uint64_t rows[ROW_TASKS_MAX], uint64_t episodes[ROW_TASKS_MAX])
{
    const struct store_counts *counts = store_counts(store);
    uint32_t tasks = 0;

    for (uint64_t id = counts->first; id < counts->sealed; id++) {
        const struct store_episode *episode = store_episode(store, id);
        uint32_t task = episode_task(episode->flags);

        if (task >= ROW_TASKS_MAX)
            continue;
        rows[task] += episode->rows;
        episodes[task]++;
        tasks = task >= tasks ? task + 1 : tasks;
    }
    return tasks;
}

/* The tasks by name where the options of the run lie beside; nothing for a run of one task. */
static void print_tasks(store_t *store, const char *dir, bool json)
{
    uint64_t rows[ROW_TASKS_MAX] = {0}, episodes[ROW_TASKS_MAX] = {0};
    uint32_t tasks = count_tasks(store, rows, episodes);
    static struct config config;
    struct task_set set = {0};
    char path[FS_PATH_MAX];

    config_init(&config);
    if (fs_join(path, dir, "config.yaml", NULL) == TD_OK && config_load(&config, path, NULL, NULL) == TD_OK)
        (void)env_task_set(&set, &config, NULL);
    for (uint32_t i = 0; i < tasks && (tasks > 1 || json); i++) {
        const char *name = (int)i < set.count ? set.task[i].name : "";

        if (json)
            printf("%s{\"task\":%u,\"name\":\"%s\",\"rows\":%" PRIu64 ",\"episodes\":%" PRIu64 "}", i > 0 ? "," : "", i,
                   name, rows[i], episodes[i]);
        else
            printf("task %-7u %" PRIu64 " rows, %" PRIu64 " episodes kept%s%s\n", i, rows[i], episodes[i],
                   name[0] != '\0' ? ": " : "", name);
    }
    task_set_release(&set);
}

static void print_info(store_t *store, const char *dir, bool json)
{
    const struct store_identity *identity = store_identity(store);
    const struct store_counts *counts = store_counts(store);
    uint64_t open_streams = 0, held = counts->sealed - counts->first, used = identity->map_bytes - store_room(store);

    for (size_t i = 0; i < store_stream_count(store); i++)
        open_streams += store_stream_at(store, i)->holder != 0;
    if (json) {
        printf("{\"run\":\"%016" PRIx64 "\",\"store\":\"%016" PRIx64 "\",\"shard\":%u,\"obs_type\":%u,"
               "\"obs_dim\":%u,\"action_dim\":%u,\"row_bytes\":%zu,\"episodes\":%" PRIu64
               ",\"first_episode\":%" PRIu64 ",\"episodes_total\":%" PRIu64 ",\"rows\":%" PRIu64
               ",\"rows_total\":%" PRIu64 ",\"agent_steps_total\":%" PRIu64 ",\"open_rows\":%" PRIu64
               ",\"bytes\":%" PRIu64 ",\"used_bytes\":%" PRIu64 ",\"map_bytes\":%" PRIu64 ",\"room_bytes\":%" PRIu64
               ",\"streams\":%" PRIu64 ",\"streams_held\":%" PRIu64 ",\"aborted\":%" PRIu64
               ",\"quarantined\":%" PRIu64 ",\"learner_epoch\":%u,\"generation\":%" PRIu64 ",\"tasks\":[",
               identity->run_id, identity->store_id, identity->shard, identity->schema.obs_type,
               identity->schema.obs_dim, identity->schema.action_dim, row_stride(&identity->schema), held,
               counts->first, counts->sealed, counts->held_rows, counts->rows, counts->steps,
               counts->open_rows, counts->bytes, used, identity->map_bytes, store_room(store), counts->streams,
               open_streams, counts->aborted, counts->damaged, counts->learner_epoch, counts->generation);
        print_tasks(store, dir, true);
        printf("]}\n");
        return;
    }
    printf("run          %016" PRIx64 ", shard %u, store %016" PRIx64 "\n", identity->run_id,
           identity->shard, identity->store_id);
    printf("rows of      %u %s, %u actions: %zu bytes\n", identity->schema.obs_dim,
           identity->schema.obs_type == OBS_STATE ? "observations" : "bytes of frame",
           identity->schema.action_dim, row_stride(&identity->schema));
    printf("episodes     %" PRIu64 " kept, the first is number %" PRIu64 "; %" PRIu64 " in all\n", held,
           counts->first, counts->sealed);
    printf("rows         %" PRIu64 " kept, %" PRIu64 " in all (%" PRIu64 " agent steps), %" PRIu64
           " of episodes under way\n",
           counts->held_rows, counts->rows, counts->steps, counts->open_rows);
    printf("bytes        %.1f MB used, %.1f MB of rows as they are drawn; map %.1f MB, %.1f MB free\n", (double)used * 1e-6,
           (double)counts->bytes * 1e-6, (double)identity->map_bytes * 1e-6, (double)store_room(store) * 1e-6);
    printf("streams      %" PRIu64 " known, %" PRIu64 " held\n", counts->streams, open_streams);
    printf("aborted      %" PRIu64 " episodes cut short\n", counts->aborted);
    printf("quarantined  %" PRIu64 " episodes; `tdmpc2 replay verify` reads them all\n", counts->damaged);
    printf("learner      epoch %u, rewind %016" PRIx64 "\n", counts->learner_epoch, counts->generation);
    print_tasks(store, dir, false);
}

static int run_info(const struct request *request, struct error *err)
{
    store_t *store;
    int rc = open_dir(&store, request, false, err);

    if (rc != TD_OK)
        return rc;
    print_info(store, request->name, request->json);
    store_close(&store);
    return TD_OK;
}

static void print_report(const struct verify_report *report, bool json)
{
    if (json) {
        printf("{\"clean\":%s,\"episodes\":%" PRIu64 ",\"segments\":%" PRIu64 ",\"rows\":%" PRIu64
               ",\"open_rows\":%" PRIu64 ",\"whole_episodes\":%" PRIu64 ",\"whole_rows\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"bad_segments\":%" PRIu64 ",\"missing_segments\":%" PRIu64
               ",\"stray_segments\":%" PRIu64 ",\"bad_appends\":%" PRIu64 ",\"damaged_episodes\":%" PRIu64
               ",\"bad_records\":%" PRIu64
               "}\n",
               verify_clean(report) ? "true" : "false", report->episodes, report->segments, report->rows,
               report->open_rows, report->whole, report->whole_rows,
               report->bytes, report->bad, report->missing, report->stray, report->bad_open,
               report->damaged, report->bad_records);
        return;
    }
    printf("read %" PRIu64 " episodes, %" PRIu64 " segments, %" PRIu64 " rows, %.1f MB\n",
           report->episodes, report->segments, report->rows, (double)report->bytes * 1e-6);
    if (report->open_rows > 0 || report->whole < report->episodes)
        printf("an export has %" PRIu64 " rows of %" PRIu64 " episodes: without %" PRIu64 " rows of episodes under way, and %"
               PRIu64 " damaged episodes\n",
               report->whole_rows, report->whole, report->open_rows, report->episodes - report->whole);
    if (verify_clean(report)) {
        printf("the tree is whole and every hash holds\n");
        return;
    }
    printf("damage: %" PRIu64 " bad, %" PRIu64 " missing and %" PRIu64 " stray segments, %" PRIu64
           " bad appends of episodes under way, %" PRIu64 " bad index records, %" PRIu64
           " episodes sealed damaged\n",
           report->bad, report->missing, report->stray, report->bad_open, report->bad_records,
           report->damaged);
    if (report->first_bad != STORE_NONE)
        printf("the first is in episode %" PRIu64 "\n", report->first_bad);
    printf("a run goes on without the damaged episodes; `tdmpc2 replay salvage` saves their whole parts\n");
}

/* Damage is a result, not an error of ours: 1. */
static int run_verify(const struct request *request, int *code, struct error *err)
{
    struct replay_progress progress = {.what = "verify"};
    struct verify_report report;
    store_t *store;
    int rc = open_dir(&store, request, true, err);

    if (rc != TD_OK) /* nothing can be said of its episodes */
        return rc;
    rc = store_verify(store, &report, replay_progress, &progress, err);
    replay_progress_end(&progress);
    store_close(&store);
    if (rc != TD_OK) {
        *code = TD_EXIT_GAVE_UP;
        return rc;
    }
    print_report(&report, request->json);
    *code = verify_clean(&report) ? TD_EXIT_OK : TD_EXIT_GAVE_UP;
    return TD_OK;
}

static bool is_pt(const char *path)
{
    size_t length = strlen(path);

    return length > 3 && strcmp(path + length - 3, ".pt") == 0;
}

/* What was left out is damage too: the file is there, and the exit code 1. */
static int run_export(const struct request *request, int *code, struct error *err)
{
    struct replay_progress progress = {.what = "export"};
    uint64_t episodes, rows, skipped;
    store_t *store;
    int rc = open_dir(&store, request, false, err);

    if (rc != TD_OK)
        return rc;
    rc = (is_pt(request->target) ? replay_export_pt : replay_export)(store, request->target, &progress, &episodes, &rows,
                                                                     &skipped, err);
    replay_progress_end(&progress);
    store_close(&store);
    if (rc == TD_OK)
        printf("wrote %" PRIu64 " rows of %" PRIu64 " episodes to %s; %" PRIu64
               " damaged episodes left out\n",
               rows, episodes, request->target, skipped);
    if (rc == TD_OK && skipped > 0)
        *code = TD_EXIT_GAVE_UP;
    return rc;
}

static int run_salvage(const struct request *request, struct error *err)
{
    struct replay_progress progress = {.what = "salvage"};
    struct salvage_report report;
    int rc = store_salvage(request->dir, request->target, request->force, 0, &report, replay_progress, &progress, err);

    if (rc == TD_ELOCKED) {
        fprintf(stderr, "tdmpc2 replay: %s; waiting up to %u s\n", err->text, STORE_LOCK_WAIT_MS / 1000);
        rc = store_salvage(request->dir, request->target, request->force, STORE_LOCK_WAIT_MS, &report, replay_progress,
                           &progress, err);
    }
    replay_progress_end(&progress);
    if (rc != TD_OK)
        return rc;
    printf("found %" PRIu64 " segments (%" PRIu64 " blocks failed their hash, %" PRIu64
           " segments of another table)\n",
           report.segments, report.bad_blocks, report.foreign);
    printf("saved %" PRIu64 " rows as %" PRIu64 " episodes, %" PRIu64 " of them whole, to %s\n",
           report.rows, report.episodes, report.whole, request->target);
    printf("evicted and rewound episodes that were not overwritten yet are among them, and %" PRIu64
           " rows of episodes that were under way, as ones cut short\n", report.open_rows);
    if (report.lost_rows + report.unknown_episodes > 0)
        printf("lost: %" PRIu64 " rows of %" PRIu64 " episodes, and %" PRIu64
               " more episodes of which nothing is left\n",
               report.lost_rows, report.lost_episodes, report.unknown_episodes);
    printf("a run goes on with it if given replay_dir=%s (one whose shard meets the damage saves what is whole by itself)\n",
           request->target);
    if (report.uncertain)
        printf("the file does not tell how much it held at last: more may be lost\n");
    return TD_OK;
}

/* --- hashes ---------------------------------------------------------------- */

/* A lock-step run's newest checkpoint says which episodes count; all of them otherwise. */
static void find_window(const char *run_dir, uint64_t *first, uint64_t *end)
{
    struct progress *progress = calloc(1, sizeof(*progress));
    char folder[FS_PATH_MAX];
    checkpoint_t *checkpoint = NULL;

    if (progress != NULL && fs_join(folder, run_dir, "checkpoints", NULL) == TD_OK &&
        checkpoint_open_newest(&checkpoint, folder, CHECKPOINT_ANY, NULL, NULL, NULL) == TD_OK &&
        progress_from_json(progress, checkpoint_manifest(checkpoint)->progress, NULL) == TD_OK && progress->lockstep) {
        *first = progress->window;
        *end = progress->episode;
    }
    checkpoint_close(&checkpoint);
    free(progress);
}

static int run_hash(const struct request *request, struct error *err)
{
    struct digest digest = {0};
    uint64_t first, end = STORE_NONE;
    store_t *store;
    int rc = open_dir(&store, request, false, err);

    if (rc != TD_OK)
        return rc;
    first = store_counts(store)->first;
    find_window(request->name, &first, &end);
    rc = digest_replay(&digest, store, first, end, err);
    if (rc == TD_OK)
        fprintf(stderr, "%s: episodes %" PRIu64 " to %" PRIu64 ", %" PRIu64 " rows\n", request->dir, first,
                end == STORE_NONE ? store_committed(store) : end, digest.part[0].items);
    for (int i = 0; rc == TD_OK && i < digest.parts; i++)
        printf("%s  %s\n", digest.part[i].sha256, digest.part[i].name);
    store_close(&store);
    return rc;
}

/* --- the command ----------------------------------------------------------- */

static int run_part(const char *part, const struct request *request)
{
    struct error err = {0};
    int code = -1, rc;

    if (strcmp(part, "info") == 0)
        rc = run_info(request, &err);
    else if (strcmp(part, "verify") == 0)
        rc = run_verify(request, &code, &err);
    else if (strcmp(part, "export") == 0)
        rc = run_export(request, &code, &err);
    else if (strcmp(part, "hash") == 0)
        rc = run_hash(request, &err);
    else
        rc = run_salvage(request, &err);
    if (rc != TD_OK)
        fprintf(stderr, "tdmpc2 replay %s: %s\n", part, err.text);
    return code >= 0 ? code : error_exit_code(rc);
}

/* Of those that a process brings upon itself by what it reads; others come from outside. */
static bool is_fault(int number)
{
    return number == SIGSEGV || number == SIGBUS || number == SIGABRT || number == SIGFPE || number == SIGILL;
}

/* LMDB trusts its file: one with a damaged tree may take the process down. So it is a child that looks. */
static int run_in_child(const char *part, const struct request *request)
{
    int status;
    pid_t child = fork();

    if (child < 0) {
        perror("tdmpc2 replay: cannot fork");
        return TD_EXIT_GAVE_UP;
    }
    if (child == 0) {
        int code = options_flushed(run_part(part, request));

        fflush(NULL);
        _exit(code);
    }
    while (waitpid(child, &status, 0) < 0)
        ;
    if (WIFEXITED(status))
        return WEXITSTATUS(status);
    if (WTERMSIG(status) == SIGPIPE) /* whoever read what is printed has seen enough */
        return 128 + SIGPIPE;
    if (!is_fault(WTERMSIG(status))) {
        fprintf(stderr, "tdmpc2 replay %s: ended by signal %d (%s)\n", part, WTERMSIG(status), strsignal(WTERMSIG(status)));
        return TD_EXIT_GAVE_UP;
    }
    fprintf(stderr,
            "tdmpc2 replay %s: reading %s ended by signal %d (%s): its tree is damaged; "
            "`tdmpc2 replay salvage` saves rows without it\n",
            part, request->dir, WTERMSIG(status), strsignal(WTERMSIG(status)));
    return TD_EXIT_GAVE_UP;
}

/* The shard's directory itself, or the run directory above it. */
static void find_dir(struct request *request, const char *name)
{
    char path[FS_PATH_MAX];
    struct stat info;

    snprintf(request->dir, sizeof(request->dir), "%s", name);
    if (fs_join(path, name, "data.mdb", NULL) == TD_OK && stat(path, &info) == 0)
        return;
    if (fs_join(path, name, "replay", NULL) == TD_OK && stat(path, &info) == 0)
        memcpy(request->dir, path, sizeof(path));
}

int cmd_replay(int argc, char **argv)
{
    struct request request = {0};
    const char *names[3] = {NULL};
    int count = 0, wanted;

    if (options_help(argc, argv)) {
        usage(stdout);
        return TD_EXIT_OK;
    }
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0)
            request.json = true;
        else if (strcmp(argv[i], "force=true") == 0)
            request.force = true;
        else if (argv[i][0] == '-') {
            fprintf(stderr, "tdmpc2 replay: unknown flag '%.60s'; the nearest is '--json'\n", argv[i]);
            return TD_EXIT_BAD_INPUT;
        }
        else if (count < 3)
            names[count++] = argv[i];
        else
            count = 4;
    }
    if (count == 0 || (strcmp(names[0], "info") != 0 && strcmp(names[0], "verify") != 0 &&
                       strcmp(names[0], "export") != 0 && strcmp(names[0], "salvage") != 0 &&
                       strcmp(names[0], "hash") != 0)) {
        usage(stderr);
        return TD_EXIT_BAD_INPUT;
    }
    wanted = strcmp(names[0], "export") == 0 || strcmp(names[0], "salvage") == 0 ? 3 : 2;
    if (count != wanted || strlen(names[1]) >= FS_PATH_MAX) {
        fprintf(stderr, "tdmpc2 replay %s: name %s\n", names[0],
                wanted == 2 ? "one directory" : "a directory and where the result goes");
        return TD_EXIT_BAD_INPUT;
    }
    find_dir(&request, names[1]);
    request.name = names[1];
    request.target = names[2];
    return run_in_child(names[0], &request);
}
