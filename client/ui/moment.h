/* Moments as Docker prints them, in local time. All functions append. */
#pragma once

#include "proto/base/strbuf.h"

/* What a moment is of which nothing is known but that it is too long ago: Go's zero time. */
#define MOMENT_LONG_AGO INT64_MIN

/* Go's time.String() of whole seconds: "2024-01-02 03:04:05 +0100 CET". */
void add_moment(struct strbuf *out, int64_t unix_ns);

/* RFC 3339 of whole seconds: "2024-01-02T03:04:05+01:00", "...Z". */
void add_date(struct strbuf *out, int64_t unix_ns);
