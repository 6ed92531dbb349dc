#include "common/util/json.h"

#include <pthread.h>
#include <stdlib.h>

static _Thread_local bool starved; /* an allocation failed */

static void *json_malloc(size_t size)
{
    void *memory = malloc(size);

    starved |= memory == NULL;
    return memory;
}

/* cJSON says NULL for both; what it was shows where it asks for memory. */
static void watch(void)
{
    cJSON_Hooks hooks = {json_malloc, free};

    cJSON_InitHooks(&hooks);
}

int json_parse(cJSON **out, const char *text, size_t length, bool whole)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, watch);
    starved = false;
    *out = cJSON_ParseWithLengthOpts(text, whole ? length + 1 : length, NULL, whole);
    return *out != NULL ? TD_OK : starved ? TD_ENOMEM : TD_ECORRUPT;
}
