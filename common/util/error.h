/*
 * error.h - result codes, the sentence a person reads, and assertions.
 *
 * A function that can fail returns TD_OK or a negative TD_E... code. Calls whose failure a person
 * must understand also fill a `struct error`: one sentence saying what, where and what to do.
 */
#ifndef TD_UTIL_ERROR_H
#define TD_UTIL_ERROR_H

#include <stddef.h>

enum {
    TD_OK = 0,
    TD_ENOMEM = -1,    /* out of memory */
    TD_EINVAL = -2,    /* bad option, argument or request */
    TD_EIO = -3,       /* the system refused: read, write, sync, spawn */
    TD_ECORRUPT = -4,  /* bytes from disk or wire that fail their check */
    TD_EFULL = -5,     /* disk, map, queue or outbox full */
    TD_ELOCKED = -6,   /* another process owns it */
    TD_EFOREIGN = -7,  /* another run, schema or protocol version */
    TD_ESTALE = -8,    /* older than allowed */
    TD_ENOTFOUND = -9, /* no such file, key, task */
    TD_EAGAIN = -10,   /* nothing now, try later */
    TD_ETIMEOUT = -11, /* a deadline passed */
    TD_EDIVERGED = -12, /* non-finite losses or parameters */
    TD_EFENCED = -13,  /* another process took this place */
    TD_ESETUP = -14,   /* the set-up is missing */
    TD_ELOST = -15,    /* the environment's process is gone: reset begins anew with another */
};

/* Exit codes of every program (PROTOCOL, section 7). */
enum {
    TD_EXIT_OK = 0,
    TD_EXIT_GAVE_UP = 1,
    TD_EXIT_BAD_INPUT = 2,
    TD_EXIT_DIVERGED = 3,
    TD_EXIT_FENCED = 4,
    TD_EXIT_INTERRUPTED = 130,
};

struct error {
    int code;       /* one of TD_E..., TD_OK when nothing was set */
    char text[768]; /* one sentence, no newline */
};

/* Fill err (NULL allowed) with code and a formatted sentence; returns code. */
int error_set(struct error *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* As error_set, with ": " and the text of the errno value appended. */
int error_set_errno(struct error *err, int code, int errnum, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* "corrupt data" for TD_ECORRUPT and so on; never NULL. */
const char *error_name(int code);

/* The exit code a program ends with when main is handed this error code. */
int error_exit_code(int code);

/* Print where and what, then abort. */
void td_assert_failed(const char *file, int line, const char *condition, const char *format, ...)
    __attribute__((noreturn, format(printf, 4, 5)));

/* A broken promise by our own code; always on. The message prints the values. */
#define TD_ASSERT(condition, ...)                                                                  \
    do {                                                                                           \
        if (__builtin_expect(!(condition), 0))                                                     \
            td_assert_failed(__FILE__, __LINE__, #condition, "" __VA_ARGS__);                      \
    } while (0)

#define TD_LEN(array) (sizeof(array) / sizeof((array)[0]))

#endif
