/* A *.safetensors file: refused with a sentence, or all of it is read without leaving the file. */
#include <sys/mman.h>
#include <unistd.h>

#include "common/ckpt/safetensors.h"
#include "tests/fuzz/targets/target.h"

FUZZ_TARGET(150000, 8192);

static void read_everything(const safetensors_t *file, size_t size)
{
    for (int i = 0; i < safetensors_count(file); i++) {
        const struct safetensors_tensor *tensor = safetensors_at(file, i);
        struct error err = {0};
        void *out;

        TD_ASSERT(tensor->bytes <= size && tensor->offset <= size - tensor->bytes, "%s lies outside", tensor->name);
        TD_ASSERT(safetensors_elements(tensor) * safetensors_type_size(tensor->type) == tensor->bytes);
        TD_ASSERT(safetensors_find(file, tensor->name) == tensor);
        out = malloc(tensor->bytes + 1);
        TD_ASSERT(out != NULL && safetensors_read(file, tensor, out, &err) == TD_OK, "%s", err.text);
        free(out);
    }
    for (int i = 0; i < safetensors_notes(file); i++)
        TD_ASSERT(safetensors_note(file, safetensors_note_at(file, i)->key) != NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int fd = -1;
    static char path[64];
    safetensors_t *file;
    struct error err = {0};

    if (fd < 0) {
        fd = memfd_create("fuzz", MFD_CLOEXEC);
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    }
    TD_ASSERT(ftruncate(fd, 0) == 0 && pwrite(fd, data, size, 0) == (ssize_t)size);
    if (safetensors_open(&file, path, &err) == TD_OK) {
        read_everything(file, size);
        safetensors_close(&file);
    } else {
        TD_ASSERT(err.text[0] != '\0' && file == NULL);
    }
    return 0;
}
