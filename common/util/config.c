#include "common/util/config.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/util/config_words.h"
#include "common/util/lr_scale.h"
#include "common/util/rng.h"

static const struct config_option options[] = {
#define SECTION(title)
#define INT(key, fallback, low, high, when, text)                                                  \
    {#key, CONFIG_INT, CONFIG_##when, offsetof(struct config, key), #fallback, low, high, "", text},
#define REAL(key, fallback, low, high, when, text)                                                 \
    {#key, CONFIG_REAL, CONFIG_##when, offsetof(struct config, key), #fallback, low, high, "", text},
#define BOOL(key, fallback, when, text)                                                            \
    {#key, CONFIG_BOOL, CONFIG_##when, offsetof(struct config, key), #fallback, 0, 1, "", text},
#define TEXT(key, fallback, words, when, text)                                                     \
    {#key, CONFIG_TEXT, CONFIG_##when, offsetof(struct config, key), fallback, 0, 0, words, text},
#include "common/util/config.def"
#undef SECTION
#undef INT
#undef REAL
#undef BOOL
#undef TEXT
};

const struct config_option *config_options(int *count)
{
    *count = (int)TD_LEN(options);
    return options;
}

int config_find(const char *name, size_t length)
{
    for (size_t i = 0; i < TD_LEN(options); i++)
        if (strlen(options[i].name) == length && memcmp(options[i].name, name, length) == 0)
            return (int)i;
    return -1;
}

void config_init(struct config *config)
{
    memset(config, 0, sizeof(*config));
#define SECTION(title)
#define INT(name, fallback, ...)  config->name = fallback;
#define REAL(name, fallback, ...) config->name = fallback;
#define BOOL(name, fallback, ...) config->name = fallback;
#define TEXT(name, fallback, ...) memcpy(config->name, fallback, sizeof(fallback));
#include "common/util/config.def"
#undef SECTION
#undef INT
#undef REAL
#undef BOOL
#undef TEXT
}

/* --- numbers --- */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Copy a decimal number without the _ between its digits; anything else is not one. */
static bool clean_number(const char *text, char *out, size_t size)
{
    size_t used = 0;
    bool digit = false;

    for (const char *at = text; *at != '\0'; at++) {
        if (*at == '_' && at > text && is_digit(at[-1]) && is_digit(at[1]))
            continue;
        if (!is_digit(*at) && strchr("+-.eE", *at) == NULL)
            return false;
        if (used + 1 >= size)
            return false;
        digit |= is_digit(*at);
        out[used++] = *at;
    }
    out[used] = '\0';
    return digit;
}

static bool plain_number(const char *text, double *value)
{
    char clean[64], *end;

    if (!clean_number(text, clean, sizeof(clean)))
        return false;
    *value = strtod(clean, &end);
    return *end == '\0' && isfinite(*value);
}

/* The reference evaluates strings that start "int op int"; a whole one is taken here. */
static bool arithmetic(const char *text, double *value)
{
    const char *op = text + strspn(text, "0123456789_");
    char first[64], second[64];
    double left, right;

    if (op == text || *op == '\0' || strchr("+-*/", *op) == NULL || (size_t)(op - text) >= sizeof(first))
        return false;
    memcpy(first, text, (size_t)(op - text));
    first[op - text] = '\0';
    if (op[1] == '\0' || op[1 + strspn(op + 1, "0123456789_")] != '\0' ||
        !clean_number(op + 1, second, sizeof(second)) || !plain_number(first, &left) ||
        !plain_number(second, &right))
        return false;
    *value = *op == '+' ? left + right : *op == '-' ? left - right : *op == '*' ? left * right : left / right;
    return isfinite(*value);
}

static bool parse_number(const char *text, double *value)
{
    return plain_number(text, value) || arithmetic(text, value);
}

static bool parse_bool(const char *text, bool *value)
{
    static const char *const yes[] = {"true", "True", "1", "yes", "on"};
    static const char *const no[] = {"false", "False", "0", "no", "off"};

    for (size_t i = 0; i < TD_LEN(yes); i++) {
        if (strcmp(text, yes[i]) == 0 || strcmp(text, no[i]) == 0) {
            *value = strcmp(text, yes[i]) == 0;
            return true;
        }
    }
    return false;
}

/* --- one option --- */

static char *shortest(double value, char *out, size_t size)
{
    char text[32] = "0";

    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof(text), "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    snprintf(out, size, "%s", text);
    return out;
}

/* Whole numbers of a readable size in full, others as short as they read back exactly. */
static char *format_number(double value, char *out, size_t size)
{
    if (value == floor(value) && fabs(value) < 1e15) {
        snprintf(out, size, "%.0f", value);
        return out;
    }
    return shortest(value, out, size);
}

static int set_number(struct config *config, const struct config_option *option, const char *text,
                      struct error *err)
{
    char low[32], high[32];
    double value;

    if (!parse_number(text, &value))
        return error_set(err, TD_EINVAL, "%s=%.80s is not a%s number", option->name, text,
                         option->type == CONFIG_INT ? " whole" : "");
    if (option->type == CONFIG_INT && value != floor(value))
        return error_set(err, TD_EINVAL, "%s=%.80s is not a whole number", option->name, text);
    if (value < option->min || value > option->max)
        return error_set(err, TD_EINVAL, "%s=%.80s is out of range: it may be %s to %s", option->name,
                         text, format_number(option->min, low, sizeof(low)),
                         format_number(option->max, high, sizeof(high)));
    if (option->type == CONFIG_INT)
        *(int64_t *)((char *)config + option->offset) = (int64_t)value;
    else
        *(double *)((char *)config + option->offset) = value + 0.0; /* no -0 */
    return TD_OK;
}

static int set_text(struct config *config, const struct config_option *option, const char *text,
                    struct error *err)
{
    size_t length = strlen(text);

    if (length >= CONFIG_TEXT_MAX)
        return error_set(err, TD_EINVAL, "%s has %zu bytes, at most %d fit", option->name, length,
                         CONFIG_TEXT_MAX - 1);
    if (!config_printable(text))
        return error_set(err, TD_EINVAL, "%s holds control characters or bytes that are not UTF-8",
                         option->name);
    if (!config_is_choice(option->choices, text))
        return error_set(err, TD_EINVAL, "%s=%.80s is none of %s", option->name, text, option->choices);
    memset((char *)config + option->offset, 0, CONFIG_TEXT_MAX);
    memcpy((char *)config + option->offset, text, length);
    return TD_OK;
}

int config_set_value(struct config *config, int index, const char *text, struct error *err)
{
    const struct config_option *option = &options[index];
    bool flag;

    switch (option->type) {
    case CONFIG_INT:
    case CONFIG_REAL:
        return set_number(config, option, text, err);
    case CONFIG_BOOL:
        if (!parse_bool(text, &flag))
            return error_set(err, TD_EINVAL, "%s=%.80s is neither true nor false", option->name, text);
        *(bool *)((char *)config + option->offset) = flag;
        return TD_OK;
    case CONFIG_TEXT:
        return set_text(config, option, text, err);
    }
    TD_ASSERT(false, "option type %d", (int)option->type);
}

/* Set and say which option it was. */
static int set_word(struct config *config, const char *word, int *index, struct error *err)
{
    const char *equals = strchr(word, '=');

    if (equals == NULL || equals == word)
        return error_set(err, TD_EINVAL, "'%.80s' is not an option: options are key=value", word);
    *index = config_find(word, (size_t)(equals - word));
    if (*index < 0)
        return config_unknown(word, (size_t)(equals - word), err);
    return config_set_value(config, *index, equals + 1, err);
}

int config_set(struct config *config, const char *word, struct error *err)
{
    int index;

    return set_word(config, word, &index, err);
}

char *config_format(const struct config *config, const struct config_option *option, char *out,
                    size_t size)
{
    const void *at = (const char *)config + option->offset;

    switch (option->type) {
    case CONFIG_INT:
        snprintf(out, size, "%lld", (long long)*(const int64_t *)at);
        break;
    case CONFIG_REAL:
        format_number(*(const double *)at, out, size);
        break;
    case CONFIG_BOOL:
        snprintf(out, size, "%s", *(const bool *)at ? "true" : "false");
        break;
    case CONFIG_TEXT:
        snprintf(out, size, "%s", (const char *)at);
        break;
    }
    return out;
}

/* --- a command line --- */

/*
 * Word *at of argv as key=value in `out`: "--num-samples 8" and "--num_samples=8" become
 * "num_samples=8", "--force" alone "force=true". Moves *at past what was taken.
 */
static int next_word(int argc, char **argv, int *at, char *out, size_t size, struct error *err)
{
    const char *word = argv[(*at)++];
    const char *equals = strchr(word, '=');
    size_t length;
    bool flag;
    int index;

    if (strlen(word) + 8 >= size)
        return error_set(err, TD_EINVAL, "'%.40s...' is too long for an option", word);
    if (strncmp(word, "--", 2) != 0) {
        snprintf(out, size, "%s", word);
        return TD_OK;
    }
    length = equals != NULL ? (size_t)(equals - word) : strlen(word);
    snprintf(out, size, "%s", word + 2);
    for (size_t i = 0; i + 2 < length; i++)
        if (out[i] == '-')
            out[i] = '_';
    if (equals != NULL)
        return TD_OK;
    index = config_find(out, length - 2);
    if (index < 0)
        return config_unknown(out, length - 2, err);
    if (options[index].type == CONFIG_BOOL && (*at == argc || !parse_bool(argv[*at], &flag))) {
        memcpy(out + length - 2, "=true", 6);
        return TD_OK;
    }
    if (*at == argc)
        return error_set(err, TD_EINVAL, "--%s needs a value", options[index].name);
    if (length + strlen(argv[*at]) >= size)
        return error_set(err, TD_EINVAL, "--%s: its value is too long", options[index].name);
    snprintf(out + length - 2, size - length + 2, "=%s", argv[(*at)++]);
    return TD_OK;
}

/* One pass over argv: only `config=` when first, everything but it otherwise. */
static int parse_pass(struct config *config, int argc, char **argv, bool files, bool *given,
                      struct error *err)
{
    char word[CONFIG_TEXT_MAX + 64];
    int at = 0, index = -1, rc;

    while (at < argc) {
        if ((rc = next_word(argc, argv, &at, word, sizeof(word), err)) != TD_OK)
            return rc;
        bool is_file = strncmp(word, "config=", 7) == 0;
        if (is_file != files)
            continue;
        if ((rc = set_word(config, word, &index, err)) != TD_OK)
            return rc;
        given[index] = true;
        if (is_file && (rc = config_load(config, config->config, given, err)) != TD_OK)
            return rc;
    }
    return TD_OK;
}

/* env=FILE.so is another word for task=FILE.so, which is what is kept and handed on. */
static int take_env(struct config *config, bool *given, struct error *err)
{
    bool *env = &given[config_find("env", 3)], *task = &given[config_find("task", 4)];
    size_t length = strlen(config->env);

    if (!*env)
        return TD_OK;
    if (*task && strcmp(config->task, config->env) != 0)
        return error_set(err, TD_EINVAL, "env=%.80s and task=%.80s both name the environment: give one of them",
                         config->env, config->task);
    if (length < 4 || strcmp(config->env + length - 3, ".so") != 0)
        return error_set(err, TD_EINVAL, "env=%.80s: the path of a shared library is expected, ./my_env.so; other "
                                         "environments are named with task=", config->env);
    memcpy(config->task, config->env, sizeof(config->task));
    config->env[0] = '\0';
    *task = true;
    *env = false;
    return TD_OK;
}

int config_parse(struct config *config, int argc, char **argv, bool *given, struct error *err)
{
    bool own[TD_LEN(options)] = {false};
    int rc;

    if (given == NULL)
        given = own;
    rc = parse_pass(config, argc, argv, true, given, err);
    if (rc == TD_OK)
        rc = parse_pass(config, argc, argv, false, given, err);
    if (rc == TD_OK)
        rc = take_env(config, given, err);
    if (rc == TD_OK && config->lockstep && !given[config_find("actors", 6)])
        config->actors = 1; /* the only number lock-step works with */
    return rc;
}

/* --- all of them --- */

static int check_name(const char *key, const char *value, struct error *err)
{
    if (value[0] == '\0')
        return error_set(err, TD_EINVAL, "%s is empty", key);
    if (strcmp(value, ".") == 0 || strcmp(value, "..") == 0 || strchr(value, '/') != NULL)
        return error_set(err, TD_EINVAL, "%s=%.80s cannot name a folder", key, value);
    return TD_OK;
}

/* A task may be the path of an environment: FILE.so, or python:FILE.py:CLASS. */
static int check_task(const char *task, struct error *err)
{
    size_t length = strlen(task);

    if (strchr(task, ':') != NULL || (length > 3 && strcmp(task + length - 3, ".so") == 0))
        return TD_OK;
    return check_name("task", task, err);
}

static int check_planner(const struct config *config, struct error *err)
{
    if (config->num_elites > config->num_samples)
        return error_set(err, TD_EINVAL, "num_elites=%lld are more than num_samples=%lld",
                         (long long)config->num_elites, (long long)config->num_samples);
    if (config->num_pi_trajs > config->num_samples)
        return error_set(err, TD_EINVAL, "num_pi_trajs=%lld are more than num_samples=%lld",
                         (long long)config->num_pi_trajs, (long long)config->num_samples);
    if (config->min_std > config->max_std)
        return error_set(err, TD_EINVAL, "min_std=%g is larger than max_std=%g", config->min_std,
                         config->max_std);
    return TD_OK;
}

static int check_model(const struct config *config, struct error *err)
{
    static const int64_t sizes[] = {0, 1, 5, 19, 48, 317};
    double scale[LR_SCALE_PARTS];
    bool known = false;

    for (size_t i = 0; i < TD_LEN(sizes); i++)
        known |= config->model_size == sizes[i];
    if (!known)
        return error_set(err, TD_EINVAL, "model_size=%lld is none of 1, 5, 19, 48, 317 (0: the widths)",
                         (long long)config->model_size);
    if (config->vmin >= config->vmax)
        return error_set(err, TD_EINVAL, "vmin=%g is not below vmax=%g", config->vmin, config->vmax);
    if (config->log_std_min >= config->log_std_max)
        return error_set(err, TD_EINVAL, "log_std_min=%g is not below log_std_max=%g",
                         config->log_std_min, config->log_std_max);
    if (config->model_size == 0 && config->latent_dim % config->simnorm_dim != 0)
        return error_set(err, TD_EINVAL, "latent_dim=%lld is not a multiple of simnorm_dim=%lld",
                         (long long)config->latent_dim, (long long)config->simnorm_dim);
    return lr_scale_parse(config->lr_scale, scale, err);
}

static int check_lockstep(const struct config *config, struct error *err)
{
    if (!config->lockstep)
        return TD_OK;
    if (config->actors > 1)
        return error_set(err, TD_EINVAL, "lockstep=true works with one actor: actors=%lld is refused",
                         (long long)config->actors);
    if (config->envs > 1)
        return error_set(err, TD_EINVAL, "lockstep=true works with one environment: envs=%lld is refused",
                         (long long)config->envs);
    if (config->shards > 1)
        return error_set(err, TD_EINVAL, "lockstep=true works with one shard: shards=%lld is refused",
                         (long long)config->shards);
    if (strcmp(config->evaluator, "remote") == 0)
        return error_set(err, TD_EINVAL,
                         "lockstep=true evaluates in the actor: evaluator=remote is refused");
    if (config->utd != 1)
        return error_set(err, TD_EINVAL,
                         "lockstep=true makes one update per step: utd=%g is refused", config->utd);
    return TD_OK;
}

static int check_places(const struct config *config, struct error *err)
{
    size_t digits = strspn(config->run_id, "0123456789abcdefABCDEF");

    if (config->shard >= config->shards)
        return error_set(err, TD_EINVAL, "shard=%lld does not exist: shards=%lld are numbered from 0",
                         (long long)config->shard, (long long)config->shards);
    if (config->run_id[digits] != '\0' || digits > 16)
        return error_set(err, TD_EINVAL, "run_id=%.40s is not a hexadecimal number of 64 bits",
                         config->run_id);
    if (config->seed_data[0] != '\0' && config->lockstep)
        return error_set(err, TD_EINVAL, "lockstep=true follows the reference's schedule, which begins with an empty replay: "
                         "seed_data= is refused");
    if (config->seed_data[0] != '\0' && config->data_dir[0] != '\0')
        return error_set(err, TD_EINVAL, "data_dir= trains from a data set alone, seed_data= begins the replay of a run with "
                         "actors: give one of them");
    if (config->insecure && config->keys[0] != '\0')
        return error_set(err, TD_EINVAL, "keys=%.200s and insecure=true contradict each other: with keys everything "
                         "over tcp is encrypted", config->keys);
    return TD_OK;
}

int config_check(const struct config *config, struct error *err)
{
    int rc;

    if ((rc = check_task(config->task, err)) != TD_OK ||
        (rc = check_name("exp_name", config->exp_name, err)) != TD_OK ||
        (rc = check_planner(config, err)) != TD_OK || (rc = check_model(config, err)) != TD_OK ||
        (rc = check_lockstep(config, err)) != TD_OK || (rc = check_places(config, err)) != TD_OK)
        return rc;
    if (config->discount_min > config->discount_max)
        return error_set(err, TD_EINVAL, "discount_min=%g is larger than discount_max=%g",
                         config->discount_min, config->discount_max);
    return TD_OK;
}

static int resume_option(struct config *config, const struct config *fresh, int i, bool given,
                         FILE *report, struct error *err)
{
    const struct config_option *option = &options[i];
    char stored[CONFIG_TEXT_MAX], wanted[CONFIG_TEXT_MAX];

    config_format(config, option, stored, sizeof(stored));
    config_format(fresh, option, wanted, sizeof(wanted));
    if (option->change == CONFIG_FIXED && given && strcmp(stored, wanted) != 0)
        return error_set(err, TD_EINVAL,
                         "this run has %s=%.120s, which cannot become %.120s: choose another exp_name",
                         option->name, stored, wanted);
    if (option->change == CONFIG_HERE || (option->change != CONFIG_FIXED && given)) {
        if (option->change != CONFIG_HERE && report != NULL && strcmp(stored, wanted) != 0)
            fprintf(report, "changed   %s=%s (was %s)%s\n", option->name, wanted, stored,
                    option->change == CONFIG_BITS && config->lockstep
                        ? ": from here on other bits than the run would have had without" : "");
        return config_set_value(config, i, wanted, err);
    }
    /* a value from the run that these words alone would not give */
    if (report != NULL && strcmp(stored, wanted) != 0)
        fprintf(report, "restored  %s=%s\n", option->name, stored);
    return TD_OK;
}

int config_resume(struct config *config, const struct config *fresh, const bool *given,
                  FILE *report, struct error *err)
{
    struct config refused = *config;

    /* whether it is allowed first: a refusal says nothing else */
    for (int i = 0; report != NULL && i < (int)TD_LEN(options); i++) {
        int rc = resume_option(&refused, fresh, i, given[i], NULL, err);

        if (rc != TD_OK)
            return rc;
    }
    for (int i = 0; i < (int)TD_LEN(options); i++) {
        int rc = resume_option(config, fresh, i, given[i], report, err);

        if (rc != TD_OK)
            return rc;
    }
    return TD_OK;
}

const char *config_tasks(const struct config *config)
{
    return config->tasks[0] != '\0' ? config->tasks : config->task;
}

#define FOLDER_LONG 160 /* characters of a folder's name that are readable */

/* A task as the name of one folder: slashes become underscores, what leads to here goes. */
static void folder_of_task(const char *task, char out[CONFIG_TEXT_MAX])
{
    while (task[0] == '.' && (task[1] == '/' || task[1] == '.'))
        task++;
    while (task[0] == '/')
        task++;
    snprintf(out, CONFIG_TEXT_MAX, "%s", task);
    for (char *at = out; *at != '\0'; at++)
        if (*at == '/' || *at == ',')
            *at = *at == '/' ? '_' : '+';
}

/* A list may be longer than a folder's name. */
static void folder_of_tasks(const struct config *config, char out[CONFIG_TEXT_MAX])
{
    uint64_t hash = 0;

    folder_of_task(config_tasks(config), out);
    if (config->tasks[0] == '\0' || strlen(out) <= FOLDER_LONG)
        return;
    for (const char *at = config->tasks; *at != '\0'; at++)
        hash = rng_hash(hash, (unsigned char)*at);
    snprintf(out + FOLDER_LONG - 10, CONFIG_TEXT_MAX - FOLDER_LONG + 10, "-%08x", (unsigned)(hash & UINT32_MAX));
}

int config_run_dir(const struct config *config, char *out, size_t size, struct error *err)
{
    char task[CONFIG_TEXT_MAX];
    int length;

    folder_of_tasks(config, task);
    if (config->work_dir[0] != '\0')
        length = snprintf(out, size, "%s", config->work_dir);
    else
        length = snprintf(out, size, "logs/%s/%lld/%s", task, (long long)config->seed,
                          config->exp_name);
    if (length < 0 || (size_t)length >= size)
        return error_set(err, TD_EINVAL, "the run directory's name is longer than %zu bytes", size - 1);
    return TD_OK;
}
