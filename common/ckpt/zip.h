/*
 * zip.h - the directory of a zip file of stored entries, as torch.save writes it; and one written.
 *
 * All of the directory is checked at opening: it ends the file, every entry is stored (not compressed, not
 * encrypted), lies inside the file before the directory and overlaps no other, says the same in both of its
 * headers, and its name is a plain relative path that occurs once. Sizes beyond 4 GB (zip64) are read and
 * written. Contents are read by the caller, from `fd` at `offset`.
 *
 * Thread:  one at a time.
 * Source:  PKWARE APPNOTE 6.3.10, sections 4.3 to 4.5.
 */
#ifndef TD_CKPT_ZIP_H
#define TD_CKPT_ZIP_H

#include <stdint.h>

#include "common/util/error.h"

#define ZIP_NAME_MAX      512
#define ZIP_DIRECTORY_MAX ((uint64_t)64 << 20) /* bytes of directory that are accepted */

struct zip_entry {
    const char *name;
    uint64_t header;         /* of the file: where the entry begins */
    uint64_t offset, length; /* of the file: its contents */
    uint32_t crc;
};

struct zip {
    int count;
    struct zip_entry *entry; /* [count], by name */
    char *names;             /* that they point into */
};

/*
 * Read the directory of the open file `fd` of `size` bytes; `path` is for the message. Nothing is kept of fd.
 * TD_OK, TD_EIO, TD_ENOMEM, TD_ECORRUPT. Release in any case.
 */
int zip_read(struct zip *zip, int fd, uint64_t size, const char *path, struct error *err);
void zip_release(struct zip *zip);

/* By name; NULL when there is none. */
const struct zip_entry *zip_find(const struct zip *zip, const char *name);

#endif
