/* Progress survives its JSON; what is damaged is refused. */
#include "learner/progress.h"

#include "tests/support/test.h"

static void random_progress(struct progress *progress)
{
    struct rng *rng = test_rng();

    memset(progress, 0, sizeof(*progress));
    progress->spec = (struct message_spec){1, rng_u32(rng), rng_u32(rng), rng_u32(rng), true, rng_below(rng, ROW_TASKS_MAX)};
    progress->seed_steps = rng_u64(rng);
    progress->updates = rng_u64(rng);
    progress->learner_epoch = rng_u32(rng);
    progress->next_eval = UINT64_MAX;
    progress->phase = PHASE_BURST;
    progress->excess = rng_u64(rng);
    progress->lockstep = rng_below(rng, 2);
    progress->step = rng_u64(rng);
    progress->rows = rng_u64(rng);
    progress->state_size = 77;
    progress->stores = rng_below(rng, PROGRESS_STORES + 1);
    for (uint32_t i = 0; i < progress->stores; i++)
        progress->store[i] = (struct progress_store){rng_u64(rng), rng_u64(rng)};
    progress->kept = rng_below(rng, PROGRESS_KEPT + 1);
    for (uint32_t i = 0; i < progress->kept; i++)
        progress->kept_window[i] = rng_u64(rng);
}

static void it_survives_its_json(void **state)
{
    (void)state;
    for (int round = 0; round < 100; round++) {
        struct progress in, out;
        struct error err = {0};
        cJSON *json;
        char *text;

        random_progress(&in);
        json = progress_to_json(&in);
        assert_non_null(json);
        text = cJSON_PrintUnformatted(json);
        cJSON_Delete(json);
        json = cJSON_Parse(text);
        assert_ok(progress_from_json(&out, json, &err), err);
        assert_memory_equal(&in, &out, sizeof(in));
        cJSON_Delete(json);
        free(text);
    }
}

/* Every field in turn missing, of another type, too large, or not a number. */
static void damage_is_refused(void **state)
{
    static const char *const bad[] = {"", "-1", "x", "1x", "99999999999999999999999"};
    struct progress progress, out;
    struct error err = {0};
    cJSON *json, *item, *copy;

    (void)state;
    random_progress(&progress);
    json = progress_to_json(&progress);
    cJSON_ArrayForEach(item, json) {
        copy = cJSON_Duplicate(json, true);
        cJSON_DeleteItemFromObject(copy, item->string);
        assert_int_equal(progress_from_json(&out, copy, &err),
                         strcmp(item->string, "spec.tasks") == 0 ? TD_OK : TD_ECORRUPT); /* of an older build */
        for (size_t i = 0; i < TD_LEN(bad); i++) {
            cJSON_DeleteItemFromObject(copy, item->string);
            cJSON_AddStringToObject(copy, item->string, bad[i]);
            assert_int_equal(progress_from_json(&out, copy, &err), TD_ECORRUPT);
        }
        cJSON_DeleteItemFromObject(copy, item->string);
        cJSON_AddNumberToObject(copy, item->string, 1);
        assert_int_equal(progress_from_json(&out, copy, &err), TD_ECORRUPT);
        cJSON_Delete(copy);
    }
    copy = cJSON_GetObjectItem(json, "kept_window");
    for (int i = 0; i <= PROGRESS_KEPT; i++)
        cJSON_AddItemToArray(copy, cJSON_CreateString("1"));
    assert_int_equal(progress_from_json(&out, json, &err), TD_ECORRUPT);
    assert_int_equal(progress_from_json(&out, NULL, &err), TD_ECORRUPT);
    cJSON_Delete(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_survives_its_json),
        cmocka_unit_test(damage_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
