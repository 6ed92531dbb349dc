#include <stdlib.h>
#include <string.h>

#include "common/util/clock.h"
#include "common/util/log.h"
#include "learner/learner_private.h"

/* --- commands of the coordinator ---------------------------------------------- */

static void send_message(learner_t *learner, const struct coordinator_output *output)
{
    post_send(learner->post, &output->peer, &output->message);
    if (output->message.kind == MESSAGE_CHUNK)
        metrics_add(learner->metrics, METRIC_parameter_bytes, output->message.bulk[0].size);
    if (output->message.kind == MESSAGE_SAMPLE_REQUEST && output->message.sample_request.count > 0)
        learner->status.requested_ns = clock_ns();
}

static void connect_peer(learner_t *learner, const struct coordinator_output *output)
{
    struct error err = {0};

    if (post_connect(learner->post, &output->peer, output->address, &err) != TD_OK)
        log_error("a part's address cannot be used", "why=\"%s\"", err.text);
}

static void build_model(learner_t *learner, const struct message_spec *spec)
{
    struct compute_job job = {.kind = COMPUTE_MODEL};

    job.model.spec = *spec;
    job.model.checkpoint = learner->checkpoint;
    job.model.finetune = learner->finetune;
    learner->checkpoint = NULL;
    learner->finetune = NULL;
    compute_push(learner->compute, &job);
}

static void keep_slices(learner_t *learner, const struct command_slices *slices)
{
    struct compute_part *part = &learner->batches[slices->buffer].part[slices->part];
    channel_blob_t **blob = &learner->blobs[slices->buffer][slices->part];

    channel_blob_release(blob);
    *blob = post_take(learner->post, 0);
    if (*blob == NULL) {
        learner_exit(learner, TD_EXIT_GAVE_UP, "out of memory for a batch");
        return;
    }
    *part = (struct compute_part){channel_blob_bytes(*blob), channel_blob_length(*blob), slices->count};
    metrics_add(learner->metrics, METRIC_slices, slices->count);
    if (learner->status.requested_ns != 0)
        metrics_record(learner->metrics, METRIC_sample_ms,
                       (double)(clock_ns() - learner->status.requested_ns) * 1e-6);
    learner->status.requested_ns = 0;
}

/* Cores less the local actors that are computing, at least one; threads=N is N. */
static int threads_for(const learner_t *learner, uint32_t computing)
{
    int free = learner->cores - (int)computing;

    if (learner->run.config.threads > 0)
        return learner->threads;
    return free < 1 ? 1 : free;
}

static void start_update(learner_t *learner, const struct command_update *command)
{
    struct compute_job job = {.kind = COMPUTE_UPDATE};

    job.update.update = command->update;
    job.update.batch = &learner->batches[command->buffer];
    job.update.parts = command->parts;
    job.update.active = threads_for(learner, command->computing);
    metrics_set(learner->metrics, METRIC_threads, job.update.active);
    compute_push(learner->compute, &job);
}

/* Only the learner that the run directory names may publish. */
static void publish(learner_t *learner, const struct command_publish *command)
{
    struct compute_job job = {.kind = COMPUTE_PUBLISH};
    struct error err = {0};
    int rc = run_check_epoch(&learner->run, &err);

    if (rc != TD_OK) {
        learner_exit(learner, error_exit_code(rc), err.text);
        return;
    }
    job.publish.room = command->room;
    job.publish.version = command->version;
    compute_push(learner->compute, &job);
}

static void save(learner_t *learner, const struct command_save *command)
{
    struct compute_job job = {.kind = COMPUTE_SAVE};
    struct coordinator_view view;
    uint64_t steps = command->progress->step;

    if (!command->progress->lockstep) {
        coordinator_view(learner->coordinator, loop_now_ms(learner->loop), &view);
        steps = view.steps;
    }
    journal_sync(learner->journal);
    job.save = resume_save_create(&learner->run, command, steps);
    if (job.save == NULL)
        learner_exit(learner, TD_EXIT_GAVE_UP, "out of memory for a checkpoint");
    else
        compute_push(learner->compute, &job);
}

static void roll_back(learner_t *learner, const struct command_rollback *command)
{
    struct error err = {0};

    learner->has_stats = false; /* of updates that are void */
    if (journal_rollback(learner->journal, command, &err) != TD_OK)
        learner_exit(learner, TD_EXIT_GAVE_UP, err.text);
}

static void train_row(learner_t *learner, const struct command_train_row *row)
{
    journal_train(learner->journal, row, learner->has_stats ? &learner->last_stats : NULL,
                  status_step_rate(learner));
    metrics_add(learner->metrics, METRIC_episodes, 1);
    status_episode(learner, row->reward, row->task);
}

static void carry_out(learner_t *learner, const struct coordinator_output *output)
{
    struct compute_job job = {.kind = COMPUTE_LOAD};

    switch (output->kind) {
    case OUTPUT_SEND:
        send_message(learner, output);
        break;
    case OUTPUT_CONNECT:
        connect_peer(learner, output);
        break;
    case OUTPUT_DISCONNECT:
        post_disconnect(learner->post, &output->peer);
        break;
    case OUTPUT_LOG:
        log_write((enum log_level)output->log.level, output->log.text, "%s", "");
        break;
    case OUTPUT_EXIT:
        learner->over = !learner->childless;
        if (learner->childless)
            learner_exit(learner, TD_EXIT_GAVE_UP, "tdmpc2-spawner, which starts this learner's children, was killed");
        else
            learner_exit(learner, output->exit.code, output->exit.text);
        break;
    case COMMAND_MODEL:
        build_model(learner, &output->spec);
        break;
    case COMMAND_SLICES:
        keep_slices(learner, &output->slices);
        break;
    case COMMAND_UPDATE:
        start_update(learner, &output->update);
        break;
    case COMMAND_PUBLISH:
        publish(learner, &output->publish);
        break;
    case COMMAND_SAVE:
        save(learner, &output->save);
        break;
    case COMMAND_LOAD:
        compute_push(learner->compute, &job);
        break;
    case COMMAND_ROLLBACK:
        roll_back(learner, &output->rollback);
        break;
    case COMMAND_TRAIN_ROW:
        train_row(learner, &output->train);
        break;
    case COMMAND_EVAL_ROW:
        journal_eval(learner->journal, &output->eval);
        metrics_set(learner->metrics, METRIC_eval_return, output->eval.reward);
        break;
    case COMMAND_RAISE_EPOCH: /* feeds the coordinator: after the drain */
        learner->raise_epoch = true;
        learner->raise_above = output->epoch;
        break;
    default:
        TD_ASSERT(false, "output %u", output->kind);
    }
}

static void raise_epoch(learner_t *learner)
{
    struct error err = {0};
    int rc = run_raise_epoch(&learner->run, learner->raise_above, &err);

    learner->raise_epoch = false;
    if (rc != TD_OK)
        learner_exit(learner, error_exit_code(rc), err.text);
    else
        coordinator_epoch_raised(learner->coordinator, loop_now_ms(learner->loop), learner->run.epoch);
}

void learner_drain(learner_t *learner)
{
    struct coordinator_output output;
    uint64_t now, deadline;

    while (!learner->exiting) {
        while (!learner->exiting && coordinator_next(learner->coordinator, &output))
            carry_out(learner, &output);
        if (!learner->raise_epoch)
            break;
        raise_epoch(learner);
    }
    if (learner->exiting)
        return;
    now = loop_now_ms(learner->loop);
    deadline = coordinator_deadline(learner->coordinator);
    deadline = deadline > now + 1000 ? now + 1000 : deadline;
    loop_timer_again(learner->deadline, deadline > now ? deadline - now : 1, 0);
}

/* --- results of computing ------------------------------------------------------ */

static void model_ready(learner_t *learner, const struct compute_result *result)
{
    if (result->rc != TD_OK)
        learner_exit(learner, error_exit_code(result->rc), result->err.text);
    else
        coordinator_model_ready(learner->coordinator, loop_now_ms(learner->loop), result->model.snapshot_bytes,
                                result->model.snapshots);
}

static void updated(learner_t *learner, const struct compute_result *result)
{
    if (result->rc != TD_OK) {
        learner_exit(learner, error_exit_code(result->rc), result->err.text);
        return;
    }
    learner->last_stats = result->update.stats;
    learner->has_stats = true;
    learner->status.busy_ms += result->ms;
    metrics_add(learner->metrics, METRIC_updates, 1);
    metrics_record(learner->metrics, METRIC_update_ms, result->ms);
    if (!result->update.finite)
        log_warn("an update was not finite", "update=%llu total_loss=%g grad_norm=%g pi_loss=%g pi_grad_norm=%g",
                 (unsigned long long)result->update.update, (double)result->update.stats.total_loss,
                 (double)result->update.stats.grad_norm, (double)result->update.stats.pi_loss,
                 (double)result->update.stats.pi_grad_norm);
    coordinator_updated(learner->coordinator, loop_now_ms(learner->loop), result->update.update,
                        result->update.finite);
}

static void published(learner_t *learner, const struct compute_result *result)
{
    if (result->rc != TD_OK) {
        learner_exit(learner, error_exit_code(result->rc), result->err.text);
        return;
    }
    metrics_add(learner->metrics, METRIC_snapshots, 1);
    coordinator_published(learner->coordinator, loop_now_ms(learner->loop), result->publish.version,
                          result->publish.hash, result->publish.finite);
}

static void saved(learner_t *learner, const struct compute_result *result)
{
    if (result->rc == TD_OK)
        log_info("checkpoint written", "name=%s ms=%.0f stall_ms=%.1f", result->save.name, result->ms,
                 result->save.stall_ms);
    metrics_record(learner->metrics, METRIC_save_stall_ms, result->save.stall_ms);
    metrics_record(learner->metrics, METRIC_checkpoint_ms, result->ms);
    coordinator_saved(learner->coordinator, loop_now_ms(learner->loop), result->save.id,
                      result->rc == TD_OK ? NULL : result->err.text);
}

static void loaded(learner_t *learner, const struct compute_result *result)
{
    if (result->rc != TD_OK)
        learner_exit(learner, error_exit_code(result->rc), result->err.text);
    else
        coordinator_loaded(learner->coordinator, loop_now_ms(learner->loop), result->load.progress,
                           result->load.state, result->load.state_size);
    free(result->load.progress);
    free(result->load.state);
}

void learner_computed(void *context)
{
    static void (*const handlers[])(learner_t *, const struct compute_result *) = {
        [COMPUTE_MODEL] = model_ready, [COMPUTE_UPDATE] = updated, [COMPUTE_PUBLISH] = published,
        [COMPUTE_SAVE] = saved,        [COMPUTE_LOAD] = loaded,
    };
    learner_t *learner = context;
    struct compute_result result;

    while (!learner->exiting && compute_pop(learner->compute, &result)) {
        handlers[result.kind](learner, &result);
        learner_drain(learner);
    }
}
