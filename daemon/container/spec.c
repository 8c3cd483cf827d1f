#include "daemon/container/spec.h"

#include "daemon/container/seccomp.h"

#define OCI_VERSION "1.0.2"
#define SHM_BYTES (64 * MIB)

/* Docker's 14 (moby, daemon/pkg/oci/caps/defaults.go). */
static const char *const default_capabilities[] = {
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
    NULL,
};

/* moby, daemon/pkg/oci/defaults.go; the CPUs' thermal_throttle directories come on top. */
static const char *const masked_paths[] = {
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
    NULL,
};

static const char *const readonly_paths[] = {
    "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", NULL,
};

/* NULL if a member is not UTF-8. */
static json_t *string_array(const char *const *strings)
{
    json_t *array = json_array();

    for (size_t i = 0; strings[i]; i++) {
        json_t *string = json_string(strings[i]);
        if (!string) {
            json_decref(array);
            return NULL;
        }
        json_array_append_new(array, string);
    }
    return array;
}

/* --- Process ---------------------------------------------------------------------------------- */

/* For other users than root execve(2) would clear these two, so Docker leaves them empty. The
 * inheritable and ambient sets are always empty. */
static json_t *build_capabilities(const struct exec_user *user)
{
    json_t *capabilities = json_object();

    json_object_set_new(capabilities, "bounding", string_array(default_capabilities));
    if (user->uid == 0) {
        json_object_set_new(capabilities, "effective", string_array(default_capabilities));
        json_object_set_new(capabilities, "permitted", string_array(default_capabilities));
    }
    return capabilities;
}

static json_t *build_user(const struct exec_user *user)
{
    json_t *groups = json_pack("[I]", (json_int_t)user->gid);

    for (size_t i = 0; i < user->group_count; i++)
        json_array_append_new(groups, json_integer(user->groups[i]));
    return json_pack("{s:I, s:I, s:o}", "uid", (json_int_t)user->uid, "gid", (json_int_t)user->gid,
                     "additionalGids", groups);
}

static json_t *build_process(const struct spec_input *input, struct error *err)
{
    json_t *args = string_array((const char *const *)input->args);
    json_t *env = string_array((const char *const *)input->env);
    json_t *cwd = json_string(input->cwd);

    if (!args || !env || !cwd) {
        error_set(err, ERROR_INVALID_ARGUMENT, "NOT_UTF8", "%s is not valid UTF-8",
                  !args  ? "the command"
                  : !env ? "the environment"
                         : "the working directory");
        json_decref(args);
        json_decref(env);
        json_decref(cwd);
        return NULL;
    }
    /* A container does not inherit the daemon's protection. Where there is none, setting 0 could
     * need CAP_SYS_RESOURCE and change nothing. */
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o*}", "user", build_user(input->user), "args",
                     args, "env", env, "cwd", cwd, "capabilities", build_capabilities(input->user),
                     "oomScoreAdj", input->host->is_spared_by_oom ? json_integer(0) : NULL);
}

/* --- Mounts ----------------------------------------------------------------------------------- */

static void add_mount(json_t *mounts, const char *destination, const char *type, const char *source,
                      json_t *options)
{
    json_array_append_new(mounts, json_pack("{s:s, s:s, s:s, s:o}", "destination", destination,
                                            "type", type, "source", source, "options", options));
}

static void add_file(json_t *mounts, const char *destination, const char *source)
{
    if (source)
        add_mount(mounts, destination, "bind", source, json_pack("[s, s]", "rbind", "rprivate"));
}

static json_t *build_mounts(const struct spec_input *input)
{
    CLEANUP_FREE char *shm_size = xasprintf("size=%llu", SHM_BYTES);
    json_t *mounts = json_array();

    add_mount(mounts, "/proc", "proc", "proc", json_pack("[s, s, s]", "nosuid", "noexec", "nodev"));
    add_mount(mounts, "/dev", "tmpfs", "tmpfs",
              json_pack("[s, s, s, s]", "nosuid", "strictatime", "mode=755", "size=65536k"));
    add_mount(mounts, "/dev/pts", "devpts", "devpts",
              json_pack("[s, s, s, s, s, s]", "nosuid", "noexec", "newinstance", "ptmxmode=0666",
                        "mode=0620", "gid=5"));
    add_mount(mounts, "/sys", "sysfs", "sysfs",
              json_pack("[s, s, s, s]", "nosuid", "noexec", "nodev", "ro"));
    add_mount(mounts, "/sys/fs/cgroup", "cgroup", "cgroup",
              json_pack("[s, s, s, s]", "ro", "nosuid", "noexec", "nodev"));
    add_mount(mounts, "/dev/mqueue", "mqueue", "mqueue",
              json_pack("[s, s, s]", "nosuid", "noexec", "nodev"));
    add_mount(mounts, "/dev/shm", "tmpfs", "shm",
              json_pack("[s, s, s, s, s]", "nosuid", "noexec", "nodev", "mode=1777", shm_size));
    add_file(mounts, "/etc/resolv.conf", input->resolv_conf_path);
    add_file(mounts, "/etc/hostname", input->hostname_path);
    add_file(mounts, "/etc/hosts", input->hosts_path);
    return mounts;
}

/* --- Linux ------------------------------------------------------------------------------------ */

static json_t *build_namespaces(const struct spec_input *input)
{
    json_t *namespaces = json_pack("[{s:s}, {s:s}, {s:s}, {s:s}]", "type", "mount", "type", "uts",
                                   "type", "pid", "type", "ipc");

    if (!input->host_network)
        json_array_append_new(namespaces, json_pack("{s:s}", "type", "network"));
    if (input->host->has_cgroup2)
        json_array_append_new(namespaces, json_pack("{s:s}", "type", "cgroup"));
    return namespaces;
}

static void allow_device(json_t *devices, int major, int minor, bool allow)
{
    json_array_append_new(devices, json_pack("{s:b, s:s, s:i, s:i, s:s}", "allow", allow, "type",
                                             "c", "major", major, "minor", minor, "access", "rwm"));
}

/* The runtime makes the nodes of /dev by itself (config-linux.md, "Default Devices"). */
static json_t *build_resources(void)
{
    json_t *devices = json_pack("[{s:b, s:s}]", "allow", false, "access", "rwm");

    allow_device(devices, 1, 5, true);     /* zero */
    allow_device(devices, 1, 3, true);     /* null */
    allow_device(devices, 1, 9, true);     /* urandom */
    allow_device(devices, 1, 8, true);     /* random */
    allow_device(devices, 5, 0, true);     /* tty */
    allow_device(devices, 5, 1, true);     /* console */
    allow_device(devices, 10, 229, false); /* fuse */
    return json_pack("{s:o}", "devices", devices);
}

/* Without privileges a container may ping and bind low ports, in its own network only. */
static json_t *build_sysctl(const struct spec_input *input)
{
    json_t *sysctl = json_object();

    if (!input->host_network && input->host->has_unprivileged_ports)
        json_object_set_new(sysctl, "net.ipv4.ip_unprivileged_port_start", json_string("0"));
    if (!input->host_network && input->host->has_ping_group_range)
        json_object_set_new(sysctl, "net.ipv4.ping_group_range", json_string("0 2147483647"));
    return sysctl;
}

static json_t *build_masked_paths(const struct host_facts *host)
{
    json_t *paths = string_array(masked_paths);

    for (size_t i = 0; host->thermal_throttle_dirs && host->thermal_throttle_dirs[i]; i++)
        json_array_append_new(paths, json_string(host->thermal_throttle_dirs[i]));
    return paths;
}

static json_t *build_linux(const struct spec_input *input)
{
    CLEANUP_FREE char *cgroup = xasprintf("/davit/%s", input->id);
    json_t *linux_part =
        json_pack("{s:s, s:o, s:o, s:o, s:o, s:o}", "cgroupsPath", cgroup, "namespaces",
                  build_namespaces(input), "resources", build_resources(), "sysctl",
                  build_sysctl(input), "maskedPaths", build_masked_paths(input->host),
                  "readonlyPaths", string_array(readonly_paths));

    if (input->host->has_seccomp) {
        const struct seccomp_target target = {
            .architecture = seccomp_native_architecture(),
            .kernel_major = input->host->kernel_major,
            .kernel_minor = input->host->kernel_minor,
            .capabilities = default_capabilities,
        };
        json_object_set_new(linux_part, "seccomp", seccomp_default(&target));
    }
    return linux_part;
}

char *spec_build(const struct spec_input *input, struct error *err)
{
    CLEANUP_JSON json_t *spec = NULL;
    json_t *process = build_process(input, err);

    if (!process)
        return NULL;
    spec = json_pack("{s:s, s:o, s:{s:s}, s:s, s:o, s:o}", "ociVersion", OCI_VERSION, "process",
                     process, "root", "path", input->rootfs, "hostname", input->hostname, "mounts",
                     build_mounts(input), "linux", build_linux(input));
    if (!spec) {
        error_set(err, ERROR_INVALID_ARGUMENT, "NOT_UTF8",
                  "the path of the root directory or the hostname is not valid UTF-8");
        return NULL;
    }
    return json_text(spec);
}
