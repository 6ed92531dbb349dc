/*
 * console.h - what `tdmpc2 train` prints: the reference's lines, and on a terminal one live status line
 * below them with a bar and the time left.
 */
#ifndef TD_TOOLS_CONSOLE_H
#define TD_TOOLS_CONSOLE_H

#include "common/model/task_set.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define CONSOLE_LINE_MAX 1024
#define CONSOLE_WAIT_MS  5000u /* of waiting before it is said where there is no status line */

/* What the learner's stats say; NAN for what they do not. */
struct run_status {
    double agent_steps, target_steps, progress, time_left_s;
    double updates, updates_per_s, steps_per_s; /* environment steps per second */
    double episode_return, eval_return;
    double actors;
    char phase[200], waiting[200], bottleneck[200];
};

/* From one JSON object of a stats socket. False when it is none. */
bool status_parse(struct run_status *status, const char *json, size_t length);

/* One line of the reference's console; NAN leaves a field out. */
struct console_row {
    const char *category; /* "pretrain", "train", "eval" */
    double episode, step, reward, success, time_s;
};

struct console {
    FILE *out;
    bool live;      /* a terminal: a status line may be redrawn */
    bool colour;
    bool drawn;     /* the status line stands at the cursor's line */
    char status[CONSOLE_LINE_MAX];
    char waiting[200];   /* as it was last said; empty: nothing is waited for, or not long */
    uint64_t waiting_ms; /* since when, or when it was last said */
};

/* Colours unless NO_COLOR is set or TERM is dumb. */
void console_init(struct console *console, FILE *out);

/* A line of text above the status line. */
void console_print(struct console *console, const char *format, ...) __attribute__((format(printf, 2, 3)));
void console_row(struct console *console, const struct console_row *row);

/* Redraw the status line; where there is no terminal, say what is waited for (console_waiting). */
void console_status(struct console *console, const char *name, const struct run_status *status);

/* A line naming what is waited for once it has lasted, and when it becomes something else, at most every 5 s. */
void console_waiting(struct console *console, const char *waiting, uint64_t now_ms);

/* Wipe the status line. */
void console_clear(struct console *console);

/* The texts themselves. All return out. */
char *console_format_row(char out[CONSOLE_LINE_MAX], const struct console_row *row, bool colour);
char *console_format_status(char out[CONSOLE_LINE_MAX], const char *name, const struct run_status *status, int width);

/* 1,234,567 and, as Python's timedelta, 0:01:02 or "1 day, 2:03:04". */
/* What several tasks came to, behind an eval row: score and pairs of return and success as in eval.csv. */
char *console_format_tasks(char out[CONSOLE_LINE_MAX], const struct task_set *tasks, const double *score_and_pairs);
char *console_format_count(char *out, size_t size, double count);
char *console_format_time(char *out, size_t size, double seconds);

#endif
