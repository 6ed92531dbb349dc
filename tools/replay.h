/* replay.h - what the files of `tdmpc2 replay` share. */
#ifndef TD_TOOLS_REPLAY_H
#define TD_TOOLS_REPLAY_H

#include "common/store/store.h"
#include "common/store/verify.h"

/* Past two seconds: a line on stderr with the share that is done, redrawn on a terminal. */
struct replay_progress {
    const char *what;
    uint64_t start_ms, next_ms;
    bool drawn;
};
void replay_progress(void *context, uint64_t done, uint64_t total);
void replay_progress_end(struct replay_progress *progress);

/*
 * Write every sealed episode that is whole to a safetensors file; `tdmpc2 replay --help` has its layout.
 * *skipped counts episodes left out because they are damaged.
 */
int replay_export(store_t *store, const char *path, struct replay_progress *progress,
                  uint64_t *episodes, uint64_t *rows, uint64_t *skipped, struct error *err);

/*
 * The same as one chunk of a data set, [episodes, rows] (tools/data_chunk_write.h); what chose actions, and where
 * episodes came from, is left out. TD_EINVAL when episodes differ in length.
 */
int replay_export_pt(store_t *store, const char *path, struct replay_progress *progress, uint64_t *episodes,
                     uint64_t *rows, uint64_t *skipped, struct error *err);

#endif
