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

/* The folder that holds path: "a/b" -> "a", "a" -> ".", "/a" -> "/". TD_OK or TD_EINVAL (too long). */
int fs_parent(const char *path, char out[FS_PATH_MAX], struct error *err);

/* folder/name. TD_OK or TD_EINVAL (too long). */
int fs_join(char out[FS_PATH_MAX], const char *folder, const char *name, struct error *err);

/* Whether folder/name is there, whatever it is. */
bool fs_has(const char *folder, const char *name);

/* Whether path is a folder; links are followed. */
bool fs_is_folder(const char *path);

/* Create the directory and its parents (mode 0755 or as given). An existing one is fine. */
int fs_mkdirs(const char *path, unsigned mode, struct error *err);

/* Replace `path` by these bytes: written beside it, synced, renamed, directory synced. */
int fs_write_file(const char *path, const void *bytes, size_t length, struct error *err);

/* Write all of it to fd; `path` is for the message. */
int fs_write_all(int fd, const void *bytes, size_t length, const char *path, struct error *err);

/* Put `from` in the place of `to` and sync the directory of `to`; both are on one file system. */
int fs_rename(const char *from, const char *to, struct error *err);

/* Swap two existing names in one step. TD_EINVAL where the file system cannot. */
int fs_exchange(const char *one, const char *other, struct error *err);

/*
 * Open a regular file for reading; *bytes its size. A directory or FIFO given by mistake is refused and does not
 * hang. TD_ENOTFOUND, TD_EIO, TD_EINVAL; after an error *fd is -1.
 */
int fs_open_file(int *fd, uint64_t *bytes, const char *path, struct error *err);

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

/* As fs_lock where nothing may be written: no file is made, the owner's name is not left. *fd may stay -1. */
int fs_lock_reading(int *fd, const char *path, uint64_t wait_ms, struct error *err);
void fs_unlock(int *fd);

/* Who holds the lock: its pid, 0 for nobody, -1 for a process of another machine or without a name. */
long fs_lock_owner(const char *path);

/* SHA-256 as 64 hexadecimal digits and a NUL. */
void fs_sha256(const void *bytes, size_t length, char hex[FS_SHA256_HEX]);
int fs_sha256_file(const char *path, char hex[FS_SHA256_HEX], struct error *err);

/* The name of a network or layered file system that LMDB must not live on ("nfs"), or NULL. */
const char *fs_unsafe_kind(const char *path);
const char *fs_kind_of_magic(unsigned long magic);

/* Bytes free to this user on path's file system. */
int fs_free_bytes(const char *path, uint64_t *bytes, struct error *err);

/*
 * Can this folder be made, or written into if it exists? Tried out; leaves nothing behind. TD_EINVAL
 * names the folder that stands in the way.
 */
int fs_check_writable(const char *path, struct error *err);

/* The folder of this executable, e.g. to find its sibling programs. */
int fs_program_dir(char out[FS_PATH_MAX], struct error *err);

/*
 * For tests: called before every step that changes or reads a disk, named "create", "write", "sync",
 * "rename", "exchange", "mkdir", "unlink", "tmpfile" or "read"; a value other than 0 is the errno the step fails with. A hook
 * that fails every step from the k-th on leaves the disk as a kill before that step would. NULL: none.
 */
typedef int fs_fault_fn(const char *operation, const char *path);
extern fs_fault_fn *fs_fault;

/* Ask the hook on behalf of a step that is taken elsewhere. TD_OK, or the error it asks for. */
int fs_fail(const char *operation, const char *path, struct error *err);

#endif
