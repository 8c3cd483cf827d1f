#include "tests/unit/test.h"

#include "daemon/container/seccomp.h"
#include "daemon/container/spec.h"

/* --- Helpers -----------------------------------------------------------------------------------
 */

static char *args[] = {"echo", "hello", NULL};
static char *env[] = {"PATH=/bin", "HOME=/", NULL};
static char *throttle[] = {"/sys/devices/system/cpu/cpu0/thermal_throttle", NULL};
static uint32_t groups[] = {29, 44};
static struct exec_user root = {.home = "/root"};
static struct exec_user web = {
    .uid = 1000, .gid = 1001, .groups = groups, .group_count = 2, .home = "/"};
static const struct host_facts modern = {
    .kernel_major = 6,
    .kernel_minor = 1,
    .has_seccomp = true,
    .has_cgroup2 = true,
    .has_unprivileged_ports = true,
    .has_ping_group_range = true,
    .thermal_throttle_dirs = throttle,
};
static const struct host_facts bare = {.kernel_major = 5, .kernel_minor = 10};

static struct spec_input typical(void)
{
    return (struct spec_input){
        .id = "0123456789abcdef",
        .rootfs = "/run/davit/containers/x/rootfs",
        .args = args,
        .env = env,
        .cwd = "/srv",
        .hostname = "0123456789ab",
        .user = &root,
        .host = &modern,
        .hosts_path = "/data/hosts",
        .hostname_path = "/data/hostname",
        .resolv_conf_path = "/data/resolv.conf",
    };
}

static json_t *build(const struct spec_input *input)
{
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_FREE char *text = spec_build(input, &err);
    json_t *spec;

    assert_ok(text != NULL, &err);
    spec = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(spec);
    return spec;
}

/* json_get(spec, "process", "user", "uid"): borrowed. */
#define json_get(json, ...) json_walk(json, (const char *[]){__VA_ARGS__, NULL})
static json_t *json_walk(json_t *json, const char **keys)
{
    for (; *keys; keys++)
        json = json_object_get(json, *keys);
    return json;
}

static bool has_string(const json_t *array, const char *wanted)
{
    for (size_t i = 0; i < json_array_size(array); i++) {
        if (str_eq(json_string_value(json_array_get(array, i)), wanted))
            return true;
    }
    return false;
}

static json_t *find_by(json_t *array, const char *key, const char *value)
{
    for (size_t i = 0; i < json_array_size(array); i++) {
        json_t *item = json_array_get(array, i);
        if (str_eq(json_str(item, key), value))
            return item;
    }
    return NULL;
}

/* --- The config ---------------------------------------------------------------------------------
 */

static void validate(const struct spec_input *input)
{
    static const char *command = "/usr/bin/python3 " VALIDATE_SCRIPT " " SCHEMA_DIR;
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_FREE char *text = spec_build(input, &err);
    FILE *pipe;
    int status;

    assert_ok(text != NULL, &err);
    pipe = popen(command, "w");
    assert_non_null(pipe);
    fputs(text, pipe);
    status = pclose(pipe);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77 && !getenv("CI"))
        skip();
    assert_int_equal(status, 0);
}

static void config_is_valid_by_the_schema(void **state UNUSED)
{
    struct spec_input input = typical();

    validate(&input);
    input.host = &bare;
    input.user = &web;
    input.host_network = true;
    validate(&input);
}

static void process_is_what_was_asked(void **state UNUSED)
{
    struct spec_input input = typical();
    CLEANUP_JSON json_t *spec = NULL;
    json_t *process;

    input.user = &web;
    spec = build(&input);
    process = json_get(spec, "process");
    assert_string_equal(json_string_value(json_array_get(json_get(process, "args"), 1)), "hello");
    assert_string_equal(json_string_value(json_array_get(json_get(process, "env"), 0)),
                        "PATH=/bin");
    assert_string_equal(json_str(process, "cwd"), "/srv");
    assert_int_equal(json_int(json_get(process, "user"), "uid", -1), 1000);
    assert_int_equal(json_int(json_get(process, "user"), "gid", -1), 1001);
    CLEANUP_FREE char *gids = json_text(json_get(process, "user", "additionalGids"));
    assert_string_equal(gids, "[1001,29,44]");
    assert_string_equal(json_str(spec, "hostname"), "0123456789ab");
    assert_string_equal(json_str(json_get(spec, "root"), "path"), input.rootfs);
    assert_string_equal(json_str(json_get(spec, "linux"), "cgroupsPath"),
                        "/davit/0123456789abcdef");
    assert_null(json_get(process, "rlimits"));
    assert_null(json_get(process, "noNewPrivileges"));
}

static void the_daemons_oom_protection_is_not_inherited(void **state UNUSED)
{
    struct host_facts spared = modern;
    struct spec_input input = typical();
    CLEANUP_JSON json_t *usual = build(&input);
    CLEANUP_JSON json_t *reset = NULL;

    assert_null(json_get(usual, "process", "oomScoreAdj"));
    spared.is_spared_by_oom = true;
    input.host = &spared;
    reset = build(&input);
    assert_true(json_is_integer(json_get(reset, "process", "oomScoreAdj")));
    assert_int_equal(json_integer_value(json_get(reset, "process", "oomScoreAdj")), 0);
}

static void capabilities_are_dockers(void **state UNUSED)
{
    struct spec_input input = typical();
    CLEANUP_JSON json_t *as_root = build(&input);
    CLEANUP_JSON json_t *as_web = NULL;
    json_t *sets = json_get(as_root, "process", "capabilities");

    assert_int_equal(json_object_size(sets), 3);
    assert_int_equal(json_array_size(json_get(sets, "bounding")), 14);
    assert_true(json_equal(json_get(sets, "bounding"), json_get(sets, "effective")));
    assert_true(json_equal(json_get(sets, "bounding"), json_get(sets, "permitted")));
    assert_true(has_string(json_get(sets, "bounding"), "CAP_NET_RAW"));
    assert_false(has_string(json_get(sets, "bounding"), "CAP_SYS_ADMIN"));
    input.user = &web;
    as_web = build(&input);
    sets = json_get(as_web, "process", "capabilities");
    assert_int_equal(json_object_size(sets), 1);
    assert_int_equal(json_array_size(json_get(sets, "bounding")), 14);
}

static void mounts_are_dockers(void **state UNUSED)
{
    static const char *const expected[][2] = {
        {"/proc", "proc"},
        {"/dev", "tmpfs"},
        {"/dev/pts", "devpts"},
        {"/sys", "sysfs"},
        {"/sys/fs/cgroup", "cgroup"},
        {"/dev/mqueue", "mqueue"},
        {"/dev/shm", "tmpfs"},
        {"/etc/resolv.conf", "bind"},
        {"/etc/hostname", "bind"},
        {"/etc/hosts", "bind"},
    };
    struct spec_input input = typical();
    CLEANUP_JSON json_t *spec = build(&input);
    json_t *mounts = json_get(spec, "mounts");

    assert_int_equal(json_array_size(mounts), ARRAY_SIZE(expected));
    for (size_t i = 0; i < ARRAY_SIZE(expected); i++) {
        json_t *mount = json_array_get(mounts, i);
        assert_string_equal(json_str(mount, "destination"), expected[i][0]);
        assert_string_equal(json_str(mount, "type"), expected[i][1]);
    }
    assert_true(has_string(json_get(find_by(mounts, "destination", "/sys"), "options"), "ro"));
    assert_true(has_string(json_get(find_by(mounts, "destination", "/dev/shm"), "options"),
                           "size=67108864"));
    assert_string_equal(json_str(find_by(mounts, "destination", "/etc/hosts"), "source"),
                        "/data/hosts");
}

static void namespaces_follow_network_and_cgroups(void **state UNUSED)
{
    struct spec_input input = typical();
    CLEANUP_JSON json_t *own = build(&input);
    CLEANUP_JSON json_t *host = NULL;
    json_t *namespaces = json_get(own, "linux", "namespaces");

    assert_int_equal(json_array_size(namespaces), 6);
    assert_non_null(find_by(namespaces, "type", "network"));
    assert_non_null(find_by(namespaces, "type", "cgroup"));
    assert_string_equal(json_str(json_get(own, "linux", "sysctl"), "net.ipv4.ping_group_range"),
                        "0 2147483647");
    assert_string_equal(json_str(json_get(own, "linux", "sysctl"),
                                 "net.ipv4.ip_unprivileged_port_start"),
                        "0");
    input.host_network = true;
    input.host = &bare;
    host = build(&input);
    namespaces = json_get(host, "linux", "namespaces");
    assert_int_equal(json_array_size(namespaces), 4);
    assert_null(find_by(namespaces, "type", "network"));
    assert_null(find_by(namespaces, "type", "cgroup"));
    assert_int_equal(json_object_size(json_get(host, "linux", "sysctl")), 0);
}

static void paths_are_masked_as_in_docker(void **state UNUSED)
{
    struct spec_input input = typical();
    CLEANUP_JSON json_t *spec = build(&input);
    json_t *masked = json_get(spec, "linux", "maskedPaths");
    json_t *readonly = json_get(spec, "linux", "readonlyPaths");

    assert_int_equal(json_array_size(masked), 13);
    assert_true(has_string(masked, "/proc/kcore"));
    assert_true(has_string(masked, "/proc/interrupts"));
    assert_true(has_string(masked, "/sys/firmware"));
    assert_true(has_string(masked, "/sys/devices/virtual/powercap"));
    assert_true(has_string(masked, throttle[0]));
    assert_int_equal(json_array_size(readonly), 5);
    assert_true(has_string(readonly, "/proc/sysrq-trigger"));
}

static void what_is_not_utf8_is_refused(void **state UNUSED)
{
    struct spec_input input = typical();
    CLEANUP_ERROR struct error err = {0};

    input.args = (char *[]){"echo", "\xff", NULL};
    assert_null(spec_build(&input, &err));
    assert_error(&err, ERROR_INVALID_ARGUMENT, "the command is not valid UTF-8");
    input.args = args;
    input.env = (char *[]){"A=\xc3", NULL};
    assert_null(spec_build(&input, &err));
    assert_error(&err, ERROR_INVALID_ARGUMENT, "the environment is not valid UTF-8");
    input.env = env;
    input.cwd = "/\xfe";
    assert_null(spec_build(&input, &err));
    assert_error(&err, ERROR_INVALID_ARGUMENT, "the working directory is not valid UTF-8");
}

/* --- Seccomp ------------------------------------------------------------------------------------
 */

static const char *const no_caps[] = {NULL};
static const char *const admin[] = {"CAP_SYS_ADMIN", NULL};

/* The action of the first rule for a call that has no conditions; NULL if there is none. */
static const char *action_of(json_t *seccomp, const char *call)
{
    json_t *rules = json_get(seccomp, "syscalls");

    for (size_t i = 0; i < json_array_size(rules); i++) {
        json_t *rule = json_array_get(rules, i);
        if (has_string(json_get(rule, "names"), call) && !json_get(rule, "args"))
            return json_str(rule, "action");
    }
    return NULL;
}

static void default_profile_converts(void **state UNUSED)
{
    const struct seccomp_target target = {"amd64", 6, 1, no_caps};
    CLEANUP_JSON json_t *seccomp = seccomp_default(&target);
    CLEANUP_FREE char *arches = json_text(json_get(seccomp, "architectures"));
    CLEANUP_FREE char *text = json_text(seccomp);

    assert_string_equal(json_str(seccomp, "defaultAction"), "SCMP_ACT_ERRNO");
    assert_int_equal(json_int(seccomp, "defaultErrnoRet", -1), 1);
    assert_string_equal(arches, "[\"SCMP_ARCH_X86_64\",\"SCMP_ARCH_X86\",\"SCMP_ARCH_X32\"]");
    assert_string_equal(action_of(seccomp, "read"), "SCMP_ACT_ALLOW");
    assert_string_equal(action_of(seccomp, "arch_prctl"), "SCMP_ACT_ALLOW");
    assert_string_equal(action_of(seccomp, "ptrace"), "SCMP_ACT_ALLOW");
    assert_null(action_of(seccomp, "mount"));
    assert_null(action_of(seccomp, "bpf"));
    assert_null(action_of(seccomp, "s390_runtime_instr"));
    assert_string_equal(action_of(seccomp, "clone3"), "SCMP_ACT_ERRNO");
    assert_null(strstr(text, "includes"));
    assert_null(strstr(text, "excludes"));
    assert_null(strstr(text, "comment"));
}

static void rules_depend_on_target(void **state UNUSED)
{
    const struct seccomp_target old = {"amd64", 4, 7, no_caps};
    const struct seccomp_target privileged = {"amd64", 6, 1, admin};
    const struct seccomp_target arm = {"arm64", 6, 1, no_caps};
    const struct seccomp_target unknown = {"", 6, 1, no_caps};
    CLEANUP_JSON json_t *on_old = seccomp_default(&old);
    CLEANUP_JSON json_t *on_privileged = seccomp_default(&privileged);
    CLEANUP_JSON json_t *on_arm = seccomp_default(&arm);
    CLEANUP_JSON json_t *on_unknown = seccomp_default(&unknown);

    assert_null(action_of(on_old, "ptrace")); /* from 4.8 */
    assert_string_equal(action_of(on_privileged, "mount"), "SCMP_ACT_ALLOW");
    assert_string_equal(action_of(on_privileged, "clone3"), "SCMP_ACT_ALLOW");
    assert_null(action_of(on_arm, "arch_prctl"));
    assert_string_equal(action_of(on_arm, "set_tls"), "SCMP_ACT_ALLOW");
    assert_string_equal(json_string_value(json_array_get(json_get(on_arm, "architectures"), 0)),
                        "SCMP_ARCH_AARCH64");
    assert_null(json_get(on_unknown, "architectures"));
}

static void includes_and_excludes_combine(void **state UNUSED)
{
    static const char profile_text[] =
        "{\"defaultAction\":\"SCMP_ACT_KILL\",\"syscalls\":["
        "{\"names\":[\"both\"],\"action\":\"SCMP_ACT_ALLOW\",\"includes\":{\"caps\":[\"CAP_A\","
        "\"CAP_B\"]}},"
        "{\"names\":[\"one\"],\"action\":\"SCMP_ACT_ALLOW\",\"includes\":{\"caps\":[\"CAP_A\"]}},"
        "{\"names\":[\"not_any\"],\"action\":\"SCMP_ACT_ALLOW\",\"excludes\":{\"caps\":[\"CAP_B\","
        "\"CAP_A\"]}},"
        "{\"names\":[\"before\"],\"action\":\"SCMP_ACT_ALLOW\",\"excludes\":{\"minKernel\":\"5.4\"}"
        "},"
        "{\"names\":[\"after\"],\"action\":\"SCMP_ACT_ALLOW\",\"includes\":{\"minKernel\":\"5.4\"}}"
        ","
        "{\"names\":[\"elsewhere\"],\"action\":\"SCMP_ACT_ALLOW\",\"excludes\":{\"arches\":["
        "\"amd64\"]}}]}";
    static const char *const caps[] = {"CAP_A", NULL};
    const struct seccomp_target target = {"amd64", 5, 4, caps};
    CLEANUP_JSON json_t *profile = json_loads(profile_text, 0, NULL);
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_JSON json_t *seccomp = seccomp_convert(profile, &target, &err);

    assert_ok(seccomp != NULL, &err);
    assert_null(action_of(seccomp, "both"));
    assert_non_null(action_of(seccomp, "one"));
    assert_null(action_of(seccomp, "not_any"));
    assert_null(action_of(seccomp, "before"));
    assert_non_null(action_of(seccomp, "after"));
    assert_null(action_of(seccomp, "elsewhere"));
    assert_null(json_get(seccomp, "defaultErrnoRet"));
}

static void seccomp_only_where_the_kernel_has_it(void **state UNUSED)
{
    struct spec_input input = typical();
    CLEANUP_JSON json_t *with = build(&input);
    CLEANUP_JSON json_t *without = NULL;

    input.host = &bare;
    without = build(&input);
    assert_non_null(json_get(with, "linux", "seccomp"));
    assert_null(json_get(without, "linux", "seccomp"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(config_is_valid_by_the_schema),
        cmocka_unit_test(process_is_what_was_asked),
        cmocka_unit_test(the_daemons_oom_protection_is_not_inherited),
        cmocka_unit_test(capabilities_are_dockers),
        cmocka_unit_test(mounts_are_dockers),
        cmocka_unit_test(namespaces_follow_network_and_cgroups),
        cmocka_unit_test(paths_are_masked_as_in_docker),
        cmocka_unit_test(what_is_not_utf8_is_refused),
        cmocka_unit_test(default_profile_converts),
        cmocka_unit_test(rules_depend_on_target),
        cmocka_unit_test(includes_and_excludes_combine),
        cmocka_unit_test(seccomp_only_where_the_kernel_has_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
