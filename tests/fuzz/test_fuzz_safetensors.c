/* Random damage to a valid file: the reader answers with TD_OK or a sentence, never worse. */
#include "tests/support/test.h"

#include <unistd.h>

#include "common/ckpt/safetensors.h"

static size_t make_valid(const char *path, unsigned char *bytes, size_t size)
{
    float floats[4] = {1, 2, 3, 4};
    const struct safetensors_tensor tensors[] = {
        {.name = "a", .type = SAFETENSORS_F32, .dims = 2, .shape = {1, 3}, .data = floats},
        {.name = "b", .type = SAFETENSORS_U8, .dims = 1, .shape = {4}, .data = floats},
    };
    const struct safetensors_note note = {"config", "{\"k\":[1,2]}"};
    struct error err;
    size_t length;
    FILE *in;

    assert_ok(safetensors_write(path, tensors, 2, &note, 1, NULL, NULL, &err), err);
    in = fopen(path, "rb");
    assert_non_null(in);
    length = fread(bytes, 1, size, in);
    fclose(in);
    return length;
}

static void read_everything(const char *path)
{
    safetensors_t *file;
    struct error err = {0};
    unsigned char out[256];

    if (safetensors_open(&file, path, &err) != TD_OK) {
        assert_true(err.text[0] != '\0');
        assert_null(file);
        return;
    }
    for (int i = 0; i < safetensors_count(file); i++) {
        const struct safetensors_tensor *tensor = safetensors_at(file, i);

        assert_true(tensor->bytes <= sizeof(out)); /* it is a small file */
        assert_ptr_equal(safetensors_find(file, tensor->name), tensor);
        assert_ok(safetensors_read(file, tensor, out, &err), err);
    }
    safetensors_close(&file);
}

static void damaged_files_never_crash(void **state)
{
    static const char spice[] = "{}[]\",:0123456789-.eE\\ \n\xff";
    struct rng *rng = test_rng();
    unsigned char valid[512], bytes[512];
    char path[512];
    int rounds = test_long() ? 200000 : 4000;
    size_t length;

    (void)state;
    snprintf(path, sizeof(path), "%s/fuzz.safetensors", test_folder());
    length = make_valid(path, valid, sizeof(valid));
    read_everything(path);
    for (int round = 0; round < rounds; round++) {
        size_t keep = rng_below(rng, 8) == 0 ? rng_below(rng, (uint32_t)length + 1) : length;
        FILE *out = fopen(path, "wb");

        memcpy(bytes, valid, length);
        for (uint32_t n = rng_below(rng, 4) + 1; n > 0; n--)
            bytes[rng_below(rng, (uint32_t)length)] =
                rng_below(rng, 3) ? (unsigned char)spice[rng_below(rng, sizeof(spice) - 1)]
                                  : (unsigned char)rng_u32(rng);
        assert_non_null(out);
        fwrite(bytes, 1, keep, out);
        fclose(out);
        read_everything(path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(damaged_files_never_crash)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
