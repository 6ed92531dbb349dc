/* Videos with a stand-in for ffmpeg, and with the real one where there is one. */
#include "tests/support/test.h"

#include <sys/stat.h>
#include <unistd.h>

#include "common/env/video.h"
#include "common/util/clock.h"
#include "common/util/fs.h"

static char path[FS_PATH_MAX], gif[FS_PATH_MAX], real_path[8192];

/* A program named ffmpeg, first in $PATH: its last word but for the GIF's is the file to write. */
static void stand_in(const char *script)
{
    char folder[FS_PATH_MAX], program[FS_PATH_MAX], words[16384];
    struct error err = {0};

    snprintf(folder, sizeof(folder), "%s/bin", test_folder());
    assert_ok(fs_mkdirs(folder, 0755, &err), err);
    assert_ok(fs_join(program, folder, "ffmpeg", &err), err);
    unlink(program);
    if (script != NULL) {
        assert_ok(fs_write_file(program, script, strlen(script), &err), err);
        assert_int_equal(chmod(program, 0755), 0);
    }
    snprintf(words, sizeof(words), "%s%s%s", folder, script != NULL ? ":" : "", script != NULL ? real_path : "");
    setenv("PATH", words, 1);
}

static env_t *make_env(void)
{
    struct error err = {0};
    env_t *env;
    float obs[64];

    assert_ok(env_create(&env, "cartpole-swingup", 1, &err), err);
    assert_ok(env_reset(env, obs, &err), err);
    return env;
}

static int record(int frames, bool keep, struct error *err)
{
    env_t *env = make_env();
    video_t *video;
    int rc = video_open(&video, path, gif, err), end;

    for (int i = 0; i < frames && rc == TD_OK; i++) {
        float action = i % 2 == 0 ? 1 : -1, obs[64];
        struct env_result result;
        struct error why = {0};

        rc = video_frame(video, env, err);
        assert_ok(env_step(env, &action, obs, &result, &why), why);
    }
    end = video_close(&video, keep && rc == TD_OK, rc == TD_OK ? err : NULL);
    assert_null(video);
    env_close(&env);
    return rc != TD_OK ? rc : end;
}

static void nothing_is_left(void)
{
    char part[FS_PATH_MAX + 8];

    snprintf(part, sizeof(part), "%s.part", path);
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_not_equal(access(gif, F_OK), 0);
    assert_int_not_equal(access(part, F_OK), 0);
}

static void frames_reach_the_child_whole(void **state)
{
    struct error err = {0};
    struct stat info;

    (void)state;
    /* words 1 to 27 are options; 28 the mp4, the last the GIF */
    stand_in("#!/bin/bash\nfor w; do [[ $w == *.mp4.part ]] && out=$w; done\ncat > \"$out\"; echo GIF89a > \"${@: -1}\"\n");
    assert_ok(record(7, true, &err), err);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_size, 7 * VIDEO_SIZE * VIDEO_SIZE * 3);
    assert_int_equal(access(gif, F_OK), 0);
    unlink(path);
    unlink(gif);
    assert_ok(record(3, false, &err), err); /* thrown away */
    nothing_is_left();
}

static void failures_are_one_sentence(void **state)
{
    struct error err = {0};
    uint64_t start = clock_ms();

    (void)state;
    stand_in(NULL);
    assert_int_equal(record(1, true, &err), TD_ENOTFOUND);
    assert_non_null(strstr(err.text, "apt-get install ffmpeg"));
    stand_in("#!/bin/sh\nexit 1\n");
    assert_int_equal(record(40, true, &err), TD_EIO);
    assert_non_null(strstr(err.text, "ffmpeg"));
    nothing_is_left();
    stand_in("#!/bin/sh\ncat >/dev/null; exit 1\n"); /* fails at the end */
    assert_int_equal(record(2, true, &err), TD_EIO);
    nothing_is_left();
    assert_true(clock_ms() - start < VIDEO_PATIENCE_MS);
}

static void the_real_one_makes_a_video(void **state)
{
    struct error err = {0};
    char *bytes;
    size_t length;

    (void)state;
    setenv("PATH", real_path, 1);
    if (access("/usr/bin/ffmpeg", X_OK) != 0) {
        printf("  skipped: no ffmpeg here\n");
        skip();
    }
    assert_ok(record(16, true, &err), err);
    assert_ok(fs_read_file(path, 10u << 20, &bytes, &length, &err), err);
    assert_memory_equal(bytes + 4, "ftyp", 4);
    assert_non_null(memmem(bytes, length, "moov", 4)); /* whole */
    free(bytes);
    assert_ok(fs_read_file(gif, 10u << 20, &bytes, &length, &err), err);
    assert_memory_equal(bytes, "GIF89a", 6);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_reach_the_child_whole),
        cmocka_unit_test(failures_are_one_sentence),
        cmocka_unit_test(the_real_one_makes_a_video),
    };

    snprintf(path, sizeof(path), "%s/video.mp4", test_folder());
    snprintf(gif, sizeof(gif), "%s/video.gif", test_folder());
    snprintf(real_path, sizeof(real_path), "%s", getenv("PATH"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
