#include "learner/dashboard/curve.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void curve_init(struct curve *curve, const char *path)
{
    memset(curve, 0, sizeof(*curve));
    snprintf(curve->path, sizeof(curve->path), "%s", path);
}

void curve_release(struct curve *curve)
{
    free(curve->text);
    curve->text = NULL;
}

static void begin_again(struct curve *curve, ino_t inode)
{
    curve->inode = inode;
    curve->offset = curve->used = curve->header = curve->line_used = 0;
    curve->seen = curve->kept = 0;
    curve->every = 1;
    curve->last_kept = true;
    curve->broken = false;
}

/* Where the last line in the text begins. */
static size_t last_line(const struct curve *curve)
{
    size_t at = curve->used - 1;

    while (at > curve->header && curve->text[at - 1] != '\n')
        at--;
    return at;
}

/* Every second one goes. */
static void thin(struct curve *curve)
{
    size_t to = curve->header, from = curve->header;
    uint64_t kept = 0;

    for (uint64_t i = 0; i < curve->kept; i++) {
        size_t length = (size_t)((char *)memchr(curve->text + from, '\n', curve->used - from) - (curve->text + from)) + 1;

        if (i % 2 == 0) {
            memmove(curve->text + to, curve->text + from, length);
            to += length;
            kept++;
        }
        from += length;
    }
    curve->used = to;
    curve->kept = kept;
    curve->every *= 2;
}

static void put(struct curve *curve, const char *line, size_t length)
{
    memcpy(curve->text + curve->used, line, length);
    curve->used += length;
    curve->text[curve->used++] = '\n';
}

/* One whole line. The one before it goes, if it was there only as the last. */
static void take_line(struct curve *curve)
{
    size_t length = curve->line_used;

    curve->line_used = 0;
    if (curve->header == 0) {
        put(curve, curve->line, length);
        curve->header = curve->used;
        return;
    }
    if (!curve->last_kept)
        curve->used = last_line(curve);
    curve->last_kept = true;
    while (curve->kept > 1 && (curve->kept >= CURVE_LINES || curve->used + CURVE_LINE > CURVE_BYTES))
        thin(curve);
    curve->last_kept = curve->seen++ % curve->every == 0;
    curve->kept += curve->last_kept;
    put(curve, curve->line, length);
}

static void take(struct curve *curve, const char *bytes, size_t length)
{
    for (size_t i = 0; i < length && !curve->broken; i++) {
        if (bytes[i] == '\n')
            take_line(curve);
        else if (bytes[i] != '\0' && curve->line_used < CURVE_LINE - 1)
            curve->line[curve->line_used++] = bytes[i];
        else
            curve->broken = true;
    }
}

bool curve_read(struct curve *curve)
{
    char bytes[16384];
    struct stat info;
    ssize_t got;
    int fd;

    if (curve->text == NULL && (curve->text = malloc(CURVE_BYTES + CURVE_LINE)) == NULL)
        return false;
    fd = open(curve->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        if (fd >= 0)
            close(fd);
        begin_again(curve, 0);
        return true;
    }
    if (info.st_ino != curve->inode || (uint64_t)info.st_size < curve->offset)
        begin_again(curve, info.st_ino);
    while (!curve->broken && (got = pread(fd, bytes, sizeof(bytes), (off_t)curve->offset)) > 0) {
        curve->offset += (uint64_t)got;
        take(curve, bytes, (size_t)got);
    }
    close(fd);
    return true;
}
