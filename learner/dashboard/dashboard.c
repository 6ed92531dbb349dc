#include "learner/dashboard/dashboard.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/net/http.h"
#include "common/util/clock.h"
#include "common/util/fs.h"
#include "learner/dashboard/assets.h"
#include "learner/dashboard/tail.h"
#include "learner/dashboard/history.h"

#define POLICY    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; media-src 'self'; " \
                  "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
#define VIDEO_MAX (1u << 20) /* bytes of a video in one answer; who wants more asks for the next range */
#define PART_TEXT 384
#define EVENT_ROOM 64 /* for what stands around a state in an event */
#define EVENT_END "}\n\n"
#define STATE_MAX (METRICS_JSON_MAX + DASHBOARD_PARTS * PART_TEXT + 256)

struct dashboard {
    struct http_socket socket;
    char address[ADDRESS_MAX];
    char run_dir[FS_PATH_MAX], token_file[FS_PATH_MAX];
    const char *options;
    size_t options_length;
    uint64_t silent_ms; /* a part not heard of for longer is told as silent */
    http_t *http;
    char text[STATE_MAX + EVENT_ROOM]; /* the loop's: the event being written */
    /* the server's thread */
    struct tail eval, train;
    struct history copy;
    /* under the lock */
    pthread_mutex_t lock;
    char state[STATE_MAX];
    size_t length;
    uint64_t taken_ms;
    struct history history;
};

/* --- the server's thread --------------------------------------------------------- */

static void give(struct http_answer *out, const char *type, const char *bytes, size_t length)
{
    out->body = malloc(length + 1);
    if (out->body == NULL)
        return;
    memcpy(out->body, bytes, length);
    out->status = 200;
    out->type = type;
    out->length = length;
}

/* The newest snapshot; the next ones follow as they are made. `retry`: when to ask again after the end, in ms. */
static void answer_events(dashboard_t *dashboard, struct http_answer *out)
{
    out->status = 200;
    out->type = "text/event-stream";
    out->stream = true;
    out->body = malloc(STATE_MAX + EVENT_ROOM);
    if (out->body == NULL)
        return;
    pthread_mutex_lock(&dashboard->lock);
    out->length = (size_t)sprintf(out->body, "retry: 2000\ndata: {\"age_ms\":%llu,",
                                  (unsigned long long)(clock_ms() - dashboard->taken_ms));
    memcpy(out->body + out->length, dashboard->state, dashboard->length);
    out->length += dashboard->length;
    pthread_mutex_unlock(&dashboard->lock);
    memcpy(out->body + out->length, EVENT_END, strlen(EVENT_END));
    out->length += strlen(EVENT_END);
}

static void answer_history(dashboard_t *dashboard, struct http_answer *out)
{
    pthread_mutex_lock(&dashboard->lock); /* for as long as copying takes, not writing it out */
    dashboard->copy = dashboard->history;
    pthread_mutex_unlock(&dashboard->lock);
    out->status = 200;
    out->type = "application/json";
    out->body = history_json(&dashboard->copy, &out->length);
}

static void answer_curve(struct tail *tail, struct http_answer *out)
{
    if (tail_read(tail))
        give(out, "text/csv; charset=utf-8", tail->text, tail->used);
}

/* videos/eval-<step>.mp4 of the largest step; -1: none. */
static int open_newest_video(const dashboard_t *dashboard, struct stat *info)
{
    int folder, fd = -1, end;
    unsigned long long step, best = 0;
    char path[FS_PATH_MAX], name[48] = "";
    struct dirent *entry;
    DIR *dir;

    if (fs_join(path, dashboard->run_dir, "videos", NULL) != TD_OK || (dir = opendir(path)) == NULL)
        return -1;
    folder = dirfd(dir);
    while ((entry = readdir(dir)) != NULL) {
        end = 0;
        if (sscanf(entry->d_name, "eval-%19llu.mp4%n", &step, &end) != 1 || end == 0 || entry->d_name[end] != '\0' ||
            (name[0] != '\0' && step < best) || strlen(entry->d_name) >= sizeof(name))
            continue;
        best = step;
        strcpy(name, entry->d_name);
    }
    if (name[0] != '\0')
        fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    closedir(dir);
    if (fd >= 0 && (fstat(fd, info) != 0 || !S_ISREG(info->st_mode) || info->st_size == 0)) {
        close(fd);
        fd = -1;
    }
    return fd;
}

/* Digits alone; past the last of them in *text. One too large is as large as can be. */
static bool parse_count(const char **text, uint64_t *count)
{
    char *end;

    if (**text < '0' || **text > '9')
        return false;
    *count = strtoull(*text, &end, 10);
    *text = end;
    return true;
}

/* bytes=A-B, bytes=A-, bytes=-N of `size` bytes; no Range at all means all of it. False: none of them. */
static bool parse_range(const char *text, uint64_t size, uint64_t *first, uint64_t *last)
{
    uint64_t given;

    *first = 0;
    *last = size - 1;
    if (text == NULL)
        return true;
    if (strncmp(text, "bytes=", 6) != 0)
        return false;
    text += 6;
    if (*text == '-') {
        text++;
        if (!parse_count(&text, &given) || *text != '\0' || given == 0)
            return false;
        *first = given < size ? size - given : 0;
        return true;
    }
    if (!parse_count(&text, first) || *text++ != '-')
        return false;
    if (*text != '\0') {
        if (!parse_count(&text, &given) || *text != '\0')
            return false;
        *last = given < *last ? given : *last;
    }
    return *first <= *last;
}

static void answer_video(dashboard_t *dashboard, struct http_answer *out)
{
    uint64_t first, last, size;
    struct stat info;
    ssize_t got;
    int fd = open_newest_video(dashboard, &info);

    if (fd < 0)
        return;
    size = (uint64_t)info.st_size;
    if (!parse_range(out->range, size, &first, &last)) {
        give(out, "text/plain; charset=utf-8", "no such range\n", 14);
        out->status = 416;
        snprintf(out->content_range, sizeof(out->content_range), "bytes */%llu", (unsigned long long)size);
        close(fd);
        return;
    }
    if (last - first >= VIDEO_MAX)
        last = first + VIDEO_MAX - 1;
    out->body = malloc(last - first + 1);
    got = out->body == NULL ? -1 : pread(fd, out->body, last - first + 1, (off_t)first);
    close(fd);
    if (got <= 0) {
        free(out->body);
        out->body = NULL;
        return;
    }
    last = first + (uint64_t)got - 1;
    out->length = (size_t)got;
    out->type = "video/mp4";
    out->status = out->range == NULL && (uint64_t)got == size ? 200 : 206;
    if (out->status == 206)
        snprintf(out->content_range, sizeof(out->content_range), "bytes %llu-%llu/%llu", (unsigned long long)first,
                 (unsigned long long)last, (unsigned long long)size);
}

static void answer(void *context, const char *path, struct http_answer *out)
{
    dashboard_t *dashboard = context;
    const struct asset *asset = asset_find(path);

    out->policy = POLICY;
    if (asset != NULL)
        give(out, asset->type, asset->begin, (size_t)(asset->end - asset->begin));
    else if (strcmp(path, "/events") == 0)
        answer_events(dashboard, out);
    else if (strcmp(path, "/history.json") == 0)
        answer_history(dashboard, out);
    else if (strcmp(path, "/eval.csv") == 0)
        answer_curve(&dashboard->eval, out);
    else if (strcmp(path, "/train.csv") == 0)
        answer_curve(&dashboard->train, out);
    else if (strcmp(path, "/config.yaml") == 0)
        give(out, "text/plain; charset=utf-8", dashboard->options, dashboard->options_length);
    else if (strcmp(path, "/video.mp4") == 0)
        answer_video(dashboard, out);
}

/* --- the loop's -------------------------------------------------------------------- */

/* RUN/dashboard.token, kept from one life of the run to the next. */
static int make_token(dashboard_t *dashboard, struct error *err)
{
    unsigned char random[24];
    char line[2 * sizeof(random) + 2];
    int fd, rc = fs_join(dashboard->token_file, dashboard->run_dir, "dashboard.token", err);

    if (rc != TD_OK)
        return rc;
    fd = open(dashboard->token_file, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0 && errno == EEXIST)
        return TD_OK;
    if (fd < 0 || getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
        rc = error_set_errno(err, TD_EIO, errno, "cannot make the dashboard's token %s", dashboard->token_file);
    for (size_t i = 0; i < sizeof(random); i++)
        sprintf(line + 2 * i, "%02x", random[i]);
    strcat(line, "\n");
    if (rc == TD_OK && write(fd, line, strlen(line)) != (ssize_t)strlen(line))
        rc = error_set_errno(err, TD_EIO, errno, "cannot write the dashboard's token %s", dashboard->token_file);
    if (fd >= 0)
        close(fd);
    if (rc != TD_OK && fd >= 0)
        unlink(dashboard->token_file);
    return rc;
}

int dashboard_open(dashboard_t **out, const struct config *config, struct error *err)
{
    dashboard_t *dashboard;
    int rc;

    *out = NULL;
    if (config->dashboard[0] == '\0')
        return TD_OK;
    dashboard = calloc(1, sizeof(*dashboard));
    if (dashboard == NULL)
        return error_set(err, TD_ENOMEM, "out of memory");
    pthread_mutex_init(&dashboard->lock, NULL);
    dashboard->silent_ms = (uint64_t)(1500 * config->heartbeat);
    /* beyond loopback too: before anything is served there, dashboard_start has it ask for the token */
    if ((rc = http_listen(&dashboard->socket, config->dashboard, true, "", err)) != TD_OK) {
        dashboard_close(&dashboard);
        return rc;
    }
    dashboard->socket.browser = true;
    snprintf(dashboard->address, sizeof(dashboard->address), "%s", dashboard->socket.address);
    *out = dashboard;
    return TD_OK;
}

int dashboard_start(dashboard_t *dashboard, const char *run_dir, const char *options, size_t length, double repeat,
                    struct error *err)
{
    char eval[FS_PATH_MAX], train[FS_PATH_MAX];
    int rc;

    if (dashboard == NULL)
        return TD_OK;
    snprintf(dashboard->run_dir, sizeof(dashboard->run_dir), "%s", run_dir);
    if (!dashboard->socket.loopback && ((rc = make_token(dashboard, err)) != TD_OK ||
                                        (rc = http_ask_token(&dashboard->socket, dashboard->token_file, err)) != TD_OK))
        return rc;
    if ((rc = fs_join(eval, dashboard->run_dir, "eval.csv", err)) != TD_OK ||
        (rc = fs_join(train, dashboard->run_dir, "train.csv", err)) != TD_OK)
        return rc;
    dashboard->options = options;
    dashboard->options_length = length;
    dashboard->taken_ms = clock_ms();
    dashboard->length = (size_t)sprintf(dashboard->state, "\"run_s\":0,\"parts\":[],\"stats\":null");
    history_init(&dashboard->history);
    history_restore(&dashboard->history, train, repeat);
    tail_init(&dashboard->eval, eval);
    tail_init(&dashboard->train, train);
    if (!tail_read(&dashboard->eval) || !tail_read(&dashboard->train)) /* what is long is read before anybody asks */
        return error_set(err, TD_ENOMEM, "out of memory");
    return http_start(&dashboard->http, &dashboard->socket, answer, dashboard, err);
}

void dashboard_close(dashboard_t **out)
{
    dashboard_t *dashboard = *out;

    if (dashboard == NULL)
        return;
    http_stop(&dashboard->http);
    http_unlisten(&dashboard->socket);
    tail_release(&dashboard->eval);
    tail_release(&dashboard->train);
    pthread_mutex_destroy(&dashboard->lock);
    free(dashboard);
    *out = NULL;
}

static const char *health(const dashboard_t *dashboard, const struct coordinator_member *member, uint64_t silent)
{
    if (!member->live)
        return "gone";
    return silent > dashboard->silent_ms ? "silent" : "live";
}

static size_t write_part(const dashboard_t *dashboard, char *out, const struct coordinator_member *member, uint64_t now_ms)
{
    static const char *const roles[] = {[ROLE_ACTOR] = "actor", [ROLE_EVALUATOR] = "evaluator", [ROLE_SHARD] = "replay"};
    uint64_t silent = now_ms > member->heard_ms ? now_ms - member->heard_ms : 0;
    const char *role = member->role < TD_LEN(roles) && roles[member->role] != NULL ? roles[member->role] : "part";
    size_t used = (size_t)sprintf(out, "{\"role\":\"%s\",\"id\":%u,\"process\":\"%016llx\",\"health\":\"%s\","
                                       "\"silent_ms\":%llu,\"steps\":%llu,\"local\":%s", role,
                                  member->role == ROLE_SHARD ? member->shard : member->slot, (unsigned long long)member->process,
                                  health(dashboard, member, silent), (unsigned long long)silent,
                                  (unsigned long long)member->steps, member->local ? "true" : "false");

    if (member->role != ROLE_SHARD)
        used += (size_t)sprintf(out + used, ",\"version\":%llu,\"waiting\":\"%s\",\"joined_ms\":%llu",
                                (unsigned long long)member->version,
                                member->waiting == WAITING_NOTHING ? "" : waiting_name(member->waiting),
                                (unsigned long long)(now_ms > member->since_ms ? now_ms - member->since_ms : 0));
    return used + (size_t)sprintf(out + used, "},");
}

/* What follows "data: {" and age_ms. */
static size_t write_state(const dashboard_t *dashboard, char *text, metrics_t *metrics, const struct coordinator_member *members,
                          int count, uint64_t now_ms, double run_s)
{
    size_t used = (size_t)sprintf(text, "\"run_s\":%.2f,\"parts\":[", run_s);

    for (int i = 0; i < count && i < DASHBOARD_PARTS; i++)
        used += write_part(dashboard, text + used, &members[i], now_ms);
    used -= text[used - 1] == ',';
    used += (size_t)sprintf(text + used, "],\"others\":%d,\"stats\":", count > DASHBOARD_PARTS ? count - DASHBOARD_PARTS : 0);
    used += metrics_json(metrics, now_ms, text + used, METRICS_JSON_MAX);
    while (text[used - 1] == '\n')
        used--;
    return used;
}

void dashboard_update(dashboard_t *dashboard, metrics_t *metrics, const struct coordinator_member *members, int count,
                      uint64_t now_ms, double run_s)
{
    size_t head, length;
    char *text;

    if (dashboard == NULL)
        return;
    text = dashboard->text;
    head = (size_t)sprintf(text, "data: {\"age_ms\":0,");
    length = write_state(dashboard, text + head, metrics, members, count, now_ms, run_s);
    pthread_mutex_lock(&dashboard->lock); /* the other side copies under it, no more */
    memcpy(dashboard->state, text + head, length);
    dashboard->length = length;
    dashboard->taken_ms = clock_ms();
    history_add(&dashboard->history, metrics, now_ms, run_s);
    pthread_mutex_unlock(&dashboard->lock);
    memcpy(text + head + length, EVENT_END, strlen(EVENT_END));
    http_publish(dashboard->http, text, head + length + strlen(EVENT_END));
}

void dashboard_target(const dashboard_t *dashboard, const char *advertise, char out[ADDRESS_MAX])
{
    out[0] = '\0';
    if (dashboard != NULL)
        http_target(dashboard->address, advertise, out);
}

const char *dashboard_address(const dashboard_t *dashboard)
{
    return dashboard->address;
}

const char *dashboard_token_file(const dashboard_t *dashboard)
{
    return dashboard->token_file;
}
