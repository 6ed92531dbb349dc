#include "tests/support/test.h"

#include "tools/cluster.h"

#define HEAD "name: walker\noptions: {task: toy, steps: 1e4}\n"

static struct cluster cluster;

static int read_text(const char *text, const char *engine, struct error *err)
{
    cluster_release(&cluster);
    memset(err, 0, sizeof(*err));
    return cluster_read(&cluster, text, strlen(text), "runs/c.yaml", engine, err);
}

static int release(void **state)
{
    (void)state;
    cluster_release(&cluster);
    memset(&cluster, 0, sizeof(cluster));
    return 0;
}

static void all_that_a_file_says_is_taken(void **state)
{
    struct error err;
    char dir[FS_PATH_MAX];

    (void)state;
    assert_ok(read_text(HEAD "engine: ssh\ndir: /data/%h/x\nssh: [-p, '2222']\nprograms: copy\nkeys: /k\n"
                        "learner: {host: me@trainer, port: 5555, address: 10.0.0.1, options: {threads: 2}}\n"
                        "shards: {count: 2, hosts: [store]}\nactors: {count: 7, hosts: [a, b], cpus: 2}\n", NULL, &err), err);
    assert_int_equal(cluster.engine, ENGINE_SSH);
    assert_string_equal(cluster.name, "walker");
    assert_string_equal(cluster.state, "runs/c.cluster");
    assert_int_equal(cluster.options.count, 2);
    assert_string_equal(cluster.options.word[1], "steps=1e4");
    assert_string_equal(cluster.learner.options.word[0], "threads=2");
    assert_true(cluster.keys && !cluster.shared);
    assert_string_equal(cluster.keys_dir, "/k");
    assert_int_equal(cluster.learner.port, 5555);
    assert_int_equal(cluster.actors.count, 7);
    assert_int_equal(cluster.actors.hosts.count, 2);
    assert_int_equal(cluster.shards.count, 2);
    cluster_dir(&cluster, "me@trainer", dir);
    assert_string_equal(dir, "/data/trainer/x");
    assert_null(cluster.ssh.word[2]);
}

static void defaults_follow_from_the_engine(void **state)
{
    struct error err;

    (void)state;
    assert_ok(read_text(HEAD "actors: {count: 3}\n", NULL, &err), err);
    assert_true(cluster.engine == ENGINE_LOCAL && !cluster.keys && cluster.shared);
    assert_string_equal(cluster.dir, "logs/walker");
    assert_int_equal(cluster.shards.count, 1);
    assert_ok(read_text(HEAD "dir: /d\n", "slurm", &err), err);
    assert_true(cluster.engine == ENGINE_SLURM && cluster.keys && cluster.shared);
}

static void mistakes_are_named_with_their_line(void **state)
{
    static const struct {
        const char *text, *engine, *says;
    } cases[] = {
        {HEAD "learnr: {}\n", NULL, "line 3: there is no key 'learnr'; the nearest is 'learner'"},
        {HEAD "actors: {cout: 3}\n", NULL, "line 3: there is no key 'cout' in actors; the nearest is 'count'"},
        {HEAD "actors:\n  count: many\n", NULL, "line 4: count: is a number from 0 to 2048"},
        {HEAD "actors: {count: -1}\n", NULL, "count: is a number"},
        {"name: a\noptions:\n  task: toy\n  seed_stepz: 4\n", NULL, "line 4: unknown option 'seed_stepz'; the nearest is 'seed_steps'"},
        {"name: a\noptions:\n  task: toy\n  work_dir: x\n", NULL, "line 4: work_dir is not for options"},
        {"name: a\noptions:\n  task: toy\n  replay_dir: x\n", NULL, "line 4: replay_dir is not for options: launch gives it to each part; say it by learner: {options:"},
        {HEAD "actors: {options: {replay_dir: x}}\n", NULL, "line 3: replay_dir is not for options"},
        {HEAD "learner: {options: {work_dir: x}}\n", NULL, "line 3: work_dir is not for options"},
        {HEAD "name: b\n", NULL, "line 3: name: stands here a second time"},
        {"options: {task: toy}\n", NULL, "no name:"},
        {"name: a b\noptions: {task: toy}\n", NULL, "holds more than letters"},
        {"name: ../a\noptions: {task: toy}\n", NULL, "holds more than letters"},
        {"name: a\n", NULL, "names no task"},
        {HEAD "engine: sssh\n", NULL, "none of local, ssh, slurm"},
        {HEAD, "kubernetes", "an engine is local, ssh or slurm"},
        {HEAD "dir: /d\n", "ssh", "needs learner: {host:}"},
        {HEAD, "slurm", "needs dir:"},
        {HEAD "dir: /d\nkeys: false\n", "slurm", "without keys everybody"},
        {HEAD "dir: /d\nengine: ssh\nlearner: {host: -oProxyCommand=x}\nactors: {hosts: [b]}\n", NULL, "is not a host"},
        {HEAD "dir: /d\nengine: ssh\nlearner: {host: a}\nactors: {hosts: ['b c']}\n", NULL, "is not a host"},
        {HEAD "dir: /%h\nshared: true\nengine: ssh\nlearner: {host: a}\nactors: {count: 1, hosts: [b]}\n", NULL, "cannot be shared"},
        {HEAD "actors: [1, 2]\n", NULL, "line 3: actors: holds key: value pairs"},
        {HEAD "  - x\n:\n", NULL, "not YAML"},
        {"", NULL, "is empty"},
        {"- a\n", NULL, "holds key: value pairs"},
        {"name: &a [*a]\n", NULL, "name: takes a text"},
    };
    struct error err;

    (void)state;
    for (size_t i = 0; i < TD_LEN(cases); i++) {
        int rc = read_text(cases[i].text, cases[i].engine, &err);

        if (rc != TD_EINVAL || strstr(err.text, cases[i].says) == NULL || strncmp(err.text, "runs/c.yaml", 11) != 0) {
            if (cases[i].engine == NULL || strcmp(cases[i].engine, "kubernetes") != 0)
                fail_msg("case %zu: code %d, said '%s', not '%s'", i, rc, err.text, cases[i].says);
        }
    }
}

/* Whatever a file is cut to, it is taken or refused. */
static void cut_files_do_no_harm(void **state)
{
    static const char text[] = HEAD "engine: ssh\ndir: /d\nkeys: true\nlearner: {host: a, options: {threads: 2}}\n"
                                    "actors: {count: 2, hosts: [b, \"c\"], sbatch: [--mem=1G]}\nshards: {count: 1}\n";
    struct error err;
    int good = 0;

    (void)state;
    for (size_t length = 0; length < sizeof(text); length++) {
        cluster_release(&cluster);
        good += cluster_read(&cluster, text, length, "c.yaml", NULL, &err) == TD_OK;
    }
    assert_true(good > 0 && good < (int)sizeof(text));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(all_that_a_file_says_is_taken, release),
        cmocka_unit_test_teardown(defaults_follow_from_the_engine, release),
        cmocka_unit_test_teardown(mistakes_are_named_with_their_line, release),
        cmocka_unit_test_teardown(cut_files_do_no_harm, release),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
