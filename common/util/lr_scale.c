#include "common/util/lr_scale.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char *const names[LR_SCALE_PARTS] = {"task_emb", "encoder", "dynamics", "reward", "termination", "Qs", "pi"};
static const char list[] = "task_emb, encoder, dynamics, reward, termination, Qs, pi";

static int find_part(const char *name, size_t length)
{
    for (int i = 0; i < LR_SCALE_PARTS; i++)
        if (strlen(names[i]) == length && strncasecmp(names[i], name, length) == 0)
            return i;
    return length == 1 && (name[0] == 'q' || name[0] == 'Q') ? 5 : length == 6 && strncasecmp(name, "policy", 6) == 0 ? 6 : -1;
}

/* One PART:FACTOR of `length` bytes. */
static int parse_item(const char *item, size_t length, double scale[LR_SCALE_PARTS], bool seen[LR_SCALE_PARTS],
                      struct error *err)
{
    const char *colon = memchr(item, ':', length);
    int shown = length > 80 ? 80 : (int)length, part;
    size_t digits;
    char number[32], *end;

    if (colon == NULL)
        return error_set(err, TD_EINVAL, "lr_scale: %.*s is not PART:FACTOR, as in lr_scale=encoder:0.1,pi:1", shown, item);
    if ((part = find_part(item, (size_t)(colon - item))) < 0)
        return error_set(err, TD_EINVAL, "lr_scale: %.*s is no part of the model: choose from %s",
                         colon - item > 80 ? 80 : (int)(colon - item), item, list);
    if (seen[part])
        return error_set(err, TD_EINVAL, "lr_scale names %s twice", names[part]);
    seen[part] = true;
    digits = (size_t)(item + length - colon - 1);
    if (digits == 0 || digits >= sizeof(number) || strspn(colon + 1, "0123456789.+-eE") < digits)
        return error_set(err, TD_EINVAL, "lr_scale: %.*s is not a factor from 0 to %g", shown, item, LR_SCALE_MAX);
    memcpy(number, colon + 1, digits);
    number[digits] = '\0';
    scale[part] = strtod(number, &end);
    if (*end != '\0' || !(scale[part] >= 0 && scale[part] <= LR_SCALE_MAX))
        return error_set(err, TD_EINVAL, "lr_scale: %.*s is not a factor from 0 to %g", shown, item, LR_SCALE_MAX);
    return TD_OK;
}

int lr_scale_parse(const char *text, double scale[LR_SCALE_PARTS], struct error *err)
{
    bool seen[LR_SCALE_PARTS] = {false};
    int rc = TD_OK;

    for (int i = 0; i < LR_SCALE_PARTS; i++)
        scale[i] = 1;
    if (text[0] == '\0')
        return TD_OK;
    for (const char *at = text;; at++) {
        size_t length = strcspn(at, ",");

        if ((rc = parse_item(at, length, scale, seen, err)) != TD_OK || at[length] == '\0')
            return rc;
        at += length;
    }
}
