#include "daemon/container/seccomp.h"

#include <stdio.h>

#include "daemon/container/seccomp_profile.h"

const char *seccomp_native_architecture(void)
{
#if defined(__x86_64__)
    return "amd64";
#elif defined(__i386__)
    return "x86";
#elif defined(__aarch64__)
    return "arm64";
#elif defined(__arm__)
    return "arm";
#elif defined(__riscv) && __riscv_xlen == 64
    return "riscv64";
#elif defined(__powerpc64__) && defined(__LITTLE_ENDIAN__)
    return "ppc64le";
#elif defined(__s390x__)
    return "s390x";
#elif defined(__loongarch64)
    return "loong64";
#else
    return "";
#endif
}

/* The profile's own two vocabularies. */
static const char *libseccomp_name(const char *architecture)
{
    static const char *const names[][2] = {
        {"amd64", "SCMP_ARCH_X86_64"},        {"arm64", "SCMP_ARCH_AARCH64"},
        {"riscv64", "SCMP_ARCH_RISCV64"},     {"ppc64le", "SCMP_ARCH_PPC64LE"},
        {"s390x", "SCMP_ARCH_S390X"},         {"arm", "SCMP_ARCH_ARM"},
        {"loong64", "SCMP_ARCH_LOONGARCH64"}, {"x86", "SCMP_ARCH_X86"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        if (str_eq(names[i][0], architecture))
            return names[i][1];
    }
    return NULL;
}

static bool names_any(const json_t *array, const char *wanted)
{
    for (size_t i = 0; i < json_array_size(array); i++) {
        if (str_eq(json_string_value(json_array_get(array, i)), wanted))
            return true;
    }
    return false;
}

static bool has_capability(const struct seccomp_target *target, const char *name)
{
    for (size_t i = 0; target->capabilities[i]; i++) {
        if (str_eq(target->capabilities[i], name))
            return true;
    }
    return false;
}

/* How many of a rule's capabilities the target has. */
static size_t count_capabilities(const json_t *array, const struct seccomp_target *target)
{
    size_t count = 0;

    for (size_t i = 0; i < json_array_size(array); i++) {
        const char *name = json_string_value(json_array_get(array, i));
        count += name && has_capability(target, name);
    }
    return count;
}

static bool kernel_is_at_least(const struct seccomp_target *target, const char *version)
{
    unsigned int major = 0, minor = 0;

    if (sscanf(version, "%u.%u", &major, &minor) != 2)
        return false;
    return target->kernel_major > major ||
           (target->kernel_major == major && target->kernel_minor >= minor);
}

/* As moby's profiles/seccomp does: any exclude that holds drops the rule, every include must hold.
 */
static bool rule_applies(const json_t *rule, const struct seccomp_target *target)
{
    const json_t *excludes = json_object_get(rule, "excludes");
    const json_t *includes = json_object_get(rule, "includes");
    const json_t *caps = json_object_get(includes, "caps");
    const json_t *arches = json_object_get(includes, "arches");
    const char *excluded_kernel = json_str(excludes, "minKernel");
    const char *needed_kernel = json_str(includes, "minKernel");

    if (names_any(json_object_get(excludes, "arches"), target->architecture) ||
        count_capabilities(json_object_get(excludes, "caps"), target) > 0 ||
        (excluded_kernel && kernel_is_at_least(target, excluded_kernel)))
        return false;
    if (json_array_size(arches) > 0 && !names_any(arches, target->architecture))
        return false;
    if (count_capabilities(caps, target) < json_array_size(caps))
        return false;
    return !needed_kernel || kernel_is_at_least(target, needed_kernel);
}

static json_t *convert_architectures(const json_t *map, const char *architecture)
{
    const char *native = libseccomp_name(architecture);
    json_t *result = json_array();

    for (size_t i = 0; native && i < json_array_size(map); i++) {
        const json_t *entry = json_array_get(map, i);
        if (!str_eq(json_str(entry, "architecture"), native))
            continue;
        json_array_append_new(result, json_string(native));
        json_array_extend(result, json_object_get(entry, "subArchitectures"));
        break;
    }
    return result;
}

/* A rule without the keys that are Docker's own. */
static json_t *convert_rule(const json_t *rule)
{
    static const char *const keys[] = {"names", "action", "errnoRet", "args"};
    json_t *result = json_object();

    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        json_t *value = json_object_get(rule, keys[i]);
        if (value)
            json_object_set(result, keys[i], value);
    }
    return result;
}

json_t *seccomp_convert(const json_t *profile, const struct seccomp_target *target,
                        struct error *err)
{
    const json_t *rules = json_object_get(profile, "syscalls");
    json_t *default_action = json_object_get(profile, "defaultAction");
    json_t *default_errno = json_object_get(profile, "defaultErrnoRet");
    json_t *result, *architectures, *syscalls;

    if (!json_is_string(default_action) || !json_is_array(rules)) {
        error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_SECCOMP",
                  "the seccomp profile has no defaultAction or no syscalls");
        return NULL;
    }
    result = json_object();
    json_object_set(result, "defaultAction", default_action);
    if (json_is_integer(default_errno))
        json_object_set(result, "defaultErrnoRet", default_errno);
    architectures =
        convert_architectures(json_object_get(profile, "archMap"), target->architecture);
    if (json_array_size(architectures) > 0)
        json_object_set(result, "architectures", architectures);
    json_decref(architectures);
    syscalls = json_array();
    for (size_t i = 0; i < json_array_size(rules); i++) {
        const json_t *rule = json_array_get(rules, i);
        if (rule_applies(rule, target))
            json_array_append_new(syscalls, convert_rule(rule));
    }
    json_object_set_new(result, "syscalls", syscalls);
    return result;
}

json_t *seccomp_default(const struct seccomp_target *target)
{
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_JSON json_t *profile = json_parse(seccomp_profile, sizeof(seccomp_profile), MIB,
                                              "the default seccomp profile", &err);
    json_t *result = profile ? seccomp_convert(profile, target, &err) : NULL;

    if (!result)
        die("%s", err.message);
    return result;
}
