/* Times as Docker prints them (github.com/docker/go-units). All functions append; those for sizes
 * come from proto/base. */
#pragma once

#include "proto/base/size.h"

/* "Less than a second", "About an hour", "2 weeks". Negative counts as none. */
void add_duration(struct strbuf *out, int64_t seconds);

/* For a countdown: "45s", "1m05s", "2h03m". */
void add_countdown(struct strbuf *out, int64_t milliseconds);
