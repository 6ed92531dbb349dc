#include "common/net/http_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/util/clock.h"

#define BLOCK 16384 /* bytes that MHD asks for at a time, at most */

static void event_drop(struct event **event)
{
    if (*event != NULL && --(*event)->references == 0)
        free(*event);
    *event = NULL;
}

static struct event *event_make(const char *bytes, size_t length)
{
    struct event *event = malloc(sizeof(*event) + length);

    if (event == NULL)
        return NULL;
    event->references = 1;
    event->length = length;
    memcpy(event->bytes, bytes, length);
    return event;
}

/* MHD wants bytes: those of the event that is being sent, of a newer one, or none until there is one. */
static ssize_t stream_read(void *context, uint64_t position, char *buffer, size_t room)
{
    struct stream *stream = context;
    struct http *http = stream->http;
    size_t left;

    (void)position;
    if (stream->event == NULL && clock_ms() - stream->opened_ms >= http->socket.stream_ms)
        return MHD_CONTENT_READER_END_OF_STREAM;
    if (stream->event == NULL && http->newest != NULL && stream->number < http->number) {
        stream->event = http->newest;
        stream->event->references++;
        stream->number = http->number;
        stream->sent = 0;
        stream->busy_ms = clock_ms();
    }
    if (stream->event == NULL) {
        stream->waits = true;
        MHD_suspend_connection(stream->connection);
        return 0;
    }
    left = stream->event->length - stream->sent;
    if (left > room)
        left = room;
    memcpy(buffer, stream->event->bytes + stream->sent, left);
    stream->sent += left;
    if (stream->sent == stream->event->length)
        event_drop(&stream->event);
    return (ssize_t)left;
}

static void stream_free(void *context)
{
    struct stream *stream = context;

    event_drop(&stream->event);
    atomic_fetch_sub(&stream->http->open_streams, 1);
    *stream = (struct stream){0};
}

static struct in6_addr address_of(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    struct in6_addr from = {0};

    if (info != NULL && info->client_addr->sa_family == AF_INET6)
        from = ((const struct sockaddr_in6 *)(const void *)info->client_addr)->sin6_addr;
    else if (info != NULL && info->client_addr->sa_family == AF_INET)
        memcpy(&from, &((const struct sockaddr_in *)(const void *)info->client_addr)->sin_addr, sizeof(struct in_addr));
    return from;
}

/* A free place for one more of this address, or NULL. */
static struct stream *stream_place(struct http *http, const struct in6_addr *from)
{
    struct stream *found = NULL;
    int same = 0;

    for (size_t i = 0; i < TD_LEN(http->streams); i++) {
        struct stream *stream = &http->streams[i];

        if (stream->http == NULL)
            found = stream;
        else
            same += memcmp(&stream->from, from, sizeof(*from)) == 0;
    }
    return same < HTTP_STREAMS_EACH ? found : NULL;
}

struct MHD_Response *http_stream_begin(struct http *http, struct MHD_Connection *connection, struct http_answer *answer)
{
    struct in6_addr from = address_of(connection);
    struct stream *stream = stream_place(http, &from);
    struct MHD_Response *response;
    struct event *beginning;

    if (stream == NULL || (beginning = event_make(answer->body, answer->length)) == NULL)
        return NULL;
    response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK, stream_read, stream, stream_free);
    if (response == NULL) {
        free(beginning);
        return NULL;
    }
    free(answer->body);
    answer->body = NULL;
    *stream = (struct stream){.http = http, .connection = connection, .from = from, .event = beginning, .number = http->number,
                              .opened_ms = clock_ms(), .busy_ms = clock_ms()};
    atomic_fetch_add(&http->open_streams, 1);
    for (size_t i = 0; i < TD_LEN(http->visitors); i++)
        if (http->visitors[i].connection == connection)
            http->visitors[i].streams = true;
    return response;
}

static void stream_go_on(struct stream *stream, uint64_t now)
{
    if (stream->http == NULL || !stream->waits)
        return;
    stream->waits = false;
    stream->busy_ms = now;
    MHD_resume_connection(stream->connection);
}

void http_streams_turn(struct http *http, uint64_t now)
{
    struct event *event;

    pthread_mutex_lock(&http->lock);
    event = http->published;
    http->published = NULL;
    pthread_mutex_unlock(&http->lock);
    if (event == NULL)
        return;
    event_drop(&http->newest);
    http->newest = event;
    http->number++;
    for (size_t i = 0; i < TD_LEN(http->streams); i++)
        stream_go_on(&http->streams[i], now);
}

void http_streams_sweep(struct http *http, uint64_t now)
{
    for (size_t i = 0; i < TD_LEN(http->streams); i++) {
        struct stream *stream = &http->streams[i];
        const union MHD_ConnectionInfo *info;

        if (stream->http == NULL)
            continue;
        if (stream->waits && now - stream->opened_ms >= http->socket.stream_ms) {
            stream_go_on(stream, now);
        } else if (!stream->waits && now - stream->busy_ms >= http->socket.deadline_ms) {
            info = MHD_get_connection_info(stream->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
            if (info != NULL)
                shutdown(info->connect_fd, SHUT_RDWR);
            stream->busy_ms = now;
        }
    }
}

void http_streams_resume(struct http *http)
{
    for (size_t i = 0; i < TD_LEN(http->streams); i++)
        stream_go_on(&http->streams[i], clock_ms());
}

void http_streams_release(struct http *http)
{
    event_drop(&http->newest);
    free(http->published);
}

void http_publish(http_t *http, const char *bytes, size_t length)
{
    const uint64_t one = 1;
    struct event *event, *before;

    if (http == NULL || atomic_load(&http->open_streams) == 0 || (event = event_make(bytes, length)) == NULL)
        return;
    pthread_mutex_lock(&http->lock);
    before = http->published;
    http->published = event;
    pthread_mutex_unlock(&http->lock);
    free(before); /* nobody has seen it */
    while (write(http->wake, &one, sizeof(one)) < 0 && errno == EINTR)
        ;
}

int http_streams(http_t *http)
{
    return http == NULL ? 0 : atomic_load(&http->open_streams);
}
