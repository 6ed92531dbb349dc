/* ranges.h - every option holds what its row of the table allows. */
#ifndef TD_FUZZ_RANGES_H
#define TD_FUZZ_RANGES_H

#include <string.h>

#include "common/util/config.h"

static inline void fuzz_in_range(const struct config *config)
{
    int count;
    const struct config_option *options = config_options(&count);

    for (int i = 0; i < count; i++) {
        const char *at = (const char *)config + options[i].offset;

        if (options[i].type == CONFIG_INT)
            TD_ASSERT((double)*(const int64_t *)at >= options[i].min && (double)*(const int64_t *)at <= options[i].max,
                      "%s", options[i].name);
        else if (options[i].type == CONFIG_REAL)
            TD_ASSERT(*(const double *)at >= options[i].min && *(const double *)at <= options[i].max, "%s",
                      options[i].name);
        else if (options[i].type == CONFIG_TEXT)
            TD_ASSERT(memchr(at, '\0', CONFIG_TEXT_MAX) != NULL, "%s", options[i].name);
    }
}

#endif
