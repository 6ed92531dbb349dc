/*
 * fs.h - files that are whole or absent: atomic writes, directory syncs, locks, checksums.
 */
#ifndef TD_UTIL_FS_H
#define TD_UTIL_FS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/util/error.h"

#define FS_PATH_MAX 4096
#define FS_SHA256_HEX 65

/* Create the directory and its parents (mode 0755 or as given). An existing one is fine. */
int fs_mkdirs(const char *path, unsigned mode, struct error *err);

/* Replace `path` by these bytes: written beside it, synced, renamed, directory synced. */
int fs_write_file(const char *path, const void *bytes, size_t length, struct error *err);

/* Read a whole file of at most `limit` bytes; *bytes is malloc'd, NUL-terminated, the caller's. */
int fs_read_file(const char *path, size_t limit, char **bytes, size_t *length, struct error *err);

/* fsync a file or a directory by name. */
int fs_sync(const char *path, struct error *err);

/* Remove a file or a directory tree; a missing one is fine. Never follows links. */
int fs_remove_tree(const char *path, struct error *err);

/*
 * Hold an exclusive flock on path (created) until fs_unlock. Waits up to wait_ms for the owner to go.
 * TD_ELOCKED names the owner's pid and state (running, stopped, zombie), which it wrote into the file.
 */
int fs_lock(int *fd, const char *path, uint64_t wait_ms, struct error *err);
void fs_unlock(int *fd);

/* SHA-256 as 64 hexadecimal digits and a NUL. */
void fs_sha256(const void *bytes, size_t length, char hex[FS_SHA256_HEX]);
int fs_sha256_file(const char *path, char hex[FS_SHA256_HEX], struct error *err);

/* The name of a network or layered file system that LMDB must not live on ("nfs"), or NULL. */
const char *fs_unsafe_kind(const char *path);

/* Bytes free to this user on path's file system. */
int fs_free_bytes(const char *path, uint64_t *bytes, struct error *err);

/* The folder of this executable, e.g. to find its sibling programs. */
int fs_program_dir(char out[FS_PATH_MAX], struct error *err);

#endif
