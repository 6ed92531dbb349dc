#include "tests/support/test.h"

#include <sys/stat.h>
#include <unistd.h>

#include "common/ckpt/pt.h"
#include "common/ckpt/weights.h"

static void *whole(const pt_t *file, const struct pt_tensor *tensor)
{
    struct error err;
    void *out = malloc((size_t)(tensor->elements * safetensors_type_size(tensor->type)) + 1);

    assert_non_null(out);
    assert_ok(pt_read(file, tensor, 0, tensor->elements, out, &err), err);
    return out;
}

/* The recorded files hold the parameters of the plan files, under the same names, bit for bit. */
static void checkpoints_hold_the_recorded_parameters(void **state)
{
    static const char *const names[] = {"tiny-state", "tiny-episodic", "tiny-multitask", "tiny-rgb"};

    (void)state;
    for (size_t n = 0; n < TD_LEN(names); n++) {
        char path[200];
        struct error err;
        safetensors_t *plan;
        pt_t *file;
        int compared = 0;

        snprintf(path, sizeof(path), "tests/golden/%s.pt", names[n]);
        assert_true(pt_looks_like(path));
        assert_ok(pt_open(&file, path, &err), err);
        snprintf(path, sizeof(path), "tests/golden/%s.plan.safetensors", names[n]);
        assert_false(pt_looks_like(path));
        assert_ok(safetensors_open(&plan, path, &err), err);
        for (int i = 0; i < pt_count(file); i++) {
            const struct pt_tensor *tensor = pt_at(file, i);
            const struct safetensors_tensor *recorded;
            char name[256];
            void *ours, *theirs;

            assert_memory_equal(tensor->name, "model/", 6);
            snprintf(name, sizeof(name), "param.%s", tensor->name + 6);
            recorded = safetensors_find(plan, name);
            if (recorded == NULL || tensor->type != SAFETENSORS_F32) /* log-std bounds: integers here, floats there */
                continue;
            assert_ok(pt_verify(file, tensor, &err), err);
            assert_int_equal(tensor->type, recorded->type);
            assert_int_equal(tensor->dims, recorded->dims);
            ours = whole(file, tensor);
            theirs = malloc(recorded->bytes);
            assert_ok(safetensors_read(plan, recorded, theirs, &err), err);
            assert_memory_equal(ours, theirs, recorded->bytes);
            free(ours);
            free(theirs);
            compared++;
        }
        assert_true(compared > 30);
        assert_int_equal(pt_leaf(file, "model/_Qs.params.__batch_size")->ints[0], 5);
        assert_int_equal(pt_leaf(file, "model/_Qs.params.__device")->kind, PT_NONE);
        safetensors_close(&plan);
        pt_close(&file);
    }
}

/* What is no *.pt is refused in words about *.pt when its name or its first bytes say so; a pipe holds nobody. */
static void what_is_no_zip_file_is_refused_as_such(void **state)
{
    static const struct {
        const char *name, *bytes;
        size_t length;
        bool ours;
    } files[] = {
        {"legacy.bin", "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 15, true},
        {"pickle.pt", "\x80\x04\x95\x05\0\0\0\0\0\0\0}\x94.", 14, true},
        {"short.pt", "P", 1, true},
        {"empty.pt", "", 0, true},
        {"nothing.zip", "PK\5\6\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 22, true},
        {"named.pt", "\2\0\0\0\0\0\0\0{}", 10, false},
        {"short.safetensors", "P", 1, false},
    };
    char path[600];
    struct error err;
    weights_t *weights;

    (void)state;
    for (size_t i = 0; i < TD_LEN(files); i++) {
        FILE *file;

        snprintf(path, sizeof(path), "%s/%s", test_folder(), files[i].name);
        file = fopen(path, "wb");
        assert_non_null(file);
        assert_int_equal(fwrite(files[i].bytes, 1, files[i].length, file), files[i].length);
        fclose(file);
        assert_int_equal(pt_looks_like(path), files[i].ours);
        assert_int_not_equal(weights_open(&weights, path, &err), TD_OK);
        if (files[i].ours)
            assert_null(strstr(err.text, "safetensors file"));
    }
    snprintf(path, sizeof(path), "%s/pipe.pt", test_folder());
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(weights_open(&weights, path, &err), TD_EINVAL);
    assert_non_null(strstr(err.text, "is not a file"));
}

static void chunks_hold_the_expected_rows(void **state)
{
    static const char *const names[] = {"0.1.2", "0.8.3"};

    (void)state;
    for (size_t n = 0; n < TD_LEN(names); n++) {
        char path[200];
        struct error err;
        safetensors_t *expected;
        pt_t *file;

        snprintf(path, sizeof(path), "tests/golden/dataset-tensordict-%s.pt", names[n]);
        assert_ok(pt_open(&file, path, &err), err);
        assert_ok(safetensors_open(&expected, "tests/golden/dataset.expected.safetensors", &err), err);
        assert_int_equal(pt_count(file), safetensors_count(expected));
        for (int i = 0; i < safetensors_count(expected); i++) {
            const struct safetensors_tensor *wanted = safetensors_at(expected, i);
            const struct pt_tensor *tensor = pt_find(file, wanted->name);
            uint8_t *ours = malloc(2 * wanted->bytes), *theirs = malloc(wanted->bytes);
            uint64_t step = 7;
            size_t size;

            assert_non_null(tensor);
            size = safetensors_type_size(tensor->type);
            assert_int_equal(tensor->elements, safetensors_elements(wanted));
            assert_ok(safetensors_read(expected, wanted, theirs, &err), err);
            for (uint64_t at = 0; at < tensor->elements; at += step) /* in pieces */
                assert_ok(pt_read(file, tensor, at, tensor->elements - at < step ? tensor->elements - at : step,
                                  ours + at * size, &err),
                          err);
            assert_int_equal(tensor->type, wanted->type == SAFETENSORS_I32 ? SAFETENSORS_I64 : wanted->type);
            for (uint64_t at = 0; tensor->type == SAFETENSORS_I64 && at < tensor->elements; at++)
                assert_int_equal(((int64_t *)(void *)ours)[at], ((int32_t *)(void *)theirs)[at]);
            if (tensor->type != SAFETENSORS_I64)
                assert_memory_equal(ours, theirs, wanted->bytes);
            free(ours);
            free(theirs);
        }
        assert_int_equal(pt_leaf(file, "_batch_size")->count, 2);
        assert_int_equal(pt_leaf(file, "_batch_size")->ints[1], 101);
        safetensors_close(&expected);
        pt_close(&file);
        assert_null(file);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(checkpoints_hold_the_recorded_parameters),
        cmocka_unit_test(what_is_no_zip_file_is_refused_as_such),
        cmocka_unit_test(chunks_hold_the_expected_rows),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
