#include "common/util/sandbox.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* --- Landlock --------------------------------------------------------------------- */

/* The kernel's numbers, up to ABI 6: headers of a distribution may be older than its kernel. */
#define CREATE_RULESET 444
#define ADD_RULE       445
#define RESTRICT_SELF  446
#define ASK_VERSION    1u
#define RULE_BENEATH   1

enum {
    EXECUTE = 1 << 0, WRITE_FILE = 1 << 1, READ_FILE = 1 << 2, READ_DIR = 1 << 3,
    REMOVE_DIR = 1 << 4, REMOVE_FILE = 1 << 5, MAKE_CHAR = 1 << 6, MAKE_DIR = 1 << 7, MAKE_REG = 1 << 8,
    MAKE_SOCK = 1 << 9, MAKE_FIFO = 1 << 10, MAKE_BLOCK = 1 << 11, MAKE_SYM = 1 << 12,
    REFER = 1 << 13, TRUNCATE = 1 << 14, IOCTL_DEV = 1 << 15,
};
#define ALL_FILES   ((uint64_t)(IOCTL_DEV << 1) - 1)
#define FILE_RIGHTS ((uint64_t)(EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV))
#define READING     ((uint64_t)(READ_FILE | READ_DIR))
#define WRITING     (ALL_FILES & ~(uint64_t)(EXECUTE | MAKE_CHAR | MAKE_BLOCK))
#define TCP         ((uint64_t)3) /* bind, connect; ABI 4 */
#define ABSTRACT    ((uint64_t)1) /* abstract Unix sockets of others; ABI 6 */
#define ABI_LEAST   2             /* before it no file could be renamed into another folder */

struct ruleset {
    uint64_t files, network, scoped;
};

struct beneath {
    uint64_t allowed;
    int32_t parent;
} __attribute__((packed));

int sandbox_landlock(void)
{
    long abi = syscall(CREATE_RULESET, NULL, 0, ASK_VERSION);

    return abi >= ABI_LEAST ? (int)abi : 0;
}

/* The rights over files that a kernel of this ABI knows. */
static uint64_t known_rights(int abi)
{
    if (abi < 3)
        return ALL_FILES & ~(uint64_t)(TRUNCATE | IOCTL_DEV);
    return abi < 5 ? ALL_FILES & ~(uint64_t)IOCTL_DEV : ALL_FILES;
}

static void allow(struct sandbox *sandbox, const char *path, bool write)
{
    struct sandbox_path *place = &sandbox->paths[sandbox->count];

    if (path == NULL || path[0] == '\0')
        return;
    TD_ASSERT(sandbox->count < SANDBOX_PATHS, "more than %d paths", SANDBOX_PATHS);
    if (snprintf(place->path, sizeof(place->path), "%s", path) >= (int)sizeof(place->path))
        return;
    place->write = write;
    sandbox->count++;
}

void sandbox_read(struct sandbox *sandbox, const char *path)
{
    allow(sandbox, path, false);
}

void sandbox_write(struct sandbox *sandbox, const char *path)
{
    allow(sandbox, path, true);
}

void sandbox_system(struct sandbox *sandbox)
{
    static const char *const read[] = {
        "/usr", "/lib", "/lib32", "/lib64", "/nix/store", "/gnu/store", "/proc", "/sys", "/dev/urandom", "/dev/random",
        "/dev/zero", "/etc/ld.so.cache", "/etc/ld.so.preload", "/etc/localtime", "/etc/timezone", "/etc/nsswitch.conf",
        "/etc/hosts", "/etc/host.conf", "/etc/resolv.conf", "/etc/gai.conf", "/etc/protocols", "/etc/services",
    };

    for (size_t i = 0; i < TD_LEN(read); i++)
        sandbox_read(sandbox, read[i]);
    sandbox_write(sandbox, "/dev/null");
}

/* One path's rule; TD_OK too when there is nothing at it. */
static int add_path(int ruleset, const struct sandbox_path *place, uint64_t known, struct error *err)
{
    struct beneath rule = {.allowed = (place->write ? WRITING : READING) & known,
                           .parent = open(place->path, O_PATH | O_CLOEXEC)};
    struct stat info;
    int rc = TD_OK;

    if (rule.parent < 0)
        return TD_OK;
    if (fstat(rule.parent, &info) == 0 && !S_ISDIR(info.st_mode))
        rule.allowed &= FILE_RIGHTS;
    if (syscall(ADD_RULE, ruleset, RULE_BENEATH, &rule, 0) != 0)
        rc = error_set_errno(err, TD_ESETUP, errno, "cannot confine this process to %s", place->path);
    close(rule.parent);
    return rc;
}

static int thread_count(void)
{
    DIR *tasks = opendir("/proc/self/task");
    int count = 0;

    while (tasks != NULL) {
        const struct dirent *entry = readdir(tasks);

        if (entry == NULL)
            break;
        count += entry->d_name[0] != '.';
    }
    if (tasks != NULL)
        closedir(tasks);
    return count;
}

static int make_ruleset(const struct sandbox *sandbox, int abi)
{
    struct ruleset rules = {.files = known_rights(abi), .network = sandbox->network ? 0 : TCP, .scoped = ABSTRACT};
    size_t size = abi < 4 ? 8 : abi < 6 ? 16 : 24;

    return (int)syscall(CREATE_RULESET, &rules, size, 0);
}

int sandbox_files(const struct sandbox *sandbox, struct error *err)
{
    int abi = sandbox_landlock(), ruleset, rc = TD_OK;

    if (abi == 0)
        return error_set(err, TD_ESETUP, "this kernel offers no Landlock (it is in Linux 5.19 and newer, if enabled)");
    if (thread_count() != 1)
        return error_set(err, TD_ESETUP, "another thread runs already, which Landlock would not bind");
    if ((ruleset = make_ruleset(sandbox, abi)) < 0)
        return error_set_errno(err, TD_ESETUP, errno, "cannot make Landlock rules");
    for (int i = 0; i < sandbox->count && rc == TD_OK; i++)
        rc = add_path(ruleset, &sandbox->paths[i], known_rights(abi), err);
    if (rc == TD_OK && (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || syscall(RESTRICT_SELF, ruleset, 0) != 0))
        rc = error_set_errno(err, TD_ESETUP, errno, "cannot confine this process with Landlock");
    close(ruleset);
    return rc;
}

/* --- seccomp ------------------------------------------------------------------------ */

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#endif

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define PTRACE_IS_OURS 1 /* the leak sanitizer stops this process's threads with it, at the end */
#else
#define PTRACE_IS_OURS 0
#endif

/* Other programs, other processes' memory, the kernel's own affairs, and what has been its weakest. */
static const int denied[] = {
    SYS_execve, SYS_execveat, SYS_process_vm_readv, SYS_process_vm_writev, SYS_kcmp,
    SYS_mount, SYS_umount2, SYS_pivot_root, SYS_chroot, SYS_unshare, SYS_setns,
    SYS_bpf, SYS_perf_event_open, SYS_userfaultfd, SYS_keyctl, SYS_add_key, SYS_request_key,
    SYS_init_module, SYS_finit_module, SYS_delete_module, SYS_kexec_load, SYS_reboot, SYS_swapon, SYS_swapoff,
    SYS_acct, SYS_quotactl, SYS_settimeofday, SYS_clock_settime, SYS_clock_adjtime, SYS_adjtimex,
    SYS_sethostname, SYS_setdomainname, SYS_open_by_handle_at, SYS_name_to_handle_at, SYS_fanotify_init,
    SYS_vhangup, SYS_syslog, SYS_personality, SYS_mknodat, SYS_lookup_dcookie,
    SYS_setuid, SYS_setgid, SYS_setreuid, SYS_setregid, SYS_setresuid, SYS_setresgid, SYS_setgroups, SYS_setfsuid,
    SYS_setfsgid, SYS_capset,
#ifdef SYS_kexec_file_load
    SYS_kexec_file_load,
#endif
#ifdef __x86_64__
    SYS_mknod, SYS_iopl, SYS_ioperm, SYS_modify_ldt,
#endif
    /* by number: newer than some headers */
    425, 426, 427, /* io_uring */
    428, 429, 430, 431, 432, 433, 442, /* the new mount interface */
    438, /* pidfd_getfd */
};

#define LOAD(field)         BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define LOAD_ARG(n)         BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[n])) /* its lower half */
#define RETURN(what)        BPF_STMT(BPF_RET | BPF_K, (what))
#define IF_NOT(value, skip) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(value), 0, (skip))
#define IF(value, skip)     BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(value), (skip), 0)
#define UNLESS_BITS(bits, skip) BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, (uint32_t)(bits), 0, (skip))
#define REFUSE(code)        RETURN(SECCOMP_RET_ERRNO | (code))
#define ALLOW               RETURN(SECCOMP_RET_ALLOW)

#define NAMESPACES                                                                                  \
    (CLONE_NEWNS | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP)
#define CLONE3 435

struct program {
    struct sock_filter code[512];
    unsigned short count;
};

static void add(struct program *program, const struct sock_filter *code, size_t count)
{
    TD_ASSERT(program->count + count <= TD_LEN(program->code));
    memcpy(program->code + program->count, code, count * sizeof(*code));
    program->count = (unsigned short)(program->count + count);
}

#define ADD(program, ...)                                                                           \
    add((program), (const struct sock_filter[]){__VA_ARGS__},                                       \
        TD_LEN(((const struct sock_filter[]){__VA_ARGS__})))

bool sandbox_seccomp(void)
{
#ifdef ARCH
    uint32_t action = SECCOMP_RET_ERRNO;

    return syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0;
#else
    return false;
#endif
}

#ifdef ARCH

/* With the call's number loaded: calls that depend on an argument end here, in one way or the other. */
static void add_arguments(struct program *program, const struct sandbox *sandbox)
{
    ADD(program, IF_NOT(SYS_clone, 4), LOAD_ARG(0), UNLESS_BITS(NAMESPACES, 1), REFUSE(EPERM), ALLOW);
    ADD(program, IF_NOT(CLONE3, 1), REFUSE(ENOSYS)); /* its flags lie in memory: who is told so uses clone */
    ADD(program, IF_NOT(SYS_ioctl, 5), LOAD_ARG(1), IF(TIOCSTI, 1), IF_NOT(TIOCLINUX, 1), REFUSE(EPERM), ALLOW);
    if (sandbox->network)
        ADD(program, IF_NOT(SYS_socket, 7), LOAD_ARG(0), IF(AF_UNIX, 4), IF(AF_INET, 3), IF(AF_INET6, 2),
            IF(AF_NETLINK, 1), REFUSE(EAFNOSUPPORT), ALLOW);
    else
        ADD(program, IF_NOT(SYS_socket, 5), LOAD_ARG(0), IF(AF_UNIX, 2), IF(AF_NETLINK, 1), REFUSE(EAFNOSUPPORT), ALLOW);
    if (!sandbox->code) {
        ADD(program, IF_NOT(SYS_mmap, 4), LOAD_ARG(2), UNLESS_BITS(PROT_EXEC, 1), REFUSE(EPERM), ALLOW);
        ADD(program, IF_NOT(SYS_mprotect, 4), LOAD_ARG(2), UNLESS_BITS(PROT_EXEC, 1), REFUSE(EPERM), ALLOW);
        ADD(program, IF_NOT(SYS_pkey_mprotect, 4), LOAD_ARG(2), UNLESS_BITS(PROT_EXEC, 1), REFUSE(EPERM), ALLOW);
    }
}

static void build(struct program *program, const struct sandbox *sandbox)
{
    ADD(program, LOAD(arch), IF(ARCH, 1), RETURN(SECCOMP_RET_KILL_PROCESS), LOAD(nr));
#ifdef __x86_64__
    ADD(program, BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000u, 0, 1), REFUSE(ENOSYS)); /* x32 */
#endif
    for (size_t i = 0; i < TD_LEN(denied); i++)
        ADD(program, IF_NOT(denied[i], 1), REFUSE(denied[i] >= 425 && denied[i] <= 427 ? ENOSYS : EPERM));
    if (!PTRACE_IS_OURS)
        ADD(program, IF_NOT(SYS_ptrace, 1), REFUSE(EPERM));
    add_arguments(program, sandbox);
    ADD(program, ALLOW);
}

int sandbox_calls(const struct sandbox *sandbox, struct error *err)
{
    struct program program = {.count = 0};
    struct sock_fprog filter = {.filter = program.code};
    long rc;

    build(&program, sandbox);
    filter.len = program.count;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return error_set_errno(err, TD_ESETUP, errno, "cannot confine this process");
    rc = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &filter);
    if (rc < 0)
        return error_set_errno(err, TD_ESETUP, errno, "this kernel offers no seccomp filters");
    if (rc > 0)
        return error_set(err, TD_ESETUP, "thread %ld has a seccomp filter of its own", rc);
    return TD_OK;
}

#else

int sandbox_calls(const struct sandbox *sandbox, struct error *err)
{
    (void)sandbox;
    return error_set(err, TD_ESETUP, "system calls are filtered on x86-64 and aarch64 alone");
}

#endif
