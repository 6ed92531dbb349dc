/* A key file: only a whole pair of the name that was asked for is taken. */
#include "common/net/keys.h"
#include "common/wire/message.h"
#include "tests/fuzz/targets/target.h"

FUZZ_TARGET(130000, 2048);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct identity who = {.role = ROLE_ACTOR, .number = 3};
    char *text = fuzz_text(data, size);
    struct key_pair pair;

    if (keys_read(&pair, text, &who) == TD_OK)
        TD_ASSERT(strlen(pair.public_key) == KEY_TEXT_MAX - 1 && strlen(pair.secret_key) == KEY_TEXT_MAX - 1);
    else
        TD_ASSERT(pair.public_key[0] == '\0' && pair.secret_key[0] == '\0', "refused, but left behind");
    free(text);
    return 0;
}
