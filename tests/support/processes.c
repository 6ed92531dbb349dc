#include "tests/support/processes.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One that has ended meanwhile, or a zombie, has an empty command line. */
static bool has(const char *pid, const char *word)
{
    char path[300], text[4096] = "";
    FILE *file;
    size_t length;

    snprintf(path, sizeof(path), "/proc/%s/cmdline", pid);
    if ((file = fopen(path, "r")) == NULL)
        return false;
    length = fread(text, 1, sizeof(text) - 1, file);
    fclose(file);
    for (size_t i = 0; i < length; i++)
        text[i] = text[i] == '\0' ? ' ' : text[i];
    return strstr(text, word) != NULL;
}

int processes_with(const char *word)
{
    DIR *folder = opendir("/proc");
    struct dirent *entry;
    int count = 0;

    while (folder != NULL && (entry = readdir(folder)) != NULL)
        count += atoi(entry->d_name) > 0 && has(entry->d_name, word);
    if (folder != NULL)
        closedir(folder);
    return count;
}
