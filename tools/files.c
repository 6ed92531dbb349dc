#include "tools/files.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/util/fs.h"

struct list {
    char **names;
    int count;
};

static int push(struct list *list, const char *name, struct error *err)
{
    char **grown = realloc(list->names, ((size_t)list->count + 2) * sizeof(*grown));

    if (grown != NULL) {
        list->names = grown;
        if ((grown[list->count] = strdup(name)) != NULL) {
            grown[++list->count] = NULL;
            return TD_OK;
        }
    }
    return error_set(err, TD_ENOMEM, "out of memory");
}

static bool is_wanted(const char *name, const char *const *ends)
{
    size_t length = strlen(name);

    for (; *ends != NULL; ends++)
        if (length >= strlen(*ends) && strcmp(name + length - strlen(*ends), *ends) == 0)
            return true;
    return false;
}

static int push_folder(struct list *list, const char *folder, const char *const *ends, struct error *err)
{
    struct dirent **entries;
    int before = list->count, rc = TD_OK, found = scandir(folder, &entries, NULL, alphasort);
    char path[FS_PATH_MAX];

    if (found < 0)
        return error_set_errno(err, errno == EACCES ? TD_EINVAL : TD_EIO, errno, "cannot list %s", folder);
    for (int i = 0; i < found; i++) {
        if (rc == TD_OK && is_wanted(entries[i]->d_name, ends) &&
            (rc = fs_join(path, folder, entries[i]->d_name, err)) == TD_OK)
            rc = push(list, path, err);
        free(entries[i]);
    }
    free(entries);
    if (rc == TD_OK && list->count == before)
        rc = error_set(err, TD_ENOTFOUND, "no *%s in %s", ends[0], folder);
    return rc;
}

int files_expand(char **words, int count, const char *const *ends, char ***files, int *file_count, struct error *err)
{
    struct list list = {NULL, 0};
    int rc = TD_OK;

    for (int i = 0; i < count && rc == TD_OK; i++) {
        struct stat info;
        bool folder = stat(words[i], &info) == 0 && S_ISDIR(info.st_mode);

        rc = folder ? push_folder(&list, words[i], ends, err) : push(&list, words[i], err);
    }
    if (rc != TD_OK) {
        files_free(list.names);
        list = (struct list){NULL, 0};
    }
    *files = list.names;
    *file_count = list.count;
    return rc;
}

void files_free(char **files)
{
    for (char **file = files; file != NULL && *file != NULL; file++)
        free(*file);
    free(files);
}
