/* doctor.c - `tdmpc2 doctor`: is this machine fit for a part of a run, and what to do where it is not. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timex.h>
#include <unistd.h>

#include "common/env/env.h"
#include "common/env/gl.h"
#include "common/net/channel.h"
#include "common/net/process.h"
#include "common/tensor/isa.h"
#include "common/util/clock.h"
#include "common/util/cores.h"
#include "common/util/fs.h"
#include "common/util/sandbox.h"
#include "learner/preflight.h"
#include "tools/commands.h"
#include "tools/options.h"
#include "tools/stats.h"

#define SYNCS       32
#define SLOW_SYNC   0.020 /* s: with one commit at a time fifty a second are left */
#define SKEW_MS     1000
#define ANSWER_MS   2000
#define MEMORY_LEAST ((uint64_t)2 << 30)

enum verdict { GOOD, NOTE, BAD };

struct doctor {
    struct config config;
    const char *run; /* "" : none is asked */
    int notes, bad;
};

static void say(struct doctor *doctor, enum verdict verdict, const char *what, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
static void say(struct doctor *doctor, enum verdict verdict, const char *what, const char *format, ...)
{
    static const char *const words[] = {"ok", "note", "bad"};
    va_list args;

    printf("%-5s%-9s ", words[verdict], what);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
    fflush(stdout);
    doctor->notes += verdict == NOTE;
    doctor->bad += verdict == BAD;
}

/* --- processor and memory ------------------------------------------------------- */

static void check_processor(struct doctor *doctor)
{
    enum isa best = isa_best();

    say(doctor, GOOD, "cores", "%d for this process", cores_available());
    if (strcmp(isa_name(best), "plain") == 0)
        say(doctor, NOTE, "cpu", "neither AVX2 nor AVX-512 nor NEON: all works, several times slower. In a virtual machine pass the "
                                 "host's processor through");
    else
        say(doctor, GOOD, "cpu", "%s", isa_name(best));
}

/* The number behind `name` in a file of "Name: value" lines; -1 when there is none. */
static double number_in(const char *path, const char *name)
{
    size_t length = strlen(name);
    double value = -1;
    char line[256];
    FILE *in = fopen(path, "r");

    while (in != NULL && fgets(line, sizeof(line), in) != NULL)
        if (strncmp(line, name, length) == 0)
            value = strtod(line + length, NULL);
    if (in != NULL)
        fclose(in);
    return value;
}

static void check_memory(struct doctor *doctor)
{
    double free_bytes = number_in("/proc/meminfo", "MemAvailable:") * 1024;
    char pages[256] = "";
    FILE *in = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "r");

    if (free_bytes < (double)MEMORY_LEAST)
        say(doctor, NOTE, "memory", "%.1f GB free: a learner of the default size takes about 1 GB, an actor 0.3 GB; `tdmpc2 bench memory` "
                                    "measures it", free_bytes / 1e9);
    else
        say(doctor, GOOD, "memory", "%.1f GB free", free_bytes / 1e9);
    if (in != NULL) {
        if (fgets(pages, sizeof(pages), in) == NULL)
            pages[0] = '\0';
        fclose(in);
    }
    if (strstr(pages, "[never]") != NULL)
        say(doctor, NOTE, "pages", "transparent huge pages are off: large matrix products lose a few percent. As root: echo madvise > "
                                   "/sys/kernel/mm/transparent_hugepage/enabled");
    else
        say(doctor, GOOD, "pages", "transparent huge pages %s", pages[0] == '\0' ? "unknown here" : "on");
}

/* --- what it is made of ----------------------------------------------------------- */

static bool in_path(const char *program)
{
    char path[FS_PATH_MAX], *list = strdup(getenv("PATH") != NULL ? getenv("PATH") : ""), *rest = NULL;
    bool found = false;

    for (char *dir = list != NULL ? strtok_r(list, ":", &rest) : NULL; dir != NULL && !found; dir = strtok_r(NULL, ":", &rest))
        found = snprintf(path, sizeof(path), "%s/%s", dir, program) < (int)sizeof(path) && access(path, X_OK) == 0;
    free(list);
    return found;
}

static void check_packages(struct doctor *doctor)
{
    static const struct {
        const char *program, *package, *without;
    } wanted[] = {
        {"gnuplot", "gnuplot-nox", "`curve` draws text alone and `plot` nothing"},
        {"ffmpeg", "ffmpeg", "save_video=true records nothing"},
        {"python3", "python3", "no environment in Python (Meta-World, MyoSuite, ManiSkill2, Gymnasium)"},
    };
    static const char *const parts[] = {"tdmpc2-learner", "tdmpc2-replay", "tdmpc2-actor"};
    char folder[FS_PATH_MAX], path[FS_PATH_MAX];
    struct error err = {0};
    env_t *env = NULL;

    for (size_t i = 0; i < TD_LEN(parts); i++)
        if (fs_program_dir(folder, NULL) != TD_OK || fs_join(path, folder, parts[i], NULL) != TD_OK || access(path, X_OK) != 0)
            say(doctor, BAD, "programs", "%s is not beside this program: build or install all of them (`make`, `make install`)", parts[i]);
    for (size_t i = 0; i < TD_LEN(wanted); i++) {
        if (in_path(wanted[i].program))
            say(doctor, GOOD, "packages", "%s", wanted[i].program);
        else
            say(doctor, NOTE, "packages", "no %s: %s. apt-get install %s", wanted[i].program, wanted[i].without, wanted[i].package);
    }
    if (env_create(&env, "cartpole-swingup", 1, &err) == TD_OK)
        say(doctor, GOOD, "mujoco", "cartpole-swingup can be made");
    else
        say(doctor, BAD, "mujoco", "%s (`make setup` fetches library and models)", err.text);
    env_close(&env);
}

static void check_drawing(struct doctor *doctor)
{
    struct error err = {0};
    gl_t *gl = NULL;

    if (gl_open(&gl, &err) != TD_OK)
        say(doctor, NOTE, "drawing", "%s. It matters for obs=rgb and save_video=true alone", err.text);
    else if (gl_drew_recordings())
        say(doctor, GOOD, "drawing", "%s", gl_driver());
    else
        say(doctor, NOTE, "drawing", "%s: frames look the same but differ from dm_control's in last bits; MUJOCO_GL=osmesa draws them "
                                     "to the byte", gl_driver());
    gl_close(&gl);
}

/* --- disk --------------------------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Append a page and sync it, as a commit does. 0 or an errno. */
static int time_syncs(const char *path, double seconds[SYNCS])
{
    static const char page[4096];
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600), failed = fd < 0 ? errno : 0;

    for (int i = 0; i < SYNCS && failed == 0; i++) {
        uint64_t begun = clock_ns();

        if (write(fd, page, sizeof(page)) != (ssize_t)sizeof(page) || fdatasync(fd) != 0)
            failed = errno != 0 ? errno : EIO;
        seconds[i] = (double)(clock_ns() - begun) * 1e-9;
    }
    if (fd >= 0) {
        close(fd);
        unlink(path);
    }
    qsort(seconds, SYNCS, sizeof(*seconds), compare);
    return failed;
}

static void check_disk(struct doctor *doctor)
{
    const char *dir = doctor->config.replay_dir[0] != '\0' ? doctor->config.replay_dir
                      : doctor->config.work_dir[0] != '\0' ? doctor->config.work_dir : ".";
    const char *kind = fs_unsafe_kind(dir);
    char path[FS_PATH_MAX];
    double seconds[SYNCS] = {0};
    struct error err = {0};
    uint64_t bytes = 0;
    int failed;

    if (kind != NULL)
        say(doctor, BAD, "disk", "%s lies on %s, where a store of LMDB may be damaged: replay_dir= names a directory on a local disk", dir,
            kind);
    if (fs_free_bytes(dir, &bytes, &err) == TD_OK)
        say(doctor, bytes < (uint64_t)5 << 30 ? NOTE : GOOD, "disk", "%.1f GB free in %s%s", (double)bytes / 1e9, dir,
            bytes < (uint64_t)5 << 30 ? ": `train` says before it starts what a run needs; disk_limit= bounds it" : "");
    if (snprintf(path, sizeof(path), "%s/.tdmpc2-doctor-%ld", dir, (long)getpid()) >= (int)sizeof(path))
        return;
    if ((failed = time_syncs(path, seconds)) != 0)
        say(doctor, BAD, "sync", "cannot write in %s: %s", dir, strerror(failed));
    else
        say(doctor, seconds[SYNCS / 2] > SLOW_SYNC ? NOTE : GOOD, "sync", "a synced write takes %.2f ms, at worst %.2f ms%s",
            seconds[SYNCS / 2] * 1e3, seconds[SYNCS - 1] * 1e3,
            seconds[SYNCS / 2] > SLOW_SYNC ? ": acknowledgements wait for it, and with many actors outboxes fill; a faster disk for "
                                             "replay_dir=, or more shards, helps" : "");
}

/* --- kernel, clock, network ------------------------------------------------------------ */

static void check_kernel(struct doctor *doctor)
{
    struct error err = {0};

    if (process_check_limits(&err) == TD_OK)
        say(doctor, GOOD, "files", "enough may be open at a time");
    else
        say(doctor, BAD, "files", "%s; for a service LimitNOFILE=, for a login /etc/security/limits.conf", err.text);
    if (sandbox_landlock() != 0 && sandbox_seccomp())
        say(doctor, GOOD, "sandbox", "Landlock %d and seccomp", sandbox_landlock());
    else
        say(doctor, NOTE, "sandbox", "%s: parts run with all rights of their user (sandbox=auto says so in their logs). Landlock is in "
                                     "Linux 5.19 and newer", sandbox_seccomp() ? "no Landlock" : "neither Landlock nor seccomp");
}

static void check_clock(struct doctor *doctor)
{
    struct timex timex = {.modes = 0};

    if (adjtimex(&timex) < 0)
        say(doctor, NOTE, "clock", "cannot be asked: %s", strerror(errno));
    else if ((timex.status & STA_UNSYNC) != 0)
        say(doctor, NOTE, "clock", "not kept by NTP, as far as the kernel knows. A run does not depend on it; times of logs and curves do "
                                   "(systemd-timesyncd or chrony keep it; a container or virtual machine may have its host's)");
    else
        say(doctor, GOOD, "clock", "kept by NTP");
}

/* Of every part that answers: how far is its clock from ours? */
static void check_run(struct doctor *doctor)
{
    struct stats_run *run = calloc(1, sizeof(*run));
    struct error err = {0};
    uint64_t before;
    int rc;

    if (run == NULL)
        return;
    rc = stats_find(run, doctor->run, &err);
    before = clock_wall_ms();
    if (rc == TD_OK && (rc = stats_ask(run, doctor->config.insecure, doctor->config.keys, ANSWER_MS, &err)) > 0) {
        uint64_t after = clock_wall_ms();

        for (int i = 0; i < run->count; i++) {
            double there = run->parts[i].json == NULL ? NAN
                           : cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(run->parts[i].json, "time_ms"));
            double early = there - (double)after, late = there - (double)before; /* it was read in between */
            double skew = late < 0 ? late : early > 0 ? early : 0;

            if (isnan(there))
                say(doctor, NOTE, "skew", "%s %d does not answer", run->parts[i].where.role, run->parts[i].where.id);
            else
                say(doctor, fabs(skew) > SKEW_MS ? NOTE : GOOD, "skew", "%s %d: its clock is %s%.1f s from this one%s",
                    run->parts[i].where.role, run->parts[i].where.id, skew == 0 ? "less than " : "",
                    skew == 0 ? (double)(after - before) / 1e3 + 0.05 : fabs(skew) / 1e3,
                    fabs(skew) > SKEW_MS ? ": a run does not depend on it, but its logs cannot be laid side by side; NTP on both" : "");
        }
    } else {
        say(doctor, BAD, "skew", "%s", rc == 0 ? "nobody answers at that address: is the part running, the port open, the key right?" : err.text);
    }
    stats_forget(run);
    free(run);
}

static void check_ports(struct doctor *doctor)
{
    struct error err = {0};

    if (doctor->config.bind[0] == '\0')
        say(doctor, GOOD, "ports", "none needed on one machine; bind=tcp://HOST:PORT checks one");
    else if (preflight_address(&doctor->config, &err) == TD_OK)
        say(doctor, GOOD, "ports", "%s is free", doctor->config.bind);
    else
        say(doctor, BAD, "ports", "%s", err.text);
}

/* --- the command ----------------------------------------------------------------------- */

static void usage(FILE *out)
{
    fputs("usage: tdmpc2 doctor [RUN_DIR|ADDRESS] [replay_dir=DIR] [bind=tcp://HOST:PORT] [keys=DIR|insecure=true]\n\n"
          "Checks this machine: processor, memory, programs and models, drawing, disk and how long it takes to sync,\n"
          "limits, sandbox, clock, ports; of a run (its directory, or a part's statistics address) how far its clocks\n"
          "are from this one. A note costs speed or a feature, what is bad keeps a run from working: exit code 1.\n", out);
}

static int take_words(struct doctor *doctor, int argc, char **argv, struct error *err)
{
    for (int i = 1; i < argc; i++) {
        if (strchr(argv[i], '=') != NULL || argv[i][0] == '-') {
            int rc = config_set(&doctor->config, argv[i], err);

            if (rc != TD_OK)
                return rc;
        } else if (doctor->run[0] != '\0') {
            return error_set(err, TD_EINVAL, "one run at a time: %s or %s", doctor->run, argv[i]);
        } else {
            doctor->run = argv[i];
        }
    }
    return TD_OK;
}

int cmd_doctor(int argc, char **argv)
{
    static struct doctor doctor; /* large */
    struct error err = {0};
    int rc;

    if (options_help(argc, argv)) {
        usage(stdout);
        return TD_EXIT_OK;
    }
    doctor = (struct doctor){.run = ""};
    config_init(&doctor.config);
    if ((rc = take_words(&doctor, argc, argv, &err)) != TD_OK) {
        fprintf(stderr, "tdmpc2 doctor: %s\n", err.text);
        return error_exit_code(rc);
    }
    check_processor(&doctor);
    check_memory(&doctor);
    check_packages(&doctor);
    check_drawing(&doctor);
    check_disk(&doctor);
    check_kernel(&doctor);
    check_clock(&doctor);
    check_ports(&doctor);
    if (doctor.run[0] != '\0')
        check_run(&doctor);
    channel_shutdown();
    printf("%d bad, %d note%s\n", doctor.bad, doctor.notes, doctor.notes == 1 ? "" : "s");
    return doctor.bad > 0 ? TD_EXIT_GAVE_UP : TD_EXIT_OK;
}
