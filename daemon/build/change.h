/* Instructions applied to the configuration of an image (OCI image-spec, config.md, "config"), as
 * `docker import --change` and `docker commit --change` do. Without I/O. */
#pragma once

#include "proto/base/error.h"
#include "proto/base/json.h"

#define CHANGES_MAX_BYTES (64 * KIB) /* of all together */

/* config: the object to be changed, with keys as Docker has them ("Env", "Cmd"). Each change is one
 * or more lines of a Dockerfile. INVALID_ARGUMENT in Docker's words for what is no instruction that
 * changes a configuration; config may then be half changed. */
bool changes_apply(json_t *config, char *const *changes, size_t count, struct error *err);
