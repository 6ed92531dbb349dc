/* The shard's store: opened, or, when its file is damaged, what is whole of it in a new one. */
#include "common/store/verify.h"
#include "learner/replay/shard_parts.h"

static void log_losses(struct shard *shard, const struct salvage_report *report)
{
    for (int i = 0; i < report->loss_count; i++)
        shard_log(shard, LOG_ERROR, "stream %u.%u lost %llu acknowledged rows in %llu episodes", report->losses[i].slot,
                  report->losses[i].env, (unsigned long long)report->losses[i].rows,
                  (unsigned long long)report->losses[i].episodes);
    if (report->more_losses)
        shard_log(shard, LOG_ERROR, "further streams lost rows too");
    if (report->unknown_episodes > 0)
        shard_log(shard, LOG_ERROR, "of %llu more episodes nothing is left, not even whose they were",
                  (unsigned long long)report->unknown_episodes);
    if (report->uncertain)
        shard_log(shard, LOG_ERROR, "the file does not tell how much it held at last: more may be lost");
    else if (report->lost_rows + report->unknown_episodes == 0)
        shard_log(shard, LOG_WARN, "no acknowledged row was lost");
}

static void log_rescue(struct shard *shard, const struct rescue_report *report)
{
    const struct salvage_report *saved = &report->salvaged;

    shard_log(shard, LOG_ERROR,
              "%llu rows of %llu episodes (%llu rows of episodes under way) were saved into a new file, store %016llx",
              (unsigned long long)saved->rows, (unsigned long long)saved->episodes,
              (unsigned long long)saved->open_rows, (unsigned long long)report->store_id);
    log_losses(shard, saved);
    shard_log(shard, LOG_WARN,
              "the damaged file is kept as %s/%s; nothing needs it any more. All writers begin new epochs", shard->dir,
              report->aside);
    shard->tally.rescued = true;
    shard->tally.rows_lost += saved->lost_rows;
    shard->tally.episodes_lost += saved->unknown_episodes;
    shard->tally.lost_uncertain = saved->uncertain;
}

static int rescue(struct shard *shard, const struct store_config *config, struct error *err)
{
    struct rescue_report report;
    int rc;

    shard_log(shard, LOG_ERROR, "%s", err->text);
    shard_log(shard, LOG_WARN, "saving what is whole of it");
    if ((rc = store_rescue(config, &report, err)) == TD_OK)
        log_rescue(shard, &report);
    return rc == TD_ENOTFOUND ? TD_ECORRUPT : rc; /* nothing can be told of it: that is no empty folder */
}

int shard_open_store(struct shard *shard, const struct store_config *config, struct error *err)
{
    int rc = store_open(&shard->store, config, err);

    if (rc != TD_ECORRUPT || (rc = rescue(shard, config, err)) != TD_OK)
        return rc;
    return store_open(&shard->store, config, err);
}
