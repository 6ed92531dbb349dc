#include "common/store/row.h"

#include <math.h>
#include <string.h>

#include "common/util/error.h"

_Static_assert(sizeof(struct row_head) == 24, "the layout is a wire and disk format");

size_t row_obs_bytes(const struct row_schema *schema)
{
    size_t bytes = schema->obs_type == OBS_STATE ? (size_t)schema->obs_dim * sizeof(float)
                                                 : (size_t)schema->obs_dim;

    return (bytes + 3) / 4 * 4;
}

size_t row_stride(const struct row_schema *schema)
{
    return sizeof(struct row_head) + row_obs_bytes(schema) + schema->action_dim * sizeof(float);
}

const char *row_check(const void *row, const struct row_schema *schema)
{
    struct row_head head;
    const char *bytes = row;
    const float *obs = (const float *)(bytes + sizeof(head));
    const float *action = (const float *)(bytes + sizeof(head) + row_obs_bytes(schema));

    memcpy(&head, row, sizeof(head));
    if (head.flags & ~ROW_FLAGS_KNOWN)
        return "unknown flags";
    if ((head.flags & ROW_FIRST) && (head.flags & ROW_ENDS))
        return "a first row cannot end an episode";
    if (!isfinite(head.reward))
        return "the reward is not finite";
    if ((head.flags & ROW_FIRST) && head.reward != 0)
        return "a first row carries a reward";
    for (uint32_t i = 0; schema->obs_type == OBS_STATE && i < schema->obs_dim; i++)
        if (!isfinite(obs[i]))
            return "the observation is not finite";
    for (uint32_t i = 0; i < schema->action_dim; i++)
        if (!(action[i] >= -1.0f && action[i] <= 1.0f))
            return "an action lies outside [-1, 1]";
    for (uint32_t i = 0; (head.flags & ROW_FIRST) && i < schema->action_dim; i++)
        if (action[i] != 0)
            return "a first row carries an action";
    return NULL;
}
