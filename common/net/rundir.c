#include "common/net/rundir.h"

#include <cjson/cJSON.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/util/clock.h"
#include "common/util/fs.h"
#include "common/util/log.h"

#define FILE_LIMIT 4096 /* bytes of an .addr file */
#define TARGET_END ".metrics.json"
#define AWAIT_LOOK_MS 100u
#define AWAIT_SAY_MS 5000u
#define DEPTH 4         /* of a run directory under logs/: <task>/<seed>/<exp_name> and one more */

/* --- address files ---------------------------------------------------------- */

static bool role_valid(const char *role)
{
    if (role[0] == '\0')
        return false;
    for (; *role != '\0'; role++)
        if (!islower((unsigned char)*role))
            return false;
    return true;
}

static int part_path(char out[FS_PATH_MAX], const char *run_dir, const char *role, int id,
                     struct error *err)
{
    int length = snprintf(out, FS_PATH_MAX, "%s/run/%s-%d.addr", run_dir, role, id);

    if (length >= FS_PATH_MAX)
        return error_set(err, TD_EINVAL, "the path of run directory %.100s... is too long", run_dir);
    return TD_OK;
}

/* x.addr -> x.metrics.json, in place; path has FS_PATH_MAX bytes. */
static bool target_path(char *path)
{
    char *end = strrchr(path, '.');

    if ((size_t)(end - path) + sizeof(TARGET_END) > FS_PATH_MAX)
        return false;
    memcpy(end, TARGET_END, sizeof(TARGET_END));
    return true;
}

/* For Prometheus to find the part. */
static int record_target(char *path, const struct rundir_part *part, struct error *err)
{
    char text[FILE_LIMIT];
    int length;

    if (part->metrics[0] == '\0' || !target_path(path))
        return TD_OK;
    length = snprintf(text, sizeof(text), "[{\"targets\":[\"%s\"],\"labels\":{\"run\":\"%016" PRIx64 "\"}}]\n",
                      part->metrics, part->run_id);
    return fs_write_file(path, text, (size_t)length, err);
}

int rundir_record(const char *run_dir, const struct rundir_part *part, struct error *err)
{
    char path[FS_PATH_MAX], folder[FS_PATH_MAX], text[FILE_LIMIT];
    int rc, length;

    TD_ASSERT(role_valid(part->role), "role %s", part->role);
    if ((rc = part_path(path, run_dir, part->role, part->id, err)) != TD_OK)
        return rc;
    snprintf(folder, sizeof(folder), "%s", path);
    *strrchr(folder, '/') = '\0';
    if ((rc = fs_mkdirs(folder, 0755, err)) != TD_OK)
        return rc;
    /* Addresses were checked when they were bound: no quote or backslash is in them. */
    length = snprintf(text, sizeof(text),
                      "{\"role\":\"%s\",\"id\":%d,\"pid\":%d,\"process\":\"%016" PRIx64
                      "\",\"run\":\"%016" PRIx64 "\",\"stats\":\"%s\",\"control\":\"%s\",\"network\":\"%s\",\"dashboard\":\"%s\",\"host\":\"%s\"}\n",
                      part->role, part->id, (int)part->pid, part->process, part->run_id, part->stats,
                      part->control, part->network, part->dashboard, rundir_here());
    rc = fs_write_file(path, text, (size_t)length, err);
    return rc == TD_OK ? record_target(path, part, err) : rc;
}

static uint64_t hex_of(const cJSON *json, const char *name)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, name));

    return text == NULL ? 0 : strtoull(text, NULL, 16);
}

static bool text_of(const cJSON *json, const char *name, char *out, size_t size)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, name));

    if (text == NULL || strlen(text) >= size)
        return false;
    memcpy(out, text, strlen(text) + 1);
    return true;
}

static bool int_of(const cJSON *json, const char *name, int *out)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, name);

    if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0 && item->valuedouble <= 2147483647.0))
        return false;
    *out = item->valueint;
    return true;
}

bool rundir_parse(const char *text, struct rundir_part *part)
{
    cJSON *json = cJSON_Parse(text);
    int pid = 0;
    bool good;

    memset(part, 0, sizeof(*part));
    good = cJSON_IsObject(json) && text_of(json, "role", part->role, sizeof(part->role)) &&
           role_valid(part->role) && int_of(json, "id", &part->id) && int_of(json, "pid", &pid) &&
           text_of(json, "stats", part->stats, sizeof(part->stats)) &&
           text_of(json, "control", part->control, sizeof(part->control));
    part->pid = pid;
    part->process = hex_of(json, "process");
    part->run_id = hex_of(json, "run");
    text_of(json, "network", part->network, sizeof(part->network));
    text_of(json, "dashboard", part->dashboard, sizeof(part->dashboard));
    text_of(json, "host", part->host, sizeof(part->host));
    cJSON_Delete(json);
    return good;
}

static int read_part(const char *path, struct rundir_part *part, struct error *err)
{
    char *text = NULL;
    size_t length;
    int rc = fs_read_file(path, FILE_LIMIT, &text, &length, err);

    if (rc != TD_OK)
        return rc;
    if (!rundir_parse(text, part))
        rc = error_set(err, TD_ECORRUPT, "%s is not an address file; remove it", path);
    free(text);
    return rc;
}

int rundir_find(const char *run_dir, const char *role, int id, struct rundir_part *part,
                struct error *err)
{
    char path[FS_PATH_MAX];
    int rc = part_path(path, run_dir, role, id, err);

    return rc == TD_OK ? read_part(path, part, err) : rc;
}

/* A name that goes into JSON as it is: of a host or of a boot. */
static void keep_plain(char *text)
{
    for (; *text != '\0'; text++)
        if (!isalnum((unsigned char)*text) && strchr("-._", *text) == NULL)
            *text = '_';
}

const char *rundir_here(void)
{
    static char here[RUNDIR_HOST_MAX];
    char name[64] = "", boot[40] = "";
    FILE *file;

    if (here[0] != '\0')
        return here;
    if (gethostname(name, sizeof(name) - 1) != 0)
        strcpy(name, "localhost");
    file = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (file != NULL) {
        if (fgets(boot, sizeof(boot), file) != NULL)
            boot[strcspn(boot, "\n")] = '\0';
        fclose(file);
    }
    keep_plain(name);
    keep_plain(boot);
    snprintf(here, sizeof(here), "%s/%s", name, boot);
    return here;
}

int rundir_learner(const char *run_dir, char out[CHANNEL_ADDRESS_MAX], struct error *err)
{
    struct rundir_part learner;
    bool near;
    int rc = rundir_find(run_dir, "learner", 0, &learner, err);

    if (rc != TD_OK)
        return rc;
    near = learner.host[0] == '\0' || strcmp(learner.host, rundir_here()) == 0;
    memcpy(out, near ? learner.control : learner.network, CHANNEL_ADDRESS_MAX);
    if (out[0] == '\0')
        return error_set(err, TD_EINVAL, "the learner of %.300s runs on %.60s and listens on that machine only: start it "
                         "with bind=tcp://HOST:PORT", run_dir, learner.host);
    return TD_OK;
}

int rundir_await_learner(const char *run_dir, char out[CHANNEL_ADDRESS_MAX], uint64_t wait_ms, struct error *err)
{
    uint64_t start = clock_ms(), say = start + AWAIT_SAY_MS;
    int rc;

    while ((rc = rundir_learner(run_dir, out, err)) == TD_ENOTFOUND || rc == TD_ECORRUPT) {
        uint64_t now = clock_ms();

        if (now - start >= wait_ms)
            return error_set(err, TD_ETIMEOUT, "no learner has recorded its address in %.300s/run within %.0f s", run_dir,
                             (double)wait_ms / 1000);
        if (now >= say) {
            log_info("waiting for a learner to record its address", "run_dir=%s", run_dir);
            say = now + 12 * AWAIT_SAY_MS;
        }
        clock_sleep_ms(AWAIT_LOOK_MS);
    }
    return rc;
}

void rundir_forget(const char *run_dir, const struct rundir_part *part)
{
    struct rundir_part found;
    char path[FS_PATH_MAX];

    if (part_path(path, run_dir, part->role, part->id, NULL) == TD_OK &&
        read_part(path, &found, NULL) == TD_OK && found.process == part->process) {
        unlink(path);
        if (target_path(path))
            unlink(path);
    }
}

static int rank(const struct rundir_part *part)
{
    return strcmp(part->role, "learner") == 0 ? 0 : strcmp(part->role, "replay") == 0 ? 1 : 2;
}

static int compare_parts(const void *a, const void *b)
{
    const struct rundir_part *x = a, *y = b;
    int order = rank(x) - rank(y);

    if (order == 0)
        order = strcmp(x->role, y->role);
    return order != 0 ? order : (x->id > y->id) - (x->id < y->id);
}

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), tail = strlen(end);

    return length > tail && strcmp(text + length - tail, end) == 0;
}

int rundir_list(const char *run_dir, struct rundir_part *parts, int max, int *count,
                struct error *err)
{
    char folder[FS_PATH_MAX], path[FS_PATH_MAX + 256];
    struct dirent *entry;
    DIR *dir;

    *count = 0;
    snprintf(folder, sizeof(folder), "%s/run", run_dir);
    dir = opendir(folder);
    if (dir == NULL)
        return error_set(err, TD_ENOTFOUND, "no run was started in %s (it has no folder run/)",
                         run_dir);
    while (*count < max && (entry = readdir(dir)) != NULL) {
        if (!ends_with(entry->d_name, ".addr"))
            continue;
        snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
        if (read_part(path, &parts[*count], NULL) == TD_OK)
            (*count)++;
    }
    closedir(dir);
    qsort(parts, (size_t)*count, sizeof(*parts), compare_parts);
    return TD_OK;
}

/* --- run directories -------------------------------------------------------- */

/* The newest of the files that a run touches, or 0: not a run directory. */
static double run_time(const char *path)
{
    static const char *const marks[] = {"config.yaml", "run", "checkpoints"};
    char name[FS_PATH_MAX + 32];
    struct stat info;
    double newest = 0;

    for (size_t i = 0; i < TD_LEN(marks); i++) {
        snprintf(name, sizeof(name), "%s/%s", path, marks[i]);
        if (stat(name, &info) == 0) {
            double at = (double)info.st_mtim.tv_sec + (double)info.st_mtim.tv_nsec * 1e-9;

            newest = at > newest ? at : newest;
        }
    }
    return newest;
}

struct newest {
    double time;
    char path[FS_PATH_MAX];
};

static void search_newest(const char *path, int depth, struct newest *best)
{
    char child[FS_PATH_MAX];
    struct dirent *entry;
    struct stat info;
    double time = run_time(path);
    DIR *dir;

    if (time > 0) {
        if (time > best->time) {
            best->time = time;
            snprintf(best->path, sizeof(best->path), "%s", path);
        }
        return;
    }
    if (depth == 0 || (dir = opendir(path)) == NULL)
        return;
    while ((entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] == '.' ||
            snprintf(child, sizeof(child), "%s/%s", path, entry->d_name) >= (int)sizeof(child))
            continue;
        if (stat(child, &info) == 0 && S_ISDIR(info.st_mode))
            search_newest(child, depth - 1, best);
    }
    closedir(dir);
}

int rundir_newest(const char *root, char *out, size_t size, struct error *err)
{
    struct newest best = {0};

    search_newest(root, DEPTH, &best);
    if (best.time <= 0)
        return error_set(err, TD_ENOTFOUND, "no run found under %s; name a run directory", root);
    if (strlen(best.path) >= size)
        return error_set(err, TD_EINVAL, "the path %.100s... is too long", best.path);
    memcpy(out, best.path, strlen(best.path) + 1);
    return TD_OK;
}

int rundir_check(const char *run_dir, struct error *err)
{
    struct stat info;

    if (stat(run_dir, &info) != 0)
        return error_set_errno(err, TD_ENOTFOUND, errno, "run directory %s", run_dir);
    if (!S_ISDIR(info.st_mode) || run_time(run_dir) <= 0)
        return error_set(err, TD_ENOTFOUND, "%s is not a run directory (no config.yaml, run/ or "
                         "checkpoints/ in it)", run_dir);
    return TD_OK;
}

/* --- sockets in the private folder ---------------------------------------------- */

int rundir_address(char out[CHANNEL_ADDRESS_MAX], const char *folder, const char *name,
                    uint64_t process, struct error *err)
{
    if (process == 0)
        snprintf(out, CHANNEL_ADDRESS_MAX, "ipc://%s/%s", folder, name);
    else
        snprintf(out, CHANNEL_ADDRESS_MAX, "ipc://%s/%s-%08" PRIx32, folder, name,
                 (uint32_t)(process ^ (process >> 32)));
    return address_check(out, false, err);
}
