#include "common/metrics/tensorboard.h"

#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/util/clock.h"
#include "common/util/crc.h"
#include "common/util/fs.h"
#include "tensorboard.pb-c.h"

#define PREFIX    "events.out.tfevents."
#define VERSION   "brain.Event:2"
#define DT_FLOAT  1
#define DT_STRING 7
#define HEAD      12 /* length and its checksum */
#define FOOT      4

struct tensorboard {
    char path[FS_PATH_MAX];
    int fd;
    bool failed;
    char *buffer; /* of a record, grown as needed */
    size_t capacity;
};

/* --- records -------------------------------------------------------------- */

static void put_u32(char *out, uint32_t value)
{
    value = htole32(value);
    memcpy(out, &value, sizeof(value));
}

static int grow(tensorboard_t *tensorboard, size_t size, struct error *err)
{
    char *grown;

    if (size <= tensorboard->capacity)
        return TD_OK;
    grown = realloc(tensorboard->buffer, size);
    if (grown == NULL)
        return error_set(err, TD_ENOMEM, "out of memory for %s", tensorboard->path);
    tensorboard->buffer = grown;
    tensorboard->capacity = size;
    return TD_OK;
}

/* Half a record would hide all that follow: it is taken back, or this is the file's end. */
static int write_record(tensorboard_t *tensorboard, size_t size, struct error *err)
{
    off_t before = lseek(tensorboard->fd, 0, SEEK_END);
    int rc = fs_write_all(tensorboard->fd, tensorboard->buffer, size, tensorboard->path, err);

    if (rc != TD_OK && (before < 0 || ftruncate(tensorboard->fd, before) != 0))
        tensorboard->failed = true;
    return rc;
}

static int put_event(tensorboard_t *tensorboard, Tb__Event *event, struct error *err)
{
    size_t length;
    uint64_t stored;
    int rc;

    if (tensorboard == NULL || tensorboard->failed)
        return TD_OK;
    event->wall_time = (double)clock_wall_ms() / 1000.0;
    length = tb__event__get_packed_size(event);
    if (length > TENSORBOARD_RECORD_MAX)
        return error_set(err, TD_EINVAL, "an event of %zu bytes is too long for %s", length, tensorboard->path);
    if ((rc = grow(tensorboard, HEAD + length + FOOT, err)) != TD_OK)
        return rc;
    stored = htole64((uint64_t)length);
    memcpy(tensorboard->buffer, &stored, sizeof(stored));
    put_u32(tensorboard->buffer + 8, crc32c_mask(crc32c(tensorboard->buffer, 8)));
    tb__event__pack(event, (uint8_t *)tensorboard->buffer + HEAD);
    put_u32(tensorboard->buffer + HEAD + length, crc32c_mask(crc32c(tensorboard->buffer + HEAD, length)));
    return write_record(tensorboard, HEAD + length + FOOT, err);
}

/* --- the file ----------------------------------------------------------------- */

/* TensorBoard reads files in the order of their names: the seconds of the newest one that is there. */
static uint64_t newest_seconds(const char *folder)
{
    uint64_t newest = 0;
    struct dirent *entry;
    DIR *dir = opendir(folder);

    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        uint64_t seconds;

        if (strncmp(entry->d_name, PREFIX, strlen(PREFIX)) != 0)
            continue;
        seconds = strtoull(entry->d_name + strlen(PREFIX), NULL, 10);
        newest = seconds > newest && seconds < 10000000000u ? seconds : newest;
    }
    if (dir != NULL)
        closedir(dir);
    return newest;
}

static int make_file(tensorboard_t *tensorboard, const char *folder, struct error *err)
{
    uint64_t seconds = clock_wall_ms() / 1000, newest = newest_seconds(folder);
    char host[64] = "localhost", name[160];
    int rc;

    gethostname(host, sizeof(host) - 1);
    for (char *c = host; *c != '\0'; c++)
        if (*c == '/')
            *c = '-';
    seconds = seconds > newest ? seconds : newest + 1;
    snprintf(name, sizeof(name), PREFIX "%010" PRIu64 ".%s.%d", seconds, host, (int)getpid());
    if ((rc = fs_join(tensorboard->path, folder, name, err)) != TD_OK)
        return rc;
    tensorboard->fd = open(tensorboard->path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0644);
    if (tensorboard->fd < 0)
        return error_set_errno(err, errno == ENOSPC ? TD_EFULL : TD_EIO, errno, "cannot make %s", tensorboard->path);
    return TD_OK;
}

int tensorboard_open(tensorboard_t **out, const char *folder, struct error *err)
{
    tensorboard_t *tensorboard = calloc(1, sizeof(*tensorboard));
    Tb__Event event = TB__EVENT__INIT;
    char version[] = VERSION;
    int rc;

    *out = NULL;
    if (tensorboard == NULL)
        return error_set(err, TD_ENOMEM, "out of memory");
    tensorboard->fd = -1;
    event.what_case = TB__EVENT__WHAT_FILE_VERSION;
    event.file_version = version;
    if ((rc = make_file(tensorboard, folder, err)) != TD_OK || (rc = put_event(tensorboard, &event, err)) != TD_OK) {
        if (tensorboard->fd >= 0)
            unlink(tensorboard->path);
        tensorboard_close(&tensorboard);
        return rc;
    }
    *out = tensorboard;
    return TD_OK;
}

void tensorboard_close(tensorboard_t **out)
{
    tensorboard_t *tensorboard = *out;

    if (tensorboard == NULL)
        return;
    if (tensorboard->fd >= 0)
        close(tensorboard->fd);
    free(tensorboard->buffer);
    free(tensorboard);
    *out = NULL;
}

const char *tensorboard_path(const tensorboard_t *tensorboard)
{
    return tensorboard->path;
}

/* --- events ------------------------------------------------------------------- */

int tensorboard_purge(tensorboard_t *tensorboard, uint64_t step, struct error *err)
{
    Tb__Event event = TB__EVENT__INIT;
    Tb__SessionLog log = TB__SESSION_LOG__INIT;

    log.status = TB__SESSION_LOG__STATUS__START;
    event.step = (int64_t)step;
    event.what_case = TB__EVENT__WHAT_SESSION_LOG;
    event.session_log = &log;
    return put_event(tensorboard, &event, err);
}

static int put_values(tensorboard_t *tensorboard, uint64_t step, Tb__SummaryValue **values, size_t count, struct error *err)
{
    Tb__Event event = TB__EVENT__INIT;
    Tb__Summary summary = TB__SUMMARY__INIT;

    summary.n_value = count;
    summary.value = values;
    event.step = (int64_t)step;
    event.what_case = TB__EVENT__WHAT_SUMMARY;
    event.summary = &summary;
    return put_event(tensorboard, &event, err);
}

int tensorboard_scalars(tensorboard_t *tensorboard, uint64_t step, const struct tensorboard_scalar *scalars, int count,
                        struct error *err)
{
    Tb__SummaryValue values[TENSORBOARD_TAGS_MAX], *list[TENSORBOARD_TAGS_MAX];
    size_t used = 0;

    TD_ASSERT(count >= 0 && count <= TENSORBOARD_TAGS_MAX, "%d scalars", count);
    for (int i = 0; i < count; i++) {
        if (isnan(scalars[i].value))
            continue;
        tb__summary_value__init(&values[used]);
        values[used].tag = (char *)scalars[i].tag; /* the packer only reads */
        values[used].value_case = TB__SUMMARY_VALUE__VALUE_SIMPLE_VALUE;
        values[used].simple_value = (float)scalars[i].value;
        list[used] = &values[used];
        used++;
    }
    return used == 0 ? TD_OK : put_values(tensorboard, step, list, used, err);
}

/* One value that a plugin shows. */
struct plugin {
    Tb__SummaryValue value, *list[1];
    Tb__Metadata metadata;
    Tb__Metadata__PluginData data;
    Tb__Tensor tensor;
    Tb__TensorShape shape;
    Tb__TensorShape__Dim dim, *dims[1];
    ProtobufCBinaryData text[1];
};

static void plugin_init(struct plugin *plugin, const char *tag, const char *name, int dtype, const char *text)
{
    tb__summary_value__init(&plugin->value);
    tb__metadata__init(&plugin->metadata);
    tb__metadata__plugin_data__init(&plugin->data);
    tb__tensor__init(&plugin->tensor);
    tb__tensor_shape__init(&plugin->shape);
    tb__tensor_shape__dim__init(&plugin->dim);
    plugin->list[0] = &plugin->value;
    plugin->dims[0] = &plugin->dim;
    plugin->value.tag = (char *)tag;
    plugin->value.metadata = &plugin->metadata;
    plugin->metadata.plugin_data = &plugin->data;
    plugin->data.plugin_name = (char *)name;
    plugin->value.value_case = TB__SUMMARY_VALUE__VALUE_TENSOR;
    plugin->value.tensor = &plugin->tensor;
    plugin->tensor.dtype = dtype;
    plugin->tensor.tensor_shape = &plugin->shape;
    plugin->shape.n_dim = 1;
    plugin->shape.dim = plugin->dims;
    plugin->dim.size = text != NULL;
    if (text == NULL)
        return;
    plugin->text[0] = (ProtobufCBinaryData){.len = strlen(text), .data = (uint8_t *)text};
    plugin->tensor.n_string_val = 1;
    plugin->tensor.string_val = plugin->text;
}

int tensorboard_text(tensorboard_t *tensorboard, uint64_t step, const char *tag, const char *text, struct error *err)
{
    char full[128];
    struct plugin plugin;

    snprintf(full, sizeof(full), "%s/text_summary", tag);
    plugin_init(&plugin, full, "text", DT_STRING, text);
    return put_values(tensorboard, step, plugin.list, 1, err);
}

int tensorboard_image(tensorboard_t *tensorboard, uint64_t step, const char *tag, const void *bytes, size_t length,
                      int width, int height, struct error *err)
{
    Tb__SummaryValue value = TB__SUMMARY_VALUE__INIT, *list[1] = {&value};
    Tb__Image image = TB__IMAGE__INIT;

    image.width = width;
    image.height = height;
    image.colorspace = 3;
    image.encoded_image_string = (ProtobufCBinaryData){.len = length, .data = (uint8_t *)bytes};
    value.tag = (char *)tag;
    value.value_case = TB__SUMMARY_VALUE__VALUE_IMAGE;
    value.image = &image;
    return put_values(tensorboard, step, list, 1, err);
}

/* --- hparams ------------------------------------------------------------------ */

static void fill_hparam(Tb__SessionStart__Entry *entry, Tb__HParam *value, const struct tensorboard_hparam *hparam)
{
    tb__session_start__entry__init(entry);
    tb__hparam__init(value);
    entry->key = (char *)hparam->name;
    entry->value = value;
    if (hparam->text != NULL) {
        value->kind_case = TB__HPARAM__KIND_STRING_VALUE;
        value->string_value = (char *)hparam->text;
    } else if (hparam->is_bool) {
        value->kind_case = TB__HPARAM__KIND_BOOL_VALUE;
        value->bool_value = hparam->number != 0;
    } else {
        value->kind_case = TB__HPARAM__KIND_NUMBER_VALUE;
        value->number_value = hparam->number;
    }
}

int tensorboard_hparams(tensorboard_t *tensorboard, const struct tensorboard_hparam *hparams, int count,
                        struct error *err)
{
    Tb__SessionStart__Entry entries[TENSORBOARD_TAGS_MAX], *list[TENSORBOARD_TAGS_MAX];
    Tb__HParam values[TENSORBOARD_TAGS_MAX];
    Tb__SessionStart start = TB__SESSION_START__INIT;
    Tb__HParams message = TB__HPARAMS__INIT;
    struct plugin plugin;
    int rc;

    TD_ASSERT(count >= 0 && count <= TENSORBOARD_TAGS_MAX, "%d hparams", count);
    if (tensorboard == NULL)
        return TD_OK;
    for (int i = 0; i < count; i++) {
        fill_hparam(&entries[i], &values[i], &hparams[i]);
        list[i] = &entries[i];
    }
    start.n_hparams = (size_t)count;
    start.hparams = list;
    start.start_time_secs = (double)clock_wall_ms() / 1000.0;
    message.session_start_info = &start;
    plugin_init(&plugin, "_hparams_/session_start_info", "hparams", DT_FLOAT, NULL);
    plugin.data.content.len = tb__hparams__get_packed_size(&message);
    plugin.data.content.data = malloc(plugin.data.content.len);
    if (plugin.data.content.data == NULL)
        return error_set(err, TD_ENOMEM, "out of memory for %s", tensorboard->path);
    tb__hparams__pack(&message, plugin.data.content.data);
    rc = put_values(tensorboard, 0, plugin.list, 1, err);
    free(plugin.data.content.data);
    return rc;
}
