#include "common/net/notify.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/util/error.h"

/* One per process, as the variable is. */
static struct {
    int fd; /* 0: none; never standard input */
    struct sockaddr_un to;
    socklen_t to_size;
    uint64_t watchdog_ms;  /* half its interval; 0: none */
    uint64_t alive_ms;     /* when it was last told */
    bool ready, ready_told;
    bool stopping, stopping_told;
    char status[NOTIFY_STATUS_MAX], told[NOTIFY_STATUS_MAX];
    uint64_t told_ms;      /* when */
} self;

/* --- the environment --------------------------------------------------------- */

static uint64_t number(const char *text)
{
    char *end;
    unsigned long long value;

    if (text == NULL || text[0] < '0' || text[0] > '9')
        return 0;
    errno = 0;
    value = strtoull(text, &end, 10);
    return *end == '\0' && errno == 0 ? value : 0;
}

/* A path, or a name of no path that begins with @. */
static bool parse_address(const char *text)
{
    size_t length = strlen(text);

    if ((text[0] != '/' && text[0] != '@') || length < 2 || length >= sizeof(self.to.sun_path))
        return false;
    memset(&self.to, 0, sizeof(self.to));
    self.to.sun_family = AF_UNIX;
    memcpy(self.to.sun_path, text, length);
    if (text[0] == '@')
        self.to.sun_path[0] = '\0';
    self.to_size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + (text[0] == '/'));
    return true;
}

/* The watchdog is this process's when no other is named. */
static uint64_t watchdog_half_ms(void)
{
    const char *pid = getenv("WATCHDOG_PID");
    uint64_t ms = number(getenv("WATCHDOG_USEC")) / 1000;

    if (pid != NULL && number(pid) != (uint64_t)getpid())
        return 0;
    return ms == 1 ? 1 : ms / 2;
}

static bool open_socket(const char *address, char *why, int size)
{
    if (!parse_address(address)) {
        snprintf(why, (size_t)size, "NOTIFY_SOCKET=%.120s is neither a path of at most %zu letters nor @name: systemd is told nothing",
                 address, sizeof(self.to.sun_path) - 1);
        return false;
    }
    self.fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (self.fd > 0)
        return true;
    snprintf(why, (size_t)size, "no socket to tell systemd anything: %s", strerror(errno));
    self.fd = 0;
    return false;
}

bool notify_open(bool mute, char *why, int size)
{
    const char *address = getenv("NOTIFY_SOCKET");
    char spare[NOTIFY_WHY_MAX];
    bool good = true;

    notify_close();
    if (!mute && address != NULL && address[0] != '\0') {
        good = open_socket(address, why != NULL ? why : spare, why != NULL ? size : (int)sizeof(spare));
        self.watchdog_ms = good ? watchdog_half_ms() : 0;
    }
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
    return good;
}

void notify_close(void)
{
    if (self.fd > 0)
        close(self.fd);
    memset(&self, 0, sizeof(self));
}

bool notify_heard(void)
{
    return self.fd > 0;
}

/* --- telling ------------------------------------------------------------------ */

static bool tell(const char *text)
{
    ssize_t sent;

    do
        sent = sendto(self.fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT, (struct sockaddr *)&self.to, self.to_size);
    while (sent < 0 && errno == EINTR);
    return sent >= 0;
}

void notify_beat(uint64_t now_ms)
{
    bool alive = self.watchdog_ms != 0 && now_ms - self.alive_ms >= self.watchdog_ms;
    bool ready = self.ready && !self.ready_told, stopping = self.stopping && !self.stopping_told;
    bool other = strcmp(self.status, self.told) != 0;
    bool status = other && (ready || stopping || self.told[0] == '\0' || now_ms - self.told_ms >= NOTIFY_STATUS_MS);
    char text[NOTIFY_STATUS_MAX + 64];

    if (self.fd <= 0 || !(ready || stopping || status || alive))
        return;
    snprintf(text, sizeof(text), "%s%s%s%s%s%s", ready ? "READY=1\n" : "", stopping ? "STOPPING=1\n" : "",
             alive ? "WATCHDOG=1\n" : "", status ? "STATUS=" : "", status ? self.status : "", status ? "\n" : "");
    if (!tell(text))
        return; /* with the next beat */
    self.ready_told |= ready;
    self.stopping_told |= stopping;
    if (status) {
        memcpy(self.told, self.status, sizeof(self.told));
        self.told_ms = now_ms;
    }
    if (alive)
        self.alive_ms = now_ms;
}

void notify_ready(void)
{
    self.ready = true;
}

void notify_status(const char *format, ...)
{
    va_list args;

    if (self.fd <= 0)
        return;
    va_start(args, format);
    vsnprintf(self.status, sizeof(self.status), format, args);
    va_end(args);
    for (char *at = self.status; *at != '\0'; at++)
        if ((unsigned char)*at < ' ')
            *at = ' '; /* a line of its own would be an order */
}

void notify_extend(unsigned seconds)
{
    char text[64];

    if (self.fd <= 0)
        return;
    snprintf(text, sizeof(text), "EXTEND_TIMEOUT_USEC=%llu\n", seconds * 1000000ull);
    tell(text); /* it is said again as long as it takes */
}

void notify_stopping(const char *why)
{
    if (self.fd <= 0 || self.stopping)
        return;
    self.stopping = true;
    notify_status("leaving: %s", why);
    notify_beat(self.alive_ms); /* no beat may follow; what is due otherwise goes with it */
}
