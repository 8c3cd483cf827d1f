/* Sizes in bytes as text, and back. */
#pragma once

#include "proto/base/strbuf.h"

/* Decimal, four significant digits, as Docker prints them (github.com/docker/go-units): "187.9MB",
 * "12kB", "0B". Appends. */
void add_size(struct strbuf *out, uint64_t bytes);

/* Binary: "7.752GiB". Appends. */
void add_memory_size(struct strbuf *out, uint64_t bytes);

/* The first of them as a value, for the arguments of a message: size_text(bytes).text */
struct size_text {
    char text[16];
};
struct size_text size_text(uint64_t bytes);
struct size_text short_size_text(uint64_t bytes); /* with three digits: "188MB" */

/* Reads "10GB", "1.5g", "512MiB", "4096": a number and a unit, K, M, G or T, decimal, or binary
 * with an i; a B may follow. Upper or lower case. False for anything else. */
bool size_parse(const char *text, uint64_t *ret_bytes);
