#include "daemon/store/indexer/confine.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/close_range.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "daemon/store/archive/confine.h"

#define MEMORY_MAX (512 * MIB) /* address space; the libraries alone map some 60 MiB */

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
    SYS_read,    SYS_pread64,    SYS_write,         SYS_pwrite64,     SYS_ftruncate,
    SYS_lseek,   SYS_brk,        SYS_mmap,          SYS_munmap,       SYS_mremap,
    SYS_madvise, SYS_getrandom,  SYS_futex,         SYS_rt_sigreturn, SYS_restart_syscall,
    SYS_exit,    SYS_exit_group, SYS_clock_gettime,
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

bool confine(unsigned int first_free, struct error *err)
{
    if (!SANITIZED)
        close_range(first_free, ~0U, 0);
    confine_resources(MEMORY_MAX);
    return confine_capabilities(NULL, 0, err) && (SANITIZED || filter_calls(err));
}
