#include "common/util/build.h"

#include <elf.h>
#include <fcntl.h>
#include <gnu/libc-version.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#define SEGMENTS_MAX 64
#define NOTES_MAX    4096

/* The id among the notes of one segment. */
static bool find_id(const unsigned char *notes, size_t size, char out[BUILD_TEXT_MAX])
{
    size_t at = 0;

    while (at + sizeof(Elf64_Nhdr) <= size) {
        Elf64_Nhdr head;
        size_t name, id;

        memcpy(&head, notes + at, sizeof(head));
        name = at + sizeof(head);
        if (head.n_namesz > size || head.n_descsz > size)
            return false;
        id = name + (head.n_namesz + 3u) / 4 * 4;
        if (id + head.n_descsz > size)
            return false;
        if (head.n_type == NT_GNU_BUILD_ID && head.n_namesz == 4 && memcmp(notes + name, "GNU", 4) == 0 &&
            head.n_descsz > 0 && head.n_descsz <= 20) {
            for (size_t i = 0; i < head.n_descsz; i++)
                snprintf(out + 2 * i, 3, "%02x", notes[id + i]);
            return true;
        }
        at = id + (head.n_descsz + 3u) / 4 * 4;
    }
    return false;
}

static bool read_id(int file, char out[BUILD_TEXT_MAX])
{
    unsigned char notes[NOTES_MAX];
    Elf64_Ehdr head;

    if (pread(file, &head, sizeof(head), 0) != (ssize_t)sizeof(head) || memcmp(head.e_ident, ELFMAG, SELFMAG) != 0 ||
        head.e_ident[EI_CLASS] != ELFCLASS64 || head.e_phentsize != sizeof(Elf64_Phdr))
        return false;
    for (int i = 0; i < head.e_phnum && i < SEGMENTS_MAX; i++) {
        Elf64_Phdr segment;
        ssize_t got;

        if (pread(file, &segment, sizeof(segment), (off_t)(head.e_phoff + (size_t)i * sizeof(segment))) !=
            (ssize_t)sizeof(segment))
            return false;
        if (segment.p_type != PT_NOTE)
            continue;
        got = pread(file, notes, segment.p_filesz < NOTES_MAX ? segment.p_filesz : NOTES_MAX, (off_t)segment.p_offset);
        if (got > 0 && find_id(notes, (size_t)got, out))
            return true;
    }
    return false;
}

int build_of(const char *path, char out[BUILD_TEXT_MAX])
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    bool found = file >= 0 && read_id(file, out);

    if (file >= 0)
        close(file);
    if (!found) {
        snprintf(out, BUILD_TEXT_MAX, "unknown");
        return TD_ENOTFOUND;
    }
    snprintf(out + strlen(out), BUILD_TEXT_MAX - strlen(out), " gcc %d.%d.%d", __GNUC__, __GNUC_MINOR__,
             __GNUC_PATCHLEVEL__);
    return TD_OK;
}

void build_libc(char out[BUILD_TEXT_MAX])
{
    snprintf(out, BUILD_TEXT_MAX, "glibc %.40s", gnu_get_libc_version());
}

void build_machine(char out[BUILD_TEXT_MAX])
{
    struct utsname name;

    snprintf(out, BUILD_TEXT_MAX, "%.60s", uname(&name) == 0 ? name.machine : "unknown");
}
