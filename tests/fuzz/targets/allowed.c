/* The list of allowed keys: sound, sorted, each key and name once; or nobody is let in. */
#include "common/net/keys.h"
#include "tests/fuzz/targets/target.h"

FUZZ_TARGET(140000, 4096);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = fuzz_text(data, size);
    struct allowed_keys allowed;
    struct error err = {0};

    if (allowed_read(&allowed, text, "allowed", &err) == TD_OK) {
        for (int i = 0; i < allowed.count; i++) {
            const struct allowed_key *entry = &allowed.entries[i];

            TD_ASSERT(allowed_by_key(&allowed, entry->public_key) == entry);
            TD_ASSERT(allowed_by_name(&allowed, &entry->who) == entry);
        }
    } else {
        TD_ASSERT(allowed.count == 0 && allowed.entries == NULL && err.text[0] != '\0');
    }
    allowed_release(&allowed);
    free(text);
    return 0;
}
