/* Options as YAML: reading a flat mapping with libyaml, writing one that reads back the same. */
#include "common/util/config_words.h"

#include <stdlib.h>
#include <string.h>

#include <yaml.h>

#include "common/util/fs.h"

#define FILE_LIMIT (1u << 20)

struct reader {
    yaml_parser_t parser;
    const char *path;
    struct error *err;
};

static int refuse(struct reader *reader, size_t line, const char *why)
{
    return error_set(reader->err, TD_EINVAL, "%s:%zu: %s", reader->path, line + 1, why);
}

/* The next event; the caller deletes it when TD_OK. */
static int next_event(struct reader *reader, yaml_event_t *event)
{
    yaml_parser_t *parser = &reader->parser;
    size_t line = parser->problem_mark.line;

    if (yaml_parser_parse(parser, event))
        return TD_OK;
    line = parser->problem_mark.line;
    return refuse(reader, line, parser->problem != NULL ? parser->problem : "not YAML");
}

static int expect_event(struct reader *reader, yaml_event_type_t type, const char *otherwise)
{
    yaml_event_t event;
    int rc = next_event(reader, &event);

    if (rc != TD_OK)
        return rc;
    if (event.type != type)
        rc = refuse(reader, event.start_mark.line, otherwise);
    yaml_event_delete(&event);
    return rc;
}

static bool is_plain(const yaml_event_t *event)
{
    return event->type == YAML_SCALAR_EVENT && event->data.scalar.anchor == NULL;
}

static const char *scalar(const yaml_event_t *event)
{
    return (const char *)event->data.scalar.value;
}

/* Unset, in YAML's ways and the reference's. */
static bool is_unset(const yaml_event_t *value)
{
    static const char *const nothing[] = {"", "~", "null", "Null", "NULL", "???"};

    if (value->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return false;
    for (size_t i = 0; i < TD_LEN(nothing); i++)
        if (strcmp(scalar(value), nothing[i]) == 0)
            return true;
    return false;
}

/* A text that is never empty: without a value a line about it says nothing that could be meant. */
static bool is_name(int index)
{
    int count;
    const struct config_option *option = &config_options(&count)[index];

    return option->type == CONFIG_TEXT && option->value[0] != '\0';
}

/* One "key: value" whose key has been read. */
static int take_pair(struct reader *reader, const yaml_event_t *key, const yaml_event_t *value,
                     struct config *config, bool *given, bool *seen)
{
    size_t line = key->start_mark.line;
    struct error why;
    int index;

    if (!is_plain(key) || !is_plain(value))
        return refuse(reader, line, "options are plain `key: value` lines");
    index = strlen(scalar(key)) == key->data.scalar.length ? config_find(scalar(key), key->data.scalar.length) : -1;
    if (is_unset(value) && index >= 0 && is_name(index) && strcmp(scalar(value), "???") != 0) {
        snprintf(why.text, sizeof(why.text), "%s is empty", scalar(key));
        return refuse(reader, line, why.text);
    }
    if (is_unset(value) && strlen(scalar(key)) == key->data.scalar.length)
        return TD_OK;
    if (strlen(scalar(key)) != key->data.scalar.length || strlen(scalar(value)) != value->data.scalar.length)
        return refuse(reader, line, "a zero byte");
    if (index < 0) {
        config_unknown(scalar(key), key->data.scalar.length, &why);
        return refuse(reader, line, why.text);
    }
    if (strcmp(scalar(key), "config") == 0)
        return refuse(reader, line, "a file of options cannot name another one");
    if (seen[index])
        return refuse(reader, line, "an option that was given above already");
    seen[index] = true;
    if (config_set_value(config, index, scalar(value), &why) != TD_OK)
        return refuse(reader, line, why.text);
    if (given != NULL)
        given[index] = true;
    return TD_OK;
}

/* The pairs of the mapping up to its end. */
static int read_pairs(struct reader *reader, struct config *config, bool *given)
{
    bool *seen, done = false;
    int count, rc = TD_OK;

    config_options(&count);
    seen = calloc((size_t)count, sizeof(*seen));
    if (seen == NULL)
        return error_set(reader->err, TD_ENOMEM, "out of memory");
    while (rc == TD_OK && !done) {
        yaml_event_t key, value;

        if ((rc = next_event(reader, &key)) != TD_OK)
            break;
        done = key.type == YAML_MAPPING_END_EVENT;
        if (!done && (rc = next_event(reader, &value)) == TD_OK) {
            rc = take_pair(reader, &key, &value, config, given, seen);
            yaml_event_delete(&value);
        }
        yaml_event_delete(&key);
    }
    free(seen);
    return rc;
}

static int read_stream(struct reader *reader, struct config *config, bool *given)
{
    static const char one[] = "a file of options is one mapping of `key: value` lines";
    yaml_event_t event;
    int rc;

    if ((rc = expect_event(reader, YAML_STREAM_START_EVENT, one)) != TD_OK ||
        (rc = next_event(reader, &event)) != TD_OK)
        return rc;
    yaml_event_type_t type = event.type;
    yaml_event_delete(&event);
    if (type == YAML_STREAM_END_EVENT)
        return TD_OK; /* an empty file changes nothing */
    if ((rc = expect_event(reader, YAML_MAPPING_START_EVENT, one)) != TD_OK ||
        (rc = read_pairs(reader, config, given)) != TD_OK ||
        (rc = expect_event(reader, YAML_DOCUMENT_END_EVENT, one)) != TD_OK)
        return rc;
    return expect_event(reader, YAML_STREAM_END_EVENT, one);
}

int config_read(struct config *config, const char *bytes, size_t length, const char *name, bool *given,
                struct error *err)
{
    struct reader reader = {.path = name, .err = err};
    int rc;

    if (!yaml_parser_initialize(&reader.parser))
        return error_set(err, TD_ENOMEM, "out of memory reading %s", name);
    yaml_parser_set_input_string(&reader.parser, (const unsigned char *)(bytes != NULL ? bytes : ""), length);
    rc = read_stream(&reader, config, given);
    yaml_parser_delete(&reader.parser);
    return rc;
}

int config_load(struct config *config, const char *path, bool *given, struct error *err)
{
    size_t length;
    char *bytes;
    int rc = fs_read_file(path, FILE_LIMIT, &bytes, &length, err);

    if (rc != TD_OK)
        return rc;
    rc = config_read(config, bytes, length, path, given, err);
    free(bytes);
    return rc;
}

/* Texts in double quotes: what config_printable lets through needs only these two escapes. */
static void write_text(FILE *out, const char *text)
{
    fputc('"', out);
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\')
            fputc('\\', out);
        fputc(*text, out);
    }
    fputc('"', out);
}

static void write_option(FILE *out, const struct config *config, const struct config_option *option)
{
    char value[CONFIG_TEXT_MAX];

    config_format(config, option, value, sizeof(value));
    fprintf(out, "%s: ", option->name);
    if (option->type == CONFIG_TEXT)
        write_text(out, value);
    else
        fputs(value, out);
    fputc('\n', out);
}

int config_save(const struct config *config, const char *path, struct error *err)
{
    const struct config_option *options;
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    int count, rc;

    if (out == NULL)
        return error_set(err, TD_ENOMEM, "out of memory");
    fputs("# The options of this run; those that name places of one process are not kept.\n", out);
    options = config_options(&count);
    for (int i = 0; i < count; i++)
        if (config_is_stored(&options[i]))
            write_option(out, config, &options[i]);
    if (fclose(out) != 0)
        rc = error_set(err, TD_ENOMEM, "out of memory");
    else
        rc = fs_write_file(path, text, length, err);
    free(text);
    return rc;
}
