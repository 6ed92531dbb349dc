/* A file of options, as it lies in a run or comes with Welcome: whatever is taken is in its range. */
#include "common/util/config.h"
#include "tests/fuzz/targets/ranges.h"
#include "tests/fuzz/targets/target.h"

FUZZ_TARGET(130000, 8192);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *bytes = malloc(size + 1); /* of exactly this length otherwise, so that reads past it are seen */
    struct config config;
    struct error err = {0};

    TD_ASSERT(bytes != NULL);
    if (size > 0)
        memcpy(bytes, data, size);
    bytes = realloc(bytes, size > 0 ? size : 1);
    config_init(&config);
    if (config_read(&config, bytes, size, "the file", NULL, &err) == TD_OK)
        config_check(&config, &err);
    else
        TD_ASSERT(err.text[0] != '\0');
    fuzz_in_range(&config);
    free(bytes);
    return 0;
}
