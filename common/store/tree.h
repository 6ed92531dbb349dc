/*
 * tree.h - is the tree of an LMDB data file whole? Read without LMDB, which believes what it reads.
 *
 * Of the newer of the two metas every branch and leaf page is read: page headers, node bounds (nodes
 * must tile their page), the order of keys, depths and counts, the names of the tables. Overflow runs
 * are known by the bounds their nodes name; what lies in them has hashes of its own, checked when read.
 * Each page of the file must belong to exactly one of: a tree, a run, the free list; so no change of a
 * page number goes unseen. Of the older meta only what could make LMDB choose the wrong one is read.
 *
 * Source:  the data format of LMDB 0.9 (mdb.c, MDB_DATA_VERSION 1), in this machine's byte order.
 * Thread:  any.
 */
#ifndef TD_STORE_TREE_H
#define TD_STORE_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/util/error.h"

/* The tables a file must have, all of them and no other. */
struct tree_table {
    const char *name;
    uint16_t flags;    /* as LMDB keeps them: MDB_INTEGERKEY or 0 */
    uint16_t key_size; /* of every key */
    bool runs_whole;   /* with `deep`: headers of overflow runs must name just the pages their nodes do */
    bool bulk;         /* left out of a walk that says bulk_most, when it has more records */
    bool soon;         /* wanted whole after the walk: its leaves are asked of the disk all at once */
};

struct tree_options {
    const struct tree_table *tables;
    int table_count;
    bool deep;          /* read the header page of every overflow run, too */
    uint64_t map_bytes; /* what both metas must say; 0: anything */
    void (*progress)(void *context, uint64_t done, uint64_t total); /* pages; past 2 s; may be NULL */
    void *context;
    uint64_t bulk_most; /* 0: nothing is left out */

    /*
     * Read what can be read: a fault costs the page it is in and what hangs from it, a damaged meta gives way
     * to the other. Each record of the tables whose page is whole is told: where its value lies in the file.
     */
    bool patient;
    bool unordered; /* patient: nor does a key out of order cost more; each record has a hash of its own */
    bool older; /* patient: from the other meta, the state before the last transaction */
    void (*visit)(void *context, int table, const void *key, uint64_t at, uint64_t size);
    bool *newest; /* out: no fault of the metas or of the free list puts in doubt that it is the newest state; may be NULL */
    uint64_t *entries; /* out, per table: records by the main tree's word, where that can be read; may be NULL */
};

/*
 * Walk the file in a child process. TD_OK; TD_ECORRUPT with a sentence naming the page; TD_EIO when the
 * disk cannot be read or the child ended by a signal; TD_ENOMEM. A file that is merely cut short
 * within overflow runs or free pages is whole in this sense.
 */
int tree_check(const char *path, const struct tree_options *options, struct error *err);

/*
 * The same in this process, of an open file. Never maps it, so a short file or a bad disk cannot fault. A
 * patient walk tells the first fault, and has visited what it could.
 */
int tree_walk(int fd, const char *path, const struct tree_options *options, struct error *err);

#endif
