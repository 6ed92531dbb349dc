#include "learner/training_memory.h"

#include <inttypes.h>
#include <stdio.h>

#include "common/util/memory.h"
#include "learner/snapshot.h"

uint64_t training_in_memory_max = 4000000;

int training_memory_plan(struct training_memory *memory, const struct model_dims *dims, const struct update_config *config,
                         int threads, const struct training_beside *beside, struct error *err)
{
    struct model_layout layout;
    const struct update_memory *update = &memory->update;
    int rc;

    *memory = (struct training_memory){.other = beside->other};
    if ((rc = update_measure(&memory->update, dims, config, threads, err)) != TD_OK)
        return rc;
    model_layout_init(&layout, dims);
    memory->in_files = layout.parameters > training_in_memory_max;
    if (beside->copy && layout.parameters <= SNAPSHOT_COPY_MAX)
        memory->copy = update->parameters + update->targets + update->moments;
    if (beside->actors)
        memory->snapshots = 2 * (uint64_t)model_snapshot_bytes(&layout, beside->half);
    memory->total = update->total + memory->other;
    if (!memory->in_files)
        memory->total += memory->copy + memory->snapshots;
    return TD_OK;
}

void training_memory_text(const struct training_memory *memory, char text[TRAINING_MEMORY_TEXT])
{
    const struct update_memory *update = &memory->update;
    const char *beside = memory->in_files ? "file_" : "";

    snprintf(text, TRAINING_MEMORY_TEXT,
             "mib=%" PRIu64 " parameters=%zu targets=%zu moments=%zu gradients=%zu activations=%zu working=%zu "
             "other=%" PRIu64 " %scheckpoint_copy=%" PRIu64 " %ssnapshots=%" PRIu64,
             memory->total >> 20, update->parameters >> 20, update->targets >> 20, update->moments >> 20,
             update->gradients >> 20, update->activations >> 20, update->working >> 20, memory->other >> 20, beside,
             memory->copy >> 20, beside, memory->snapshots >> 20);
}

int training_memory_check(const struct training_memory *memory, struct error *err)
{
    return memory_check(memory->total, "training with these sizes", "lower batch_size, horizon, num_q or model_size", err);
}
