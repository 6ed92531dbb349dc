#include "common/util/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int error_set(struct error *err, int code, const char *format, ...)
{
    va_list args;

    if (err == NULL)
        return code;
    err->code = code;
    va_start(args, format);
    vsnprintf(err->text, sizeof(err->text), format, args);
    va_end(args);
    return code;
}

int error_set_errno(struct error *err, int code, int errnum, const char *format, ...)
{
    va_list args;
    size_t used;

    if (err == NULL)
        return code;
    err->code = code;
    va_start(args, format);
    vsnprintf(err->text, sizeof(err->text), format, args);
    va_end(args);
    used = strlen(err->text);
    snprintf(err->text + used, sizeof(err->text) - used, ": %s", strerror(errnum));
    return code;
}

const char *error_name(int code)
{
    switch (code) {
    case TD_OK:
        return "ok";
    case TD_ENOMEM:
        return "out of memory";
    case TD_EINVAL:
        return "bad input";
    case TD_EIO:
        return "input/output error";
    case TD_ECORRUPT:
        return "corrupt data";
    case TD_EFULL:
        return "full";
    case TD_ELOCKED:
        return "in use by another process";
    case TD_EFOREIGN:
        return "belongs to another run, schema or version";
    case TD_ESTALE:
        return "too old";
    case TD_ENOTFOUND:
        return "not found";
    case TD_EAGAIN:
        return "nothing yet";
    case TD_ETIMEOUT:
        return "timed out";
    case TD_EDIVERGED:
        return "diverged";
    case TD_EFENCED:
        return "fenced: another process took this place";
    case TD_ESETUP:
        return "not set up";
    case TD_ELOST:
        return "lost";
    default:
        return "unknown error";
    }
}

int error_exit_code(int code)
{
    switch (code) {
    case TD_OK:
        return TD_EXIT_OK;
    case TD_EINVAL:
    case TD_ECORRUPT:
    case TD_ELOCKED:
    case TD_EFOREIGN:
    case TD_ENOTFOUND:
    case TD_ESETUP:
        return TD_EXIT_BAD_INPUT;
    case TD_EDIVERGED:
        return TD_EXIT_DIVERGED;
    case TD_EFENCED:
        return TD_EXIT_FENCED;
    default:
        return TD_EXIT_GAVE_UP;
    }
}

void td_assert_failed(const char *file, int line, const char *condition, const char *format, ...)
{
    va_list args;

    fprintf(stderr, "%s:%d: assertion failed: %s", file, line, condition);
    if (format[0] != '\0') {
        fputs(": ", stderr);
        va_start(args, format);
        vfprintf(stderr, format, args);
        va_end(args);
    }
    fputc('\n', stderr);
    fflush(NULL);
    abort();
}
