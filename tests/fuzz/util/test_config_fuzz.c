/*
 * Random words and files: never a crash, every refusal has a sentence, and whatever is taken is in
 * range, prints, and reads back the same.
 */
#include "tests/support/test.h"

#include "common/util/config.h"
#include "common/util/fs.h"

static uint32_t below(uint32_t limit)
{
    return rng_u32(test_rng()) % limit;
}

/* A word made of pieces that mean something, with bytes thrown in. */
static void random_word(char *out, size_t size)
{
    static const char *const pieces[] = {"=", "--", "-", "_", "1", "9", "e", "e9", ".", "*", "/", "+",
                                         "true", "no", "steps", "seed", "lr", "mpc", "task", "exp_name",
                                         "obs", "evaluator", "auto", "state", "obs_shape", "config",
                                         "\xc3\xa9", "\xff", "\n", " ", "0x", "nan", "inf", "%s", "???",
                                         "999999999999999999999", "utd=", "tau=0.", "steps=1", "--mpc"};
    int count, parts = 1 + (int)below(6);
    const struct config_option *options = config_options(&count);

    out[0] = '\0';
    if (below(2) == 0)
        snprintf(out, size, "%s=", options[below((uint32_t)count)].name);
    for (int i = 0; i < parts; i++) {
        size_t used = strlen(out);

        if (below(8) == 0 && used + 2 < size) {
            out[used] = (char)(1 + below(255));
            out[used + 1] = '\0';
        } else {
            snprintf(out + used, size - used, "%s", pieces[below(TD_LEN(pieces))]);
        }
    }
}

static void assert_all_in_range(const struct config *config)
{
    int count;
    const struct config_option *options = config_options(&count);

    for (int i = 0; i < count; i++) {
        const char *at = (const char *)config + options[i].offset;

        if (options[i].type == CONFIG_INT) {
            assert_true((double)*(const int64_t *)at >= options[i].min);
            assert_true((double)*(const int64_t *)at <= options[i].max);
        } else if (options[i].type == CONFIG_REAL) {
            assert_true(*(const double *)at >= options[i].min && *(const double *)at <= options[i].max);
        } else if (options[i].type == CONFIG_TEXT) {
            assert_non_null(memchr(at, '\0', CONFIG_TEXT_MAX));
        }
    }
}

static void words_are_taken_whole_or_refused(void **state)
{
    int rounds = test_long() ? 2000000 : 100000, taken = 0;
    struct config config;

    (void)state;
    config_init(&config);
    for (int i = 0; i < rounds; i++) {
        struct config before = config;
        struct error err = {0};
        char word[256];
        int rc;

        random_word(word, sizeof(word));
        rc = config_set(&config, word, &err);
        taken += rc == TD_OK;
        if (rc != TD_OK) {
            assert_int_equal(rc, TD_EINVAL);
            assert_true(err.text[0] != '\0' && strchr(err.text, '%') != err.text);
            assert_memory_equal(&config, &before, sizeof(config));
        }
        assert_all_in_range(&config);
        config_check(&config, &err);
    }
    assert_true(taken > rounds / 100);
}

static void command_lines_never_crash(void **state)
{
    (void)state;
    for (int i = 0; i < 5000; i++) {
        char words[4][256], *argv[4];
        struct config config;
        struct error err = {0};

        config_init(&config);
        for (int j = 0; j < 4; j++) {
            do
                random_word(words[j], sizeof(words[j]));
            while (strstr(words[j], "config") != NULL);
            argv[j] = words[j];
        }
        if (config_parse(&config, 1 + (int)below(4), argv, NULL, &err) != TD_OK)
            assert_true(err.text[0] != '\0');
        assert_all_in_range(&config);
    }
}

/* A saved file with a few bytes changed. */
static void damaged_files_never_crash(void **state)
{
    int rounds = test_long() ? 20000 : 1000;
    char path[FS_PATH_MAX], *bytes;
    struct config config;
    struct error err = {0};
    size_t length;

    (void)state;
    snprintf(path, sizeof(path), "%s/options.yaml", test_folder());
    config_init(&config);
    assert_ok(config_save(&config, path, &err), err);
    assert_ok(fs_read_file(path, 1 << 20, &bytes, &length, &err), err);
    for (int i = 0; i < rounds; i++) {
        static const char marks[] = "&*{}[]-:\"'#!|>%@`\n\t\0?,";
        char *copy = malloc(length);
        size_t kept = below(10) == 0 ? below((uint32_t)length) : length;
        FILE *file = fopen(path, "w");

        memcpy(copy, bytes, length);
        for (uint32_t j = below(5); j > 0; j--)
            copy[below((uint32_t)length)] = below(2) ? marks[below(sizeof(marks))] : (char)below(256);
        assert_int_equal(fwrite(copy, 1, kept, file), kept);
        fclose(file);
        free(copy);
        config_init(&config);
        if (config_load(&config, path, NULL, &err) != TD_OK)
            assert_non_null(strstr(err.text, path));
        assert_all_in_range(&config);
    }
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_are_taken_whole_or_refused),
        cmocka_unit_test(command_lines_never_crash),
        cmocka_unit_test(damaged_files_never_crash),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
