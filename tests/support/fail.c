#include "tests/support/fail.h"

#include <limits.h>
#include <unistd.h>

#include "common/util/fs.h"
#include "tests/support/test.h"

static void preload(void)
{
    const char *build = getenv("TD_BUILD"), *sanitizer = getenv("ASAN_OPTIONS");
    char path[PATH_MAX], full[PATH_MAX], options[512];

    snprintf(path, sizeof(path), "%s/tests/support/bin_fail.so", build == NULL ? "build/release" : build);
    if (realpath(path, full) == NULL) {
        fprintf(stderr, "%s is missing: run 'make tests'\n", path);
        exit(2);
    }
    setenv("LD_PRELOAD", full, 1);
    if (sanitizer != NULL && strstr(sanitizer, "verify_asan_link_order=0") != NULL)
        return;
    /* the sanitizer's library would rather be the first */
    snprintf(options, sizeof(options), "%s%sverify_asan_link_order=0", sanitizer == NULL ? "" : sanitizer,
             sanitizer == NULL ? "" : ":");
    setenv("ASAN_OPTIONS", options, 1);
}

void fail_preload(const char *dir, const char *call, uint64_t at, int errnum, bool forever, const char *report)
{
    static const char *const names[] = {"TD_FAIL_DIR",   "TD_FAIL_CALL",    "TD_FAIL_AT",
                                        "TD_FAIL_ERRNO", "TD_FAIL_FOREVER", "TD_FAIL_REPORT", "LD_PRELOAD"};
    char number[32];

    for (size_t i = 0; i < TD_LEN(names); i++)
        unsetenv(names[i]);
    if (call == NULL)
        return;
    preload();
    unlink(report);
    setenv("TD_FAIL_DIR", dir, 1);
    setenv("TD_FAIL_CALL", call, 1);
    setenv("TD_FAIL_REPORT", report, 1);
    snprintf(number, sizeof(number), "%llu", (unsigned long long)at);
    setenv("TD_FAIL_AT", number, 1);
    snprintf(number, sizeof(number), "%d", errnum);
    setenv("TD_FAIL_ERRNO", number, 1);
    if (forever)
        setenv("TD_FAIL_FOREVER", "1", 1);
}

struct fail_report fail_read(const char *report)
{
    struct fail_report out = {0};
    struct error err;
    size_t length;
    char *bytes;

    assert_ok(fs_read_file(report, sizeof(out), &bytes, &length, &err), err);
    assert_int_equal(length, sizeof(out));
    memcpy(&out, bytes, sizeof(out));
    free(bytes);
    return out;
}

void fail_again(char **argv)
{
    preload();
    execv("/proc/self/exe", argv);
    perror("execv");
    exit(2);
}
