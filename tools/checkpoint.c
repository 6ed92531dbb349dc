/* checkpoint.c - `tdmpc2 checkpoint`: what a run, a checkpoint or a safetensors file holds, and its hashes. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/ckpt/checkpoint.h"
#include "common/ckpt/weights.h"
#include "common/net/rundir.h"
#include "learner/digest.h"
#include "tools/checkpoint.h"
#include "tools/commands.h"
#include "tools/console.h"
#include "tools/options.h"

static void usage(FILE *out)
{
    fprintf(out, "usage: tdmpc2 checkpoint show [RUN_DIR|CHECKPOINT_DIR|FILE.safetensors|FILE.pt] [--options]\n"
                 "       tdmpc2 checkpoint import FILE.pt [OUT.safetensors]\n"
                 "       tdmpc2 checkpoint export RUN_DIR|CHECKPOINT_DIR|FILE OUT.pt|OUT.safetensors\n"
                 "       tdmpc2 checkpoint hash [RUN_DIR|CHECKPOINT_DIR]\n\n"
                 "Of a run: its checkpoints. Of a checkpoint: every file is compared with its hash, then counters and\n"
                 "tensors are listed, with --options the options too. Without a name: the run under logs/ that changed\n"
                 "last. import makes a file of ours from the reference's (old and new key formats), export writes one that\n"
                 "its load accepts. hash prints one SHA-256 per part of the state, of a run's newest checkpoint: two lock-step\n"
                 "runs of the same options that end in the same bits print the same lines (`tdmpc2 replay hash`: of the rows).\n");
}

static void print_time(uint64_t created_ms)
{
    time_t seconds = (time_t)(created_ms / 1000);
    struct tm utc;
    char text[32] = "?";

    if (gmtime_r(&seconds, &utc) != NULL)
        strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &utc);
    printf("%s UTC", text);
}

static int show_run(const char *folder, struct error *err)
{
    struct checkpoint_entry *entries;
    char one[32], two[32];
    int count, rc = checkpoint_list(folder, &entries, &count, err);

    if (rc != TD_OK)
        return rc;
    if (count == 0)
        printf("no checkpoint in %s\n", folder);
    else
        printf("%-20s %-6s %14s %14s %9s  %s\n", "name", "kind", "agent steps", "updates", "MB", "written");
    for (int i = 0; i < count; i++) {
        const struct checkpoint_entry *entry = &entries[i];

        if (entry->code != TD_OK) {
            printf("%-20s damaged: %s\n", entry->name, entry->why);
            continue;
        }
        printf("%-20s %-6s %14s %14s %9.1f  ", entry->name, manifest_kind_name(entry->kind),
               console_format_count(one, sizeof(one), (double)entry->step),
               console_format_count(two, sizeof(two), (double)entry->updates), (double)entry->bytes / 1e6);
        print_time(entry->created_ms);
        putchar('\n');
    }
    free(entries);
    return TD_OK;
}

/* Names come from a file: nothing in them may move the cursor. */
static void print_safe(const char *text, int width)
{
    for (; *text != '\0'; text++, width--)
        putchar((unsigned char)*text < ' ' || *text == 127 ? '?' : *text);
    for (; width > 0; width--)
        putchar(' ');
}

static void print_tensor(const struct safetensors_tensor *tensor)
{
    printf("  ");
    print_safe(tensor->name, 48);
    printf(" %-4s [", safetensors_type_name(tensor->type));
    for (int i = 0; i < tensor->dims; i++)
        printf("%s%" PRIu64, i > 0 ? ", " : "", tensor->shape[i]);
    printf("]\n");
}

/* A number, a text, a list: what stands beside tensors. */
static void print_leaf(const struct pt_leaf *leaf)
{
    printf("  ");
    print_safe(leaf->name, 48);
    switch (leaf->kind) {
    case PT_NONE: printf(" None"); break;
    case PT_BOOL: printf(leaf->integer ? " True" : " False"); break;
    case PT_INT: printf(" %" PRId64, leaf->integer); break;
    case PT_REAL: printf(" %g", leaf->real); break;
    case PT_EMPTY: printf(" {}"); break;
    case PT_TEXT:
        putchar(' ');
        print_safe(leaf->text, 0);
        break;
    case PT_INTS:
    case PT_TEXTS:
        for (int i = 0; i < leaf->count; i++)
            if (leaf->kind == PT_INTS) {
                printf("%s%" PRId64, i > 0 ? ", " : " ", leaf->ints[i]);
            } else {
                printf("%s", i > 0 ? ", " : " ");
                print_safe(leaf->texts[i], 0);
            }
        break;
    }
    putchar('\n');
}

static void show_model(const char *path)
{
    struct model_dims dims = {.simnorm_dim = 1, .vmin = -10, .vmax = 10};
    weights_t *weights;

    if (weights_open(&weights, path, NULL) != TD_OK)
        return;
    if (weights_dims(weights, &dims, NULL) == TD_OK)
        checkpoint_describe(&dims);
    weights_close(&weights);
}

static int show_pt(const char *path, struct error *err)
{
    pt_t *file;
    uint64_t elements = 0;
    char text[32];
    int rc = pt_open(&file, path, err);

    if (rc != TD_OK)
        return rc;
    for (int i = 0; i < pt_count(file); i++) {
        const struct pt_tensor *tensor = pt_at(file, i);
        struct safetensors_tensor shown = {.name = tensor->name, .type = tensor->type, .dims = tensor->dims};

        memcpy(shown.shape, tensor->shape, sizeof(shown.shape));
        print_tensor(&shown);
        elements += tensor->elements;
    }
    for (int i = 0; i < pt_leaves(file); i++)
        print_leaf(pt_leaf_at(file, i));
    printf("  %d tensors, %s elements\n", pt_count(file), console_format_count(text, sizeof(text), (double)elements));
    pt_close(&file);
    show_model(path);
    return TD_OK;
}

static int show_file(const char *path, struct error *err)
{
    safetensors_t *file;
    uint64_t elements = 0;
    char text[32];
    int rc = safetensors_open(&file, path, err);

    if (rc != TD_OK)
        return rc;
    for (int i = 0; i < safetensors_notes(file); i++) {
        printf("  ");
        print_safe(safetensors_note_at(file, i)->key, 0);
        printf(": ");
        print_safe(safetensors_note_at(file, i)->value, 0);
        putchar('\n');
    }
    for (int i = 0; i < safetensors_count(file); i++) {
        print_tensor(safetensors_at(file, i));
        elements += safetensors_elements(safetensors_at(file, i));
    }
    printf("  %d tensors, %s elements\n", safetensors_count(file),
           console_format_count(text, sizeof(text), (double)elements));
    safetensors_close(&file);
    return TD_OK;
}

static void show_options(const struct config *config)
{
    int count;
    const struct config_option *options = config_options(&count);
    char value[CONFIG_TEXT_MAX];

    for (int i = 0; i < count; i++)
        if (config_is_stored(&options[i]))
            printf("  %s=%s\n", options[i].name, config_format(config, &options[i], value, sizeof(value)));
}

static int show_files(const char *path, const struct manifest *manifest, struct error *err)
{
    char file[FS_PATH_MAX];
    int rc = TD_OK;

    for (int i = 0; i < manifest->file_count && rc == TD_OK; i++) {
        const char *name = manifest->files[i].name, *end = strrchr(name, '.');

        printf("%s: %" PRIu64 " bytes, hash fits\n", name, manifest->files[i].bytes);
        if (end != NULL && strcmp(end, ".safetensors") == 0 && (rc = fs_join(file, path, name, err)) == TD_OK)
            rc = show_file(file, err);
    }
    return rc;
}

static int show_checkpoint(const char *path, bool options, struct error *err)
{
    const struct manifest *manifest;
    checkpoint_t *checkpoint;
    char one[32], two[32], *progress;
    int rc = checkpoint_open(&checkpoint, path, err);

    if (rc != TD_OK)
        return rc;
    manifest = checkpoint_manifest(checkpoint);
    printf("%s of run %016" PRIx64 ": %s, %s agent steps, %s updates\n", manifest_kind_name(manifest->kind),
           manifest->run_id, config_tasks(&manifest->config), console_format_count(one, sizeof(one), (double)manifest->step),
           console_format_count(two, sizeof(two), (double)manifest->updates));
    printf("written ");
    print_time(manifest->created_ms);
    printf(" by version %s, BLAS core %s, SIMD %s\n", manifest->version, manifest->blas, manifest->simd);
    progress = cJSON_PrintUnformatted(manifest->progress);
    printf("progress: %s\n", progress != NULL ? progress : "");
    cJSON_free(progress);
    rc = show_files(path, manifest, err);
    if (rc == TD_OK && options) {
        printf("options:\n");
        show_options(&manifest->config);
    }
    checkpoint_close(&checkpoint);
    return rc;
}

/* --- hashes --- */

static void say_passed_over(void *context, const char *name, const char *why)
{
    (void)context;
    fprintf(stderr, "%s is passed over: %s\n", name, why);
}

static int open_newest(checkpoint_t **checkpoint, const char *path, struct error *err)
{
    char folder[FS_PATH_MAX];
    int rc;

    if (fs_has(path, "manifest.json"))
        return checkpoint_open(checkpoint, path, err);
    if ((rc = rundir_check(path, err)) != TD_OK || (rc = fs_join(folder, path, "checkpoints", err)) != TD_OK)
        return rc;
    return checkpoint_open_newest(checkpoint, folder, CHECKPOINT_ANY, say_passed_over, NULL, err);
}

static int hash(const char *path, struct error *err)
{
    struct digest digest = {0};
    checkpoint_t *checkpoint = NULL;
    int rc = open_newest(&checkpoint, path, err);

    if (rc == TD_OK)
        rc = digest_checkpoint(&digest, checkpoint, err);
    if (rc == TD_OK)
        fprintf(stderr, "%s\n", checkpoint_path(checkpoint));
    for (int i = 0; rc == TD_OK && i < digest.parts; i++)
        printf("%s  %s\n", digest.part[i].sha256, digest.part[i].name);
    checkpoint_close(&checkpoint);
    return rc;
}

static int show(const char *path, bool options, struct error *err)
{
    char folder[FS_PATH_MAX];
    struct stat info;
    int rc;

    if (stat(path, &info) == 0 && !S_ISDIR(info.st_mode))
        return pt_looks_like(path) ? show_pt(path, err) : show_file(path, err);
    if (fs_has(path, "manifest.json"))
        return show_checkpoint(path, options, err);
    if (stat(path, &info) == 0 && !fs_has(path, "config.yaml"))
        return show_run(path, err);
    if ((rc = rundir_check(path, err)) != TD_OK || (rc = fs_join(folder, path, "checkpoints", err)) != TD_OK)
        return rc;
    return show_run(folder, err);
}

/* import FILE [OUT], export FROM OUT; the import's own name is the file's with another end. */
static int convert(int argc, char **argv, struct error *err)
{
    bool import = strcmp(argv[1], "import") == 0;
    char beside[FS_PATH_MAX];
    const char *end;

    if (argc == 4 && argv[2][0] != '-' && argv[3][0] != '-')
        return checkpoint_convert(argv[2], argv[3], err);
    if (!import || argc != 3 || argv[2][0] == '-')
        return error_set(err, TD_EINVAL, import ? "import takes FILE.pt and, if wanted, OUT.safetensors"
                                                : "export takes what to export and OUT.pt or OUT.safetensors");
    end = strrchr(argv[2], '.');
    if (end == NULL || strchr(end, '/') != NULL)
        end = argv[2] + strlen(argv[2]);
    if (snprintf(beside, sizeof(beside), "%.*s.safetensors", (int)(end - argv[2]), argv[2]) >= (int)sizeof(beside))
        return error_set(err, TD_EINVAL, "the name is too long");
    return checkpoint_convert(argv[2], beside, err);
}

int cmd_checkpoint(int argc, char **argv)
{
    char newest[FS_PATH_MAX];
    const char *path = NULL;
    struct error err = {0};
    bool options = false, hashes;
    int rc = TD_OK;

    if (options_help(argc, argv)) {
        usage(stdout);
        return TD_EXIT_OK;
    }
    if (argc > 1 && (strcmp(argv[1], "import") == 0 || strcmp(argv[1], "export") == 0)) {
        rc = convert(argc, argv, &err);
        if (rc != TD_OK)
            fprintf(stderr, "tdmpc2 checkpoint: %s\n", err.text);
        return rc == TD_OK ? TD_EXIT_OK : error_exit_code(rc);
    }
    if (argc < 2 || (strcmp(argv[1], "show") != 0 && strcmp(argv[1], "hash") != 0)) {
        usage(stderr);
        return TD_EXIT_BAD_INPUT;
    }
    hashes = strcmp(argv[1], "hash") == 0;
    for (int i = 2; i < argc && rc == TD_OK; i++) {
        if (strcmp(argv[i], "--options") == 0 && !hashes)
            options = true;
        else if (argv[i][0] == '-' || path != NULL)
            rc = error_set(&err, TD_EINVAL, "'%s' is one too many: one name%s", argv[i],
                           hashes ? " is all" : " and --options are all");
        else
            path = argv[i];
    }
    if (rc == TD_OK && path == NULL && (rc = rundir_newest("logs", newest, sizeof(newest), &err)) == TD_OK)
        path = newest;
    if (rc == TD_OK)
        rc = hashes ? hash(path, &err) : show(path, options, &err);
    if (rc == TD_OK)
        return TD_EXIT_OK;
    fprintf(stderr, "tdmpc2 checkpoint: %s\n", err.text);
    return error_exit_code(rc);
}
