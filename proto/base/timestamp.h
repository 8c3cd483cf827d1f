/* Moments as users of Docker write them, after --since, --until and in filters. */
#pragma once

#include "proto/base/util.h"

/* Reads "24h" (so long before now; with a minus after it), "2024-01-02T03:04:05.5Z" and its shorter
 * forms down to "2024-01-02" (without a zone: local time), or seconds since 1970
 * ("1136073845.000000001"). False for anything else. */
bool timestamp_parse(const char *text, int64_t now_unix_ns, int64_t *ret_unix_ns);
