/* An address, and the file in a run directory that says where a part is to be found. */
#include "common/net/address.h"
#include "common/net/rundir.h"
#include "tests/fuzz/targets/target.h"

FUZZ_TARGET(130000, 1024);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = fuzz_text(data, size);
    struct rundir_part part;
    struct error err = {0};

    if (text[0] == '{') {
        if (rundir_parse(text, &part))
            TD_ASSERT(part.pid >= 0 && memchr(part.stats, 0, sizeof(part.stats)) &&
                      memchr(part.control, 0, sizeof(part.control)));
    } else if (strncmp(text, "tcp://localhost", 15) != 0) { /* the one name, looked up each time */
        if (address_check(text, false, &err) == TD_OK)
            TD_ASSERT(address_is_local(text), "%s", text);
        else
            TD_ASSERT(err.text[0] != '\0');
    }
    free(text);
    return 0;
}
