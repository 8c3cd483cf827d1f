/* Fetching again what is damaged, from where it came. */
#pragma once

#include "daemon/image/pull.h"

/* Credentials for one registry; all borrowed. */
struct registry_login {
    const char *domain; /* "docker.io", as in references */
    struct registry_auth auth;
};

struct repairer {
    const struct pull_engine *engine;
    const struct registry_login *logins;
    size_t login_count;
    struct transfer_share *share; /* what is being fetched; NULL: nothing */
};

/* Fetches a layer from the repositories that it was seen in until one has it. FAILED_PRECONDITION:
 * NO_SOURCE if none is known, LAYER_IN_USE; otherwise the error of the last one. */
bool await_repair_layer(struct repairer *repairer, const struct digest *diff_id, struct error *err);

/* Fetches the manifest and the config of an image by its digest, likewise. */
bool await_repair_image(struct repairer *repairer, const struct digest *id, struct error *err);
