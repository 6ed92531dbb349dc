/* data.c - `tdmpc2 data`: import data sets into replay stores, make one up, measure drawing from one. */
#include "tools/data.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/util/config_words.h"
#include "tools/commands.h"
#include "tools/options.h"

/* What the words say; numbers of options that were not given are 0. */
struct words {
    const char *names[3];
    int count;
    const char *task, *format;
    uint64_t rows, seed, episode_rows, tasks, chunks, batch_size, horizon;
    double seconds;
    bool json, force;
};

static void usage(FILE *out)
{
    fprintf(out,
            "usage: tdmpc2 data import DIR [OUT] [episode_rows=N] [tasks=N] [force=true]\n"
            "                            put the chunks of a data set into a replay store, OUT or DIR/store; started\n"
            "                            again it goes on where it stopped\n"
            "       tdmpc2 data synth DIR task=mt30|mt80 rows=N [chunks=4] [seed=1] [episode_rows=N] [format=pt|store]\n"
            "                            make up a data set of this layout\n"
            "       tdmpc2 data sample DIR [batch_size=256] [horizon=3] [seconds=5] [--json]\n"
            "                            open an imported set, draw from it; speed and memory\n\n"
            "DIR of an import holds *.pt, official chunks (a TensorDict [episodes, rows] of obs, action, reward, task\n"
            "and, where there is one, terminated), or *.safetensors, written by `tdmpc2 replay export`; or it is one\n"
            "such file. Episodes of *.pt have 101 rows (mt80) or 501 (mt30) unless episode_rows= says otherwise. The\n"
            "action and reward of an episode's first row are not read. Checksums of *.pt are compared before anything\n"
            "of a chunk is taken. Memory does not depend on the size of the chunks.\n");
}

static int parse_number(const char *word, const char *text, uint64_t least, uint64_t most, uint64_t *out,
                        struct error *err)
{
    char *end;

    errno = 0;
    *out = strtoull(text, &end, 10);
    if (errno == 0 && text[0] >= '0' && text[0] <= '9' && *end == '\0' && *out >= least && *out <= most)
        return TD_OK;
    return error_set(err, TD_EINVAL, "%.60s: expected a whole number from %" PRIu64 " to %" PRIu64, word, least, most);
}

static int take_option(struct words *words, const char *word, const char *value, struct error *err)
{
    static const char *const known[] = {"task",  "format",     "rows",    "seed",    "episode_rows", "tasks",
                                        "chunks", "batch_size", "horizon", "seconds", "force",        NULL};
    size_t length = (size_t)(value - word - 1);
    char name[32];

    snprintf(name, sizeof(name), "%.*s", (int)(length < 31 ? length : 31), word);
    if (strcmp(name, "task") == 0)
        words->task = value;
    else if (strcmp(name, "format") == 0)
        words->format = value;
    else if (strcmp(name, "rows") == 0)
        return parse_number(word, value, 1, 100000000000, &words->rows, err);
    else if (strcmp(name, "seed") == 0)
        return parse_number(word, value, 0, UINT32_MAX, &words->seed, err);
    else if (strcmp(name, "episode_rows") == 0)
        return parse_number(word, value, 1, 1000000, &words->episode_rows, err);
    else if (strcmp(name, "tasks") == 0)
        return parse_number(word, value, 1, ROW_TASKS_MAX, &words->tasks, err);
    else if (strcmp(name, "chunks") == 0)
        return parse_number(word, value, 1, DATASET_CHUNKS_MAX, &words->chunks, err);
    else if (strcmp(name, "batch_size") == 0)
        return parse_number(word, value, 1, 65536, &words->batch_size, err);
    else if (strcmp(name, "horizon") == 0)
        return parse_number(word, value, 1, 100, &words->horizon, err);
    else if (strcmp(name, "seconds") == 0) {
        words->seconds = strtod(value, NULL);
        return words->seconds > 0 && words->seconds <= 3600
                   ? TD_OK
                   : error_set(err, TD_EINVAL, "%.60s: expected seconds, at most 3600", word);
    } else if (strcmp(name, "force") == 0) {
        words->force = strcmp(value, "true") == 0;
        return words->force || strcmp(value, "false") == 0
                   ? TD_OK
                   : error_set(err, TD_EINVAL, "%.60s: expected true or false", word);
    } else
        return error_set(err, TD_EINVAL, "unknown option '%.60s'; the nearest is '%s'", name,
                         config_nearest_word(name, known));
    return TD_OK;
}

static int parse(struct words *words, int argc, char **argv, struct error *err)
{
    *words = (struct words){.task = "mt80", .format = "pt", .seed = 1, .chunks = 4, .batch_size = 256, .horizon = 3,
                            .seconds = 5};
    for (int i = 1; i < argc; i++) {
        const char *value = argv[i][0] == '/' || argv[i][0] == '.' ? NULL : strchr(argv[i], '=');
        int rc;

        if (value != NULL) {
            if ((rc = take_option(words, argv[i], value + 1, err)) != TD_OK)
                return rc;
        } else if (strcmp(argv[i], "--json") == 0) {
            words->json = true;
        } else if (argv[i][0] == '-') {
            return error_set(err, TD_EINVAL, "unknown flag '%.60s'; the nearest is '--json'", argv[i]);
        } else if (words->count < 3) {
            words->names[words->count++] = argv[i];
        } else {
            return error_set(err, TD_EINVAL, "one folder too many: %.100s", argv[i]);
        }
    }
    return TD_OK;
}

/* --- the parts ------------------------------------------------------------- */

static void print_report(const struct data_report *report)
{
    printf("%s: %" PRIu64 " rows of %" PRIu64 " episodes from %" PRIu64 " chunks", report->out, report->rows,
           report->episodes, report->chunks);
    if (report->found > 0)
        printf(", %" PRIu64 " episodes of them from before", report->found);
    printf("\n");
    if (report->beyond > 0)
        printf("%" PRIu64 " rows have actions outside [-1, 1], kept as they are\n", report->beyond);
    if (report->set != NULL && report->episodes < report->set->episodes)
        printf("warning: %s has %" PRIu64 " episodes, this is %.3g %% of it\n", report->set->name, report->set->episodes,
               100.0 * (double)report->episodes / (double)report->set->episodes);
    else if (report->set != NULL && report->episodes > report->set->episodes)
        printf("warning: %s has %" PRIu64 " episodes, these are more\n", report->set->name, report->set->episodes);
}

static int run_import(const struct words *words, struct error *err)
{
    struct replay_progress progress = {.what = "import"};
    struct data_import import = {.dir = words->names[1], .out = words->names[2], .force = words->force,
                                 .episode_rows = (uint32_t)words->episode_rows, .tasks = (uint32_t)words->tasks,
                                 .progress = &progress};
    struct data_report report;
    int rc = data_import(&import, &report, err);

    replay_progress_end(&progress);
    if (rc == TD_OK)
        print_report(&report);
    return rc;
}

static int run_synth(const struct words *words, struct error *err)
{
    struct replay_progress progress = {.what = "synth"};
    struct data_synth synth = {.dir = words->names[1], .task = words->task, .rows = words->rows, .seed = words->seed,
                               .episode_rows = (uint32_t)words->episode_rows, .chunks = (uint32_t)words->chunks,
                               .store = strcmp(words->format, "store") == 0, .progress = &progress};
    uint64_t episodes;
    int rc;

    if (!synth.store && strcmp(words->format, "pt") != 0)
        return error_set(err, TD_EINVAL, "format=%.60s: expected pt or store", words->format);
    if (synth.rows == 0)
        return error_set(err, TD_EINVAL, "say how many rows: rows=1000000");
    rc = data_synth(&synth, &episodes, err);
    replay_progress_end(&progress);
    if (rc == TD_OK)
        printf("%s: %" PRIu64 " episodes in the layout of %s\n", synth.dir, episodes, synth.task);
    return rc;
}

static int run_part(const struct words *words, struct error *err)
{
    const char *part = words->names[0];
    int most = strcmp(part, "import") == 0 ? 3 : 2;

    if (words->count < 2 || words->count > most)
        return error_set(err, TD_EINVAL, "name the data set's folder%s", most == 3 ? ", and where the store goes" : "");
    if (strlen(words->names[1]) >= FS_PATH_MAX)
        return error_set(err, TD_EINVAL, "the path is too long");
    if (strcmp(part, "import") == 0)
        return run_import(words, err);
    if (strcmp(part, "synth") == 0)
        return run_synth(words, err);
    return data_sample(words->names[1], (uint32_t)words->batch_size, (uint32_t)words->horizon, words->seconds,
                       words->json, err);
}

int cmd_data(int argc, char **argv)
{
    static const char *const parts[] = {"import", "synth", "sample", NULL};
    struct error err = {0};
    struct words words;
    int rc;

    if (options_help(argc, argv)) {
        usage(stdout);
        return TD_EXIT_OK;
    }
    if (argc < 2) {
        usage(stderr);
        return TD_EXIT_BAD_INPUT;
    }
    if ((rc = parse(&words, argc, argv, &err)) == TD_OK && words.count == 0)
        rc = error_set(&err, TD_EINVAL, "name a part: import, synth or sample");
    if (rc == TD_OK && strcmp(words.names[0], "import") != 0 && strcmp(words.names[0], "synth") != 0 &&
        strcmp(words.names[0], "sample") != 0)
        rc = error_set(&err, TD_EINVAL, "unknown part '%.60s': did you mean %s?", words.names[0],
                       config_nearest_word(words.names[0], parts));
    if (rc == TD_OK)
        rc = run_part(&words, &err);
    if (rc != TD_OK)
        fprintf(stderr, "tdmpc2 data: %s\n", err.text);
    return error_exit_code(rc);
}
