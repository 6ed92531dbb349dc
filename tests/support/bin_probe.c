/*
 * bin_probe.c - preloaded into a daemon: at SIGUSR2 the thread that gets it tries what it must not be able to.
 *
 * What was possible goes as a struct probe to $TD_PROBE/<pid>.probe, a file opened before the daemon gives
 * anything up. pthread_sigmask leaves SIGUSR2 alone, so that ZeroMQ's threads hear it too.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/support/probe.h"

static int report = -1;
static char secret[512], forbidden[512];

static uint32_t opened(const char *path, int flags, uint32_t bit)
{
    int fd = open(path, flags | O_CLOEXEC, 0600);

    if (fd < 0)
        return 0;
    close(fd);
    return bit;
}

static uint32_t socket_made(int family, int type, uint32_t bit)
{
    int fd = socket(family, type | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return 0;
    close(fd);
    return bit;
}

static uint32_t code_made(uint32_t bit)
{
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint32_t got = mprotect(page, 4096, PROT_READ | PROT_EXEC) == 0 ? bit : 0;

    munmap(page, 4096);
    page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page != MAP_FAILED) {
        munmap(page, 4096);
        got = bit;
    }
    return got;
}

static void try_all(int signum)
{
    static char *const nothing[] = {NULL};
    int saved = errno;
    struct probe probe = {.thread = (int32_t)syscall(SYS_gettid)};

    (void)signum;
    probe.possible |= opened(secret, O_RDONLY, PROBE_READ) | opened("/etc/shadow", O_RDONLY, PROBE_READ) |
                      opened("/etc", O_RDONLY | O_DIRECTORY, PROBE_READ);
    probe.possible |= opened(forbidden, O_WRONLY | O_CREAT, PROBE_WRITE);
    probe.possible |= socket_made(AF_PACKET, SOCK_RAW, PROBE_FAMILY) | socket_made(AF_VSOCK, SOCK_STREAM, PROBE_FAMILY) |
                      socket_made(AF_ALG, SOCK_SEQPACKET, PROBE_FAMILY);
    probe.possible |= socket_made(AF_INET, SOCK_STREAM, PROBE_INTERNET) | socket_made(AF_INET6, SOCK_DGRAM, PROBE_INTERNET);
    /* no such program: allowed would be ENOENT */
    if (execve("/nonexistent/program", nothing, nothing) != 0 && errno != EPERM)
        probe.possible |= PROBE_EXECUTE;
    if (syscall(SYS_execveat, -1, "", nothing, nothing, 0) != 0 && errno != EPERM)
        probe.possible |= PROBE_EXECUTE;
    if (ptrace(PTRACE_SEIZE, getppid(), NULL, NULL) == 0 || errno != EPERM ||
        (syscall(SYS_process_vm_readv, getpid(), NULL, 0, NULL, 0, 0) == 0))
        probe.possible |= PROBE_TRACE;
    if (unshare(CLONE_FS) == 0) /* harmless where it is allowed */
        probe.possible |= PROBE_NAMESPACE;
    probe.possible |= code_made(PROBE_CODE);
    if (write(report, &probe, sizeof(probe)) != (ssize_t)sizeof(probe))
        abort();
    errno = saved;
}

static void __attribute__((constructor)) prepare(void)
{
    const char *folder = getenv("TD_PROBE");
    struct sigaction action = {.sa_handler = try_all, .sa_flags = SA_RESTART};
    char path[512];

    if (folder == NULL)
        return;
    snprintf(secret, sizeof(secret), "%s/secret", folder);
    snprintf(forbidden, sizeof(forbidden), "%s/forbidden", folder);
    snprintf(path, sizeof(path), "%s/%ld.probe", folder, (long)getpid());
    report = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    sigaction(SIGUSR2, &action, NULL);
}

int pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
    static int (*next)(int, const sigset_t *, sigset_t *);
    sigset_t mine;

    if (next == NULL)
        next = (int (*)(int, const sigset_t *, sigset_t *))(uintptr_t)dlsym(RTLD_NEXT, "pthread_sigmask");
    if (set != NULL && how != SIG_UNBLOCK) {
        mine = *set;
        sigdelset(&mine, SIGUSR2);
        set = &mine;
    }
    return next(how, set, old);
}
