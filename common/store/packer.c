#include "common/store/packer.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <zstd.h>

#include "common/store/segment.h"
#include "common/util/error.h"

struct packer {
    ZSTD_CCtx *deflate;
    ZSTD_DCtx *inflate;
    char *room;
};

int packer_create(packer_t **out)
{
    struct packer *packer = calloc(1, sizeof(*packer));

    *out = packer;
    if (packer == NULL)
        return TD_ENOMEM;
    packer->deflate = ZSTD_createCCtx();
    packer->inflate = ZSTD_createDCtx();
    packer->room = malloc(SEGMENT_BYTES_MAX);
    if (packer->deflate == NULL || packer->inflate == NULL || packer->room == NULL) {
        packer_destroy(out);
        return TD_ENOMEM;
    }
    return TD_OK;
}

void packer_destroy(packer_t **out)
{
    struct packer *packer = *out;

    if (packer == NULL)
        return;
    ZSTD_freeCCtx(packer->deflate);
    ZSTD_freeDCtx(packer->inflate);
    free(packer->room);
    free(packer);
    *out = NULL;
}

void *packer_room(packer_t *packer)
{
    return packer->room;
}

size_t packer_pack(packer_t *packer, void *out, const void *in, size_t length)
{
    size_t packed = length < 2 ? 0 : ZSTD_compressCCtx(packer->deflate, out, length - 1, in, length, PACKER_LEVEL);

    return ZSTD_isError(packed) ? 0 : packed;
}

bool packer_unpack(packer_t *packer, void *out, size_t length, const void *in, size_t packed)
{
    uint32_t magic;

    /* zstd also knows older formats, frames to skip and several in a row: nobody wrote those here */
    if (packed < sizeof(magic))
        return false;
    memcpy(&magic, in, sizeof(magic));
    return magic == ZSTD_MAGICNUMBER && ZSTD_getFrameContentSize(in, packed) == length &&
           ZSTD_findFrameCompressedSize(in, packed) == packed &&
           ZSTD_decompressDCtx(packer->inflate, out, length, in, packed) == length;
}
