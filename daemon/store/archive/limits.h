/* Limits of what a layer may hold (SECURITY.md, "Limits"). */
#pragma once

#include "proto/base/util.h"

#define LAYER_PATH_MAX 4096 /* with the NUL */
#define LAYER_XATTRS_MAX (64 * KIB)
#define LAYER_XATTR_COUNT_MAX 1024
#define LAYER_ENTRIES_MAX 2000000
#define LAYER_CONTENT_MAX (16 * 1024 * GIB) /* sparse files claim more than they hold */
#define LAYER_OPAQUE_MAX (4 * MIB)          /* all paths of opaque directories together */

/* What Linux has bits for. */
#define LAYER_DEVICE_MAJOR_MAX 4095
#define LAYER_DEVICE_MINOR_MAX 1048575
