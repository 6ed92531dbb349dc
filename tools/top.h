/*
 * top.h - what `tdmpc2 top` knows of a run, and how it stands on a screen.
 *
 * Answers of the stats sockets go in (top_take), lines of logs and csv files (top_files_poll), and lines of
 * text come out (top_layout): a pure function of what is known, the time and the screen's size. Whoever
 * stops answering keeps its last values and says since when.
 *
 * All text from outside is made printable ASCII when it is taken: nothing steers the terminal.
 *
 * Thread:  one at a time.
 */
#ifndef TD_TOOLS_TOP_H
#define TD_TOOLS_TOP_H

#include "tools/follow.h"
#include "tools/stats.h"

#define TOP_HISTORY_MAX 512
#define TOP_LOG_MAX     128
#define TOP_LOG_WIDTH   400
#define TOP_FILES_MAX   128
#define TOP_GONE_MS     60000u /* a part that has left is shown for so long; the learner always */
#define TOP_WIDTH_MAX   400
#define TOP_HEIGHT_MAX  300

/* Values in order, thinned by halves when there are many: `each` of them make one. */
struct top_history {
    double values[TOP_HISTORY_MAX];
    double sum; /* of the one that is being made */
    double newest;
    int count, each, pending;
};

void top_history_add(struct top_history *history, double value); /* NaN and infinities are left out */

enum top_health {
    TOP_ANSWERS,
    TOP_SILENT, /* it has an address, where nobody answers */
    TOP_LEFT,   /* its address is gone */
};

struct top_part {
    char where[RUNDIR_ROLE_MAX]; /* role and number it is recorded under */
    int number;
    char title[48], role[RUNDIR_ROLE_MAX];
    pid_t pid;
    enum top_health health;
    bool heard;                  /* has ever answered */
    uint64_t since_ms;           /* when health became what it is */
    double rate, lag, work_ms, work_p99_ms, memory; /* NaN: not known */
    char phase[64], waiting[200], damage[200];
};

/* What the learner says of the run; NaN: not known. */
struct top_run {
    double agent_steps, target_steps, progress, time_left_s, uptime_s;
    double updates_per_s, env_steps_per_s, ratio, target_ratio, episode_return, eval_return, actors;
    double wait_steps, wait_samples, wait_checkpoint; /* share of the last ten seconds */
    double replay_rows, replay_episodes;
    char bottleneck[240];
};

struct top {
    char name[FS_PATH_MAX];
    struct top_part parts[STATS_PARTS_MAX];
    int count;
    struct top_run run;
    struct top_history returns, evals;
    bool curves;  /* returns and evals come from files: the learner's own values are not added */
    char log[TOP_LOG_MAX][TOP_LOG_WIDTH];
    int log_first, log_count;
    bool no_logs; /* an address alone: there are none to be read here */
};

void top_init(struct top *top, const char *name);

/* What stats_find and stats_ask brought; run->count may be 0. */
void top_take(struct top *top, const struct stats_run *run, uint64_t now_ms);

/* A line of a log, [text, end): its time of day, who speaks and what; the date, host and run are left out. */
void top_log_add(struct top *top, const char *text, const char *end);

/* The learner among the parts, or NULL. */
const struct top_part *top_learner(const struct top *top);

/* --- files of a run on this machine ---------------------------------------- */

struct top_file {
    struct follow follow;
    char name[64];
};

struct top_files {
    char run_dir[FS_PATH_MAX];
    struct top_file logs[TOP_FILES_MAX];
    int count;
    struct follow train, eval;
    int train_column, eval_column; /* of the return; -1: the file is not there yet */
};

void top_files_init(struct top_files *files, const char *run_dir);

/* What is new in logs, train.csv and eval.csv; the first time also what was there. */
void top_files_poll(struct top_files *files, struct top *top);

/* --- the screen -------------------------------------------------------------- */

enum top_tone { TOP_PLAIN, TOP_TITLE, TOP_HEAD, TOP_GOOD, TOP_WARN, TOP_BAD, TOP_DIM, TOP_TONES };

struct top_line {
    char text[3 * TOP_WIDTH_MAX + 1]; /* no wider than the screen */
    enum top_tone tone;
};

struct top_view {
    int width, height; /* of the screen, at least 1 each; what is beyond the caps stays empty */
    bool unicode;      /* the terminal shows block characters; else ASCII */
    int scroll;        /* parts left out above */
};

struct top_screen {
    struct top_line lines[TOP_HEIGHT_MAX];
    int count;
    int hidden; /* parts that did not fit below: how far scroll may grow */
};

/* The screen of what is known at now_ms. Never more than view->height lines. */
void top_layout(const struct top *top, const struct top_view *view, uint64_t now_ms, struct top_screen *screen);

/* Without a terminal: a line for the run, one for each part. */
void top_plain(const struct top *top, uint64_t now_ms, FILE *out);

/* A curve of `width` columns between its smallest and largest value, the newest at the right; returns out. */
char *top_sparkline(char *out, size_t size, const struct top_history *history, int width, bool unicode);

#endif
