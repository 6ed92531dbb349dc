/*
 * config.h - the options: parsed from key=value words and YAML, checked, printed, compared.
 *
 * One table, config.def, gives every option. Derived sizes (model_size, episode length) are worked
 * out by those who use them, never written back here.
 */
#ifndef TD_UTIL_CONFIG_H
#define TD_UTIL_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "common/util/error.h"

#define CONFIG_TEXT_MAX 2048 /* `tasks` may name all of mt80 */

struct config {
#define SECTION(title)
#define INT(name, value, min, max, change, sentence) int64_t name;
#define REAL(name, value, min, max, change, sentence) double name;
#define BOOL(name, value, change, sentence) bool name;
#define TEXT(name, value, choices, change, sentence) char name[CONFIG_TEXT_MAX];
#include "common/util/config.def"
#undef SECTION
#undef INT
#undef REAL
#undef BOOL
#undef TEXT
};

enum config_type { CONFIG_INT, CONFIG_REAL, CONFIG_BOOL, CONFIG_TEXT };
enum config_change { CONFIG_FIXED, CONFIG_SAFE, CONFIG_BITS, CONFIG_HERE };

/* One row of the table. */
struct config_option {
    const char *name;
    enum config_type type;
    enum config_change change;
    size_t offset;        /* into struct config */
    const char *value;    /* the default, as it would be typed */
    double min, max;      /* of numbers */
    const char *choices;  /* of texts: "a|b|c", or "" */
    const char *sentence;
};

/* The table, *count rows. */
const struct config_option *config_options(int *count);

/* Every option at its default. */
void config_init(struct config *config);

/*
 * Take `key=value`. Booleans: true/false/1/0/yes/no; numbers may carry _ between digits and exponents
 * (1e6 for an integer too), and "int op int" is worked out as in the reference. An unknown key names the nearest one; a derived key of the reference
 * (obs_shape, bin_size, task_dim, ...) says how it comes about. Returns TD_OK or TD_EINVAL.
 */
int config_set(struct config *config, const char *word, struct error *err);

/*
 * Take argv[0..argc-1] in order; `config=FILE` is read first, so that words beside it win.
 * given[i] (may be NULL, one per option) is set for every option that was named.
 * "--name value" and "--name=value" are taken as name=value, "--name" alone as name=true. lockstep=true
 * makes actors 1 unless it was named. Returns TD_OK, TD_EINVAL, TD_ENOTFOUND.
 */
int config_parse(struct config *config, int argc, char **argv, bool *given, struct error *err);

/*
 * Read a flat YAML mapping of options; empty, null and ??? values leave an option as it is, but
 * a text that must not be empty (task) is refused unless it is ???. Unknown keys are errors that name file and line. Returns TD_OK, TD_EINVAL, TD_ENOTFOUND.
 */
int config_load(struct config *config, const char *path, bool *given, struct error *err);

/* As config_load, from memory; `name` stands for the path in errors. */
int config_read(struct config *config, const char *bytes, size_t length, const char *name, bool *given,
                struct error *err);

/* Write all but HERE options as YAML, in table order, durably and whole (see fs.h). */
int config_save(const struct config *config, const char *path, struct error *err);

/* What options say together: num_elites <= num_samples, vmin < vmax, ... TD_OK or TD_EINVAL. */
int config_check(const struct config *config, struct error *err);

/* The value as it would be typed. Returns out. */
char *config_format(const struct config *config, const struct config_option *option, char *out,
                    size_t size);

/* Stored with the run, and not changed by a start that does not name it. */
static inline bool config_is_stored(const struct config_option *option)
{
    return option->change != CONFIG_HERE;
}

/*
 * Merge a resumed run: `config` holds what was stored, `fresh` what is given now. SAFE and BITS options that
 * were given replace the stored ones (of BITS a lock-step run is told so), a differing FIXED one is refused with both values, HERE ones
 * are taken from `fresh`. One line per restored or changed option goes to `report` (may be NULL).
 */
int config_resume(struct config *config, const struct config *fresh, const bool *given,
                  FILE *report, struct error *err);

/* What is learned, in the user's words: the list `tasks` if there is one, else `task`. */
const char *config_tasks(const struct config *config);

/*
 * The run directory: work_dir, or logs/<task>/<seed>/<exp_name> below the working directory. A list of tasks is
 * joined by + there; a long one is cut, with a hash of it all.
 * Returns TD_OK or TD_EINVAL (too long).
 */
int config_run_dir(const struct config *config, char *out, size_t size, struct error *err);

/* The table for --help, and as a Markdown table for the README. */
void config_help(FILE *out);
void config_markdown(FILE *out);

#endif
