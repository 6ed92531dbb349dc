#include "common/env/model_text.h"

#include <pthread.h>
#include <stdbool.h>
#include <string.h>

#include <libxml/parser.h>
#include <libxml/tree.h>

#define OPTIONS (XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING)

/* --- looking for elements ------------------------------------------------------------------ */

/* The element after `node` in the document's order, NULL at its end. */
static xmlNode *next_element(xmlNode *node)
{
    xmlNode *next = xmlFirstElementChild(node);

    while (next == NULL && node != NULL) {
        next = xmlNextElementSibling(node);
        node = node->parent != NULL && node->parent->type == XML_ELEMENT_NODE ? node->parent : NULL;
    }
    return next;
}

static bool is_meant(xmlNode *node, const struct model_edit *edit)
{
    xmlChar *name;
    bool same;

    if (strcmp((const char *)node->name, edit->element) != 0)
        return false;
    if (edit->name == NULL)
        return true;
    name = xmlGetProp(node, BAD_CAST "name");
    same = name != NULL && strcmp((const char *)name, edit->name) == 0;
    xmlFree(name);
    return same;
}

static xmlNode *find(xmlNode *from, const struct model_edit *edit)
{
    while (from != NULL && !is_meant(from, edit))
        from = next_element(from);
    return from;
}

/* --- editing ------------------------------------------------------------------------------- */

static void drop(xmlNode *node)
{
    xmlUnlinkNode(node);
    xmlFreeNode(node);
}

static bool insert_after(xmlNode *node, const char *text)
{
    xmlNode *list = NULL, *next;

    if (xmlParseInNodeContext(node->parent, text, (int)strlen(text), OPTIONS, &list) != XML_ERR_OK)
        return false;
    for (; list != NULL; list = next) {
        next = list->next;
        list->prev = list->next = list->parent = NULL;
        node = xmlAddNextSibling(node, list);
        if (node == NULL)
            return false;
    }
    return true;
}

/* How many elements an edit changed; -1 when the library could not. */
static int apply(xmlDoc *doc, const struct model_edit *edit)
{
    xmlNode *node = find(xmlDocGetRootElement(doc), edit), *next;
    int count = 0;

    for (; node != NULL; node = next, count++) {
        if (edit->verb == MODEL_DROP) {
            drop(node);
            next = find(xmlDocGetRootElement(doc), edit);
            continue;
        }
        next = find(next_element(node), edit);
        if (edit->verb == MODEL_SET
                ? xmlSetProp(node, BAD_CAST edit->attribute, BAD_CAST edit->text) == NULL
                : !insert_after(node, edit->text))
            return -1;
    }
    return count;
}

static int apply_all(xmlDoc *doc, const struct model_edit *edits, const char *path, struct error *err)
{
    for (; edits != NULL && edits->verb != MODEL_END; edits++) {
        int count = apply(doc, edits);

        if (count < 0)
            return error_set(err, TD_ENOMEM, "%s: editing its %s %s failed", path, edits->element,
                             edits->name != NULL ? edits->name : "elements");
        if (count == 0)
            return error_set(err, TD_ECORRUPT, "%s has no %s%s%s: not the model of dm_control 1.0.16",
                             path, edits->element, edits->name != NULL ? " named " : "",
                             edits->name != NULL ? edits->name : "");
    }
    return TD_OK;
}

/* --- reading ------------------------------------------------------------------------------- */

static void init_library(void)
{
    xmlInitParser();
}

static int unreadable(const char *path, struct error *err)
{
    xmlError *last = xmlGetLastError();
    const char *text = last != NULL && last->message != NULL ? last->message : "not XML";

    return error_set(err, TD_ECORRUPT, "cannot read the model file %s: line %d: %.*s", path,
                     last != NULL ? last->line : 0, (int)strcspn(text, "\n"), text);
}

int model_text_read(const char *path, const struct model_edit *edits, char **text, size_t *bytes,
                    struct error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    xmlChar *dumped = NULL;
    int size = 0, rc;
    xmlDoc *doc;

    *text = NULL;
    *bytes = 0;
    pthread_once(&once, init_library);
    xmlResetLastError();
    if ((doc = xmlReadFile(path, NULL, OPTIONS)) == NULL)
        return unreadable(path, err);
    if ((rc = apply_all(doc, edits, path, err)) == TD_OK) {
        xmlDocDumpMemory(doc, &dumped, &size);
        if (dumped == NULL)
            rc = error_set(err, TD_ENOMEM, "no memory for the text of %s", path);
    }
    xmlFreeDoc(doc);
    *text = (char *)dumped;
    *bytes = (size_t)size;
    return rc;
}

void model_text_free(char **text)
{
    xmlFree(*text);
    *text = NULL;
}
