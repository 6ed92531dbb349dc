/* assets.h - the files of the page, as the assembler put them into this program. */
#ifndef TD_LEARNER_DASHBOARD_ASSETS_H
#define TD_LEARNER_DASHBOARD_ASSETS_H

#include <stddef.h>

struct asset {
    const char *path; /* asked for */
    const char *type;
    const char *begin, *end;
};

/* The one of this path, or NULL. */
const struct asset *asset_find(const char *path);

#endif
