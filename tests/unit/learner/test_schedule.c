#include "tests/support/test.h"

#include <unistd.h>

#include "learner/schedule.h"
#include "tools/golden.h"

static void the_recorded_traces_are_followed(void **state)
{
    struct error err;
    FILE *out = tmpfile();

    (void)state;
    assert_ok(golden_schedule("tests/golden/schedule.json", out, &err), err);
    fclose(out);
}

/* One change anywhere in the recording is found. */
static void a_changed_trace_is_refused(void **state)
{
    static const struct {
        const char *text;
        int code;
    } cases[] = {
        {"[{\"config\":{\"steps\":0,\"seed_steps\":1,\"eval_freq\":9,\"eval_episodes\":0,\"episode_lengths\":[3]},"
         "\"events\":[[\"log\",{\"category\":\"eval\",\"step\":0,\"episode\":0}],[\"reset\"],[\"random_action\"],"
         "[\"env_step\"],[\"finish\"]]}]", TD_OK},
        {"[{\"config\":{\"steps\":0,\"seed_steps\":1,\"eval_freq\":9,\"eval_episodes\":0,\"episode_lengths\":[3]},"
         "\"events\":[[\"log\",{\"category\":\"eval\",\"step\":0,\"episode\":0}],[\"reset\"],[\"random_action\"],"
         "[\"env_step\"]]}]", GOLDEN_DIFFERS},
        {"[{\"config\":{\"steps\":0,\"seed_steps\":1,\"eval_freq\":9,\"eval_episodes\":0,\"episode_lengths\":[3]},"
         "\"events\":[[\"log\",{\"category\":\"eval\",\"step\":0,\"episode\":0}],[\"reset\"],[\"random_action\"],"
         "[\"env_step\"],[\"finish\"],[\"reset\"]]}]", GOLDEN_DIFFERS},
        {"[{\"config\":{\"steps\":0,\"seed_steps\":1,\"eval_freq\":9,\"eval_episodes\":0,\"episode_lengths\":[3]},"
         "\"events\":[[\"reset\"]]}]", GOLDEN_DIFFERS},
        {"[{\"config\":{\"steps\":0,\"seed_steps\":1,\"eval_freq\":0,\"eval_episodes\":0,\"episode_lengths\":[3]},"
         "\"events\":[]}]", TD_EINVAL},
        {"[{\"config\":{\"steps\":0,\"seed_steps\":1,\"eval_freq\":1,\"eval_episodes\":0,\"episode_lengths\":[]},"
         "\"events\":[]}]", TD_EINVAL},
        {"[{}]", TD_EINVAL},
        {"{}", TD_ECORRUPT},
        {"[", TD_ECORRUPT},
    };
    char path[512];
    struct error err;

    (void)state;
    snprintf(path, sizeof(path), "%s/trace.json", test_folder());
    for (size_t i = 0; i < TD_LEN(cases); i++) {
        FILE *file = fopen(path, "w"), *out = tmpfile();
        int rc;

        fputs(cases[i].text, file);
        fclose(file);
        rc = golden_schedule(path, out, &err);
        if (rc != cases[i].code)
            fail_msg("case %zu: %d, expected %d (%s)", i, rc, cases[i].code, err.text);
        fclose(out);
    }
}

/* Carry out one event; episode lengths depend on the episode's number alone. */
static void turn(struct schedule *schedule, const struct schedule_event *event)
{
    struct error err;

    if (event->kind == SCHEDULE_STEP)
        assert_ok(schedule_stepped(schedule, schedule->episode_steps == event->episode * 7 % 5, false, &err), err);
    else
        schedule_done(schedule);
}

static bool same_event(const struct schedule_event *a, const struct schedule_event *b)
{
    return a->kind == b->kind && a->step == b->step && a->episode == b->episode && a->rows == b->rows &&
           a->update == b->update && a->random == b->random && a->first == b->first;
}

/* From any reset, a resumed schedule goes on exactly as the one that never stopped. */
static void resumed_schedules_continue_alike(void **state)
{
    const struct schedule_config config = {.steps = 60, .seed_steps = 17, .eval_freq = 13, .eval_first = true};
    struct schedule whole, copy, resumed;
    struct schedule_event event, a, b;
    int resets = 0;

    (void)state;
    schedule_init(&whole, &config);
    while (schedule_next(&whole, &event), event.kind != SCHEDULE_FINISH) {
        if (event.kind == SCHEDULE_RESET) {
            resets++;
            copy = whole;
            schedule_resume(&resumed, &config, event.step, event.update, event.episode, whole.stored_rows);
            do {
                schedule_next(&copy, &a);
                schedule_next(&resumed, &b);
                if (a.kind != SCHEDULE_FINISH && a.kind != SCHEDULE_RESET)
                    assert_true(same_event(&a, &b));
                assert_int_equal(a.kind, b.kind);
                if (a.kind != SCHEDULE_FINISH) {
                    turn(&copy, &a);
                    turn(&resumed, &b);
                }
            } while (a.kind != SCHEDULE_FINISH);
        }
        turn(&whole, &event);
    }
    assert_true(resets > 15);
    assert_int_equal(whole.step, 61);
    assert_int_equal(whole.updates, 60);
}

/* Stopped inside the burst: back to the last reset, the updates already done are not repeated. */
static void an_interrupted_burst_goes_on(void **state)
{
    const struct schedule_config config = {.steps = 40, .seed_steps = 17, .eval_freq = 100};
    struct schedule schedule;
    struct schedule_event event;
    uint64_t updates = 0, random = 0;

    (void)state;
    schedule_resume(&schedule, &config, 15, 9, 4, 19);
    while (schedule_next(&schedule, &event), event.kind != SCHEDULE_FINISH) {
        updates += event.kind == SCHEDULE_UPDATE;
        random += event.kind == SCHEDULE_STEP && event.random;
        if (event.kind == SCHEDULE_UPDATE)
            assert_true(event.step >= 17);
        turn(&schedule, &event);
    }
    assert_int_equal(random, 3);
    assert_int_equal(updates, 40 - 9);
}

static void a_termination_needs_episodic(void **state)
{
    const struct schedule_config config = {.steps = 5, .seed_steps = 2, .eval_freq = 9};
    struct schedule schedule;
    struct error err;

    (void)state;
    schedule_init(&schedule, &config);
    assert_int_equal(schedule.next, SCHEDULE_RESET); /* eval_first is false */
    schedule_done(&schedule);
    assert_int_equal(schedule_stepped(&schedule, true, true, &err), TD_EINVAL);
    assert_non_null(strstr(err.text, "episodic=true"));
    assert_int_equal(schedule.step, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_recorded_traces_are_followed),
        cmocka_unit_test(a_changed_trace_is_refused),
        cmocka_unit_test(resumed_schedules_continue_alike),
        cmocka_unit_test(an_interrupted_burst_goes_on),
        cmocka_unit_test(a_termination_needs_episodic),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
