#include "common/ckpt/weights.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY_MAX 128

struct weights {
    char *path;
    pt_t *pt;
    safetensors_t *safetensors;
    const char *prefix;   /* of every name in the file */
    bool old, detached;   /* format of the Q tensors */
};

/* What both kinds of file say of a tensor. */
struct found {
    enum safetensors_type type;
    int dims;
    const uint64_t *shape;
    const struct pt_tensor *pt;
    const struct safetensors_tensor *safetensors;
};

static bool find_key(const weights_t *weights, const char *key, struct found *found)
{
    char name[2 * KEY_MAX];

    *found = (struct found){0};
    snprintf(name, sizeof(name), "%s%s", weights->prefix, key);
    if (weights->pt != NULL && (found->pt = pt_find(weights->pt, name)) != NULL) {
        found->type = found->pt->type;
        found->dims = found->pt->dims;
        found->shape = found->pt->shape;
    } else if (weights->pt == NULL && (found->safetensors = safetensors_find(weights->safetensors, name)) != NULL) {
        found->type = found->safetensors->type;
        found->dims = found->safetensors->dims;
        found->shape = found->safetensors->shape;
    }
    return found->dims > 0 || found->pt != NULL || found->safetensors != NULL;
}

/* "0.ln.bias" behind a prefix of Qs -> 3, its number in the older format. */
static int old_number(const char *rest)
{
    static const char *const fields[] = {"weight", "bias", "ln.weight", "ln.bias"};

    for (int i = 0; i < 4; i++)
        if (rest[0] >= '0' && rest[0] <= '2' && rest[1] == '.' && strcmp(rest + 2, fields[i]) == 0)
            return 4 * (rest[0] - '0') + i;
    return -1;
}

/* Where the file keeps the tensor of this name of ours. */
static bool find(const weights_t *weights, const char *name, struct found *found)
{
    static const char q[] = "_Qs.params.", target[] = "_target_Qs_params.";
    char key[KEY_MAX];
    bool is_q = strncmp(name, q, sizeof(q) - 1) == 0, is_target = strncmp(name, target, sizeof(target) - 1) == 0;
    const char *rest = name + (is_q ? sizeof(q) : sizeof(target)) - 1;

    if (!is_q && !is_target)
        return find_key(weights, name, found);
    if (weights->old)
        snprintf(key, sizeof(key), "%s%d", is_q ? q : "_target_Qs.params.", old_number(rest));
    else
        snprintf(key, sizeof(key), "%s%s", is_target ? target : weights->detached ? "_detach_Qs_params." : q, rest);
    return find_key(weights, key, found);
}

static int read_found(const weights_t *weights, const struct found *found, void *out, struct error *err)
{
    if (found->pt != NULL) {
        int rc = pt_verify(weights->pt, found->pt, err);

        return rc != TD_OK ? rc : pt_read(weights->pt, found->pt, 0, found->pt->elements, out, err);
    }
    return safetensors_read(weights->safetensors, found->safetensors, out, err);
}

int weights_open(weights_t **out, const char *path, struct error *err)
{
    static const char *const prefixes[] = {"", "model/", "param."};
    weights_t *weights = calloc(1, sizeof(*weights));
    struct found found;
    int rc;

    *out = NULL;
    if (weights == NULL || (weights->path = strdup(path)) == NULL) {
        free(weights);
        return error_set(err, TD_ENOMEM, "out of memory reading %s", path);
    }
    rc = pt_looks_like(path) ? pt_open(&weights->pt, path, err) : safetensors_open(&weights->safetensors, path, err);
    if (rc == TD_OK) {
        rc = TD_EINVAL;
        for (size_t i = 0; i < TD_LEN(prefixes) && rc != TD_OK; i++) {
            weights->prefix = prefixes[i];
            if (find_key(weights, "_pi.0.weight", &found))
                rc = TD_OK;
        }
        if (rc != TD_OK)
            error_set(err, rc, "%s holds no TD-MPC2 model: there is no _pi.0.weight in it", path);
    }
    if (rc != TD_OK) {
        weights_close(&weights);
        return rc;
    }
    weights->old = find_key(weights, "_Qs.params.0", &found);
    weights->detached = find_key(weights, "_detach_Qs_params.0.weight", &found);
    *out = weights;
    return TD_OK;
}

void weights_close(weights_t **pointer)
{
    weights_t *weights = *pointer;

    *pointer = NULL;
    if (weights == NULL)
        return;
    pt_close(&weights->pt);
    safetensors_close(&weights->safetensors);
    free(weights->path);
    free(weights);
}

/* --- sizes ----------------------------------------------------------------------- */

/* A tensor's size along one axis, counted from the end; 0 without such a tensor, or when it is absurd. */
static int size_of(const weights_t *weights, const char *name, int from_end)
{
    struct found found;

    if (!find(weights, name, &found) || found.dims < from_end || found.shape[found.dims - from_end] > 1u << 24)
        return 0;
    return (int)found.shape[found.dims - from_end];
}

/* A whole number that files keep as int64 or float32. */
static bool get_number(const weights_t *weights, const char *name, float *out)
{
    struct found found;
    int64_t whole;

    if (!find_key(weights, name, &found) || found.dims != 0)
        return false;
    if (found.type == SAFETENSORS_I64) {
        if (read_found(weights, &found, &whole, NULL) != TD_OK)
            return false;
        *out = (float)whole;
        return true;
    }
    return found.type == SAFETENSORS_F32 && read_found(weights, &found, out, NULL) == TD_OK;
}

int weights_dims(const weights_t *weights, struct model_dims *dims, struct error *err)
{
    char name[KEY_MAX];
    struct error why = {0};
    float low, difference;
    int layers = 0, rc;

    dims->num_tasks = size_of(weights, "_task_emb.weight", 2);
    dims->task_dim = size_of(weights, "_task_emb.weight", 1);
    dims->action_dim = size_of(weights, "_pi.2.weight", 2) / 2;
    dims->mlp_dim = size_of(weights, "_dynamics.0.weight", 2);
    dims->latent_dim = size_of(weights, "_dynamics.2.weight", 2);
    dims->num_bins = size_of(weights, "_reward.2.weight", 2);
    dims->num_q = size_of(weights, "_Qs.params.0.weight", 3);
    dims->episodic = size_of(weights, "_termination.0.weight", 1) > 0;
    dims->rgb = size_of(weights, "_encoder.rgb.2.weight", 4) > 0;
    if (dims->rgb) {
        dims->num_channels = size_of(weights, "_encoder.rgb.2.weight", 4);
        dims->obs_dim = PIXEL_FRAME_BYTES;
        dims->enc_dim = dims->enc_layers = 1; /* of layers that there are not */
    } else {
        do
            snprintf(name, sizeof(name), "_encoder.state.%d.weight", ++layers);
        while (layers < 17 && size_of(weights, name, 2) > 0);
        dims->enc_layers = layers;
        dims->enc_dim = size_of(weights, "_encoder.state.0.weight", 2);
        dims->obs_dim = size_of(weights, "_encoder.state.0.weight", 1) - dims->task_dim;
    }
    if (get_number(weights, "log_std_min", &low) && get_number(weights, "log_std_dif", &difference)) {
        dims->log_std_min = low;
        dims->log_std_max = low + difference;
    }
    if ((rc = model_dims_check(dims, &why)) != TD_OK)
        return error_set(err, rc, "%s holds no TD-MPC2 model that can be read: %s", weights->path, why.text);
    return TD_OK;
}

int weights_model_size(const struct model_dims *dims)
{
    static const int sizes[] = {1, 5, 19, 48, 317};
    static struct config config;
    struct model_dims wanted;

    config_init(&config);
    for (size_t i = 0; i < TD_LEN(sizes); i++) {
        config.model_size = sizes[i];
        if (model_dims_init(&wanted, &config, 1, 1, NULL) == TD_OK && wanted.mlp_dim == dims->mlp_dim &&
            wanted.num_q == dims->num_q &&
            (dims->rgb || (wanted.enc_dim == dims->enc_dim && wanted.enc_layers == dims->enc_layers)) &&
            (dims->rgb || wanted.latent_dim == dims->latent_dim ||
             (sizes[i] == 19 && dims->num_tasks == 30 && dims->latent_dim == 512)))
            return sizes[i];
    }
    return 0;
}

int weights_task_action(const weights_t *weights, int task)
{
    struct found found;
    float *mask;
    int count = 0;

    if (!find_key(weights, "_action_masks", &found) || found.dims != 2 || found.type != SAFETENSORS_F32 ||
        found.shape[0] > TASKS_MAX || found.shape[1] > 4096 || task < 0 || (uint64_t)task >= found.shape[0])
        return 0;
    mask = malloc((size_t)(found.shape[0] * found.shape[1]) * sizeof(float) + 1);
    if (mask != NULL && read_found(weights, &found, mask, NULL) == TD_OK)
        while ((uint64_t)count < found.shape[1] && mask[(uint64_t)task * found.shape[1] + (uint64_t)count] > 0)
            count++;
    free(mask);
    return count;
}

const char *weights_note(const weights_t *weights)
{
    return weights->safetensors != NULL ? safetensors_note(weights->safetensors, "config") : NULL;
}

/* --- reading --------------------------------------------------------------------- */

static void describe(char out[160], int dims, const uint64_t *shape)
{
    size_t at = (size_t)snprintf(out, 160, "[");

    for (int i = 0; i < dims && at < 140; i++)
        at += (size_t)snprintf(out + at, 160 - at, "%s%llu", i > 0 ? ", " : "", (unsigned long long)shape[i]);
    snprintf(out + at, 160 - at, "]");
}

static int read_tensor(const weights_t *weights, const struct model_tensor *tensor, float *to, struct error *err)
{
    char has[160], wants[160];
    struct found found;
    bool same;
    int rc;

    if (!find(weights, tensor->name, &found))
        return error_set(err, TD_EINVAL, "%s has no tensor %s", weights->path, tensor->name);
    same = found.dims == tensor->dims && found.type == SAFETENSORS_F32;
    for (int i = 0; same && i < tensor->dims; i++)
        same = found.shape[i] == tensor->shape[i];
    if (!same) {
        describe(has, found.dims, found.shape);
        describe(wants, tensor->dims, tensor->shape);
        return error_set(err, TD_EINVAL, "%s: tensor %s is %s %s, expected F32 %s", weights->path, tensor->name,
                         safetensors_type_name(found.type), has, wants);
    }
    if ((rc = read_found(weights, &found, to, err)) != TD_OK)
        return rc;
    for (size_t i = 0; i < tensor->count; i++)
        if (!isfinite(to[i]))
            return error_set(err, TD_ECORRUPT, "%s: tensor %s holds values that are not finite", weights->path,
                             tensor->name);
    return TD_OK;
}

int weights_read(const weights_t *weights, const struct model_layout *layout, bool targets, float *parameters,
                 struct error *err)
{
    for (int i = 0; i < layout->tensors; i++) {
        const struct model_tensor *tensor = &layout->tensor[i];
        int rc = TD_OK;

        if (targets || tensor->part != MODEL_TARGET_Q)
            rc = read_tensor(weights, tensor, parameters + tensor->offset, err);
        if (rc != TD_OK)
            return rc;
    }
    return TD_OK;
}
