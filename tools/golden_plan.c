/* golden_plan.c - recorded planning calls through common/plan/mppi.c. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools/golden.h"

#define ENVIRONMENTS 2 /* planned for together */
#define RECORDED     1 /* which of them the recording is of */

/* The recorded draws of one call, read before it starts. */
struct draws {
    const struct golden_case *recorded;
    float **policy;    /* [H] of [P, A] */
    float **candidate; /* [N] of [H, S - P, A] */
    float **terminal;  /* [N] of [S, A] */
    int (*heads)[2];   /* [N] */
    float *exponential;
    float *action;     /* NULL in eval mode */
    float shift[2];    /* with pixels */
};

struct watch {
    const struct golden_case *recorded;
    struct golden_report *report;
    struct error *err;
    int call;
    double largest; /* value of this call so far */
    int rc;
};

static void give(const void *context, enum mppi_draw kind, int index, float *out, size_t count)
{
    const struct draws *draws = context;
    const float *from = kind == MPPI_POLICY_NOISE      ? draws->policy[index]
                        : kind == MPPI_CANDIDATE_NOISE ? draws->candidate[index]
                        : kind == MPPI_TERMINAL_NOISE  ? draws->terminal[index]
                        : kind == MPPI_GUMBEL          ? draws->exponential
                        : kind == MPPI_SHIFT           ? draws->shift
                                                       : draws->action;

    TD_ASSERT(from != NULL, "draw %d %d was not recorded", (int)kind, index);
    memcpy(out, from, count * sizeof(float));
}

static void give_heads(const void *context, int index, int num_q, int two[2])
{
    const struct draws *draws = context;

    (void)num_q;
    memcpy(two, draws->heads[index], 2 * sizeof(int));
}

static void free_draws(struct draws *draws)
{
    const struct mppi_config *plan = &draws->recorded->plan;

    for (int t = 0; draws->policy != NULL && t < plan->horizon; t++)
        free(draws->policy[t]);
    for (int i = 0; draws->candidate != NULL && i < plan->iterations; i++)
        free(draws->candidate[i]);
    for (int i = 0; draws->terminal != NULL && i < plan->iterations; i++)
        free(draws->terminal[i]);
    free(draws->policy);
    free(draws->candidate);
    free(draws->terminal);
    free(draws->heads);
    free(draws->exponential);
    free(draws->action);
}

static int read_draws(const struct golden_case *recorded, int call, bool eval, struct draws *draws,
                      struct error *err)
{
    const struct mppi_config *plan = &recorded->plan;
    uint64_t h = (uint64_t)plan->horizon, s = (uint64_t)plan->num_samples, p = (uint64_t)plan->num_pi_trajs;
    uint64_t a = (uint64_t)recorded->dims.action_dim, elites = (uint64_t)plan->num_elites;
    int draw = 0, rc;

    *draws = (struct draws){.recorded = recorded};
    draws->policy = calloc((size_t)plan->horizon, sizeof(*draws->policy));
    draws->candidate = calloc((size_t)plan->iterations, sizeof(*draws->candidate));
    draws->terminal = calloc((size_t)plan->iterations, sizeof(*draws->terminal));
    draws->heads = calloc((size_t)plan->iterations, sizeof(*draws->heads));
    if (draws->policy == NULL || draws->candidate == NULL || draws->terminal == NULL || draws->heads == NULL)
        return error_set(err, TD_ENOMEM, "out of memory");
    if (recorded->dims.rgb &&
        (rc = golden_shifts(recorded, draws->shift, 1, err, "call%d.draw%02d.randint", call, draw++)))
        return rc;
    /* Without policy candidates the reference draws nothing for them. */
    for (int t = 0; p > 0 && t < plan->horizon; t++)
        if ((rc = golden_floats(recorded, &draws->policy[t], 2, (uint64_t[]){p, a}, err,
                                "call%d.draw%02d.randn_like", call, draw++)))
            return rc;
    for (int i = 0; i < plan->iterations; i++)
        if ((rc = golden_floats(recorded, &draws->candidate[i], 3, (uint64_t[]){h, s - p, a}, err,
                                "call%d.draw%02d.randn", call, draw++)) ||
            (rc = golden_floats(recorded, &draws->terminal[i], 2, (uint64_t[]){s, a}, err,
                                "call%d.draw%02d.randn_like", call, draw++)) ||
            (rc = golden_heads(recorded, draws->heads[i], err, "call%d.draw%02d.randperm", call, draw++)))
            return rc;
    if ((rc = golden_floats(recorded, &draws->exponential, 1, &elites, err, "call%d.draw%02d.exponential",
                            call, draw++)))
        return rc;
    if (eval)
        return TD_OK;
    return golden_floats(recorded, &draws->action, 1, &a, err, "call%d.draw%02d.randn", call, draw);
}

/* Recorded values of any iteration of a call weigh in the next one's candidates, through exp(V). */
static void remember_largest(struct watch *watch, const float *value, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (isfinite(value[i]))
            watch->largest = fmax(watch->largest, fabs((double)value[i]));
}

static void compare_named(struct watch *watch, const char *quantity, enum golden_measure measure,
                          double allowed, const float *ours, int dims, const uint64_t *shape,
                          const char *name)
{
    struct golden_quantity *target;
    float *theirs;
    size_t count = 1;

    for (int i = 0; i < dims; i++)
        count *= (size_t)shape[i];
    if (watch->rc == TD_OK)
        watch->rc = golden_floats(watch->recorded, &theirs, dims, shape, watch->err, "call%d.%s",
                                  watch->call, name);
    if (watch->rc != TD_OK)
        return;
    if (measure == GOLDEN_RELATIVE)
        remember_largest(watch, theirs, count);
    target = golden_quantity(watch->report, quantity, measure, allowed);
    target->amplified = true;
    golden_compare(watch->report, target, ours, theirs, count, measure == GOLDEN_RELATIVE ? watch->largest : 0);
    free(theirs);
}

static void compare_iteration(void *context, int environment, int iteration, const float *value,
                              const float *actions)
{
    struct watch *watch = context;
    const struct mppi_config *plan = &watch->recorded->plan;
    uint64_t samples = (uint64_t)plan->num_samples;
    uint64_t shape[3] = {(uint64_t)plan->horizon, samples, (uint64_t)watch->recorded->dims.action_dim};
    char name[32];

    if (environment != RECORDED)
        return;
    snprintf(name, sizeof(name), "iter%d.value", iteration);
    compare_named(watch, "values", GOLDEN_RELATIVE, 5e-5, value, 1, &samples, name);
    if (iteration == 0)
        compare_named(watch, "candidates", GOLDEN_ABSOLUTE, 1e-4, actions, 3, shape, "iter0.actions");
}

static int read_flag(const struct golden_case *recorded, int call, const char *what, bool *out,
                     struct error *err)
{
    uint64_t one = 1;
    int32_t value = 0;
    char name[64];
    int rc;

    snprintf(name, sizeof(name), "call%d.%s", call, what);
    rc = safetensors_get(recorded->file, name, SAFETENSORS_I32, -1, &one, &value, err);
    *out = value != 0;
    return rc;
}

static int read_task(const struct golden_case *recorded, int call, uint32_t *out, struct error *err)
{
    char name[64];

    snprintf(name, sizeof(name), "call%d.task", call);
    return golden_tasks(recorded, out, 1, err, name);
}

/* What the planner is given: floats, or stacked frames. */
static int read_obs(const struct golden_case *recorded, int call, void **out, struct error *err)
{
    uint64_t floats = (uint64_t)recorded->dims.obs_dim, planes[3] = {PIXEL_PLANES, PIXEL_SIDE, PIXEL_SIDE};
    uint8_t *bytes;
    float *state;
    int rc;

    if (recorded->dims.rgb) {
        rc = golden_bytes(recorded, &bytes, 3, planes, err, "call%d.obs", call);
        *out = bytes;
    } else {
        rc = golden_floats(recorded, &state, 1, &floats, err, "call%d.obs", call);
        *out = state;
    }
    return rc;
}

/* The recorded plan, in a batch with another: what else is planned makes no difference. */
static int plan_in_company(mppi_t *mppi, const world_model_t *model, const struct mppi_request *recorded,
                           float *other)
{
    struct rng_key key = {.seed = 1, .purpose = RNG_PLAN};
    struct mppi_request requests[ENVIRONMENTS] = {*recorded, *recorded};
    struct rng rng;

    rng_init(&rng, &key);
    requests[1].environment = RECORDED == 0;
    requests[1].draws = mppi_draws_rng(&rng);
    requests[1].action = other;
    if (model->layout.dims.num_tasks > 0) /* of another task */
        requests[1].task = (recorded->task + 1) % (uint32_t)model->layout.dims.num_tasks;
    mppi_plan_batch(mppi, model, requests, ENVIRONMENTS);
    return requests[0].status;
}

static int one_call(struct watch *watch, mppi_t *mppi, const world_model_t *model)
{
    const struct golden_case *recorded = watch->recorded;
    uint64_t shape[2] = {(uint64_t)recorded->plan.horizon, (uint64_t)recorded->dims.action_dim};
    struct draws draws = {.recorded = recorded};
    struct mppi_request request = {.environment = RECORDED,
                                   .draws = {.context = &draws, .fill = give, .heads = give_heads}};
    void *obs = NULL;
    float *previous = NULL, *action = malloc(2 * sizeof(float) * (size_t)shape[1]);
    int rc;

    if ((rc = action == NULL ? error_set(watch->err, TD_ENOMEM, "out of memory") : TD_OK) ||
        (rc = read_obs(recorded, watch->call, &obs, watch->err)) ||
        (rc = golden_floats(recorded, &previous, 2, shape, watch->err, "call%d.prev_mean", watch->call)) ||
        (rc = read_task(recorded, watch->call, &request.task, watch->err)) ||
        (rc = read_flag(recorded, watch->call, "t0", &request.first, watch->err)) ||
        (rc = read_flag(recorded, watch->call, "eval_mode", &request.eval, watch->err)) ||
        (rc = read_draws(recorded, watch->call, request.eval, &draws, watch->err)))
        goto done;
    memcpy(mppi_previous_mean(mppi, RECORDED), previous, (size_t)(shape[0] * shape[1]) * sizeof(float));
    request.obs = obs;
    request.action = action;
    if (plan_in_company(mppi, model, &request, action + shape[1]) != TD_OK) {
        rc = error_set(watch->err, TD_EINVAL, "%s: call %d gives an action that is not finite",
                       recorded->path, watch->call);
        goto done;
    }
    compare_named(watch, "action", GOLDEN_ABSOLUTE, 1e-4, action, 1, &shape[1], "action");
    compare_named(watch, "mean", GOLDEN_ABSOLUTE, 1e-4, mppi_previous_mean(mppi, RECORDED), 2, shape, "mean");
    rc = watch->rc;

done:
    free_draws(&draws);
    free(obs);
    free(previous);
    free(action);
    return rc;
}

/* What one call's draws take must be in the file before a planner of that size is made. */
static int check_sizes(const struct golden_case *recorded, struct error *err)
{
    struct draws draws = {.recorded = recorded};
    bool eval = false;
    int rc = read_flag(recorded, 0, "eval_mode", &eval, err);

    if (rc == TD_OK)
        rc = read_draws(recorded, 0, eval, &draws, err);
    free_draws(&draws);
    return rc;
}

int golden_plan(const struct golden_case *recorded, int threads, struct golden_report *report,
                struct error *err)
{
    struct watch seen = {.recorded = recorded, .report = report, .err = err};
    struct mppi_watch watch = {.context = &seen, .iteration = compare_iteration};
    world_model_t *model = NULL;
    mppi_t *mppi = NULL;
    pool_t *pool = NULL;
    int rc;

    if ((rc = check_sizes(recorded, err)) || (rc = golden_model(recorded, report, &model, err)) ||
        (rc = pool_create(&pool, threads, err)) ||
        (rc = mppi_create(&mppi, &recorded->plan, &recorded->dims, ENVIRONMENTS, pool, err)))
        goto done;
    mppi_set_watch(mppi, &watch);
    for (int call = 0; call < recorded->rounds && rc == TD_OK; call++) {
        seen.call = call;
        seen.largest = 0;
        rc = one_call(&seen, mppi, model);
    }

done:
    mppi_destroy(&mppi);
    pool_destroy(&pool);
    world_model_destroy(&model);
    return rc;
}
