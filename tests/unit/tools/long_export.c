/*
 * The largest model, 317 million parameters for mt80, there and back: a file of ours to the reference's *.pt, that to
 * ours again, and once more. The two *.pt are the same to the byte; no step takes more memory than the parameters with
 * their targets and a little, and each says how long it took.
 */
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/ckpt/weights.h"
#include "common/model/dims.h"
#include "common/model/task_set.h"
#include "common/util/clock.h"
#include "common/util/fs.h"
#include "tests/support/live.h"
#include "tests/support/test.h"

static uint64_t parameter_bytes;

static const char *place(const char *name)
{
    static char path[4][512];
    static int next;

    next = (next + 1) % 4;
    snprintf(path[next], sizeof(path[next]), "%s/%s", test_folder(), name);
    return path[next];
}

static void write_model(const char *path)
{
    char *words[] = {(char[]){"task=mt80"}, (char[]){"model_size=317"}};
    struct config config;
    struct model_dims dims;
    struct task_set tasks;
    struct error err = {0};
    world_model_t *model;
    int actions[80];

    config_init(&config);
    assert_ok(config_parse(&config, 2, words, NULL, &err), err);
    assert_ok(task_set_init(&tasks, &config, NULL, &err), err);
    assert_ok(model_dims_init_tasks(&dims, &config, &tasks, &err), err);
    assert_ok(world_model_create(&model, &dims, true, &err), err);
    world_model_init(model, 3);
    for (int i = 0; i < 80; i++)
        actions[i] = tasks.task[i].action_dim;
    parameter_bytes = model_all_floats(&model->layout) * sizeof(float);
    assert_true(model->layout.parameters > 300000000);
    assert_ok(weights_write_safetensors(path, &model->layout, model->parameters, actions, NULL, 0, &err), err);
    world_model_destroy(&model);
    task_set_release(&tasks);
}

/* `tdmpc2 checkpoint VERB FROM TO`, in a process of its own. */
static void convert(const char *verb, const char *from, const char *to)
{
    char program[FS_PATH_MAX];
    uint64_t start = clock_ms(), most = parameter_bytes / 1024 * 115 / 100 + 64 * 1024;
    struct rusage usage;
    struct stat file;
    int status;
    pid_t child;

    live_program("tdmpc2", program);
    if ((child = fork()) == 0) {
        execl(program, "tdmpc2", "checkpoint", verb, from, to, (char *)NULL);
        _exit(127);
    }
    assert_int_equal(wait4(child, &status, 0, &usage), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(stat(to, &file), 0);
    print_message("%s to %.2f GB: %.1f s, %.1f s of them computing, %ld MB resident at most; parameters and targets are %.0f MB\n",
                  verb, (double)file.st_size * 1e-9, (double)(clock_ms() - start) * 1e-3,
                  (double)usage.ru_utime.tv_sec + (double)usage.ru_utime.tv_usec * 1e-6, usage.ru_maxrss / 1024,
                  (double)parameter_bytes / (1 << 20));
    if ((uint64_t)usage.ru_maxrss > most)
        fail_msg("%s took %ld KB, not %llu", verb, usage.ru_maxrss, (unsigned long long)most);
}

static void the_largest_model_goes_there_and_back(void **state)
{
    char command[2048];

    (void)state;
    write_model(place("a.safetensors"));
    convert("export", place("a.safetensors"), place("b.pt"));
    convert("import", place("b.pt"), place("c.safetensors"));
    convert("export", place("c.safetensors"), place("d.pt"));
    snprintf(command, sizeof(command), "cmp '%s' '%s'", place("b.pt"), place("d.pt"));
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_largest_model_goes_there_and_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
