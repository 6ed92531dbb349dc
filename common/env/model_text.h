/*
 * model_text.h - a model file (MJCF) read, edited in memory and written back as text.
 *
 * dm_control edits some of its models before compiling them: floors of another size, elements taken
 * out. Edits work on the source's text, for a model saved by MuJoCo has lost digits.
 *
 * Thread:  any.
 * Source:  dm_control 1.0.16, suite/dog.py and suite/quadruped.py, make_model; REFERENCE, section 7b.
 */
#ifndef TD_ENV_MODEL_TEXT_H
#define TD_ENV_MODEL_TEXT_H

#include <stddef.h>

#include "common/util/error.h"

enum model_verb { MODEL_END, MODEL_SET, MODEL_DROP, MODEL_AFTER };

/* One edit of every element of this kind and name; lists end with MODEL_END. */
struct model_edit {
    enum model_verb verb;
    const char *element;   /* "geom" */
    const char *name;      /* its name attribute; NULL: whatever the name */
    const char *attribute; /* MODEL_SET: its new value is `text` */
    const char *text;      /* MODEL_AFTER: elements to insert behind it */
};

/*
 * Read the file at `path` and apply the edits; NULL is an empty list. *text is the caller's, for
 * model_text_free.
 * Returns TD_OK, or TD_ECORRUPT when the file can't be parsed or an edit finds nothing to edit.
 */
int model_text_read(const char *path, const struct model_edit *edits, char **text, size_t *bytes,
                    struct error *err);

/* Sets *text to NULL; accepts NULL there. */
void model_text_free(char **text);

#endif
