/*
 * places.h - where this program's files lie: beside an installed program, or in its source tree.
 */
#ifndef TD_ENV_PLACES_H
#define TD_ENV_PLACES_H

#include <stdbool.h>

#include "common/util/fs.h"

/* folder/rest; false when that is too long. */
bool place_join(char out[FS_PATH_MAX], const char *folder, const char *rest);

/* May it be read? */
bool place_exists(const char *path);

/* Cut the last component off; false when nothing is left. */
bool place_parent(char *path);

/* From a program's folder to the one that holds the innermost `build` above it; false: there is none. */
bool place_source_tree(char folder[FS_PATH_MAX]);

#endif
