#include "daemon/store/archive/confine.h"

#include <errno.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
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

    if (argc > 1 || isatty(STDIN_FILENO)) {
        fprintf(stderr, "%s is run by davitd, not by hand\n", name);
        _exit(2);
    }
    /* A daemon that was killed must not leave somebody behind who writes to its store. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    ok = run(&report, &err);
    if (ok)
        report_encode_result(&text, &report);
    else
        report_encode_error(&text, &err);
    ok = write_report(&text) && ok;
    /* Without the exit handlers of sanitizers, which want /proc. */
    _exit(ok ? 0 : 1);
}
