/*
 * bench_actors.c - agent steps per second of a whole run as actors are added.
 *
 *   learner          utd=1: the learner trains on all that comes in; 1, 2, 4, 8 actors share the cores
 *                    with it, and more of them must not cost it much
 *   stand-in learner utd=0.001 and a cheap planner: next to no updates, so environment steps grow with
 *                    actors until the cores run out
 *
 * One run of real processes each (bench_run.h), walker-walk with model_size=1 unless options say
 * otherwise. After seeding the counts take turns, up and down, so that other work on the machine
 * meets all of them; each is given time to settle before it is measured. A rate is what steps and
 * updates agree on: the smaller of steps and updates / utd.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/util/clock.h"
#include "tools/bench.h"
#include "tools/bench_run.h"
#include "tools/options.h"

#define ROUNDS      3
#define COUNTS      4
#define SECONDS     30.0 /* of each count, when none are given */
#define SEEDING_MS  600000u

struct setup {
    const char *name;
    int counts[COUNTS];           /* ascending; 0: none */
    const char *const *defaults;  /* that given options override */
    bool by_updates;              /* updates keep up with the steps: they are a second measure of them */
    uint64_t settle_ms;
};

static const char *const learner_defaults[] = {"task=walker-walk", "model_size=1", "seed_steps=50", NULL};
static const char *const stand_in_defaults[] = {
    "task=walker-walk", "model_size=1", "seed_steps=50", "num_samples=64", "num_elites=16", NULL};
static const char *const forced[] = {"evaluator=off", "eval_first=false", "steps=100000000",
                                     "checkpoint_every=1000000", NULL};

static const struct setup setups[] = {
    {"learner", {1, 2, 4, 8}, learner_defaults, true, 8000},
    {"stand-in learner", {1, 2, 4}, stand_in_defaults, false, 3000},
};

/* --- one window ------------------------------------------------------------------- */

struct reading {
    double steps, updates, seconds, cpu;
};

/* The learner counts steps once a second: read right after it did. */
static int read_now(bench_run_t *run, struct reading *reading, struct error *err)
{
    struct run_status status;
    uint64_t end = clock_ms() + 3000;
    int rc = bench_run_status(run, &status, err);
    double before = status.agent_steps;

    while (rc == TD_OK && status.agent_steps == before && clock_ms() < end) {
        rc = bench_run_for(run, 20, err);
        if (rc == TD_OK)
            rc = bench_run_status(run, &status, err);
    }
    *reading = (struct reading){status.agent_steps, status.updates, (double)clock_ns() * 1e-9,
                                bench_run_cpu(run)};
    return rc;
}

static int measure(bench_run_t *run, const struct setup *setup, double utd, double seconds, double *rate,
                   double *cores, struct error *err)
{
    struct reading from, to;
    uint64_t settle_ms = (uint64_t)fmin((double)setup->settle_ms, seconds * 1e3);
    double spent;
    int rc;

    if ((rc = bench_run_for(run, settle_ms, err)) != TD_OK ||
        (rc = read_now(run, &from, err)) != TD_OK ||
        (rc = bench_run_for(run, (uint64_t)(seconds * 1e3), err)) != TD_OK ||
        (rc = read_now(run, &to, err)) != TD_OK)
        return rc;
    spent = to.seconds - from.seconds;
    *rate = (to.steps - from.steps) / spent;
    if (setup->by_updates)
        *rate = fmin(*rate, (to.updates - from.updates) / utd / spent);
    *cores = (to.cpu - from.cpu) / spent;
    return TD_OK;
}

/* --- one run ---------------------------------------------------------------------- */

struct rates {
    double rate[COUNTS][ROUNDS], cores[COUNTS][ROUNDS];
};

static double median(const double *values)
{
    double a = values[0], b = values[1], c = values[2];

    return fmax(fmin(a, b), fmin(fmax(a, b), c));
}

/* Up, down and up again. */
static int take_turns(bench_run_t *run, const struct setup *setup, double utd, double seconds,
                      struct rates *rates, struct error *err)
{
    int counts = 0, rc = TD_OK;

    while (counts < COUNTS && setup->counts[counts] > 0)
        counts++;
    for (int i = 0; i < ROUNDS * counts && rc == TD_OK; i++) {
        int round = i / counts, at = round % 2 == 0 ? i % counts : counts - 1 - i % counts;

        rc = bench_run_actors(run, setup->counts[at], err);
        if (rc == TD_OK && i == 0)
            rc = bench_run_phase(run, "running", SEEDING_MS, err);
        if (rc == TD_OK)
            rc = measure(run, setup, utd, seconds / ROUNDS, &rates->rate[at][round],
                         &rates->cores[at][round], err);
    }
    return rc;
}

static void report(const struct bench_options *options, const struct setup *setup,
                   const struct rates *rates)
{
    double best = 0;

    for (int i = 0; i < COUNTS && setup->counts[i] > 0; i++)
        best = fmax(best, median(rates->rate[i]));
    for (int i = 0; i < COUNTS && setup->counts[i] > 0; i++) {
        struct bench_result result = {.name = "actors", .unit = "agent steps/s", .count = ROUNDS};
        char variant[64];

        snprintf(variant, sizeof(variant), "%s, actors=%d", setup->name, setup->counts[i]);
        result.variant = variant;
        result.rate = median(rates->rate[i]);
        result.best_fraction = best > 0 ? result.rate / best : 0;
        result.cores = median(rates->cores[i]);
        bench_report(options, &result);
    }
}

static int collect(const struct bench_options *options, const struct setup *setup, const char *utd,
                   char ***given, const char **words, int room, struct error *err)
{
    const char *const *lists[] = {setup->defaults, NULL, forced};
    int count = 0;

    *given = options_words(&options->config, options->given, utd);
    if (*given == NULL)
        return error_set(err, TD_ENOMEM, "out of memory");
    lists[1] = (const char *const *)*given;
    for (size_t i = 0; i < TD_LEN(lists); i++)
        for (const char *const *word = lists[i]; *word != NULL; word++) {
            if (count + 1 >= room)
                return error_set(err, TD_EINVAL, "too many options");
            words[count++] = *word;
        }
    words[count] = NULL;
    return TD_OK;
}

static int run_setup(const struct bench_options *options, const struct setup *setup, struct error *err)
{
    double utd = setup->by_updates ? options->config.utd : 0.001;
    double seconds = options->seconds_given ? options->seconds : SECONDS;
    const char *words[80];
    struct rates rates = {0};
    char last[40], **given = NULL;
    bench_run_t *run = NULL;
    int rc;

    snprintf(last, sizeof(last), "utd=%g", utd);
    rc = collect(options, setup, last, &given, words, TD_LEN(words), err);
    if (rc == TD_OK)
        rc = bench_run_start(&run, words, err);
    if (rc == TD_OK)
        rc = take_turns(run, setup, utd, seconds, &rates, err);
    bench_run_stop(&run);
    options_words_free(given);
    if (rc == TD_OK)
        report(options, setup, &rates);
    return rc;
}

int bench_actors(const struct bench_options *options, struct error *err)
{
    int rc = TD_OK;

    for (size_t i = 0; i < TD_LEN(setups) && rc == TD_OK; i++)
        rc = run_setup(options, &setups[i], err);
    return rc;
}
