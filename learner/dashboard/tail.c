#include "learner/dashboard/tail.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void tail_init(struct tail *tail, const char *path)
{
    memset(tail, 0, sizeof(*tail));
    snprintf(tail->path, sizeof(tail->path), "%s", path);
}

void tail_release(struct tail *tail)
{
    free(tail->text);
    tail->text = NULL;
}

static void begin_again(struct tail *tail, ino_t inode)
{
    tail->inode = inode;
    tail->offset = tail->used = tail->header = tail->line_used = 0;
    tail->seen = tail->kept = 0;
    tail->every = 1;
    tail->last_kept = true;
    tail->broken = false;
}

/* Where the last line in the text begins. */
static size_t last_line(const struct tail *tail)
{
    size_t at = tail->used - 1;

    while (at > tail->header && tail->text[at - 1] != '\n')
        at--;
    return at;
}

/* Every second one goes. */
static void thin(struct tail *tail)
{
    size_t to = tail->header, from = tail->header;
    uint64_t kept = 0;

    for (uint64_t i = 0; i < tail->kept; i++) {
        size_t length = (size_t)((char *)memchr(tail->text + from, '\n', tail->used - from) - (tail->text + from)) + 1;

        if (i % 2 == 0) {
            memmove(tail->text + to, tail->text + from, length);
            to += length;
            kept++;
        }
        from += length;
    }
    tail->used = to;
    tail->kept = kept;
    tail->every *= 2;
}

static void put(struct tail *tail, const char *line, size_t length)
{
    memcpy(tail->text + tail->used, line, length);
    tail->used += length;
    tail->text[tail->used++] = '\n';
}

/* One whole line. The one before it goes, if it was there only as the last. */
static void take_line(struct tail *tail)
{
    size_t length = tail->line_used;

    tail->line_used = 0;
    if (tail->header == 0) {
        put(tail, tail->line, length);
        tail->header = tail->used;
        return;
    }
    if (!tail->last_kept)
        tail->used = last_line(tail);
    tail->last_kept = true;
    while (tail->kept > 1 && (tail->kept >= TAIL_LINES || tail->used + TAIL_LINE > TAIL_BYTES))
        thin(tail);
    tail->last_kept = tail->seen++ % tail->every == 0;
    tail->kept += tail->last_kept;
    put(tail, tail->line, length);
}

static void take(struct tail *tail, const char *bytes, size_t length)
{
    for (size_t i = 0; i < length && !tail->broken; i++) {
        if (bytes[i] == '\n')
            take_line(tail);
        else if (bytes[i] != '\0' && tail->line_used < TAIL_LINE - 1)
            tail->line[tail->line_used++] = bytes[i];
        else
            tail->broken = true;
    }
}

bool tail_read(struct tail *tail)
{
    char bytes[16384];
    struct stat info;
    ssize_t got;
    int fd;

    if (tail->text == NULL && (tail->text = malloc(TAIL_BYTES + TAIL_LINE)) == NULL)
        return false;
    fd = open(tail->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        if (fd >= 0)
            close(fd);
        begin_again(tail, 0);
        return true;
    }
    if (info.st_ino != tail->inode || (uint64_t)info.st_size < tail->offset)
        begin_again(tail, info.st_ino);
    while (!tail->broken && (got = pread(fd, bytes, sizeof(bytes), (off_t)tail->offset)) > 0) {
        tail->offset += (uint64_t)got;
        take(tail, bytes, (size_t)got);
    }
    close(fd);
    return true;
}
