/* An actor's or evaluator's host in the cluster: a toy environment, a planner that hashes. */
#include "tests/support/cluster.h"
#include "tests/support/cluster_real.h"
#include "tests/support/test.h"

struct actor_host {
    session_t *session;
    struct real_actor *real; /* or NULL */
    struct toy toys[CLUSTER_ENVS][CLUSTER_TASKS];
    uint32_t task[CLUSTER_ENVS]; /* that is played */
    struct task_score scores[CLUSTER_TASKS];
    uint64_t parameters; /* the hash acted with */
    uint64_t busy_until;
    uint64_t abandoned;  /* results of jobs before this one do not count */
    uint64_t jobs;
};

session_t *actor_session(struct cluster_node *node)
{
    return node->actor->session;
}

/* --- the environment -------------------------------------------------------- */

void toy_init(struct toy *toy, uint64_t seed)
{
    *toy = (struct toy){.random = rng_hash(seed, 99)};
}

static int toy_obs(uint32_t task)
{
    return TOY_OBS - (int)(task % TOY_OBS);
}

void toy_reset(struct toy *toy, const struct cluster_options *options, uint32_t task)
{
    toy->length = options->lengths[toy->resets++ % options->length_count];
    if (options->tasks > 0)
        toy->length = options->task_lengths[task];
    toy->step = 0;
    memset(toy->obs, 0, sizeof(toy->obs));
    for (int i = 0; i < toy_obs(task); i++) {
        toy->random = rng_hash(toy->random, 1);
        toy->obs[i] = (float)(toy->random >> 40) / (1 << 24);
    }
}

bool toy_step(struct toy *toy, const struct cluster_options *options, uint32_t task, const float *action,
              float *reward, bool *terminated)
{
    toy->step++;
    *reward = 0;
    for (int i = 0; i < toy_obs(task); i++) {
        toy->obs[i] = 0.7f * toy->obs[i] + 0.3f * action[i % TOY_ACTION];
        *reward += toy->obs[i];
    }
    *terminated = toy->step == toy->length && !options->truncates && toy->length % 2 == 1;
    return toy->step == toy->length;
}

/* Random from the key alone, or "planned" from key, parameters and observation. */
static void act(const struct toy *toy, const struct rng_key *key, bool random, uint64_t parameters,
                float *action)
{
    struct rng_key other = *key;
    struct rng rng;

    if (!random)
        other.seed = cluster_mix(other.seed ^ parameters, toy->obs, sizeof(toy->obs));
    rng_init(&rng, &other);
    rng_uniform(&rng, action, TOY_ACTION, -1, 1);
}

/* --- jobs ------------------------------------------------------------------- */

struct job {
    uint64_t number;
    struct session_output output;
};

static void drain(struct cluster *cluster, struct cluster_node *node);

static void real_done(struct cluster *cluster, struct cluster_node *node, void *argument);

static void work(struct cluster *cluster, struct cluster_node *node, uint64_t takes_ms,
                 void (*call)(struct cluster *, struct cluster_node *, void *),
                 const struct session_output *output)
{
    struct actor_host *host = node->actor;
    struct job *job = malloc(sizeof(*job));

    assert_non_null(job);
    if (host->real != NULL)
        call = real_done;
    job->number = ++host->jobs;
    job->output = *output;
    if (host->busy_until < cluster->now)
        host->busy_until = cluster->now;
    host->busy_until += takes_ms;
    cluster_call(cluster, node, host->busy_until - cluster->now, call, job);
}

static void configure_done(struct cluster *cluster, struct cluster_node *node, void *argument)
{
    const struct cluster_options *options = &cluster->options;
    struct session_setup setup = {
        .spec = {OBS_STATE, TOY_OBS, TOY_ACTION, 0, true, options->tasks}, .environments = options->envs > 1 && node->kind == NODE_ACTOR ? options->envs : 1, .seed = 5,
        .outbox = options->outbox, .max_staleness = options->max_staleness, .heartbeat_ms = 2000,
        .timeout_ms = 3600000, .snapshot_bytes = options->snapshot,
    };

    (void)argument;
    if (options->task != NULL) {
        const struct worker_result *ready;

        assert_null(node->actor->real);
        node->actor->real = real_actor_open(cluster, &ready);
        setup.spec = ready->spec;
        setup.snapshot_bytes = ready->snapshot_bytes;
    }
    session_configured(node->actor->session, cluster->now, &setup);
    drain(cluster, node);
}

/* The result of the production worker, as actor.c hands it over. */
static void real_done(struct cluster *cluster, struct cluster_node *node, void *argument)
{
    const struct job *job = argument;
    session_t *session = node->actor->session;
    const struct worker_result *result;

    if (job->output.kind == COMMAND_EVALUATE && job->number <= node->actor->abandoned)
        return;
    result = real_actor_do(node->actor->real, &job->output);
    if (job->output.kind == COMMAND_RESTORE)
        session_restored(session, cluster->now, result->token, result->ok);
    else if (job->output.kind == COMMAND_CAPTURE)
        session_captured(session, cluster->now, result->token, result->state);
    else if (job->output.kind == COMMAND_ADOPT)
        session_adopted(session, cluster->now, result->token, result->ok);
    else if (job->output.kind == COMMAND_EVALUATE)
        session_evaluated(session, cluster->now, result->token, &result->evaluation);
    else
        session_stepped(session, cluster->now, result->token, &result->step);
    drain(cluster, node);
}

static void restore_done(struct cluster *cluster, struct cluster_node *node, void *argument)
{
    const struct job *job = argument;
    const struct command_restore *restore = &job->output.restore;

    if (restore->state.size == 0) {
        for (int task = 0; task < CLUSTER_TASKS; task++)
            toy_init(&node->actor->toys[0][task], restore->seed);
    } else {
        assert_int_equal(restore->state.size, sizeof(node->actor->toys[0]));
        memcpy(node->actor->toys[0], restore->state.data, sizeof(node->actor->toys[0]));
    }
    session_restored(node->actor->session, cluster->now, restore->token, true);
    drain(cluster, node);
}

static void reset_done(struct cluster *cluster, struct cluster_node *node, void *argument)
{
    const struct job *job = argument;
    uint32_t env = job->output.reset.environment, task = job->output.reset.task;
    struct toy *toy = &node->actor->toys[env][task];
    struct session_step step = {.obs = toy->obs};

    assert_true(task < (cluster->options.tasks > 0 ? cluster->options.tasks : 1));
    node->actor->task[env] = task;
    for (int i = 0; i < CLUSTER_TASKS && job->output.reset.reseed; i++)
        toy_init(&node->actor->toys[env][i], job->output.reset.seed);
    toy_reset(toy, &cluster->options, task);
    cluster_trace(cluster, (struct trace){.kind = TRACE_RESET});
    session_stepped(node->actor->session, cluster->now, job->output.reset.token, &step);
    drain(cluster, node);
}

static void step_done(struct cluster *cluster, struct cluster_node *node, void *argument)
{
    const struct job *job = argument;
    const struct command_step *command = &job->output.step;
    uint32_t task = node->actor->task[command->environment];
    struct toy *toy = &node->actor->toys[command->environment][task];
    float action[TOY_ACTION];
    struct session_step step = {.obs = toy->obs, .action = action};
    bool over;

    act(toy, &command->key, command->random, node->actor->parameters, action);
    if (task % 2 == 1) /* an action of fewer components */
        action[TOY_ACTION - 1] = 0;
    over = toy_step(toy, &cluster->options, task, action, &step.reward, &step.terminated);
    step.truncated = over && !step.terminated;
    cluster_trace(cluster, (struct trace){.kind = command->random ? TRACE_RANDOM : TRACE_PLAN,
                                          .first = command->first});
    cluster_trace(cluster, (struct trace){.kind = TRACE_STEP});
    session_stepped(node->actor->session, cluster->now, command->token, &step);
    drain(cluster, node);
}

static void capture_done(struct cluster *cluster, struct cluster_node *node, void *argument)
{
    const struct job *job = argument;

    session_captured(node->actor->session, cluster->now, job->output.capture.token,
                     (struct bulk){node->actor->toys[0], sizeof(node->actor->toys[0])});
    drain(cluster, node);
}

/* Whole episodes; in place they move the training environment's random stream on. */
static double run_episodes(struct cluster *cluster, struct actor_host *host,
                           const struct command_evaluate *command, struct toy *toy, uint32_t task)
{
    double sum = 0;

    for (uint32_t episode = 0; episode < command->episodes; episode++) {
        bool over = false;

        toy_reset(toy, &cluster->options, task);
        cluster_trace(cluster, (struct trace){.kind = TRACE_RESET});
        for (uint32_t step = 0; !over; step++) {
            struct rng_key key = session_eval_key(&command->key, episode, step);
            float action[TOY_ACTION], reward;
            bool terminated;

            act(toy, &key, false, host->parameters, action);
            over = toy_step(toy, &cluster->options, task, action, &reward, &terminated);
            sum += reward;
            cluster_trace(cluster, (struct trace){.kind = TRACE_PLAN, .first = step == 0,
                                                  .eval = true});
            cluster_trace(cluster, (struct trace){.kind = TRACE_STEP});
        }
    }
    return sum / command->episodes;
}

static void evaluate_done(struct cluster *cluster, struct cluster_node *node, void *argument)
{
    const struct job *job = argument;
    const struct command_evaluate *command = &job->output.evaluate;
    struct session_evaluation result = {.episodes = command->episodes};
    uint32_t tasks = cluster->options.tasks > 0 ? cluster->options.tasks : 1;
    struct toy own;

    if (job->number <= node->actor->abandoned)
        return;
    for (uint32_t task = 0; task < tasks; task++) {
        struct task_score *score = &node->actor->scores[task];

        toy_init(&own, command->seed);
        *score = (struct task_score){0};
        score->reward = run_episodes(cluster, node->actor, command,
                                     command->in_place ? &node->actor->toys[0][task] : &own, task);
        result.reward += score->reward / tasks;
    }
    result.score_count = cluster->options.tasks;
    result.scores = node->actor->scores;
    if (command->in_place)
        result.state = (struct bulk){node->actor->toys[0], sizeof(node->actor->toys[0])};
    session_evaluated(node->actor->session, cluster->now, command->token, &result);
    drain(cluster, node);
}

static void adopt_done(struct cluster *cluster, struct cluster_node *node, void *argument)
{
    const struct job *job = argument;
    const uint64_t *memory = job->output.adopt.data;

    assert_int_equal(job->output.adopt.size, cluster->options.snapshot);
    assert_true(memory[1] == job->output.adopt.version);
    node->actor->parameters = memory[0];
    session_adopted(node->actor->session, cluster->now, job->output.adopt.token, true);
    drain(cluster, node);
}

static void carry_out(struct cluster *cluster, struct cluster_node *node,
                      struct session_output *output)
{
    const struct cluster_options *options = &cluster->options;

    switch (output->kind) {
    case OUTPUT_SEND:
        cluster_send(cluster, node, &output->peer, &output->message);
        break;
    case OUTPUT_CONNECT:
        cluster_connect(cluster, node, &output->peer, output->address);
        break;
    case OUTPUT_LOG:
        cluster_say(cluster, node, output->log.text);
        break;
    case COMMAND_CONFIGURE:
        work(cluster, node, 2, configure_done, output);
        break;
    case COMMAND_RESTORE:
        work(cluster, node, 1, restore_done, output);
        break;
    case COMMAND_RESET:
        work(cluster, node, options->step_ms, reset_done, output);
        break;
    case COMMAND_STEP:
        work(cluster, node, options->step_ms + (output->step.random ? 0 : options->plan_ms) +
             options->task_ms[node->actor->task[output->step.environment]], step_done, output);
        break;
    case COMMAND_CAPTURE:
        work(cluster, node, 0, capture_done, output);
        break;
    case COMMAND_EVALUATE:
        work(cluster, node, options->plan_ms * 10, evaluate_done, output);
        break;
    case COMMAND_ABANDON:
        node->actor->abandoned = node->actor->jobs;
        break;
    case COMMAND_ADOPT:
        work(cluster, node, 1, adopt_done, output);
        break;
    }
}

static void drain(struct cluster *cluster, struct cluster_node *node)
{
    struct session_output output;

    while (session_next(node->actor->session, &output)) {
        if (output.kind == OUTPUT_EXIT) {
            cluster_exited(cluster, node, &output.exit);
            return;
        }
        carry_out(cluster, node, &output);
    }
}

/* --- life ------------------------------------------------------------------- */

void actor_start(struct cluster *cluster, struct cluster_node *node)
{
    struct session_config config = {
        .process = node->process,
        .role = node->kind == NODE_ACTOR ? ROLE_ACTOR : ROLE_EVALUATOR,
        .slot = node->kind == NODE_ACTOR && !cluster->options.granted_slots ? node->number : -1,
        .heartbeat_ms = 2000,
        .timeout_ms = 3600000,
    };
    struct error err = {0};

    node->actor = calloc(1, sizeof(*node->actor));
    assert_non_null(node->actor);
    snprintf(config.control, sizeof(config.control), "sim:0:0");
    assert_ok(session_create(&node->actor->session, &config, &err), err);
    session_tick(node->actor->session, cluster->now);
    drain(cluster, node);
}

void actor_abandon(struct cluster_node *node)
{
    session_destroy(&node->actor->session);
    real_actor_close(&node->actor->real);
    free(node->actor);
    node->actor = NULL;
}

void actor_receive(struct cluster *cluster, struct cluster_node *node, const struct peer *peer,
                   const struct message *message)
{
    session_receive(node->actor->session, cluster->now, peer, message);
    drain(cluster, node);
}

void actor_tick(struct cluster *cluster, struct cluster_node *node)
{
    session_tick(node->actor->session, cluster->now);
    drain(cluster, node);
}

uint64_t actor_deadline(const struct cluster_node *node)
{
    return session_deadline(node->actor->session);
}

void actor_terminate(struct cluster *cluster, struct cluster_node *node)
{
    session_terminate(node->actor->session, cluster->now);
    drain(cluster, node);
}
