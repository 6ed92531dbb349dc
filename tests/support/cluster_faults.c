/* Plans of faults: drawn from a seed, carried out on the virtual clock. */
#include "tests/support/cluster_faults.h"

#include <math.h>

#include "learner/limiter.h"
#include "tests/support/test.h"

/* --- drawing ---------------------------------------------------------------- */

static double fraction(struct rng *rng, double most)
{
    return most * (double)rng_below(rng, 1001) / 1000;
}

/* Spread over orders of magnitude, as the interesting ones are. */
static uint64_t any_ms(struct rng *rng, uint64_t most)
{
    return rng_below(rng, 1 + (uint32_t)(most >> rng_below(rng, 12)));
}

static void draw_options(struct cluster_options *options, struct rng *rng, uint64_t seed)
{
    cluster_defaults(options);
    options->seed = seed;
    options->steps = 60 + rng_below(rng, 140);
    options->seed_steps = 5 + rng_below(rng, 40);
    options->eval_freq = 20 + rng_below(rng, 60);
    options->delay_ms = 1 + rng_below(rng, 30);
    options->commit_ms = rng_below(rng, 40);
    options->save_ms = 1 + rng_below(rng, 300);
    options->restart_fenced = true;
    options->lockstep = rng_below(rng, 5) == 0;
    options->evaluator = rng_below(rng, 2) && !options->lockstep;
    options->checkpoint_every_ms = 50 + rng_below(rng, 3000);
    options->checkpoint_steps = 10 + rng_below(rng, 30);
    options->truncates = rng_below(rng, 2);
    options->episodic = !options->truncates;
    if (options->lockstep) {
        options->actors = 1;
        options->eval_freq = 50;
        options->seed_steps += 15;
        return;
    }
    options->actors = 1 + rng_below(rng, 4);
    options->shards = 1 + (rng_below(rng, 3) == 0) * rng_below(rng, 3);
    options->granted_slots = rng_below(rng, 3) == 0;
    options->utd = (const double[]){1, 1, 0.5, 2}[rng_below(rng, 4)];
    options->outbox = 16 + rng_below(rng, 40);
    options->envs = rng_below(rng, 3) == 0 ? 2 + rng_below(rng, 4) : 1;
    options->snapshot = rng_below(rng, 12) == 0 ? WIRE_CHUNK_BYTES + 5 : 100;
    if (rng_below(rng, 3) == 0) /* much is evicted */
        options->buffer_size = 60 + rng_below(rng, 100);
}

static void draw_trouble(struct trouble *trouble, struct rng *rng, uint64_t span_ms)
{
    *trouble = (struct trouble){
        .kind = rng_below(rng, TROUBLE_KINDS),
        .at_ms = rng_below(rng, (uint32_t)span_ms),
        .for_ms = any_ms(rng, 25000),
        .nodes = UINT64_C(1) << rng_below(rng, 60),
        .held = rng_below(rng, 2),
        .one_way = rng_below(rng, 4) == 0,
    };
    if (trouble->kind == TROUBLE_STOP)
        trouble->for_ms = any_ms(rng, 120000);
    if (trouble->kind == TROUBLE_PART || rng_below(rng, 6) == 0) /* a subset */
        trouble->nodes |= (uint64_t)rng_u64(rng) & rng_u64(rng);
}

static int by_time(const void *a, const void *b)
{
    const struct trouble *one = a, *other = b;

    return one->at_ms < other->at_ms ? -1 : one->at_ms > other->at_ms;
}

void plan_draw(struct fault_plan *plan, uint64_t seed)
{
    struct rng_key key = {seed, RNG_TEST, 2, 0, 0, 0};
    uint64_t span_ms;
    struct rng rng;

    rng_init(&rng, &key);
    *plan = (struct fault_plan){.seed = seed};
    draw_options(&plan->options, &rng, seed);
    plan->loss = rng_below(&rng, 4) == 0 ? 0 : fraction(&rng, 0.30);
    plan->twice = rng_below(&rng, 4) == 0 ? 0 : fraction(&rng, 0.50);
    plan->late = rng_below(&rng, 4) == 0 ? 0 : fraction(&rng, 0.50);
    plan->wild = rng_below(&rng, 3) == 0 && !plan->options.lockstep;
    plan->late_ms = 1 + any_ms(&rng, 12000);
    plan->until_ms = 500 + any_ms(&rng, 60000);
    span_ms = 800 + any_ms(&rng, 40000);
    plan->count = rng_below(&rng, TROUBLES_MAX / 2) + rng_below(&rng, TROUBLES_MAX / 2);
    for (int i = 0; i < plan->count; i++) {
        draw_trouble(&plan->troubles[i], &rng, span_ms);
        if (i > 0 && rng_below(&rng, 4) == 0) /* several at once */
            plan->troubles[i].at_ms = plan->troubles[i - 1].at_ms;
    }
    qsort(plan->troubles, (size_t)plan->count, sizeof(plan->troubles[0]), by_time);
}

uint64_t plan_end_ms(const struct fault_plan *plan)
{
    uint64_t end = plan->until_ms;

    for (int i = 0; i < plan->count; i++)
        if (plan->troubles[i].at_ms + plan->troubles[i].for_ms > end)
            end = plan->troubles[i].at_ms + plan->troubles[i].for_ms;
    return end;
}

/* --- telling ---------------------------------------------------------------- */

void plan_print(const struct fault_plan *plan)
{
    static const char *const names[] = {"kill", "SIGTERM", "SIGSTOP", "reset", "lose", "part"};
    const struct cluster_options *options = &plan->options;

    fprintf(stderr, "plan of seed %llu: %s, %u actors of %u, %u shards, %llu steps; until %llu ms lost %.3f, "
            "twice %.3f, late %.3f by %llu ms%s\n", (unsigned long long)plan->seed,
            options->lockstep ? "lock-step" : "asynchronous", options->actors,
            options->envs > 1 ? options->envs : 1, options->shards, (unsigned long long)options->steps,
            (unsigned long long)plan->until_ms, plan->loss, plan->twice, plan->late,
            (unsigned long long)plan->late_ms, plan->wild ? ", in any order" : "");
    for (int i = 0; i < plan->count; i++)
        if (!(plan->skip >> i & 1))
            fprintf(stderr, "  %d: at %llu ms %s nodes %#llx for %llu ms%s%s\n", i,
                    (unsigned long long)plan->troubles[i].at_ms, names[plan->troubles[i].kind],
                    (unsigned long long)plan->troubles[i].nodes, (unsigned long long)plan->troubles[i].for_ms,
                    plan->troubles[i].kind == TROUBLE_PART && plan->troubles[i].held ? ", held" : "",
                    plan->troubles[i].kind == TROUBLE_PART && plan->troubles[i].one_way ? ", one way" : "");
}

/* --- carrying out ----------------------------------------------------------- */

static bool concerns(const struct cluster *cluster, const struct trouble *trouble, int node)
{
    for (int bit = node; bit < 64; bit += cluster->node_count)
        if (trouble->nodes >> bit & 1)
            return true;
    return false;
}

static void part(struct cluster *cluster, const struct trouble *trouble)
{
    struct cluster_faults *faults = &cluster->faults;
    uint64_t until = cluster->now + trouble->for_ms;

    for (int a = 0; a < cluster->node_count; a++)
        for (int b = 0; b < cluster->node_count; b++) {
            bool from = concerns(cluster, trouble, a), to = concerns(cluster, trouble, b);

            if (from == to || (trouble->one_way && !from) || until <= faults->cut_until[a][b])
                continue;
            faults->cut_until[a][b] = until;
            faults->held[a][b] = trouble->held;
        }
}

static void happen(struct cluster *cluster, const struct trouble *trouble)
{
    char text[64];

    for (int i = 0; i < cluster->node_count; i++) {
        struct cluster_node *node = &cluster->nodes[i];

        if (!concerns(cluster, trouble, i))
            continue;
        switch (trouble->kind) {
        case TROUBLE_KILL:
            cluster_kill(cluster, node, trouble->for_ms);
            break;
        case TROUBLE_TERMINATE:
            cluster_terminate(cluster, node, trouble->for_ms);
            break;
        case TROUBLE_STOP:
            if (node->alive && node->stopped_until < cluster->now + trouble->for_ms)
                node->stopped_until = cluster->now + trouble->for_ms;
            break;
        case TROUBLE_RESET:
            cluster_cut(cluster, node);
            break;
        case TROUBLE_LOSE:
            cluster_lose(cluster, node);
            break;
        default:
            snprintf(text, sizeof(text), "parted for %llu ms", (unsigned long long)trouble->for_ms);
            cluster_say(cluster, node, text);
        }
    }
    if (trouble->kind == TROUBLE_PART)
        part(cluster, trouble);
}

static void wake(struct cluster *cluster, void *context)
{
    struct fault_plan *plan = context;

    while (plan->next < plan->count && plan->started + plan->troubles[plan->next].at_ms <= cluster->now) {
        if (!(plan->skip >> plan->next & 1))
            happen(cluster, &plan->troubles[plan->next]);
        plan->next++;
    }
    cluster->faults.wake_at = plan->next < plan->count ? plan->started + plan->troubles[plan->next].at_ms
                                                       : UINT64_MAX;
}

static void delivered(struct cluster *cluster, void *context)
{
    plan_check(context, cluster);
}

void plan_attach(struct fault_plan *plan, struct cluster *cluster)
{
    struct cluster_faults *faults = &cluster->faults;

    plan->started = cluster->now;
    faults->seed = rng_hash(plan->seed, 3);
    faults->until = cluster->now + plan->until_ms;
    faults->loss = plan->loss;
    faults->twice = plan->twice;
    faults->late = plan->late;
    faults->late_ms = plan->late_ms;
    faults->wild = plan->wild;
    faults->ghosts = true;
    faults->on_wake = wake;
    faults->plan = plan;
    faults->wake_at = plan->count > 0 ? cluster->now + plan->troubles[0].at_ms : UINT64_MAX;
    cluster->on_delivered = delivered;
    cluster->context = plan;
}

/* --- what must hold --------------------------------------------------------- */

/*
 * Nobody was replaced by anybody else, so nobody may be told so. (Out of order, the last word of a process
 * that is gone can do that; its successor comes back.)
 */
void plan_check(struct fault_plan *plan, struct cluster *cluster)
{
    struct coordinator_view view;

    if (cluster->fenced > 0 && !plan->wild)
        fail_msg("seed %llu: an actor was fenced", (unsigned long long)plan->seed);
    if (!cluster_learner(cluster)->alive || cluster_learner(cluster)->start_at != UINT64_MAX)
        return; /* or is leaving: it counts no more */
    view = cluster_view(cluster);
    plan->checks++;
    if (plan->wild || view.shards < cluster->options.shards)
        return; /* not all counts are known */
    /* the burst begins with seed_steps in the store: its last step's updates are owed with the next step */
    if (view.phase == PHASE_RUNNING && (double)view.cursor < -ceil(cluster->options.utd))
        fail_msg("seed %llu: %lld updates owed with %llu steps, %llu updates", (unsigned long long)plan->seed,
                 (long long)view.cursor, (unsigned long long)view.steps, (unsigned long long)view.updates);
    if (view.phase == PHASE_RUNNING && !cluster->options.lockstep && view.samplable > 0 &&
        view.limit != LIMIT_NONE && view.limit > cluster->options.steps + 1)
        fail_msg("seed %llu: %llu steps may come in", (unsigned long long)plan->seed,
                 (unsigned long long)view.limit);
}
