/*
 * video.h - an episode as mp4, drawn frame by frame and encoded by ffmpeg, a child process.
 *
 * The pictures go through a socket to ffmpeg's standard input. The file appears under its name when it is whole;
 * beside it, if asked for, a small GIF (for TensorBoard). ffmpeg is started by the spawner (spawner.h), so it may
 * write where the caller may, and the caller starts no program itself.
 *
 * 384 x 384 pixels, 15 frames a second, one frame per agent step and one of the reset, as in the reference.
 *
 * Owns:    the child, the socket, one frame.
 * Thread:  one at a time, any. Waits for ffmpeg where that is slower, at most VIDEO_PATIENCE_MS in one go.
 */
#ifndef TD_ENV_VIDEO_H
#define TD_ENV_VIDEO_H

#include <stdbool.h>

#include "common/env/env.h"

#define VIDEO_SIZE        384
#define VIDEO_RATE        15
#define VIDEO_GIF_SIZE    192
#define VIDEO_PATIENCE_MS 20000

typedef struct video video_t;

/*
 * Begin `path` (.mp4). gif: path of the GIF, or NULL. TD_OK; TD_ENOTFOUND: there is no ffmpeg; TD_EINVAL, TD_EIO,
 * TD_ENOMEM. Every error is a sentence for one line of a log; a caller goes on without the video.
 */
int video_open(video_t **out, const char *path, const char *gif, struct error *err);

/* Draw the environment's present state as the next frame. What env_render says; TD_EIO when ffmpeg has ended. */
int video_frame(video_t *video, env_t *env, struct error *err);

/* Wait for ffmpeg and put the files in their places; with keep false throw away what there is. Accepts NULL. */
int video_close(video_t **video, bool keep, struct error *err);

#endif
