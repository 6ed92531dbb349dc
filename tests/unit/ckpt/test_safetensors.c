#include "tests/support/test.h"

#include <sys/stat.h>
#include <unistd.h>

#include "common/ckpt/safetensors.h"

static const char *file_named(const char *name)
{
    static char path[512];

    snprintf(path, sizeof(path), "%s/%s", test_folder(), name);
    return path;
}

/* A file of this header text and `data` zero bytes; length_add falsifies the prefix. */
static const char *file_of(const char *header, size_t data, int64_t length_add)
{
    const char *path = file_named("made.safetensors");
    FILE *out = fopen(path, "wb");
    uint64_t length = (uint64_t)((int64_t)strlen(header) + length_add);

    assert_non_null(out);
    fwrite(&length, 8, 1, out);
    fwrite(header, 1, strlen(header), out);
    for (size_t i = 0; i < data; i++)
        fputc(0, out);
    assert_int_equal(fclose(out), 0);
    return path;
}

static void recorded_files_open(void **state)
{
    safetensors_t *file;
    struct error err;
    uint64_t shape[2] = {48, 67}, any = 48 * 67;
    float *weight = malloc(sizeof(float) * 48 * 67), *again = malloc(sizeof(float) * 48 * 67);

    (void)state;
    assert_ok(safetensors_open(&file, "tests/golden/tiny-state.update.safetensors", &err), err);
    assert_non_null(strstr(safetensors_note(file, "config"), "\"latent_dim\": 64"));
    assert_null(safetensors_note(file, "absent"));
    assert_null(safetensors_find(file, "absent"));
    test_poison(weight, sizeof(float) * 48 * 67);
    assert_ok(safetensors_get(file, "param._dynamics.0.weight", SAFETENSORS_F32, 2, shape, weight, &err), err);
    assert_ok(safetensors_get(file, "param._dynamics.0.weight", SAFETENSORS_F32, -1, &any, again, &err), err);
    assert_close(weight, again, 48 * 67, 0, 0);
    assert_true(weight[0] != 0 && weight[48 * 67 - 1] != 0);
    shape[1] = 66;
    assert_int_equal(safetensors_get(file, "param._dynamics.0.weight", SAFETENSORS_F32, 2, shape, weight, &err),
                     TD_EINVAL);
    assert_non_null(strstr(err.text, "F32 [48, 67], expected F32 [48, 66]"));
    assert_int_equal(safetensors_get(file, "x", SAFETENSORS_F32, 2, shape, weight, &err), TD_ENOTFOUND);
    free(weight);
    free(again);
    safetensors_close(&file);
    assert_null(file);
    safetensors_close(&file);
}

static void what_is_written_is_read_back(void **state)
{
    float floats[6] = {1, -2, 3.5f, 1e-40f, 5, 6};
    int64_t scalar = -10;
    uint8_t bytes[3] = {7, 8, 9};
    const struct safetensors_tensor tensors[] = {
        {.name = "b.weight", .type = SAFETENSORS_F32, .dims = 2, .shape = {2, 3}, .data = floats},
        {.name = "a", .type = SAFETENSORS_I64, .dims = 0, .data = &scalar},
        {.name = "odd \"name\"", .type = SAFETENSORS_U8, .dims = 1, .shape = {3}, .data = bytes},
        {.name = "empty", .type = SAFETENSORS_F32, .dims = 2, .shape = {0, 4}, .data = NULL},
    };
    const struct safetensors_note notes[] = {{"config", "{\"a\": 1}"}, {"b", "line\nline"}};
    const char *path = file_named("round.safetensors");
    safetensors_t *file;
    struct error err;
    float got[6];
    int64_t got_scalar = 0;
    struct stat status;

    (void)state;
    assert_ok(safetensors_write(path, tensors, 4, notes, 2, NULL, NULL, &err), err);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0644);
    assert_ok(safetensors_open(&file, path, &err), err);
    assert_int_equal(safetensors_count(file), 4);
    assert_int_equal(safetensors_notes(file), 2);
    assert_string_equal(safetensors_note(file, "config"), "{\"a\": 1}");
    assert_string_equal(safetensors_note_at(file, 1)->value, "line\nline");
    test_poison(got, sizeof(got));
    assert_ok(safetensors_read(file, safetensors_find(file, "b.weight"), got, &err), err);
    assert_memory_equal(got, floats, sizeof(floats));
    assert_ok(safetensors_get(file, "a", SAFETENSORS_I64, 0, NULL, &got_scalar, &err), err);
    assert_int_equal(got_scalar, -10);
    assert_int_equal(safetensors_find(file, "odd \"name\"")->bytes, 3);
    assert_int_equal(safetensors_find(file, "empty")->bytes, 0);
    assert_string_equal(safetensors_at(file, 0)->name, "b.weight");
    safetensors_close(&file);
}

static int cancel(void *context, uint64_t done, uint64_t total)
{
    assert_true(done <= total);
    return ++*(int *)context == 3;
}

static void a_failed_write_leaves_the_old_file(void **state)
{
    enum { COUNT = 1 << 20 };
    float *floats = calloc(COUNT, sizeof(float));
    const struct safetensors_tensor one = {
        .name = "x", .type = SAFETENSORS_F32, .dims = 1, .shape = {COUNT}, .data = floats};
    const char *path = file_named("kept.safetensors");
    struct error err;
    struct stat status;
    int calls = 0;

    (void)state;
    assert_ok(safetensors_write(path, NULL, 0, NULL, 0, NULL, NULL, &err), err);
    assert_int_equal(safetensors_write(path, &one, 1, NULL, 0, cancel, &calls, &err), TD_EAGAIN);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_size, 16); /* 8 bytes of length, "{}" padded to 8 */
    assert_int_equal(safetensors_write("/nonexistent/folder/x", &one, 1, NULL, 0, NULL, NULL, &err), TD_EIO);
    assert_non_null(strstr(err.text, "/nonexistent/folder/x"));
    free(floats);
}

static void hostile_files_are_refused_with_a_sentence(void **state)
{
#define X "\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}"
    static const struct {
        const char *header;
        size_t data;
        int64_t length_add;
        const char *says;
    } cases[] = {
        {"{" X "}", 8, 1 << 20, "longer than the file"},
        {"{" X "}", 8, -9999, "longer than the file"},
        {"{" X "}", 8, -1, "not one JSON object"},
        {"[]", 0, 0, "not one JSON object"},
        {"{\"a\":", 0, 0, "not one JSON object"},
        {"{} x", 0, 0, "not one JSON object"},
        {"{" X "}", 7, 0, "outside the file"},
        {"{" X "}", 9, 0, "bytes follow"},
        {"{" X "," X "}", 8, 0, "overlaps"},
        {"{" X ",\"x\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[8,8]}}", 8, 0, "twice"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[1,9]}}", 9, 0, "hole"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", 8, 0, "outside"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8, 0, "disagree"},
        {"{\"x\":{\"dtype\":\"Q8\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, 0, "dtype"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8, 0, "shape"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,8]}}", 8, 0, "shape"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[1e300],\"data_offsets\":[0,8]}}", 8, 0, "shape"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296,4],\"data_offsets\":[0,0]}}", 0, 0, "shape"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,2],\"data_offsets\":[0,8]}}", 8, 0, "shape"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", 8, 0, "data_offsets"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,\"8\"]}}", 8, 0, "data_offsets"},
        {"{\"x\":[]}", 0, 0, "not an object"},
        {"{\"__metadata__\":{\"a\":1}}", 0, 0, "other than strings"},
        {"{\"__metadata__\":[]}", 0, 0, "not an object"},
    };
    safetensors_t *file;
    struct error err;

    (void)state;
    for (size_t i = 0; i < TD_LEN(cases); i++) {
        const char *path = file_of(cases[i].header, cases[i].data, cases[i].length_add);
        int rc = safetensors_open(&file, path, &err);

        if (rc != TD_ECORRUPT || strstr(err.text, cases[i].says) == NULL || strstr(err.text, path) == NULL)
            fail_msg("case %zu %s: code %d, \"%s\", expected \"%s\"", i, cases[i].header, rc, err.text,
                     cases[i].says);
        assert_null(file);
    }
    assert_int_equal(safetensors_open(&file, file_named("absent"), &err), TD_ENOTFOUND);
    assert_int_equal(safetensors_open(&file, test_folder(), &err), TD_EINVAL);
}

static void a_file_that_shrinks_is_an_error(void **state)
{
    const char *path = file_of("{" X "}", 8, 0);
    safetensors_t *file;
    struct error err;
    float out[2];

    (void)state;
    assert_ok(safetensors_open(&file, path, &err), err);
    assert_int_equal(truncate(path, 60), 0);
    assert_int_equal(safetensors_read(file, safetensors_find(file, "x"), out, &err), TD_ECORRUPT);
    safetensors_close(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recorded_files_open),
        cmocka_unit_test(what_is_written_is_read_back),
        cmocka_unit_test(a_failed_write_leaves_the_old_file),
        cmocka_unit_test(hostile_files_are_refused_with_a_sentence),
        cmocka_unit_test(a_file_that_shrinks_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
