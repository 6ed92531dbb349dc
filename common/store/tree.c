#include "common/store/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEPTH_MAX   24 /* levels of a tree; LMDB's own limit is 32, a full map needs less than ten */
#define PAGE_MIN    512u
#define PAGE_MAX    32768u
#define MAP_MAX     ((uint64_t)1 << 46)
#define KEY_MAX     511u
#define PIECE       65536u /* of a free list, read at a time */
#define TABLES_MAX  8

/* The file's format, LMDB 0.9. */
enum { PAGE_BRANCH = 1, PAGE_LEAF = 2, PAGE_OVERFLOW = 4, PAGE_META = 8 };
enum { NODE_BIG = 1, NODE_TABLE = 2 };
#define META_MAGIC   0xBEEFC0DEu
#define META_VERSION 1u
#define NO_PAGE      UINT64_MAX
#define INTEGER_KEY  8u
#define FREE_NAME    "free"

struct page_head {
    uint64_t number;
    uint16_t pad, flags;
    uint16_t lower, upper; /* together the number of pages where an overflow run begins */
};

struct table_record {
    uint32_t pad; /* of the free list: the page size */
    uint16_t flags, depth;
    uint64_t branches, leaves, overflows, entries, root;
};

struct meta_page {
    struct page_head head;
    uint32_t magic, version;
    uint64_t address, map_bytes;
    struct table_record free, main;
    uint64_t last, txn;
};

struct node_head {
    uint16_t low, high, flags, key_size;
};

_Static_assert(sizeof(struct page_head) == 16 && sizeof(struct table_record) == 48 &&
               sizeof(struct meta_page) == 152 && sizeof(struct node_head) == 8, "LMDB's format");

/* A table being walked. */
struct table {
    const char *name;
    struct table_record promised, found;
    uint16_t key_size; /* 0: any */
    uint8_t key[KEY_MAX], floor[KEY_MAX];
    size_t key_length, floor_length;
    bool has_key, has_floor; /* the key before; the least that may come */
    bool runs_whole, soon;
    bool holes; /* a patient walk left something out: what follows has no neighbour to be compared with */
    int index;
};

struct walk {
    int fd;
    const char *path;
    const struct tree_options *options;
    struct error *err;
    uint32_t page;            /* bytes of one */
    struct meta_page meta;    /* the newer */
    uint64_t file_pages;      /* that are there, the last perhaps in part */
    uint64_t owned;           /* pages that belong to somebody */
    uint8_t *seen;            /* a bit for each */
    size_t seen_bytes;
    char *memory;             /* a page per level, a piece, node sizes */
    size_t memory_bytes;
    uint64_t newest_freed;    /* the largest key of the free list */
    struct table_record tables[TABLES_MAX]; /* as the main tree has them */
    bool has_table[TABLES_MAX];
    struct error first; /* a patient walk's first fault */
    bool partial;       /* a table was left out: who owns its pages is not known */
};

/* A fault ends the walk, or a patient one of this part only. */
static int bear(struct walk *walk, int rc)
{
    if (rc != TD_ECORRUPT || !walk->options->patient)
        return rc;
    if (walk->first.code == TD_OK && walk->err != NULL)
        walk->first = *walk->err;
    return TD_OK;
}

static int damaged(struct walk *walk, const char *table, uint64_t page, const char *what)
{
    return error_set(walk->err, TD_ECORRUPT,
                     "the tree of %s is damaged (page %llu, %s: %s): `tdmpc2 replay salvage` saves rows "
                     "without it",
                     walk->path, (unsigned long long)page, table, what);
}

/* Read; what lies behind the end of the file reads as zeros. */
static int read_at(struct walk *walk, void *out, size_t length, uint64_t offset)
{
    char *bytes = out;

    while (length > 0) {
        ssize_t got = pread(walk->fd, bytes, length, (off_t)offset);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_set_errno(walk->err, TD_EIO, errno, "cannot read %s at byte %llu", walk->path,
                                   (unsigned long long)offset);
        if (got == 0) {
            memset(bytes, 0, length);
            break;
        }
        bytes += got;
        offset += (uint64_t)got;
        length -= (size_t)got;
    }
    return TD_OK;
}

static char *level_page(struct walk *walk, int level)
{
    return walk->memory + (size_t)level * walk->page;
}

static char *piece_buffer(struct walk *walk)
{
    return walk->memory + (size_t)DEPTH_MAX * walk->page;
}

static uint16_t *node_sizes(struct walk *walk)
{
    return (uint16_t *)(void *)(piece_buffer(walk) + PIECE);
}

/* These pages belong to this table, and to nobody else. */
static int own(struct walk *walk, const char *table, uint64_t first, uint64_t count)
{
    if (first < 2 || first > walk->meta.last || count > walk->meta.last - first + 1)
        return damaged(walk, table, first, "a page outside of the file");
    for (uint64_t page = first; page < first + count; page++) {
        uint8_t bit = (uint8_t)(1u << (page & 7));

        if (walk->seen[page >> 3] & bit)
            return damaged(walk, table, page, "a page with two owners");
        walk->seen[page >> 3] |= bit;
    }
    walk->owned += count;
    if (walk->options->progress != NULL)
        walk->options->progress(walk->options->context, walk->owned, walk->meta.last);
    return TD_OK;
}

static uint64_t run_pages(const struct walk *walk, uint64_t bytes)
{
    return (sizeof(struct page_head) + bytes + walk->page - 1) / walk->page;
}

/* --- keys ------------------------------------------------------------------ */

static int compare_keys(const struct table *table, const void *a, size_t a_length, const void *b,
                        size_t b_length)
{
    int order;

    if (table->promised.flags & INTEGER_KEY) {
        uint64_t x, y;

        memcpy(&x, a, sizeof(x));
        memcpy(&y, b, sizeof(y));
        return x < y ? -1 : x > y;
    }
    order = memcmp(a, b, a_length < b_length ? a_length : b_length);
    return order != 0 ? order : (a_length > b_length) - (a_length < b_length);
}

static bool key_fits(const struct table *table, size_t length)
{
    return length != 0 && length <= KEY_MAX && (table->key_size == 0 || length == table->key_size);
}

/* Keys of leaves rise, and are not below the separator that led here. */
static bool leaf_key_follows(struct table *table, const void *key, size_t length)
{
    if (!key_fits(table, length) ||
        (table->has_key && compare_keys(table, key, length, table->key, table->key_length) <= 0) ||
        (table->has_floor && compare_keys(table, key, length, table->floor, table->floor_length) < 0))
        return false;
    memcpy(table->key, key, length);
    table->key_length = length;
    table->has_key = true;
    table->has_floor = false;
    return true;
}

/* A separator is above every key to its left. */
static bool separator_follows(struct table *table, const void *key, size_t length)
{
    if (!key_fits(table, length) || ((!table->has_key || table->has_floor) && !table->holes) ||
        (table->has_key && compare_keys(table, key, length, table->key, table->key_length) <= 0))
        return false;
    memcpy(table->floor, key, length);
    table->floor_length = length;
    table->has_floor = true;
    return true;
}

/* --- pages ----------------------------------------------------------------- */

static struct node_head node_at(const char *page, unsigned index, unsigned *offset)
{
    struct node_head node;
    uint16_t at;

    memcpy(&at, page + sizeof(struct page_head) + 2 * (size_t)index, sizeof(at));
    memcpy(&node, page + at, sizeof(node));
    *offset = at;
    return node;
}

static uint32_t node_value_size(const struct node_head *node)
{
    return (uint32_t)node->low | (uint32_t)node->high << 16;
}

/*
 * Bytes of the node in its page; 0 when it cannot be. Large values lie in runs, and only they; but what
 * was large in the free list may have become small.
 */
static uint32_t node_bytes(const struct walk *walk, const struct node_head *node, bool leaf, bool freed)
{
    uint64_t largest = (((walk->page - sizeof(struct page_head)) / 2) & ~(uint64_t)1) - 2;
    uint64_t bytes = sizeof(*node) + (uint64_t)node->key_size;

    if (leaf) {
        uint64_t whole = bytes + node_value_size(node);
        bool big = (node->flags & NODE_BIG) != 0;

        if (big != (whole > largest) && !(big && freed))
            return 0;
        bytes = big ? bytes + sizeof(uint64_t) : whole;
    }
    bytes += bytes & 1;
    return bytes <= walk->page ? (uint32_t)bytes : 0;
}

/* The nodes of a page must tile it from `upper` to its end, each named once. */
static const char *tiling_fault(struct walk *walk, const char *page, unsigned count, bool leaf, bool freed)
{
    uint16_t *sizes = node_sizes(walk);
    struct page_head head;
    unsigned at, tiles = 0;

    memcpy(&head, page, sizeof(head));
    memset(sizes, 0, walk->page);
    for (unsigned i = 0; i < count; i++) {
        struct node_head node;
        uint16_t offset;
        uint32_t bytes;

        memcpy(&offset, page + sizeof(head) + 2 * (size_t)i, sizeof(offset));
        if (offset < head.upper || (offset & 1) || offset + sizeof(node) > walk->page)
            return "a node outside of its page";
        memcpy(&node, page + offset, sizeof(node));
        bytes = node_bytes(walk, &node, leaf, freed);
        if (bytes == 0 || bytes > walk->page - offset || sizes[offset / 2] != 0)
            return "a node of an impossible size";
        sizes[offset / 2] = (uint16_t)bytes;
    }
    for (at = head.upper; at < walk->page && sizes[at / 2] != 0; at += sizes[at / 2])
        tiles++;
    return at == walk->page && tiles == count ? NULL : "nodes that overlap or leave a gap";
}

/* Read a branch or leaf page and check what holds for both; *count is its nodes. */
static int load_page(struct walk *walk, const char *table, uint64_t number, bool leaf, char *page,
                     unsigned *count)
{
    struct page_head head;
    const char *fault = NULL;
    int rc = read_at(walk, page, walk->page, number * walk->page);

    if (rc != TD_OK)
        return rc;
    memcpy(&head, page, sizeof(head));
    if (number >= walk->file_pages)
        fault = "the file is cut short before it";
    else if (head.number != number)
        fault = "another page's number";
    else if (head.flags != (leaf ? PAGE_LEAF : PAGE_BRANCH))
        fault = leaf ? "not a leaf" : "not a branch";
    else if (head.lower <= sizeof(head) || (head.lower & 1) || (head.upper & 1) ||
             head.lower > head.upper || head.upper > walk->page)
        fault = "impossible bounds";
    if (fault == NULL) {
        *count = (head.lower - (unsigned)sizeof(head)) / 2;
        fault = tiling_fault(walk, page, *count, leaf, strcmp(table, FREE_NAME) == 0);
    }
    return fault == NULL ? TD_OK : damaged(walk, table, number, fault);
}

/* --- what leaves hold ------------------------------------------------------ */

/* The header where an overflow run begins; its number of pages. */
static int check_run(struct walk *walk, const struct table *table, uint64_t first, uint64_t least,
                     uint64_t *pages)
{
    struct page_head head;
    int rc = read_at(walk, &head, sizeof(head), first * walk->page);

    if (rc != TD_OK)
        return rc;
    *pages = (uint64_t)head.lower | (uint64_t)head.upper << 16;
    if (head.number != first || head.flags != PAGE_OVERFLOW || *pages < least)
        return damaged(walk, table->name, first, "an overflow run with a bad header");
    return TD_OK;
}

/* Pages of one record of the free list: a count, then as many page numbers, falling. */
static int free_record(struct walk *walk, struct table *table, uint64_t at, uint64_t from, uint64_t size,
                       const char *value)
{
    uint64_t count, before = NO_PAGE, *numbers = (uint64_t *)(void *)piece_buffer(walk);
    int rc = TD_OK;

    if (size < sizeof(count) || size % sizeof(count) != 0)
        return damaged(walk, table->name, at, "a record of an impossible size");
    for (uint64_t done = 0, end = size; done < end && rc == TD_OK;) {
        size_t part = end - done < PIECE ? (size_t)(end - done) : PIECE, index = 0;

        if (value != NULL)
            memcpy(numbers, value + done, part);
        else if ((rc = read_at(walk, numbers, part, from + done)) != TD_OK)
            return rc;
        if (done == 0) {
            count = numbers[index++];
            if (count > size / sizeof(count) - 1)
                return damaged(walk, table->name, at, "a count above its record");
            end = (count + 1) * sizeof(count);
        }
        for (; index < part / sizeof(*numbers) && done + index * sizeof(*numbers) < end && rc == TD_OK; index++) {
            if (numbers[index] >= before)
                return damaged(walk, table->name, at, "page numbers out of order");
            before = numbers[index];
            rc = own(walk, table->name, before, 1);
        }
        done += part;
    }
    return rc;
}

static int free_value(struct walk *walk, struct table *table, uint64_t at, const char *value, uint64_t size,
                      uint64_t run)
{
    uint64_t pages;
    int rc;

    memcpy(&walk->newest_freed, table->key, sizeof(walk->newest_freed));
    if (run == NO_PAGE)
        return free_record(walk, table, at, 0, size, value);
    if ((rc = check_run(walk, table, run, run_pages(walk, size), &pages)) != TD_OK ||
        (rc = own(walk, table->name, run, pages)) != TD_OK)
        return rc;
    table->found.overflows += pages;
    return free_record(walk, table, run, run * walk->page + sizeof(struct page_head), size, NULL);
}

/* A record of the main tree: one of the tables. */
static int main_value(struct walk *walk, struct table *table, uint64_t at, const char *value, uint64_t size)
{
    for (int i = 0; i < walk->options->table_count; i++) {
        const struct tree_table *known = &walk->options->tables[i];

        if (strlen(known->name) != table->key_length ||
            memcmp(known->name, table->key, table->key_length) != 0)
            continue;
        if (size != sizeof(walk->tables[i]))
            break;
        memcpy(&walk->tables[i], value, sizeof(walk->tables[i]));
        if (walk->tables[i].flags != known->flags || walk->tables[i].pad != 0)
            break;
        walk->has_table[i] = true;
        if (walk->options->entries != NULL)
            walk->options->entries[i] = walk->tables[i].entries;
        return TD_OK;
    }
    return damaged(walk, table->name, at, "an unknown table");
}

static int table_value(struct walk *walk, struct table *table, uint64_t size, uint64_t run)
{
    uint64_t pages = run_pages(walk, size), named;
    int rc = TD_OK;

    if (run == NO_PAGE)
        return TD_OK;
    table->found.overflows += pages;
    if ((rc = own(walk, table->name, run, pages)) != TD_OK || !walk->options->deep || !table->runs_whole)
        return rc;
    if ((rc = check_run(walk, table, run, pages, &named)) == TD_OK && named != pages)
        rc = damaged(walk, table->name, run, "an overflow run with a bad header");
    return rc;
}

enum role { ROLE_FREE, ROLE_MAIN, ROLE_TABLE };

/* The records of a leaf that was found whole. */
static void visit_leaf(struct walk *walk, const struct table *table, uint64_t number, const char *page, unsigned count)
{
    for (unsigned i = 0, offset; i < count; i++) {
        struct node_head node = node_at(page, i, &offset);
        const char *key = page + offset + sizeof(node);
        uint64_t at = number * walk->page + (uint64_t)(key + node.key_size - page), run;

        if (!key_fits(table, node.key_size))
            continue;
        if (node.flags & NODE_BIG) {
            memcpy(&run, key + node.key_size, sizeof(run));
            at = run * walk->page + sizeof(struct page_head);
        }
        walk->options->visit(walk->options->context, table->index, key, at, node_value_size(&node));
    }
}

/* A fault in the order of keys, or below it: what follows has no neighbour to be compared with. */
static int bear_hole(struct walk *walk, struct table *table, int rc)
{
    if (rc != TD_ECORRUPT)
        return rc;
    table->holes = true;
    if (walk->options->unordered)
        table->has_key = table->has_floor = false;
    return bear(walk, rc);
}

static int check_record(struct walk *walk, struct table *table, enum role role, uint64_t number, const char *page,
                        unsigned index)
{
    unsigned offset;
    struct node_head node = node_at(page, index, &offset);
    const char *key = page + offset + sizeof(node), *value = key + node.key_size;
    uint64_t size = node_value_size(&node), run = NO_PAGE;

    if ((node.flags & ~NODE_BIG) != (role == ROLE_MAIN ? NODE_TABLE : 0))
        return damaged(walk, table->name, number, "a record of an unknown kind");
    if (!leaf_key_follows(table, key, node.key_size))
        return damaged(walk, table->name, number, "keys out of order");
    if (node.flags & NODE_BIG)
        memcpy(&run, value, sizeof(run));
    table->found.entries++;
    return role == ROLE_FREE   ? free_value(walk, table, number, value, size, run)
           : role == ROLE_MAIN ? main_value(walk, table, number, value, size)
                               : table_value(walk, table, size, run);
}

static int walk_leaf(struct walk *walk, struct table *table, enum role role, uint64_t number, char *page)
{
    unsigned count;
    int rc = load_page(walk, table->name, number, true, page, &count);

    table->found.leaves++;
    for (unsigned i = 0; rc == TD_OK && i < count; i++) {
        rc = check_record(walk, table, role, number, page, i);
        if (walk->options->unordered)
            rc = bear_hole(walk, table, rc);
    }
    if (rc == TD_OK && role == ROLE_TABLE && walk->options->visit != NULL)
        visit_leaf(walk, table, number, page, count);
    return rc;
}

/* The children of a branch will be read one by one: let the disk begin with all, runs of neighbours together. */
static void read_ahead(struct walk *walk, const char *page, unsigned count)
{
    uint64_t first = 0, pages = 0;

    for (unsigned i = 0, offset; i <= count; i++) {
        struct node_head node = {0};
        uint64_t child = NO_PAGE;

        if (i < count) {
            node = node_at(page, i, &offset);
            child = node_value_size(&node) | (uint64_t)node.flags << 32;
        }
        if (pages > 0 && child == first + pages) {
            pages++;
            continue;
        }
        if (pages > 0)
            (void)posix_fadvise(walk->fd, (off_t)(first * walk->page), (off_t)(pages * walk->page), POSIX_FADV_WILLNEED);
        first = child;
        pages = 1;
    }
}

static int walk_page(struct walk *walk, struct table *table, enum role role, uint64_t number, int level)
{
    char *page = level_page(walk, level);
    unsigned count, offset;
    int rc = own(walk, table->name, number, 1);

    if (rc != TD_OK)
        return rc;
    if (level + 1 == table->promised.depth)
        return walk_leaf(walk, table, role, number, page);
    rc = load_page(walk, table->name, number, false, page, &count);
    table->found.branches++;
    if (rc == TD_OK && table->soon && level + 2 == table->promised.depth)
        read_ahead(walk, page, count);
    for (unsigned i = 0; rc == TD_OK && i < count; i++) {
        struct node_head node = node_at(page, i, &offset);
        uint64_t child = node_value_size(&node) | (uint64_t)node.flags << 32;

        if (i > 0 && !separator_follows(table, page + offset + sizeof(node), node.key_size)) {
            rc = damaged(walk, table->name, number, "separators out of order");
            if (!walk->options->unordered)
                return rc;
            rc = bear_hole(walk, table, rc);
        }
        if (rc == TD_OK)
            rc = bear_hole(walk, table, walk_page(walk, table, role, child, level + 1));
    }
    return rc;
}

static int walk_table(struct walk *walk, struct table *table, enum role role)
{
    const struct table_record *promised = &table->promised;
    struct table_record *found = &table->found;
    int rc = TD_OK;

    if (promised->depth > DEPTH_MAX || (promised->depth == 0) != (promised->root == NO_PAGE))
        return damaged(walk, table->name, promised->root, "an impossible depth");
    if (promised->depth != 0)
        rc = walk_page(walk, table, role, promised->root, 0);
    if (rc == TD_OK && (found->branches != promised->branches || found->leaves != promised->leaves ||
                        found->overflows != promised->overflows || found->entries != promised->entries))
        rc = damaged(walk, table->name, promised->root, "not as many records or pages as it says");
    return rc;
}

/* --- metas ----------------------------------------------------------------- */

static int meta_damaged(struct walk *walk, int which, const char *what)
{
    return damaged(walk, "meta", (uint64_t)which, what);
}

/* What LMDB looks at in both. */
static int check_meta(struct walk *walk, const struct meta_page *meta, int which)
{
    uint32_t page = meta->free.pad;

    if (meta->magic != META_MAGIC || meta->version != META_VERSION || !(meta->head.flags & PAGE_META))
        return meta_damaged(walk, which, "not a meta page");
    if (page < PAGE_MIN || page > PAGE_MAX || (page & (page - 1)) != 0)
        return meta_damaged(walk, which, "an impossible page size");
    if (meta->txn != 0 && (meta->txn & 1) != (unsigned)which)
        return meta_damaged(walk, which, "a transaction of the other meta");
    return TD_OK;
}

/* What LMDB believes of the one it chooses. */
static int check_chosen(struct walk *walk, const struct meta_page *meta, int which)
{
    uint64_t wanted = walk->options->map_bytes;

    if (meta->head.number != (uint64_t)which || meta->head.flags != PAGE_META || meta->address != 0 ||
        meta->free.flags != INTEGER_KEY || meta->main.flags != 0 || meta->main.pad != 0)
        return meta_damaged(walk, which, "unknown flags");
    if (meta->map_bytes > MAP_MAX || (wanted != 0 && meta->map_bytes != wanted) || meta->last < 1 ||
        meta->last >= meta->map_bytes / walk->page)
        return meta_damaged(walk, which, "an impossible size");
    return TD_OK;
}

/* The largest key of the older meta's free list, by the right edge of its tree; 0 when unreadable. */
static uint64_t older_freed(struct walk *walk, const struct meta_page *meta)
{
    uint64_t number = meta->free.root, key = 0;
    unsigned count = 0, offset;
    char *page = level_page(walk, 0);

    for (int level = 1; level <= meta->free.depth && level <= DEPTH_MAX; level++) {
        bool leaf = level == meta->free.depth;
        struct node_head node;

        if (number < 2 || number > meta->last ||
            load_page(walk, FREE_NAME, number, leaf, page, &count) != TD_OK)
            return 0;
        node = node_at(page, count - 1, &offset);
        number = node_value_size(&node) | (uint64_t)node.flags << 32;
        if (leaf && node.key_size == sizeof(key))
            memcpy(&key, page + offset + sizeof(node), sizeof(key));
    }
    return key;
}

/* Choose as LMDB does, and find out whether that is right: no transaction but the last is missing. */
static int read_metas(struct walk *walk, struct meta_page metas[2], int *newer)
{
    int rc = read_at(walk, &metas[0], sizeof(metas[0]), 0);

    if (rc != TD_OK || (rc = check_meta(walk, &metas[0], 0)) != TD_OK ||
        (rc = read_at(walk, &metas[1], sizeof(metas[1]), metas[0].free.pad)) != TD_OK ||
        (rc = check_meta(walk, &metas[1], 1)) != TD_OK)
        return rc;
    *newer = metas[0].txn < metas[1].txn;
    if (metas[0].free.pad != metas[1].free.pad)
        return meta_damaged(walk, 1, "another page size than the other meta");
    if (metas[*newer].txn - metas[!*newer].txn > 1)
        return meta_damaged(walk, *newer, "a transaction between the two metas is missing");
    walk->page = metas[0].free.pad;
    walk->meta = metas[*newer];
    return check_chosen(walk, &metas[*newer], *newer);
}

/* The newer of those that make sense by themselves, or the other. Where the second lies the page size says. */
static int find_meta(struct walk *walk, struct meta_page metas[2], int *newer)
{
    bool good[2] = {false, false};
    int rc = read_at(walk, &metas[0], sizeof(metas[0]), 0);

    good[0] = rc == TD_OK && check_meta(walk, &metas[0], 0) == TD_OK;
    for (uint32_t page = good[0] ? metas[0].free.pad : PAGE_MIN; rc == TD_OK && page <= PAGE_MAX && !good[1]; page *= 2)
        if ((rc = read_at(walk, &metas[1], sizeof(metas[1]), page)) == TD_OK)
            good[1] = check_meta(walk, &metas[1], 1) == TD_OK && metas[1].free.pad == page;
    for (int i = 0; i < 2 && rc == TD_OK; i++) {
        walk->page = metas[i].free.pad;
        good[i] = good[i] && check_chosen(walk, &metas[i], i) == TD_OK;
    }
    if (rc != TD_OK)
        return rc;
    *newer = !good[0] || (good[1] && metas[0].txn < metas[1].txn);
    if (walk->options->older)
        *newer = !*newer;
    if (!good[*newer])
        return meta_damaged(walk, *newer, "it makes no sense");
    walk->page = metas[*newer].free.pad;
    walk->meta = metas[*newer];
    return TD_OK;
}

/* --- all ------------------------------------------------------------------- */

/* No malloc: this may be the child of a process with threads. */
static void *get_memory(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return memory == MAP_FAILED ? NULL : memory;
}

static int prepare(struct walk *walk)
{
    struct stat file;

    if (fstat(walk->fd, &file) != 0)
        return error_set_errno(walk->err, TD_EIO, errno, "cannot read %s", walk->path);
    walk->file_pages = ((uint64_t)file.st_size + walk->page - 1) / walk->page;
    walk->seen_bytes = walk->meta.last / 8 + 1;
    walk->seen = get_memory(walk->seen_bytes);
    walk->memory_bytes = (size_t)DEPTH_MAX * walk->page + PIECE + walk->page;
    walk->memory = get_memory(walk->memory_bytes);
    if (walk->seen == NULL || walk->memory == NULL)
        return error_set(walk->err, TD_ENOMEM, "out of memory checking %s", walk->path);
    return TD_OK;
}

static int walk_free_and_main(struct walk *walk)
{
    struct table freed = {.name = FREE_NAME, .promised = walk->meta.free, .key_size = 8};
    struct table tables = {.name = "main", .promised = walk->meta.main};
    int rc = bear(walk, walk_table(walk, &freed, ROLE_FREE));

    return rc != TD_OK ? rc : bear(walk, walk_table(walk, &tables, ROLE_MAIN));
}

static int walk_tables(struct walk *walk)
{
    int rc = TD_OK;

    for (int i = 0; rc == TD_OK && i < walk->options->table_count; i++) {
        const struct tree_table *known = &walk->options->tables[i];
        struct table table = {.name = known->name, .promised = walk->tables[i],
                              .key_size = known->key_size, .runs_whole = known->runs_whole, .soon = known->soon, .index = i};

        if (known->bulk && walk->has_table[i] && walk->options->bulk_most != 0 &&
            table.promised.entries > walk->options->bulk_most) {
            walk->partial = true;
            continue;
        }

        rc = walk->has_table[i] ? walk_table(walk, &table, ROLE_TABLE)
                                : damaged(walk, known->name, walk->meta.main.root, "the table is missing");
        rc = bear(walk, rc);
    }
    return rc;
}

/* Every commit of ours but the first frees pages, under its own number. */
static int check_newest(struct walk *walk, const struct meta_page metas[2], int newer)
{
    uint64_t last = metas[newer].txn;

    if (walk->newest_freed > last || (last > 1 && walk->newest_freed != last) ||
        older_freed(walk, &metas[!newer]) > metas[!newer].txn) {
        if (walk->options->newest != NULL)
            *walk->options->newest = false;
        return meta_damaged(walk, newer, "not the last transaction");
    }
    return TD_OK;
}

/* The strict choice, or, where that fails, a patient walk's. */
static int choose_meta(struct walk *walk, struct meta_page metas[2], int *newer)
{
    int rc = bear(walk, read_metas(walk, metas, newer));

    if (walk->options->newest != NULL)
        *walk->options->newest = rc == TD_OK && walk->first.code == TD_OK && !walk->options->older;
    if (rc != TD_OK || (walk->first.code == TD_OK && !walk->options->older))
        return rc;
    return find_meta(walk, metas, newer);
}

int tree_walk(int fd, const char *path, const struct tree_options *options, struct error *err)
{
    struct error fault = {0};
    struct walk walk = {.fd = fd, .path = path, .options = options, .err = err != NULL ? err : &fault};
    struct meta_page metas[2];
    int newer = 0, rc;

    TD_ASSERT(options->table_count <= TABLES_MAX, "%d tables", options->table_count);
    if ((rc = choose_meta(&walk, metas, &newer)) != TD_OK || (rc = prepare(&walk)) != TD_OK)
        goto done;
    if (walk.meta.txn == 0) { /* nothing was ever committed */
        rc = walk.meta.last == 1 && walk.meta.main.root == NO_PAGE && walk.meta.free.root == NO_PAGE
                 ? TD_OK
                 : meta_damaged(&walk, newer, "pages without a transaction");
        goto done;
    }
    if ((rc = walk_free_and_main(&walk)) != TD_OK || (rc = walk_tables(&walk)) != TD_OK ||
        (!options->older && (rc = bear(&walk, check_newest(&walk, metas, newer))) != TD_OK))
        goto done;
    if (walk.owned != walk.meta.last - 1 && walk.first.code == TD_OK && !walk.partial)
        rc = damaged(&walk, "free", walk.meta.last, "pages that belong to nobody");

done:
    if (rc == TD_OK && walk.first.code != TD_OK) {
        *walk.err = walk.first;
        rc = walk.first.code;
    }
    if (walk.seen != NULL)
        munmap(walk.seen, walk.seen_bytes);
    if (walk.memory != NULL)
        munmap(walk.memory, walk.memory_bytes);
    return rc;
}
