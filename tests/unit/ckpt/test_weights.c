#include "tests/support/test.h"

#include <sys/stat.h>
#include <unistd.h>

#include "common/ckpt/pt.h"
#include "common/ckpt/weights.h"
#include "common/util/fs.h"

static const char *const names[] = {"tiny-state", "tiny-episodic", "tiny-multitask", "tiny-rgb"};

struct loaded {
    weights_t *weights;
    struct model_layout layout;
    float *parameters;
    int actions[TASKS_MAX];
};

static void load(struct loaded *loaded, const char *path)
{
    struct model_dims dims = {.simnorm_dim = 8, .vmin = -10, .vmax = 10, .log_std_min = -10, .log_std_max = 2};
    struct error err;

    assert_ok(weights_open(&loaded->weights, path, &err), err);
    assert_ok(weights_dims(loaded->weights, &dims, &err), err);
    model_layout_init(&loaded->layout, &dims);
    loaded->parameters = calloc(model_all_floats(&loaded->layout), sizeof(float));
    assert_non_null(loaded->parameters);
    assert_ok(weights_read(loaded->weights, &loaded->layout, true, loaded->parameters, &err), err);
    for (int i = 0; i < dims.num_tasks; i++)
        loaded->actions[i] = weights_task_action(loaded->weights, i);
}

static void release(struct loaded *loaded)
{
    weights_close(&loaded->weights);
    free(loaded->parameters);
}

static void assert_same(const struct loaded *one, const struct loaded *two)
{
    assert_int_equal(one->layout.parameters, two->layout.parameters);
    assert_memory_equal(one->actions, two->actions, sizeof(int) * (size_t)one->layout.dims.num_tasks);
    assert_memory_equal(one->parameters, two->parameters, model_all_floats(&one->layout) * sizeof(float));
}

/* Every `param.*` of the plan file, also buffers, from a file that was imported: names, types and bits. */
static void imports_hold_all_recorded_parameters(void **state)
{
    static struct loaded ours;

    (void)state;
    for (size_t n = 0; n < TD_LEN(names); n++) {
        char from[200], to[700];
        struct error err;
        safetensors_t *plan, *file;
        int parameters = 0;

        snprintf(from, sizeof(from), "tests/golden/%s.pt", names[n]);
        load(&ours, from);
        snprintf(to, sizeof(to), "%s/%s.safetensors", test_folder(), names[n]);
        assert_ok(weights_write_safetensors(to, &ours.layout, ours.parameters, ours.actions, NULL, 0, &err), err);
        snprintf(from, sizeof(from), "tests/golden/%s.plan.safetensors", names[n]);
        assert_ok(safetensors_open(&plan, from, &err), err);
        assert_ok(safetensors_open(&file, to, &err), err);
        for (int i = 0; i < safetensors_count(plan); i++) {
            const struct safetensors_tensor *wanted = safetensors_at(plan, i), *got;
            char *a = malloc(wanted->bytes + 1), *b = malloc(wanted->bytes + 1);

            if (strncmp(wanted->name, "param.", 6) == 0) {
                got = safetensors_find(file, wanted->name + 6);
                assert_non_null(got);
                assert_int_equal(got->type, wanted->type);
                assert_int_equal(got->dims, wanted->dims);
                assert_int_equal(got->bytes, wanted->bytes);
                assert_ok(safetensors_read(plan, wanted, a, &err), err);
                assert_ok(safetensors_read(file, got, b, &err), err);
                assert_memory_equal(a, b, wanted->bytes);
                parameters++;
            }
            free(a);
            free(b);
        }
        assert_int_equal(parameters, safetensors_count(file));
        safetensors_close(&plan);
        safetensors_close(&file);
        release(&ours);
    }
}

/* The same names, in the same order, with the same types, shapes and bytes as the official save wrote them. */
static void exports_are_the_official_files(void **state)
{
    static struct loaded ours;

    (void)state;
    for (size_t n = 0; n < TD_LEN(names); n++) {
        char from[200], to[700];
        struct error err;
        pt_t *one, *two;

        snprintf(from, sizeof(from), "tests/golden/%s.pt", names[n]);
        load(&ours, from);
        snprintf(to, sizeof(to), "%s/%s.pt", test_folder(), names[n]);
        assert_ok(weights_write_pt(to, &ours.layout, ours.parameters, ours.actions, &err), err);
        assert_ok(pt_open(&one, from, &err), err);
        assert_ok(pt_open(&two, to, &err), err);
        assert_int_equal(pt_count(one), pt_count(two));
        for (int i = 0; i < pt_count(one); i++) {
            const struct pt_tensor *a = pt_at(one, i), *b = pt_at(two, i);
            size_t bytes = (size_t)a->elements * safetensors_type_size(a->type);
            void *first = malloc(bytes + 1), *second = malloc(bytes + 1);

            assert_string_equal(a->name, b->name);
            assert_int_equal(a->type, b->type);
            assert_int_equal(a->dims, b->dims);
            assert_int_equal(a->elements, b->elements);
            assert_memory_equal(a->shape, b->shape, sizeof(uint64_t) * (size_t)a->dims);
            assert_memory_equal(a->stride, b->stride, sizeof(uint64_t) * (size_t)a->dims);
            assert_ok(pt_read(one, a, 0, a->elements, first, &err), err);
            assert_ok(pt_read(two, b, 0, b->elements, second, &err), err);
            assert_ok(pt_verify(two, b, &err), err);
            assert_memory_equal(first, second, bytes);
            free(first);
            free(second);
        }
        assert_int_equal(pt_leaves(one), pt_leaves(two));
        for (int i = 0; i < pt_leaves(one); i++) {
            assert_string_equal(pt_leaf_at(one, i)->name, pt_leaf_at(two, i)->name);
            assert_int_equal(pt_leaf_at(one, i)->kind, pt_leaf_at(two, i)->kind);
        }
        pt_close(&one);
        pt_close(&two);
        release(&ours);
    }
}

static void the_older_key_format_holds_the_same(void **state)
{
    static struct loaded old, new;

    (void)state;
    load(&old, "tests/golden/tiny-state.old-format.pt");
    load(&new, "tests/golden/tiny-state.pt");
    assert_same(&old, &new);
    assert_int_equal(weights_model_size(&new.layout.dims), 0);
    release(&old);
    release(&new);
}

static void model_sizes_are_told_by_shapes(void **state)
{
    static const int sizes[] = {1, 5, 19, 48, 317};

    (void)state;
    for (size_t i = 0; i < TD_LEN(sizes); i++) {
        struct config config;
        struct model_dims dims;
        struct error err;

        config_init(&config);
        config.model_size = sizes[i];
        assert_ok(model_dims_init(&dims, &config, 24, 6, &err), err);
        assert_int_equal(weights_model_size(&dims), sizes[i]);
    }
}

/* One bit of a parameter: its bytes no longer fit the checksum that the file has of them. */
static void a_flipped_bit_is_found(void **state)
{
    struct model_dims dims = {.simnorm_dim = 8, .vmin = -10, .vmax = 10, .log_std_min = -10, .log_std_max = 2};
    struct model_layout layout;
    weights_t *weights;
    struct error err;
    char path[FS_PATH_MAX], *bytes, *at;
    float *parameters, known[4];
    size_t length;
    pt_t *file;

    (void)state;
    assert_ok(pt_open(&file, "tests/golden/tiny-state.pt", &err), err);
    assert_ok(pt_read(file, pt_find(file, "model/_pi.0.weight"), 0, TD_LEN(known), known, &err), err);
    pt_close(&file);
    assert_ok(fs_read_file("tests/golden/tiny-state.pt", 1 << 26, &bytes, &length, &err), err);
    at = memmem(bytes, length, known, sizeof(known));
    assert_non_null(at);
    at[1] ^= 4;
    assert_ok(fs_join(path, test_folder(), "flipped.pt", &err), err);
    assert_ok(fs_write_file(path, bytes, length, &err), err);
    free(bytes);
    assert_ok(weights_open(&weights, path, &err), err);
    assert_ok(weights_dims(weights, &dims, &err), err);
    model_layout_init(&layout, &dims);
    parameters = calloc(model_all_floats(&layout), sizeof(float));
    assert_int_equal(weights_read(weights, &layout, true, parameters, &err), TD_ECORRUPT);
    assert_non_null(strstr(err.text, "does not fit its checksum"));
    free(parameters);
    weights_close(&weights);
}

/* What is named *.pt is spoken of as such; a pipe is not waited for. */
static void what_is_no_pt_file_is_said(void **state)
{
    char path[FS_PATH_MAX];
    struct error err;
    weights_t *weights;

    (void)state;
    assert_ok(fs_join(path, test_folder(), "text.pt", &err), err);
    assert_ok(fs_write_file(path, "only some words that are no archive of anything", 47, &err), err);
    assert_int_not_equal(weights_open(&weights, path, &err), TD_OK);
    assert_non_null(strstr(err.text, "is no *.pt file of PyTorch"));
    assert_ok(fs_join(path, test_folder(), "pipe", &err), err);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_not_equal(weights_open(&weights, path, &err), TD_OK);
    assert_non_null(strstr(err.text, "is not a file"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(imports_hold_all_recorded_parameters),
        cmocka_unit_test(exports_are_the_official_files),
        cmocka_unit_test(the_older_key_format_holds_the_same),
        cmocka_unit_test(model_sizes_are_told_by_shapes),
        cmocka_unit_test(a_flipped_bit_is_found),
        cmocka_unit_test(what_is_no_pt_file_is_said),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
