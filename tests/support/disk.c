#include "tests/support/disk.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

#include "common/util/fs.h"
#include "tests/support/test.h"

#define LOG_MAX ((size_t)1 << 31)
#define SECTOR  512u
#define PAGE    4096u
#define NEVER   SIZE_MAX

struct event {
    const struct record *record;
    const char *payload;
    uint32_t inode, folder, other_folder; /* numbered anew: the file system gives numbers again */
    uint32_t target;                      /* of a rename: what the name stands for */
    size_t durable_at;                    /* the event that made it so, or NEVER */
    size_t begun;                         /* of RECORD_SYNCED: where the sync began; of one of a write: NEVER */
};

struct inode {
    uint64_t number; /* the file system's, while it is alive */
    bool folder;
    bool reached; /* of the image being made */
};

struct entry {
    uint32_t folder, inode;
    const char *name;
};

struct disk {
    char *bytes;
    struct event *events;
    size_t count;
    struct inode *inodes; /* 0 is none, 1 the directory itself */
    uint32_t inode_count;
    struct entry *entries; /* of the image being made */
    size_t entry_count;
    char *file;            /* likewise: the file being made */
    size_t file_capacity;
    char text[256];
};

/* --- recording ------------------------------------------------------------- */

static const char *library(void)
{
    static char full[FS_PATH_MAX];
    const char *build = getenv("TD_BUILD");
    char path[FS_PATH_MAX], *real;

    snprintf(path, sizeof(path), "%s/tests/support/bin_record.so", build == NULL ? "build/release" : build);
    if ((real = realpath(path, NULL)) == NULL)
        fail_msg("%s is missing: run 'make tests'", path);
    snprintf(full, sizeof(full), "%s", real);
    free(real);
    return full;
}

void disk_record(const char *dir, const char *log)
{
    const char *sanitizer = getenv("ASAN_OPTIONS");
    char options[512];
    int fd;

    if (dir == NULL) {
        unsetenv("LD_PRELOAD");
        unsetenv("TD_RECORD_DIR");
        unsetenv("TD_RECORD_LOG");
        return;
    }
    fd = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    close(fd);
    setenv("TD_RECORD_DIR", dir, 1);
    setenv("TD_RECORD_LOG", log, 1);
    setenv("LD_PRELOAD", library(), 1);
    /* the sanitizer's library would rather be the first */
    if (sanitizer == NULL || strstr(sanitizer, "verify_asan_link_order=0") == NULL) {
        snprintf(options, sizeof(options), "%s%sverify_asan_link_order=0", sanitizer == NULL ? "" : sanitizer,
                 sanitizer == NULL ? "" : ":");
        setenv("ASAN_OPTIONS", options, 1);
    }
}

/* --- reading a record ------------------------------------------------------ */

static uint32_t inode_new(struct disk *disk, uint64_t number, bool folder)
{
    for (uint32_t i = 1; i < disk->inode_count; i++)
        if (disk->inodes[i].number == number)
            disk->inodes[i].number = 0; /* a new file has its number */
    disk->inodes = realloc(disk->inodes, (disk->inode_count + 1) * sizeof(*disk->inodes));
    assert_non_null(disk->inodes);
    disk->inodes[disk->inode_count] = (struct inode){.number = number, .folder = folder};
    return disk->inode_count++;
}

static uint32_t inode_of(const struct disk *disk, uint64_t number, size_t event)
{
    for (uint32_t i = 1; i < disk->inode_count; i++)
        if (disk->inodes[i].number == number)
            return i;
    fail_msg("event %zu is of a file that was never made", event);
    return 0;
}

static struct entry *entry_find(const struct disk *disk, uint32_t folder, const char *name)
{
    for (size_t i = 0; i < disk->entry_count; i++)
        if (disk->entries[i].folder == folder && strcmp(disk->entries[i].name, name) == 0)
            return &disk->entries[i];
    return NULL;
}

/* The name stands for the inode from now on; 0: for nothing. */
static void entry_set(struct disk *disk, uint32_t folder, const char *name, uint32_t inode)
{
    struct entry *entry = entry_find(disk, folder, name);

    if (inode == 0 && entry != NULL) {
        *entry = disk->entries[--disk->entry_count];
    } else if (inode != 0 && entry != NULL) {
        entry->inode = inode;
    } else if (inode != 0) {
        disk->entries[disk->entry_count++] = (struct entry){folder, inode, name};
    }
}

static uint32_t entry_inode(const struct disk *disk, uint32_t folder, const char *name)
{
    const struct entry *entry = entry_find(disk, folder, name);

    return entry == NULL ? 0 : entry->inode;
}

/*
 * Carry out a change of names. What each stood for when it happened is in the event, since in an image
 * the change before it may be lost. A name is only taken away while it stands for what it did then.
 */
static void apply_names(struct disk *disk, const struct event *event)
{
    const struct record *record = event->record;

    switch (record->kind) {
    case RECORD_CREATE:
    case RECORD_MKDIR:
        entry_set(disk, event->folder, record->name, event->inode);
        break;
    case RECORD_UNLINK:
        if (entry_inode(disk, event->folder, record->name) == event->inode)
            entry_set(disk, event->folder, record->name, 0);
        break;
    case RECORD_RENAME:
        if (entry_inode(disk, event->folder, record->name) == event->inode)
            entry_set(disk, event->folder, record->name, 0);
        entry_set(disk, event->other_folder, record->other, event->inode);
        break;
    case RECORD_EXCHANGE:
        entry_set(disk, event->folder, record->name, event->target);
        entry_set(disk, event->other_folder, record->other, event->inode);
        break;
    default:
        break;
    }
}

static bool is_name(const struct event *event)
{
    return event->record->kind >= RECORD_CREATE && event->record->kind <= RECORD_EXCHANGE;
}

static bool is_data(const struct event *event)
{
    return event->record->kind == RECORD_WRITE || event->record->kind == RECORD_SIZE;
}

/* Give the files of an event their numbers; names as they truly were are kept meanwhile. */
static void number_event(struct disk *disk, struct event *event, size_t index)
{
    const struct record *record = event->record;

    if (is_name(event))
        event->folder = inode_of(disk, record->folder, index);
    if (record->kind == RECORD_CREATE || record->kind == RECORD_MKDIR) {
        event->inode = inode_new(disk, record->inode, record->kind == RECORD_MKDIR);
    } else if (is_name(event)) {
        event->inode = entry_inode(disk, event->folder, record->name);
        if (event->inode == 0)
            fail_msg("event %zu is of '%s', which was never made", index, record->name);
    } else if (record->inode != 0) {
        event->inode = inode_of(disk, record->inode, index);
    }
    if (record->kind == RECORD_RENAME || record->kind == RECORD_EXCHANGE) {
        event->other_folder = inode_of(disk, record->other_folder, index);
        event->target = entry_inode(disk, event->other_folder, record->other);
    }
    apply_names(disk, event);
}

/* A sync has succeeded: what it covers is durable from here on. */
static void mark_synced(struct disk *disk, size_t index)
{
    const struct record *record = disk->events[index].record;
    size_t begun = index;

    while (begun > 0) {
        const struct record *other = disk->events[--begun].record;

        if (other->id == record->id && other->pid == record->pid &&
            (other->kind == RECORD_SYNC || other->kind == RECORD_WRITE))
            break;
    }
    for (size_t i = 0; i <= begun; i++) {
        struct event *event = &disk->events[i];
        const struct event *sync = &disk->events[begun];
        bool covered = sync->record->kind == RECORD_WRITE ? i == begun
                       : is_data(event)                   ? event->inode == sync->inode
                                        : is_name(event) && (event->folder == sync->inode ||
                                                             (event->other_folder != 0 && event->other_folder == sync->inode));

        if (covered && event->durable_at == NEVER)
            event->durable_at = index;
    }
}

disk_t *disk_load(const char *dir, const char *log)
{
    struct disk *disk = calloc(1, sizeof(*disk));
    struct error err;
    struct stat info;
    size_t length, capacity;

    assert_non_null(disk);
    assert_int_equal(stat(dir, &info), 0);
    assert_ok(fs_read_file(log, LOG_MAX, &disk->bytes, &length, &err), err);
    capacity = length / sizeof(struct record) + 1;
    disk->events = calloc(capacity, sizeof(*disk->events));
    disk->entries = calloc(capacity, sizeof(*disk->entries));
    assert_true(disk->events != NULL && disk->entries != NULL);
    inode_new(disk, 0, false);
    inode_new(disk, info.st_ino, true);
    for (size_t at = 0; at + sizeof(struct record) <= length;) {
        struct event *event = &disk->events[disk->count];
        /* records follow each other at any address: a copy is aligned */
        struct record *record = malloc(sizeof(*record));

        assert_non_null(record);
        memcpy(record, disk->bytes + at, sizeof(*record));
        at += sizeof(*record);
        *event = (struct event){.record = record, .payload = disk->bytes + at, .durable_at = NEVER};
        disk->count++;
        if (record->payload > length - at)
            fail_msg("event %zu is cut short", disk->count - 1);
        at += record->payload;
        number_event(disk, event, disk->count - 1);
        if (record->kind == RECORD_SYNCED)
            mark_synced(disk, disk->count - 1);
    }
    return disk;
}

void disk_destroy(disk_t **out)
{
    struct disk *disk = *out;

    if (disk == NULL)
        return;
    for (size_t i = 0; i < disk->count; i++)
        free((void *)(uintptr_t)disk->events[i].record);
    free(disk->bytes);
    free(disk->events);
    free(disk->inodes);
    free(disk->entries);
    free(disk->file);
    free(disk);
    *out = NULL;
}

size_t disk_events(const disk_t *disk)
{
    return disk->count;
}

const struct record *disk_event(const disk_t *disk, size_t event)
{
    return disk->events[event].record;
}

const char *disk_payload(const disk_t *disk, size_t event)
{
    return disk->events[event].payload;
}

/* --- making an image ------------------------------------------------------- */

struct image {
    size_t events;
    enum disk_loss loss;
    uint64_t seed;
    size_t last; /* the last write; torn */
};

/* The same answer for the same question, in one image. */
static uint64_t toss(const struct image *image, uint64_t a, uint64_t b)
{
    uint64_t question[2] = {a, b};

    return XXH3_64bits_withSeed(question, sizeof(question), image->seed);
}

/* Until when a thing's changes are there: never, always, or a moment. */
static size_t moment(const struct image *image, uint64_t a, uint64_t b)
{
    uint64_t dice = toss(image, a, b);

    return dice % 3 == 0 ? 0 : dice % 3 == 1 ? image->events : (size_t)(dice / 3 % (image->events + 1));
}

static bool name_kept(const struct image *image, const struct event *event, size_t index)
{
    if (event->durable_at < image->events)
        return true;
    switch (image->loss) {
    case DISK_KEPT:
    case DISK_TORN:
        return true;
    case DISK_PAGES:
        return index < moment(image, UINT64_MAX, 0);
    case DISK_WRITES:
    case DISK_SECTORS:
        return toss(image, UINT64_MAX, index) & 1;
    default:
        return false;
    }
}

static bool size_kept(const struct image *image, const struct event *event, size_t index)
{
    if (event->durable_at < image->events)
        return true;
    switch (image->loss) {
    case DISK_KEPT:
        return true;
    case DISK_TORN:
        return index != image->last || (toss(image, index, UINT64_MAX) & 1);
    case DISK_WRITES:
        return toss(image, index, 1) & 1;
    case DISK_PAGES:
    case DISK_SECTORS:
        return index < moment(image, event->inode, UINT64_MAX);
    default:
        return false;
    }
}

/* Is this event's part of the sector at `offset` there? */
static bool sector_kept(const struct image *image, const struct event *event, size_t index, uint64_t offset)
{
    switch (image->loss) {
    case DISK_KEPT:
        return true;
    case DISK_TORN:
        return index != image->last || (toss(image, index, offset / SECTOR) & 1);
    case DISK_WRITES:
        return toss(image, index, 1) & 1;
    case DISK_PAGES:
        return index < moment(image, event->inode, offset / PAGE);
    case DISK_SECTORS:
        return index < moment(image, event->inode, offset / SECTOR);
    default:
        return false;
    }
}

static void room_for(struct disk *disk, size_t length)
{
    size_t capacity = length * 2 + 65536;

    if (length <= disk->file_capacity)
        return;
    disk->file = realloc(disk->file, capacity);
    assert_non_null(disk->file);
    memset(disk->file + disk->file_capacity, 0, capacity - disk->file_capacity);
    disk->file_capacity = capacity;
}

/* Bytes at `from` become the payload's, or zeros, sector by sector where it was not synced. */
static void apply_bytes(struct disk *disk, const struct image *image, size_t index, uint64_t from, uint64_t to,
                        const char *bytes)
{
    const struct event *event = &disk->events[index];
    bool durable = event->durable_at < image->events;

    room_for(disk, to);
    for (uint64_t at = from, end; at < to; at = end) {
        end = durable ? to : (at / SECTOR + 1) * SECTOR;
        end = end < to ? end : to;
        if (!durable && !sector_kept(image, event, index, at))
            continue;
        if (bytes != NULL)
            memcpy(disk->file + at, bytes + (at - from), end - at);
        else
            memset(disk->file + at, 0, end - at);
    }
}

/* Put together what the file may hold; returns its length. */
static size_t make_file(struct disk *disk, const struct image *image, uint32_t inode)
{
    uint64_t length = 0, touched = 0;

    for (size_t i = 0; i < image->events; i++) {
        const struct event *event = &disk->events[i];
        const struct record *record = event->record;

        if (event->inode != inode || !is_data(event))
            continue;
        if (record->kind == RECORD_WRITE) {
            uint64_t end = record->offset + record->length;

            apply_bytes(disk, image, i, record->offset, end, event->payload);
            touched = end > touched ? end : touched;
            if (end > length && size_kept(image, event, i))
                length = end;
            continue;
        }
        if (record->length < touched)
            apply_bytes(disk, image, i, record->length, touched, NULL);
        if (size_kept(image, event, i))
            length = record->length;
    }
    room_for(disk, length);
    if (touched > length) /* a durable length can't be behind durable bytes: those beyond were lost */
        memset(disk->file + length, 0, touched - length);
    return length;
}

/* What lies under a folder, in both worlds. */
static void write_folder(struct disk *disk, const struct image *image, uint32_t folder, const char *path)
{
    char inside[FS_PATH_MAX];

    assert_int_equal(mkdir(path, 0755), 0);
    disk->inodes[folder].reached = true;
    for (size_t i = 0; i < disk->entry_count; i++) {
        const struct entry *entry = &disk->entries[i];
        int fd;

        if (entry->folder != folder)
            continue;
        assert_int_equal(fs_join(inside, path, entry->name, NULL), TD_OK);
        if (disk->inodes[entry->inode].folder) {
            /* with changes lost here and there a folder may have two names; a check of the disk leaves one */
            if (!disk->inodes[entry->inode].reached)
                write_folder(disk, image, entry->inode, inside);
            continue;
        }
        memset(disk->file, 0, disk->file_capacity);
        size_t length = make_file(disk, image, entry->inode);

        fd = open(inside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        assert_true(fd >= 0);
        assert_int_equal(write(fd, disk->file, length), length);
        close(fd);
    }
}

static struct image image_of(const struct disk *disk, size_t events, enum disk_loss loss, uint64_t seed)
{
    struct image image = {events, loss, seed, NEVER};

    for (size_t i = 0; i < events; i++)
        if (disk->events[i].record->kind == RECORD_WRITE && disk->events[i].durable_at >= events)
            image.last = i;
    return image;
}

void disk_image(disk_t *disk, size_t events, enum disk_loss loss, uint64_t seed, const char *dir)
{
    struct image image = image_of(disk, events, loss, seed);

    TD_ASSERT(events <= disk->count, "%zu of %zu", events, disk->count);
    room_for(disk, 1);
    assert_int_equal(fs_remove_tree(dir, NULL), TD_OK);
    disk->entry_count = 0;
    for (uint32_t i = 0; i < disk->inode_count; i++)
        disk->inodes[i].reached = false;
    for (size_t i = 0; i < events; i++)
        if (is_name(&disk->events[i]) && name_kept(&image, &disk->events[i], i))
            apply_names(disk, &disk->events[i]);
    write_folder(disk, &image, 1, dir);
}

void disk_expect_whole(disk_t *disk, const char *dir, const char *scratch, const char *except)
{
    char command[3 * FS_PATH_MAX];

    disk_image(disk, disk->count, DISK_KEPT, 0, scratch);
    snprintf(command, sizeof(command), "diff -r --exclude='%s' '%s' '%s'", except, dir, scratch);
    if (system(command) != 0)
        fail_msg("something went unseen: the record does not make the directory");
    for (size_t i = 0; i < disk->count; i++)
        if (disk->events[i].record->kind == RECORD_MAPPED && strcmp(disk->events[i].record->name, except) != 0)
            fail_msg("%s was written through a map, which is not recorded", disk->events[i].record->name);
}

const char *disk_describe(const disk_t *disk, size_t events, enum disk_loss loss, uint64_t seed)
{
    static const char *const losses[DISK_LOSSES] = {
        "all kept",
        "all unsynced lost",
        "some unsynced writes",
        "pages of different ages",
        "sectors of different ages",
        "the last write torn",
    };
    static const char *const kinds[] = {"?",    "create", "mkdir",  "unlink", "rename", "exchange", "write",
                                        "size", "sync",   "synced", "mapped", "mark",   "frame"};
    const struct record *record = events > 0 ? disk->events[events - 1].record : NULL;

    snprintf((char *)(uintptr_t)disk->text, sizeof(disk->text), "after event %zu of %zu (%s %s), %s, seed %llu",
             events, disk->count, record == NULL ? "none" : kinds[record->kind < TD_LEN(kinds) ? record->kind : 0],
             record == NULL ? "" : record->name, losses[loss], (unsigned long long)seed);
    return disk->text;
}
