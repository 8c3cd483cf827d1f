/* What the words of TOML are: numbers, dates, characters. For toml.c only. */
#pragma once

#include "proto/base/util.h"

/* Decimal, 0x, 0o or 0b, with underscores between digits; 64 bits. */
bool toml_read_integer(const char *at, const char *end, int64_t *ret);
bool toml_is_float(const char *at, const char *end);

/* RFC 3339, also without an offset, a time, or a day. */
bool toml_is_date(const char *at);

/* The length of the character at text (RFC 3629), or 0. */
size_t toml_utf8_length(const unsigned char *text, size_t size);
