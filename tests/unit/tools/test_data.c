/* Data sets: what the official chunks hold is what the store gives back; imports that are killed, or lied to. */
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/ckpt/safetensors.h"
#include "common/util/clock.h"
#include "learner/dataset.h"
#include "learner/digest.h"
#include "tests/support/test.h"
#include "tools/data.h"
#include "tools/data_chunk_write.h"
#include "tools/train_offline.h"

#define N 6
#define T 101
#define O 39
#define A 6

static const char *place(const char *name)
{
    static char path[4][512];
    static int next;

    next = (next + 1) % 4;
    snprintf(path[next], sizeof(path[next]), "%s/%s", test_folder(), name);
    return path[next];
}

static int import_into(const char *dir, const char *out, struct data_report *report, struct error *err)
{
    struct data_import import = {.dir = dir, .out = out, .commit_bytes = 200000};

    return data_import(&import, report, err);
}

static store_t *open_store(const char *dir)
{
    struct store_config config = {.dir = dir, .any_shard = true, .reading = true};
    struct error err = {0};
    store_t *store;

    assert_ok(store_open(&store, &config, &err), err);
    return store;
}

static void digest_of(const char *dir, char hex[FS_SHA256_HEX * 8])
{
    struct digest digest = {0};
    struct error err = {0};
    store_t *store = open_store(dir);

    assert_ok(digest_replay(&digest, store, 0, STORE_NONE, &err), err);
    hex[0] = '\0';
    for (int i = 0; i < digest.parts; i++)
        if (strcmp(digest.part[i].name, "replay.episodes") != 0) /* chunks number them anew */
            strncat(hex, digest.part[i].sha256, FS_SHA256_HEX - 1);
    store_close(&store);
}

/* --- the official chunks ---------------------------------------------------- */

static void get(safetensors_t *file, const char *name, void *out)
{
    struct error err = {0};
    const struct safetensors_tensor *tensor = safetensors_find(file, name);

    assert_non_null(tensor);
    assert_ok(safetensors_read(file, tensor, out, &err), err);
}

static void samples_are_what_is_expected(void **state)
{
    static const char *const names[] = {"tests/golden/dataset-tensordict-0.1.2.pt", "tests/golden/dataset-tensordict-0.8.3.pt"};
    static float obs[N * T * O], action[N * T * A], reward[N * T];
    static int32_t task[N * T];
    struct error err = {0};
    safetensors_t *file;

    (void)state;
    assert_ok(safetensors_open(&file, "tests/golden/dataset.expected.safetensors", &err), err);
    get(file, "obs", obs);
    get(file, "action", action);
    get(file, "reward", reward);
    get(file, "task", task);
    safetensors_close(&file);
    for (size_t which = 0; which < TD_LEN(names); which++) {
        const char *out = place(which == 0 ? "one" : "two");
        struct data_report report;
        store_t *store;

        assert_ok(import_into(names[which], out, &report, &err), err);
        assert_int_equal(report.episodes, N);
        assert_non_null(report.set);
        store = open_store(out);
        for (uint64_t i = 0; i < N * T; i++) {
            uint32_t one = 1;
            const char *row = store_rows(store, i / T, (uint32_t)(i % T), &one);
            struct row_head head;

            assert_non_null(row);
            memcpy(&head, row, sizeof(head));
            assert_memory_equal(row + 24, obs + i * O, O * sizeof(float));
            assert_int_equal(head.task, task[i]);
            assert_int_equal(head.flags, i % T == 0 ? ROW_FIRST : i % T == T - 1 ? ROW_TRUNCATED : 0);
            if (i % T == 0)
                continue;
            assert_memory_equal(row + 24 + O * 4, action + i * A, A * sizeof(float));
            assert_memory_equal(&head.reward, &reward[i], sizeof(float));
        }
        store_rows_end(store);
        store_close(&store);
    }
}

/* --- round trips ------------------------------------------------------------ */

static void make_up(const char *dir, uint64_t rows, uint32_t chunks)
{
    struct data_synth synth = {.dir = dir, .task = "mt80", .rows = rows, .seed = 3, .chunks = chunks};
    struct error err = {0};
    uint64_t episodes;

    assert_ok(data_synth(&synth, &episodes, &err), err);
    assert_int_equal(episodes, rows / T);
}

static void what_is_exported_is_imported_bit_for_bit(void **state)
{
    char one[FS_SHA256_HEX * 8], other[FS_SHA256_HEX * 8];
    struct replay_progress progress = {.what = "export"};
    uint64_t episodes, rows, skipped;
    struct data_report report;
    struct error err = {0};
    store_t *store;

    (void)state;
    make_up(place("set"), 40 * T, 3);
    assert_ok(import_into(place("set"), NULL, &report, &err), err);
    assert_int_equal(report.chunks, 3);
    digest_of(place("set/store"), one);
    store = open_store(place("set/store"));
    assert_ok(replay_export_pt(store, place("all.pt"), &progress, &episodes, &rows, &skipped, &err), err);
    assert_ok(replay_export(store, place("all.safetensors"), &progress, &episodes, &rows, &skipped, &err), err);
    store_close(&store);
    assert_int_equal(episodes, 40);
    assert_ok(import_into(place("all.pt"), place("again"), &report, &err), err);
    digest_of(place("again"), other);
    assert_string_equal(one, other);
    assert_ok(import_into(place("all.safetensors"), place("again2"), &report, &err), err);
    digest_of(place("again2"), other);
    assert_string_equal(one, other);
}

/* --- kills ------------------------------------------------------------------ */

/* Killed again and again, the import ends in the rows of one that was not. */
static void a_killed_import_goes_on(void **state)
{
    char one[FS_SHA256_HEX * 8], other[FS_SHA256_HEX * 8];
    struct data_report report;
    struct error err = {0};
    int kills = 0;

    (void)state;
    make_up(place("killed"), 400 * T, 3);
    assert_ok(import_into(place("killed"), place("whole"), &report, &err), err);
    digest_of(place("whole"), one);
    for (int round = 0; round < 40; round++) {
        pid_t child = fork();
        int status;

        if (child == 0) {
            signal(SIGTERM, SIG_DFL);
            _exit(import_into(place("killed"), place("cut"), &report, &err) == TD_OK ? 0 : 1);
        }
        usleep((useconds_t)(1000 + 1500 * round) + rng_below(test_rng(), 2000)); /* a little later each time */
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, &status, 0), child);
        if (WIFEXITED(status)) {
            assert_int_equal(WEXITSTATUS(status), 0);
            break;
        }
        kills++;
    }
    assert_ok(import_into(place("killed"), place("cut"), &report, &err), err);
    assert_true(kills > 0);
    assert_int_equal(report.episodes, 400);
    digest_of(place("cut"), other);
    assert_string_equal(one, other);
    assert_ok(import_into(place("killed"), place("cut"), &report, &err), err); /* nothing is left to do */
    assert_int_equal(report.found, 400);
    assert_int_equal(report.episodes, 400);
}

/* Memory that an import takes does not depend on the chunk's size. */
static void memory_is_bounded(void **state)
{
    struct rusage usage;
    struct stat file;
    struct error err = {0};
    struct data_report report;
    pid_t child;
    int status;

    (void)state;
    make_up(place("large"), 8000 * T, 1);
    assert_int_equal(stat(place("large/chunk_0.pt"), &file), 0);
    assert_true(file.st_size > 150000000);
    if ((child = fork()) == 0) {
        struct data_import import = {.dir = place("large")};
        int rc = data_import(&import, &report, &err);

        getrusage(RUSAGE_SELF, &usage);
        _exit(rc != TD_OK ? 1 : usage.ru_maxrss > 220 * 1024 ? 2 : 0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    assert_int_equal(WEXITSTATUS(status), 0);
#endif
    (void)fs_remove_tree(place("large"), NULL);
}

/* --- refusals --------------------------------------------------------------- */

/* A chunk of which one number is wrong. */
struct lie {
    const char *part; /* of the sentence */
    uint32_t rows, row, task;
    float obs, action, reward;
};

static const struct lie *told;

static const void *lying_rows(void *context, uint64_t episode, enum chunk_column column, struct error *err)
{
    static char rows[T * 204];
    struct row_schema schema = {OBS_STATE, O, A};
    struct row_head head = {.flags = ROW_FIRST, .task = 3};

    (void)context, (void)column, (void)err;
    memset(rows, 0, sizeof(rows));
    for (uint32_t i = 0; i < told->rows; i++) {
        bool here = episode == 1 && i == told->row;
        char *row = rows + i * row_stride(&schema);

        head.flags = i == 0 ? ROW_FIRST : 0u;
        head.task = here && told->task != 0 ? told->task : 3;
        head.reward = here ? told->reward : 1;
        memcpy(row, &head, sizeof(head));
        memcpy(row + 24 + 8, &(float){here ? told->obs : 1}, 4);
        memcpy(row + 24 + O * 4, &(float){here ? told->action : 0.5f}, 4);
    }
    return rows;
}

static void wrong_chunks_are_refused(void **state)
{
    static const struct lie lies[] = {
        {"episodes of 100 rows", 100, 200, 0, 0, 0, 0},
        {"episode 1, row 5: the observation is not finite", T, 5, 0, __builtin_nanf(""), 0, 0},
        {"episode 1, row 0: the observation is not finite", T, 0, 0, __builtin_inff(), 0, 0},
        {"episode 1, row 7: the action is not finite", T, 7, 0, 0, __builtin_nanf(""), 0},
        {"episode 1, row 8: the reward is not finite", T, 8, 0, 0, 0, __builtin_inff()},
        {"episode 1, row 9: the task changes", T, 9, 4, 0, 0, 0},
        {"episode 1, row 0: its task is not one", T, 0, 80, 0, 0, 0},
        {NULL, T, 0, 0, 1, __builtin_nanf(""), __builtin_nanf("")}, /* nothing led to a first row */
    };

    (void)state;
    for (size_t i = 0; i < TD_LEN(lies); i++) {
        struct chunk_layout layout = {.schema = {OBS_STATE, O, A}, .episodes = 3, .episode_rows = lies[i].rows};
        struct data_report report;
        struct error err = {0};
        char name[32];
        int rc;

        told = &lies[i];
        snprintf(name, sizeof(name), "lie%zu", i);
        assert_int_equal(mkdir(place(name), 0755), 0);
        snprintf(name, sizeof(name), "lie%zu/a.pt", i);
        assert_ok(chunk_write(place(name), &layout, lying_rows, NULL, &err), err);
        rc = import_into(place(name), NULL, &report, &err);
        assert_true((rc == TD_OK) == (told->part == NULL));
        if (told->part != NULL && strstr(err.text, told->part) == NULL)
            fail_msg("%s", err.text);
    }
}

/* One flipped bit of a chunk's numbers: its checksum is compared before anything is taken. */
static void a_damaged_chunk_gives_nothing(void **state)
{
    struct data_report report;
    struct error err = {0};
    char byte;
    int file;

    (void)state;
    make_up(place("bit"), 20 * T, 1);
    file = open(place("bit/chunk_0.pt"), O_RDWR);
    assert_int_equal(pread(file, &byte, 1, 100000), 1);
    byte ^= 4;
    assert_int_equal(pwrite(file, &byte, 1, 100000), 1);
    close(file);
    assert_int_not_equal(import_into(place("bit"), NULL, &report, &err), TD_OK);
    assert_int_equal(report.episodes, 0);
}

/* --- training --------------------------------------------------------------- */

static double last_loss(const char *path, double *first)
{
    char *text, *line;
    size_t length;
    double loss = 0;
    struct error err = {0};

    assert_ok(fs_read_file(path, 1 << 20, &text, &length, &err), err);
    *first = -1;
    for (line = strchr(text, '\n'); line != NULL && line[1] != '\0'; line = strchr(line + 1, '\n')) {
        double step, seconds, consistency, reward;

        assert_int_equal(sscanf(line + 1, "%lf,%lf,%lf,%lf", &step, &seconds, &consistency, &reward), 4);
        loss = reward;
        *first = *first < 0 ? loss : *first;
    }
    free(text);
    return loss;
}

/* Rewards of the set are learned; a run that stops goes on where it was. */
static void training_learns_from_a_set(void **state)
{
    const char *words[] = {"task=mt80", "model_size=1", "batch_size=32", "steps=40", "eval_freq=20", "evaluator=off",
                           "threads=1", "lr=0.001", NULL, NULL};
    char data[600], work[600];
    struct data_report report;
    struct error err = {0};
    double first, last;

    (void)state;
    make_up(place("learn"), 200 * T, 1);
    assert_ok(import_into(place("learn"), NULL, &report, &err), err);
    snprintf(data, sizeof(data), "data_dir=%s", place("learn"));
    snprintf(work, sizeof(work), "work_dir=%s", place("run"));
    words[8] = data;
    words[9] = work;
    for (int start = 0; start < 2; start++) {
        struct config config;
        bool *given;
        int count;

        config_options(&count);
        given = calloc((size_t)count, sizeof(*given));
        words[3] = start == 0 ? "steps=40" : "steps=121";
        config_init(&config);
        assert_ok(config_parse(&config, 10, (char **)(uintptr_t)words, given, &err), err);
        assert_ok(train_offline(&config, given, &err), err);
        free(given);
    }
    last = last_loss(place("run/train.csv"), &first);
    assert_true(last < 0.8 * first);
}

static void shares_of_the_tasks_are_the_whole_set(void **state)
{
    static const char *const names[] = {"mt30", "mt80"};

    (void)state;
    for (size_t i = 0; i < TD_LEN(names); i++) {
        const struct dataset_set *set = dataset_set_named(names[i]);
        uint64_t sum = 0;

        for (int task = 0; task < (int)set->tasks; task++)
            sum += dataset_set_episodes(set, task);
        assert_true(sum == set->episodes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_of_the_tasks_are_the_whole_set),
        cmocka_unit_test(samples_are_what_is_expected),
        cmocka_unit_test(what_is_exported_is_imported_bit_for_bit),
        cmocka_unit_test(a_killed_import_goes_on),
        cmocka_unit_test(memory_is_bounded),
        cmocka_unit_test(wrong_chunks_are_refused),
        cmocka_unit_test(a_damaged_chunk_gives_nothing),
        cmocka_unit_test(training_learns_from_a_set),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
