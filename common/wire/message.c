#include "common/wire/message.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

const char *message_name(uint32_t kind)
{
    switch (kind) {
    case MESSAGE_HELLO: return "Hello";
    case MESSAGE_WELCOME: return "Welcome";
    case MESSAGE_REFUSED: return "Refused";
    case MESSAGE_HEARTBEAT: return "Heartbeat";
    case MESSAGE_SAY_HELLO: return "SayHello";
    case MESSAGE_EPISODE_END: return "EpisodeEnd";
    case MESSAGE_EPISODE_ACK: return "EpisodeAck";
    case MESSAGE_EVALUATE: return "Evaluate";
    case MESSAGE_EVALUATED: return "Evaluated";
    case MESSAGE_EVALUATED_ACK: return "EvaluatedAck";
    case MESSAGE_TURN: return "Turn";
    case MESSAGE_TURNED: return "Turned";
    case MESSAGE_LEAVE: return "Leave";
    case MESSAGE_LEAVING: return "Leaving";
    case MESSAGE_STOP: return "Stop";
    case MESSAGE_NEXT_TASK: return "NextTask";
    case MESSAGE_ASSIGN: return "Assign";
    case MESSAGE_INGEST_HELLO: return "IngestHello";
    case MESSAGE_INGEST_WELCOME: return "IngestWelcome";
    case MESSAGE_ROWS: return "Rows";
    case MESSAGE_ACK: return "Ack";
    case MESSAGE_NACK: return "Nack";
    case MESSAGE_REJOIN: return "Rejoin";
    case MESSAGE_FENCED: return "Fenced";
    case MESSAGE_SAMPLE_HELLO: return "SampleHello";
    case MESSAGE_SAMPLE_WELCOME: return "SampleWelcome";
    case MESSAGE_SAMPLE_REQUEST: return "SampleRequest";
    case MESSAGE_SLICES: return "Slices";
    case MESSAGE_CREDIT: return "Credit";
    case MESSAGE_STATUS: return "Status";
    case MESSAGE_REWIND: return "Rewind";
    case MESSAGE_REWOUND: return "Rewound";
    case MESSAGE_ANNOUNCE: return "Announce";
    case MESSAGE_PULL: return "Pull";
    case MESSAGE_CHUNK: return "Chunk";
    case MESSAGE_GONE: return "Gone";
    default: return "unknown";
    }
}

const char *waiting_name(uint32_t waiting)
{
    switch (waiting) {
    case WAITING_NOTHING: return "nothing";
    case WAITING_LEARNER: return "the learner";
    case WAITING_SHARD: return "the replay shard";
    case WAITING_LIMIT: return "the learner's updates";
    case WAITING_BURST: return "pretraining";
    case WAITING_PARAMETERS: return "parameters";
    case WAITING_ACKS: return "acknowledgements";
    case WAITING_TURN: return "its turn";
    case WAITING_WORK: return "an evaluation";
    case WAITING_ENVIRONMENT: return "its environment to be started again";
    case WAITING_TASK: return "its next task";
    default: return "unknown";
    }
}

const char *phase_name(uint32_t phase)
{
    switch (phase) {
    case PHASE_STARTING: return "starting";
    case PHASE_SEEDING: return "seeding";
    case PHASE_BURST: return "pretraining";
    case PHASE_RUNNING: return "running";
    case PHASE_FINISHING: return "finishing";
    default: return "unknown";
    }
}

int announcement_compare(const struct announcement *a, const struct announcement *b)
{
    if (a->epoch != b->epoch)
        return a->epoch < b->epoch ? -1 : 1;
    if (a->version != b->version)
        return a->version < b->version ? -1 : 1;
    return 0;
}

const char *status_damage(const struct status *status, char *out, size_t size)
{
    const char *more = status->lost_uncertain ? ", perhaps more" : "";
    size_t used;

    out[0] = '\0';
    if (status->rescued && status->lost_rows + status->lost_episodes == 0)
        snprintf(out, size, status->lost_uncertain ? "its file was damaged, acknowledged rows may be lost"
                                                   : "its file was damaged, no acknowledged row was lost");
    else if (status->rescued && status->lost_episodes == 0)
        snprintf(out, size, "its file was damaged, %" PRIu64 " acknowledged rows were lost%s", status->lost_rows, more);
    else if (status->rescued)
        snprintf(out, size, "its file was damaged, %" PRIu64 " acknowledged rows and %" PRIu64 " whole episodes were lost%s",
                 status->lost_rows, status->lost_episodes, more);
    used = strlen(out);
    if (status->bad_segments > 0)
        snprintf(out + used, size - used, "%s%" PRIu64 " damaged segment%s set aside", used > 0 ? "; " : "",
                 status->bad_segments, status->bad_segments == 1 ? " was" : "s were");
    return out;
}
