#include "learner/digest.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "learner/snapshot.h"

/* One part being added up. */
struct sum {
    EVP_MD_CTX *context;
    uint64_t items;
};

static int sum_init(struct sum *sum, struct error *err)
{
    *sum = (struct sum){.context = EVP_MD_CTX_new()};
    if (sum->context == NULL || EVP_DigestInit_ex(sum->context, EVP_sha256(), NULL) != 1)
        return error_set(err, TD_ENOMEM, "out of memory");
    return TD_OK;
}

static void sum_add(struct sum *sum, const void *bytes, size_t length)
{
    TD_ASSERT(EVP_DigestUpdate(sum->context, bytes, length) == 1, "SHA-256");
}

/* With its NUL: "ab" "c" is not "a" "bc". */
static void sum_text(struct sum *sum, const char *text)
{
    sum_add(sum, text, strlen(text) + 1);
}

static void sum_number(struct sum *sum, uint64_t number)
{
    unsigned char bytes[8];

    for (int i = 0; i < 8; i++)
        bytes[i] = (unsigned char)(number >> 8 * i);
    sum_add(sum, bytes, sizeof(bytes));
}

/* Close it as a part of the digest. */
static void sum_finish(struct sum *sum, struct digest *digest, const char *name)
{
    struct digest_part *part = &digest->part[digest->parts++];
    unsigned char bytes[EVP_MAX_MD_SIZE];

    TD_ASSERT(digest->parts <= DIGEST_PARTS_MAX, "%d parts", digest->parts);
    TD_ASSERT(EVP_DigestFinal_ex(sum->context, bytes, NULL) == 1, "SHA-256");
    snprintf(part->name, sizeof(part->name), "%s", name);
    part->items = sum->items;
    for (int i = 0; i < 32; i++)
        snprintf(part->sha256 + 2 * i, 3, "%02x", bytes[i]);
}

static void sums_release(struct sum *sums, int count)
{
    for (int i = 0; i < count; i++)
        EVP_MD_CTX_free(sums[i].context);
}

static int sums_init(struct sum *sums, int count, struct error *err)
{
    int rc = TD_OK;

    memset(sums, 0, (size_t)count * sizeof(*sums));
    for (int i = 0; i < count && rc == TD_OK; i++)
        rc = sum_init(&sums[i], err);
    return rc;
}

/* --- tensors ----------------------------------------------------------------- */

enum { PARAMETERS, TARGETS, ADAM_M, ADAM_V, ADAM_STEPS, SCALE, LEFTOVER, OTHERS, TENSOR_PARTS };

static const char *const tensor_parts[] = {"parameters", "targets", "adam.m", "adam.v", "adam.steps", "scale",
                                           "leftover", "other tensors"};

static bool begins(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

static int part_of(const char *file, const char *tensor)
{
    if (strcmp(file, SNAPSHOT_PARAMETERS) == 0)
        return begins(tensor, "_target_") ? TARGETS : PARAMETERS;
    if (begins(tensor, "m."))
        return ADAM_M;
    if (begins(tensor, "v."))
        return ADAM_V;
    if (strcmp(tensor, "steps") == 0)
        return ADAM_STEPS;
    if (begins(tensor, "leftover."))
        return LEFTOVER;
    return strcmp(tensor, "scale") == 0 ? SCALE : OTHERS;
}

static int add_tensor(struct sum *sum, const safetensors_t *file, const struct safetensors_tensor *tensor,
                      struct error *err)
{
    void *bytes = malloc(tensor->bytes + 1);
    int rc = bytes != NULL ? safetensors_read(file, tensor, bytes, err) : error_set(err, TD_ENOMEM, "out of memory");

    if (rc == TD_OK) {
        sum_text(sum, tensor->name);
        sum_number(sum, (uint64_t)tensor->type);
        sum_number(sum, (uint64_t)tensor->dims);
        for (int i = 0; i < tensor->dims; i++)
            sum_number(sum, tensor->shape[i]);
        sum_add(sum, bytes, tensor->bytes);
        sum->items++;
    }
    free(bytes);
    return rc;
}

static int add_file(struct sum sums[TENSOR_PARTS], const checkpoint_t *checkpoint, const char *name, struct error *err)
{
    safetensors_t *file;
    int rc = checkpoint_open_tensors(checkpoint, name, &file, err);

    for (int i = 0; rc == TD_OK && i < safetensors_count(file); i++) {
        const struct safetensors_tensor *tensor = safetensors_at(file, i);

        rc = add_tensor(&sums[part_of(name, tensor->name)], file, tensor, err);
    }
    safetensors_close(&file);
    return rc;
}

static int add_tensors(struct digest *digest, const checkpoint_t *checkpoint, struct error *err)
{
    struct sum sums[TENSOR_PARTS];
    int rc = sums_init(sums, TENSOR_PARTS, err);

    if (rc == TD_OK)
        rc = add_file(sums, checkpoint, SNAPSHOT_PARAMETERS, err);
    if (rc == TD_OK)
        rc = add_file(sums, checkpoint, SNAPSHOT_OPTIMIZER, err);
    for (int i = 0; rc == TD_OK && i < TENSOR_PARTS; i++)
        if (i < LEFTOVER || sums[i].items > 0)
            sum_finish(&sums[i], digest, tensor_parts[i]);
    sums_release(sums, TENSOR_PARTS);
    return rc;
}

/* --- what stands beside the tensors -------------------------------------------- */

/* Of struct progress: what two equal runs need not share. */
static bool is_incidental(const char *name)
{
    static const char *const names[] = {"learner_epoch", "store", "store_steps", "kept_window"};

    for (size_t i = 0; i < TD_LEN(names); i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

static int add_counters(struct sum *sum, const struct manifest *manifest, struct error *err)
{
    const cJSON *item;

    sum_number(sum, manifest->step);
    sum_number(sum, manifest->updates);
    cJSON_ArrayForEach(item, manifest->progress) {
        char *value;

        if (is_incidental(item->string))
            continue;
        if ((value = cJSON_PrintUnformatted(item)) == NULL)
            return error_set(err, TD_ENOMEM, "out of memory");
        sum_text(sum, item->string);
        sum_text(sum, value);
        sum->items++;
        cJSON_free(value);
    }
    return TD_OK;
}

/* Random numbers are drawn by key: the seed, and how far the run is. */
static int add_random(struct sum *sum, const struct manifest *manifest, struct error *err)
{
    static const char *const keys[] = {"updates", "step", "episode"};
    char *seeds = cJSON_PrintUnformatted(manifest->seeds);

    if (seeds == NULL)
        return error_set(err, TD_ENOMEM, "out of memory");
    sum_text(sum, seeds);
    cJSON_free(seeds);
    for (size_t i = 0; i < TD_LEN(keys); i++) {
        const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(manifest->progress, keys[i]));

        sum_text(sum, text != NULL ? text : "");
        sum->items++;
    }
    return TD_OK;
}

static void add_options(struct sum *sum, const struct config *config)
{
    char value[CONFIG_TEXT_MAX];
    int count;
    const struct config_option *options = config_options(&count);

    for (int i = 0; i < count; i++) {
        if (options[i].change != CONFIG_FIXED)
            continue;
        sum_text(sum, options[i].name);
        sum_text(sum, config_format(config, &options[i], value, sizeof(value)));
        sum->items++;
    }
}

/* Every file that is no tensors: the environment's state. */
static void add_blobs(struct sum *sum, const checkpoint_t *checkpoint)
{
    const struct manifest *manifest = checkpoint_manifest(checkpoint);

    for (int i = 0; i < manifest->file_count; i++) {
        const struct manifest_file *file = &manifest->files[i];

        if (strcmp(file->name, SNAPSHOT_PARAMETERS) == 0 || strcmp(file->name, SNAPSHOT_OPTIMIZER) == 0)
            continue;
        sum_text(sum, file->name);
        sum_text(sum, file->sha256); /* compared with the bytes when the checkpoint was opened */
        sum->items++;
    }
}

int digest_checkpoint(struct digest *digest, const checkpoint_t *checkpoint, struct error *err)
{
    const struct manifest *manifest = checkpoint_manifest(checkpoint);
    enum { COUNTERS, RANDOM, ENVIRONMENT, OPTIONS, PARTS };
    static const char *const names[] = {"counters", "random numbers", "environment", "options"};
    struct sum sums[PARTS];
    int rc = add_tensors(digest, checkpoint, err);

    if (rc != TD_OK)
        return rc;
    if ((rc = sums_init(sums, PARTS, err)) == TD_OK &&
        (rc = add_counters(&sums[COUNTERS], manifest, err)) == TD_OK &&
        (rc = add_random(&sums[RANDOM], manifest, err)) == TD_OK) {
        add_blobs(&sums[ENVIRONMENT], checkpoint);
        add_options(&sums[OPTIONS], &manifest->config);
        for (int i = 0; i < PARTS; i++)
            sum_finish(&sums[i], digest, names[i]);
    }
    sums_release(sums, PARTS);
    return rc;
}

/* --- replay -------------------------------------------------------------------- */

enum { OBS, ACTION, REWARD, FLAGS, TASK, VERSION, EPISODES, REPLAY_PARTS };

static const char *const replay_parts[] = {"replay.obs",  "replay.action",  "replay.reward",  "replay.flags",
                                           "replay.task", "replay.version", "replay.episodes"};

static void add_row(struct sum sums[REPLAY_PARTS], const struct row_schema *schema, const char *row)
{
    struct row_head head;
    uint32_t reward;

    memcpy(&head, row, sizeof(head));
    memcpy(&reward, &head.reward, sizeof(reward));
    sum_add(&sums[OBS], row + sizeof(head), row_obs_bytes(schema));
    sum_add(&sums[ACTION], row + sizeof(head) + row_obs_bytes(schema), schema->action_dim * sizeof(float));
    sum_number(&sums[REWARD], reward);
    sum_number(&sums[FLAGS], head.flags);
    sum_number(&sums[TASK], head.task);
    sum_number(&sums[VERSION], head.param_version);
    sum_number(&sums[VERSION], head.param_epoch != 0); /* a random action, or a chosen one */
    for (int i = 0; i < EPISODES; i++)
        sums[i].items++;
}

static int add_episode(struct sum sums[REPLAY_PARTS], store_t *store, uint64_t id, struct error *err)
{
    const struct row_schema *schema = &store_identity(store)->schema;
    size_t stride = row_stride(schema);
    struct store_record record;
    int rc = store_record(store, id, &record, err);

    if (rc != TD_OK)
        return rc;
    sum_number(&sums[EPISODES], id);
    sum_number(&sums[EPISODES], (uint64_t)record.slot << 32 | record.env);
    sum_number(&sums[EPISODES], record.rows);
    sum_number(&sums[EPISODES], record.steps);
    sum_number(&sums[EPISODES], record.flags & EPISODE_ABORTED);
    sums[EPISODES].items++;
    for (uint32_t row = 0; row < record.rows;) {
        uint32_t count = record.rows - row;
        const char *bytes = store_rows(store, id, row, &count);

        if (bytes == NULL) {
            store_rows_end(store);
            return error_set(err, TD_ECORRUPT, "episode %" PRIu64 " is damaged", id);
        }
        for (uint32_t i = 0; i < count; i++)
            add_row(sums, schema, bytes + i * stride);
        row += count;
    }
    store_rows_end(store);
    return TD_OK;
}

int digest_replay(struct digest *digest, store_t *store, uint64_t first, uint64_t end, struct error *err)
{
    struct sum sums[REPLAY_PARTS];
    int rc;

    if (end == STORE_NONE)
        end = store_committed(store);
    if (first > end || first < store_counts(store)->first || end > store_committed(store))
        return error_set(err, TD_ENOTFOUND,
                         "episodes %" PRIu64 " to %" PRIu64 " are wanted, %" PRIu64 " to %" PRIu64 " are kept", first,
                         end, store_counts(store)->first, store_committed(store));
    rc = sums_init(sums, REPLAY_PARTS, err);
    for (uint64_t id = first; rc == TD_OK && id < end; id++)
        rc = add_episode(sums, store, id, err);
    for (int i = 0; rc == TD_OK && i < REPLAY_PARTS; i++)
        sum_finish(&sums[i], digest, replay_parts[i]);
    sums_release(sums, REPLAY_PARTS);
    return rc;
}

/* --- comparing ------------------------------------------------------------------- */

const char *digest_difference(const struct digest *one, const struct digest *other)
{
    int both = one->parts < other->parts ? one->parts : other->parts;

    for (int i = 0; i < both; i++)
        if (strcmp(one->part[i].name, other->part[i].name) != 0 || one->part[i].items != other->part[i].items ||
            strcmp(one->part[i].sha256, other->part[i].sha256) != 0)
            return one->part[i].name;
    if (one->parts == other->parts)
        return NULL;
    return one->parts > both ? one->part[both].name : other->part[both].name;
}
