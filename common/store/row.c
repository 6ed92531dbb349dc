#include "common/store/row.h"

#include <float.h>
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

size_t row_slices_obs_bytes(const struct row_schema *schema, uint32_t horizon, uint32_t count)
{
    size_t wide = schema->obs_type == OBS_STATE ? sizeof(float) : 1;
    size_t rows = ((size_t)horizon + 1 + row_history(schema)) * count;

    return (rows * schema->obs_dim * wide + 3) / 4 * 4;
}

size_t row_slices_bytes(const struct row_schema *schema, uint32_t horizon, uint32_t count)
{
    size_t h = horizon, b = count;

    return row_slices_obs_bytes(schema, horizon, count) +
           sizeof(float) * (h * b * schema->action_dim + 2 * h * b + b);
}

const char *row_schema_check(const struct row_schema *schema)
{
    if (schema->obs_type != OBS_STATE && schema->obs_type != OBS_RGB)
        return "unknown observation type";
    if (schema->obs_dim == 0 || schema->obs_dim > ROW_BYTES_MAX)
        return "observation of an impossible size";
    if (schema->action_dim == 0 || schema->action_dim > ROW_ACTION_MAX)
        return "action of an impossible size";
    if (row_stride(schema) > ROW_BYTES_MAX)
        return "rows larger than 192 KiB";
    return NULL;
}

/* All `count` floats at `bytes` are at most `limit` in magnitude; false for NaN. No early exit: SIMD. */
static int within(const char *bytes, uint32_t count, float limit)
{
    uint32_t bound, bad = 0;

    memcpy(&bound, &limit, sizeof(bound));
    for (uint32_t i = 0; i < count; i++) {
        uint32_t bits;

        memcpy(&bits, bytes + i * sizeof(bits), sizeof(bits));
        bad |= (bits & 0x7fffffffu) > bound;
    }
    return bad == 0;
}

const char *row_check(const void *row, const struct row_schema *schema)
{
    const char *obs = (const char *)row + sizeof(struct row_head);
    const char *action = obs + row_obs_bytes(schema);
    struct row_head head;

    memcpy(&head, row, sizeof(head));
    if (head.flags & ~ROW_FLAGS_KNOWN)
        return "unknown flags";
    if (head.task >= ROW_TASKS_MAX)
        return "a task that no run has";
    if ((head.flags & ROW_FIRST) && (head.flags & ROW_ENDS))
        return "a first row cannot end an episode";
    if (!isfinite(head.reward))
        return "the reward is not finite";
    if ((head.flags & ROW_FIRST) && head.reward != 0)
        return "a first row carries a reward";
    if (schema->obs_type == OBS_STATE && !within(obs, schema->obs_dim, FLT_MAX))
        return "the observation is not finite";
    if (!within(action, schema->action_dim, 1.0f))
        return "an action lies outside [-1, 1]";
    if ((head.flags & ROW_FIRST) && !within(action, schema->action_dim, 0.0f))
        return "a first row carries an action";
    return NULL;
}
