#include "common/util/config_words.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Keys of the reference's config.yaml that are not options here. */
static const struct {
    const char *name, *sentence;
} foreign[] = {
    {"task_title", "is the task's name in words, made from task"},
    {"multitask", "follows from the tasks: it is true for more than one, for mt30 and for mt80"},
    {"obs_shape", "follows from the task's observations"},
    {"obs_shapes", "follows from the tasks' observations"},
    {"action_dim", "follows from the task's actions"},
    {"action_dims", "follows from the tasks' actions"},
    {"episode_length", "is the time limit of the task's environment, in agent steps"},
    {"episode_lengths", "are the time limits of the tasks' environments, in agent steps"},
    {"bin_size", "is (vmax - vmin) / (num_bins - 1)"},
    {"wandb_project", "belongs to Weights & Biases: eval.csv and train.csv in the run directory hold the curves"},
    {"wandb_entity", "belongs to Weights & Biases: eval.csv and train.csv in the run directory hold the curves"},
    {"wandb_silent", "belongs to Weights & Biases: eval.csv and train.csv in the run directory hold the curves"},
    {"enable_wandb", "belongs to Weights & Biases: eval.csv and train.csv in the run directory hold the curves"},
    {"compile", "belongs to PyTorch: these programs are compiled already"},
    {"save_agent", "is not needed: the final checkpoint is always written"},
    {"capacity", "is called buffer_size"},
    {"num_envs", "is not offered: actors=N starts N environments"},
    {"hydra", "belongs to Hydra, which is not used: options are plain key=value words"},
};

#define NAME_MAX_LENGTH 64

static int least(int a, int b, int c)
{
    int smaller = a < b ? a : b;

    return smaller < c ? smaller : c;
}

/* Edits (insert, delete, replace, swap neighbours) that turn a into b; both at most 64 letters. */
static int edit_distance(const char *a, int na, const char *b, int nb)
{
    int rows[3][NAME_MAX_LENGTH + 1];

    for (int j = 0; j <= nb; j++)
        rows[0][j] = j;
    for (int i = 1; i <= na; i++) {
        int *row = rows[i % 3], *above = rows[(i - 1) % 3], *two_above = rows[(i + 1) % 3];

        row[0] = i;
        for (int j = 1; j <= nb; j++) {
            int differs = a[i - 1] != b[j - 1];

            row[j] = least(above[j] + 1, row[j - 1] + 1, above[j - 1] + differs);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && two_above[j - 2] + 1 < row[j])
                row[j] = two_above[j - 2] + 1;
        }
    }
    return rows[na % 3][nb];
}

/* A key that contains the word, or is contained in it, is nearer than its letters say. */
static int word_distance(const char *word, int length, const char *name)
{
    int name_length = (int)strlen(name);
    int distance = edit_distance(word, length, name, name_length);

    if (length >= 3 && name_length >= 3 &&
        (memmem(name, (size_t)name_length, word, (size_t)length) != NULL ||
         memmem(word, (size_t)length, name, (size_t)name_length) != NULL))
        return distance < 4 ? 1 : distance / 2;
    return distance;
}

static const char *nearest(const char *word, int length)
{
    const struct config_option *options;
    int count, best = 0, best_distance = NAME_MAX_LENGTH * 2;

    options = config_options(&count);
    for (int i = 0; i < count; i++) {
        int distance = word_distance(word, length, options[i].name);

        if (distance < best_distance) {
            best_distance = distance;
            best = i;
        }
    }
    return options[best].name;
}

const char *config_nearest_word(const char *word, const char *const *words)
{
    int length = (int)strnlen(word, NAME_MAX_LENGTH), best_distance = NAME_MAX_LENGTH * 2;
    const char *best = NULL;

    for (; *words != NULL; words++) {
        int distance = word_distance(word, length, *words);

        if (distance < best_distance) {
            best_distance = distance;
            best = *words;
        }
    }
    return best;
}

int config_unknown(const char *name, size_t length, struct error *err)
{
    char word[NAME_MAX_LENGTH + 1];
    int kept = length < NAME_MAX_LENGTH ? (int)length : NAME_MAX_LENGTH;

    /* the word is quoted in messages: nothing unprintable */
    for (int i = 0; i < kept; i++)
        word[i] = name[i] >= ' ' && name[i] < 127 ? name[i] : '?';
    word[kept] = '\0';
    for (size_t i = 0; i < TD_LEN(foreign); i++)
        if (strcmp(foreign[i].name, word) == 0)
            return error_set(err, TD_EINVAL, "%s cannot be given: it %s", word, foreign[i].sentence);
    if (strncmp(word, "hydra/", 6) == 0 || strncmp(word, "hydra.", 6) == 0)
        return error_set(err, TD_EINVAL, "%s cannot be given: it belongs to Hydra, which is not used", word);
    return error_set(err, TD_EINVAL, "unknown option '%s'; the nearest is '%s'", word, nearest(word, kept));
}

/* The code point at *text, moving past it; 0 at the end, -1 for bytes that are not UTF-8. */
static int32_t next_point(const unsigned char **text)
{
    static const int32_t smallest[4] = {0, 0x80, 0x800, 0x10000};
    const unsigned char *at = *text;
    int more = at[0] < 0x80 ? 0 : (at[0] & 0xe0) == 0xc0 ? 1 : (at[0] & 0xf0) == 0xe0 ? 2 : (at[0] & 0xf8) == 0xf0 ? 3 : -1;
    int32_t point;

    if (more < 0)
        return -1;
    point = more == 0 ? at[0] : at[0] & (0x3f >> more);
    for (int i = 1; i <= more; i++) {
        if ((at[i] & 0xc0) != 0x80)
            return -1;
        point = point << 6 | (at[i] & 0x3f);
    }
    *text = at + more + 1;
    return point < smallest[more] ? -1 : point;
}

bool config_printable(const char *text)
{
    const unsigned char *at = (const unsigned char *)text;
    int32_t point;

    while ((point = next_point(&at)) != 0) {
        bool fine = (point >= 0x20 && point < 0x7f) || (point >= 0xa0 && point < 0xd800) ||
                    (point >= 0xe000 && point < 0xfffe) || (point >= 0x10000 && point <= 0x10ffff);

        if (!fine || point == 0x2028 || point == 0x2029 || point == 0xfeff)
            return false;
    }
    return true;
}

bool config_is_choice(const char *choices, const char *text)
{
    size_t length = strlen(text);

    if (choices[0] == '\0')
        return true;
    for (const char *at = choices; at != NULL; at = strchr(at, '|')) {
        if (*at == '|')
            at++;
        if (strncmp(at, text, length) == 0 && (at[length] == '|' || at[length] == '\0'))
            return true;
    }
    return false;
}
