#include "tools/hosts.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/util/clock.h"
#include "tools/options.h"

#define AT_ONCE      32
#define OUTPUT_LIMIT (4u << 20)
#define SAY_AFTER_MS 2000u

int hosts_word(struct host_job *job, const char *format, ...)
{
    char **grown = realloc(job->argv, ((size_t)job->argc + 2) * sizeof(*grown)), *word = NULL;
    va_list args;
    int length;

    if (grown == NULL)
        return TD_ENOMEM;
    job->argv = grown;
    va_start(args, format);
    length = vasprintf(&word, format, args);
    va_end(args);
    if (length < 0)
        return TD_ENOMEM;
    job->argv[job->argc++] = word;
    job->argv[job->argc] = NULL;
    return TD_OK;
}

char *hosts_quote(const char *text)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./=:@,+%";
    char *out, *to;

    if (text[0] != '\0' && strspn(text, plain) == strlen(text))
        return strdup(text);
    out = to = malloc(4 * strlen(text) + 3);
    if (out == NULL)
        return NULL;
    *to++ = '\'';
    for (; *text != '\0'; text++)
        to = *text == '\'' ? stpcpy(to, "'\\''") : (*to = *text, to + 1);
    strcpy(to, "'");
    return out;
}

/* The words as one line for the shell that ssh starts there. malloc'd. */
static char *quote_all(char *const *words)
{
    char *line = strdup("");

    for (; line != NULL && *words != NULL; words++) {
        char *quoted = hosts_quote(*words), *longer = NULL;
        int length = quoted != NULL ? asprintf(&longer, "%s%s%s", line, line[0] != '\0' ? " " : "", quoted) : -1;

        free(quoted);
        free(line);
        line = length < 0 ? NULL : longer;
    }
    return line;
}

char **hosts_command(const struct cluster *cluster, const struct host_job *job)
{
    static const char *const first[] = {"ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10"};
    char **argv, *line;
    int count = 0;

    if (job->host[0] == '\0') {
        argv = calloc((size_t)job->argc + 1, sizeof(*argv));
        for (int i = 0; argv != NULL && i < job->argc; i++)
            argv[i] = strdup(job->argv[i]);
        return argv;
    }
    argv = calloc(TD_LEN(first) + (size_t)cluster->ssh.count + 4, sizeof(*argv));
    line = quote_all(job->argv);
    if (argv == NULL || line == NULL) {
        free(argv);
        free(line);
        return NULL;
    }
    for (size_t i = 0; i < TD_LEN(first); i++)
        argv[count++] = strdup(first[i]);
    for (int i = 0; i < cluster->ssh.count; i++)
        argv[count++] = strdup(cluster->ssh.word[i]);
    argv[count++] = strdup(job->host);
    argv[count++] = strdup("--");
    argv[count] = line;
    return argv;
}

void hosts_print(const struct cluster *cluster, const struct host_job *job, FILE *out)
{
    char **argv = hosts_command(cluster, job), *line = argv != NULL ? quote_all(argv) : NULL;

    fprintf(out, "%s%s\n", line != NULL ? line : "", job->input != NULL ? " <..." : "");
    free(line);
    options_words_free(argv);
}

/* --- running ---------------------------------------------------------------- */

struct running {
    struct host_job *job; /* NULL: this place is free */
    pid_t pid;
    int in, out, errors;
    size_t sent;
};

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static bool start(struct running *running, const struct cluster *cluster, struct host_job *job)
{
    char **argv = hosts_command(cluster, job);
    int pipes[3][2];

    if (argv == NULL)
        return false;
    for (int i = 0; i < 3; i++)
        if (pipe2(pipes[i], O_CLOEXEC) != 0)
            return false;
    running->pid = fork();
    if (running->pid == 0) {
        signal(SIGPIPE, SIG_DFL);
        dup2(pipes[0][0], STDIN_FILENO);
        dup2(pipes[1][1], STDOUT_FILENO);
        dup2(pipes[2][1], STDERR_FILENO);
        execvp(argv[0], argv);
        fprintf(stderr, "cannot start %s: %s\n", argv[0], strerror(errno));
        _exit(127);
    }
    options_words_free(argv);
    close(pipes[0][0]);
    close(pipes[1][1]);
    close(pipes[2][1]);
    running->job = job;
    running->in = pipes[0][1];
    running->out = pipes[1][0];
    running->errors = pipes[2][0];
    running->sent = 0;
    job->output = calloc(1, 1);
    job->length = 0;
    job->code = -1;
    fcntl(running->in, F_SETFL, O_NONBLOCK);
    if (job->input_length == 0)
        close_fd(&running->in);
    return running->pid > 0 && job->output != NULL;
}

static void feed(struct running *running)
{
    const struct host_job *job = running->job;
    ssize_t written = write(running->in, (const char *)job->input + running->sent, job->input_length - running->sent);

    if (written > 0)
        running->sent += (size_t)written;
    if ((written < 0 && errno != EAGAIN && errno != EINTR) || running->sent == job->input_length)
        close_fd(&running->in);
}

static void take_output(struct running *running)
{
    struct host_job *job = running->job;
    char bytes[16384], *grown;
    ssize_t got = read(running->out, bytes, sizeof(bytes));

    if (got <= 0) {
        close_fd(&running->out);
        return;
    }
    if (job->length + (size_t)got > OUTPUT_LIMIT || (grown = realloc(job->output, job->length + (size_t)got + 1)) == NULL)
        return;
    job->output = grown;
    memcpy(job->output + job->length, bytes, (size_t)got);
    job->length += (size_t)got;
    job->output[job->length] = '\0';
}

/* The end of what it says is kept. */
static void take_errors(struct running *running)
{
    struct host_job *job = running->job;
    char bytes[sizeof(job->errors) / 2];
    ssize_t got = read(running->errors, bytes, sizeof(bytes));
    size_t have = strlen(job->errors), keep = sizeof(bytes) - 1;

    if (got <= 0) {
        close_fd(&running->errors);
        return;
    }
    if (have > keep) {
        memmove(job->errors, job->errors + have - keep, keep + 1);
        have = keep;
    }
    memcpy(job->errors + have, bytes, (size_t)got);
    job->errors[have + (size_t)got] = '\0';
}

static void finish(struct running *running)
{
    int status = 0;

    close_fd(&running->in);
    while (waitpid(running->pid, &status, 0) < 0 && errno == EINTR)
        ;
    running->job->code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    running->job = NULL;
}

/* Wait for something of those that run; returns how many have ended. */
static int turn(struct running *places)
{
    struct pollfd polled[AT_ONCE * 3];
    int ended = 0;

    for (int i = 0; i < AT_ONCE; i++) {
        const struct running *running = &places[i];
        bool used = running->job != NULL;

        polled[3 * i] = (struct pollfd){used ? running->in : -1, POLLOUT, 0};
        polled[3 * i + 1] = (struct pollfd){used ? running->out : -1, POLLIN, 0};
        polled[3 * i + 2] = (struct pollfd){used ? running->errors : -1, POLLIN, 0};
    }
    if (poll(polled, AT_ONCE * 3, 100) < 0)
        return 0;
    for (int i = 0; i < AT_ONCE; i++) {
        struct running *running = &places[i];

        if (running->job == NULL)
            continue;
        if (polled[3 * i].revents != 0)
            feed(running);
        if (polled[3 * i + 1].revents != 0)
            take_output(running);
        if (polled[3 * i + 2].revents != 0)
            take_errors(running);
        if (running->out < 0 && running->errors < 0) {
            finish(running);
            ended++;
        }
    }
    return ended;
}

static void kill_all(struct running *places)
{
    for (int i = 0; i < AT_ONCE; i++)
        if (places[i].job != NULL) {
            kill(places[i].pid, SIGKILL);
            close_fd(&places[i].out);
            close_fd(&places[i].errors);
            finish(&places[i]);
        }
}

int hosts_run(const struct cluster *cluster, struct host_job *jobs, int count, const char *doing, int timeout_ms,
              struct error *err)
{
    struct running places[AT_ONCE] = {{0}};
    uint64_t now = clock_ms(), end = now + (uint64_t)timeout_ms, say = now + SAY_AFTER_MS;
    int next = 0, done = 0;

    signal(SIGPIPE, SIG_IGN);
    while (done < count) {
        for (int i = 0; i < AT_ONCE && next < count; i++)
            if (places[i].job == NULL && !start(&places[i], cluster, &jobs[next++])) {
                kill_all(places);
                return error_set(err, TD_EIO, "%s: no more processes or memory", doing);
            }
        done += turn(places);
        now = clock_ms();
        if (now >= end) {
            kill_all(places);
            return error_set(err, TD_ETIMEOUT, "%s: %d of %d hosts have not answered within %d s", doing, count - done, count,
                             timeout_ms / 1000);
        }
        if (now >= say && done < count) {
            fprintf(stderr, count > 1 ? "%s: %d of %d hosts\n" : "%s ...\n", doing, done, count);
            say = now + SAY_AFTER_MS;
        }
    }
    return TD_OK;
}

/* The last line of what it said, without the name of the program before it. */
static const char *last_words(struct host_job *job)
{
    static const char *const names[] = {"tdmpc2 part: ", "tdmpc2 stop: "};
    char *line = job->errors, *at;
    size_t length = strlen(line);

    while (length > 0 && (line[length - 1] == '\n' || line[length - 1] == '\r'))
        line[--length] = '\0';
    if ((at = strrchr(line, '\n')) != NULL)
        line = at + 1;
    for (size_t i = 0; i < TD_LEN(names); i++)
        if (strncmp(line, names[i], strlen(names[i])) == 0)
            line += strlen(names[i]);
    return line[0] != '\0' ? line : "it says no more";
}

int hosts_must(const struct cluster *cluster, struct host_job *jobs, int count, const char *doing, int timeout_ms,
               struct error *err)
{
    int rc = hosts_run(cluster, jobs, count, doing, timeout_ms, err);

    for (int i = 0; rc == TD_OK && i < count; i++) {
        struct host_job *job = &jobs[i];
        bool remote = job->host[0] != '\0';

        if (job->code == 0)
            continue;
        if (remote && job->code == 255)
            rc = error_set(err, TD_EIO, "no way to %s by ssh: %s", job->host, last_words(job));
        else
            rc = error_set(err, job->code == TD_EXIT_BAD_INPUT ? TD_EINVAL : TD_EIO, "%s%s%s", remote ? job->host : "",
                           remote ? ": " : "", last_words(job));
    }
    return rc;
}

void hosts_release(struct host_job *jobs, int count)
{
    for (int i = 0; i < count; i++) {
        options_words_free(jobs[i].argv);
        free(jobs[i].output);
        memset(&jobs[i], 0, sizeof(jobs[i]));
    }
}
