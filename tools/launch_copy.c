/* launch_copy.c - `programs: copy`: the programs, MuJoCo and the models packed once and put on hosts that lack them. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/env/places.h"
#include "tools/launch.h"
#include "tools/options.h"

#define ARCHIVE_LIMIT ((size_t)1 << 30)
#define COPY_MS       900000
#define HASH_DIGITS   16

static const char *const programs[] = {"tdmpc2", "tdmpc2-learner", "tdmpc2-replay", "tdmpc2-actor"};

/* What an installation has beside them, and where it lies in a source tree. */
static const struct {
    const char *installed, *source;
} beside[] = {{"lib/tdmpc2", "third_party/mujoco/lib"},
              {"share/tdmpc2/suite", "third_party/dm_control/suite"},
              {"share/tdmpc2/models", "common/env/dm/models"},
              {"share/tdmpc2/bridge", "common/env/bridge"}};

/* A name for these very programs. */
static int hash_programs(const char *folder, char hex[FS_SHA256_HEX], struct error *err)
{
    char path[FS_PATH_MAX], all[TD_LEN(programs)][FS_SHA256_HEX];
    int rc = TD_OK;

    for (size_t i = 0; rc == TD_OK && i < TD_LEN(programs); i++)
        if ((rc = fs_join(path, folder, programs[i], err)) == TD_OK)
            rc = fs_sha256_file(path, all[i], err);
    if (rc == TD_OK)
        fs_sha256(all, sizeof(all), hex);
    return rc;
}

static int link_to(const char *target, const char *stage, const char *name, struct error *err)
{
    char path[FS_PATH_MAX], folder[FS_PATH_MAX];
    int rc;

    if ((rc = fs_join(path, stage, name, err)) != TD_OK || (rc = fs_parent(path, folder, err)) != TD_OK ||
        (rc = fs_mkdirs(folder, 0755, err)) != TD_OK)
        return rc;
    return symlink(target, path) == 0 ? TD_OK : error_set(err, TD_EIO, "cannot make %s", path);
}

/* A folder of links that looks like an installation. */
static int make_stage(const char *folder, const char *stage, struct error *err)
{
    char root[FS_PATH_MAX], path[FS_PATH_MAX], name[64];
    int rc = fs_remove_tree(stage, err);
    bool source;

    snprintf(root, sizeof(root), "%s", folder);
    source = place_source_tree(root);
    if (!source) {
        snprintf(root, sizeof(root), "%s", folder);
        place_parent(root);
    }
    for (size_t i = 0; rc == TD_OK && i < TD_LEN(programs); i++) {
        snprintf(name, sizeof(name), "bin/%s", programs[i]);
        if ((rc = fs_join(path, folder, programs[i], err)) == TD_OK)
            rc = link_to(path, stage, name, err);
    }
    for (size_t i = 0; rc == TD_OK && i < TD_LEN(beside); i++)
        if (place_join(path, root, source ? beside[i].source : beside[i].installed) && place_exists(path))
            rc = link_to(path, stage, beside[i].installed, err);
    return rc;
}

/* state/programs-HASH.tar.gz, made unless it is there. */
static int make_archive(struct launch *launch, const char *folder, const char *hash, char archive[FS_PATH_MAX], struct error *err)
{
    char stage[FS_PATH_MAX], part[FS_PATH_MAX];
    struct host_job job = {.host = ""};
    int rc;

    snprintf(stage, sizeof(stage), "%.*s/stage", FS_PATH_MAX - 96, launch->cluster.state);
    snprintf(archive, FS_PATH_MAX, "%.*s/programs-%s.tar.gz", FS_PATH_MAX - 96, launch->cluster.state, hash);
    snprintf(part, sizeof(part), "%.*s/programs.part", FS_PATH_MAX - 96, launch->cluster.state);
    if (place_exists(archive))
        return TD_OK;
    if ((rc = make_stage(folder, stage, err)) != TD_OK)
        return rc;
    if (hosts_word(&job, "tar") != TD_OK || hosts_word(&job, "--use-compress-program=gzip -1") != TD_OK || hosts_word(&job, "-chf") != TD_OK || hosts_word(&job, "%s", part) != TD_OK ||
        hosts_word(&job, "-C") != TD_OK || hosts_word(&job, "%s", stage) != TD_OK || hosts_word(&job, ".") != TD_OK)
        rc = error_set(err, TD_ENOMEM, "out of memory");
    else
        rc = hosts_must(&launch->cluster, &job, 1, "packing the programs", COPY_MS, err);
    hosts_release(&job, 1);
    fs_remove_tree(stage, NULL);
    return rc == TD_OK ? fs_rename(part, archive, err) : rc;
}

/* A line of shell on one host. */
static int shell(struct host_job *job, const char *host, const char *line)
{
    job->host = host;
    return hosts_word(job, "sh") == TD_OK && hosts_word(job, "-c") == TD_OK ? hosts_word(job, "%s", line) : TD_ENOMEM;
}

/* Which hosts lack them; they come first in `lacking`. */
static int ask(struct launch *launch, const char *const *hosts, int count, const char *place, const char **lacking, int *missing,
               struct error *err)
{
    struct host_job *jobs = calloc((size_t)count, sizeof(*jobs));
    char line[200];
    int rc = jobs != NULL ? TD_OK : error_set(err, TD_ENOMEM, "out of memory");

    *missing = 0;
    snprintf(line, sizeof(line), "test -x %s/bin/tdmpc2 || echo missing", place);
    for (int i = 0; rc == TD_OK && i < count; i++)
        rc = shell(&jobs[i], hosts[i], line);
    if (rc == TD_OK)
        rc = hosts_must(&launch->cluster, jobs, count, "looking for the programs", 60000, err);
    for (int i = 0; rc == TD_OK && i < count; i++)
        if (strstr(jobs[i].output, "missing") != NULL)
            lacking[(*missing)++] = hosts[i];
    if (jobs != NULL)
        hosts_release(jobs, count);
    free(jobs);
    return rc;
}

static int send_archive(struct launch *launch, const char *const *hosts, int count, const char *place, const char *archive,
                        struct error *err)
{
    struct host_job *jobs = calloc((size_t)count, sizeof(*jobs));
    char line[800], *bytes = NULL;
    size_t length = 0;
    int rc = jobs != NULL ? fs_read_file(archive, ARCHIVE_LIMIT, &bytes, &length, err) : error_set(err, TD_ENOMEM, "out of memory");

    snprintf(line, sizeof(line),
             "mkdir -p %s.$$ && tar -xzf - -C %s.$$ && { mv -T %s.$$ %s 2>/dev/null || rm -rf %s.$$; } && %s/bin/tdmpc2 help >/dev/null",
             place, place, place, place, place, place);
    for (int i = 0; rc == TD_OK && i < count; i++) {
        rc = shell(&jobs[i], hosts[i], line);
        jobs[i].input = bytes;
        jobs[i].input_length = length;
    }
    if (rc == TD_OK)
        rc = hosts_must(&launch->cluster, jobs, count, "copying the programs", COPY_MS, err);
    if (rc == TD_OK)
        printf("programs: copied to %d host%s\n", count, count == 1 ? "" : "s");
    if (jobs != NULL)
        hosts_release(jobs, count);
    free(jobs);
    free(bytes);
    return rc;
}

int launch_copy_programs(struct launch *launch, const char *const *hosts, int count, struct error *err)
{
    char folder[FS_PATH_MAX], hex[FS_SHA256_HEX], archive[FS_PATH_MAX], place[100];
    const char **lacking = calloc((size_t)count, sizeof(*lacking));
    int missing = 0, rc;

    if (lacking == NULL)
        return error_set(err, TD_ENOMEM, "out of memory");
    if ((rc = fs_program_dir(folder, err)) == TD_OK && (rc = hash_programs(folder, hex, err)) == TD_OK) {
        hex[HASH_DIGITS] = '\0';
        snprintf(place, sizeof(place), ".cache/tdmpc2/%s", hex);
        snprintf(launch->programs, sizeof(launch->programs), "%s/bin/", place);
        if (launch->dry_run)
            printf("# the programs to %s of every host's home, where they are not there\n", place);
        else if ((rc = ask(launch, hosts, count, place, lacking, &missing, err)) == TD_OK && missing > 0 &&
                 (rc = fs_mkdirs(launch->cluster.state, 0700, err)) == TD_OK &&
                 (rc = make_archive(launch, folder, hex, archive, err)) == TD_OK)
            rc = send_archive(launch, lacking, missing, place, archive, err);
    }
    free(lacking);
    return rc;
}
