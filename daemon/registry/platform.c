/* After github.com/containerd/platforms: database.go (names), compare.go (what runs what). */
#include <ctype.h>
#include <stdio.h>
#include <sys/utsname.h>

#include "daemon/registry/manifest.h"

void platform_done(struct platform *platform)
{
    free(platform->os);
    free(platform->architecture);
    free(platform->variant);
    *platform = (struct platform){0};
}

/* --- Names ------------------------------------------------------------------------------------ */

static void lower(char *text)
{
    for (; text && *text; text++)
        *text = (char)tolower((unsigned char)*text);
}

static void replace(char **text, const char *with)
{
    free(*text);
    *text = xstrdup(with);
}

static void normalise_arm(struct platform *platform)
{
    const char *variant = platform->variant;

    if (str_empty(variant))
        replace(&platform->variant, "v7");
    else if (isdigit((unsigned char)variant[0]) && variant[1] == '\0') {
        char named[] = {'v', variant[0], '\0'};
        replace(&platform->variant, named);
    }
}

/* One spelling for each machine, Go's. */
static void normalise(struct platform *platform)
{
    static const struct {
        const char *name, *architecture, *variant;
    } aliases[] = {
        {"x86_64", "amd64", NULL}, {"x86-64", "amd64", NULL},        {"i386", "386", NULL},
        {"i686", "386", NULL},     {"aarch64", "arm64", NULL},       {"armhf", "arm", "v7"},
        {"armel", "arm", "v6"},    {"armv7l", "arm", "v7"},          {"armv6l", "arm", "v6"},
        {"armv5tel", "arm", "v5"}, {"loongarch64", "loong64", NULL},
    };

    lower(platform->os);
    lower(platform->architecture);
    lower(platform->variant);
    if (str_eq(platform->os, "macos"))
        replace(&platform->os, "darwin");
    for (size_t i = 0; i < ARRAY_SIZE(aliases); i++) {
        if (!str_eq(platform->architecture, aliases[i].name))
            continue;
        replace(&platform->architecture, aliases[i].architecture);
        if (aliases[i].variant)
            replace(&platform->variant, aliases[i].variant);
        break;
    }
    if (str_eq(platform->architecture, "arm"))
        normalise_arm(platform);
    if ((str_eq(platform->architecture, "amd64") && str_eq(platform->variant, "v1")) ||
        (str_eq(platform->architecture, "arm64") &&
         (str_eq(platform->variant, "v8") || str_eq(platform->variant, "8"))) ||
        str_eq(platform->architecture, "386") || (platform->variant && !*platform->variant))
        replace(&platform->variant, NULL);
}

static bool is_one_of(const char *text, const char *const *names)
{
    for (; *names; names++) {
        if (str_eq(text, *names))
            return true;
    }
    return false;
}

static bool known_os(const char *text)
{
    static const char *const names[] = {"linux",   "windows", "darwin",    "macos",   "freebsd",
                                        "openbsd", "netbsd",  "dragonfly", "solaris", "illumos",
                                        "aix",     "plan9",   "android",   NULL};

    return is_one_of(text, names);
}

static bool known_architecture(const char *text)
{
    static const char *const names[] = {"386",     "amd64",   "arm",      "arm64",  "loong64",
                                        "mips",    "mips64",  "mips64le", "mipsle", "ppc64",
                                        "ppc64le", "riscv64", "s390x",    "wasm",   NULL};

    return is_one_of(text, names);
}

/* --- Parsing ---------------------------------------------------------------------------------- */

static bool is_component(const char *text)
{
    size_t length = strlen(text);

    return length > 0 && length <= 64 &&
           strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.") ==
               length;
}

static void set_native(struct platform *platform)
{
    struct utsname machine;

    CHECK(uname(&machine) == 0);
    replace(&platform->os, "linux");
    replace(&platform->architecture, machine.machine);
    normalise(platform);
}

/* One word is an operating system or an architecture; this machine fills in the other. */
static bool complete_single(struct platform *platform, struct error *err)
{
    CLEANUP_PLATFORM struct platform native = {0}, alone = {.architecture = platform->os};

    platform->os = NULL;
    set_native(&native);
    lower(alone.architecture);
    if (known_os(alone.architecture)) {
        platform->os = TAKE(alone.architecture);
        platform->architecture = TAKE(native.architecture);
        platform->variant = TAKE(native.variant);
        return true;
    }
    normalise(&alone);
    if (!known_architecture(alone.architecture)) {
        error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_PLATFORM",
                  "\"%s\": unknown operating system or architecture", alone.architecture);
        return error_hint(err, "write it as linux/amd64, linux/arm64 or linux/arm/v7");
    }
    platform->os = TAKE(native.os);
    platform->architecture = TAKE(alone.architecture);
    platform->variant = TAKE(alone.variant);
    return true;
}

bool platform_parse(const char *text, struct platform *ret, struct error *err)
{
    CLEANUP_PLATFORM struct platform platform = {0};
    CLEANUP_FREE char *copy = xstrdup(text);
    char **const parts[] = {&platform.os, &platform.architecture, &platform.variant};
    char *rest = copy, *part;
    size_t count = 0;

    if (!*text) {
        set_native(&platform);
    } else {
        while ((part = strsep(&rest, "/"))) {
            if (count == ARRAY_SIZE(parts) || !is_component(part)) {
                error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_PLATFORM",
                          "invalid platform \"%.100s\"", text);
                return error_hint(err, "write it as linux/amd64, linux/arm64 or linux/arm/v7");
            }
            *parts[count++] = xstrdup(part);
        }
        if (count == 1 && !complete_single(&platform, err))
            return false;
        normalise(&platform);
    }
    *ret = platform;
    platform = (struct platform){0};
    return true;
}

char *platform_text(const struct platform *platform)
{
    return xasprintf("%s/%s%s%s", platform->os, platform->architecture,
                     platform->variant ? "/" : "", platform->variant ? platform->variant : "");
}

/* --- What runs what --------------------------------------------------------------------------- */

/* "v7" is 7; 0 if it is no such word. */
static int version_of(const char *variant)
{
    if (str_empty(variant) || variant[0] != 'v' || !isdigit((unsigned char)variant[1]) ||
        variant[2] != '\0')
        return 0;
    return variant[1] - '0';
}

/* Rank of an ARM variant for a core that runs `wanted` and all before it, down to v5. */
static int rank_arm(int wanted, const char *offered)
{
    int version = version_of(offered);

    return version >= 5 && version <= wanted ? wanted - version : -1;
}

static int rank_same_architecture(const struct platform *wanted, const struct platform *offered)
{
    int version = version_of(wanted->variant);

    if (str_eq(wanted->variant, offered->variant))
        return 0;
    if (str_eq(wanted->architecture, "amd64") && version > 1) {
        int have = offered->variant ? version_of(offered->variant) : 1;
        return have >= 1 && have < version ? version - have : -1;
    }
    if (str_eq(wanted->architecture, "arm") && version > 5)
        return rank_arm(version, offered->variant);
    return -1;
}

int platform_rank(const struct platform *wanted, const struct platform *offered)
{
    CLEANUP_PLATFORM struct platform plain = {
        .os = xstrdup(offered->os),
        .architecture = xstrdup(offered->architecture),
        .variant = xstrdup(offered->variant),
    };
    int rank;

    normalise(&plain);
    if (!str_eq(wanted->os, plain.os))
        return -1;
    if (str_eq(wanted->architecture, plain.architecture))
        return rank_same_architecture(wanted, &plain);
    if (str_eq(wanted->architecture, "amd64") && str_eq(plain.architecture, "386"))
        return 100;
    if (str_eq(wanted->architecture, "arm64") && str_eq(plain.architecture, "arm")) {
        rank = rank_arm(8, plain.variant);
        return rank < 0 ? -1 : 100 + rank;
    }
    return -1;
}
