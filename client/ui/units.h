/* Times as Docker prints them (github.com/docker/go-units), which are appended, and the part of an
 * ID that it shows. Sizes come from proto/base. */
#pragma once

#include "proto/base/size.h"

/* "Less than a second", "About an hour", "2 weeks". Negative counts as none. */
void add_duration(struct strbuf *out, int64_t seconds);

/* For a countdown: "45s", "1m05s", "2h03m". */
void add_countdown(struct strbuf *out, int64_t milliseconds);

#define SHORT_ID 12 /* digits of an ID or a digest that will mostly do */

/* An ID or a digest without "sha256:". */
const char *id_digits(const char *id);
