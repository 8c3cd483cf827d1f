/* The OCI runtime config (config.json) of a container, with Docker's defaults. A pure function:
 * everything it depends on is in its input. */
#pragma once

#include "daemon/container/host.h"
#include "daemon/container/user.h"
#include "proto/base/json.h"

struct spec_input {
    const char *id;
    const char *rootfs; /* absolute path of the mounted root */
    char *const *args;
    char *const *env;
    const char *cwd;
    const char *hostname;
    const struct exec_user *user;
    const struct host_facts *host;
    bool host_network;
    const char *hosts_path, *hostname_path, *resolv_conf_path; /* bind-mounted over /etc/... */
};

/* OCI runtime-spec config.md and config-linux.md; defaults as moby's oci.DefaultLinuxSpec. The
 * caller owns the text. INVALID_ARGUMENT if a string of the input is not UTF-8, which JSON cannot
 * carry. */
char *spec_build(const struct spec_input *input, struct error *err);
