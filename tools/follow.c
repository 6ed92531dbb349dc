#include "tools/follow.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "learner/csv.h"

#define PIECE 65536

void follow_init(struct follow *follow, const char *path, int columns)
{
    struct stat info;

    TD_ASSERT(strlen(path) < sizeof(follow->path) && columns <= CSV_COLUMNS_MAX, "%d columns", columns);
    memset(follow, 0, sizeof(*follow));
    memcpy(follow->path, path, strlen(path) + 1);
    follow->columns = columns;
    if (stat(path, &info) == 0) {
        follow->inode = info.st_ino;
        follow->offset = info.st_size;
    }
}

/* Hand out the whole lines of text; returns the bytes they take. */
static int64_t take_lines(const char *text, size_t length,
                          void (*line)(void *context, const char *text, const char *end), void *context)
{
    const char *at = text, *end = text + length, *stop;

    while ((stop = memchr(at, '\n', (size_t)(end - at))) != NULL) {
        line(context, at, stop);
        at = stop + 1;
    }
    return at - text;
}

void follow_lines(struct follow *follow, void (*line)(void *context, const char *text, const char *end), void *context)
{
    char piece[PIECE];
    struct stat info;
    int fd = open(follow->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return;
    if (fstat(fd, &info) == 0 && follow->inode != info.st_ino) {
        follow->offset = follow->inode == 0 ? 0 : info.st_size;
        follow->inode = info.st_ino;
    }
    if (follow->offset > info.st_size)
        follow->offset = info.st_size;
    for (;;) {
        ssize_t got = pread(fd, piece, sizeof(piece), follow->offset);
        int64_t used = got > 0 ? take_lines(piece, (size_t)got, line, context) : 0;

        if (used == 0)
            break;
        follow->offset += used;
    }
    close(fd);
}

struct rows {
    int columns;
    void (*row)(void *context, const double *values);
    void *context;
};

static void parse_row(void *context, const char *text, const char *end)
{
    const struct rows *rows = context;
    double values[CSV_COLUMNS_MAX];

    if (csv_parse_line(text, end, values, rows->columns)) /* not the header */
        rows->row(rows->context, values);
}

void follow_poll(struct follow *follow, void (*row)(void *context, const double *values), void *context)
{
    struct rows rows = {follow->columns, row, context};

    follow_lines(follow, parse_row, &rows);
}
