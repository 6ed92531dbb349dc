#include "common/ckpt/zip.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define END_BYTES       22
#define END64_BYTES     56
#define LOCATOR_BYTES   20
#define CENTRAL_BYTES   46
#define LOCAL_BYTES     30
#define FLAGS_REFUSED   0x2041 /* encrypted, strongly encrypted, masked headers */
#define FLAG_DESCRIPTOR 0x0008 /* sizes follow the contents */

struct reader {
    int fd;
    uint64_t size;
    const char *path;
    struct error *err;
};

static uint32_t get16(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8;
}

static uint32_t get32(const uint8_t *at)
{
    return get16(at) | get16(at + 2) << 16;
}

static uint64_t get64(const uint8_t *at)
{
    return get32(at) | (uint64_t)get32(at + 4) << 32;
}

static int refuse(const struct reader *reader, const char *why)
{
    return error_set(reader->err, TD_ECORRUPT, "%s cannot be read: %s", reader->path, why);
}

static int refuse_entry(const struct reader *reader, const char *name, const char *why)
{
    return error_set(reader->err, TD_ECORRUPT, "%s cannot be read: its entry %.100s %s", reader->path, name, why);
}

static int read_at(const struct reader *reader, void *out, size_t length, uint64_t offset)
{
    char *next = out;

    if (offset > reader->size || length > reader->size - offset)
        return refuse(reader, "it ends in the middle of its zip structure");
    while (length > 0) {
        ssize_t got = pread(reader->fd, next, length, (off_t)offset);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_set_errno(reader->err, TD_EIO, errno, "cannot read %s", reader->path);
        if (got == 0)
            return refuse(reader, "it became shorter while it was read");
        next += got;
        offset += (uint64_t)got;
        length -= (size_t)got;
    }
    return TD_OK;
}

/* --- the directory's place ------------------------------------------------------ */

struct place {
    uint64_t count, offset, length;
};

/* The longer record, named by the locator before the short one; it must end where the locator begins. */
static int find_directory64(const struct reader *reader, const uint8_t *locator, uint64_t locator_at, struct place *place)
{
    uint8_t record[END64_BYTES];
    uint64_t at = get64(locator + 8);
    int rc;

    if (locator_at < END64_BYTES || at != locator_at - END64_BYTES || get32(locator + 4) != 0)
        return refuse(reader, "its zip64 directory is not where it should be");
    if ((rc = read_at(reader, record, sizeof(record), at)) != TD_OK)
        return rc;
    if (get32(record) != 0x06064b50 || get64(record + 4) != END64_BYTES - 12 || get32(record + 16) != 0 ||
        get32(record + 20) != 0 || get64(record + 24) != get64(record + 32))
        return refuse(reader, "its zip64 directory is damaged");
    *place = (struct place){get64(record + 32), get64(record + 48), get64(record + 40)};
    if (place->offset > at || place->length != at - place->offset)
        return refuse(reader, "its zip64 directory does not end where it should");
    return TD_OK;
}

static int find_directory(const struct reader *reader, struct place *place)
{
    uint8_t tail[LOCATOR_BYTES + END_BYTES] = {0}, *end = tail + LOCATOR_BYTES;
    size_t have = reader->size < sizeof(tail) ? END_BYTES : sizeof(tail);
    int rc;

    if (reader->size < END_BYTES)
        return refuse(reader, "it is too short for a zip file");
    if ((rc = read_at(reader, tail + sizeof(tail) - have, have, reader->size - have)) != TD_OK)
        return rc;
    if (get32(end) != 0x06054b50 || get16(end + 20) != 0)
        return refuse(reader, "no zip directory ends it: it was cut short, or is no *.pt file of PyTorch 1.6 or later");
    if (get32(tail) == 0x07064b50)
        return find_directory64(reader, tail, reader->size - sizeof(tail), place);
    *place = (struct place){get16(end + 10), get32(end + 16), get32(end + 12)};
    if (get16(end + 4) != 0 || get16(end + 6) != 0 || get16(end + 8) != place->count)
        return refuse(reader, "it is one part of a zip file in several");
    if (place->offset > reader->size - END_BYTES || place->length != reader->size - END_BYTES - place->offset)
        return refuse(reader, "its zip directory does not end where it should");
    return TD_OK;
}

/* --- entries ------------------------------------------------------------------- */

/* A relative path of plain components: nothing that leads elsewhere, nothing that a terminal obeys. */
static bool name_is_plain(const char *name, size_t length)
{
    const char *part = name;

    for (size_t i = 0; i <= length; i++) {
        unsigned char c = (unsigned char)name[i];

        if (i < length && c != '/') {
            if (c < ' ' || c == 127 || c == '\\' || c == ':')
                return false;
            continue;
        }
        if (name + i == part || (name + i == part + 1 && part[0] == '.') ||
            (name + i == part + 2 && part[0] == '.' && part[1] == '.'))
            return false;
        part = name + i + 1;
    }
    return true;
}

/* Sizes and offset of 0xffffffff stand in the zip64 field, in this order, those alone. */
static int take_zip64(struct zip_entry *entry, const uint8_t *extra, size_t length, uint64_t *compressed)
{
    uint64_t *const wide[] = {&entry->length, compressed, &entry->header};

    while (length >= 4) {
        size_t size = get16(extra + 2);
        const uint8_t *at = extra + 4, *end;

        if (size > length - 4)
            return TD_ECORRUPT;
        end = at + size;
        if (get16(extra) == 1) {
            for (size_t i = 0; i < TD_LEN(wide); i++)
                if (*wide[i] == 0xffffffffu) {
                    if (end - at < 8)
                        return TD_ECORRUPT;
                    *wide[i] = get64(at);
                    at += 8;
                }
            return TD_OK;
        }
        extra = end;
        length -= 4 + size;
    }
    return length == 0 ? TD_OK : TD_ECORRUPT;
}

/* The entry's own header: it must say what the directory says, and tells where the contents begin. */
static int check_local(const struct reader *reader, struct zip_entry *entry, uint32_t flags, uint64_t limit)
{
    uint8_t header[LOCAL_BYTES + ZIP_NAME_MAX];
    size_t length = strlen(entry->name);
    int rc;

    if (entry->header > limit || limit - entry->header < LOCAL_BYTES + length)
        return refuse_entry(reader, entry->name, "lies outside the file");
    if ((rc = read_at(reader, header, LOCAL_BYTES + length, entry->header)) != TD_OK)
        return rc;
    if (get32(header) != 0x04034b50 || get16(header + 26) != length ||
        memcmp(header + LOCAL_BYTES, entry->name, length) != 0 || get16(header + 8) != 0 ||
        ((get16(header + 6) ^ flags) & (FLAGS_REFUSED | FLAG_DESCRIPTOR)) != 0)
        return refuse_entry(reader, entry->name, "has two headers that disagree");
    if (!(flags & FLAG_DESCRIPTOR) &&
        (get32(header + 14) != entry->crc ||
         (get32(header + 22) != 0xffffffffu && get32(header + 22) != entry->length)))
        return refuse_entry(reader, entry->name, "has two headers that disagree");
    entry->offset = entry->header + LOCAL_BYTES + length + get16(header + 28);
    if (entry->offset > limit || entry->length > limit - entry->offset)
        return refuse_entry(reader, entry->name, "lies outside the file");
    return TD_OK;
}

/* One record of the directory, at `at` with `left` bytes; *used tells its length. */
static int take_entry(const struct reader *reader, struct zip_entry *entry, const uint8_t *at, uint64_t left,
                      uint64_t limit, char **name, size_t *used)
{
    size_t length, extra;
    uint64_t compressed;

    if (left < CENTRAL_BYTES || get32(at) != 0x02014b50)
        return refuse(reader, "its zip directory is damaged");
    length = get16(at + 28);
    extra = get16(at + 30);
    *used = CENTRAL_BYTES + length + extra + get16(at + 32);
    if (left < *used)
        return refuse(reader, "its zip directory is damaged");
    if (length == 0 || length > ZIP_NAME_MAX || !name_is_plain((const char *)at + CENTRAL_BYTES, length))
        return refuse(reader, "the name of one of its zip entries is no plain relative path");
    memcpy(*name, at + CENTRAL_BYTES, length);
    (*name)[length] = '\0';
    *entry = (struct zip_entry){
        .name = *name, .crc = get32(at + 16), .length = get32(at + 24), .header = get32(at + 42)};
    *name += length + 1;
    compressed = get32(at + 20);
    if (take_zip64(entry, at + CENTRAL_BYTES + length, extra, &compressed) != TD_OK)
        return refuse_entry(reader, entry->name, "has a damaged zip64 field");
    if (get16(at + 8) & FLAGS_REFUSED)
        return refuse_entry(reader, entry->name, "is encrypted");
    if (get16(at + 10) != 0 || compressed != entry->length)
        return refuse_entry(reader, entry->name, "is compressed, which torch.save never does: save it again with PyTorch");
    if (get16(at + 34) != 0)
        return refuse_entry(reader, entry->name, "lies in another part of the zip file");
    return check_local(reader, entry, get16(at + 8), limit);
}

static int by_place(const void *a, const void *b)
{
    const struct zip_entry *one = a, *two = b;

    return (one->header > two->header) - (one->header < two->header);
}

static int by_name(const void *a, const void *b)
{
    const struct zip_entry *one = a, *two = b;

    return strcmp(one->name, two->name);
}

static int check_distinct(const struct reader *reader, struct zip *zip)
{
    qsort(zip->entry, (size_t)zip->count, sizeof(*zip->entry), by_place);
    for (int i = 1; i < zip->count; i++)
        if (zip->entry[i].header < zip->entry[i - 1].offset + zip->entry[i - 1].length)
            return refuse_entry(reader, zip->entry[i].name, "overlaps another");
    qsort(zip->entry, (size_t)zip->count, sizeof(*zip->entry), by_name);
    for (int i = 1; i < zip->count; i++)
        if (strcmp(zip->entry[i - 1].name, zip->entry[i].name) == 0)
            return refuse_entry(reader, zip->entry[i].name, "occurs twice");
    return TD_OK;
}

static int take_entries(const struct reader *reader, struct zip *zip, const uint8_t *directory, const struct place *place)
{
    uint64_t left = place->length;
    char *name = zip->names;
    size_t used = 0;
    int rc;

    for (uint64_t i = 0; i < place->count; i++, left -= used, directory += used) {
        if ((rc = take_entry(reader, &zip->entry[i], directory, left, place->offset, &name, &used)) != TD_OK)
            return rc;
        zip->count++;
    }
    if (left != 0)
        return refuse(reader, "its zip directory holds more than its entries");
    return check_distinct(reader, zip);
}

int zip_read(struct zip *zip, int fd, uint64_t size, const char *path, struct error *err)
{
    const struct reader reader = {fd, size, path, err};
    struct place place = {0};
    uint8_t *directory;
    int rc;

    *zip = (struct zip){0};
    if ((rc = find_directory(&reader, &place)) != TD_OK)
        return rc;
    if (place.length > ZIP_DIRECTORY_MAX || place.count > place.length / CENTRAL_BYTES)
        return refuse(&reader, "its zip directory is impossibly long");
    directory = malloc((size_t)place.length + 1);
    zip->names = malloc((size_t)(place.length + place.count) + 1);
    zip->entry = calloc((size_t)place.count + 1, sizeof(*zip->entry));
    if (directory == NULL || zip->names == NULL || zip->entry == NULL)
        rc = error_set(err, TD_ENOMEM, "out of memory reading the directory of %s", path);
    else if ((rc = read_at(&reader, directory, (size_t)place.length, place.offset)) == TD_OK)
        rc = take_entries(&reader, zip, directory, &place);
    free(directory);
    return rc;
}

void zip_release(struct zip *zip)
{
    free(zip->entry);
    free(zip->names);
    *zip = (struct zip){0};
}

const struct zip_entry *zip_find(const struct zip *zip, const char *name)
{
    const struct zip_entry key = {.name = name};

    return zip->count == 0 ? NULL : bsearch(&key, zip->entry, (size_t)zip->count, sizeof(key), by_name);
}
