/* Event files, read back record by record by a parser of this test's own. */
#include "tests/support/test.h"

#include <dirent.h>
#include <math.h>
#include <sys/resource.h>
#include <signal.h>
#include <unistd.h>

#include "common/metrics/tensorboard.h"
#include "common/util/crc.h"
#include "common/util/fs.h"
#include "tensorboard.pb-c.h"

#define EVENTS_MAX 64

struct events {
    Tb__Event *event[EVENTS_MAX];
    int count;
};

static uint32_t u32_at(const char *bytes)
{
    const unsigned char *b = (const unsigned char *)bytes;

    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static void read_events(struct events *events, const char *path)
{
    struct error err = {0};
    size_t length, at = 0;
    char *bytes;

    events->count = 0;
    assert_ok(fs_read_file(path, 100u << 20, &bytes, &length, &err), err);
    while (at < length) {
        size_t size;

        assert_true(length - at >= 16);
        size = u32_at(bytes + at);
        assert_int_equal(u32_at(bytes + at + 4), 0); /* the length's upper half */
        assert_int_equal(u32_at(bytes + at + 8), crc32c_mask(crc32c(bytes + at, 8)));
        assert_true(length - at - 16 >= size);
        assert_int_equal(u32_at(bytes + at + 12 + size), crc32c_mask(crc32c(bytes + at + 12, size)));
        assert_true(events->count < EVENTS_MAX);
        events->event[events->count] = tb__event__unpack(NULL, size, (const uint8_t *)bytes + at + 12);
        assert_non_null(events->event[events->count]);
        events->count++;
        at += 16 + size;
    }
    free(bytes);
}

static void release(struct events *events)
{
    for (int i = 0; i < events->count; i++)
        tb__event__free_unpacked(events->event[i], NULL);
}

static const char *folder_of(const char *name)
{
    static char path[FS_PATH_MAX];
    struct error err = {0};

    snprintf(path, sizeof(path), "%s/%s", test_folder(), name);
    assert_ok(fs_mkdirs(path, 0755, &err), err);
    return path;
}

static void what_is_written_is_there_at_once(void **state)
{
    const struct tensorboard_scalar scalars[] = {{"train/a", 1.5}, {"train/b", NAN}, {"train/c", -INFINITY}};
    const struct tensorboard_hparam hparams[] = {
        {.name = "lr", .number = 3e-4}, {.name = "mpc", .is_bool = true, .number = 1}, {.name = "task", .text = "walker-walk"}};
    tensorboard_t *board;
    struct events events;
    struct error err = {0};
    Tb__HParams *read;
    Tb__Summary *summary;

    (void)state;
    assert_ok(tensorboard_open(&board, folder_of("a"), &err), err);
    assert_ok(tensorboard_scalars(board, 1234567890123, scalars, 3, &err), err);
    assert_ok(tensorboard_scalars(board, 1, &scalars[1], 1, &err), err); /* nothing to say */
    assert_ok(tensorboard_text(board, 7, "config", "    steps: 1\n", &err), err);
    assert_ok(tensorboard_image(board, 8, "eval/video", "GIF89a", 6, 20, 10, &err), err);
    assert_ok(tensorboard_hparams(board, hparams, 3, &err), err);
    assert_ok(tensorboard_purge(board, 500, &err), err);
    read_events(&events, tensorboard_path(board)); /* while it is open */
    assert_int_equal(events.count, 6);
    assert_string_equal(events.event[0]->file_version, "brain.Event:2");
    assert_true(events.event[0]->wall_time > 1.5e9);

    assert_true(events.event[1]->step == 1234567890123);
    summary = events.event[1]->summary;
    assert_int_equal(summary->n_value, 2);
    assert_string_equal(summary->value[0]->tag, "train/a");
    assert_true(summary->value[0]->simple_value == 1.5f);
    assert_string_equal(summary->value[1]->tag, "train/c");
    assert_true(isinf(summary->value[1]->simple_value));

    summary = events.event[2]->summary;
    assert_string_equal(summary->value[0]->tag, "config/text_summary");
    assert_string_equal(summary->value[0]->metadata->plugin_data->plugin_name, "text");
    assert_int_equal(summary->value[0]->tensor->dtype, 7);
    assert_int_equal(summary->value[0]->tensor->string_val[0].len, 13);

    summary = events.event[3]->summary;
    assert_int_equal(summary->value[0]->image->width, 20);
    assert_memory_equal(summary->value[0]->image->encoded_image_string.data, "GIF89a", 6);

    summary = events.event[4]->summary;
    assert_string_equal(summary->value[0]->tag, "_hparams_/session_start_info");
    read = tb__hparams__unpack(NULL, summary->value[0]->metadata->plugin_data->content.len,
                               summary->value[0]->metadata->plugin_data->content.data);
    assert_non_null(read);
    assert_int_equal(read->session_start_info->n_hparams, 3);
    assert_true(read->session_start_info->hparams[0]->value->number_value == 3e-4);
    assert_true(read->session_start_info->hparams[1]->value->bool_value);
    assert_string_equal(read->session_start_info->hparams[2]->value->string_value, "walker-walk");
    tb__hparams__free_unpacked(read, NULL);

    assert_int_equal(events.event[5]->session_log->status, TB__SESSION_LOG__STATUS__START);
    assert_int_equal(events.event[5]->step, 500);
    release(&events);
    tensorboard_close(&board);
    assert_null(board);
}

/* Lives within one second, and one whose clock went back, still come in order. */
static void files_sort_by_life(void **state)
{
    const char *folder = folder_of("lives");
    char names[4][FS_PATH_MAX], future[FS_PATH_MAX + 64];
    struct error err = {0};

    (void)state;
    for (int life = 0; life < 4; life++) {
        tensorboard_t *board;

        assert_ok(tensorboard_open(&board, folder, &err), err);
        strcpy(names[life], tensorboard_path(board));
        tensorboard_close(&board);
        if (life > 0)
            assert_true(strcmp(names[life - 1], names[life]) < 0);
        if (life == 2) {
            snprintf(future, sizeof(future), "%s/events.out.tfevents.4000000000.host.1", folder);
            assert_ok(fs_write_file(future, "", 0, &err), err);
        }
    }
    assert_true(strcmp(future, names[3]) < 0);
}

/* On a full disk (a limit of the file's size does as well) no half record stays, and later ones are whole. */
static void half_a_record_is_taken_back(void **state)
{
    const struct tensorboard_scalar scalar = {"train/a", 1};
    struct rlimit before, small = {.rlim_cur = 4096, .rlim_max = RLIM_INFINITY};
    static char text[8192];
    tensorboard_t *board;
    struct events events;
    struct error err = {0};

    (void)state;
    memset(text, 'x', sizeof(text) - 1);
    assert_ok(tensorboard_open(&board, folder_of("full"), &err), err);
    getrlimit(RLIMIT_FSIZE, &before);
    small.rlim_max = before.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    assert_int_not_equal(tensorboard_text(board, 1, "long", text, &err), TD_OK);
    assert_ok(tensorboard_scalars(board, 2, &scalar, 1, &err), err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    read_events(&events, tensorboard_path(board));
    assert_int_equal(events.count, 2);
    assert_int_equal(events.event[1]->step, 2);
    release(&events);
    tensorboard_close(&board);
}

static void nothing_is_allowed(void **state)
{
    const struct tensorboard_scalar scalar = {"a", 1};
    tensorboard_t *board = NULL;
    struct error err = {0};

    (void)state;
    assert_int_equal(tensorboard_open(&board, "/nowhere/at/all", &err), TD_EIO);
    assert_null(board);
    assert_int_equal(tensorboard_scalars(NULL, 1, &scalar, 1, &err), TD_OK);
    assert_int_equal(tensorboard_hparams(NULL, NULL, 0, &err), TD_OK);
    assert_int_equal(tensorboard_purge(NULL, 1, &err), TD_OK);
    tensorboard_close(&board);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_there_at_once),
        cmocka_unit_test(files_sort_by_life),
        cmocka_unit_test(half_a_record_is_taken_back),
        cmocka_unit_test(nothing_is_allowed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
