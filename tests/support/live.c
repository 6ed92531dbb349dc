/* live.c - processes: starting, waiting, finding, asking. What they leave is in live_files.c. */
#include "tests/support/live.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cjson/cJSON.h>
#include <zmq.h>

#include "common/util/clock.h"
#include "tests/support/test.h"

#define CHILDREN_MAX 512
#define ASK_MS       500

const char *const live_tiny[] = {
    "enc_dim=16",      "mlp_dim=16",     "latent_dim=16", "num_samples=16", "num_elites=4",
    "num_pi_trajs=4",  "batch_size=16",  "num_q=2",       "eval_episodes=1", NULL,
};

/* Every process that was started, until its end was seen. */
static pid_t children[CHILDREN_MAX];

/* --- starting --------------------------------------------------------------- */

void live_sleep(int ms)
{
    struct timespec time = {ms / 1000, (long)(ms % 1000) * 1000000};

    while (nanosleep(&time, &time) != 0 && errno == EINTR)
        ;
}

int live_free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&address, size), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    close(fd);
    return ntohs(address.sin_port);
}

/* Syncing is real on disk and fast in memory; what a power failure leaves is not the question here. */
void live_init(struct live *live, const char *name, bool on_disk)
{
    memset(live, 0, sizeof(*live));
    snprintf(live->name, sizeof(live->name), "%s", name);
    if (!on_disk && access("/dev/shm", W_OK) == 0)
        setenv("TMPDIR", "/dev/shm", 0);
    snprintf(live->dir, sizeof(live->dir), "%s/%s", test_folder(), name);
    snprintf(live->out, sizeof(live->out), "%s.out", live->dir);
}

const char *live_program(const char *name, char path[FS_PATH_MAX])
{
    const char *build = getenv("TD_BUILD");

    snprintf(path, FS_PATH_MAX, "%s/bin/%s", build == NULL ? "build/release" : build, name);
    if (access(path, X_OK) != 0)
        fail_msg("%s is missing: run 'make programs'", path);
    return path;
}

void live_env(const char *name, const char *value)
{
    if (value == NULL)
        unsetenv(name);
    else
        setenv(name, value, 1);
}

static void remember(pid_t pid)
{
    for (int i = 0; i < CHILDREN_MAX; i++)
        if (children[i] == 0) {
            children[i] = pid;
            return;
        }
    fail_msg("more than %d processes", CHILDREN_MAX);
}

static void forget(pid_t pid)
{
    for (int i = 0; i < CHILDREN_MAX; i++)
        if (children[i] == pid)
            children[i] = 0;
}

static pid_t start(const char *program, const char *out, const char *const *argv)
{
    char path[FS_PATH_MAX];
    pid_t pid;

    live_program(program, path);
    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        int log = open(out, O_WRONLY | O_CREAT | O_APPEND, 0644), none = open("/dev/null", O_RDONLY);

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        setpgid(0, 0);
        dup2(none, 0);
        dup2(log, 1);
        dup2(log, 2);
        execv(path, (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    assert_true(pid > 0);
    remember(pid);
    return pid;
}

static int collect(const char **argv, int count, va_list list)
{
    const char *word;

    while ((word = va_arg(list, const char *)) != NULL) {
        assert_true(count + 1 < LIVE_WORDS_MAX);
        argv[count++] = word;
    }
    argv[count] = NULL;
    return count;
}

pid_t live_spawn(const char *program, const char *out, const char *const *words, ...)
{
    const char *argv[LIVE_WORDS_MAX] = {program};
    int count = 1;
    va_list list;

    for (; words != NULL && *words != NULL; words++)
        argv[count++] = *words;
    va_start(list, words);
    collect(argv, count, list);
    va_end(list);
    return start(program, out, argv);
}

void live_train(struct live *live, ...)
{
    const char *argv[LIVE_WORDS_MAX] = {"tdmpc2", "train"};
    char place[480];
    int count = 2;
    va_list list;

    snprintf(place, sizeof(place), "work_dir=%s", live->dir);
    argv[count++] = place;
    for (const char *const *word = live_tiny; *word != NULL; word++)
        argv[count++] = *word;
    va_start(list, live);
    collect(argv, count, list);
    va_end(list);
    live->pid = start("tdmpc2", live->out, argv);
}

int live_wait(pid_t pid, int ms)
{
    uint64_t end = clock_ms() + (uint64_t)ms;
    int status;

    for (;;) {
        pid_t got = waitpid(pid, &status, WNOHANG);

        if (got == pid) {
            forget(pid);
            return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
        }
        assert_true(got == 0);
        if (clock_ms() >= end)
            return LIVE_TIMEOUT;
        live_sleep(5);
    }
}

void live_expect(struct live *live, int code, int ms)
{
    int got = live_wait(live->pid, ms);

    if (got == LIVE_TIMEOUT)
        live_fail(live, "%s has not ended after %d ms", live->name, ms);
    live->pid = 0;
    if (got != code)
        live_fail(live, "%s ended with %d, expected %d", live->name, got, code);
}

int live_run(const char *program, char *text, size_t size, int ms, ...)
{
    const char *argv[LIVE_WORDS_MAX] = {program};
    char out[FS_PATH_MAX], *bytes;
    struct error err;
    size_t length;
    va_list list;
    int code;

    snprintf(out, sizeof(out), "%s/run-%ld.out", test_folder(), (long)getpid());
    unlink(out);
    va_start(list, ms);
    collect(argv, 1, list);
    va_end(list);
    code = live_wait(start(program, out, argv), ms);
    assert_ok(fs_read_file(out, 16u << 20, &bytes, &length, &err), err);
    snprintf(text, size, "%s", bytes);
    free(bytes);
    return code;
}

/* --- parts ------------------------------------------------------------------ */

/* A file of /proc; its length, 0 when there is none. */
static size_t read_proc(pid_t pid, const char *name, char *text, size_t size)
{
    char path[64];
    ssize_t got;
    int fd;

    snprintf(path, sizeof(path), "/proc/%ld/%s", (long)pid, name);
    fd = open(path, O_RDONLY);
    if (fd < 0)
        return 0;
    got = read(fd, text, size - 1);
    close(fd);
    text[got > 0 ? got : 0] = '\0';
    return got > 0 ? (size_t)got : 0;
}

char live_state(pid_t pid)
{
    char text[512], *name;

    if (read_proc(pid, "stat", text, sizeof(text)) == 0 || (name = strrchr(text, ')')) == NULL)
        return 0;
    return name[2];
}

static bool alive(pid_t pid)
{
    char state = live_state(pid);

    return state != 0 && state != 'Z' && state != 'X';
}

bool live_find(const struct live *live, const char *role, int id, struct rundir_part *part)
{
    struct error err;

    return rundir_find(live->dir, role, id, part, &err) == TD_OK && alive(part->pid);
}

pid_t live_part(const struct live *live, const char *role, int id, pid_t other)
{
    uint64_t end = clock_ms() + LIVE_START_MS;
    struct rundir_part part;

    while (!live_find(live, role, id, &part) || part.pid == other) {
        if (clock_ms() >= end)
            live_fail(live, "%s: no %s-%d after %d ms", live->name, role, id, LIVE_START_MS);
        live_sleep(10);
    }
    return part.pid;
}

/* The answer of a stats socket, parsed; NULL when there is none in time. */
static cJSON *ask(const char *address)
{
    static void *context;
    int none = 0, wait = ASK_MS;
    char answer[65536];
    cJSON *json = NULL;
    void *socket;
    int length;

    if (context == NULL)
        context = zmq_ctx_new();
    socket = zmq_socket(context, ZMQ_REQ);
    assert_non_null(socket);
    zmq_setsockopt(socket, ZMQ_LINGER, &none, sizeof(none));
    zmq_setsockopt(socket, ZMQ_RCVTIMEO, &wait, sizeof(wait));
    if (zmq_connect(socket, address) == 0 && zmq_send(socket, "?", 1, ZMQ_DONTWAIT) == 1 &&
        (length = zmq_recv(socket, answer, sizeof(answer), 0)) > 0 && length <= (int)sizeof(answer))
        json = cJSON_ParseWithLength(answer, (size_t)length);
    zmq_close(socket);
    return json;
}

static cJSON *ask_part(const struct live *live, const char *role, int id, const char *metric, const cJSON **value)
{
    struct rundir_part part;
    cJSON *json;

    if (!live_find(live, role, id, &part) || part.stats[0] == '\0' || (json = ask(part.stats)) == NULL)
        return NULL;
    *value = cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(json, "metrics"), metric);
    return json;
}

double live_metric(const struct live *live, const char *role, int id, const char *metric)
{
    const cJSON *value = NULL;
    cJSON *json = ask_part(live, role, id, metric, &value);
    double number = cJSON_IsNumber(value) ? value->valuedouble : NAN;

    cJSON_Delete(json);
    return number;
}

bool live_text(const struct live *live, const char *role, int id, const char *metric, char *text, size_t size)
{
    const cJSON *value = NULL;
    cJSON *json = ask_part(live, role, id, metric, &value);
    bool there = cJSON_IsString(value);

    if (there)
        snprintf(text, size, "%s", value->valuestring);
    cJSON_Delete(json);
    return there;
}

double live_await(const struct live *live, const char *role, int id, const char *metric, double value, int ms)
{
    uint64_t end = clock_ms() + (uint64_t)ms;
    double now = NAN;

    do {
        now = live_metric(live, role, id, metric);
        if (now >= value)
            return now;
        live_sleep(20);
    } while (clock_ms() < end);
    live_fail(live, "%s: %s-%d has %s=%g after %d ms, expected %g", live->name, role, id, metric, now, ms,
              value);
    return now;
}

void live_rises(const struct live *live, const char *role, int id, const char *metric, double by, int ms)
{
    uint64_t end = clock_ms() + (uint64_t)ms;
    double first = NAN, now = NAN;

    while (!(now >= first + by)) {
        now = live_metric(live, role, id, metric);
        if (!(first <= now)) /* the first answer, or one of a part that went back */
            first = now;
        if (clock_ms() >= end)
            live_fail(live, "%s: %s of %s-%d stands at %g, was %g", live->name, metric, role, id, now, first);
        live_sleep(10);
    }
}

/* --- who is there ------------------------------------------------------------ */

/* Is `dir` the value of one of its words? */
static bool belongs(pid_t pid, const char *dir)
{
    static char words[16384];
    size_t length = read_proc(pid, "cmdline", words, sizeof(words)), size = strlen(dir);

    for (size_t at = 0; at < length; at += strlen(words + at) + 1) {
        const char *place = strstr(words + at, dir);

        if (place != NULL && (place[size] == '\0' || place[size] == '/'))
            return true;
    }
    return false;
}

static int processes(const struct live *live, char *names, size_t size)
{
    DIR *folder = opendir("/proc");
    struct dirent *entry;
    size_t used = 0;
    int count = 0;

    assert_non_null(folder);
    while ((entry = readdir(folder)) != NULL) {
        pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
        char name[64];

        if (pid <= 0 || pid == getpid() || !alive(pid) || !belongs(pid, live->dir))
            continue;
        count++;
        read_proc(pid, "comm", name, sizeof(name));
        name[strcspn(name, "\n")] = '\0';
        if (names != NULL && used < size)
            used += (size_t)snprintf(names + used, size - used, " %s(%ld,%c)", name, (long)pid, live_state(pid));
    }
    closedir(folder);
    return count;
}

int live_processes(const struct live *live)
{
    return processes(live, NULL, 0);
}

void live_no_orphans(const struct live *live, int ms)
{
    uint64_t end = clock_ms() + (uint64_t)ms;
    char names[1024] = "";

    while (processes(live, names, sizeof(names)) > 0) {
        if (clock_ms() >= end)
            live_fail(live, "%s: left behind:%s", live->name, names);
        live_sleep(10);
    }
}

/* Everything of a run goes with the test that made it. */
int live_cleanup(void **state)
{
    char pattern[300];
    struct live all = {.name = "all"};

    (void)state;
    for (int i = 0; i < CHILDREN_MAX; i++)
        if (children[i] != 0) {
            pid_t pid = children[i];

            kill(pid, SIGCONT);
            kill(pid, SIGKILL);
            waitpid(pid, NULL, 0);
            forget(pid);
        }
    snprintf(pattern, sizeof(pattern), "%s", test_folder());
    snprintf(all.dir, sizeof(all.dir), "%s", pattern);
    for (int round = 0; round < 500 && live_processes(&all) > 0; round++) {
        DIR *folder = opendir("/proc");
        struct dirent *entry;

        while (folder != NULL && (entry = readdir(folder)) != NULL) {
            pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);

            if (pid > 0 && pid != getpid() && alive(pid) && belongs(pid, all.dir)) {
                kill(pid, SIGCONT);
                kill(pid, SIGKILL);
            }
        }
        if (folder != NULL)
            closedir(folder);
        live_sleep(10);
    }
    return 0;
}
