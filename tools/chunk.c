#include "tools/chunk.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/ckpt/pt.h"
#include "common/ckpt/safetensors.h"
#include "common/util/fs.h"

enum column {
    OBS, ACTION, REWARD, TASK, TERMINATED, TRUNCATED, FIRST, PARAM_EPOCH, PARAM_VERSION, COLUMNS
};

static const char *const names[COLUMNS] = {"obs",   "action",      "reward",       "task", "terminated", "truncated",
                                           "first", "param_epoch", "param_version"};

/* A column of `width` numbers per row, as the file has it. */
struct tensor {
    bool there;
    enum safetensors_type type;
    uint32_t width;
    uint64_t rows;
    const struct pt_tensor *pt;
    const struct safetensors_tensor *safe;
};

struct chunk {
    char path[FS_PATH_MAX];
    uint32_t tasks;
    pt_t *pt;
    safetensors_t *safe;
    struct chunk_shape shape;
    struct tensor columns[COLUMNS];
    uint64_t *starts; /* safetensors: the first row of each episode, and the end of the last */
    void *raw;        /* [CHUNK_BYTES] as read */
    float *reals;     /* [CHUNK_BYTES / 4] of them */
    int64_t *integers; /* [CHUNK_BYTES / 4] */
};

/* --- the shape ------------------------------------------------------------- */

static int bad(const struct chunk *chunk, struct error *err, const char *what)
{
    return error_set(err, TD_ECORRUPT, "%s %s", chunk->path, what);
}

static bool is_real(enum safetensors_type type)
{
    return type == SAFETENSORS_F32 || type == SAFETENSORS_F64 || type == SAFETENSORS_F16 || type == SAFETENSORS_BF16;
}

static bool is_known(enum safetensors_type type)
{
    return is_real(type) || type == SAFETENSORS_I64 || type == SAFETENSORS_I32 || type == SAFETENSORS_I16 ||
           type == SAFETENSORS_I8 || type == SAFETENSORS_U8 || type == SAFETENSORS_BOOL;
}

/* The tensor of this name of a TensorDict: at the top, or within a dict around it. */
static const struct pt_tensor *find_pt(const pt_t *file, const char *name)
{
    const struct pt_tensor *found = pt_find(file, name);

    for (int i = 0; found == NULL && i < pt_count(file); i++) {
        const char *last = strrchr(pt_at(file, i)->name, '/');

        if (last != NULL && strcmp(last + 1, name) == 0)
            found = pt_at(file, i);
    }
    return found;
}

/* A tensor of shape [rows...] or [rows..., width]; `lead` dimensions are rows. */
static int take_shape(struct chunk *chunk, enum column column, enum safetensors_type type, int dims,
                      const uint64_t *shape, int lead, struct error *err)
{
    struct tensor *tensor = &chunk->columns[column];
    bool scalar = column != OBS && column != ACTION;
    uint64_t rows = 1, width = 1;

    if (dims < lead || dims > lead + 1 || (!scalar && dims == lead) || !is_known(type))
        return error_set(err, TD_ECORRUPT, "%s: %s has %d dimensions of %s, which no column of a data set has",
                         chunk->path, names[column], dims, safetensors_type_name(type));
    for (int i = 0; i < lead; i++) {
        if (shape[i] != 0 && rows > UINT64_MAX / 4096 / shape[i])
            return bad(chunk, err, "has an impossible number of rows");
        rows *= shape[i];
    }
    if (dims > lead)
        width = shape[lead];
    if ((scalar && width != 1) || width == 0 || width > ROW_BYTES_MAX)
        return error_set(err, TD_ECORRUPT, "%s: %s has %" PRIu64 " numbers in a row", chunk->path, names[column], width);
    tensor->there = true;
    tensor->type = type;
    tensor->width = (uint32_t)width;
    tensor->rows = rows;
    return TD_OK;
}

/* What all columns must agree in. */
static int check_columns(struct chunk *chunk, struct error *err)
{
    struct chunk_shape *shape = &chunk->shape;
    const char *wrong;

    for (int i = 0; i < COLUMNS; i++) {
        const struct tensor *tensor = &chunk->columns[i];

        if (!tensor->there && i <= REWARD)
            return error_set(err, TD_ECORRUPT, "%s has no %s: a data set has obs, action, reward and task", chunk->path,
                             names[i]);
        if (tensor->there && tensor->rows != chunk->columns[OBS].rows)
            return error_set(err, TD_ECORRUPT, "%s: %s has %" PRIu64 " rows, obs %" PRIu64, chunk->path, names[i],
                             tensor->rows, chunk->columns[OBS].rows);
        shape->bytes += tensor->there ? tensor->rows * tensor->width * safetensors_type_size(tensor->type) : 0;
    }
    shape->rows = chunk->columns[OBS].rows;
    shape->schema = (struct row_schema){chunk->columns[OBS].type == SAFETENSORS_U8 ? OBS_RGB : OBS_STATE,
                                        chunk->columns[OBS].width, chunk->columns[ACTION].width};
    if ((wrong = row_schema_check(&shape->schema)) != NULL)
        return error_set(err, TD_ECORRUPT, "%s: %s", chunk->path, wrong);
    if (!is_real(chunk->columns[ACTION].type) || !is_real(chunk->columns[REWARD].type) ||
        (shape->schema.obs_type == OBS_STATE && !is_real(chunk->columns[OBS].type)))
        return bad(chunk, err, "has whole numbers where obs, action and reward are real ones");
    return TD_OK;
}

static int shape_pt(struct chunk *chunk, struct error *err)
{
    const struct pt_tensor *reward = find_pt(chunk->pt, names[REWARD]);
    const uint64_t *shape = reward == NULL ? NULL : reward->shape;
    int rc;

    if (reward == NULL || reward->dims < 2)
        return bad(chunk, err, "is no chunk of a data set: it has no rewards [episodes, rows]");
    for (int i = OBS; i <= TERMINATED; i++) {
        const struct pt_tensor *tensor = find_pt(chunk->pt, names[i]);

        if (tensor == NULL)
            continue;
        if (tensor->dims < 2 || tensor->shape[0] != shape[0] || tensor->shape[1] != shape[1])
            return error_set(err, TD_ECORRUPT, "%s: %s and reward differ in episodes or rows", chunk->path, names[i]);
        if ((rc = take_shape(chunk, i, tensor->type, tensor->dims, tensor->shape, 2, err)) != TD_OK)
            return rc;
        chunk->columns[i].pt = tensor;
    }
    if (shape[0] == 0 || shape[1] == 0 || shape[1] > UINT32_MAX / 2)
        return bad(chunk, err, "has no rows");
    chunk->shape.episodes = shape[0];
    chunk->shape.episode_rows = chunk->shape.longest = (uint32_t)shape[1];
    return check_columns(chunk, err);
}

/* Episodes follow each other without gaps. */
static int take_episodes(struct chunk *chunk, struct error *err)
{
    const struct safetensors_tensor *rows = safetensors_find(chunk->safe, "episode_rows");
    uint64_t count = rows == NULL || rows->dims != 1 ? 0 : rows->shape[0], at = 0;
    int rc;

    if (count == 0 || rows->type != SAFETENSORS_I64)
        return bad(chunk, err, "is no data set that `tdmpc2 replay export` wrote: it has no episode_rows");
    if ((chunk->starts = calloc(count + 1, sizeof(*chunk->starts))) == NULL)
        return error_set(err, TD_ENOMEM, "out of memory for the %" PRIu64 " episodes of %s", count, chunk->path);
    if ((rc = safetensors_read(chunk->safe, rows, chunk->starts, err)) != TD_OK)
        return rc;
    chunk->shape.episode_rows = (uint32_t)chunk->starts[0];
    for (uint64_t i = 0; i <= count; i++) {
        uint64_t length = chunk->starts[i];

        chunk->starts[i] = at;
        if (i == count)
            break;
        if (length == 0 || length > chunk->columns[OBS].rows - at || length > UINT32_MAX / 2)
            return bad(chunk, err, "has episodes that do not make up its rows");
        at += length;
        if (length > chunk->shape.longest)
            chunk->shape.longest = (uint32_t)length;
        if (length != chunk->shape.episode_rows)
            chunk->shape.episode_rows = 0;
    }
    if (at != chunk->columns[OBS].rows)
        return bad(chunk, err, "has episodes that do not make up its rows");
    chunk->shape.episodes = count;
    return TD_OK;
}

static int shape_safetensors(struct chunk *chunk, struct error *err)
{
    int rc;

    for (int i = 0; i < COLUMNS; i++) {
        const struct safetensors_tensor *tensor = safetensors_find(chunk->safe, names[i]);

        if (tensor == NULL)
            continue;
        if ((rc = take_shape(chunk, i, tensor->type, tensor->dims, tensor->shape, 1, err)) != TD_OK)
            return rc;
        chunk->columns[i].safe = tensor;
    }
    if (!chunk->columns[OBS].there)
        return bad(chunk, err, "has no obs: a data set has obs, action, reward and task");
    if ((rc = take_episodes(chunk, err)) != TD_OK)
        return rc;
    return check_columns(chunk, err);
}

static int open_file(struct chunk *chunk, struct error *err)
{
    int rc;

    if (pt_looks_like(chunk->path)) {
        if ((rc = pt_open(&chunk->pt, chunk->path, err)) != TD_OK)
            return rc;
        return shape_pt(chunk, err);
    }
    if ((rc = safetensors_open(&chunk->safe, chunk->path, err)) != TD_OK)
        return rc;
    return shape_safetensors(chunk, err);
}

int chunk_open(chunk_t **out, const struct chunk_config *config, struct error *err)
{
    struct chunk *chunk = calloc(1, sizeof(*chunk));
    int rc;

    *out = chunk;
    if (chunk == NULL)
        return error_set(err, TD_ENOMEM, "out of memory for %s", config->path);
    snprintf(chunk->path, sizeof(chunk->path), "%s", config->path);
    chunk->tasks = config->tasks;
    if ((rc = open_file(chunk, err)) == TD_OK) {
        chunk->raw = malloc(CHUNK_BYTES);
        chunk->reals = malloc(CHUNK_BYTES);
        chunk->integers = malloc(2 * CHUNK_BYTES);
        if (chunk->raw == NULL || chunk->reals == NULL || chunk->integers == NULL)
            rc = error_set(err, TD_ENOMEM, "out of memory for %s", config->path);
    }
    if (rc != TD_OK)
        chunk_close(out);
    return rc;
}

void chunk_close(chunk_t **out)
{
    struct chunk *chunk = *out;

    if (chunk == NULL)
        return;
    pt_close(&chunk->pt);
    safetensors_close(&chunk->safe);
    free(chunk->starts);
    free(chunk->raw);
    free(chunk->reals);
    free(chunk->integers);
    free(chunk);
    *out = NULL;
}

const struct chunk_shape *chunk_shape(const chunk_t *chunk)
{
    return &chunk->shape;
}

uint32_t chunk_episode_rows(const chunk_t *chunk, uint64_t episode)
{
    return chunk->starts != NULL ? (uint32_t)(chunk->starts[episode + 1] - chunk->starts[episode])
                                 : chunk->shape.episode_rows;
}

static uint64_t start_of(const struct chunk *chunk, uint64_t episode)
{
    return chunk->starts != NULL ? chunk->starts[episode] : episode * chunk->shape.episode_rows;
}

int chunk_verify(const chunk_t *chunk, store_progress *progress, void *context, struct error *err)
{
    uint64_t done = 0;
    int rc;

    for (int i = 0; i < COLUMNS && chunk->pt != NULL; i++) {
        const struct tensor *tensor = &chunk->columns[i];

        if (!tensor->there)
            continue;
        if (progress != NULL)
            progress(context, done, chunk->shape.bytes);
        if ((rc = pt_verify(chunk->pt, tensor->pt, err)) != TD_OK)
            return rc;
        done += tensor->rows * tensor->width * safetensors_type_size(tensor->type);
    }
    return TD_OK;
}

/* --- numbers --------------------------------------------------------------- */

static float half_to_float(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 31, fraction = half & 1023, bits;
    float value;

    if (exponent == 0) /* zero or subnormal: fraction times 2^-24 */
        value = (float)fraction * 0x1p-24f;
    else {
        bits = (exponent == 31 ? 255u : exponent + 112) << 23 | fraction << 13;
        memcpy(&value, &bits, sizeof(value));
    }
    memcpy(&bits, &value, sizeof(bits));
    bits |= sign;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

static void to_reals(float *out, const void *in, enum safetensors_type type, size_t count)
{
    if (type == SAFETENSORS_F32)
        memcpy(out, in, count * sizeof(*out));
    for (size_t i = 0; i < count && type != SAFETENSORS_F32; i++) {
        uint32_t bits;

        if (type == SAFETENSORS_F64) {
            out[i] = (float)((const double *)in)[i];
        } else if (type == SAFETENSORS_F16) {
            out[i] = half_to_float(((const uint16_t *)in)[i]);
        } else {
            bits = (uint32_t)((const uint16_t *)in)[i] << 16;
            memcpy(&out[i], &bits, sizeof(bits));
        }
    }
}

/* A real that is no whole number becomes -1, which nothing takes. */
static int64_t whole(double value)
{
    return value >= -1e15 && value <= 1e15 && value == floor(value) ? (int64_t)value : -1;
}

static int64_t to_integer(const void *in, enum safetensors_type type, size_t i)
{
    switch (type) {
    case SAFETENSORS_I64: return ((const int64_t *)in)[i];
    case SAFETENSORS_I32: return ((const int32_t *)in)[i];
    case SAFETENSORS_I16: return ((const int16_t *)in)[i];
    case SAFETENSORS_I8: return ((const int8_t *)in)[i];
    case SAFETENSORS_U8:
    case SAFETENSORS_BOOL: return ((const uint8_t *)in)[i];
    case SAFETENSORS_F64: return whole(((const double *)in)[i]);
    case SAFETENSORS_F32: return whole((double)((const float *)in)[i]);
    default: return -1;
    }
}

/* --- rows ------------------------------------------------------------------ */

/* Where a range of rows goes. */
struct window {
    char *out; /* the first row */
    uint64_t first, rows;
    size_t stride, action;
};

static int read_raw(struct chunk *chunk, const struct tensor *tensor, uint64_t row, uint64_t rows, struct error *err)
{
    size_t size = safetensors_type_size(tensor->type) * tensor->width;

    if (tensor->pt != NULL)
        return pt_read(chunk->pt, tensor->pt, row * tensor->width, rows * tensor->width, chunk->raw, err);
    return safetensors_read_part(chunk->safe, tensor->safe, row * size, rows * size, chunk->raw, err);
}

/* What a column says goes into the rows; heads are there, zeroed. */
static void put_column(struct chunk *chunk, enum column column, char *row, size_t stride, size_t action, uint64_t rows)
{
    const struct tensor *tensor = &chunk->columns[column];
    size_t width = tensor->width;

    for (uint64_t i = 0; i < rows; i++, row += stride) {
        uint64_t number = (uint64_t)chunk->integers[i];
        struct row_head head; /* rows are aligned to 4 bytes only */

        memcpy(&head, row, sizeof(head));
        switch (column) {
        case OBS:
            if (tensor->type == SAFETENSORS_U8)
                memcpy(row_obs(row), (char *)chunk->raw + i * width, width);
            else
                memcpy(row_obs(row), chunk->reals + i * width, width * sizeof(float));
            break;
        case ACTION: memcpy(row + action, chunk->reals + i * width, width * sizeof(float)); break;
        case REWARD: head.reward = chunk->reals[i]; break;
        case TASK: head.task = number < chunk->tasks ? (uint32_t)number : UINT32_MAX; break;
        case TERMINATED: head.flags |= number != 0 ? (uint32_t)ROW_TERMINATED : 0; break;
        case TRUNCATED: head.flags |= number != 0 ? (uint32_t)ROW_TRUNCATED : 0; break;
        case FIRST: head.flags |= number != 0 ? (uint32_t)ROW_FIRST : 0; break;
        case PARAM_EPOCH: head.param_epoch = (uint32_t)number; break;
        case PARAM_VERSION: head.param_version = number; break;
        default: break;
        }
        memcpy(row, &head, sizeof(head));
    }
}

static int read_column(struct chunk *chunk, enum column column, const struct window *window, struct error *err)
{
    const struct tensor *tensor = &chunk->columns[column];
    bool real = column <= REWARD && tensor->type != SAFETENSORS_U8;
    size_t size = safetensors_type_size(tensor->type) * tensor->width;
    uint64_t most = CHUNK_BYTES / (size > sizeof(float) * tensor->width ? size : sizeof(float) * tensor->width);
    int rc;

    for (uint64_t done = 0, now; done < window->rows; done += now) {
        now = window->rows - done < most ? window->rows - done : most;
        if ((rc = read_raw(chunk, tensor, window->first + done, now, err)) != TD_OK)
            return rc;
        if (real)
            to_reals(chunk->reals, chunk->raw, tensor->type, now * tensor->width);
        for (uint64_t i = 0; i < now && column > REWARD; i++)
            chunk->integers[i] = to_integer(chunk->raw, tensor->type, i);
        put_column(chunk, column, window->out + done * window->stride, window->stride, window->action, now);
    }
    return TD_OK;
}

static bool finite_all(const float *values, size_t count)
{
    uint32_t bad_bits = 0, bits;

    for (size_t i = 0; i < count; i++) {
        memcpy(&bits, &values[i], sizeof(bits));
        bad_bits |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return bad_bits == 0;
}

static bool beyond_one(const float *values, size_t count)
{
    bool found = false;

    for (size_t i = 0; i < count; i++)
        found |= !(fabsf(values[i]) <= 1.0f);
    return found;
}

/*
 * An episode as the store wants it. Its first row was led to by nothing: the reference writes NaN there and never
 * reads it. Its last is where a time limit was met, if nothing else is said.
 */
static const char *check_episode(struct chunk *chunk, char *rows, uint32_t count, uint64_t *beyond, uint32_t *which)
{
    const struct row_schema *schema = &chunk->shape.schema;
    size_t stride = row_stride(schema), action = sizeof(struct row_head) + row_obs_bytes(schema);
    bool marks = chunk->columns[TRUNCATED].there;
    struct row_head head = {.flags = 0};
    uint32_t task = 0;

    for (uint32_t i = 0; i < count; i++) {
        char *row = rows + i * stride;
        float *values = (float *)(void *)(row + action);

        *which = i;
        memcpy(&head, row, sizeof(head));
        task = i == 0 ? head.task : task;
        if (head.task == UINT32_MAX)
            return "its task is not one of the set's";
        if (head.task != task)
            return "the task changes within the episode";
        if (schema->obs_type == OBS_STATE && !finite_all(row_obs(row), schema->obs_dim))
            return "the observation is not finite";
        if (i == 0) {
            memset(values, 0, schema->action_dim * sizeof(*values));
            head.reward = 0;
            head.flags = ROW_FIRST;
            memcpy(row, &head, sizeof(head));
            continue;
        }
        head.flags &= ~(uint32_t)ROW_FIRST;
        if (!marks && i == count - 1 && !(head.flags & ROW_TERMINATED))
            head.flags |= ROW_TRUNCATED;
        memcpy(row, &head, sizeof(head));
        if (!isfinite(head.reward))
            return "the reward is not finite";
        if (!finite_all(values, schema->action_dim))
            return "the action is not finite";
        *beyond += beyond_one(values, schema->action_dim);
    }
    return NULL;
}

int chunk_read(chunk_t *chunk, uint64_t first, uint64_t count, void *out, uint64_t *beyond, struct error *err)
{
    const struct row_schema *schema = &chunk->shape.schema;
    struct window window = {.out = out, .first = start_of(chunk, first), .stride = row_stride(schema),
                            .action = sizeof(struct row_head) + row_obs_bytes(schema)};
    char *rows = out;
    int rc;

    TD_ASSERT(first < chunk->shape.episodes && count <= chunk->shape.episodes - first, "episodes %" PRIu64 "+%" PRIu64,
              first, count);
    window.rows = start_of(chunk, first + count - 1) + chunk_episode_rows(chunk, first + count - 1) - window.first;
    memset(out, 0, window.rows * window.stride);
    for (int i = 0; i < COLUMNS; i++)
        if (chunk->columns[i].there && (rc = read_column(chunk, i, &window, err)) != TD_OK)
            return rc;
    for (uint64_t i = 0; i < count; i++) {
        uint32_t length = chunk_episode_rows(chunk, first + i), which;
        const char *wrong = check_episode(chunk, rows, length, beyond, &which);

        if (wrong != NULL)
            return error_set(err, TD_ECORRUPT, "%s, episode %" PRIu64 ", row %u: %s", chunk->path, first + i, which,
                             wrong);
        rows += length * window.stride;
    }
    return TD_OK;
}
