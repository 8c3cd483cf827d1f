#include "daemon/system/info.h"

#include <grp.h>
#include <stdio.h>
#include <sys/statfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#define CGROUP2_MAGIC 0x63677270

static char *environment(const char *lower, const char *upper)
{
    const char *value = getenv(lower);

    return xstrdup(value ? value : getenv(upper));
}

/* "http://user:secret@proxy:3128" without what stands before the "@". */
static char *without_credentials(char *url)
{
    char *scheme_end = url ? strstr(url, "://") : NULL;
    char *host = scheme_end ? scheme_end + 3 : url;
    char *at = host ? strrchr(host, '@') : NULL;

    if (at)
        memmove(host, at + 1, strlen(at + 1) + 1);
    return url;
}

/* The value of KEY=value or KEY="value" in a file like os-release; the caller frees it. */
static char *value_in_file(const char *path, const char *key)
{
    FILE *file = fopen(path, "re");
    char line[512];
    char *value = NULL;

    while (file && !value && fgets(line, sizeof(line), file)) {
        size_t length = strlen(key);
        if (strncmp(line, key, length) != 0)
            continue;
        char *text = line + length;
        text[strcspn(text, "\n")] = '\0';
        if (*text == '"') {
            text++;
            text[strcspn(text, "\"")] = '\0';
        }
        value = xstrdup(text);
    }
    if (file)
        fclose(file);
    return value;
}

static char *filesystem_name(const char *path)
{
    static const struct {
        unsigned long magic;
        const char *name;
    } known[] = {
        {0xef53, "extfs"},     {0x58465342, "xfs"},       {0x9123683e, "btrfs"},
        {0x01021994, "tmpfs"}, {0x794c7630, "overlayfs"}, {0x2fc12fc1, "zfs"},
        {0x6969, "nfs"},       {0xf2f52010, "f2fs"},      {0xca451a4e, "bcachefs"},
    };
    struct statfs fs;

    if (statfs(path, &fs) < 0)
        return xstrdup("");
    for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
        if ((unsigned long)fs.f_type == known[i].magic)
            return xstrdup(known[i].name);
    }
    return xasprintf("0x%lx", (unsigned long)fs.f_type);
}

static const char *cgroup_version(void)
{
    struct statfs fs;

    return statfs("/sys/fs/cgroup", &fs) == 0 && fs.f_type == CGROUP2_MAGIC ? "2" : "1";
}

const char *system_architecture(void)
{
#if defined(__x86_64__)
    return "amd64";
#elif defined(__aarch64__)
    return "arm64";
#elif defined(__arm__)
    return "arm";
#elif defined(__i386__)
    return "386";
#elif defined(__riscv) && __riscv_xlen == 64
    return "riscv64";
#elif defined(__powerpc64__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return "ppc64le";
#elif defined(__s390x__)
    return "s390x";
#else
#error "add Go's name of this architecture"
#endif
}

void system_info_gather(const char *data_root, struct system_info *ret)
{
    struct utsname names;
    long cpus = sysconf(_SC_NPROCESSORS_ONLN), pages = sysconf(_SC_PHYS_PAGES);

    *ret = (struct system_info){0};
    uname(&names);
    ret->host_name = xstrdup(names.nodename);
    ret->kernel = xstrdup(names.release);
    ret->machine = xstrdup(names.machine);
    ret->operating_system = value_in_file("/etc/os-release", "PRETTY_NAME=");
    ret->backing_filesystem = filesystem_name(data_root);
    ret->cgroup_version = cgroup_version();
    ret->cpus = cpus > 0 ? (unsigned int)cpus : 0;
    ret->memory_bytes = pages > 0 ? (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
    ret->https_proxy = without_credentials(environment("https_proxy", "HTTPS_PROXY"));
    ret->no_proxy = environment("no_proxy", "NO_PROXY");
    ret->seccomp = access("/proc/sys/kernel/seccomp/actions_avail", F_OK) == 0;
}

void system_info_done(struct system_info *info)
{
    free(info->host_name);
    free(info->kernel);
    free(info->machine);
    free(info->operating_system);
    free(info->backing_filesystem);
    free(info->https_proxy);
    free(info->no_proxy);
    *info = (struct system_info){0};
}

bool system_group_id(const char *name, gid_t *ret)
{
    const struct group *entry = getgrnam(name);

    if (entry)
        *ret = entry->gr_gid;
    return entry != NULL;
}
