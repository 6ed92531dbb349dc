/*
 * env_class.h - what a kind of environment provides; for the files in common/env only.
 *
 * env.c keeps what all kinds share: names, the step counter and time limit, checks of actions and
 * saved states and frames. A kind embeds `struct env` as its first member.
 */
#ifndef TD_ENV_ENV_CLASS_H
#define TD_ENV_ENV_CLASS_H

#include "common/env/env.h"

struct env_class {
    /* Fill the spec for a task of this kind; false when the name is not one. */
    bool (*find)(const char *task, struct env_spec *spec);

    /*
     * Where find leaves obs_dim 0, because only the environment itself knows: ask it for the sizes. May
     * start a process or load a library. NULL where find knows all.
     */
    int (*look)(struct env_spec *spec, struct error *err);

    /* The public tasks of this kind, NULL past the last. */
    const char *(*name)(int index);

    /* Fill in all of *about, zeroed before, but rgb. NULL when there are no public tasks. */
    void (*describe)(const char *task, struct env_about *about);

    /* *out, whose `spec` and `class` env.c fills in afterwards, is freed by close. TD_ELOST as in step. */
    int (*create)(struct env **out, const struct env_spec *spec, uint32_t seed, struct error *err);

    /* As create, without starting what the first reset can start as well. NULL: create is quick enough. */
    int (*create_later)(struct env **out, const struct env_spec *spec, uint32_t seed, struct error *err);

    /* TD_ELOST: this episode is over, another reset may succeed; any other error: none will. */
    int (*reset)(struct env *env, struct error *err);

    /* One agent step; *result is zeroed before. env.c adds the time limit. Errors as reset. */
    int (*step)(struct env *env, const float *action, struct env_result *result, struct error *err);

    /*
     * In the place of reset and step, where the answer comes from elsewhere (none of the four is NULL then):
     * begin asks, for a reset when action is NULL; finish takes the answer, TD_EAGAIN while it is not there;
     * poll and due_ms say what to wait for meanwhile. close may come in between.
     */
    int (*begin)(struct env *env, const float *action, struct error *err);
    int (*finish)(struct env *env, struct env_result *result, struct error *err);
    int (*poll)(const struct env *env, struct pollfd fds[ENV_POLL_MAX]);
    uint64_t (*due_ms)(const struct env *env);

    void (*observe)(struct env *env, void *obs);

    /* The state without env.c's head, 8-byte aligned. set may refuse what it is handed. */
    size_t (*state_size)(const struct env *env);
    void (*state_get)(struct env *env, void *bytes);
    int (*state_set)(struct env *env, const void *bytes, struct error *err);

    /* obs=rgb is offered; find fills in the spec of states, env.c changes it. Needs render. */
    bool rgb;

    /* Of this task? NULL: of all. */
    bool (*rgb_task)(const char *task);

    /* Open what drawing needs, once, at creation (obs=rgb) or before the first render. May be NULL. */
    int (*render_open)(struct env *env, struct error *err);

    /* Draw [height][width][3], rows from the top; NULL where a kind can't be drawn. */
    int (*render)(struct env *env, const struct env_view *view, uint8_t *pixels, struct error *err);

    void (*close)(struct env *env);
};

/* What env_finish is to take. */
enum env_move { ENV_MOVE_NONE = 0, ENV_MOVE_RESET, ENV_MOVE_STEP };

struct env {
    const struct env_class *class;
    struct env_spec spec;
    struct env_options options;
    int64_t steps; /* in this episode, -1 outside of one */
    bool broken;   /* the simulator gave up */
    void *payload; /* [state_size] a saved state on its way in or out, aligned; NULL until its size is known */
    uint8_t *frame; /* [3][64][64] with obs=rgb: the present observation, then the same as drawn */
    bool drawable; /* render_open succeeded */
    enum env_move move;       /* begun */
    struct env_result result; /* of the step that begin did all of */
};

extern const struct env_class bridge_class; /* in Python: bridge.h */
extern const struct env_class dm_class;  /* the DMControl tasks */
extern const struct env_class plugin_class; /* the user's, in a shared library: plugin.h */
extern const struct env_class toy_class; /* for tests of the distributed system */

#endif
