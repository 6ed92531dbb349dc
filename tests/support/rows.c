#include "tests/support/rows.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/test.h"

static void put_float(char *at, size_t index, double value)
{
    float f = (float)value;

    memcpy(at + index * sizeof(f), &f, sizeof(f));
}

uint32_t test_row_tasks;

/* Of `width` columns so many stay in rows of this task. */
static uint32_t kept(uint32_t width, uint32_t task)
{
    return width - width * task / test_row_tasks;
}

static void narrow(void *row, const struct row_schema *schema, uint32_t task)
{
    uint32_t obs = kept(schema->obs_dim, task), action = kept(schema->action_dim, task);
    char *at = (char *)row + sizeof(struct row_head);

    obs = obs < 4 ? 4 : obs;
    memcpy((char *)row + offsetof(struct row_head, task), &task, sizeof(task));
    memset(at + obs * sizeof(float), 0, (schema->obs_dim - obs) * sizeof(float));
    memset(at + row_obs_bytes(schema) + action * sizeof(float), 0, (schema->action_dim - action) * sizeof(float));
}

void test_row_fill(void *row, const struct row_schema *schema, const struct test_row_id *id,
                   uint32_t flags)
{
    struct row_head head = {.flags = flags, .param_version = id->sequence, .param_epoch = 1};
    size_t stride = row_stride(schema);
    char *obs = (char *)row + sizeof(head);
    char *action = obs + row_obs_bytes(schema);

    memset(row, 0, stride);
    if (!(flags & ROW_FIRST)) {
        head.reward = (float)(id->sequence % 1000) * 0.5f;
        for (uint32_t i = 0; i < schema->action_dim; i++)
            put_float(action, i, (double)((id->sequence + i) % 17) / 16 - 0.5);
    }
    memcpy(row, &head, sizeof(head));
    if (schema->obs_type == OBS_STATE) {
        const double parts[4] = {id->slot, id->env, (double)id->epoch, (double)(id->sequence % 65536)};

        for (uint32_t i = 0; i < schema->obs_dim; i++)
            put_float(obs, i, i < 4 ? parts[i] : parts[3] * 0.25 + i);
    } else {
        for (uint32_t i = 0; i < schema->obs_dim; i++)
            obs[i] = (char)(id->sequence * 31 + i * 7 + id->epoch);
    }
    if (test_row_tasks > 0 && schema->obs_type == OBS_STATE)
        narrow(row, schema, id->slot % test_row_tasks);
}

void test_row_expect(const void *row, const struct row_schema *schema, const struct test_row_id *id,
                     uint32_t flags)
{
    static char expected[16384];

    assert_true(row_stride(schema) <= sizeof(expected));
    test_row_fill(expected, schema, id, flags);
    assert_memory_equal(row, expected, row_stride(schema));
}

uint64_t test_used_bytes(const char *dir)
{
    static const char zeros[4096];
    char path[600], page[4096];
    struct stat file;
    off_t end;
    int fd;

    snprintf(path, sizeof(path), "%s/data.mdb", dir);
    fd = open(path, O_RDONLY);
    assert_int_equal(fstat(fd, &file), 0);
    for (end = file.st_size; end > 0; end -= (off_t)sizeof(page)) {
        assert_int_equal(pread(fd, page, sizeof(page), end - (off_t)sizeof(page)), sizeof(page));
        if (memcmp(page, zeros, sizeof(page)) != 0)
            break;
    }
    close(fd);
    return (uint64_t)end;
}

void test_rows_append(store_t *store, const struct row_schema *schema, uint32_t slot, uint32_t count, uint32_t ends)
{
    const struct store_stream *stream = store_stream(store, slot, 0);
    size_t stride = row_stride(schema);
    char *rows = malloc(count * stride);
    struct error err = {0};

    for (uint32_t i = 0; i < count; i++) {
        struct test_row_id id = {slot, 0, stream->epoch, stream->next + i};

        test_row_fill(rows + i * stride, schema, &id,
                      (i == 0 && stream->open_rows == 0 ? (uint32_t)ROW_FIRST : 0u) | (i + 1 == count ? ends : 0u));
    }
    assert_ok(store_append(store, slot, 0, rows, count, &err), err);
    free(rows);
}
