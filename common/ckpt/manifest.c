#include "common/ckpt/manifest.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/util/json.h"
#include "common/util/version.h"

#define EXACT_MAX   ((uint64_t)1 << 53)
#define PRINTED_MAX ((uint64_t)999999999999999) /* cJSON prints no more than 15 digits faithfully */

static const struct {
    enum checkpoint_kind kind;
    const char *name;
} kinds[] = {{CHECKPOINT_ASYNC, "async"}, {CHECKPOINT_CUT, "cut"}, {CHECKPOINT_BURST, "burst"}, {CHECKPOINT_FINAL, "final"}};

const char *manifest_kind_name(enum checkpoint_kind kind)
{
    for (size_t i = 0; i < TD_LEN(kinds); i++)
        if (kinds[i].kind == kind)
            return kinds[i].name;
    return "unknown";
}

bool manifest_name_valid(const char *name)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    size_t length = strlen(name);

    return length > 0 && length < MANIFEST_NAME_MAX && name[0] != '.' && name[0] != '-' &&
           strspn(name, allowed) == length;
}

int manifest_init(struct manifest *manifest)
{
    memset(manifest, 0, sizeof(*manifest));
    memcpy(manifest->version, TD_VERSION, sizeof(TD_VERSION));
    manifest->kind = CHECKPOINT_ASYNC;
    config_init(&manifest->config);
    manifest->progress = cJSON_CreateObject();
    manifest->seeds = cJSON_CreateObject();
    if (manifest->progress == NULL || manifest->seeds == NULL) {
        manifest_release(manifest);
        return TD_ENOMEM;
    }
    return TD_OK;
}

void manifest_release(struct manifest *manifest)
{
    cJSON_Delete(manifest->progress);
    cJSON_Delete(manifest->seeds);
    memset(manifest, 0, sizeof(*manifest));
}

/* --- 64-bit numbers --- */

int manifest_put_u64(cJSON *object, const char *key, uint64_t value)
{
    char text[24];
    cJSON *item;

    snprintf(text, sizeof(text), "%" PRIu64, value);
    item = value <= PRINTED_MAX ? cJSON_CreateNumber((double)value) : cJSON_CreateString(text);
    if (item == NULL)
        return TD_ENOMEM;
    cJSON_DeleteItemFromObjectCaseSensitive(object, key);
    if (cJSON_AddItemToObject(object, key, item))
        return TD_OK;
    cJSON_Delete(item);
    return TD_ENOMEM;
}

static bool decimal(const char *text, uint64_t *value)
{
    *value = 0;
    if (*text == '\0')
        return false;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9' || *value > (UINT64_MAX - (uint64_t)(*text - '0')) / 10)
            return false;
        *value = *value * 10 + (uint64_t)(*text - '0');
    }
    return true;
}

int manifest_get_u64(const cJSON *object, const char *key, uint64_t *value, struct error *err)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    double number;

    if (item == NULL)
        return error_set(err, TD_ENOTFOUND, "no \"%s\"", key);
    if (cJSON_IsString(item) && decimal(item->valuestring, value))
        return TD_OK;
    number = cJSON_IsNumber(item) ? item->valuedouble : -1;
    if (!(number >= 0 && number <= (double)EXACT_MAX) || number != floor(number))
        return error_set(err, TD_ECORRUPT, "\"%s\" is not a whole number", key);
    *value = (uint64_t)number;
    return TD_OK;
}

/* --- printing --- */

/* Add item (taken, freed on failure) as key; false when out of memory. */
static bool add(cJSON *object, const char *key, cJSON *item)
{
    if (item != NULL && cJSON_AddItemToObject(object, key, item))
        return true;
    cJSON_Delete(item);
    return false;
}

static cJSON *print_option(const struct config *config, const struct config_option *option)
{
    char text[CONFIG_TEXT_MAX];

    /* numbers and truths are JSON as they would be typed, and so exact */
    config_format(config, option, text, sizeof(text));
    return option->type == CONFIG_TEXT ? cJSON_CreateString(text) : cJSON_CreateRaw(text);
}

static cJSON *print_options(const struct config *config)
{
    int count;
    const struct config_option *options = config_options(&count);
    cJSON *object = cJSON_CreateObject();

    for (int i = 0; i < count && object != NULL; i++) {
        if (!config_is_stored(&options[i]) || add(object, options[i].name, print_option(config, &options[i])))
            continue;
        cJSON_Delete(object);
        object = NULL;
    }
    return object;
}

static cJSON *print_files(const struct manifest *manifest)
{
    cJSON *array = cJSON_CreateArray();

    for (int i = 0; i < manifest->file_count && array != NULL; i++) {
        const struct manifest_file *file = &manifest->files[i];
        cJSON *item = cJSON_CreateObject();

        if (item != NULL && cJSON_AddItemToArray(array, item) && add(item, "name", cJSON_CreateString(file->name)) &&
            manifest_put_u64(item, "bytes", file->bytes) == TD_OK &&
            add(item, "sha256", cJSON_CreateString(file->sha256)))
            continue;
        cJSON_Delete(array);
        array = NULL;
    }
    return array;
}

static bool print_fields(const struct manifest *manifest, cJSON *root)
{
    char run[24];

    snprintf(run, sizeof(run), "%016" PRIx64, manifest->run_id);
    return manifest_put_u64(root, "format", MANIFEST_FORMAT) == TD_OK &&
           add(root, "version", cJSON_CreateString(manifest->version)) &&
           add(root, "kind", cJSON_CreateString(manifest_kind_name(manifest->kind))) &&
           manifest_put_u64(root, "sequence", manifest->sequence) == TD_OK &&
           manifest_put_u64(root, "created_ms", manifest->created_ms) == TD_OK &&
           add(root, "run_id", cJSON_CreateString(run)) &&
           manifest_put_u64(root, "step", manifest->step) == TD_OK &&
           manifest_put_u64(root, "updates", manifest->updates) == TD_OK &&
           add(root, "blas", cJSON_CreateString(manifest->blas)) &&
           add(root, "simd", cJSON_CreateString(manifest->simd)) &&
           add(root, "build", cJSON_CreateString(manifest->build)) &&
           add(root, "libc", cJSON_CreateString(manifest->libc)) &&
           add(root, "machine", cJSON_CreateString(manifest->machine)) &&
           add(root, "progress", cJSON_Duplicate(manifest->progress, true)) &&
           add(root, "seeds", cJSON_Duplicate(manifest->seeds, true)) &&
           add(root, "options", print_options(&manifest->config)) && add(root, "files", print_files(manifest));
}

char *manifest_print(const struct manifest *manifest)
{
    cJSON *root = cJSON_CreateObject();
    char *text = NULL;

    if (root != NULL && print_fields(manifest, root))
        text = cJSON_Print(root);
    cJSON_Delete(root);
    return text;
}

/* --- parsing --- */

struct reader {
    const cJSON *root;
    const char *where;
    struct error *err;
};

static int corrupt(const struct reader *reader, const char *what)
{
    return error_set(reader->err, TD_ECORRUPT, "%s: %s", reader->where, what);
}

static int read_u64(const struct reader *reader, const cJSON *object, const char *key, uint64_t *value)
{
    struct error why;

    if (manifest_get_u64(object, key, value, &why) != TD_OK)
        return corrupt(reader, why.text);
    return TD_OK;
}

static int read_text(const struct reader *reader, const cJSON *object, const char *key, char *out, size_t size)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);

    if (!cJSON_IsString(item) || strlen(item->valuestring) >= size)
        return error_set(reader->err, TD_ECORRUPT, "%s: \"%s\" is not a text of under %zu bytes",
                         reader->where, key, size);
    memcpy(out, item->valuestring, strlen(item->valuestring) + 1);
    return TD_OK;
}

/* Absent: empty. */
static int read_added(const struct reader *reader, const char *key, char *out, size_t size)
{
    out[0] = '\0';
    return cJSON_HasObjectItem(reader->root, key) ? read_text(reader, reader->root, key, out, size) : TD_OK;
}

static int read_head(const struct reader *reader, struct manifest *manifest)
{
    char kind[16], run[24];
    uint64_t format;
    int rc;

    if ((rc = read_u64(reader, reader->root, "format", &format)) != TD_OK)
        return rc;
    if (format != MANIFEST_FORMAT)
        return error_set(reader->err, TD_EFOREIGN,
                         "%s has format %" PRIu64 ", this program knows %d: use the version that wrote it",
                         reader->where, format, MANIFEST_FORMAT);
    if ((rc = read_text(reader, reader->root, "version", manifest->version, sizeof(manifest->version))) != TD_OK ||
        (rc = read_text(reader, reader->root, "kind", kind, sizeof(kind))) != TD_OK ||
        (rc = read_u64(reader, reader->root, "sequence", &manifest->sequence)) != TD_OK ||
        (rc = read_u64(reader, reader->root, "created_ms", &manifest->created_ms)) != TD_OK ||
        (rc = read_text(reader, reader->root, "run_id", run, sizeof(run))) != TD_OK ||
        (rc = read_u64(reader, reader->root, "step", &manifest->step)) != TD_OK ||
        (rc = read_u64(reader, reader->root, "updates", &manifest->updates)) != TD_OK ||
        (rc = read_text(reader, reader->root, "blas", manifest->blas, sizeof(manifest->blas))) != TD_OK ||
        (rc = read_text(reader, reader->root, "simd", manifest->simd, sizeof(manifest->simd))) != TD_OK ||
        (rc = read_added(reader, "build", manifest->build, sizeof(manifest->build))) != TD_OK ||
        (rc = read_added(reader, "libc", manifest->libc, sizeof(manifest->libc))) != TD_OK ||
        (rc = read_added(reader, "machine", manifest->machine, sizeof(manifest->machine))) != TD_OK)
        return rc;
    if (strlen(run) != 16 || strspn(run, "0123456789abcdef") != 16)
        return corrupt(reader, "\"run_id\" is not 16 hexadecimal digits");
    manifest->run_id = strtoull(run, NULL, 16);
    manifest->kind = 0;
    for (size_t i = 0; i < TD_LEN(kinds); i++)
        if (strcmp(kinds[i].name, kind) == 0)
            manifest->kind = kinds[i].kind;
    return manifest->kind != 0 ? TD_OK : corrupt(reader, "\"kind\" is unknown");
}

static int read_open(const struct reader *reader, const char *key, cJSON **out)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(reader->root, key);
    cJSON *copy;

    if (!cJSON_IsObject(item))
        return error_set(reader->err, TD_ECORRUPT, "%s: \"%s\" is not an object", reader->where, key);
    copy = cJSON_Duplicate(item, true);
    if (copy == NULL)
        return error_set(reader->err, TD_ENOMEM, "out of memory reading %s", reader->where);
    cJSON_Delete(*out);
    *out = copy;
    return TD_OK;
}

/* An option goes through the same gate as a word of the command line. */
static int read_option(const struct reader *reader, const cJSON *item, struct config *config)
{
    char word[CONFIG_TEXT_MAX + 128], number[32];
    const char *value;
    struct error why;
    int rc, length;

    if (cJSON_IsString(item)) {
        value = item->valuestring;
    } else if (cJSON_IsBool(item)) {
        value = cJSON_IsTrue(item) ? "true" : "false";
    } else if (cJSON_IsNumber(item)) {
        snprintf(number, sizeof(number), "%.17g", item->valuedouble);
        value = number;
    } else {
        return corrupt(reader, "an option that is neither text, number nor truth");
    }
    length = snprintf(word, sizeof(word), "%s=%s", item->string, value);
    if (strchr(item->string, '=') != NULL || length < 0 || (size_t)length >= sizeof(word))
        return corrupt(reader, "an option with an impossible name or length");
    rc = config_set(config, word, &why);
    if (rc == TD_OK)
        return TD_OK;
    return error_set(reader->err, strncmp(why.text, "unknown", 7) == 0 ? TD_EFOREIGN : TD_ECORRUPT, "%s: %s",
                     reader->where, why.text);
}

static int read_options(const struct reader *reader, struct config *config)
{
    const cJSON *object = cJSON_GetObjectItemCaseSensitive(reader->root, "options"), *item;
    struct error why;

    if (!cJSON_IsObject(object))
        return corrupt(reader, "\"options\" is not an object");
    if (object->child == NULL)
        return corrupt(reader, "\"options\" is empty");
    cJSON_ArrayForEach(item, object)
    {
        int rc = read_option(reader, item, config);

        if (rc != TD_OK)
            return rc;
    }
    return config_check(config, &why) == TD_OK ? TD_OK : corrupt(reader, why.text);
}

static int read_file(const struct reader *reader, const cJSON *item, struct manifest *manifest)
{
    struct manifest_file *file = &manifest->files[manifest->file_count];
    int rc;

    if ((rc = read_text(reader, item, "name", file->name, sizeof(file->name))) != TD_OK ||
        (rc = read_u64(reader, item, "bytes", &file->bytes)) != TD_OK ||
        (rc = read_text(reader, item, "sha256", file->sha256, sizeof(file->sha256))) != TD_OK)
        return rc;
    if (!manifest_name_valid(file->name))
        return corrupt(reader, "a file name that may not be");
    if (strspn(file->sha256, "0123456789abcdef") != FS_SHA256_HEX - 1)
        return corrupt(reader, "a hash that is none");
    for (int i = 0; i < manifest->file_count; i++)
        if (strcmp(manifest->files[i].name, file->name) == 0)
            return corrupt(reader, "a file named twice");
    manifest->file_count++;
    return TD_OK;
}

static int read_files(const struct reader *reader, struct manifest *manifest)
{
    const cJSON *array = cJSON_GetObjectItemCaseSensitive(reader->root, "files"), *item;

    if (!cJSON_IsArray(array) || cJSON_GetArraySize(array) > MANIFEST_FILES_MAX)
        return corrupt(reader, "\"files\" is not an array of a few files");
    if (cJSON_GetArraySize(array) == 0)
        return corrupt(reader, "\"files\" names none");
    cJSON_ArrayForEach(item, array)
    {
        int rc = read_file(reader, item, manifest);

        if (rc != TD_OK)
            return rc;
    }
    return TD_OK;
}

int manifest_parse(struct manifest *manifest, const char *text, size_t length, const char *where,
                   struct error *err)
{
    struct reader reader = {.where = where, .err = err};
    cJSON *root;
    int rc = manifest_init(manifest);

    if (rc != TD_OK)
        return error_set(err, rc, "out of memory reading %s", where);
    rc = json_parse(&root, text, length, false);
    reader.root = root;
    if (rc == TD_ENOMEM)
        error_set(err, rc, "out of memory reading %s", where);
    else if (!cJSON_IsObject(root))
        rc = corrupt(&reader, "not a JSON object");
    if (rc == TD_OK)
        rc = read_head(&reader, manifest);
    if (rc == TD_OK)
        rc = read_open(&reader, "progress", &manifest->progress);
    if (rc == TD_OK)
        rc = read_open(&reader, "seeds", &manifest->seeds);
    if (rc == TD_OK)
        rc = read_options(&reader, &manifest->config);
    if (rc == TD_OK)
        rc = read_files(&reader, manifest);
    cJSON_Delete(root);
    return rc;
}
