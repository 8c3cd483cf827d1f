/* Docker's default seccomp profile (seccomp-default.json, part of the program) as the linux.seccomp
 * object of an OCI runtime config. Pure; nothing suspends. */
#pragma once

#include "proto/base/json.h"

struct seccomp_target {
    const char *architecture; /* as the profile calls it: "amd64", "arm64" */
    unsigned int kernel_major, kernel_minor;
    const char *const *capabilities; /* bounding set, NULL-terminated */
};

/* What the daemon was built for; "" if the profile does not know it. */
const char *seccomp_native_architecture(void);

/* Keeps the rules whose includes and excludes (capabilities, architectures, least kernel) fit. A
 * profile as Docker's --security-opt takes it; the result is the caller's. INVALID_ARGUMENT,
 * reason INVALID_SECCOMP, if the profile is malformed. */
json_t *seccomp_convert(const json_t *profile, const struct seccomp_target *target,
                        struct error *err);

/* The default profile for a target. The caller's. */
json_t *seccomp_default(const struct seccomp_target *target);
