/* manual.c - `tdmpc2 manual`: the pages of documents that are made from the programs' own tables. */
#include "tools/manual.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/metrics/metrics.h"
#include "common/util/config.h"
#include "common/util/config_words.h"
#include "common/util/fs.h"
#include "tools/commands.h"

#define HELP_MAX 65536

struct subject {
    const char *name;     /* of the page */
    const char *program;  /* beside this one */
    const char *command;  /* of it, or NULL */
    const char *sentence;
};

static const struct subject subjects[] = {
    {"tdmpc2", "tdmpc2", NULL, "train TD-MPC2 on the machines there are: start, watch, stop, convert, check"},
    {"tdmpc2-learner", "tdmpc2-learner", NULL, "the learner of a run: trains the world model, hands out its parameters"},
    {"tdmpc2-replay", "tdmpc2-replay", NULL, "a replay shard of a run: stores transitions durably, draws samples"},
    {"tdmpc2-actor", "tdmpc2-actor", NULL, "an actor of a run: plans, acts, streams what happens to the replay shard"},
#define COMMAND(name, sentence) {"tdmpc2-" #name, "tdmpc2", #name, sentence},
#include "tools/commands.def"
#undef COMMAND
};

/* The name of its page: the daemon has that of `tdmpc2 replay` already. */
static const char *page_name(const struct subject *subject)
{
    bool taken = subject->command != NULL && strcmp(subject->command, "replay") == 0;

    return taken ? "tdmpc2-replay-command" : subject->name;
}

/* --- what a program says --------------------------------------------------------- */

static void become_help(const struct subject *subject, int out)
{
    char path[FS_PATH_MAX], folder[FS_PATH_MAX];
    struct error err;

    if (fs_program_dir(folder, &err) != TD_OK || fs_join(path, folder, subject->program, &err) != TD_OK ||
        dup2(out, STDOUT_FILENO) < 0)
        _exit(127);
    if (subject->command != NULL)
        execl(path, subject->program, subject->command, "--help", (char *)NULL);
    else
        execl(path, subject->program, "--help", (char *)NULL);
    _exit(127);
}

/* Its --help, the caller's; NULL after saying why not. */
static char *help_of(const struct subject *subject)
{
    char *text = calloc(1, HELP_MAX);
    size_t used = 0;
    ssize_t got = 0;
    int ends[2], status = -1;
    pid_t child = -1;

    if (text != NULL && pipe(ends) == 0) {
        child = fork();
        if (child == 0)
            become_help(subject, ends[1]);
        close(ends[1]);
        while (used + 1 < HELP_MAX && (got = read(ends[0], text + used, HELP_MAX - 1 - used)) > 0)
            used += (size_t)got;
        close(ends[0]);
        while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
            ;
    }
    if (child > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0 && strncmp(text, "usage: ", 7) == 0)
        return text;
    fprintf(stderr, "tdmpc2 manual: %s%s%s --help does not say how it is used; is it beside this program?\n",
            subject->program, subject->command != NULL ? " " : "", subject->command != NULL ? subject->command : "");
    free(text);
    return NULL;
}

static int print_page(const struct subject *subject)
{
    char *help = help_of(subject);

    if (help == NULL)
        return TD_EXIT_GAVE_UP;
    manual_page(page_name(subject), subject->sentence, help, stdout);
    free(help);
    return TD_EXIT_OK;
}

/* Every program and command in Markdown, as it says itself; options and metrics have pages of their own. */
static int print_commands(void)
{
    for (size_t i = 0; i < TD_LEN(subjects); i++) {
        const struct subject *subject = &subjects[i];
        char *help = help_of(subject);
        size_t length;

        if (help == NULL)
            return TD_EXIT_GAVE_UP;
        length = manual_before_tables(help);
        printf("## %s%s%s\n\n%c%s.\n\n```text\n%.*s```\n\n", subject->program, subject->command != NULL ? " " : "",
               subject->command != NULL ? subject->command : "", subject->sentence[0] - 'a' + 'A', subject->sentence + 1,
               (int)length, help);
        free(help);
    }
    return TD_EXIT_OK;
}

/* --- the command ------------------------------------------------------------------ */

static void usage(FILE *out)
{
    fputs("usage: tdmpc2 manual [PAGE|options|metrics|commands|pages]\n\n"
          "Prints the reference that the documents are made of, from the programs' own tables.\n\n"
          "  PAGE      the manual page of that name as man(7) source: tdmpc2, tdmpc2-train, tdmpc2-actor ...\n"
          "  pages     the names of all of them\n"
          "  options   every option, as a Markdown table\n"
          "  metrics   every metric, as a Markdown table\n"
          "  commands  what every program and command says of itself, as Markdown\n\n"
          "To read one: tdmpc2 manual tdmpc2-train | man -l -\n",
          out);
}

static int unknown(const char *word)
{
    const char *names[TD_LEN(subjects) + 1];

    for (size_t i = 0; i <= TD_LEN(subjects); i++)
        names[i] = i < TD_LEN(subjects) ? page_name(&subjects[i]) : NULL;
    fprintf(stderr, "tdmpc2 manual: there is no page '%.60s': did you mean %s? `tdmpc2 manual pages` lists them\n", word,
            config_nearest_word(word, names));
    return TD_EXIT_BAD_INPUT;
}

int cmd_manual(int argc, char **argv)
{
    const char *word = argc == 2 ? argv[1] : "";

    if (argc != 2 || strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
        usage(argc == 2 ? stdout : stderr);
        return argc == 2 ? TD_EXIT_OK : TD_EXIT_BAD_INPUT;
    }
    if (strcmp(word, "options") == 0) {
        config_markdown(stdout);
        return TD_EXIT_OK;
    }
    if (strcmp(word, "metrics") == 0) {
        metrics_markdown(stdout);
        return TD_EXIT_OK;
    }
    if (strcmp(word, "commands") == 0)
        return print_commands();
    for (size_t i = 0; i < TD_LEN(subjects); i++)
        if (strcmp(word, "pages") == 0)
            printf("%s\n", page_name(&subjects[i]));
        else if (strcmp(word, page_name(&subjects[i])) == 0)
            return print_page(&subjects[i]);
    return strcmp(word, "pages") == 0 ? TD_EXIT_OK : unknown(word);
}
