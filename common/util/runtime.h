/*
 * runtime.h - the private folder for the sockets of one machine's parts: where it lies, that it is nobody else's,
 * and that what the dead have left there goes.
 */
#ifndef TD_UTIL_RUNTIME_H
#define TD_UTIL_RUNTIME_H

#include <stdint.h>

#include "common/util/error.h"

#define RUNTIME_BASE_MAX 192
#define RUNTIME_PATH_MAX 96 /* a folder; with a socket's name it must fit sun_path (108) */

/* The folder above all of them: $TDMPC2_RUNTIME_DIR or /tmp/tdmpc2-<uid>. */
void runtime_base(char out[RUNTIME_BASE_MAX]);

/*
 * A private folder (0700, owned by this user, checked) with a short path for the ipc sockets of one
 * run: the base, then 16 digits of key. Sockets there that nobody listens on, and empty folders, are removed. Returns TD_OK, or TD_EIO / TD_EINVAL with a
 * sentence when the folder belongs to someone else or its path is too long.
 */
int runtime_folder(char out[RUNTIME_PATH_MAX], uint64_t key, struct error *err);

/* Would runtime_folder find or make its base, and may sockets be made there? TD_OK, TD_EINVAL with a sentence. */
int runtime_check(struct error *err);

/* The key of a run directory: the same for every process that names it, by whatever path. */
uint64_t runtime_key(const char *run_dir);

#endif
