/*
 * record.h - what bin_record.c, preloaded into a program, notes of its way with one directory.
 *
 * Every system call that changes a file or a name under $TD_RECORD_DIR becomes a record in
 * $TD_RECORD_LOG, in order, with its data; so do syncs, once when they begin and once when they have
 * succeeded, and what the program told others: marks, and the small frames that it sent over ZeroMQ.
 * Data is noted before it is written, so that a disk may be found in the middle of it; names after they
 * were changed; marks and frames before they go out.
 */
#ifndef TD_TEST_RECORD_H
#define TD_TEST_RECORD_H

#include <stdint.h>

#define RECORD_NAME_MAX 96

enum record_kind {
    RECORD_CREATE = 1, /* folder, name, inode */
    RECORD_MKDIR,      /* folder, name, inode */
    RECORD_UNLINK,     /* folder, name; a file or an empty folder */
    RECORD_RENAME,     /* folder, name -> other_folder, other */
    RECORD_EXCHANGE,   /* the same, both ways */
    RECORD_WRITE,      /* inode, offset, length, the bytes */
    RECORD_SIZE,       /* inode, length: the file was cut or extended to it */
    RECORD_SYNC,       /* inode: a sync begins; id */
    RECORD_SYNCED,     /* id: it succeeded; also of a write through a synchronous descriptor, by its id */
    RECORD_MAPPED,     /* inode, name: a shared writable map was made: its changes are not seen */
    RECORD_MARK,       /* the bytes: a text */
    RECORD_FRAME,      /* id: the socket; offset: more frames follow; the bytes, unless there are many */
};

struct record {
    uint32_t kind;
    uint32_t pid;
    uint64_t id; /* of this call, in its process */
    uint64_t inode, folder, other_folder;
    uint64_t offset, length;
    uint64_t payload; /* bytes that follow */
    char name[RECORD_NAME_MAX], other[RECORD_NAME_MAX];
};

#endif
