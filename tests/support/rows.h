/*
 * rows.h - rows for tests whose content says which stream, epoch and sequence they are.
 */
#ifndef TD_TEST_ROWS_H
#define TD_TEST_ROWS_H

#include "common/store/row.h"
#include "common/store/store.h"

/* Rows of this schema fit rows_fill: at least 4 observations, at least 1 action. */
struct test_row_id {
    uint32_t slot, env;
    uint64_t epoch, sequence;
};

/*
 * 0, or of how many tasks rows are: those of task slot % tasks have zeros in the last columns, the more the later the
 * task; at least four observations stay.
 */
extern uint32_t test_row_tasks;

/* Write the row with this identity and these flags; finite, in range, zeros in a first row. */
void test_row_fill(void *row, const struct row_schema *schema, const struct test_row_id *id,
                   uint32_t flags);

/* Assert that `row` is exactly what test_row_fill wrote. */
void test_row_expect(const void *row, const struct row_schema *schema, const struct test_row_id *id,
                     uint32_t flags);

/* Append `count` such rows to the stream (slot, 0) after what it has; `ends`: flags of the last. */
void test_rows_append(store_t *store, const struct row_schema *schema, uint32_t slot, uint32_t count, uint32_t ends);

/* Bytes of the store's file in `dir` up to the last page that is not all zeros. */
uint64_t test_used_bytes(const char *dir);

#endif
