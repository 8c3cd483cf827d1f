/* Headers of the tar archives that davit writes (POSIX.1-2017, pax, "ustar Interchange Format"):
 * short names of its own, numeric owner 0, no time, so that equal content is an equal archive. No
 * I/O. */
#pragma once

#include "proto/base/util.h"

#define TAR_BLOCK_BYTES 512
#define TAR_HEADER_MAX (3 * TAR_BLOCK_BYTES)
#define TAR_END_BYTES (2 * TAR_BLOCK_BYTES) /* of zeros, after the last entry */

struct tar_entry {
    const char *name;    /* up to 100 characters; a directory's ends in '/' */
    uint64_t size_bytes; /* what follows the header, before the padding */
};

/* How long the header is: one block, or three where ustar has no digits for the size. */
size_t tar_header_size(const struct tar_entry *entry);

/* Writes it, tar_header_size() bytes. */
void tar_header_write(const struct tar_entry *entry, uint8_t *ret);

/* Zeros that fill the last block of so much content. */
static inline size_t tar_padding(uint64_t size_bytes)
{
    return (size_t)(-size_bytes % TAR_BLOCK_BYTES);
}
