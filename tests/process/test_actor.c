/* The actor's process against a scripted learner and shard: joining, rows, parameters, ends. */
#include "tests/support/test.h"

#include <math.h>
#include <signal.h>
#include <sys/stat.h>

#include "common/env/env.h"
#include "common/model/world_model.h"
#include "common/net/rundir.h"
#include "common/util/clock.h"
#include "common/util/fs.h"
#include "tests/support/fake_run.h"

static const char *const no_words[] = {NULL};

static void open_and_start(struct fake_run *run, const char *task, const char *const *words)
{
    fake_open(run);
    fake_option(run, task);
    fake_start(run, words);
}

static void assert_exit(struct fake_run *run, int code, const char *why)
{
    fake_wait(run, run->exited);
    if (run->code != code || !fake_logged(run, why)) {
        fake_print_log(run);
        fail_msg("exit code %d, signal %d; expected %d and \"%s\"", run->code, run->signal, code, why);
    }
}

static void order(struct fake_run *run, uint32_t kind, uint32_t code, const char *text)
{
    struct message message = {.kind = kind, .run = run->run};

    if (kind == MESSAGE_STOP) {
        message.stop.learner_epoch = run->learner_epoch;
        snprintf(message.stop.text, sizeof(message.stop.text), "%s", text);
    } else {
        message.refused.code = code;
        snprintf(message.refused.text, sizeof(message.refused.text), "%s", text);
    }
    fake_say(run, &message);
}

/* A snapshot of the run's model. */
static float *snapshot(uint64_t seed, size_t *size)
{
    struct model_dims dims;
    struct config config;
    struct error err = {0};
    world_model_t *model;
    float *bytes;
    static const char *const words[] = {"enc_dim=16", "mlp_dim=16", "latent_dim=16", "num_bins=11"};

    config_init(&config);
    for (size_t i = 0; i < TD_LEN(words); i++)
        assert_ok(config_set(&config, words[i], &err), err);
    assert_ok(model_dims_init(&dims, &config, 4, 2, &err), err);
    assert_ok(world_model_create(&model, &dims, false, &err), err);
    world_model_init(model, seed);
    *size = model_acting_floats(&model->layout) * sizeof(float);
    bytes = malloc(*size);
    assert_non_null(bytes);
    memcpy(bytes, model->parameters, *size);
    world_model_destroy(&model);
    return bytes;
}

/* The stored rows are whole episodes of the toy environment with this seed, up to the last. */
static void assert_episodes(struct fake_run *run, uint32_t seed, uint32_t length)
{
    float obs[4];
    struct error err = {0};
    env_t *env;
    char task[32];

    snprintf(task, sizeof(task), "toy:%u", length);
    assert_ok(env_create(&env, task, seed, &err), err);
    for (uint64_t i = 0; i < run->stored; i++) {
        const struct row_head *head = fake_row(run, i);
        struct env_result result = {0};

        if (i % (length + 1) == 0) {
            assert_int_equal(head->flags, ROW_FIRST);
            assert_ok(env_reset(env, obs, &err), err);
        } else {
            assert_ok(env_step(env, row_action(fake_row(run, i), &run->schema), obs, &result, &err), err);
            assert_int_equal(head->flags, i % (length + 1) == length ? ROW_TRUNCATED : 0);
            assert_true(head->reward == (float)result.reward);
        }
        assert_memory_equal(row_obs(fake_row(run, i)), obs, sizeof(obs));
    }
    env_close(&env);
}

/* --- joining and rows ---------------------------------------------------------- */

static void it_joins_seeds_and_stops_at_its_limit(void **state)
{
    struct fake_run run;
    double reward = 0;

    (void)state;
    fake_open(&run);
    fake_option(&run, "task: toy:20");
    run.limit = 250;
    fake_start(&run, (const char *const[]){"actor=0", NULL});
    fake_wait(&run, run.stored == 250 + 13); /* 12 episodes and a half, reset rows beside the steps */
    fake_wait(&run, run.heartbeat.waiting == WAITING_LIMIT && run.heartbeat.steps == 250);
    fake_pass(&run, 300);
    assert_int_equal(run.stored, 263);
    assert_int_equal(run.hello.role, ROLE_ACTOR);
    assert_true(run.hello.has_slot && run.hello.slot == 0 && run.hello.spec.saves_state);
    assert_int_equal(run.hello.spec.episode_length, 20);
    assert_episodes(&run, 7, 20); /* slot 0 in its first epoch: the run's own seed */

    fake_wait(&run, run.end.episode == 11);
    for (uint64_t i = 11 * 21 + 1; i < 12 * 21; i++)
        reward += (double)((struct row_head *)fake_row(&run, i))->reward;
    assert_int_equal(run.end.length, 20);
    assert_true(fabs(run.end.reward - reward) < 1e-9 && !run.end.terminated);
    assert_int_equal(run.repeated, 0);
    run.limit = 300; /* raised: told in the answer to a repeated Hello, or with the next rows */
    fake_wait(&run, run.stored == 300 + 16); /* the next episode is reset, not begun */
    fake_close(&run);
}

static void random_actions_differ_by_slot_and_repeat(void **state)
{
    struct fake_run run[3];
    const char *const words[3][2] = {{"actor=1", NULL}, {"actor=2", NULL}, {"actor=1", NULL}};

    (void)state;
    for (int i = 0; i < 3; i++) {
        fake_open(&run[i]);
        fake_option(&run[i], "task: toy:20");
        run[i].limit = 20;
        fake_start(&run[i], words[i]);
        fake_wait(&run[i], run[i].stored == 22); /* and the next episode's reset */
        process_signal(run[i].process, SIGKILL);
    }
    assert_memory_equal(run[0].rows, run[2].rows, 22 * run[0].stride);
    for (uint64_t i = 1; i < 21; i++)
        assert_memory_not_equal(row_action(fake_row(&run[0], i), &run[0].schema),
                                row_action(fake_row(&run[1], i), &run[1].schema), 2 * sizeof(float));
    for (int i = 0; i < 3; i++)
        fake_close(&run[i]);
}

static void rows_survive_the_shards_death(void **state)
{
    struct fake_run run;
    uint64_t before;

    (void)state;
    fake_open(&run);
    fake_option(&run, "task: toy:20");
    fake_option(&run, "outbox: 100");
    run.limit = 5000;
    fake_start(&run, (const char *const[]){"actor=0", NULL});
    fake_wait(&run, run.stored > 200);
    run.mute = true;
    fake_wait(&run, run.heartbeat.waiting == WAITING_ACKS); /* its outbox is full */
    before = run.stored;
    run.mute = false;
    fake_restart_shard(&run); /* what was on the way is lost with it */
    fake_wait(&run, run.stored > before + 400);
    assert_int_equal(run.stream_epoch, 1);
    run.limit = run.stored + 50;
    fake_wait(&run, run.heartbeat.waiting == WAITING_LIMIT);
    assert_episodes(&run, 7, 20); /* none lost, none twice */
    fake_close(&run);
}

static void a_new_store_begins_a_new_stream(void **state)
{
    struct fake_run run;

    (void)state;
    open_and_start(&run, "task: toy:20", (const char *const[]){"actor=0", NULL});
    fake_wait(&run, run.stored > 100);
    run.store = 6; /* the directory was lost */
    fake_restart_shard(&run);
    fake_wait(&run, run.stream_epoch == 2 && run.stored > 100);
    assert_int_equal(((struct row_head *)fake_row(&run, 0))->flags, ROW_FIRST);
    assert_true(fake_logged(&run, "new epoch"));
    fake_close(&run);
}

/* --- parameters ---------------------------------------------------------------- */

static void it_acts_with_whole_finite_parameters(void **state)
{
    struct fake_run run;
    size_t size, fresh;
    float *good = snapshot(1, &size), *bad = snapshot(2, &size);
    const struct row_head *head;

    (void)state;
    bad[5] = NAN;
    open_and_start(&run, "task: toy:20", (const char *const[]){"actor=0", NULL});
    fake_wait(&run, run.stored > 50);
    run.phase = PHASE_RUNNING; /* nothing published yet: it waits, and says so */
    fake_wait(&run, run.heartbeat.waiting == WAITING_PARAMETERS);
    fake_publish(&run, good, size, 5);
    fresh = run.stored + 100;
    fake_wait(&run, run.stored > fresh);
    head = fake_row(&run, run.stored - 1);
    assert_true(head->flags == ROW_FIRST || (head->param_epoch == 1 && head->param_version == 5));
    fake_publish(&run, bad, size, 6);
    fake_wait(&run, fake_logged(&run, "not finite"));
    fresh = run.stored + 50;
    fake_wait(&run, run.stored > fresh);
    head = fake_row(&run, run.stored - 1);
    assert_true(head->flags == ROW_FIRST || head->param_version == 5);
    fake_publish(&run, good, size, 7);
    fake_wait(&run, run.heartbeat.version == 7 && run.heartbeat.version_epoch == 1);
    fake_wait(&run, ((struct row_head *)fake_row(&run, run.stored - 1))->param_version == 7);
    assert_episodes(&run, 7, 20);
    fake_close(&run);
    free(good);
    free(bad);
}

static void parameters_of_another_size_end_it(void **state)
{
    struct fake_run run;
    size_t size;
    float *good = snapshot(1, &size);

    (void)state;
    open_and_start(&run, "task: toy:20", no_words);
    fake_wait(&run, run.stored > 0);
    run.phase = PHASE_RUNNING;
    fake_publish(&run, good, size - 64, 5);
    assert_exit(&run, TD_EXIT_BAD_INPUT, "parameters of");
    fake_close(&run);
    free(good);
}

/* --- evaluation ----------------------------------------------------------------- */

static void evaluate(struct fake_run *run, uint64_t id, bool in_place)
{
    struct message message = {.kind = MESSAGE_EVALUATE, .run = run->run};

    message.evaluate = (struct evaluate){.learner_epoch = run->learner_epoch,
                                         .id = id,
                                         .step = 500,
                                         .parameters = run->newest,
                                         .episodes = 3,
                                         .final = true,
                                         .in_place = in_place,
                                         .generation = run->generation};
    fake_say(run, &message);
}

static void the_evaluator_evaluates_when_told(void **state)
{
    struct fake_run run;
    size_t size;
    float *good = snapshot(1, &size);
    double reward;

    (void)state;
    open_and_start(&run, "task: toy:20", (const char *const[]){"role=evaluator", NULL});
    fake_wait(&run, run.heartbeat.waiting == WAITING_WORK);
    assert_int_equal(run.hello.role, ROLE_EVALUATOR);
    fake_publish(&run, good, size, 5);
    evaluate(&run, 1, false);
    fake_wait(&run, run.evaluated.id == 1);
    assert_int_equal(run.evaluated.episodes, 3);
    assert_int_equal(run.evaluated.version, 5);
    assert_int_equal(run.evaluated.step, 500);
    assert_true(run.evaluated.length == 20 && run.evaluated.reward > 5 && run.evaluated.reward <= 20);
    reward = run.evaluated.reward;
    evaluate(&run, 2, false);
    fake_wait(&run, run.evaluated.id == 2);
    assert_true(run.evaluated.reward == reward); /* same step, same parameters */
    assert_int_equal(run.heard[MESSAGE_ROWS], 0);
    process_signal(run.process, SIGTERM);
    assert_exit(&run, TD_EXIT_OK, "asked to stop");
    fake_wait(&run, run.left == 1);
    fake_close(&run);
    free(good);
}

static void an_evaluation_does_not_hold_up_the_end(void **state)
{
    struct fake_run run;
    size_t size;
    float *good = snapshot(1, &size);
    uint64_t told;

    (void)state;
    open_and_start(&run, "task: toy:1000000", (const char *const[]){"role=evaluator", NULL});
    fake_wait(&run, run.heartbeat.waiting == WAITING_WORK);
    fake_publish(&run, good, size, 5);
    evaluate(&run, 1, false);
    fake_wait(&run, run.heartbeat.waiting == WAITING_NOTHING);
    run.heard[MESSAGE_HEARTBEAT] = 0;
    fake_wait(&run, run.heard[MESSAGE_HEARTBEAT] >= 3); /* busy, and answering */
    told = clock_ms();
    process_signal(run.process, SIGTERM);
    assert_exit(&run, TD_EXIT_OK, "asked to stop");
    assert_in_range(clock_ms() - told, 0, 3000);
    fake_close(&run);
    free(good);
}

/* --- lock-step ------------------------------------------------------------------- */

static void turn(struct fake_run *run, uint64_t step, bool reset, bool random)
{
    struct message message = {.kind = MESSAGE_TURN, .run = run->run};

    message.turn = (struct turn){.learner_epoch = run->learner_epoch,
                                 .generation = run->generation,
                                 .step = step,
                                 .parameters = run->newest,
                                 .random = random,
                                 .reset = reset};
    fake_say(run, &message);
}

/* Said again until it is answered, as the learner does. */
static void take_turn(struct fake_run *run, uint64_t step, bool reset, bool random)
{
    uint64_t again = 0;

    run->turned.step = run->end.step = UINT64_MAX;
    while (run->turned.step != step && run->end.step != step) {
        if (clock_ms() >= again)
            turn(run, step, reset, random);
        again = clock_ms() >= again ? clock_ms() + 200 : again;
        loop_run_for(run->loop, 5);
    }
}

/* One episode of 20 turns. */
static void take_turns(struct fake_run *run, uint64_t from, bool random)
{
    for (uint64_t i = 0; i < 20; i++)
        take_turn(run, from + i, i == 0, random);
    assert_int_equal(run->end.step, from + 19);
    assert_int_equal(run->end.length, 20);
}

static void lock_step_goes_turn_by_turn_and_back(void **state)
{
    struct fake_run run;
    size_t size;
    float *good = snapshot(1, &size);
    static char kept[8192], rows[64 * 128];
    double reward;

    (void)state;
    fake_open(&run);
    fake_option(&run, "task: toy:20");
    fake_option(&run, "lockstep: true\nactors: 1");
    run.lockstep = true;
    run.generation = 1;
    fake_start(&run, (const char *const[]){"actor=0", NULL});
    fake_wait(&run, run.end.start && run.captured_size > 0 && run.stream_epoch == 1);
    take_turns(&run, 0, true);
    fake_wait(&run, run.stored == 21);
    fake_publish(&run, good, size, 5);
    evaluate(&run, 4, true);
    fake_wait(&run, run.evaluated.id == 4);
    reward = run.evaluated.reward;
    run.state = (struct bulk){kept, run.captured_size};
    memcpy(kept, run.captured, run.captured_size);
    take_turns(&run, 20, false);
    fake_wait(&run, run.stored == 42);
    memcpy(rows, run.rows, 42 * run.stride);

    /* the learner goes back to before the second episode: the same bits again */
    run.generation = 2;
    run.step = 20;
    run.stored = 21;
    run.stream_epoch = 1;
    run.learner_process++;
    {
        struct message hello = {.kind = MESSAGE_SAY_HELLO, .run = run.run};

        hello.say_hello.learner_epoch = run.learner_epoch;
        fake_say(&run, &hello);
    }
    run.store = 6; /* makes the shard grant a new epoch, as after a Rewind */
    fake_wait(&run, run.stream_epoch == 2);
    take_turns(&run, 20, false);
    fake_wait(&run, run.stored == 21);
    assert_memory_equal(run.rows, rows + 21 * run.stride, 21 * run.stride);
    evaluate(&run, 5, true);
    fake_wait(&run, run.evaluated.id == 5);
    assert_true(run.evaluated.reward > 0 && reward > 0);
    fake_close(&run);
    free(good);
}

/* --- the learner's silence, and ends ---------------------------------------------- */

static void it_pauses_while_the_learner_is_silent(void **state)
{
    struct fake_run run;
    uint64_t stored;

    (void)state;
    open_and_start(&run, "task: toy:20", (const char *const[]){"actor=0", NULL});
    fake_wait(&run, run.stored > 100);
    run.silent = true;
    fake_pass(&run, 1500); /* five heartbeats are one second */
    stored = run.stored;
    fake_pass(&run, 500);
    assert_int_equal(run.stored, stored);
    run.silent = false;
    fake_wait(&run, run.stored > stored + 100);
    assert_episodes(&run, 7, 20);
    fake_close(&run);
}

static void it_gives_up_a_learner_that_stays_away(void **state)
{
    struct fake_run run;

    (void)state;
    fake_open(&run);
    fake_option(&run, "task: toy");
    run.silent = true;
    fake_start(&run, (const char *const[]){"learner_timeout=1", NULL});
    assert_exit(&run, TD_EXIT_GAVE_UP, "gave up");
    fake_close(&run);
}

static void sigterm_hands_over_and_leaves(void **state)
{
    struct fake_run run;

    (void)state;
    open_and_start(&run, "task: toy:20", (const char *const[]){"actor=0", NULL});
    fake_wait(&run, run.stored > 100);
    run.mute = true;
    fake_pass(&run, 50);
    process_signal(run.process, SIGTERM);
    fake_pass(&run, 300);
    assert_false(run.exited); /* rows are not acknowledged yet */
    run.mute = false;
    run.deaf = 3; /* of both, the first at least: as if it had been lost */
    assert_exit(&run, TD_EXIT_OK, "asked to stop");
    assert_true(run.left == 3 && run.heard[MESSAGE_LEAVE] >= 5);
    assert_false(fake_logged(&run, "did not answer"));
    assert_false(fake_logged(&run, "left"));
    assert_episodes(&run, 7, 20);
    fake_close(&run);
}

static void a_second_sigterm_ends_it_at_once(void **state)
{
    struct fake_run run;

    (void)state;
    open_and_start(&run, "task: toy:20", (const char *const[]){"actor=0", NULL});
    fake_wait(&run, run.stored > 100);
    run.mute = true;
    fake_pass(&run, 50);
    process_signal(run.process, SIGTERM);
    fake_pass(&run, 200);
    assert_false(run.exited);
    process_signal(run.process, SIGTERM);
    assert_exit(&run, TD_EXIT_INTERRUPTED, "second time");
    fake_close(&run);
}

static void it_is_fenced_by_its_successor(void **state)
{
    struct fake_run run;

    (void)state;
    open_and_start(&run, "task: toy:20", (const char *const[]){"actor=0", NULL});
    fake_wait(&run, run.stored > 10);
    order(&run, MESSAGE_REFUSED, REFUSED_FENCED, "process 12 has it now");
    assert_exit(&run, TD_EXIT_FENCED, "another process took slot 0");
    fake_close(&run);
}

static void the_end_of_the_run_is_its_end(void **state)
{
    struct fake_run run;

    (void)state;
    open_and_start(&run, "task: toy:20", no_words);
    fake_wait(&run, run.stored > 10);
    order(&run, MESSAGE_STOP, 0, "all steps are done");
    assert_exit(&run, TD_EXIT_OK, "all steps are done");
    fake_close(&run);
}

static void bad_options_of_the_learner_end_it(void **state)
{
    static const struct {
        const char *line, *why;
    } cases[] = {
        {"task: cartpole-swingap", "cartpole-swingup"},
        {"task: toy\nlatent_dim: 20", "latent_dim"},
        {"stepz: 3", "steps"},
        {"task: toy\nnum_elites: 1000", "num_elites"},
        {"task: [", "the learner's options"},
    };
    struct fake_run run;

    (void)state;
    for (size_t i = 0; i < TD_LEN(cases); i++) {
        fake_open(&run);
        if (i != 1 && i != 3)
            fake_option(&run, cases[i].line);
        else
            snprintf(run.options, sizeof(run.options), "%s\n", cases[i].line);
        fake_start(&run, no_words);
        assert_exit(&run, TD_EXIT_BAD_INPUT, cases[i].why);
        fake_close(&run);
    }
}

/* Before anything is connected. */
static void bad_words_end_it_with_a_sentence(void **state)
{
    static const struct {
        const char *word, *why;
    } cases[] = {
        {"stepz=3", "the nearest is 'steps'"},
        {"learner=foo", "expected tcp://HOST:PORT"},
        {"learner=tcp://10.1.2.3:5555", "insecure=true"},
        {"run_id=xyz", "hexadecimal digits"},
        {"run_id=12345678123456789", "hexadecimal digits"},
        {"role=watcher", "actor|evaluator"},
        {"actor=70000", "out of range"},
    };
    struct fake_run run;

    (void)state;
    for (size_t i = 0; i < TD_LEN(cases); i++) {
        fake_open(&run);
        fake_start(&run, (const char *const[]){cases[i].word, NULL});
        assert_exit(&run, TD_EXIT_BAD_INPUT, cases[i].why);
        assert_int_equal(run.heard[MESSAGE_HELLO], 0);
        fake_close(&run);
    }
    fake_open(&run);
    fake_start(&run, (const char *const[]){"learner=", "work_dir=/nonexistent", NULL});
    assert_exit(&run, TD_EXIT_BAD_INPUT, "no learner is known in /nonexistent");
    fake_close(&run);
}

static void another_run_or_task_is_refused(void **state)
{
    struct fake_run run;

    (void)state;
    fake_open(&run);
    fake_option(&run, "task: toy");
    run.run = 0xabc;
    fake_start(&run, (const char *const[]){"task=toy:30", NULL});
    assert_exit(&run, TD_EXIT_BAD_INPUT, "task=toy");
    fake_close(&run);

    fake_open(&run);
    fake_option(&run, "task: toy");
    fake_start(&run, no_words); /* was told abc */
    run.run = 0xabd;
    assert_exit(&run, TD_EXIT_BAD_INPUT, "run");
    fake_close(&run);
}

static void it_is_found_in_the_run_directory(void **state)
{
    struct rundir_part part;
    struct fake_run run;
    char folder[FS_PATH_MAX], word[FS_PATH_MAX + 16];
    struct error err = {0};

    (void)state;
    assert_ok(fs_join(folder, test_folder(), "run-here", &err), err);
    assert_ok(fs_mkdirs(folder, 0755, &err), err);
    snprintf(word, sizeof(word), "work_dir=%s", folder);
    open_and_start(&run, "task: toy:20", (const char *const[]){"actor=2", word, NULL});
    fake_wait(&run, run.stored > 10);
    assert_ok(rundir_find(folder, "actor", 2, &part, &err), err);
    assert_int_equal(part.pid, process_pid(run.process));
    assert_int_equal(part.run_id, run.run);
    assert_true(address_is_ipc(part.stats));
    process_signal(run.process, SIGTERM);
    assert_exit(&run, TD_EXIT_OK, "asked to stop");
    assert_int_equal(rundir_find(folder, "actor", 2, &part, &err), TD_ENOTFOUND);
    fake_close(&run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_joins_seeds_and_stops_at_its_limit),
        cmocka_unit_test(random_actions_differ_by_slot_and_repeat),
        cmocka_unit_test(rows_survive_the_shards_death),
        cmocka_unit_test(a_new_store_begins_a_new_stream),
        cmocka_unit_test(it_acts_with_whole_finite_parameters),
        cmocka_unit_test(parameters_of_another_size_end_it),
        cmocka_unit_test(the_evaluator_evaluates_when_told),
        cmocka_unit_test(an_evaluation_does_not_hold_up_the_end),
        cmocka_unit_test(lock_step_goes_turn_by_turn_and_back),
        cmocka_unit_test(it_pauses_while_the_learner_is_silent),
        cmocka_unit_test(it_gives_up_a_learner_that_stays_away),
        cmocka_unit_test(sigterm_hands_over_and_leaves),
        cmocka_unit_test(a_second_sigterm_ends_it_at_once),
        cmocka_unit_test(it_is_fenced_by_its_successor),
        cmocka_unit_test(the_end_of_the_run_is_its_end),
        cmocka_unit_test(bad_options_of_the_learner_end_it),
        cmocka_unit_test(bad_words_end_it_with_a_sentence),
        cmocka_unit_test(another_run_or_task_is_refused),
        cmocka_unit_test(it_is_found_in_the_run_directory),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);

    channel_shutdown();
    return failed;
}
