#include "tests/support/test.h"

#include <math.h>
#include <unistd.h>

#include "common/util/config.h"
#include "common/util/fs.h"

static char path_text[FS_PATH_MAX];

static const char *in_folder(const char *name)
{
    assert_int_equal(fs_join(path_text, test_folder(), name, NULL), TD_OK);
    return path_text;
}

static int find(const char *name)
{
    int count;
    const struct config_option *options = config_options(&count);

    for (int i = 0; i < count; i++)
        if (strcmp(options[i].name, name) == 0)
            return i;
    fail_msg("no option %s", name);
    return -1;
}

static void assert_set(struct config *config, const char *word)
{
    struct error err = {0};

    assert_ok(config_set(config, word, &err), err);
}

/* Refused with a sentence that holds all of the words, and nothing changed. */
static void assert_refused(const char *word, const char *first, const char *second)
{
    struct config config, before;
    struct error err = {0};

    config_init(&config);
    before = config;
    assert_int_equal(config_set(&config, word, &err), TD_EINVAL);
    if (strstr(err.text, first) == NULL || strstr(err.text, second) == NULL)
        fail_msg("%s: \"%s\" lacks \"%s\" or \"%s\"", word, err.text, first, second);
    assert_memory_equal(&config, &before, sizeof(config));
}

static void defaults_are_the_reference_s(void **state)
{
    struct config config;

    (void)state;
    config_init(&config);
    assert_int_equal(config.steps, 10000000);
    assert_int_equal(config.batch_size, 256);
    assert_int_equal(config.num_samples, 512);
    assert_true(config.lr == 3e-4 && config.enc_lr_scale == 0.3 && config.rho == 0.5);
    assert_true(config.mpc && !config.episodic && !config.lockstep);
    assert_string_equal(config.exp_name, "default");
    struct error err = {0};
    assert_ok(config_check(&config, &err), err);
}

/* What the table prints as a default reads back as the default. */
static void every_default_is_in_range_and_reads_back(void **state)
{
    int count;
    const struct config_option *options = config_options(&count);
    struct config config, other;
    struct error err = {0};

    (void)state;
    config_init(&config);
    config_init(&other);
    for (int i = 0; i < count; i++) {
        char word[CONFIG_TEXT_MAX + 64], value[CONFIG_TEXT_MAX];

        if (options[i].type == CONFIG_TEXT && options[i].value[0] == '\0')
            continue;
        snprintf(word, sizeof(word), "%s=%s", options[i].name, options[i].value);
        assert_ok(config_set(&other, word, &err), err);
        snprintf(word, sizeof(word), "%s=%s", options[i].name,
                 config_format(&config, &options[i], value, sizeof(value)));
        assert_ok(config_set(&other, word, &err), err);
        assert_true(strlen(options[i].sentence) >= 10);
    }
    assert_memory_equal(&config, &other, sizeof(config));
}

static void numbers_are_read_as_people_write_them(void **state)
{
    static const struct {
        const char *word;
        int64_t steps;
    } whole[] = {{"steps=5000", 5000}, {"steps=5_000", 5000}, {"steps=1e6", 1000000},
                 {"steps=2.5e3", 2500}, {"steps=10*1000", 10000}, {"steps=10+5", 15},
                 {"steps=100-1", 99}, {"steps=100/4", 25}, {"steps=1_0*2_0", 200}, {"steps=+7", 7}};
    struct config config;

    (void)state;
    config_init(&config);
    for (size_t i = 0; i < TD_LEN(whole); i++) {
        assert_set(&config, whole[i].word);
        assert_int_equal(config.steps, whole[i].steps);
    }
    assert_set(&config, "lr=1e-3");
    assert_true(config.lr == 1e-3);
    assert_set(&config, "lr=1/4");
    assert_true(config.lr == 0.25);
    assert_set(&config, "lr=-0");
    assert_false(signbit(config.lr));
    assert_set(&config, "actor=-1");
    assert_int_equal(config.actor, -1);
    assert_set(&config, "seed=4294967295");
    assert_int_equal(config.seed, 4294967295);
    for (const char *const *word = (const char *const[]){"mpc=no", "mpc=false", "mpc=0", "mpc=False", NULL};
         *word != NULL; word++) {
        config.mpc = true;
        assert_set(&config, *word);
        assert_false(config.mpc);
    }
    assert_set(&config, "mpc=yes");
    assert_true(config.mpc);
    assert_set(&config, "exp_name=a=b");
    assert_string_equal(config.exp_name, "a=b");
    assert_set(&config, "learner=");
    assert_string_equal(config.learner, "");
}

static void wrong_values_are_refused_with_their_range(void **state)
{
    char longer[CONFIG_TEXT_MAX + 20] = "exp_name=", bytes[32];

    (void)state;
    assert_refused("steps=0", "steps=0", "1 to 1000000000");
    assert_refused("steps=1e12", "out of range", "1 to 1000000000");
    assert_refused("tau=1.5", "tau=1.5", "0 to 1");
    assert_refused("steps=2.5", "not a whole number", "2.5");
    assert_refused("steps=1/3", "not a whole number", "1/3");
    assert_refused("steps=1/0", "not a whole number", "1/0");
    assert_refused("lr=1/0", "not a number", "1/0");
    assert_refused("steps=", "not a whole number", "steps");
    assert_refused("steps=ten", "not a whole number", "ten");
    assert_refused("steps=0x10", "not a whole number", "0x10");
    assert_refused("steps=5__0", "not a whole number", "5__0");
    assert_refused("steps=_50", "not a whole number", "_50");
    assert_refused("steps=10*", "not a whole number", "10*");
    assert_refused("steps=10*5*2", "not a whole number", "10*5*2");
    assert_refused("steps=1e999", "not a whole number", "1e999");
    assert_refused("steps= 5", "not a whole number", " 5");
    assert_refused("lr=nan", "not a number", "nan");
    assert_refused("lr=inf", "not a number", "inf");
    assert_refused("mpc=maybe", "neither true nor false", "maybe");
    assert_refused("obs=pixels", "none of state|rgb", "pixels");
    assert_refused("evaluator=", "none of auto|off|remote", "evaluator");
    assert_refused("evaluator=aut", "none of auto|off|remote", "evaluator");
    assert_refused("exp_name=a\nb", "control", "exp_name");
    assert_refused("exp_name=a\xff", "UTF-8", "exp_name");
    assert_refused("exp_name=\xc0\xaf", "UTF-8", "exp_name");
    assert_refused("exp_name=\xed\xa0\x80", "UTF-8", "exp_name");
    memset(longer + 9, 'x', CONFIG_TEXT_MAX);
    snprintf(bytes, sizeof(bytes), "%d bytes", CONFIG_TEXT_MAX);
    assert_refused(longer, bytes, "exp_name");
}

static void unknown_keys_name_the_nearest(void **state)
{
    (void)state;
    assert_refused("step=5", "unknown option 'step'", "'steps'");
    assert_refused("num_sample=5", "num_sample", "'num_samples'");
    assert_refused("samples=5", "samples", "'num_samples'");
    assert_refused("batchsize=5", "batchsize", "'batch_size'");
    assert_refused("sede=5", "sede", "'seed'");
    assert_refused("evalfreq=5", "evalfreq", "'eval_freq'");
    assert_refused("lock_step=true", "lock_step", "'lockstep'");
    assert_refused("Task=x", "Task", "'task'");
    assert_refused("steps", "key=value", "steps");
    assert_refused("=5", "key=value", "=5");
    assert_refused("", "key=value", "''");
}

static void derived_and_foreign_keys_say_why(void **state)
{
    (void)state;
    assert_refused("obs_shape=24", "obs_shape", "observations");
    assert_refused("bin_size=0.2", "bin_size", "vmax - vmin");
    assert_refused("multitask=true", "multitask", "follows from the tasks");
    assert_refused("episode_length=500", "episode_length", "time limit");
    assert_refused("action_dims=6", "action_dims", "actions");
    assert_refused("multitask=true", "multitask", "mt30");
    assert_refused("wandb_project=x", "wandb_project", "Weights & Biases");
    assert_refused("compile=true", "compile", "PyTorch");
    assert_refused("capacity=5", "capacity", "buffer_size");
    assert_refused("hydra/launcher=x", "hydra/launcher", "Hydra");
}

static void command_lines_take_every_spelling(void **state)
{
    char *argv[] = {"steps=10", "--num-samples", "100", "--num_elites=10", "--lockstep", "--mpc", "no",
                    "--seed", "7", "--force"};
    bool given[256] = {false};
    struct config config;
    struct error err = {0};

    (void)state;
    config_init(&config);
    assert_ok(config_parse(&config, (int)TD_LEN(argv), argv, given, &err), err);
    assert_int_equal(config.steps, 10);
    assert_int_equal(config.num_samples, 100);
    assert_int_equal(config.num_elites, 10);
    assert_int_equal(config.seed, 7);
    assert_true(config.lockstep && config.force && !config.mpc);
    assert_int_equal(config.actors, 1);
    assert_true(given[find("steps")] && given[find("mpc")] && given[find("force")]);
    assert_false(given[find("actors")] || given[find("task")]);

    assert_int_equal(config_parse(&config, 1, (char *[]){"--steps"}, NULL, &err), TD_EINVAL);
    assert_non_null(strstr(err.text, "needs a value"));
    assert_int_equal(config_parse(&config, 1, (char *[]){"--stepz"}, NULL, &err), TD_EINVAL);
    assert_non_null(strstr(err.text, "'steps'"));
    assert_int_equal(config_parse(&config, 2, (char *[]){"--stepz", "5"}, NULL, &err), TD_EINVAL);
    assert_int_equal(config_parse(&config, 1, (char *[]){"walker-walk"}, NULL, &err), TD_EINVAL);
}

static void write_text(const char *name, const char *text)
{
    struct error err = {0};

    assert_ok(fs_write_file(in_folder(name), text, strlen(text), &err), err);
}

static void words_win_over_the_file_beside_them(void **state)
{
    char word[FS_PATH_MAX + 16];
    char *argv[] = {"steps=10", word, "seed=5"};
    bool given[256] = {false};
    struct config config;
    struct error err = {0};

    (void)state;
    write_text("options.yaml", "steps: 20\nseed: 6\nlr: 0.5 # comment\nexp_name: \"x\"\ncheckpoint: ???\n");
    snprintf(word, sizeof(word), "config=%s", in_folder("options.yaml"));
    config_init(&config);
    assert_ok(config_parse(&config, 3, argv, given, &err), err);
    assert_int_equal(config.steps, 10);
    assert_int_equal(config.seed, 5);
    assert_true(config.lr == 0.5);
    assert_string_equal(config.exp_name, "x");
    assert_true(given[find("lr")]);
    assert_false(given[find("checkpoint")]);
}

static void assert_file_refused(const char *text, const char *first, const char *second)
{
    struct config config;
    struct error err = {0};

    write_text("bad.yaml", text);
    config_init(&config);
    assert_int_equal(config_load(&config, in_folder("bad.yaml"), NULL, &err), TD_EINVAL);
    if (strstr(err.text, first) == NULL || strstr(err.text, second) == NULL)
        fail_msg("\"%s\" lacks \"%s\" or \"%s\"", err.text, first, second);
}

static void bad_files_name_file_and_line(void **state)
{
    struct config config;
    struct error err = {0};

    (void)state;
    assert_file_refused("steps: 5\nstepz: 6\n", "bad.yaml:2", "'steps'");
    assert_file_refused("steps: 5\nlr: 7\n", "bad.yaml:2", "out of range");
    assert_file_refused("steps: 5\nsteps: 6\n", "bad.yaml:2", "already");
    assert_file_refused("steps: [1, 2]\n", "bad.yaml:1", "plain");
    assert_file_refused("- steps\n", "bad.yaml:1", "one mapping");
    assert_file_refused("steps: &a 5\nseed: *a\n", "bad.yaml:1", "plain");
    assert_file_refused("steps: 5\n---\nseed: 2\n", "bad.yaml", "one mapping");
    assert_file_refused("steps: {\n", "bad.yaml", "");
    assert_file_refused("steps: \"5\n", "bad.yaml", "");
    assert_file_refused("config: other.yaml\n", "bad.yaml:1", "another");
    assert_file_refused("exp_name: \"a\\0b\"\n", "bad.yaml:1", "zero byte");
    assert_file_refused("steps: 5\ntask:\n", "bad.yaml:2", "task is empty");
    assert_file_refused("exp_name: ~\n", "bad.yaml:1", "exp_name is empty");
    assert_file_refused("\x01\x02", "bad.yaml", "");
    config_init(&config);
    assert_int_equal(config_load(&config, in_folder("none.yaml"), NULL, &err), TD_ENOTFOUND);
    write_text("empty.yaml", "# nothing\n");
    assert_ok(config_load(&config, in_folder("empty.yaml"), NULL, &err), err);
}

/* What a learner sends to its actors. */
static void options_are_read_from_memory(void **state)
{
    static const char text[] = "seed: 9\nstepz: 6\n, and bytes beyond";
    struct config config;
    struct error err = {0};

    (void)state;
    config_init(&config);
    assert_ok(config_read(&config, text, strlen("seed: 9\n"), "its options", NULL, &err), err);
    assert_int_equal(config.seed, 9);
    assert_int_equal(config_read(&config, text, strlen("seed: 9\nstepz: 6\n"), "its options", NULL, &err),
                     TD_EINVAL);
    assert_non_null(strstr(err.text, "its options:2"));
    assert_ok(config_read(&config, NULL, 0, "nothing", NULL, &err), err);
}

static void a_saved_file_reads_back_the_same(void **state)
{
    struct config config, other;
    struct error err = {0};

    (void)state;
    config_init(&config);
    assert_set(&config, "lr=0.1");
    assert_set(&config, "tau=0.30000000000000004");
    assert_set(&config, "seed=4294967295");
    assert_set(&config, "exp_name=it's \"quoted\" \\ # \xc3\xa9: - ~");
    assert_set(&config, "lockstep=true");
    assert_set(&config, "work_dir=elsewhere");
    assert_ok(config_save(&config, in_folder("saved.yaml"), &err), err);
    config_init(&other);
    assert_ok(config_load(&other, in_folder("saved.yaml"), NULL, &err), err);
    assert_string_equal(other.work_dir, ""); /* of one process: not kept */
    assert_set(&other, "work_dir=elsewhere");
    assert_memory_equal(&config, &other, sizeof(config));
    assert_int_equal(config_save(&config, in_folder("no/saved.yaml"), &err), TD_ENOTFOUND);
}

static void contradictions_are_found(void **state)
{
    static const struct {
        const char *words[3], *says;
    } cases[] = {
        {{"num_elites=600"}, "num_elites=600 are more than num_samples=512"},
        {{"num_pi_trajs=600"}, "num_pi_trajs=600"},
        {{"min_std=3"}, "min_std=3"},
        {{"vmin=10"}, "vmin=10 is not below"},
        {{"log_std_min=2"}, "log_std_min=2"},
        {{"model_size=7"}, "none of 1, 5, 19"},
        {{"latent_dim=20"}, "multiple of simnorm_dim=8"},
        {{"discount_min=1"}, "discount_min=1"},
        {{"exp_name="}, "exp_name is empty"},
        {{"exp_name=../x"}, "cannot name a folder"},
        {{"exp_name=.."}, "cannot name a folder"},
        {{"task=a/b"}, "cannot name a folder"},
        {{"task="}, "task is empty"},
        {{"lockstep=true", "actors=2"}, "one actor"},
        {{"lockstep=true", "actors=1", "shards=2"}, "one shard"},
        {{"lockstep=true", "actors=1", "envs=4"}, "one environment"},
        {{"lockstep=true", "actors=1", "utd=2"}, "one update per step"},
        {{"shard=1"}, "shard=1 does not exist"},
        {{"run_id=xyz"}, "run_id=xyz"},
        {{"run_id=00112233445566778"}, "64 bits"},
    };

    (void)state;
    for (size_t i = 0; i < TD_LEN(cases); i++) {
        struct config config;
        struct error err = {0};

        config_init(&config);
        for (int j = 0; j < 3 && cases[i].words[j] != NULL; j++)
            assert_set(&config, cases[i].words[j]);
        assert_int_equal(config_check(&config, &err), TD_EINVAL);
        if (strstr(err.text, cases[i].says) == NULL)
            fail_msg("\"%s\" lacks \"%s\"", err.text, cases[i].says);
    }
}

static void a_resumed_run_keeps_what_must_not_change(void **state)
{
    struct config stored, fresh, merged;
    bool given[256] = {false};
    struct error err = {0};
    char *text = NULL;
    size_t size;
    FILE *report = open_memstream(&text, &size);

    (void)state;
    config_init(&stored);
    assert_set(&stored, "steps=1000");
    assert_set(&stored, "seed=3");
    assert_set(&stored, "eval_freq=500");
    config_init(&fresh);
    assert_ok(config_parse(&fresh, 3, (char *[]){"steps=2000", "seed=3", "bind=tcp://127.0.0.1:5"}, given, &err), err);
    merged = stored;
    assert_ok(config_resume(&merged, &fresh, given, report, &err), err);
    fclose(report);
    assert_int_equal(merged.steps, 2000);
    assert_int_equal(merged.seed, 3);
    assert_int_equal(merged.eval_freq, 500);
    assert_string_equal(merged.bind, "tcp://127.0.0.1:5");
    assert_non_null(strstr(text, "changed   steps=2000 (was 1000)"));
    assert_non_null(strstr(text, "restored  eval_freq=500"));
    assert_null(strstr(text, "seed"));
    free(text);

    assert_ok(config_parse(&fresh, 1, (char *[]){"lr=0.1"}, given, &err), err);
    assert_int_equal(config_resume(&stored, &fresh, given, NULL, &err), TD_EINVAL);
    assert_non_null(strstr(err.text, "lr=0.0003"));
    assert_non_null(strstr(err.text, "0.1"));
}

/* `name=value` with a value that the option may have and does not have by default. */
static void other_value(const struct config_option *option, char *word, size_t size)
{
    double value = strtod(option->value, NULL);
    size_t length = strcspn(option->choices, "|");

    if (option->type == CONFIG_INT)
        snprintf(word, size, "%s=%.0f", option->name, value == option->min ? value + 1 : option->min);
    else if (option->type == CONFIG_REAL)
        snprintf(word, size, "%s=%.17g", option->name, value == option->min ? (value + option->max) / 2 : (value + option->min) / 2);
    else if (option->type == CONFIG_BOOL)
        snprintf(word, size, "%s=%s", option->name, strcmp(option->value, "true") == 0 ? "false" : "true");
    else if (option->choices[0] == '\0')
        snprintf(word, size, "%s=something-else", option->name);
    else if (strlen(option->value) == length && strncmp(option->value, option->choices, length) == 0)
        snprintf(word, size, "%s=%.*s", option->name, (int)strcspn(option->choices + length + 1, "|"), option->choices + length + 1);
    else
        snprintf(word, size, "%s=%.*s", option->name, (int)length, option->choices);
}

/* What README says of each class, for every option there is. */
static void every_option_has_a_class_that_is_kept_to(void **state)
{
    int count, of_class[4] = {0};
    const struct config_option *options = config_options(&count);

    (void)state;
    for (int i = 0; i < count; i++) {
        const struct config_option *option = &options[i];
        bool given[256] = {false};
        struct config stored, fresh;
        char word[CONFIG_TEXT_MAX], before[CONFIG_TEXT_MAX], value[CONFIG_TEXT_MAX], line[CONFIG_TEXT_MAX + 64], *text = NULL;
        struct error err = {0};
        size_t size;
        FILE *report = open_memstream(&text, &size);
        int rc;

        config_init(&stored);
        config_init(&fresh);
        config_format(&stored, option, before, sizeof(before));
        stored.lockstep = true;
        other_value(option, word, sizeof(word));
        assert_ok(config_set(&fresh, word, &err), err);
        given[i] = true;
        rc = config_resume(&stored, &fresh, given, report, &err);
        fclose(report);
        assert_in_range(option->change, CONFIG_FIXED, CONFIG_HERE);
        of_class[option->change]++;
        if (strcmp(option->name, "lockstep") != 0)
            assert_int_equal(rc == TD_OK, option->change != CONFIG_FIXED);
        config_format(&fresh, option, value, sizeof(value));
        if (option->change == CONFIG_FIXED && rc != TD_OK) {
            assert_int_equal(rc, TD_EINVAL);
            assert_non_null(strstr(err.text, option->name));
            assert_non_null(strstr(err.text, value)); /* and both values */
            assert_non_null(strstr(err.text, before));
        } else if (option->change != CONFIG_FIXED) {
            config_format(&stored, option, line, sizeof(line));
            assert_string_equal(value, line);
            snprintf(line, sizeof(line), "changed   %s=", option->name);
            assert_int_equal(strstr(text, line) != NULL, option->change != CONFIG_HERE);
            assert_int_equal(strstr(text, "other bits") != NULL, option->change == CONFIG_BITS);
        }
        free(text);
    }
    for (size_t i = 0; i < TD_LEN(of_class); i++)
        assert_true(of_class[i] > 0);
}

static void a_library_is_named_by_env_or_task(void **state)
{
    struct config config;
    struct error err = {0};
    bool given[256] = {false};

    (void)state;
    config_init(&config);
    assert_ok(config_parse(&config, 1, (char *[]){"env=./my_env.so"}, given, &err), err);
    assert_string_equal(config.task, "./my_env.so");
    assert_string_equal(config.env, "");
    assert_ok(config_check(&config, &err), err);
    config_init(&config);
    assert_int_equal(config_parse(&config, 1, (char *[]){"env=hopper"}, NULL, &err), TD_EINVAL);
    config_init(&config);
    assert_int_equal(config_parse(&config, 2, (char *[]){"env=./a.so", "task=hopper"}, NULL, &err), TD_EINVAL);
    assert_non_null(strstr(err.text, "give one of them"));
}

static void run_directories_follow_the_reference(void **state)
{
    struct config config;
    struct error err = {0};
    char out[FS_PATH_MAX], small[8];

    (void)state;
    config_init(&config);
    assert_set(&config, "task=walker-walk");
    assert_set(&config, "seed=2");
    assert_ok(config_run_dir(&config, out, sizeof(out), &err), err);
    assert_string_equal(out, "logs/walker-walk/2/default");
    assert_set(&config, "task=python:./my/env.py:Mine");
    assert_ok(config_run_dir(&config, out, sizeof(out), &err), err);
    assert_string_equal(out, "logs/python:._my_env.py:Mine/2/default");
    assert_set(&config, "task=../x/my_env.so");
    assert_ok(config_run_dir(&config, out, sizeof(out), &err), err);
    assert_string_equal(out, "logs/x_my_env.so/2/default");
    assert_int_equal(config_run_dir(&config, small, sizeof(small), &err), TD_EINVAL);
    assert_set(&config, "work_dir=/tmp/x");
    assert_ok(config_run_dir(&config, out, sizeof(out), &err), err);
    assert_string_equal(out, "/tmp/x");
}

static void help_and_markdown_hold_every_option(void **state)
{
    int count;
    const struct config_option *options = config_options(&count);

    (void)state;
    for (int round = 0; round < 2; round++) {
        char *text = NULL, word[80];
        size_t size;
        FILE *out = open_memstream(&text, &size);

        if (round == 0)
            config_help(out);
        else
            config_markdown(out);
        fclose(out);
        for (int i = 0; i < count; i++) {
            snprintf(word, sizeof(word), round == 0 ? "  %s=" : "| `%s` |", options[i].name);
            if (strstr(text, word) == NULL)
                fail_msg("no %s", word);
        }
        if (round == 1) /* five columns, whatever the cells hold */
            for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
                int bars = 0;
                for (char *at = line; *at != '\0'; at++)
                    bars += *at == '|';
                assert_int_equal(bars, 6);
            }
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_the_reference_s),
        cmocka_unit_test(every_default_is_in_range_and_reads_back),
        cmocka_unit_test(numbers_are_read_as_people_write_them),
        cmocka_unit_test(wrong_values_are_refused_with_their_range),
        cmocka_unit_test(unknown_keys_name_the_nearest),
        cmocka_unit_test(derived_and_foreign_keys_say_why),
        cmocka_unit_test(command_lines_take_every_spelling),
        cmocka_unit_test(words_win_over_the_file_beside_them),
        cmocka_unit_test(bad_files_name_file_and_line),
        cmocka_unit_test(a_saved_file_reads_back_the_same),
        cmocka_unit_test(contradictions_are_found),
        cmocka_unit_test(options_are_read_from_memory),
        cmocka_unit_test(a_resumed_run_keeps_what_must_not_change),
        cmocka_unit_test(every_option_has_a_class_that_is_kept_to),
        cmocka_unit_test(a_library_is_named_by_env_or_task),
        cmocka_unit_test(run_directories_follow_the_reference),
        cmocka_unit_test(help_and_markdown_hold_every_option),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
