/*
 * What the stats socket of a part answers, as `tdmpc2 stats` and the front's status line read and show it.
 * (The daemons take a question's text for nothing: there is no parser to be fuzzed.)
 */
#include <stdio.h>

#include "tests/fuzz/targets/target.h"
#include "tools/console.h"
#include "tools/stats.h"

FUZZ_TARGET(60000, 8192);

/* Nothing that a terminal would obey comes out. */
static void check_printable(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        TD_ASSERT((unsigned char)text[i] >= ' ' || text[i] == '\n', "byte %u of the table", (unsigned char)text[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct stats_run run;
    struct run_status status;
    char *text = NULL;
    size_t length = 0;
    FILE *out;

    status_parse(&status, (const char *)data, size);
    run.count = 1;
    run.parts[0].json = stats_read((const char *)data, size);
    out = open_memstream(&text, &length);
    TD_ASSERT(out != NULL);
    stats_print_table(&run, 100, out);
    fclose(out);
    check_printable(text, length);
    free(text);
    stats_forget(&run);
    return 0;
}
