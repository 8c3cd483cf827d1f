#include "daemon/container/host.h"

#include <errno.h>
#include <linux/magic.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/utsname.h>
#include <sys/vfs.h>

/* A filter of address 0 is EFAULT where filters exist, EINVAL where they do not. */
static bool has_seccomp(void)
{
    return prctl(PR_GET_SECCOMP, 0, 0, 0, 0) >= 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, 0, 0, 0) < 0 && errno == EFAULT;
}

static bool is_spared_by_oom(void)
{
    FILE *file = fopen("/proc/self/oom_score_adj", "re");
    int score = 0;
    bool spared = file && fscanf(file, "%d", &score) == 1 && score < 0;

    if (file)
        fclose(file);
    return spared;
}

static char **find_thermal_throttle(void)
{
    long cpus = sysconf(_SC_NPROCESSORS_CONF);
    char **dirs = xcalloc((size_t)MAX(cpus, 0) + 1, sizeof(*dirs));
    size_t count = 0;

    for (long i = 0; i < cpus; i++) {
        char path[80];
        snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%ld/thermal_throttle", i);
        if (access(path, F_OK) == 0)
            dirs[count++] = xstrdup(path);
    }
    return dirs;
}

void host_facts_read(struct host_facts *ret)
{
    struct utsname name;
    struct statfs cgroup;

    *ret = (struct host_facts){0};
    if (uname(&name) == 0)
        sscanf(name.release, "%u.%u", &ret->kernel_major, &ret->kernel_minor);
    ret->has_seccomp = has_seccomp();
    ret->is_spared_by_oom = is_spared_by_oom();
    ret->has_cgroup2 =
        statfs("/sys/fs/cgroup", &cgroup) == 0 && cgroup.f_type == CGROUP2_SUPER_MAGIC;
    ret->has_unprivileged_ports =
        access("/proc/sys/net/ipv4/ip_unprivileged_port_start", F_OK) == 0;
    ret->has_ping_group_range = access("/proc/sys/net/ipv4/ping_group_range", F_OK) == 0;
    ret->thermal_throttle_dirs = find_thermal_throttle();
}

void host_facts_done(struct host_facts *facts)
{
    facts->thermal_throttle_dirs = strv_free(facts->thermal_throttle_dirs);
}
