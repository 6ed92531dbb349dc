/* golden.c - tdmpc2 golden FILE...: replay recorded vectors, print errors, judge them. */
#include "tools/golden.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "common/tensor/gemm.h"
#include "tools/commands.h"
#include "tools/files.h"

#define BACKGROUND 0.04 /* part of what cancels that counts as magnitude */
#define NOISE      5    /* times what rounding was seen to do */

/* --- errors ------------------------------------------------------------------------------------ */

struct golden_quantity *golden_quantity(struct golden_report *report, const char *name,
                                        enum golden_measure measure, double allowed)
{
    struct golden_quantity *quantity = report->quantity;

    for (int i = 0; i < report->count; i++, quantity++)
        if (strcmp(quantity->name, name) == 0)
            return quantity;
    TD_ASSERT(report->count < GOLDEN_QUANTITIES_MAX, "%s", name);
    report->count++;
    *quantity = (struct golden_quantity){.measure = measure, .allowed = allowed};
    snprintf(quantity->name, sizeof(quantity->name), "%s", name);
    return quantity;
}

static double error_of(float ours, float recorded)
{
    if (isfinite(ours) && isfinite(recorded))
        return fabs((double)ours - (double)recorded);
    if ((isnan(ours) && isnan(recorded)) || ours == recorded)
        return 0;
    return INFINITY;
}

void golden_compare(struct golden_report *report, struct golden_quantity *quantity, const float *ours,
                    const float *recorded, size_t count, double background)
{
    double worst = 0, largest = 0, noise, relative, allowed;

    if (report->noise.running < GOLDEN_TRIALS) {
        golden_noise_keep(&report->noise, ours, count);
        return;
    }
    noise = golden_noise_next(&report->noise, ours, count);
    for (size_t i = 0; i < count; i++) {
        double error = error_of(ours[i], recorded[i]);

        worst = fmax(worst, error);
        if (isfinite(recorded[i]))
            largest = fmax(largest, fabs((double)recorded[i]));
        quantity->elements++;
        quantity->outside += quantity->crowd > 0 && error > quantity->crowd;
    }
    /* What is recorded as (nearly) zero is judged absolutely. */
    largest = fmax(largest + BACKGROUND * background, 1e-8);
    relative = worst / largest;
    allowed = quantity->allowed * (quantity->measure == GOLDEN_ABSOLUTE ? 1.0 : largest);
    if (quantity->amplified)
        allowed += NOISE * noise;
    quantity->absolute = fmax(quantity->absolute, worst);
    quantity->relative = fmax(quantity->relative, relative);
    quantity->used = fmax(quantity->used, worst / allowed);
}

static bool within(const struct golden_quantity *quantity)
{
    if (!(quantity->used <= 1) || quantity->elements == 0)
        return false;
    return quantity->crowd == 0 || (double)quantity->outside <= 1e-3 * (double)quantity->elements;
}

int golden_report_print(const struct golden_report *report, FILE *out)
{
    int rc = report->count > 0 ? TD_OK : GOLDEN_DIFFERS;

    fprintf(out, "  %-24s %12s %12s %20s %8s\n", "quantity", "absolute", "relative", "allowed", "used");
    for (int i = 0; i < report->count; i++) {
        const struct golden_quantity *quantity = &report->quantity[i];
        bool good = within(quantity);

        fprintf(out, "  %-24s %12.3g %12.3g %11.3g%s %-8s %6.1f %%%s\n", quantity->name, quantity->absolute,
                quantity->relative, quantity->allowed, quantity->amplified ? "+" : " ",
                quantity->measure == GOLDEN_ABSOLUTE ? "absolute" : "relative", 100 * quantity->used,
                good ? "" : " PAST");
        if (quantity->crowd > 0)
            fprintf(out, "  %-24s %llu of %llu past %.3g absolute, 0.1 %% allowed\n", "",
                    quantity->outside, quantity->elements, quantity->crowd);
        if (!good)
            rc = GOLDEN_DIFFERS;
    }
    return rc;
}

/* --- tensors ----------------------------------------------------------------------------------- */

/* malloc'd room for the tensor of that name: what the file holds, its size has been checked against its length. */
static int read_tensor(const struct golden_case *recorded, void **out, enum safetensors_type type, int dims,
                       const uint64_t *shape, struct error *err, const char *format, va_list arguments)
{
    const struct safetensors_tensor *tensor;
    char name[160];
    int rc;

    vsnprintf(name, sizeof(name), format, arguments);
    tensor = safetensors_find(recorded->file, name);
    *out = malloc(tensor == NULL || tensor->bytes == 0 ? sizeof(float) : (size_t)tensor->bytes);
    if (*out == NULL)
        return error_set(err, TD_ENOMEM, "out of memory reading %s", recorded->path);
    rc = safetensors_get(recorded->file, name, type, dims, shape, *out, err);
    if (rc != TD_OK) {
        free(*out);
        *out = NULL;
    }
    return rc;
}

int golden_floats(const struct golden_case *recorded, float **out, int dims, const uint64_t *shape,
                  struct error *err, const char *format, ...)
{
    va_list arguments;
    void *memory;
    int rc;

    va_start(arguments, format);
    rc = read_tensor(recorded, &memory, SAFETENSORS_F32, dims, shape, err, format, arguments);
    va_end(arguments);
    *out = memory;
    return rc;
}

int golden_bytes(const struct golden_case *recorded, uint8_t **out, int dims, const uint64_t *shape,
                 struct error *err, const char *format, ...)
{
    va_list arguments;
    void *memory;
    int rc;

    va_start(arguments, format);
    rc = read_tensor(recorded, &memory, SAFETENSORS_U8, dims, shape, err, format, arguments);
    va_end(arguments);
    *out = memory;
    return rc;
}

int golden_shifts(const struct golden_case *recorded, float *out, int count, struct error *err,
                  const char *format, ...)
{
    uint64_t shape[4] = {(uint64_t)count, 1, 1, 2};
    char name[160];
    va_list arguments;
    float *recorded_shifts;
    int rc;

    va_start(arguments, format);
    vsnprintf(name, sizeof(name), format, arguments);
    va_end(arguments);
    rc = golden_floats(recorded, &recorded_shifts, 4, shape, err, "%s", name);
    for (int i = 0; rc == TD_OK && i < 2 * count; i++) {
        out[i] = recorded_shifts[i];
        if (!(out[i] >= 0 && out[i] < PIXEL_SHIFTS && out[i] == floorf(out[i])))
            rc = error_set(err, TD_EINVAL, "%s: %s holds more than the shifts 0 to %d", recorded->path, name,
                           PIXEL_SHIFTS - 1);
    }
    free(recorded_shifts);
    return rc;
}

int golden_heads(const struct golden_case *recorded, int two[2], struct error *err, const char *format, ...)
{
    int32_t order[64];
    uint64_t count = (uint64_t)recorded->dims.num_q;
    char name[160];
    va_list arguments;
    int rc;

    va_start(arguments, format);
    vsnprintf(name, sizeof(name), format, arguments);
    va_end(arguments);
    TD_ASSERT(recorded->dims.num_q <= 64, "%d", recorded->dims.num_q);
    rc = safetensors_get(recorded->file, name, SAFETENSORS_I32, 1, &count, order, err);
    if (rc != TD_OK)
        return rc;
    for (int i = 0; i < 2; i++) {
        if (order[i] < 0 || order[i] >= recorded->dims.num_q)
            return error_set(err, TD_EINVAL, "%s: %s is not a permutation of %d heads", recorded->path,
                             name, recorded->dims.num_q);
        two[i] = order[i];
    }
    return TD_OK;
}

/* printf-style names, as read_tensor wants them. */
static int read_whole(const struct golden_case *recorded, void **out, const uint64_t *shape, struct error *err,
                      const char *format, ...) __attribute__((format(printf, 5, 6)));

static int read_whole(const struct golden_case *recorded, void **out, const uint64_t *shape, struct error *err,
                      const char *format, ...)
{
    va_list arguments;
    int rc;

    va_start(arguments, format);
    rc = read_tensor(recorded, out, SAFETENSORS_I32, 1, shape, err, format, arguments);
    va_end(arguments);
    return rc;
}

int golden_tasks(const struct golden_case *recorded, uint32_t *out, int count, struct error *err, const char *name)
{
    uint64_t shape = (uint64_t)count;
    void *memory;
    int rc;

    memset(out, 0, (size_t)count * sizeof(*out));
    if (!recorded->multitask)
        return TD_OK;
    rc = read_whole(recorded, &memory, &shape, err, "%s", name);
    for (int i = 0; rc == TD_OK && i < count; i++) {
        int32_t task = ((const int32_t *)memory)[i];

        if (task < 0 || task >= recorded->tasks.count)
            rc = error_set(err, TD_EINVAL, "%s: %s holds task %d of %d", recorded->path, name, task,
                           recorded->tasks.count);
        else
            out[i] = (uint32_t)task;
    }
    free(memory);
    return rc;
}

/* Shapes first: sizes that the file does not back are never allocated. */
static int check_recorded(const struct golden_case *recorded, struct error *err)
{
    struct model_layout *layout = malloc(sizeof(*layout));
    char name[160];
    int rc = TD_OK;

    if (layout == NULL)
        return error_set(err, TD_ENOMEM, "out of memory");
    model_layout_init(layout, &recorded->dims);
    for (int i = 0; i < layout->tensors && rc == TD_OK; i++) {
        const struct model_tensor *tensor = &layout->tensor[i];
        const struct safetensors_tensor *stored;

        snprintf(name, sizeof(name), "param.%s", tensor->name);
        stored = safetensors_find(recorded->file, name);
        if (stored == NULL)
            rc = error_set(err, TD_ENOTFOUND, "%s has no parameter %s", recorded->path, name);
        else if (safetensors_elements(stored) != tensor->count)
            rc = error_set(err, TD_EINVAL, "%s: parameter %s does not have the size its config implies",
                           recorded->path, name);
    }
    free(layout);
    return rc;
}

static int read_recorded(const struct golden_case *recorded, world_model_t *model, struct error *err)
{
    char name[160];
    int rc = TD_OK;

    for (int i = 0; i < model->layout.tensors && rc == TD_OK; i++) {
        const struct model_tensor *tensor = &model->layout.tensor[i];

        snprintf(name, sizeof(name), "param.%s", tensor->name);
        rc = safetensors_get(recorded->file, name, SAFETENSORS_F32, tensor->dims, tensor->shape,
                             model->parameters + tensor->offset, err);
    }
    return rc;
}

/* A checkpoint's sizes are those of the recording, or it cannot be used for it: named are those that differ. */
static int check_given(const struct golden_case *recorded, struct error *err)
{
    const struct model_dims *dims = &recorded->dims;
    struct model_dims given = *dims;
    int rc = weights_dims(recorded->weights, &given, err);
    const struct {
        const char *name;
        int has, wants;
    } sizes[] = {
        {"obs", given.obs_dim, dims->obs_dim}, {"action", given.action_dim, dims->action_dim},
        {"latent_dim", given.latent_dim, dims->latent_dim}, {"mlp_dim", given.mlp_dim, dims->mlp_dim},
        {"num_q", given.num_q, dims->num_q}, {"tasks", given.num_tasks, dims->num_tasks},
        {"episodic", given.episodic, dims->episodic}, {"rgb", given.rgb, dims->rgb},
    };
    char differ[300] = "";

    for (size_t i = 0; i < TD_LEN(sizes); i++) {
        size_t used = strlen(differ);

        if (sizes[i].has != sizes[i].wants)
            snprintf(differ + used, sizeof(differ) - used, "%s%s %d for %d", used > 0 ? ", " : "", sizes[i].name, sizes[i].has,
                     sizes[i].wants);
    }
    if (rc == TD_OK && differ[0] != '\0')
        rc = error_set(err, TD_EINVAL, "the checkpoint does not have the sizes of %s: %s", recorded->path, differ);
    return rc;
}

int golden_model(const struct golden_case *recorded, const struct golden_report *report, world_model_t **out,
                 struct error *err)
{
    bool given = recorded->weights != NULL;
    int rc = given ? check_given(recorded, err) : check_recorded(recorded, err);

    *out = NULL;
    if (rc != TD_OK || (rc = world_model_create(out, &recorded->dims, true, err)))
        return rc;
    rc = given ? weights_read(recorded->weights, &(*out)->layout, true, (*out)->parameters, err)
               : read_recorded(recorded, *out, err);
    if (rc == TD_OK)
        world_model_set_tasks(*out, &recorded->tasks);
    if (rc != TD_OK)
        world_model_destroy(out);
    else if (report->noise.running < GOLDEN_TRIALS)
        golden_noise_perturb(*out, report->noise.running);
    return rc;
}

/* --- the command ------------------------------------------------------------------------------- */

int golden_file(const char *path, const struct golden_options *options, FILE *out, struct error *err)
{
    struct golden_case recorded;
    struct golden_report *report;
    int rc = golden_open(&recorded, path, options, err);

    if (rc != TD_OK)
        return rc;
    report = calloc(1, sizeof(*report));
    if (report == NULL)
        rc = error_set(err, TD_ENOMEM, "out of memory");
    for (int run = 0; run <= GOLDEN_TRIALS && rc == TD_OK; run++) {
        report->noise.running = run;
        rc = recorded.is_plan ? golden_plan(&recorded, options->threads, report, err)
                              : golden_update(&recorded, options->threads, report, err);
        if (rc == TD_OK && report->noise.failed)
            rc = error_set(err, TD_ENOMEM, "out of memory replaying %s", path);
    }
    golden_close(&recorded);
    if (rc == TD_OK) {
        fprintf(out, "%s\n", path);
        rc = golden_report_print(report, out);
    }
    if (report != NULL)
        golden_noise_release(&report->noise);
    free(report);
    return rc;
}

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), tail = strlen(end);

    return length >= tail && strcmp(text + length - tail, end) == 0;
}

static const char help[] =
    "usage: tdmpc2 golden FILE|DIR... [checkpoint=FILE.pt|FILE.safetensors] [threads=N]\n\n"
    "Replays vectors recorded from the official code (*.update.safetensors, *.plan.safetensors) and\n"
    "schedule traces (*.json) through the code that trains and plans, and prints the largest error of\n"
    "each quantity, and how much of what is allowed it uses; + : what rounding errors are seen to become there\n"
    "is allowed besides. DIR: its *.safetensors and schedule.json. Exit code 0: all within tolerance, 1: some past it, 2: a file cannot be used.\n";

/* Options among the words; files are what is left. Returns how many files, or -1. */
static int parse(int argc, char **argv, struct golden_options *options)
{
    int files = 0;

    *options = (struct golden_options){.threads = 1};
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "checkpoint=", 11) == 0) {
            options->checkpoint = argv[i] + 11;
        } else if (strncmp(argv[i], "threads=", 8) == 0) {
            char *end;
            long threads = strtol(argv[i] + 8, &end, 10);

            if (*end != '\0' || end == argv[i] + 8 || threads < 1 || threads > POOL_THREADS_MAX) {
                fprintf(stderr, "tdmpc2 golden: %s: give 1 to %d threads\n", argv[i], POOL_THREADS_MAX);
                return -1;
            }
            options->threads = (int)threads;
        } else {
            argv[1 + files++] = argv[i];
        }
    }
    return files;
}

int cmd_golden(int argc, char **argv)
{
    static const char *const ends[] = {".safetensors", "schedule.json", NULL};
    struct golden_options options;
    struct error err = {0};
    char **paths = NULL;
    int files, code = TD_EXIT_OK;

    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        fputs(help, stdout);
        return TD_EXIT_OK;
    }
    files = parse(argc, argv, &options);
    if (files == 0)
        fputs(help, stderr);
    if (files <= 0)
        return TD_EXIT_BAD_INPUT;
    if (files_expand(argv + 1, files, ends, &paths, &files, &err) != TD_OK ||
        gemm_start(options.threads, &err) != TD_OK) {
        files_free(paths);
        fprintf(stderr, "tdmpc2 golden: %s\n", err.text);
        return TD_EXIT_BAD_INPUT;
    }
    for (int i = 0; i < files; i++) {
        int rc = ends_with(paths[i], ".json") ? golden_schedule(paths[i], stdout, &err)
                                              : golden_file(paths[i], &options, stdout, &err);

        fflush(stdout);
        if (rc == GOLDEN_DIFFERS) {
            fprintf(stderr, "tdmpc2 golden: %s: past the tolerance\n", paths[i]);
            code = code == TD_EXIT_OK ? 1 : code;
        } else if (rc != TD_OK) {
            fprintf(stderr, "tdmpc2 golden: %s\n", err.text);
            code = TD_EXIT_BAD_INPUT;
        }
    }
    files_free(paths);
    if (code == TD_EXIT_OK)
        printf("all within tolerance\n");
    return code;
}
