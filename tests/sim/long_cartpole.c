/*
 * cartpole-swingup is learned in one process: the real task, the one-million model, the lock-step
 * schedule. A random policy earns about 57. Takes a good quarter of an hour on two cores.
 */
#include "tests/support/test.h"

#include "tests/support/lockstep.h"

static void cartpole_swingup_is_learned(void **state)
{
    struct lockstep_result result;
    struct config config;
    struct error err;

    (void)state;
    config_init(&config);
    snprintf(config.task, sizeof(config.task), "cartpole-swingup");
    config.model_size = 1;
    config.seed = strtol(getenv("TD_SEED") == NULL ? "1" : getenv("TD_SEED"), NULL, 10);
    config.num_samples = 256;
    config.num_elites = 32;
    config.steps = 6000;
    config.eval_first = false;
    config.eval_freq = 2000;
    config.eval_episodes = 3;
    setvbuf(stdout, NULL, _IOLBF, 0);
    assert_ok(lockstep_run(&config, getenv("TD_THREADS") == NULL ? 2 : atoi(getenv("TD_THREADS")), true,
                           &result, &err), err);
    print_message("random %.1f, best %.1f, final %.1f\n", result.random_return, result.best_return,
                  result.final_return);
    assert_true(result.random_return < 100);
    assert_true(result.final_return > 200 || result.best_return > 300);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(cartpole_swingup_is_learned)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
