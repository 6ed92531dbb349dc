/* golden_schedule.c - the recorded schedule: every event of the official trainer, in order. */
#include <cjson/cJSON.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "common/util/fs.h"
#include "learner/schedule.h"
#include "tools/golden.h"

#define FILE_LIMIT ((size_t)64 << 20)

/* One run: what the trace expects next, and an environment with episodes of given lengths. */
struct replay {
    const cJSON *expected; /* the next recorded event, NULL after the last */
    long position;         /* its index */
    bool differs;
    const cJSON *lengths;    /* episode lengths, used in turn by every reset */
    uint64_t resets;         /* of training and evaluation alike */
    uint64_t left;           /* steps left in the open episode */
    uint64_t eval_episodes;
    bool episodic;
    FILE *out;
};

/* Both events as text, the recorded one without spaces as cJSON prints it. */
static void differ(struct replay *replay, const char *ours)
{
    char *text = replay->expected == NULL ? NULL : cJSON_PrintUnformatted(replay->expected);

    fprintf(replay->out, "  event %ld differs: ours %s, recorded %s\n", replay->position, ours,
            text == NULL ? "nothing more" : text);
    cJSON_free(text);
    replay->differs = true;
}

/* Compare one event of ours, given as the JSON text the recording would hold. */
static void __attribute__((format(printf, 2, 3))) emit(struct replay *replay, const char *format, ...)
{
    char text[256];
    va_list arguments;
    cJSON *ours;

    if (replay->differs)
        return;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    ours = cJSON_Parse(text);
    TD_ASSERT(ours != NULL, "%s", text);
    if (replay->expected == NULL || !cJSON_Compare(ours, replay->expected, 1)) {
        differ(replay, text);
    } else {
        replay->expected = replay->expected->next;
        replay->position++;
    }
    cJSON_Delete(ours);
}

static const char *truth(bool value)
{
    return value ? "true" : "false";
}

/* --- stand-ins --------------------------------------------------------------------------------- */

static void env_reset(struct replay *replay)
{
    int count = cJSON_GetArraySize(replay->lengths);

    emit(replay, "[\"reset\"]");
    replay->left = (uint64_t)cJSON_GetArrayItem(replay->lengths, (int)(replay->resets++ % (uint64_t)count))
                       ->valuedouble;
}

static bool env_step(struct replay *replay)
{
    emit(replay, "[\"env_step\"]");
    return --replay->left == 0;
}

static void agent_plan(struct replay *replay, bool first, bool eval)
{
    emit(replay, "[\"plan\",{\"t0\":%s,\"eval\":%s}]", truth(first), truth(eval));
}

static void evaluate(struct replay *replay)
{
    struct evaluation evaluation;
    enum evaluation_kind kind;
    bool first;

    evaluation_init(&evaluation, (uint32_t)replay->eval_episodes);
    while (!replay->differs && (kind = evaluation_next(&evaluation, &first)) != EVALUATION_FINISH) {
        if (kind == EVALUATION_RESET) {
            env_reset(replay);
            evaluation_reset_done(&evaluation);
        } else {
            agent_plan(replay, first, true);
            evaluation_stepped(&evaluation, env_step(replay));
        }
    }
}

static void carry_out(struct replay *replay, const struct schedule_event *event)
{
    unsigned long long step = event->step, episode = event->episode, rows = event->rows;

    switch (event->kind) {
    case SCHEDULE_EVALUATE:
        evaluate(replay);
        break;
    case SCHEDULE_LOG_EVAL:
        emit(replay, "[\"log\",{\"category\":\"eval\",\"step\":%llu,\"episode\":%llu}]", step, episode);
        break;
    case SCHEDULE_LOG_TRAIN:
        emit(replay, "[\"log\",{\"category\":\"train\",\"step\":%llu,\"episode\":%llu}]", step, episode);
        break;
    case SCHEDULE_STORE:
        emit(replay, "[\"store\",{\"episode\":%llu,\"rows\":%llu}]", episode, rows);
        break;
    case SCHEDULE_RESET:
        env_reset(replay);
        break;
    case SCHEDULE_UPDATE:
        emit(replay, "[\"update\",{\"samplable_episodes\":%llu,\"rows\":%llu}]", episode, rows);
        break;
    case SCHEDULE_STEP:
        if (event->random)
            emit(replay, "[\"random_action\"]");
        else
            agent_plan(replay, event->first, false);
        break;
    case SCHEDULE_FINISH:
        emit(replay, "[\"finish\"]");
        break;
    }
}

static int run(struct replay *replay, const struct schedule_config *config, struct error *err)
{
    struct schedule schedule;
    struct schedule_event event;
    int rc;

    schedule_init(&schedule, config);
    while (!replay->differs) {
        schedule_next(&schedule, &event);
        carry_out(replay, &event);
        if (event.kind == SCHEDULE_FINISH)
            break;
        if (event.kind != SCHEDULE_STEP) {
            schedule_done(&schedule);
        } else {
            bool over = env_step(replay);

            if ((rc = schedule_stepped(&schedule, over, over && replay->episodic, err)))
                return rc;
        }
    }
    if (!replay->differs && replay->expected != NULL)
        differ(replay, "the end");
    return TD_OK;
}

/* --- the file ---------------------------------------------------------------------------------- */

static int get_count(const cJSON *config, const char *key, double min, uint64_t *out, struct error *err)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(config, key);

    if (!cJSON_IsNumber(item) || !(item->valuedouble >= min) || item->valuedouble > 1e9 ||
        item->valuedouble != (double)(uint64_t)item->valuedouble)
        return error_set(err, TD_EINVAL, "config.%s is not a whole number of at least %.0f", key, min);
    *out = (uint64_t)item->valuedouble;
    return TD_OK;
}

static int get_lengths(const cJSON *config, const cJSON **out, struct error *err)
{
    const cJSON *lengths = cJSON_GetObjectItemCaseSensitive(config, "episode_lengths"), *item;

    if (!cJSON_IsArray(lengths) || lengths->child == NULL)
        return error_set(err, TD_EINVAL, "config.episode_lengths is not a list of numbers");
    cJSON_ArrayForEach(item, lengths)
    {
        if (!cJSON_IsNumber(item) || !(item->valuedouble >= 1) || item->valuedouble > 1e9)
            return error_set(err, TD_EINVAL, "config.episode_lengths holds something other than lengths");
    }
    *out = lengths;
    return TD_OK;
}

static int replay_trace(const cJSON *trace, int index, FILE *out, struct error *err)
{
    const cJSON *options = cJSON_GetObjectItemCaseSensitive(trace, "config");
    const cJSON *events = cJSON_GetObjectItemCaseSensitive(trace, "events");
    struct schedule_config config = {.eval_first = true};
    struct replay replay = {.out = out};
    int rc;

    if (!cJSON_IsObject(options) || !cJSON_IsArray(events))
        return error_set(err, TD_EINVAL, "it has no config or no events");
    if ((rc = get_count(options, "steps", 0, &config.steps, err)) ||
        (rc = get_count(options, "seed_steps", 0, &config.seed_steps, err)) ||
        (rc = get_count(options, "eval_freq", 1, &config.eval_freq, err)) ||
        (rc = get_count(options, "eval_episodes", 0, &replay.eval_episodes, err)) ||
        (rc = get_lengths(options, &replay.lengths, err)))
        return rc;
    config.episodic = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(options, "episodic"));
    replay.episodic = config.episodic;
    replay.expected = events->child;
    if ((rc = run(&replay, &config, err)))
        return rc;
    fprintf(out, "  trace %d: %ld of %d events as recorded%s\n", index, replay.position,
            cJSON_GetArraySize(events), replay.differs ? "  DIFFERS" : "");
    return replay.differs ? GOLDEN_DIFFERS : TD_OK;
}

int golden_schedule(const char *path, FILE *out, struct error *err)
{
    struct error why = {0};
    char *text = NULL;
    size_t length = 0;
    cJSON *file;
    int rc = fs_read_file(path, FILE_LIMIT, &text, &length, err), worst = TD_OK, index = 0;
    const cJSON *trace;

    if (rc != TD_OK)
        return rc;
    file = cJSON_ParseWithLength(text, length);
    free(text);
    if (!cJSON_IsArray(file) || file->child == NULL) {
        cJSON_Delete(file);
        return error_set(err, TD_ECORRUPT, "%s is not a JSON list of schedule traces", path);
    }
    fprintf(out, "%s\n", path);
    cJSON_ArrayForEach(trace, file)
    {
        rc = replay_trace(trace, index++, out, &why);
        if (rc != TD_OK && rc != GOLDEN_DIFFERS) {
            error_set(err, rc, "%s, trace %d: %s", path, index - 1, why.text);
            worst = rc;
            break;
        }
        if (rc != TD_OK)
            worst = rc;
    }
    cJSON_Delete(file);
    return worst;
}
