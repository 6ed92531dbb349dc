#include "common/env/places.h"

#include <string.h>
#include <unistd.h>

bool place_join(char out[FS_PATH_MAX], const char *folder, const char *rest)
{
    return fs_join(out, folder, rest, NULL) == TD_OK;
}

bool place_exists(const char *path)
{
    return access(path, R_OK) == 0;
}

bool place_parent(char *path)
{
    char *slash = strrchr(path, '/');

    if (slash == NULL || slash == path)
        return false;
    *slash = '\0';
    return true;
}

bool place_source_tree(char folder[FS_PATH_MAX])
{
    do {
        const char *name = strrchr(folder, '/');

        if (name != NULL && strcmp(name, "/build") == 0)
            return place_parent(folder);
    } while (place_parent(folder));
    return false;
}
