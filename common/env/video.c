#include "common/env/video.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/util/clock.h"
#include "common/util/fs.h"
#include "common/util/spawner.h"

#define FRAME_BYTES ((size_t)VIDEO_SIZE * VIDEO_SIZE * 3)
#define TEXT(x) #x
#define NUMBER(x) TEXT(x)

extern char **environ;

struct video {
    char path[FS_PATH_MAX], part[FS_PATH_MAX]; /* part: until it is whole */
    char gif[FS_PATH_MAX], gif_part[FS_PATH_MAX];
    pid_t pid;
    int fd;
    uint8_t frame[FRAME_BYTES];
};

static int name_part(char out[FS_PATH_MAX], const char *path, struct error *err)
{
    if (snprintf(out, FS_PATH_MAX, "%s.part", path) >= FS_PATH_MAX)
        return error_set(err, TD_EINVAL, "path longer than %d bytes: %.60s...", FS_PATH_MAX - 6, path);
    return TD_OK;
}

static int start_ffmpeg(video_t *video, int input, struct error *err)
{
    char *argv[] = {
        "ffmpeg", "-nostdin", "-loglevel", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-video_size",
        NUMBER(VIDEO_SIZE) "x" NUMBER(VIDEO_SIZE), "-framerate", NUMBER(VIDEO_RATE), "-i", "pipe:0",
        "-an", "-c:v", "libx264", "-preset", "veryfast", "-threads", "1", "-pix_fmt", "yuv420p", "-movflags", "+faststart",
        "-f", "mp4", video->part,
        "-vf", "fps=5,scale=" NUMBER(VIDEO_GIF_SIZE) ":-1", "-loop", "0", "-f", "gif", video->gif_part, NULL};
    struct spawn spawn = {.program = "ffmpeg", .argv = argv, .env = environ, .fds = {input, -1, -1}, .fd_count = 3};
    int failed;

    if (video->gif[0] == '\0')
        for (size_t i = 0; i < TD_LEN(argv); i++)
            if (argv[i] == video->part)
                argv[i + 1] = NULL;
    failed = spawner_spawn(&video->pid, &spawn);
    if (failed == ENOENT)
        return error_set(err, TD_ENOTFOUND, "no video: ffmpeg is not installed (apt-get install ffmpeg)");
    return failed == 0 ? TD_OK : error_set(err, TD_EIO, "no video: cannot start ffmpeg: %s", spawner_explain(failed));
}

int video_open(video_t **out, const char *path, const char *gif, struct error *err)
{
    video_t *video = calloc(1, sizeof(*video));
    int ends[2] = {-1, -1}, rc;

    *out = NULL;
    if (video == NULL)
        return error_set(err, TD_ENOMEM, "out of memory");
    video->fd = -1;
    snprintf(video->path, sizeof(video->path), "%s", path);
    snprintf(video->gif, sizeof(video->gif), "%s", gif != NULL ? gif : "");
    if ((rc = name_part(video->part, path, err)) != TD_OK || (gif != NULL && (rc = name_part(video->gif_part, gif, err)) != TD_OK)) {
        free(video);
        return rc;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        rc = error_set_errno(err, TD_EIO, errno, "no video: cannot make a socket");
    else
        rc = start_ffmpeg(video, ends[0], err);
    if (ends[0] >= 0)
        close(ends[0]);
    video->fd = ends[1];
    if (rc == TD_OK)
        *out = video;
    else
        video_close(&video, false, NULL);
    return rc;
}

/* A child that ended closes its side: EPIPE. One that hangs takes nothing: time runs out. */
static int send_frame(video_t *video, struct error *err)
{
    const uint8_t *at = video->frame, *end = at + FRAME_BYTES;

    while (at < end) {
        struct pollfd room = {.fd = video->fd, .events = POLLOUT};
        ssize_t sent = send(video->fd, at, (size_t)(end - at), MSG_NOSIGNAL | MSG_DONTWAIT);

        if (sent > 0)
            at += sent;
        else if (errno == EAGAIN && poll(&room, 1, VIDEO_PATIENCE_MS) == 0)
            return error_set(err, TD_EIO, "no video: ffmpeg has taken nothing for %d s", VIDEO_PATIENCE_MS / 1000);
        else if (errno != EAGAIN && errno != EINTR)
            return error_set(err, TD_EIO, "no video: ffmpeg could not write %s", video->path);
    }
    return TD_OK;
}

int video_frame(video_t *video, env_t *env, struct error *err)
{
    struct env_view view = {.width = VIDEO_SIZE, .height = VIDEO_SIZE, .camera = -1};
    int rc = env_render(env, &view, video->frame, err);

    return rc == TD_OK ? send_frame(video, err) : rc;
}

/* Its exit status, or -1 when it had to be killed. */
static int wait_for_end(video_t *video)
{
    uint64_t end = clock_ms() + VIDEO_PATIENCE_MS;
    int status = 0;

    while (!spawner_ended(video->pid, &status)) {
        if (clock_ms() > end) {
            kill(video->pid, SIGKILL);
            while (!spawner_ended(video->pid, &status))
                usleep(5000);
            return -1;
        }
        usleep(5000);
    }
    return status;
}

int video_close(video_t **out, bool keep, struct error *err)
{
    video_t *video = *out;
    int status = 0, rc = TD_OK;

    if (video == NULL)
        return TD_OK;
    if (!keep && video->pid > 0)
        kill(video->pid, SIGKILL); /* not its end of input: that would be waited for */
    if (video->fd >= 0)
        close(video->fd);
    if (video->pid > 0)
        status = wait_for_end(video);
    if (keep && (!WIFEXITED(status) || WEXITSTATUS(status) != 0 || status == -1))
        rc = error_set(err, TD_EIO, "no video: ffmpeg could not write %s", video->path);
    if (keep && rc == TD_OK && video->gif[0] != '\0')
        rc = fs_rename(video->gif_part, video->gif, err);
    if (keep && rc == TD_OK)
        rc = fs_rename(video->part, video->path, err);
    if (!keep || rc != TD_OK) {
        unlink(video->part);
        if (video->gif[0] != '\0')
            unlink(video->gif_part);
    }
    free(video);
    *out = NULL;
    return rc;
}
