/* What of this machine shows in a container's configuration. */
#pragma once

#include "proto/base/util.h"

struct host_facts {
    unsigned int kernel_major, kernel_minor;
    bool has_seccomp;
    bool is_spared_by_oom; /* this process's oom_score_adj is below 0, as systemd can set it */
    bool has_cgroup2;      /* unified hierarchy: cgroups get a namespace, as in Docker */
    bool has_unprivileged_ports;  /* sysctl net.ipv4.ip_unprivileged_port_start */
    bool has_ping_group_range;    /* sysctl net.ipv4.ping_group_range */
    char **thermal_throttle_dirs; /* of each CPU that has one */
};

/* A few system calls on proc and sysfs: for the thread pool. */
void host_facts_read(struct host_facts *ret);
void host_facts_done(struct host_facts *facts);
