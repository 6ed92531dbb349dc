/* http_private.h - the inside of the HTTP server: http.c listens, asks who may and answers; http_stream.c keeps streams. */
#ifndef TD_NET_HTTP_PRIVATE_H
#define TD_NET_HTTP_PRIVATE_H

#include <microhttpd.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>

#include "common/net/http.h"

struct visitor {
    struct MHD_Connection *connection; /* NULL: a free place */
    uint64_t since_ms;
    bool cut, streams;
};

/* What was published; its references are the thread's to count. */
struct event {
    int references;
    size_t length;
    char bytes[];
};

struct stream {
    struct http *http; /* NULL: a free place */
    struct MHD_Connection *connection;
    struct in6_addr from;
    struct event *event; /* being sent, or NULL */
    size_t sent;
    uint64_t number;     /* of the last event taken */
    uint64_t opened_ms, busy_ms; /* busy_ms: when it was last given something to read */
    bool waits;          /* suspended: everything was taken */
};

struct http {
    struct http_socket socket;
    http_answer_fn *answer;
    void *context;
    struct MHD_Daemon *daemon;
    pthread_t thread;
    bool running;
    int wake; /* eventfd */
    char cookie[24]; /* its name: of this token, for browsers keep those of a host's ports together */
    atomic_bool stop;
    atomic_int open_streams;
    pthread_mutex_t lock;
    struct event *published; /* under the lock: not yet seen by the thread */
    /* the thread's own */
    struct event *newest;
    uint64_t number; /* of newest */
    struct stream streams[HTTP_STREAMS];
    struct visitor visitors[HTTP_CONNECTIONS + 1];
    uint64_t second_ms;
    int answered; /* since second_ms */
};

/*
 * http_stream.c, all on the server's thread.
 *
 * A response that stays open, its answer's body the beginning, taken; NULL: no place is free, answer it whole.
 */
struct MHD_Response *http_stream_begin(struct http *http, struct MHD_Connection *connection, struct http_answer *answer);

/* What was published since: whoever waits is given it; the others come to it, or to a newer one, in their time. */
void http_streams_turn(struct http *http, uint64_t now);

/* Those at their end are let go; one whose reader has taken nothing for too long is cut. */
void http_streams_sweep(struct http *http, uint64_t now);

/* Before the end: none may be left suspended. */
void http_streams_resume(struct http *http);
void http_streams_release(struct http *http);

#endif
