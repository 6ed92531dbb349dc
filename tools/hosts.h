/*
 * hosts.h - commands on this machine and, over ssh, on others: several at a time, with what they read and say.
 *
 * A command is words, never a line of shell: those for ssh are quoted. ssh asks nothing (BatchMode).
 */
#ifndef TD_TOOLS_HOSTS_H
#define TD_TOOLS_HOSTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "tools/cluster.h"

struct host_job {
    const char *host;   /* "": this machine; borrowed */
    char **argv;        /* NULL-terminated, malloc'd with its words: hosts_word */
    int argc;
    const void *input;  /* what it reads; borrowed */
    size_t input_length;
    char *output;       /* what it printed: NUL-terminated, never NULL after hosts_run */
    size_t length;
    char errors[1024];  /* the end of what it printed on standard error */
    int code;           /* its exit code; 255 too when ssh did not get there, -1 when it was killed */
};

/* Append a word to the command of a job. TD_OK or TD_ENOMEM. */
int hosts_word(struct host_job *job, const char *format, ...) __attribute__((format(printf, 2, 3)));

/*
 * Run them all, 32 at a time, for at most timeout_ms; after 2 s `doing` and how many are done is said on standard
 * error. TD_OK when all were started and ended, whatever their codes; TD_ETIMEOUT kills the rest.
 */
int hosts_run(const struct cluster *cluster, struct host_job *jobs, int count, const char *doing, int timeout_ms,
              struct error *err);

/* As hosts_run, and the first job that failed is the error: its host and its last words. */
int hosts_must(const struct cluster *cluster, struct host_job *jobs, int count, const char *doing, int timeout_ms,
               struct error *err);

/* Turn a job into the words that are executed here: ssh and what it needs, or the same. malloc'd; options_words_free. */
char **hosts_command(const struct cluster *cluster, const struct host_job *job);

/* The command as a person would type it. */
void hosts_print(const struct cluster *cluster, const struct host_job *job, FILE *out);

void hosts_release(struct host_job *jobs, int count);

/* text for a shell, in single quotes if it needs any; malloc'd, or NULL. */
char *hosts_quote(const char *text);

#endif
