/* A damaged data file makes way for what is whole of it. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/store/salvage.h"
#include "common/util/fs.h"

#define WORK_NAME "rescue" /* folder of the new file until it is whole */

/* A second name for the damaged file: it is never without one. */
static int name_aside(const char *dir, const char *data, struct rescue_report *report, struct error *err)
{
    char path[FS_PATH_MAX], stamp[32];
    time_t now = time(NULL);
    struct tm utc;
    int rc;

    gmtime_r(&now, &utc);
    strftime(stamp, sizeof(stamp), "%Y%m%dT%H%M%SZ", &utc);
    for (int again = 0; again < 100; again++) {
        if (again == 0)
            snprintf(report->aside, sizeof(report->aside), "data.mdb.damaged-%s", stamp);
        else
            snprintf(report->aside, sizeof(report->aside), "data.mdb.damaged-%s-%d", stamp, again);
        if ((rc = fs_join(path, dir, report->aside, err)) != TD_OK)
            return rc;
        if (link(data, path) == 0)
            return fs_sync(dir, err);
        if (errno != EEXIST)
            break;
    }
    return error_set_errno(err, TD_EIO, errno, "%s is damaged and cannot be set aside as %s", data, path);
}

/* The new file takes the place of the old in one step; LMDB's table of readers was of the old. */
static int swap_in(const char *dir, const char *work, const char *data, struct rescue_report *report,
                   struct error *err)
{
    static const char *const stale[] = {"lock.mdb", "closed"};
    char fresh[FS_PATH_MAX], path[FS_PATH_MAX];
    int rc;

    if ((rc = fs_join(fresh, work, "data.mdb", err)) != TD_OK || (rc = name_aside(dir, data, report, err)) != TD_OK)
        return rc;
    for (size_t i = 0; i < TD_LEN(stale); i++)
        if (fs_join(path, dir, stale[i], NULL) == TD_OK)
            (void)unlink(path);
    if ((rc = fs_rename(fresh, data, err)) == TD_OK && fs_join(path, dir, STORE_CONDEMNED, NULL) == TD_OK)
        (void)unlink(path); /* only now: what it says is of the file set aside */
    return rc;
}

int store_rescue(const struct store_config *config, struct rescue_report *report, struct error *err)
{
    char work[FS_PATH_MAX], data[FS_PATH_MAX], lock[FS_PATH_MAX];
    struct store_config fresh = *config;
    int fd = -1, rc;

    memset(report, 0, sizeof(*report));
    if ((rc = fs_join(work, config->dir, WORK_NAME, err)) != TD_OK ||
        (rc = fs_join(data, config->dir, "data.mdb", err)) != TD_OK ||
        (rc = fs_join(lock, config->dir, "lock", err)) != TD_OK ||
        (rc = fs_lock(&fd, lock, config->lock_wait_ms, err)) != TD_OK)
        return rc;
    fresh.dir = work;
    fresh.rows = 0;
    fresh.bytes_limit = 0; /* it was met when the store was made */
    if ((rc = fs_remove_tree(work, err)) == TD_OK &&
        (rc = salvage_into(config->dir, &fresh, true, &report->salvaged, &report->store_id, err)) == TD_OK)
        rc = swap_in(config->dir, work, data, report, err);
    (void)fs_remove_tree(work, NULL); /* what is left of it is made anew next time */
    fs_unlock(&fd);
    return rc;
}
