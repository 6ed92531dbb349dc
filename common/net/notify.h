/*
 * notify.h - what systemd is told of this process: that it is ready, alive, what it does, that it ends.
 *
 * The protocol is one datagram of KEY=value lines to the socket that $NOTIFY_SOCKET names; without that variable
 * every call here does nothing. Nothing blocks: what the socket does not take now goes with the next beat.
 *
 * Owns:    the process's one notification socket.
 * Thread:  the loop's; notify_open before there are others.
 * Source:  sd_notify(3), sd_watchdog_enabled(3).
 */
#ifndef TD_NET_NOTIFY_H
#define TD_NET_NOTIFY_H

#include <stdbool.h>
#include <stdint.h>

#define NOTIFY_STATUS_MAX 240
#define NOTIFY_WHY_MAX    256
#define NOTIFY_STATUS_MS  5000 /* between two words on what it does */

/*
 * Read $NOTIFY_SOCKET, $WATCHDOG_USEC and $WATCHDOG_PID and take them out of the environment: children are not to
 * speak for this process. To be called in main before anything is started; with `mute` they are taken out alone.
 * False, with a sentence in `why` (NULL: not wanted), when there is a socket that cannot be used.
 */
bool notify_open(bool mute, char *why, int size);

void notify_close(void);

/* Does anybody listen? */
bool notify_heard(void);

/* From now on others may rely on this process. Said once, however often it is called. */
void notify_ready(void);

/* What `systemctl status` shows; said when it differs from the last, and no more often than NOTIFY_STATUS_MS. */
void notify_status(const char *format, ...) __attribute__((format(printf, 1, 2)));

/*
 * Send what is to be said. Called by the loop at least once a second, it is also what keeps the watchdog quiet, twice
 * in each of its intervals: a loop that does not turn is not heard.
 */
void notify_beat(uint64_t now_ms);

/* A start that takes long goes on: give it `seconds` more from now. */
void notify_extend(unsigned seconds);

/* The end has begun. */
void notify_stopping(const char *why);

#endif
