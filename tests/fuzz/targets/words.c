/* Words of a command line, one per line: taken whole, or refused without a change. */
#include "common/util/config.h"
#include "tests/fuzz/targets/ranges.h"
#include "tests/fuzz/targets/target.h"

FUZZ_TARGET(110000, 512);

static void one_word(struct config *config, const char *word)
{
    static struct config before;
    struct error err = {0};

    before = *config;
    if (config_set(config, word, &err) == TD_OK)
        return;
    TD_ASSERT(err.text[0] != '\0' && memcmp(config, &before, sizeof(before)) == 0, "refused \"%s\", but taken", word);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = fuzz_text(data, size), *rest = text, *word;
    static struct config config;
    struct error err = {0};

    config_init(&config);
    while ((word = strsep(&rest, "\n")) != NULL)
        one_word(&config, word);
    fuzz_in_range(&config);
    config_check(&config, &err);
    free(text);
    return 0;
}
