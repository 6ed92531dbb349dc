/*
 * live.h - runs of the real programs, for tests: start them, ask them, kill them, read what they left.
 *
 * A run is a `tdmpc2 train` (or a part started by hand) on a toy task with a tiny model, in a folder of
 * its own. Every wait has a deadline; what is still alive when a test ends is killed, by pid. A failing
 * test keeps the logs of its run in the output.
 *
 * Thread:  one.
 */
#ifndef TD_TEST_LIVE_H
#define TD_TEST_LIVE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/net/rundir.h"
#include "common/util/fs.h"
#include "learner/csv.h"

#define LIVE_WORDS_MAX 64
#define LIVE_TIMEOUT   (-1000) /* of live_wait: it has not ended */
#define LIVE_START_MS  60000   /* for a part to be there */

struct live {
    char name[64];
    char dir[400];        /* the run directory */
    char out[480];        /* what the front printed */
    pid_t pid;            /* of the front: `tdmpc2 train`, or the part started by hand; 0: none */
};

/* A run of this name in a fresh folder; in memory unless `on_disk`. Nothing is started. */
void live_init(struct live *live, const char *name, bool on_disk);

/* Options of a tiny model that learns a toy task in seconds; NULL-terminated. */
extern const char *const live_tiny[];

/* A program of this build. */
const char *live_program(const char *name, char path[FS_PATH_MAX]);

/* Set a variable in the environment of what is started from now on; NULL: unset. */
void live_env(const char *name, const char *value);

/*
 * Start a program with these words (first `words`, then the NULL-terminated list of strings that
 * follow), output appended to `out`.
 */
pid_t live_spawn(const char *program, const char *out, const char *const *words, ...)
    __attribute__((sentinel));

/* `tdmpc2 train` with work_dir=, the tiny options and these words. Sets live->pid. */
void live_train(struct live *live, ...) __attribute__((sentinel));

/* The exit code, 128 + the signal that killed it, or LIVE_TIMEOUT. */
int live_wait(pid_t pid, int ms);

/* As live_wait for the front, and fails the test, logs shown, when it is not `code`. */
void live_expect(struct live *live, int code, int ms);

/* Run a program to its end; its output is put into `text`. Returns the code as live_wait does. */
int live_run(const char *program, char *text, size_t size, int ms, ...) __attribute__((sentinel));

/* --- parts ------------------------------------------------------------------ */

/* The part as recorded, if its process is alive. */
bool live_find(const struct live *live, const char *role, int id, struct rundir_part *part);

/* Its pid once it is there and alive and not `other`; fails the test after LIVE_START_MS. */
pid_t live_part(const struct live *live, const char *role, int id, pid_t other);

/* A metric of a part now; NaN when it does not answer within half a second or has none. */
double live_metric(const struct live *live, const char *role, int id, const char *metric);

/* The same for a text: false when it does not answer. */
bool live_text(const struct live *live, const char *role, int id, const char *metric, char *text, size_t size);

/* Wait until a metric is at least `value`; fails the test. Returns it. */
double live_await(const struct live *live, const char *role, int id, const char *metric, double value, int ms);

/* Wait until a metric has risen by so much, whatever it is at now; fails the test. */
void live_rises(const struct live *live, const char *role, int id, const char *metric, double by, int ms);

/* Wait until `text` stands in a file of the run directory (the learner's log, ...). */
bool live_said(const struct live *live, const char *file, const char *text, int ms);
bool live_says(const char *path, const char *text);

/* How often a text stands in a file of the run directory. */
int live_count(const struct live *live, const char *file, const char *text);

/* Processes, zombies apart, that have the run directory among their words. */
int live_processes(const struct live *live);

/* None is left within so many ms; fails the test, naming them. */
void live_no_orphans(const struct live *live, int ms);

/* 'R', 'S', 'T', 'Z', ... or 0 when there is no such process. */
char live_state(pid_t pid);

void live_sleep(int ms);

/* A port of loopback that nobody listens on. */
int live_free_port(void);

/* --- what is left ----------------------------------------------------------- */

/* The newest checkpoint loads, its numbers are finite; its step. Fails the test. */
uint64_t live_checkpoint(const struct live *live);

/* SHA-256 of the files of checkpoint `name`, as the manifest says them: "<hex> <hex>". */
void live_hashes(const struct live *live, const char *name, char *out, size_t size);

/* The numbers of a csv file, without times and rates; malloc'd text. Fails the test. */
char *live_lines(const struct live *live, const char *file);

/* Lines of a csv file, the header apart; 0 when there is no file. */
int live_rows(const struct live *live, const char *file);

/* Print the logs of the run: before a test fails. */
void live_show(const struct live *live);

/* Fail the test with a sentence, logs shown. */
#define live_fail(live, ...)                                                                       \
    do {                                                                                           \
        live_show(live);                                                                           \
        fail_msg(__VA_ARGS__);                                                                     \
    } while (0)

#define live_check(live, condition, ...)                                                           \
    do {                                                                                           \
        if (!(condition))                                                                          \
            live_fail(live, __VA_ARGS__);                                                          \
    } while (0)

/* Kill whatever of this program's children is alive: a cmocka teardown. */
int live_cleanup(void **state);

#endif
