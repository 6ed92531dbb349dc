#include "tests/support/test.h"

#include "common/ckpt/manifest.h"

static struct manifest sample(void)
{
    struct manifest manifest;
    struct error err = {0};
    cJSON *shard = cJSON_CreateObject();

    assert_int_equal(manifest_init(&manifest), TD_OK);
    manifest.kind = CHECKPOINT_CUT;
    manifest.sequence = 7;
    manifest.run_id = 0x8123456789abcdefull;
    manifest.step = 5000;
    manifest.updates = 4001;
    snprintf(manifest.blas, sizeof(manifest.blas), "SkylakeX");
    snprintf(manifest.simd, sizeof(manifest.simd), "avx512");
    assert_ok(config_set(&manifest.config, "lr=0.30000000000000004", &err), err);
    assert_ok(config_set(&manifest.config, "exp_name=a \"b\"", &err), err);
    assert_ok(config_set(&manifest.config, "work_dir=elsewhere", &err), err);
    manifest_put_u64(manifest.progress, "episodes", 12);
    manifest_put_u64(shard, "store_id", UINT64_MAX - 1);
    cJSON_AddItemToObject(manifest.seeds, "shard", shard);
    snprintf(manifest.files[0].name, MANIFEST_NAME_MAX, "parameters.safetensors");
    manifest.files[0].bytes = 123456789012ull;
    fs_sha256("x", 1, manifest.files[0].sha256);
    manifest.file_count = 1;
    return manifest;
}

static void what_is_printed_parses_back(void **state)
{
    struct manifest manifest = sample(), other;
    struct error err = {0};
    char *text = manifest_print(&manifest);
    uint64_t value;

    (void)state;
    assert_ok(manifest_parse(&other, text, strlen(text), "here", &err), err);
    assert_int_equal(other.kind, CHECKPOINT_CUT);
    assert_int_equal(other.sequence, 7);
    assert_true(other.run_id == manifest.run_id);
    assert_int_equal(other.step, 5000);
    assert_int_equal(other.updates, 4001);
    assert_string_equal(other.version, manifest.version);
    assert_string_equal(other.blas, "SkylakeX");
    assert_true(other.config.lr == 0.30000000000000004);
    assert_string_equal(other.config.exp_name, "a \"b\"");
    assert_string_equal(other.config.work_dir, ""); /* of one process: not kept */
    assert_ok(manifest_get_u64(other.progress, "episodes", &value, &err), err);
    assert_int_equal(value, 12);
    assert_ok(manifest_get_u64(cJSON_GetObjectItem(other.seeds, "shard"), "store_id", &value, &err), err);
    assert_true(value == UINT64_MAX - 1);
    assert_int_equal(other.file_count, 1);
    assert_int_equal(other.files[0].bytes, 123456789012ull);
    assert_string_equal(other.files[0].sha256, manifest.files[0].sha256);
    manifest_release(&other);
    manifest_release(&manifest);
    free(text);
}

static void big_numbers_stay_exact(void **state)
{
    static const uint64_t values[] = {0, 1, 1ull << 53, (1ull << 53) + 1, UINT64_MAX};
    static const char *const wrong[] = {"-1", "1.5", "1e300", "\"\"", "\"-1\"", "\"18446744073709551616\"",
                                        "\"1x\"", "true", "null", "[]"};
    cJSON *object = cJSON_CreateObject();
    struct error err = {0};
    uint64_t value;

    (void)state;
    for (size_t i = 0; i < TD_LEN(values); i++) {
        assert_int_equal(manifest_put_u64(object, "key", values[i]), TD_OK);
        assert_int_equal(cJSON_GetArraySize(object), 1);
        char *text = cJSON_Print(object);
        cJSON_Delete(object);
        object = cJSON_Parse(text);
        free(text);
        assert_ok(manifest_get_u64(object, "key", &value, &err), err);
        assert_true(value == values[i]);
    }
    assert_int_equal(manifest_get_u64(object, "Key", &value, &err), TD_ENOTFOUND);
    cJSON_Delete(object);
    for (size_t i = 0; i < TD_LEN(wrong); i++) {
        char text[64];
        snprintf(text, sizeof(text), "{\"key\": %s}", wrong[i]);
        object = cJSON_Parse(text);
        assert_int_equal(manifest_get_u64(object, "key", &value, &err), TD_ECORRUPT);
        cJSON_Delete(object);
    }
}

/* Replace one piece of a good manifest; it must be refused with these words. */
static void assert_refused(const char *from, const char *to, int code, const char *says)
{
    struct manifest manifest = sample(), other;
    struct error err = {0};
    char *text = manifest_print(&manifest), *at = strstr(text, from), *edited;

    assert_non_null(at);
    edited = calloc(1, strlen(text) + strlen(to) + 1);
    memcpy(edited, text, (size_t)(at - text));
    strcat(edited, to);
    strcat(edited, at + strlen(from));
    assert_int_equal(manifest_parse(&other, edited, strlen(edited), "here", &err), code);
    if (strstr(err.text, says) == NULL || strncmp(err.text, "here", 4) != 0)
        fail_msg("\"%s\" lacks \"%s\"", err.text, says);
    manifest_release(&other);
    manifest_release(&manifest);
    free(edited);
    free(text);
}

static void bad_manifests_are_refused(void **state)
{
    (void)state;
    assert_refused("{", "[", TD_ECORRUPT, "JSON");
    assert_refused("\"format\":\t1", "\"format\":\t2", TD_EFOREIGN, "format 2");
    assert_refused("\"format\":\t1", "\"format\":\t\"x\"", TD_ECORRUPT, "format");
    assert_refused("\"kind\":\t\"cut\"", "\"kind\":\t\"cat\"", TD_ECORRUPT, "kind");
    assert_refused("\"kind\":\t\"cut\"", "\"kind\":\t5", TD_ECORRUPT, "kind");
    assert_refused("\"step\":\t5000", "\"step\":\t-5000", TD_ECORRUPT, "step");
    assert_refused("\"step\":\t5000,", "", TD_ECORRUPT, "step");
    assert_refused("\"8123456789abcdef\"", "\"8123456789abcdeg\"", TD_ECORRUPT, "run_id");
    assert_refused("\"8123456789abcdef\"", "\"8123\"", TD_ECORRUPT, "run_id");
    assert_refused("\"progress\":\t{", "\"other\":\t{", TD_ECORRUPT, "progress");
    assert_refused("\"seeds\":\t{", "\"seed\":\t{", TD_ECORRUPT, "seeds");
    assert_refused("\"lr\":\t0.30000000000000004", "\"lr\":\t30", TD_ECORRUPT, "lr");
    assert_refused("\"lr\":\t0.30000000000000004", "\"lr\":\t[]", TD_ECORRUPT, "neither");
    assert_refused("\"lr\":", "\"new_option\":", TD_EFOREIGN, "new_option");
    assert_refused("\"num_elites\":\t64", "\"num_elites\":\t6400", TD_ECORRUPT, "num_elites");
    assert_refused("\"parameters.safetensors\"", "\"../parameters\"", TD_ECORRUPT, "file name");
    assert_refused("\"parameters.safetensors\"", "\"/etc/passwd\"", TD_ECORRUPT, "file name");
    assert_refused("\"parameters.safetensors\"", "\"\"", TD_ECORRUPT, "file name");
    assert_refused("\"sha256\":\t\"2d7", "\"sha256\":\t\"2dX", TD_ECORRUPT, "hash");
    assert_refused("\"files\":\t[", "\"files\":\t[{}, ", TD_ECORRUPT, "name");
    assert_refused("\"files\":\t[", "\"files\":\t[], \"were\":\t[", TD_ECORRUPT, "names none");
    assert_refused("\"options\":\t{", "\"options\":\t{}, \"were\":\t{", TD_ECORRUPT, "is empty");
}

/* No byte of a manifest, cut or flipped, makes the parser do worse than refuse. */
static void damage_anywhere_is_survived(void **state)
{
    struct manifest manifest = sample(), other;
    char *text = manifest_print(&manifest);
    size_t length = strlen(text);

    (void)state;
    for (size_t i = 0; i < length; i++) {
        char kept = text[i];
        struct error err = {0};

        assert_int_not_equal(manifest_parse(&other, text, i, "here", &err), TD_OK);
        manifest_release(&other);
        text[i] = (char)rng_u32(test_rng());
        manifest_parse(&other, text, length, "here", &err);
        assert_in_range(other.file_count, 0, MANIFEST_FILES_MAX);
        manifest_release(&other);
        text[i] = kept;
    }
    manifest_release(&manifest);
    free(text);
}

static void names_that_leave_the_folder_are_invalid(void **state)
{
    char longer[MANIFEST_NAME_MAX + 1];

    (void)state;
    assert_true(manifest_name_valid("step-5000"));
    assert_true(manifest_name_valid("a.b_c-1"));
    assert_false(manifest_name_valid(""));
    assert_false(manifest_name_valid("."));
    assert_false(manifest_name_valid(".."));
    assert_false(manifest_name_valid("a/b"));
    assert_false(manifest_name_valid("-rf"));
    assert_false(manifest_name_valid("a b"));
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    assert_false(manifest_name_valid(longer));
    assert_true(manifest_name_valid(longer + 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_printed_parses_back),
        cmocka_unit_test(big_numbers_stay_exact),
        cmocka_unit_test(bad_manifests_are_refused),
        cmocka_unit_test(damage_anywhere_is_survived),
        cmocka_unit_test(names_that_leave_the_folder_are_invalid),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
