/* Sizes and times as Docker prints them (github.com/docker/go-units). All functions append. */
#pragma once

#include "proto/base/strbuf.h"

/* Decimal, four significant digits: "187.9MB", "12kB", "0B". */
void add_size(struct strbuf *out, uint64_t bytes);

/* Binary: "7.752GiB". */
void add_memory_size(struct strbuf *out, uint64_t bytes);

/* "Less than a second", "About an hour", "2 weeks". Negative counts as none. */
void add_duration(struct strbuf *out, int64_t seconds);

/* For a countdown: "45s", "1m05s", "2h03m". */
void add_countdown(struct strbuf *out, int64_t milliseconds);
