/* part_note.c - what a keeper notes of its part. */
#include <ctype.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "common/net/rundir.h"
#include "tools/part.h"

#define NOTE_LIMIT 1024

unsigned long long part_start_time(pid_t pid)
{
    char path[64], text[1024], *after;
    unsigned long long start = 0;
    size_t length;
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    if (pid <= 0 || (file = fopen(path, "re")) == NULL)
        return 0;
    length = fread(text, 1, sizeof(text) - 1, file);
    fclose(file);
    text[length] = '\0';
    after = strrchr(text, ')'); /* the name before may hold anything */
    /* state, then 18 numbers, then the start */
    if (after == NULL || after[1] == '\0' || after[2] == 'Z' ||
        sscanf(after + 2, "%*c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu", &start) != 1)
        return 0;
    return start;
}

bool part_name_valid(const char *name)
{
    static const char *const roles[] = {"actor-", "replay-"};
    const char *number = NULL;

    if (strcmp(name, "learner") == 0)
        return true;
    for (size_t i = 0; i < TD_LEN(roles); i++)
        if (strncmp(name, roles[i], strlen(roles[i])) == 0)
            number = name + strlen(roles[i]);
    return number != NULL && isdigit((unsigned char)*number) && strlen(number) <= 5 &&
           strspn(number, "0123456789") == strlen(number);
}

void part_note_print(const struct part_note *note, FILE *out)
{
    fprintf(out, "%s %d %llu %d %llu %d %d %s\n", note->name, (int)note->keeper, note->keeper_start, (int)note->child,
            note->child_start, note->restarts, note->code, note->host);
}

bool part_note_parse(const char *line, struct part_note *note)
{
    int keeper, child;

    memset(note, 0, sizeof(*note));
    if (sscanf(line, "%31s %d %llu %d %llu %d %d %127s", note->name, &keeper, &note->keeper_start, &child, &note->child_start,
               &note->restarts, &note->code, note->host) != 8)
        return false;
    note->keeper = keeper;
    note->child = child;
    return part_name_valid(note->name) && keeper > 1 && child >= 0 && child != 1;
}

static int note_path(char out[FS_PATH_MAX], const char *dir, const char *name, struct error *err)
{
    char file[PART_NAME_MAX + 16];

    snprintf(file, sizeof(file), "run/%s.pid", name);
    return fs_join(out, dir, file, err);
}

int part_note_write(const char *dir, const struct part_note *note, struct error *err)
{
    char path[FS_PATH_MAX], text[NOTE_LIMIT];
    FILE *out = fmemopen(text, sizeof(text), "w");
    int rc;

    if (out == NULL)
        return error_set(err, TD_ENOMEM, "out of memory");
    part_note_print(note, out);
    fclose(out);
    rc = note_path(path, dir, note->name, err);
    return rc == TD_OK ? fs_write_file(path, text, strlen(text), err) : rc;
}

int part_note_read(const char *dir, const char *name, struct part_note *note, struct error *err)
{
    char path[FS_PATH_MAX], *text = NULL;
    size_t length;
    int rc = note_path(path, dir, name, err);

    if (rc != TD_OK || (rc = fs_read_file(path, NOTE_LIMIT, &text, &length, err)) != TD_OK)
        return rc;
    if (!part_note_parse(text, note) || strcmp(note->name, name) != 0)
        rc = error_set(err, TD_ECORRUPT, "%s does not say which process a part is; remove it", path);
    free(text);
    return rc;
}

bool part_alive(const struct part_note *note)
{
    return note->code < 0 && strcmp(note->host, rundir_here()) == 0 && note->keeper_start != 0 &&
           part_start_time(note->keeper) == note->keeper_start;
}
