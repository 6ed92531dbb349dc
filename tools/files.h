/* files.h - words that name files, where a directory stands for what is in it. */
#ifndef TD_TOOLS_FILES_H
#define TD_TOOLS_FILES_H

#include "common/util/error.h"

/*
 * The words in order; in place of each directory, by name, its entries that end with one of `ends` (NULL at
 * the end), not of directories below it. *files ends with NULL; files_free releases it.
 * TD_OK; TD_ENOTFOUND: a directory has none; TD_EIO, TD_ENOMEM. A word that is no directory is kept unseen.
 */
int files_expand(char **words, int count, const char *const *ends, char ***files, int *file_count, struct error *err);
void files_free(char **files);

#endif
