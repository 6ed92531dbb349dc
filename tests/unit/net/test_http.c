/* The HTTP server of the daemons against good, slow and hostile clients. */
#include "tests/support/test.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/net/exporter.h"
#include "common/net/http.h"
#include "common/util/clock.h"
#include "common/util/fs.h"
#include "common/util/rng.h"

#define TOKEN "0123456789abcdef0123456789abcdef"
#define ALMOST "0123456789abcdef0123456789abcdee" /* as long, one letter wrong */
#define DEADLINE_MS 1000
#define SHORT_MS    300 /* of streams' readers */
#define BIG   (4u << 20)

static void answer(void *context, const char *path, struct http_answer *out)
{
    (void)context;
    if (strcmp(path, "/range") == 0 && out->range != NULL) {
        out->status = 206;
        out->type = "text/plain";
        out->body = strdup(out->range);
        out->length = strlen(out->range);
        strcpy(out->content_range, "bytes 0-1/9");
        out->policy = "default-src 'none'";
    }
    out->stream = strcmp(path, "/stream") == 0;
    if (strcmp(path, "/page") != 0 && strcmp(path, "/big") != 0 && !out->stream)
        return;
    out->status = 200;
    out->type = "text/plain";
    out->length = strcmp(path, "/big") == 0 ? BIG : 6;
    out->body = calloc(1, out->length);
    memcpy(out->body, "words\n", 6);
}

static http_t *serve_for(struct http_socket *socket, unsigned deadline_ms)
{
    struct http_socket copy;
    struct error err = {0};
    http_t *http;

    assert_ok(http_listen(socket, "0", false, "", &err), err);
    assert_true(strncmp(socket->address, "127.0.0.1:", 10) == 0 && atoi(socket->address + 10) > 0);
    socket->deadline_ms = deadline_ms;
    copy = *socket;
    assert_ok(http_start(&http, &copy, answer, NULL, &err), err);
    assert_int_equal(copy.fd, -1);
    return http;
}

static http_t *serve(struct http_socket *socket)
{
    return serve_for(socket, DEADLINE_MS);
}

static int dial(const char *address)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(strrchr(address, ':') + 1)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval patience = {.tv_sec = 20};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    return fd;
}

/* Everything that comes until the other side closes. */
static const char *hear(int fd)
{
    static char text[65536];
    size_t used = 0;
    ssize_t got;

    while (used < sizeof(text) - 1 && (got = read(fd, text + used, sizeof(text) - 1 - used)) > 0)
        used += (size_t)got;
    text[used] = '\0';
    close(fd);
    return text;
}

static const char *ask(const char *address, const char *request)
{
    int fd = dial(address);

    assert_int_equal(send(fd, request, strlen(request), MSG_NOSIGNAL), (ssize_t)strlen(request));
    return hear(fd);
}

static bool starts(const char *text, const char *with)
{
    if (strncmp(text, with, strlen(with)) == 0)
        return true;
    printf("  expected %s, got %.200s\n", with, text);
    return false;
}

/* A place may still be taken by one whose end the server has not seen yet. */
static bool served_again(const char *address)
{
    uint64_t end = clock_ms() + 5000;
    const char *text;

    do
        text = ask(address, "GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n");
    while (text[0] == '\0' && clock_ms() < end);
    return starts(text, "HTTP/1.1 200");
}

static void pages_are_told_and_nothing_else(void **state)
{
    struct http_socket socket;
    http_t *http = serve(&socket);
    const char *text;

    (void)state;
    text = ask(socket.address, "GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_true(starts(text, "HTTP/1.1 200"));
    assert_non_null(strstr(text, "\r\n\r\nwords\n"));
    assert_non_null(strstr(text, "Connection: close"));
    text = ask(socket.address, "HEAD /page HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_true(starts(text, "HTTP/1.1 200"));
    assert_null(strstr(text, "words"));
    assert_true(starts(ask(socket.address, "GET /other HTTP/1.1\r\nHost: localhost\r\n\r\n"), "HTTP/1.1 404"));
    assert_true(starts(ask(socket.address, "GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n"), "HTTP/1.1 404"));
    assert_true(starts(ask(socket.address, "POST /page HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\nx"), "HTTP/1.1 405"));
    assert_true(starts(ask(socket.address, "DELETE /page HTTP/1.1\r\nHost: localhost\r\n\r\n"), "HTTP/1.1 405"));
    http_stop(&http);
    assert_null(http);
}

/* A page of another site that has its name resolve to 127.0.0.1 must learn nothing. */
static void names_are_refused_on_loopback(void **state)
{
    struct http_socket socket;
    http_t *http = serve(&socket);

    (void)state;
    assert_true(starts(ask(socket.address, "GET /page HTTP/1.1\r\nHost: evil.example:80\r\n\r\n"), "HTTP/1.1 403"));
    assert_true(starts(ask(socket.address, "GET /page HTTP/1.1\r\nHost: 127.0.0.1.evil.example\r\n\r\n"), "HTTP/1.1 403"));
    assert_true(starts(ask(socket.address, "GET /page HTTP/1.1\r\nHost: 127.0.0.1:9\r\n\r\n"), "HTTP/1.1 200"));
    assert_true(starts(ask(socket.address, "GET /page HTTP/1.1\r\nHost: [::1]:9\r\n\r\n"), "HTTP/1.1 200"));
    http_stop(&http);
}

static void write_token(char path[FS_PATH_MAX], const char *name, const char *text, mode_t mode)
{
    FILE *out;

    snprintf(path, FS_PATH_MAX, "%s/%s", test_folder(), name);
    out = fopen(path, "w");
    assert_non_null(out);
    fputs(text, out);
    fclose(out);
    assert_int_equal(chmod(path, mode), 0);
}

static void a_token_is_asked_for(void **state)
{
    struct http_socket socket, copy;
    char path[FS_PATH_MAX];
    struct error err = {0};
    http_t *http;

    (void)state;
    write_token(path, "token", TOKEN "\n", 0600);
    assert_ok(http_listen(&socket, "0", false, path, &err), err);
    copy = socket;
    assert_ok(http_start(&http, &copy, answer, NULL, &err), err);
    assert_int_equal(copy.fd, -1);
    assert_true(starts(ask(socket.address, "GET /page HTTP/1.1\r\nHost: h\r\n\r\n"), "HTTP/1.1 401"));
    assert_true(starts(ask(socket.address, "GET /page HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer " TOKEN "0\r\n\r\n"), "HTTP/1.1 401"));
    assert_true(starts(ask(socket.address, "GET /page HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer \r\n\r\n"), "HTTP/1.1 401"));
    assert_true(starts(ask(socket.address, "GET /page HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer " ALMOST "\r\n\r\n"), "HTTP/1.1 401"));
    assert_true(starts(ask(socket.address, "GET /nothing HTTP/1.1\r\nHost: h\r\n\r\n"), "HTTP/1.1 401"));
    assert_true(starts(ask(socket.address, "GET /page HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer " TOKEN "\r\n\r\n"), "HTTP/1.1 200"));
    http_stop(&http);
}

/* A browser is given a cookie for the token in the address, once, and is sent on without it. */
static void a_browser_shows_its_token_once(void **state)
{
    struct http_socket socket, copy;
    char path[FS_PATH_MAX], request[512], cookie[128];
    struct error err = {0};
    const char *text, *from;
    http_t *http;

    (void)state;
    write_token(path, "browser", TOKEN "\n", 0600);
    assert_ok(http_listen(&socket, "0", false, path, &err), err);
    copy = socket;
    assert_ok(http_start(&http, &copy, answer, NULL, &err), err); /* not for browsers */
    assert_true(starts(ask(socket.address, "GET /page?token=" TOKEN " HTTP/1.1\r\nHost: h\r\n\r\n"), "HTTP/1.1 401"));
    http_stop(&http);

    assert_ok(http_listen(&socket, "0", false, path, &err), err);
    socket.browser = true;
    copy = socket;
    assert_ok(http_start(&http, &copy, answer, NULL, &err), err);
    assert_true(starts(ask(socket.address, "GET /page?token=" TOKEN "0 HTTP/1.1\r\nHost: h\r\n\r\n"), "HTTP/1.1 401"));
    assert_true(starts(ask(socket.address, "GET /page?token=" ALMOST " HTTP/1.1\r\nHost: h\r\n\r\n"), "HTTP/1.1 401"));
    assert_true(starts(ask(socket.address, "GET /page?token= HTTP/1.1\r\nHost: h\r\n\r\n"), "HTTP/1.1 401"));
    assert_true(starts(ask(socket.address, "GET /page?token HTTP/1.1\r\nHost: h\r\n\r\n"), "HTTP/1.1 401"));
    text = ask(socket.address, "GET /page?token=" TOKEN " HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_true(starts(text, "HTTP/1.1 303"));
    assert_non_null(strstr(text, "\r\nLocation: /\r\n"));
    assert_non_null(strstr(text, "; HttpOnly; SameSite=Lax\r\n"));
    assert_non_null(from = strstr(text, "Set-Cookie: tdmpc2-"));
    snprintf(cookie, sizeof(cookie), "%.*s", (int)strcspn(from + 12, ";"), from + 12);
    snprintf(request, sizeof(request), "GET /page HTTP/1.1\r\nHost: h\r\nCookie: other=1; %s\r\n\r\n", cookie);
    assert_true(starts(ask(socket.address, request), "HTTP/1.1 200"));
    snprintf(request, sizeof(request), "GET /page HTTP/1.1\r\nHost: h\r\nCookie: %s0\r\n\r\n", cookie);
    assert_true(starts(ask(socket.address, request), "HTTP/1.1 401"));
    http_stop(&http);
}

static void ranges_and_policies_are_passed_on(void **state)
{
    struct http_socket socket;
    http_t *http = serve(&socket);
    const char *text = ask(socket.address, "GET /range HTTP/1.1\r\nHost: localhost\r\nRange: bytes=0-1\r\n\r\n");

    (void)state;
    assert_true(starts(text, "HTTP/1.1 206"));
    assert_non_null(strstr(text, "\r\n\r\nbytes=0-1"));
    assert_non_null(strstr(text, "\r\nContent-Range: bytes 0-1/9\r\n"));
    assert_non_null(strstr(text, "\r\nContent-Security-Policy: default-src 'none'\r\n"));
    assert_non_null(strstr(text, "\r\nCross-Origin-Resource-Policy: same-origin\r\n"));
    http_stop(&http);
}

static int count_fds(void)
{
    int count = 0;

    for (int fd = 0; fd < 1024; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

/* --- streams --------------------------------------------------------------------- */

static const char ask_stream[] = "GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n";

static int open_stream(const char *address)
{
    int fd = dial(address);

    assert_int_equal(send(fd, ask_stream, sizeof(ask_stream) - 1, MSG_NOSIGNAL), sizeof(ask_stream) - 1);
    return fd;
}

/* What comes, until it holds `words`, the other side closes, or a while has passed. */
static bool comes(int fd, const char *words)
{
    static char text[65536];
    size_t used = 0;
    uint64_t end = clock_ms() + 3000;
    struct pollfd poller = {.fd = fd, .events = POLLIN};
    ssize_t got;

    text[0] = '\0';
    while (strstr(text, words) == NULL && clock_ms() < end && used < sizeof(text) - 1) {
        if (poll(&poller, 1, 100) <= 0)
            continue;
        if ((got = read(fd, text + used, sizeof(text) - 1 - used)) <= 0)
            break;
        used += (size_t)got;
        text[used] = '\0';
    }
    return strstr(text, words) != NULL;
}

static void await_streams(http_t *http, int count)
{
    uint64_t end = clock_ms() + 5000;

    while (http_streams(http) != count && clock_ms() < end)
        usleep(2000);
    assert_int_equal(http_streams(http), count);
}

static void a_stream_is_told_what_is_published(void **state)
{
    struct http_socket socket;
    http_t *http = serve_for(&socket, SHORT_MS);
    int first, second;

    (void)state;
    http_publish(http, "lost", 4); /* nobody is there */
    first = open_stream(socket.address);
    second = open_stream(socket.address);
    assert_true(comes(first, "words\n"));
    assert_true(comes(second, "words\n"));
    await_streams(http, 2);
    http_publish(http, "news one\n", 9);
    assert_true(comes(first, "news one\n"));
    assert_true(comes(second, "news one\n"));
    usleep((SHORT_MS + 700) * 1000); /* it outlives the deadline of a connection */
    http_publish(http, "news two\n", 9);
    assert_true(comes(first, "news two\n"));
    close(second);
    for (int i = 0; i < 20 && http_streams(http) > 1; i++) {
        http_publish(http, "more\n", 5);
        usleep(50000);
    }
    await_streams(http, 1);
    http_stop(&http); /* while one waits */
    close(first);
}

/* Who finds no place gets the beginning and an end; the rest is served as ever. */
static void streams_are_bounded(void **state)
{
    struct http_socket socket;
    http_t *http = serve(&socket);
    int fds[HTTP_STREAMS_EACH];
    const char *text;

    (void)state;
    for (int i = 0; i < HTTP_STREAMS_EACH; i++) {
        fds[i] = open_stream(socket.address);
        assert_true(comes(fds[i], "words\n"));
    }
    await_streams(http, HTTP_STREAMS_EACH);
    text = ask(socket.address, ask_stream); /* ends */
    assert_true(starts(text, "HTTP/1.1 200"));
    assert_non_null(strstr(text, "words\n"));
    assert_int_equal(http_streams(http), HTTP_STREAMS_EACH);
    assert_true(starts(ask(socket.address, "HEAD /stream HTTP/1.1\r\nHost: localhost\r\n\r\n"), "HTTP/1.1 200"));
    assert_true(starts(ask(socket.address, "GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n"), "HTTP/1.1 200"));
    for (int i = 0; i < HTTP_STREAMS_EACH; i++)
        close(fds[i]);
    for (int i = 0; i < 40 && http_streams(http) > 0; i++) {
        http_publish(http, "x", 1);
        usleep(20000);
    }
    await_streams(http, 0);
    http_stop(&http);
}

/* One that reads a little now and then, never all, is cut by the deadline; meanwhile no more than the newest is kept for it. */
static void a_dripping_stream_is_cut(void **state)
{
    struct http_socket socket;
    http_t *http = serve_for(&socket, SHORT_MS);
    int deaf = dial(socket.address), small = 4096;
    char *much = calloc(1, BIG);
    uint64_t start, took;

    (void)state;
    setsockopt(deaf, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    assert_true(send(deaf, ask_stream, sizeof(ask_stream) - 1, MSG_NOSIGNAL) > 0);
    await_streams(http, 1);
    start = clock_ms();
    while (http_streams(http) > 0 && clock_ms() - start < 5000) {
        char some[2048];

        http_publish(http, much, BIG);
        if (recv(deaf, some, sizeof(some), MSG_DONTWAIT) < 0)
            usleep(1000);
        usleep(20000);
    }
    took = clock_ms() - start;
    assert_int_equal(http_streams(http), 0);
    assert_true(took >= SHORT_MS / 2 && took < 4000);
    free(much);
    close(deaf);
    http_stop(&http);
}

static void a_stream_ends_in_its_time(void **state)
{
    struct http_socket socket, copy;
    struct error err = {0};
    http_t *http;
    int fd;

    (void)state;
    assert_ok(http_listen(&socket, "0", false, "", &err), err);
    socket.stream_ms = 300;
    copy = socket;
    assert_ok(http_start(&http, &copy, answer, NULL, &err), err);
    fd = open_stream(socket.address);
    assert_non_null(strstr(hear(fd), "words\n")); /* comes to an end though nothing is published */
    assert_int_equal(http_streams(http), 0);
    http_stop(&http);
}

static void refused(const char *address, bool insecure, const char *token, const char *words)
{
    struct http_socket socket;
    struct error err = {0};

    assert_true(http_listen(&socket, address, insecure, token, &err) != TD_OK);
    if (strstr(err.text, words) == NULL)
        fail_msg("%s: \"%s\" does not say \"%s\"", address, err.text, words);
    assert_int_equal(socket.fd, -1);
}

static void secure_by_default(void **state)
{
    struct http_socket socket, second;
    char path[FS_PATH_MAX], port[16];
    struct error err = {0};

    (void)state;
    refused("0.0.0.0:0", false, "", "metrics_token");
    refused("*:0", false, "", "metrics_token");
    refused("[::]:0", false, "", "metrics_token");
    refused("nonsense", false, "", "HOST:PORT");
    refused("127.0.0.1:70000", false, "", "HOST:PORT");
    refused("", false, "", "HOST:PORT");
    refused("0", false, "/nowhere/token", "/nowhere/token");
    write_token(path, "open", TOKEN, 0644);
    refused("0.0.0.0:0", false, path, "chmod 600");
    write_token(path, "short", "secret", 0600);
    refused("0.0.0.0:0", false, path, "openssl");
    write_token(path, "good", TOKEN, 0600);
    assert_ok(http_listen(&socket, "0.0.0.0:0", false, path, &err), err);
    http_unlisten(&socket);
    assert_ok(http_listen(&socket, "0.0.0.0:0", true, "", &err), err);
    snprintf(port, sizeof(port), "%s", strrchr(socket.address, ':') + 1);
    assert_int_equal(http_listen(&second, port, false, "", &err), TD_EINVAL); /* taken */
    assert_non_null(strstr(err.text, port));
    http_unlisten(&socket);
    http_unlisten(&socket);
}

/*
 * All at once: more idle connections than there are places, one that never ends its head, one that drips, one
 * that asks for much and reads nothing. They are gone by the deadline, others are served again, nothing leaks.
 */
static void slow_clients_are_cut(void **state)
{
    int idle[HTTP_CONNECTIONS * 2], before = count_fds(), dripping, deaf, small = 4096;
    struct http_socket socket;
    http_t *http = serve(&socket);
    uint64_t start = clock_ms(), took;
    bool cut = false;

    (void)state;
    dripping = dial(socket.address);
    deaf = dial(socket.address);
    setsockopt(deaf, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    assert_true(send(deaf, "GET /big HTTP/1.1\r\nHost: localhost\r\n\r\n", 38, MSG_NOSIGNAL) > 0);
    for (size_t i = 0; i < TD_LEN(idle); i++)
        idle[i] = dial(socket.address);
    while (!cut && clock_ms() - start < 20 * DEADLINE_MS) {
        struct pollfd fd = {.fd = dripping, .events = POLLIN};

        cut = send(dripping, "X", 1, MSG_NOSIGNAL) < 0 || (poll(&fd, 1, 200) > 0 && read(dripping, &(char){0}, 1) <= 0);
    }
    took = clock_ms() - start;
    assert_true(cut);
    assert_true(took >= DEADLINE_MS - 100 && took < DEADLINE_MS + 3000);
    for (size_t i = 0; i < TD_LEN(idle); i++)
        close(idle[i]);
    close(dripping);
    assert_true(served_again(socket.address));
    close(deaf);
    http_stop(&http);
    assert_int_equal(count_fds(), before);
}

/* Heads of a megabyte, bytes of any kind: an answer or a closed line, and the next one is served. */
static void nonsense_is_survived(void **state)
{
    static char junk[1 << 20];
    struct http_socket socket;
    http_t *http = serve(&socket);

    (void)state;
    for (int round = 0; round < 60; round++) {
        size_t length = round < 4 ? sizeof(junk) : (size_t)rng_below(test_rng(), 600) + 1;
        int fd = dial(socket.address);

        for (size_t i = 0; i < length; i++)
            junk[i] = round == 0 ? 'a' : (char)rng_below(test_rng(), 256);
        if (round % 3 == 1)
            memcpy(junk, "GET /page HTTP/1.1\r\n", 20 < length ? 20 : length);
        fcntl(fd, F_SETFL, O_NONBLOCK);
        send(fd, junk, length, MSG_NOSIGNAL);
        close(fd);
    }
    assert_true(served_again(socket.address));
    http_stop(&http);
}

/* More questions than are answered in a second wait for the next; the processor is not eaten up. */
static void questions_are_bounded_in_rate(void **state)
{
    struct http_socket socket;
    http_t *http = serve(&socket);
    uint64_t start = clock_ms();
    int asked = 0;

    (void)state;
    while (clock_ms() - start < 1200) {
        assert_true(starts(ask(socket.address, "GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n"), "HTTP/1.1 200"));
        asked++;
    }
    assert_true(asked <= 3 * HTTP_RATE); /* two windows begun, and one of the clock's */
    http_stop(&http);
}

/* --- what a daemon shows ------------------------------------------------------- */

static void a_snapshot_is_shown_and_its_age(void **state)
{
    struct metrics_owner owner = {"learner", METRIC_LEARNER, 0, 1, 2};
    struct config config;
    exporter_t *exporter;
    metrics_t *metrics;
    struct error err = {0};
    char address[ADDRESS_MAX], child[ADDRESS_MAX];
    const char *text;

    (void)state;
    config_init(&config);
    assert_ok(exporter_open(&exporter, &config, &err), err);
    assert_null(exporter); /* off by default; everything else takes NULL */
    assert_ok(exporter_start(exporter, &err), err);
    exporter_update(exporter, NULL, 0);
    assert_string_equal(exporter_address(exporter), "");
    exporter_close(&exporter);

    strcpy(config.metrics, "127.0.0.1:0");
    assert_int_equal(metrics_create(&metrics, &owner), TD_OK);
    assert_ok(exporter_open(&exporter, &config, &err), err);
    exporter_target(exporter, "", address);
    assert_string_equal(address, exporter_address(exporter));
    assert_ok(exporter_start(exporter, &err), err);
    assert_true(starts(ask(address, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"), "HTTP/1.1 503"));
    assert_true(starts(ask(address, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"), "HTTP/1.1 503"));
    metrics_add(metrics, METRIC_updates, 41);
    exporter_update(exporter, metrics, clock_ms());
    metrics_add(metrics, METRIC_updates, 1000); /* after the snapshot */
    assert_true(starts(ask(address, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"), "HTTP/1.1 200"));
    text = ask(address, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_true(starts(text, "HTTP/1.1 200"));
    assert_non_null(strstr(text, "Content-Type: text/plain; version=0.0.4"));
    assert_non_null(strstr(text, "\ntdmpc2_updates_total{role=\"learner\"} 41\n"));
    assert_non_null(strstr(text, "\ntdmpc2_snapshot_age_seconds 0."));
    exporter_close(&exporter);
    metrics_destroy(&metrics);

    exporter_for_child("127.0.0.1:9100", child);
    assert_string_equal(child, "127.0.0.1:0");
    exporter_for_child("[::1]:9100", child);
    assert_string_equal(child, "[::1]:0");
    exporter_for_child("9100", child);
    assert_string_equal(child, "0");
    exporter_for_child("", child);
    assert_string_equal(child, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_are_told_and_nothing_else),
        cmocka_unit_test(names_are_refused_on_loopback),
        cmocka_unit_test(a_token_is_asked_for),
        cmocka_unit_test(a_browser_shows_its_token_once),
        cmocka_unit_test(ranges_and_policies_are_passed_on),
        cmocka_unit_test(secure_by_default),
        cmocka_unit_test(a_stream_is_told_what_is_published),
        cmocka_unit_test(streams_are_bounded),
        cmocka_unit_test(a_dripping_stream_is_cut),
        cmocka_unit_test(a_stream_ends_in_its_time),
        cmocka_unit_test(slow_clients_are_cut),
        cmocka_unit_test(nonsense_is_survived),
        cmocka_unit_test(questions_are_bounded_in_rate),
        cmocka_unit_test(a_snapshot_is_shown_and_its_age),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
