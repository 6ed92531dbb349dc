/*
 * http.h - a small HTTP server on a thread of its own, for what a daemon shows of itself.
 *
 * It answers GET and HEAD from bytes that others hand it and can do nothing else: no file is read, no body
 * taken, no event of the daemon's loop waits for it. Clients are bounded in number, time and bytes: at most
 * HTTP_CONNECTIONS at once, half of them from one address; a connection carries one request and is cut after
 * HTTP_DEADLINE_MS whatever it does; a request fits into HTTP_REQUEST_MAX; at most HTTP_RATE answers a second,
 * the others wait.
 *
 * An answer may be a stream: it stays open, and what http_publish is given goes to all streams. At most
 * HTTP_STREAMS at once, HTTP_STREAMS_EACH from one address, each for HTTP_STREAM_MS; whoever comes when all are
 * taken is given the beginning and an end, and asks again. One that does not take what is published within the
 * deadline is cut. It is sent the newest alone: all streams together hold no more than one copy for each, and
 * most share one.
 *
 * Secure by default: loopback alone. Another address needs a token (every request must carry it, `Authorization:
 * Bearer ...`) or insecure=true. On loopback without a token a request must name the host by a number or as
 * localhost, so that no web page can read it through a name of its own (DNS rebinding).
 *
 * Owns:    the listening socket, its thread, libmicrohttpd's memory.
 * Thread:  http_listen, http_start, http_stop: the owner's; `answer` is called on the server's thread.
 */
#ifndef TD_NET_HTTP_H
#define TD_NET_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/net/address.h"
#include "common/util/error.h"

#define HTTP_CONNECTIONS 32
#define HTTP_REQUEST_MAX 8192 /* bytes of a request's head, and of what MHD keeps for it */
#define HTTP_DEADLINE_MS 10000
#define HTTP_RATE        200  /* answers a second */
#define HTTP_TOKEN_MAX   256
#define HTTP_STREAMS      12
#define HTTP_STREAMS_EACH 4 /* a browser opens six connections to a place and needs some for the rest */
#define HTTP_STREAM_MS    600000

/* A socket that listens, not yet served. Made before a process gives up making sockets (confine.h). */
struct http_socket {
    int fd;                     /* -1: none */
    char address[ADDRESS_MAX];  /* HOST:PORT as bound: where a picked port is known */
    bool loopback;
    char token[HTTP_TOKEN_MAX]; /* "": none is asked for */
    bool browser;               /* the token may come once as ?token=, and then as a cookie that is given for it */
    unsigned deadline_ms;       /* of a connection, and of a stream's reader */
    unsigned stream_ms;         /* of a stream */
};

/*
 * Listen on `address`: HOST:PORT, [IPv6]:PORT, or PORT alone for 127.0.0.1; port 0 has one picked. token_file:
 * "" or a file whose first line is the token, readable by its owner alone.
 * TD_OK; TD_EINVAL, TD_ENOTFOUND, TD_EIO with a sentence that names the address or the file.
 */
int http_listen(struct http_socket *out, const char *address, bool insecure, const char *token_file,
                struct error *err);

/* Ask for the token in this file from now on, not yet served. TD_OK; TD_EINVAL, TD_ENOTFOUND, TD_EIO. */
int http_ask_token(struct http_socket *socket, const char *token_file, struct error *err);

/*
 * Where others find it, HOST:PORT: `advertise` in place of the host when that is given, this machine's name when
 * it listens everywhere.
 */
void http_target(const char *address, const char *advertise, char out[ADDRESS_MAX]);

/* Let it go unserved; -1 is fine. */
void http_unlisten(struct http_socket *socket);

/* What an answer is made of; body is malloc'd and taken. A status of 0 means: there is no such page. */
struct http_answer {
    const char *range; /* in: the request's Range header, or NULL */
    int status;
    const char *type;  /* a literal */
    char *body;
    size_t length;
    const char *policy;     /* a literal for Content-Security-Policy, or NULL */
    char content_range[80]; /* of a status 206 or 416, "" else */
    bool stream;            /* keep it open: body, then what is published */
};

typedef void http_answer_fn(void *context, const char *path, struct http_answer *out);

typedef struct http http_t;

/* Serve; takes the socket. TD_OK, TD_EIO, TD_ENOMEM. */
int http_start(http_t **out, struct http_socket *socket, http_answer_fn *answer, void *context, struct error *err);

/*
 * To all streams, from any thread: copied. Does nothing when there are none; bytes that nobody has begun to read
 * give way to newer ones.
 */
void http_publish(http_t *http, const char *bytes, size_t length);

/* Streams that are open; from any thread. */
int http_streams(http_t *http);

/* Cut what is open, end the thread. */
void http_stop(http_t **http);

#endif
