/*
 * driver.c - runs a fuzz target without libFuzzer, for `make test`: every recorded input (corpus and
 * regressions), then a fixed number of mutations of them, from TD_SEED.
 *
 *   TARGET          as above; prints cmocka's closing lines
 *   TARGET FILE...  these inputs alone
 *
 * An input ends where a page without rights begins, so that reading past it is a fault without any
 * sanitizer. What makes the target fall is written to tests/fuzz/regressions/TARGET/ and named.
 */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/net/process.h"
#include "common/util/fs.h"
#include "common/util/log.h"
#include "common/util/rng.h"
#include "tests/fuzz/targets/target.h"

#define INPUTS_MAX 4096
#define WORDS_MAX  512
#define GROWTH_MAX ((uint64_t)64 << 20)
#define STUCK_S    20

struct bytes {
    uint8_t *data;
    size_t size;
};

static struct bytes inputs[INPUTS_MAX], words[WORDS_MAX];
static uint32_t input_count, word_count;
static const char *target;
static struct rng rng;
static struct {
    uint8_t *end;      /* of every input: the page behind it has no rights */
    size_t room;
    uint8_t *at;       /* the one under way */
    size_t size;
    const char *file;  /* it came from here; NULL: it was made */
} stage;

/* --- what falls ---------------------------------------------------------------- */

static void keep_input(void)
{
    uint64_t hash = 1469598103934665603u;
    char path[256];
    int fd;

    if (stage.file != NULL) {
        dprintf(STDERR_FILENO, "the input was %s\n", stage.file);
        return;
    }
    for (size_t i = 0; i < stage.size; i++)
        hash = (hash ^ stage.at[i]) * 1099511628211u;
    mkdir("tests/fuzz/regressions", 0777);
    snprintf(path, sizeof(path), "tests/fuzz/regressions/%s", target);
    mkdir(path, 0777);
    snprintf(path, sizeof(path), "tests/fuzz/regressions/%s/%016llx", target, (unsigned long long)hash);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (fd < 0 || write(fd, stage.at, stage.size) != (ssize_t)stage.size)
        snprintf(path, sizeof(path), "lost: it could not be written");
    dprintf(STDERR_FILENO, "the input is kept in %s; replay it with: %s %s\n", path, target, path);
}

static void fell(int signum)
{
    signal(signum, SIG_DFL);
    dprintf(STDERR_FILENO, "target %s: %s\n", target,
            signum == SIGALRM ? "no end within 20 s" : strsignal(signum));
    keep_input();
    dprintf(STDERR_FILENO, "[  PASSED  ] 0 test(s).\n[  FAILED  ] 1 test(s), listed below:\n[  FAILED  ] %s\n", target);
    raise(signum);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
static const int signals[] = {SIGABRT, SIGALRM};
#else
static const int signals[] = {SIGABRT, SIGALRM, SIGSEGV, SIGBUS, SIGFPE, SIGILL};
#endif

/* Of the sanitizers: call this before they end the process. */
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

static void watch(void)
{
    static char room[1 << 16]; /* for the handler, should the stack itself be what ran out */
    struct sigaction action = {.sa_handler = fell, .sa_flags = SA_ONSTACK};
    stack_t stack = {.ss_sp = room, .ss_size = sizeof(room)};

    TD_ASSERT(sigaltstack(&stack, NULL) == 0);
    for (size_t i = 0; i < TD_LEN(signals); i++)
        sigaction(signals[i], &action, NULL);
    if (__sanitizer_set_death_callback != NULL)
        __sanitizer_set_death_callback(keep_input);
}

static void make_stage(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), room = (fuzz_largest + page - 1) / page * page;
    uint8_t *base = mmap(NULL, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    TD_ASSERT(base != MAP_FAILED && mprotect(base + room, page, PROT_NONE) == 0);
    stage.end = base + room;
    stage.room = room;
}

static void execute(const uint8_t *data, size_t size, const char *file)
{
    stage.at = stage.end - size;
    stage.size = size;
    stage.file = file;
    memmove(stage.at, data, size);
    LLVMFuzzerTestOneInput(stage.at, size);
}

/* --- what is recorded ---------------------------------------------------------- */

static void take_input(const char *path)
{
    struct error err = {0};
    struct bytes *input = &inputs[input_count];
    char *bytes;

    TD_ASSERT(fs_read_file(path, 64u << 20, &bytes, &input->size, &err) == TD_OK, "%s", err.text);
    input->data = (uint8_t *)bytes;
    if (input->size > stage.room) /* larger than those we make: once, in a place of its own */
        LLVMFuzzerTestOneInput(input->data, input->size);
    else
        execute(input->data, input->size, path);
    if (input->size > 0 && input->size <= fuzz_largest && input_count + 1 < INPUTS_MAX)
        input_count++;
    else
        free(bytes);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int take_folder(const char *kind)
{
    char folder[200], path[500];
    struct dirent **entries;
    int count, taken = 0;

    snprintf(folder, sizeof(folder), "tests/fuzz/%s/%s", kind, target);
    count = scandir(folder, &entries, NULL, by_name);
    for (int i = 0; i < count; i++) {
        if (entries[i]->d_name[0] != '.') {
            snprintf(path, sizeof(path), "%s/%s", folder, entries[i]->d_name);
            take_input(path);
            taken++;
        }
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
    return taken;
}

static int hex(char c)
{
    const char *digits = "0123456789abcdef", *at = c == '\0' ? NULL : strchr(digits, c | 0x20);

    return at == NULL ? 0 : (int)(at - digits);
}

/* A line of libFuzzer's dictionaries: name="bytes", with \\, \" and \xNN. */
static void take_word(const char *line)
{
    const char *at = strchr(line, '"');
    struct bytes *word = &words[word_count];

    if (line[0] == '#' || at == NULL || word_count == WORDS_MAX)
        return;
    word->data = malloc(strlen(at) + 1);
    TD_ASSERT(word->data != NULL);
    for (at++; *at != '\0' && *at != '"'; at++) {
        if (*at == '\\' && at[1] == 'x' && at[2] != '\0' && at[3] != '\0') {
            word->data[word->size++] = (uint8_t)(hex(at[2]) << 4 | hex(at[3]));
            at += 3;
        } else {
            at += *at == '\\' && at[1] != '\0';
            word->data[word->size++] = (uint8_t)*at;
        }
    }
    word_count += word->size > 0;
}

static void take_words(void)
{
    char path[200], line[1000];
    FILE *in;

    snprintf(path, sizeof(path), "tests/fuzz/dictionaries/%s.dict", target);
    in = fopen(path, "r");
    while (in != NULL && fgets(line, sizeof(line), in) != NULL)
        take_word(line);
    if (in != NULL)
        fclose(in);
}

/* --- changing ------------------------------------------------------------------ */

static uint32_t below(size_t limit)
{
    return rng_below(&rng, (uint32_t)limit);
}

/* Replace `drop` bytes at `at` by these. */
static void replace(struct bytes *out, size_t at, size_t drop, const uint8_t *data, size_t size)
{
    if (drop > out->size - at)
        drop = out->size - at;
    if (size > fuzz_largest - (out->size - drop))
        size = fuzz_largest - (out->size - drop);
    memmove(out->data + at + size, out->data + at + drop, out->size - at - drop);
    memcpy(out->data + at, data, size);
    out->size += size - drop;
}

static void change_number(struct bytes *out, size_t at)
{
    static const char *const texts[] = {"0", "-1", "1e999", "4294967296", "18446744073709551615", "9007199254740993",
                                        "0.5", "-0", "1e-400", "2147483648", "65536", "9223372036854775808"};
    static const uint64_t values[] = {0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fffffff, 0x80000000u, 0xffffffffu,
                                      0x7fffffffffffffffu, 0xffffffffffffffffu};
    size_t width = (size_t)1 << below(4), end = at;

    if (out->data[at] >= '0' && out->data[at] <= '9') {
        const char *text = texts[below(TD_LEN(texts))];

        while (end < out->size && end < at + 24 && out->data[end] >= '0' && out->data[end] <= '9')
            end++;
        replace(out, at, end - at, (const uint8_t *)text, strlen(text));
    } else {
        uint64_t value = values[below(TD_LEN(values))] + below(3) - 1;

        replace(out, at, width, (const uint8_t *)&value, width);
    }
}

static void change(struct bytes *out)
{
    size_t at = out->size > 0 ? below(out->size) : 0;
    const struct bytes *other = &inputs[below(input_count)];
    uint8_t byte = (uint8_t)below(256);

    if (out->size == 0) {
        replace(out, 0, 0, other->data, other->size);
        return;
    }
    switch (below(10)) {
    case 0: out->data[at] ^= (uint8_t)(1u << below(8)); break;
    case 1: out->data[at] = byte; break;
    case 2: replace(out, at, 0, &byte, 1); break;
    case 3: replace(out, at, 1 + below(below(4) == 0 ? 64 : 4), &byte, 0); break;
    case 4: change_number(out, at); break;
    case 5: /* a piece of itself, elsewhere */
    {
        size_t from = below(out->size), length = 1 + below(out->size - from < 64 ? out->size - from : 64);
        uint8_t piece[64];

        memcpy(piece, out->data + from, length);
        replace(out, at, below(2) ? length : 0, piece, length);
        break;
    }
    case 6: /* a piece of another */
    {
        size_t from = below(other->size);

        replace(out, at, below(2) ? below(64) : 0, other->data + from, 1 + below(other->size - from));
        break;
    }
    default:
        if (word_count > 0) {
            const struct bytes *word = &words[below(word_count)];

            replace(out, at, below(2) ? word->size : 0, word->data, word->size);
        } else {
            out->data[at]++;
        }
    }
}

static void make_and_execute(void)
{
    static uint8_t *room;
    const struct bytes *from = &inputs[below(input_count)];
    struct bytes out;

    if (room == NULL)
        room = malloc(fuzz_largest + 1);
    TD_ASSERT(room != NULL);
    out = (struct bytes){room, from->size};
    memcpy(room, from->data, from->size);
    for (uint32_t left = 1 + below(below(4) == 0 ? 12 : 4); left > 0; left--)
        change(&out);
    execute(out.data, out.size, NULL);
}

/* --- the run ------------------------------------------------------------------- */

static long executions(void)
{
    long count = fuzz_executions;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    count /= 10;
#endif
    return getenv("TD_LONG") != NULL ? count * 20 : count;
}

static bool grew(uint64_t before)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    (void)before; /* what is freed is kept for a while */
    return false;
#else
    uint64_t after = process_resident_bytes();

    if (after > before + GROWTH_MAX)
        printf("memory grew from %llu to %llu bytes\n", (unsigned long long)before, (unsigned long long)after);
    return after > before + GROWTH_MAX;
#endif
}

int main(int argc, char **argv)
{
    const char *seed = getenv("TD_SEED"), *name = strrchr(argv[0], '/');
    int recorded;
    uint64_t before;
    long count;

    target = name == NULL ? argv[0] : name + 1;
    log_init("fuzz", 0, 0, open("/dev/null", O_WRONLY));
    make_stage();
    watch();
    if (argc > 1) {
        for (int i = 1; i < argc; i++)
            take_input(argv[i]);
        return 0;
    }
    alarm(STUCK_S);
    recorded = take_folder("corpus") + take_folder("regressions");
    TD_ASSERT(input_count > 0, "no corpus: run this from the top of the repository");
    take_words();
    rng_init(&rng, &(struct rng_key){.seed = seed == NULL ? 1 : strtoull(seed, NULL, 10)});
    before = process_resident_bytes();
    count = executions();
    for (long i = 0; i < count; i++) {
        if (i % 64 == 0)
            alarm(STUCK_S);
        make_and_execute();
    }
    alarm(0);
    printf("%s: %d recorded inputs, %ld made of them with %u words\n", target, recorded, count, word_count);
    if (grew(before)) {
        printf("[  PASSED  ] 0 test(s).\n[  FAILED  ] 1 test(s).\n");
        return 1;
    }
    printf("[  PASSED  ] 1 test(s).\n");
    return 0;
}
