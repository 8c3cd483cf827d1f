/* JSON for people, as Go's json.Indent() lays it out: its own words and numbers, in their order. */
#pragma once

#include "proto/base/strbuf.h"

/* Appends JSON as it is, but with the characters escaped that could steer a terminal, so that the
 * meaning stays. */
void add_json_safe(struct strbuf *out, const char *json, size_t size);

/* Appends json, which must be valid, with each level indented by `indent` once more; safe
 * likewise. */
void add_json_indented(struct strbuf *out, const char *json, size_t size, const char *indent);
