/* Durations as text, as Go reads them. */
#pragma once

#include "proto/base/util.h"

/* Reads "1h30m", "1.5s", "500ms", "0", and with days "30d"; also "us", "ns", rounded up to a
 * millisecond. At most 100 years; not negative. False for anything else. */
bool duration_parse(const char *text, uint64_t *ret_ms);
bool duration_parse_ns(const char *text, uint64_t *ret_ns); /* the same, not rounded so */
