#include "common/net/http_private.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/util/clock.h"
#include "common/util/fs.h"

#define BACKLOG   64
#define TOKEN_MIN 16
#define SWEEP_MS  500
#define BEARER    "Bearer "

/* --- listening ------------------------------------------------------------- */

/* tcp://HOST:PORT for the checks of address.h, "*" for port 0. */
static int to_tcp(char out[ADDRESS_MAX], const char *address, struct error *err)
{
    bool bare = address[0] != '\0' && strspn(address, "0123456789") == strlen(address);
    const char *colon = strrchr(address, ':');
    int length;

    if (bare)
        length = snprintf(out, ADDRESS_MAX, "tcp://127.0.0.1:%s", strcmp(address, "0") == 0 ? "*" : address);
    else if (colon != NULL && strcmp(colon, ":0") == 0)
        length = snprintf(out, ADDRESS_MAX, "tcp://%.*s:*", (int)(colon - address), address);
    else
        length = snprintf(out, ADDRESS_MAX, "tcp://%s", address);
    if (length >= ADDRESS_MAX || address_check(out, true, NULL) != TD_OK)
        return error_set(err, TD_EINVAL, "bad address \"%.100s\" to listen on: expected HOST:PORT, as in 127.0.0.1:9100, or "
                                         "a port alone", address);
    return TD_OK;
}

static int read_token(char token[HTTP_TOKEN_MAX], const char *path, struct error *err)
{
    struct stat info;
    size_t length;
    char *text;
    int rc;

    if (stat(path, &info) != 0)
        return error_set_errno(err, TD_ENOTFOUND, errno, "token file %s", path);
    if (!S_ISREG(info.st_mode) || (info.st_mode & 077) != 0)
        return error_set(err, TD_EINVAL, "token file %s may be read by others: chmod 600 %s", path, path);
    if ((rc = fs_read_file(path, 4096, &text, &length, err)) != TD_OK)
        return rc;
    text[strcspn(text, "\r\n")] = '\0';
    length = strlen(text);
    if (length < TOKEN_MIN || length >= HTTP_TOKEN_MAX || strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                                                       "0123456789-._~+/=") != length)
        rc = error_set(err, TD_EINVAL, "token file %s: its first line must be a token of %d to %d letters, digits and -._~+/=; "
                                       "`openssl rand -hex 24` makes one", path, TOKEN_MIN, HTTP_TOKEN_MAX - 1);
    else
        memcpy(token, text, length + 1);
    OPENSSL_cleanse(text, length);
    free(text);
    return rc;
}

/* host and port of tcp://HOST:PORT, the host without brackets; "" for all. */
static void split(const char *tcp, char host[ADDRESS_MAX], char port[8])
{
    const char *from = tcp + strlen("tcp://"), *colon = strrchr(from, ':');
    size_t length = (size_t)(colon - from);

    snprintf(port, 8, "%s", strcmp(colon + 1, "*") == 0 ? "0" : colon + 1);
    if (from[0] == '[') {
        from++;
        length -= 2;
    }
    snprintf(host, ADDRESS_MAX, "%.*s", (int)length, from);
    if (strcmp(host, "*") == 0)
        host[0] = '\0';
}

static void tell_bound(struct http_socket *out, const char *tcp)
{
    struct sockaddr_storage bound;
    socklen_t size = sizeof(bound);
    char port[8] = "0", full[ADDRESS_MAX];

    if (getsockname(out->fd, (struct sockaddr *)&bound, &size) == 0)
        snprintf(port, sizeof(port), "%u", (unsigned)ntohs(bound.ss_family == AF_INET6
                     ? ((struct sockaddr_in6 *)&bound)->sin6_port : ((struct sockaddr_in *)&bound)->sin_port));
    if (address_with_port(full, tcp, port, NULL) == TD_OK)
        snprintf(out->address, sizeof(out->address), "%s", full + strlen("tcp://"));
}

static int bind_one(const struct addrinfo *info)
{
    int on = 1, fd = socket(info->ai_family, info->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, info->ai_protocol), error;

    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, info->ai_addr, info->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    error = errno;
    close(fd);
    errno = error;
    return -1;
}

int http_listen(struct http_socket *out, const char *address, bool insecure, const char *token_file,
                struct error *err)
{
    const struct addrinfo hints = {.ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM};
    char tcp[ADDRESS_MAX], host[ADDRESS_MAX], port[8];
    struct addrinfo *found = NULL;
    int rc;

    *out = (struct http_socket){.fd = -1, .deadline_ms = HTTP_DEADLINE_MS, .stream_ms = HTTP_STREAM_MS};
    if ((rc = to_tcp(tcp, address, err)) != TD_OK || (token_file[0] != '\0' && (rc = read_token(out->token, token_file, err)) != TD_OK))
        return rc;
    out->loopback = address_is_local(tcp);
    if (!out->loopback && !insecure && out->token[0] == '\0')
        return error_set(err, TD_EINVAL, "%s is not this machine's loopback and whoever reaches it could read there: ask for a "
                                         "token (metrics_token=FILE), or on a network where you trust every host give "
                                         "insecure=true", address);
    split(tcp, host, port);
    if (strcmp(host, "localhost") == 0)
        strcpy(host, "127.0.0.1"); /* so that no resolver can say otherwise */
    if ((rc = getaddrinfo(host[0] != '\0' ? host : NULL, port, &hints, &found)) != 0)
        return error_set(err, TD_EINVAL, "cannot listen on %s: %s", address, gai_strerror(rc));
    out->fd = bind_one(found);
    freeaddrinfo(found);
    if (out->fd < 0)
        return error_set_errno(err, TD_EINVAL, errno, "cannot listen on %s", address);
    tell_bound(out, tcp);
    return TD_OK;
}

int http_ask_token(struct http_socket *socket, const char *token_file, struct error *err)
{
    return read_token(socket->token, token_file, err);
}

void http_unlisten(struct http_socket *socket)
{
    if (socket->fd >= 0)
        close(socket->fd);
    OPENSSL_cleanse(socket->token, sizeof(socket->token));
    *socket = (struct http_socket){.fd = -1};
}

void http_target(const char *address, const char *advertise, char out[ADDRESS_MAX])
{
    char tcp[ADDRESS_MAX + 8], told[ADDRESS_MAX], name[128] = "localhost";

    snprintf(tcp, sizeof(tcp), "tcp://%s", address);
    if (advertise[0] == '\0' && address_is_wildcard(tcp) && gethostname(name, sizeof(name) - 1) == 0)
        advertise = name;
    if (advertise[0] != '\0' && !address_is_local(tcp) && address_with_host(told, tcp, advertise, NULL) == TD_OK)
        snprintf(out, ADDRESS_MAX, "%s", told + strlen("tcp://"));
    else
        snprintf(out, ADDRESS_MAX, "%s", address);
}

/* --- answers ----------------------------------------------------------------- */

/* Sends it with its headers; takes the response. */
static enum MHD_Result queue(struct MHD_Connection *connection, struct MHD_Response *response, const struct http_answer *answer)
{
    int status = answer->status;
    enum MHD_Result result;

    MHD_add_response_header(response, "Content-Type", answer->type);
    if (answer->policy != NULL) {
        MHD_add_response_header(response, "Content-Security-Policy", answer->policy);
        MHD_add_response_header(response, "Cross-Origin-Resource-Policy", "same-origin");
        MHD_add_response_header(response, "Referrer-Policy", "no-referrer");
    }
    if (answer->content_range[0] != '\0')
        MHD_add_response_header(response, "Content-Range", answer->content_range);
    MHD_add_response_header(response, "Cache-Control", "no-store");
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    MHD_add_response_header(response, "Connection", "close");
    if (status == MHD_HTTP_UNAUTHORIZED)
        MHD_add_response_header(response, "WWW-Authenticate", "Bearer");
    if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
        MHD_add_response_header(response, "Allow", "GET, HEAD");
    result = MHD_queue_response(connection, (unsigned)status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result reply(struct MHD_Connection *connection, const struct http_answer *answer)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(answer->length, answer->body, MHD_RESPMEM_MUST_FREE);

    if (response != NULL)
        return queue(connection, response, answer);
    free(answer->body);
    return MHD_NO;
}

static enum MHD_Result reply_text(struct MHD_Connection *connection, int status, const char *text)
{
    struct http_answer answer = {.status = status, .type = "text/plain; charset=utf-8", .body = strdup(text), .length = strlen(text)};

    return answer.body == NULL ? MHD_NO : reply(connection, &answer);
}

/* In time that does not depend on how much of the token is right. */
static bool token_is(const struct http *http, const char *shown)
{
    size_t length = strlen(http->socket.token);

    return shown != NULL && strlen(shown) == length && CRYPTO_memcmp(shown, http->socket.token, length) == 0;
}

static bool token_shown(const struct http *http, struct MHD_Connection *connection)
{
    const char *shown = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Authorization");

    if (shown != NULL && strncasecmp(shown, BEARER, strlen(BEARER)) == 0 && token_is(http, shown + strlen(BEARER)))
        return true;
    return http->socket.browser && token_is(http, MHD_lookup_connection_value(connection, MHD_COOKIE_KIND, http->cookie));
}

/* The token came in the address: take it out of there, out of the history, into a cookie no script can read. */
static enum MHD_Result give_cookie(const struct http *http, struct MHD_Connection *connection)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
    char cookie[HTTP_TOKEN_MAX + 64];
    enum MHD_Result result;

    if (response == NULL)
        return MHD_NO;
    /* Lax, that a link in a message may lead here: nothing here is changed by a request */
    snprintf(cookie, sizeof(cookie), "%s=%s; Path=/; HttpOnly; SameSite=Lax", http->cookie, http->socket.token);
    MHD_add_response_header(response, "Set-Cookie", cookie);
    OPENSSL_cleanse(cookie, sizeof(cookie));
    MHD_add_response_header(response, "Location", "/");
    MHD_add_response_header(response, "Cache-Control", "no-store");
    MHD_add_response_header(response, "Referrer-Policy", "no-referrer");
    MHD_add_response_header(response, "Connection", "close");
    result = MHD_queue_response(connection, MHD_HTTP_SEE_OTHER, response);
    MHD_destroy_response(response);
    return result;
}

/* --- what is asked ------------------------------------------------------------- */

/* A number or localhost, with or without a port; requests of HTTP/1.0 may name none. */
static bool host_is_plain(struct MHD_Connection *connection)
{
    const char *given = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Host");
    char host[64];
    struct in_addr four;
    size_t length;

    if (given == NULL || given[0] == '[')
        return true; /* brackets hold nothing but numbers */
    length = strcspn(given, ":");
    if (length >= sizeof(host))
        return false;
    memcpy(host, given, length);
    host[length] = '\0';
    return strcasecmp(host, "localhost") == 0 || inet_pton(AF_INET, host, &four) == 1;
}

static enum MHD_Result on_request(void *context, struct MHD_Connection *connection, const char *path, const char *method,
                                  const char *version, const char *body, size_t *body_size, void **state)
{
    struct http *http = context;
    struct http_answer answer = {0};
    struct MHD_Response *response;

    (void)version;
    (void)body;
    (void)body_size;
    (void)state;
    http->answered++;
    if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0)
        return reply_text(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "GET and HEAD alone\n");
    if (http->socket.browser && http->socket.token[0] != '\0' &&
        token_is(http, MHD_lookup_connection_value(connection, MHD_GET_ARGUMENT_KIND, "token")))
        return give_cookie(http, connection);
    if (http->socket.token[0] != '\0' && !token_shown(http, connection))
        return reply_text(connection, MHD_HTTP_UNAUTHORIZED, "this address asks for its token: Authorization: Bearer TOKEN\n");
    if (http->socket.token[0] == '\0' && http->socket.loopback && !host_is_plain(connection))
        return reply_text(connection, MHD_HTTP_FORBIDDEN, "ask for 127.0.0.1 or localhost, not for a name\n");
    answer.range = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Range");
    http->answer(http->context, path, &answer);
    if (answer.status == 0)
        return reply_text(connection, MHD_HTTP_NOT_FOUND, "no such page\n");
    if (answer.body == NULL)
        return MHD_NO;
    if (answer.stream && strcmp(method, "GET") == 0 && (response = http_stream_begin(http, connection, &answer)) != NULL)
        return queue(connection, response, &answer);
    return reply(connection, &answer);
}

/* --- visitors ------------------------------------------------------------------ */

static void on_connection(void *context, struct MHD_Connection *connection, void **place,
                          enum MHD_ConnectionNotificationCode code)
{
    struct http *http = context;

    if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
        if (*place != NULL)
            ((struct visitor *)*place)->connection = NULL;
        *place = NULL;
        return;
    }
    *place = NULL;
    for (size_t i = 0; i < TD_LEN(http->visitors); i++) {
        struct visitor *visitor = &http->visitors[i];

        if (visitor->connection != NULL)
            continue;
        *visitor = (struct visitor){.connection = connection, .since_ms = clock_ms()};
        *place = visitor;
        return;
    }
}

/* One that has been here for too long is cut: it can neither be read from nor written to any more. */
static void sweep(struct http *http, uint64_t now)
{
    for (size_t i = 0; i < TD_LEN(http->visitors); i++) {
        struct visitor *visitor = &http->visitors[i];
        const union MHD_ConnectionInfo *info;

        if (visitor->connection == NULL || visitor->cut || visitor->streams || now - visitor->since_ms < http->socket.deadline_ms)
            continue;
        info = MHD_get_connection_info(visitor->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
        if (info != NULL)
            shutdown(info->connect_fd, SHUT_RDWR);
        visitor->cut = true;
    }
}

/* --- the thread ------------------------------------------------------------------ */

static int next_wait(struct http *http)
{
    MHD_UNSIGNED_LONG_LONG wait;

    if (MHD_get_timeout(http->daemon, &wait) == MHD_YES && wait < SWEEP_MS)
        return (int)wait;
    return SWEEP_MS;
}

static void *serve(void *context)
{
    struct http *http = context;
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    struct pollfd fds[2] = {{.fd = http->wake, .events = POLLIN}, {.fd = info->epoll_fd, .events = POLLIN}};
    uint64_t woken;

    for (;;) {
        uint64_t now = clock_ms();
        bool tired;

        if (now - http->second_ms >= 1000) {
            http->second_ms = now;
            http->answered = 0;
        }
        tired = http->answered >= HTTP_RATE; /* the rest of this second belongs to others */
        fds[0].revents = 0;
        poll(fds, tired ? 1 : 2, tired ? (int)(1000 - (now - http->second_ms)) : next_wait(http));
        if (atomic_load(&http->stop))
            return NULL;
        if ((fds[0].revents & POLLIN) && read(http->wake, &woken, sizeof(woken)) < 0 && errno != EAGAIN)
            return NULL;
        http_streams_turn(http, clock_ms());
        if (!tired)
            MHD_run(http->daemon);
        sweep(http, clock_ms());
        http_streams_sweep(http, clock_ms());
    }
}

static int start_daemon(struct http *http, struct error *err)
{
    http->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, on_request, http,
        MHD_OPTION_LISTEN_SOCKET, http->socket.fd,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)HTTP_CONNECTIONS,
        MHD_OPTION_PER_IP_CONNECTION_LIMIT, (unsigned)HTTP_CONNECTIONS / 2,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HTTP_REQUEST_MAX,
        MHD_OPTION_CONNECTION_TIMEOUT, (http->socket.deadline_ms + 999) / 1000,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, http,
        MHD_OPTION_STRICT_FOR_CLIENT, 1,
        MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, /* blocked in the thread */
        MHD_OPTION_END);
    if (http->daemon == NULL)
        return error_set(err, TD_EIO, "cannot serve HTTP on %s", http->socket.address);
    return TD_OK;
}

static int start_thread(struct http *http, struct error *err)
{
    sigset_t all, before;
    int rc;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* inherited: signals are the loop's */
    rc = pthread_create(&http->thread, NULL, serve, http);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0)
        return error_set_errno(err, TD_EIO, rc, "cannot start the thread that serves HTTP");
    pthread_setname_np(http->thread, "http");
    http->running = true;
    return TD_OK;
}

static void name_cookie(struct http *http)
{
    unsigned char hash[SHA256_DIGEST_LENGTH];

    SHA256((const unsigned char *)http->socket.token, strlen(http->socket.token), hash);
    snprintf(http->cookie, sizeof(http->cookie), "tdmpc2-%02x%02x%02x%02x", hash[0], hash[1], hash[2], hash[3]);
}

int http_start(http_t **out, struct http_socket *socket, http_answer_fn *answer, void *context, struct error *err)
{
    http_t *http = calloc(1, sizeof(*http));
    int rc;

    *out = NULL;
    if (http == NULL) {
        http_unlisten(socket);
        return error_set(err, TD_ENOMEM, "out of memory");
    }
    http->socket = *socket;
    *socket = (struct http_socket){.fd = -1};
    http->answer = answer;
    http->context = context;
    pthread_mutex_init(&http->lock, NULL);
    name_cookie(http);
    http->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    rc = http->wake < 0 ? error_set_errno(err, TD_EIO, errno, "cannot make an event descriptor") : start_daemon(http, err);
    if (rc == TD_OK)
        rc = start_thread(http, err);
    if (rc != TD_OK)
        http_stop(&http);
    *out = http;
    return rc;
}

void http_stop(http_t **out)
{
    http_t *http = *out;
    const uint64_t one = 1;

    if (http == NULL)
        return;
    if (http->running) {
        atomic_store(&http->stop, true);
        while (write(http->wake, &one, sizeof(one)) < 0 && errno == EINTR)
            ;
        pthread_join(http->thread, NULL);
    }
    http_streams_resume(http); /* MHD does not end while one is suspended */
    if (http->daemon != NULL) {
        MHD_stop_daemon(http->daemon); /* closes the socket too */
        http->socket.fd = -1;
    }
    http_unlisten(&http->socket);
    if (http->wake >= 0)
        close(http->wake);
    http_streams_release(http);
    pthread_mutex_destroy(&http->lock);
    free(http);
    *out = NULL;
}
