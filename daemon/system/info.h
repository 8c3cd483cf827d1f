/* What this host is: gathered once at start, answered from memory. */
#pragma once

#include <sys/types.h>

#include "proto/base/error.h"

struct system_info {
    char *host_name, *kernel, *machine; /* uname(2): "amd64"'s machine is "x86_64" */
    char *operating_system;             /* PRETTY_NAME of os-release(5) */
    char *backing_filesystem;           /* of the data root: "ext4" */
    const char *cgroup_version;         /* "1" or "2" */
    unsigned int cpus;
    uint64_t memory_bytes;
    char *https_proxy, *no_proxy; /* from the environment; credentials removed */
    bool seccomp;                 /* the kernel filters system calls */
};

/* Reads a few files of /proc and /etc. What cannot be found out is empty. */
void system_info_gather(const char *data_root, struct system_info *ret);
void system_info_done(struct system_info *info);

/* This machine's architecture by Go's name, as images have it: "amd64". Static. */
const char *system_architecture(void);

/* The ID of one of the host's groups; false if there is none of that name. Reads /etc/group. */
bool system_group_id(const char *name, gid_t *ret);
