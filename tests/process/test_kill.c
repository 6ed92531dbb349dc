/*
 * kill -9 of a random part at a random moment, again and again, with a full, evicting buffer: no acknowledged
 * row lost, none twice, none altered, order kept; training goes on; nobody hangs. Kills come while parts still
 * recover from those before, sometimes of several at once.
 *
 * What was sent and acknowledged is noted outside the code under test (tap.h). The store is compared with it
 * again and again, right after a kill of the shard, before the learner sees its end.
 *
 * TD_ROUNDS: kills, 200 unless given (10,000 in `make soak`).
 */
#include <signal.h>

#include "common/util/clock.h"
#include "tests/support/crew.h"
#include "tests/support/test.h"

#define BUFFER   1000
#define EPISODE  50
#define KEPT     (BUFFER - EPISODE - 1) /* at the least: the window begins with a whole episode */
#define GO_ON_MS 30000
#define SLOW_MS  8     /* of each sync: most kills of the shard come before one is done */
#define A_RUN    500                    /* kills, then a fresh run: notes grow, and are read each time */

static int rounds_wanted(void)
{
    const char *text = getenv("TD_ROUNDS");

    return text != NULL ? atoi(text) : test_long() ? 2000 : 200;
}

static void kill_rounds(int run, int rounds)
{
    int kills = 0, by[CREW_PARTS] = {0}, audits = 0;
    struct tap_result result;
    struct crew crew;
    char name[32];

    snprintf(name, sizeof(name), "kill-%d", run);
    crew_start(&crew, name, BUFFER, SLOW_MS, true);
    for (int round = 0; kills < rounds; round++) {
        int count = rng_below(test_rng(), 6) == 0 ? 2 : 1;

        live_sleep((int)rng_below(test_rng(), 300));
        for (int i = 0; i < count; i++) {
            enum crew_part part = crew_choose(&crew);

            if (crew_kill(&crew, part)) {
                by[part]++;
                kills++;
            }
        }
        if (rng_below(test_rng(), 3) == 0)
            live_sleep((int)rng_below(test_rng(), 100));
        crew_tend(&crew);
        if (round % 6 == 5)
            crew_goes_on(&crew, GO_ON_MS);
        if (round % 24 == 23 && crew.children < 3) {
            crew_audit(&crew, KEPT, true);
            audits++;
        }
    }
    crew_goes_on(&crew, GO_ON_MS);
    crew_stop(&crew);
    result = crew_audit(&crew, KEPT, false);
    print_message("run %d: %d kills (%d learner, %d shard, %d evaluator, %d and %d actors), %d audits: %llu rows acknowledged, "
                  "%llu kept, %llu evicted\n", run, kills, by[CREW_LEARNER], by[CREW_SHARD], by[CREW_EVALUATOR],
                  by[CREW_ACTOR], by[CREW_ACTOR + 1], audits + 1, (unsigned long long)result.acked,
                  (unsigned long long)result.kept, (unsigned long long)result.evicted);
    fs_remove_tree(crew.notes, NULL);
    fs_remove_tree(crew.live.dir, NULL);
}

static void nothing_acknowledged_is_lost(void **state)
{
    int left = rounds_wanted();

    (void)state;
    for (int run = 0; left > 0; run++, left -= A_RUN)
        kill_rounds(run, left < A_RUN ? left : A_RUN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(nothing_acknowledged_is_lost, live_cleanup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
