/*
 * row.h - the layout of one transition, the same in memory, on the wire and in the store.
 *
 * A row is [struct row_head][observation][action], little-endian, 4-byte aligned, of a stride fixed
 * by the schema. Row k of an episode holds obs_k and the action and reward that led to it; the first
 * row carries zeros and ROW_FIRST where the reference has NaN (REFERENCE, section 6).
 */
#ifndef TD_STORE_ROW_H
#define TD_STORE_ROW_H

#include <stddef.h>
#include <stdint.h>

enum row_flags {
    ROW_FIRST = 1u << 0,      /* the reset observation: no action, no reward */
    ROW_TERMINATED = 1u << 1, /* a terminal state: nothing to bootstrap from */
    ROW_TRUNCATED = 1u << 2,  /* ended by a time limit */
};
#define ROW_FLAGS_KNOWN (ROW_FIRST | ROW_TERMINATED | ROW_TRUNCATED)
#define ROW_ENDS        (ROW_TERMINATED | ROW_TRUNCATED)

enum obs_type { OBS_STATE = 1, OBS_RGB = 2 };

struct row_schema {
    uint32_t obs_type;   /* enum obs_type */
    uint32_t obs_dim;    /* floats of a state, bytes of one unstacked frame */
    uint32_t action_dim;
};

struct row_head {
    uint32_t flags;         /* enum row_flags */
    uint32_t task;          /* 0 in single-task runs */
    uint64_t param_version; /* parameters that chose the action: updates done */
    uint32_t param_epoch;   /* and the learner epoch they came from; 0 = a random action */
    float reward;
};

#define ROW_BYTES_MAX  ((size_t)192 * 1024) /* so that a message and a segment hold at least one row */
#define ROW_ACTION_MAX 1024u
#define ROW_TASKS_MAX  256u /* tasks of a run */
#define ROW_STACK      3u /* an observation of frames: this one and those of the two rows before */

/* Check a schema that came from outside. Returns NULL or what is wrong with it. */
const char *row_schema_check(const struct row_schema *schema);

/* Bytes of the observation, padded to 4, and of a whole row. */
size_t row_obs_bytes(const struct row_schema *schema);
size_t row_stride(const struct row_schema *schema);

/* Rows in front of a row that its observation is made of too; the first row stands in for missing ones. */
static inline uint32_t row_history(const struct row_schema *schema)
{
    return schema->obs_type == OBS_RGB ? ROW_STACK - 1 : 0;
}

/*
 * Bytes of `count` slices of horizon + 1 rows in time-major order: the observations (floats [H+1][count][O],
 * or frames [H+3][count][O] with the history in front, padded to 4), then floats action [H][count][A],
 * reward and terminated [H][count], and task [count] (u32).
 */
size_t row_slices_obs_bytes(const struct row_schema *schema, uint32_t horizon, uint32_t count);
size_t row_slices_bytes(const struct row_schema *schema, uint32_t horizon, uint32_t count);

static inline struct row_head *row_head(void *row)
{
    return row;
}

static inline void *row_obs(void *row)
{
    return (char *)row + sizeof(struct row_head);
}

static inline float *row_action(void *row, const struct row_schema *schema)
{
    return (float *)((char *)row + sizeof(struct row_head) + row_obs_bytes(schema));
}

/*
 * Check one row (of any alignment) that came from outside: known flags, a task, finite reward, observation and action, actions
 * in [-1, 1], zeros in a first row. Returns NULL or what is wrong with it.
 */
const char *row_check(const void *row, const struct row_schema *schema);

#endif
