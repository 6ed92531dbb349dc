#include "tools/cluster.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "common/util/config.h"
#include "common/util/config_words.h"

#define FILE_LIMIT (1u << 20)

static const char *const engines[] = {"local", "ssh", "slurm", NULL};

/* What a key's value becomes. */
enum kind { KIND_TEXT, KIND_NAME, KIND_ENGINE, KIND_INT, KIND_BOOL, KIND_KEYS, KIND_WORDS, KIND_HOST, KIND_OPTIONS, KIND_ROLE };

struct field {
    const char *name;
    enum kind kind;
    size_t offset;
    int min, max;                /* of numbers */
    const struct field *inside;  /* of roles */
};

#define ROLE(name) offsetof(struct cluster_role, name)
#define TOP(name)  offsetof(struct cluster, name)

static const struct field learner_fields[] = {
    {"host", KIND_HOST, ROLE(hosts), 0, 0, NULL},          {"address", KIND_TEXT, ROLE(address), 0, 0, NULL},
    {"port", KIND_INT, ROLE(port), 0, 65535, NULL},        {"options", KIND_OPTIONS, ROLE(options), 0, 0, NULL},
    {"partition", KIND_TEXT, ROLE(partition), 0, 0, NULL}, {"cpus", KIND_INT, ROLE(cpus), 1, 4096, NULL},
    {"time", KIND_TEXT, ROLE(time), 0, 0, NULL},           {"sbatch", KIND_WORDS, ROLE(sbatch), 0, 0, NULL},
    {NULL, KIND_TEXT, 0, 0, 0, NULL}};
static const struct field shards_fields[] = {
    {"count", KIND_INT, ROLE(count), 1, 64, NULL},
    {"hosts", KIND_WORDS, ROLE(hosts), 0, 0, NULL},
    {"options", KIND_OPTIONS, ROLE(options), 0, 0, NULL},
    {NULL, KIND_TEXT, 0, 0, 0, NULL}};
static const struct field actors_fields[] = {
    {"count", KIND_INT, ROLE(count), 0, CLUSTER_ACTORS_MAX, NULL}, {"hosts", KIND_WORDS, ROLE(hosts), 0, 0, NULL},
    {"options", KIND_OPTIONS, ROLE(options), 0, 0, NULL},          {"partition", KIND_TEXT, ROLE(partition), 0, 0, NULL},
    {"cpus", KIND_INT, ROLE(cpus), 1, 4096, NULL},                 {"time", KIND_TEXT, ROLE(time), 0, 0, NULL},
    {"sbatch", KIND_WORDS, ROLE(sbatch), 0, 0, NULL},              {NULL, KIND_TEXT, 0, 0, 0, NULL}};
static const struct field top_fields[] = {
    {"name", KIND_NAME, TOP(name), 0, 0, NULL},
    {"engine", KIND_ENGINE, TOP(engine), 0, 0, NULL},
    {"dir", KIND_TEXT, TOP(dir), 0, 0, NULL},
    {"shared", KIND_BOOL, TOP(shared), 0, 0, NULL},
    {"options", KIND_OPTIONS, TOP(options), 0, 0, NULL},
    {"keys", KIND_KEYS, 0, 0, 0, NULL},
    {"programs", KIND_TEXT, TOP(programs), 0, 0, NULL},
    {"ssh", KIND_WORDS, TOP(ssh), 0, 0, NULL},
    {"learner", KIND_ROLE, TOP(learner), 0, 0, learner_fields},
    {"shards", KIND_ROLE, TOP(shards), 0, 0, shards_fields},
    {"actors", KIND_ROLE, TOP(actors), 0, 0, actors_fields},
    {NULL, KIND_TEXT, 0, 0, 0, NULL}};

/* Options that follow from the rest of the file, and what says them instead. */
static const struct {
    const char *name, *instead;
} placed[] = {{"work_dir", "dir:"},         {"replay_dir", "learner: {options: {replay_dir:}}"},
              {"bind", "learner: {port:}"}, {"advertise", "learner: {address:}"},
              {"learner", "learner: {host:}"}, {"keys", "keys:"},
              {"actors", "actors: {count:}"}, {"shards", "shards: {count:}"}, {"actor", "actors:"},
              {"shard", "shards:"},         {"run_id", NULL},            {"role", NULL},
              {"config", "options:"}};

struct reading {
    struct cluster *cluster;
    yaml_document_t *document;
    const char *path;
    bool keys_said;
    struct error *err;
};

/* --- nodes ---------------------------------------------------------------- */

static int wrong(const struct reading *reading, const yaml_node_t *node, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static int wrong(const struct reading *reading, const yaml_node_t *node, const char *format, ...)
{
    char text[500];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return error_set(reading->err, TD_EINVAL, "%.200s, line %zu: %s", reading->path, node->start_mark.line + 1, text);
}

static const char *scalar(const yaml_node_t *node)
{
    const char *text;

    if (node->type != YAML_SCALAR_NODE)
        return NULL;
    text = (const char *)node->data.scalar.value;
    return strlen(text) == node->data.scalar.length && config_printable(text) ? text : NULL;
}

static int add_word(const struct reading *reading, const yaml_node_t *node, struct cluster_words *words, const char *text)
{
    if (words->count == CLUSTER_HOSTS_MAX)
        return wrong(reading, node, "more than %d entries", CLUSTER_HOSTS_MAX);
    words->word[words->count] = strdup(text);
    if (words->word[words->count] == NULL)
        return error_set(reading->err, TD_ENOMEM, "out of memory");
    words->count++;
    return TD_OK;
}

/* A host goes into a command line: nothing that a program would take for an option of its own. */
static bool is_host(const char *text)
{
    return text[0] != '\0' && text[0] != '-' &&
           strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_@:%[]") == strlen(text);
}

static int take_words(const struct reading *reading, const yaml_node_t *node, const struct field *field,
                      struct cluster_words *words)
{
    bool hosts = field->name[0] == 'h';
    int rc = TD_OK;

    if (node->type != YAML_SEQUENCE_NODE)
        return wrong(reading, node, "%s: is a list, [A, B, ...]", field->name);
    for (yaml_node_item_t *item = node->data.sequence.items.start; rc == TD_OK && item < node->data.sequence.items.top; item++) {
        const yaml_node_t *entry = yaml_document_get_node(reading->document, *item);
        const char *text = scalar(entry);

        if (text == NULL || text[0] == '\0' || (hosts && !is_host(text)))
            return wrong(reading, entry, "%s: '%.60s' is not %s", field->name, text != NULL ? text : "", hosts ? "a host" : "a word");
        rc = add_word(reading, entry, words, text);
    }
    return rc;
}

/* --- options ---------------------------------------------------------------- */

/* The shard beside the learner is its child: it alone can be told where to store. */
static bool may_be_here(const struct reading *reading, const struct cluster_words *words, const char *name)
{
    return words == &reading->cluster->learner.options && strcmp(name, "replay_dir") == 0;
}

static int take_option(const struct reading *reading, const yaml_node_t *key, const yaml_node_t *value,
                       struct cluster_words *words, struct config *config)
{
    const char *name = scalar(key), *text = scalar(value);
    char word[CONFIG_TEXT_MAX + 64];
    struct error err;

    if (name == NULL || text == NULL)
        return wrong(reading, key, "an option is one key: value");
    for (size_t i = 0; i < TD_LEN(placed) && !may_be_here(reading, words, name); i++)
        if (strcmp(name, placed[i].name) == 0)
            return wrong(reading, key, "%s is not for options: launch gives it to each part%s%s", name,
                         placed[i].instead != NULL ? "; say it by " : "", placed[i].instead != NULL ? placed[i].instead : "");
    if (snprintf(word, sizeof(word), "%s=%s", name, text) >= (int)sizeof(word))
        return wrong(reading, value, "the value of %.60s is too long", name);
    if (config_set(config, word, &err) != TD_OK)
        return wrong(reading, key, "%.400s", err.text);
    if (strcmp(name, "insecure") == 0)
        reading->cluster->insecure = config->insecure;
    return add_word(reading, key, words, word);
}

static int take_options(const struct reading *reading, const yaml_node_t *node, struct cluster_words *words)
{
    struct config *config = malloc(sizeof(*config));
    int rc = TD_OK;

    if (config == NULL)
        return error_set(reading->err, TD_ENOMEM, "out of memory");
    config_init(config);
    if (node->type != YAML_MAPPING_NODE)
        rc = wrong(reading, node, "options: holds key: value pairs");
    else
        for (yaml_node_pair_t *pair = node->data.mapping.pairs.start; rc == TD_OK && pair < node->data.mapping.pairs.top; pair++)
            rc = take_option(reading, yaml_document_get_node(reading->document, pair->key),
                             yaml_document_get_node(reading->document, pair->value), words, config);
    free(config);
    return rc;
}

/* --- fields ---------------------------------------------------------------- */

static int take_text(const struct reading *reading, const yaml_node_t *node, const struct field *field, char *out)
{
    const char *text = scalar(node);

    if (text == NULL || text[0] == '\0' || strlen(text) >= CLUSTER_TEXT_MAX)
        return wrong(reading, node, "%s: takes one text of less than %d characters", field->name, CLUSTER_TEXT_MAX);
    strcpy(out, text);
    return TD_OK;
}

/* It becomes part of the names of files and jobs. */
static int take_name(const struct reading *reading, const yaml_node_t *node, char *out)
{
    const char *text = scalar(node);

    if (text == NULL || text[0] == '\0' || strlen(text) >= CLUSTER_NAME_MAX)
        return wrong(reading, node, "name: takes a text of up to %d characters", CLUSTER_NAME_MAX - 1);
    for (const char *at = text; *at != '\0'; at++)
        if (!isalnum((unsigned char)*at) && (at == text || strchr("-_.", *at) == NULL))
            return wrong(reading, node, "name: '%.60s' holds more than letters, digits, - _ and .", text);
    strcpy(out, text);
    return TD_OK;
}

static int take_int(const struct reading *reading, const yaml_node_t *node, const struct field *field, int *out)
{
    const char *text = scalar(node);
    char *end = NULL;
    long value = text != NULL ? strtol(text, &end, 10) : 0;

    if (text == NULL || end == text || *end != '\0' || value < field->min || value > field->max)
        return wrong(reading, node, "%s: is a number from %d to %d", field->name, field->min, field->max);
    *out = (int)value;
    return TD_OK;
}

static bool to_bool(const char *text, bool *out)
{
    *out = strcmp(text, "true") == 0 || strcmp(text, "yes") == 0;
    return *out || strcmp(text, "false") == 0 || strcmp(text, "no") == 0;
}

static int take_engine(const struct reading *reading, const yaml_node_t *node, enum cluster_engine *out)
{
    const char *text = scalar(node);

    for (int i = 0; text != NULL && engines[i] != NULL; i++)
        if (strcmp(text, engines[i]) == 0) {
            *out = (enum cluster_engine)i;
            return TD_OK;
        }
    return wrong(reading, node, "engine: '%.60s' is none of local, ssh, slurm", text != NULL ? text : "");
}

static int take_mapping(struct reading *reading, const yaml_node_t *node, const struct field *fields, const char *where, void *base);

static int take_field(struct reading *reading, const yaml_node_t *node, const struct field *field, void *base)
{
    void *out = (char *)base + field->offset;
    const char *text = scalar(node);

    switch (field->kind) {
    case KIND_TEXT:
        return take_text(reading, node, field, out);
    case KIND_NAME:
        return take_name(reading, node, out);
    case KIND_ENGINE:
        return take_engine(reading, node, out);
    case KIND_INT:
        return take_int(reading, node, field, out);
    case KIND_BOOL:
        return text != NULL && to_bool(text, out) ? TD_OK : wrong(reading, node, "%s: is true or false", field->name);
    case KIND_KEYS:
        reading->keys_said = true;
        if (text != NULL && to_bool(text, &reading->cluster->keys))
            return TD_OK;
        reading->cluster->keys = true;
        return take_text(reading, node, field, reading->cluster->keys_dir);
    case KIND_WORDS:
        return take_words(reading, node, field, out);
    case KIND_HOST:
        if (text == NULL || !is_host(text))
            return wrong(reading, node, "%s: '%.60s' is not a host", field->name, text != NULL ? text : "");
        return add_word(reading, node, out, text);
    case KIND_OPTIONS:
        return take_options(reading, node, out);
    default:
        return take_mapping(reading, node, field->inside, field->name, out);
    }
}

/* A key that is not one of them: the nearest is named. */
static int unknown(const struct reading *reading, const yaml_node_t *key, const struct field *fields, const char *where)
{
    const char *names[16] = {NULL}, *text = scalar(key);

    for (int i = 0; fields[i].name != NULL; i++)
        names[i] = fields[i].name;
    return wrong(reading, key, "there is no key '%.60s'%s%s; the nearest is '%s'", text != NULL ? text : "",
                 where[0] != '\0' ? " in " : "", where, config_nearest_word(text != NULL ? text : "", names));
}

static int take_mapping(struct reading *reading, const yaml_node_t *node, const struct field *fields, const char *where, void *base)
{
    unsigned seen = 0;
    int rc = TD_OK;

    if (node->type != YAML_MAPPING_NODE)
        return wrong(reading, node, "%s%s holds key: value pairs", where[0] != '\0' ? where : "a cluster file", where[0] != '\0' ? ":" : "");
    for (yaml_node_pair_t *pair = node->data.mapping.pairs.start; rc == TD_OK && pair < node->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key = yaml_document_get_node(reading->document, pair->key);
        const char *name = scalar(key);
        int at = 0;

        while (fields[at].name != NULL && (name == NULL || strcmp(name, fields[at].name) != 0))
            at++;
        if (fields[at].name == NULL)
            return unknown(reading, key, fields, where);
        if (seen & 1u << at)
            return wrong(reading, key, "%s: stands here a second time", name);
        seen |= 1u << at;
        rc = take_field(reading, yaml_document_get_node(reading->document, pair->value), &fields[at], base);
    }
    return rc;
}

/* --- the whole -------------------------------------------------------------- */

static bool has_option(const struct cluster_words *words, const char *name)
{
    for (int i = 0; i < words->count; i++)
        if (strncmp(words->word[i], name, strlen(name)) == 0)
            return true;
    return false;
}

/* What the keys say together. */
static int check(struct cluster *cluster, struct error *err)
{
    const char *path = cluster->file;
    bool many = cluster->actors.hosts.count + cluster->shards.hosts.count > 0;

    if (cluster->name[0] == '\0')
        return error_set(err, TD_EINVAL, "%s: no name: (what jobs and files are called by)", path);
    if (!has_option(&cluster->options, "task=") && !has_option(&cluster->options, "tasks="))
        return error_set(err, TD_EINVAL, "%s: options: names no task", path);
    if (cluster->engine == ENGINE_SSH && (cluster->learner.hosts.count == 0 || (cluster->actors.count > 0 && cluster->actors.hosts.count == 0)))
        return error_set(err, TD_EINVAL, "%s: engine ssh needs learner: {host:} and actors: {hosts: [...]}", path);
    if (cluster->engine != ENGINE_LOCAL && !cluster->keys && !cluster->insecure)
        return error_set(err, TD_EINVAL, "%s: without keys everybody on the network could join and read: leave out keys: false, or "
                         "add insecure: true to options", path);
    if (cluster->engine == ENGINE_SSH && cluster->shards.count > 1 && cluster->shards.hosts.count == 0 && many)
        return error_set(err, TD_EINVAL, "%s: shards: needs hosts: [...]", path);
    if (cluster->engine == ENGINE_SLURM && cluster->shards.count > 1)
        return error_set(err, TD_EINVAL, "%s: engine slurm starts the learner's own shard only", path);
    if (cluster->engine != ENGINE_LOCAL && cluster->dir[0] == '\0')
        return error_set(err, TD_EINVAL, "%s: engine %s needs dir: (the run directory on its hosts)", path, engines[cluster->engine]);
    if (cluster->shared && strstr(cluster->dir, "%h") != NULL)
        return error_set(err, TD_EINVAL, "%s: dir: with %%h is another on each host: it cannot be shared", path);
    return TD_OK;
}

static void fill_defaults(struct reading *reading)
{
    struct cluster *cluster = reading->cluster;
    const char *dot = strrchr(cluster->file, '.');

    if (!reading->keys_said)
        cluster->keys = cluster->engine != ENGINE_LOCAL && !cluster->insecure;
    if (cluster->engine != ENGINE_SSH)
        cluster->shared = true;
    if (cluster->shards.count == 0)
        cluster->shards.count = 1;
    snprintf(cluster->state, sizeof(cluster->state), "%.*s.cluster",
             dot != NULL && strchr(dot, '/') == NULL ? (int)(dot - cluster->file) : (int)strlen(cluster->file), cluster->file);
    if (cluster->dir[0] == '\0')
        snprintf(cluster->dir, sizeof(cluster->dir), "logs/%s", cluster->name);
}

static int read_document(struct reading *reading, const char *engine)
{
    struct cluster *cluster = reading->cluster;
    yaml_node_t *root = yaml_document_get_root_node(reading->document);
    int rc;

    if (root == NULL)
        return error_set(reading->err, TD_EINVAL, "%s is empty: a cluster file says name, engine, options, learner, actors", reading->path);
    if ((rc = take_mapping(reading, root, top_fields, "", cluster)) != TD_OK)
        return rc;
    if (engine != NULL) {
        int at = 0;

        while (engines[at] != NULL && strcmp(engines[at], engine) != 0)
            at++;
        if (engines[at] == NULL)
            return error_set(reading->err, TD_EINVAL, "--on %.60s: an engine is local, ssh or slurm", engine);
        cluster->engine = (enum cluster_engine)at;
    }
    if (cluster->engine != ENGINE_LOCAL && cluster->dir[0] == '\0')
        return error_set(reading->err, TD_EINVAL, "%s: engine %s needs dir: (the run directory on its hosts)", reading->path,
                         engines[cluster->engine]);
    fill_defaults(reading);
    return check(cluster, reading->err);
}

int cluster_read(struct cluster *cluster, const char *bytes, size_t length, const char *path, const char *engine,
                 struct error *err)
{
    struct reading reading = {.cluster = cluster, .path = path, .err = err};
    yaml_document_t document;
    yaml_parser_t parser;
    int rc;

    memset(cluster, 0, sizeof(*cluster));
    if (strlen(path) + sizeof(".cluster") > sizeof(cluster->file))
        return error_set(err, TD_EINVAL, "the path %.100s... is too long", path);
    strcpy(cluster->file, path);
    if (!yaml_parser_initialize(&parser))
        return error_set(err, TD_ENOMEM, "out of memory");
    yaml_parser_set_input_string(&parser, (const unsigned char *)bytes, length);
    if (!yaml_parser_load(&parser, &document)) {
        rc = error_set(err, TD_EINVAL, "%s, line %zu: not YAML: %s", path, parser.problem_mark.line + 1,
                       parser.problem != NULL ? parser.problem : "cannot be read");
    } else {
        reading.document = &document;
        rc = read_document(&reading, engine);
        yaml_document_delete(&document);
    }
    yaml_parser_delete(&parser);
    return rc;
}

int cluster_load(struct cluster *cluster, const char *path, const char *engine, struct error *err)
{
    char *bytes = NULL;
    size_t length;
    int rc;

    memset(cluster, 0, sizeof(*cluster));
    if ((rc = fs_read_file(path, FILE_LIMIT, &bytes, &length, err)) != TD_OK)
        return rc;
    rc = cluster_read(cluster, bytes, length, path, engine, err);
    free(bytes);
    return rc;
}

static void release_words(struct cluster_words *words)
{
    for (int i = 0; i < words->count; i++)
        free(words->word[i]);
    memset(words, 0, sizeof(*words));
}

void cluster_release(struct cluster *cluster)
{
    struct cluster_role *roles[] = {&cluster->learner, &cluster->shards, &cluster->actors};

    for (size_t i = 0; i < TD_LEN(roles); i++) {
        release_words(&roles[i]->hosts);
        release_words(&roles[i]->options);
        release_words(&roles[i]->sbatch);
    }
    release_words(&cluster->ssh);
    release_words(&cluster->options);
}

bool cluster_is_file(const char *path)
{
    size_t length = strlen(path);

    return (length > 5 && strcmp(path + length - 5, ".yaml") == 0) || (length > 4 && strcmp(path + length - 4, ".yml") == 0);
}

const char *cluster_host_name(const char *host)
{
    const char *at = strrchr(host, '@');

    return at != NULL ? at + 1 : host;
}

void cluster_dir(const struct cluster *cluster, const char *host, char out[FS_PATH_MAX])
{
    const char *at = cluster->dir;
    size_t used = 0;

    if (strncmp(at, "~/", 2) == 0 && cluster->engine == ENGINE_SSH)
        at += 2; /* commands begin at home */
    while (*at != '\0' && used + 1 < FS_PATH_MAX) {
        if (strncmp(at, "%h", 2) == 0) {
            used += (size_t)snprintf(out + used, FS_PATH_MAX - used, "%s", cluster_host_name(host));
            used = used < FS_PATH_MAX ? used : FS_PATH_MAX - 1;
            at += 2;
        } else {
            out[used++] = *at++;
        }
    }
    out[used] = '\0';
}

const char *cluster_engine_name(enum cluster_engine engine)
{
    return engines[engine];
}
