#include "daemon/store/archive/confine.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define OPEN_MAX_FILES 64

bool confine_failed(struct error *err, const char *what)
{
    error_set_errno(err, errno, "cannot confine the process that reads the layer: %s", what);
    if (err && !err->reason)
        err->reason = xstrdup("CONFINEMENT_FAILED");
    return false;
}

void confine_resources(uint64_t memory_max)
{
    const struct {
        __rlimit_resource_t resource;
        rlim_t limit;
    } limits[] = {
        {RLIMIT_AS, SANITIZED ? RLIM_INFINITY : memory_max},
        {RLIMIT_CORE, 0},
        {RLIMIT_NOFILE, OPEN_MAX_FILES},
        {RLIMIT_NPROC, SANITIZED ? RLIM_INFINITY : 0},
    };

    for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
        struct rlimit limit = {limits[i].limit, limits[i].limit};
        setrlimit(limits[i].resource, &limit);
    }
}

bool confine_capabilities(const int *kept, size_t count, struct error *err)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {0};
    uint64_t mask = 0;

    for (size_t i = 0; i < count; i++)
        mask |= UINT64_C(1) << kept[i];
    for (int capability = 0; capability < 64; capability++) {
        if (!(mask >> capability & 1) && prctl(PR_CAPBSET_READ, capability) == 1 &&
            prctl(PR_CAPBSET_DROP, capability) < 0)
            return confine_failed(err, "capability bounding set");
    }
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    for (int i = 0; i < 2; i++)
        data[i].permitted = data[i].effective = (uint32_t)(mask >> (32 * i));
    if (syscall(SYS_capset, &header, data) < 0)
        return confine_failed(err, "capabilities");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return confine_failed(err, "no_new_privs");
    return true;
}

/* --- System calls ------------------------------------------------------------------------------
 */

#if defined(__x86_64__)
#define OUR_ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define OUR_ARCHITECTURE AUDIT_ARCH_AARCH64
#elif defined(__riscv) && __riscv_xlen == 64
#define OUR_ARCHITECTURE AUDIT_ARCH_RISCV64
#else
#error "name this architecture, for the system call filter"
#endif

static const unsigned int allowed_calls[] = {
    SYS_read,      SYS_pread64,    SYS_write,         SYS_pwrite64,
    SYS_ftruncate, SYS_writev,     SYS_lseek,         SYS_brk,
    SYS_mmap,      SYS_munmap,     SYS_mremap,        SYS_madvise,
    SYS_getrandom, SYS_futex,      SYS_rt_sigreturn,  SYS_restart_syscall,
    SYS_exit,      SYS_exit_group, SYS_clock_gettime,
};

/* Two instructions check the architecture; each call takes two; then the refusal. */
#define FILTER_MAX (4 + 2 * ARRAY_SIZE(allowed_calls) + 1)

static bool filter_calls(struct error *err)
{
    const unsigned int number = offsetof(struct seccomp_data, nr);
    struct sock_filter filter[FILTER_MAX] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OUR_ARCHITECTURE, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, number),
    };
    struct sock_fprog program = {.filter = filter};
    unsigned short length = 4;

    for (size_t i = 0; i < ARRAY_SIZE(allowed_calls); i++) {
        filter[length++] =
            (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, allowed_calls[i], 0, 1);
        filter[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    }
    /* Not the death of the process: C libraries try one thing or another, and do without. */
    filter[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
    program.len = length;
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0 ||
           confine_failed(err, "system call filter");
}

bool confine_to_open_files(unsigned int first_free, uint64_t memory_max, struct error *err)
{
    if (!SANITIZED)
        close_range(first_free, ~0U, 0);
    confine_resources(memory_max);
    return confine_capabilities(NULL, 0, err) && (SANITIZED || filter_calls(err));
}

/* --- File systems ------------------------------------------------------------------------------
 */

void confine_namespaces(void)
{
    static const int namespaces[] = {CLONE_NEWNS, CLONE_NEWNET, CLONE_NEWIPC, CLONE_NEWUTS};

    /* Some kernels lack one or count them: the rest holds without. */
    for (size_t i = 0; i < ARRAY_SIZE(namespaces); i++)
        unshare(namespaces[i]);
}

bool confine_to_nothing(struct error *err)
{
    CLEANUP_CLOSE int context_fd = fsopen("tmpfs", FSOPEN_CLOEXEC);
    CLEANUP_CLOSE int mount_fd = -1;

    if (context_fd < 0 || fsconfig(context_fd, FSCONFIG_SET_STRING, "size", "0", 0) < 0 ||
        fsconfig(context_fd, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return confine_failed(err, "an empty file system");
    mount_fd =
        fsmount(context_fd, FSMOUNT_CLOEXEC,
                MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
    if (mount_fd < 0)
        return confine_failed(err, "an empty file system");
    if (fchdir(mount_fd) < 0 || chroot(".") < 0 || chdir("/") < 0)
        return confine_failed(err, "chroot");
    confine_namespaces();
    return true;
}

/* --- The program -------------------------------------------------------------------------------
 */

void confined_begin(const char *name, int argc)
{
    if (argc > 1 || isatty(STDIN_FILENO)) {
        fprintf(stderr, "%s is run by davitd, not by hand\n", name);
        _exit(2);
    }
    /* A daemon that was killed must not leave somebody behind who writes to its store. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
}

static bool write_report(const struct strbuf *report)
{
    for (size_t done = 0; done < report->length;) {
        ssize_t n = write(STDOUT_FILENO, report->data + done, report->length - done);
        if (n < 0 && errno != EINTR)
            return false;
        done += n < 0 ? 0 : (size_t)n;
    }
    return true;
}

_Noreturn void confined_main(const char *name, int argc,
                             bool (*run)(struct layer_report *ret, struct error *err))
{
    CLEANUP(layer_report_done) struct layer_report report = {0};
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_STRBUF struct strbuf text = {0};
    bool ok;

    confined_begin(name, argc);
    ok = run(&report, &err);
    if (ok)
        report_encode_result(&text, &report);
    else
        report_encode_error(&text, &err);
    ok = write_report(&text) && ok;
    /* Without the exit handlers of sanitizers, which want /proc. */
    _exit(ok ? 0 : 1);
}
