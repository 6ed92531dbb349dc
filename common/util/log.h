/*
 * log.h - one line of key=value per event, to stderr or a part's log file.
 *
 *   2026-11-23T10:20:30.123Z level=info role=actor host=node7 id=3 run=8f2c msg="paused" why="outbox full"
 *
 * or, with log=json, the same as one object. A message that comes more than LOG_BURST times within LOG_WINDOW_MS
 * is left out until the window ends; the next one tells how many were (repeats=).
 *
 * Libraries return errors; daemons log them. Lines are written by one write(2), so processes that
 * share a file do not tear each other's lines.
 */
#ifndef TD_UTIL_LOG_H
#define TD_UTIL_LOG_H

#include <stdint.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

/* Who speaks: kept in every later line. fd is borrowed; default stderr. */
void log_init(const char *role, int id, uint64_t run_id, int fd);
void log_set_level(enum log_level level);

#define LOG_BURST     200
#define LOG_WINDOW_MS 10000

/* "text" or "json": the option log=. */
void log_set_format(const char *format);

/* format holds the message and then key=value pairs: log_info("shard joined", "shard=%d", n). */
void log_write(enum log_level level, const char *message, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#define log_debug(message, ...) log_write(LOG_DEBUG, message, "" __VA_ARGS__)
#define log_info(message, ...)  log_write(LOG_INFO, message, "" __VA_ARGS__)
#define log_warn(message, ...)  log_write(LOG_WARN, message, "" __VA_ARGS__)
#define log_error(message, ...) log_write(LOG_ERROR, message, "" __VA_ARGS__)

/*
 * A gate for lines that may repeat: at most one each `every_ms`, the rest counted.
 *
 *   static struct log_limit limit;
 *   if (log_allow(&limit, 5000)) log_warn("row refused", "repeats=%u", limit.suppressed_last);
 */
struct log_limit {
    uint64_t next_ms;
    unsigned suppressed;      /* since the last line let through */
    unsigned suppressed_last; /* what the line now let through should report */
};
int log_allow(struct log_limit *limit, uint64_t every_ms);

#endif
