/* Times that HTTP headers give (RFC 9110, 5.6.7 and 10.2.3). No I/O. */
#pragma once

#include "proto/base/util.h"

/* "Sun, 06 Nov 1994 08:49:37 GMT", and the two obsolete forms. Seconds since 1970. */
bool http_date_parse(const char *text, int64_t now_unix, int64_t *ret_unix);

/* Retry-After: seconds, or a date. In milliseconds from now on, at least 1, at most a year; 0 if it
 * makes no sense. */
uint64_t retry_after_ms(const char *text, int64_t now_unix);
