#include "tests/support/test.h"

#include "common/model/world_model.h"
#include "common/util/config.h"
#include "common/util/lr_scale.h"
#include "learner/update.h"

static void parts_that_are_not_named_are_1(void **state)
{
    struct update_config update;
    struct config config;
    struct error err = {0};

    (void)state;
    config_init(&config);
    assert_ok(config_check(&config, &err), err);
    update_config_init(&update, &config, 100);
    for (int part = 0; part < MODEL_TARGET_Q; part++)
        assert_true(update.lr_scale[part] == 1);
    assert_ok(config_set(&config, "lr_scale=encoder:0.1,dynamics:1,Q:0,policy:2e-1,task_emb:.5", &err), err);
    assert_ok(config_check(&config, &err), err);
    update_config_init(&update, &config, 100);
    assert_true(update.lr_scale[MODEL_ENCODER] == 0.1 && update.lr_scale[MODEL_DYNAMICS] == 1 &&
                update.lr_scale[MODEL_Q] == 0 && update.lr_scale[MODEL_PI] == 0.2 &&
                update.lr_scale[MODEL_TASK] == 0.5 && update.lr_scale[MODEL_REWARD] == 1 &&
                update.lr_scale[MODEL_TERMINATION] == 1);
}

static void bad_ones_are_named(void **state)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"0.1", "0.1 is not PART:FACTOR"},
        {"encoder:0.1,", " is not PART:FACTOR"},
        {"encodr:1", "encodr is no part of the model: choose from task_emb, encoder"},
        {":1", "is no part of the model"},
        {"encoder:1,Encoder:2", "names encoder twice"},
        {"pi:1,policy:1", "names pi twice"},
        {"pi:", "pi: is not a factor from 0 to 1000"},
        {"pi:-1", "pi:-1 is not a factor"},
        {"pi:nan", "pi:nan is not a factor"},
        {"pi:1001", "pi:1001 is not a factor"},
        {"pi:1x,Qs:1", "pi:1x is not a factor"},
        {"pi:1.2.3", "pi:1.2.3 is not a factor"},
        {"pi:0000000000000000000000000000000000000000000000001", "is not a factor"},
    };
    double scale[LR_SCALE_PARTS];

    (void)state;
    for (size_t i = 0; i < TD_LEN(cases); i++) {
        struct error err = {0};

        assert_int_equal(lr_scale_parse(cases[i].text, scale, &err), TD_EINVAL);
        if (strstr(err.text, cases[i].says) == NULL)
            fail_msg("%s: %s", cases[i].text, err.text);
    }
}

/* A run keeps it: as it is stored, so it comes back, and another one is refused. */
static void a_run_keeps_it(void **state)
{
    struct config stored, fresh;
    struct error err = {0};
    bool *given;
    int count, index = -1;

    (void)state;
    config_options(&count);
    given = calloc((size_t)count, sizeof(*given));
    for (int i = 0; i < count; i++)
        index = strcmp(config_options(&count)[i].name, "lr_scale") == 0 ? i : index;
    config_init(&stored);
    config_init(&fresh);
    assert_ok(config_set(&stored, "lr_scale=encoder:0", &err), err);
    assert_ok(config_resume(&stored, &fresh, given, NULL, &err), err);
    assert_string_equal(stored.lr_scale, "encoder:0");
    assert_true(index >= 0);
    given[index] = true;
    assert_int_equal(config_resume(&stored, &fresh, given, NULL, &err), TD_EINVAL);
    free(given);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_that_are_not_named_are_1),
        cmocka_unit_test(bad_ones_are_named),
        cmocka_unit_test(a_run_keeps_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
