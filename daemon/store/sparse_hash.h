/* Hashing what a file holds, whatever it has of holes: they cost nothing, and it makes no
 * difference whether zeros are stored or not. Without it a layer of one block could claim a file
 * that takes hours to hash. */
#pragma once

#include <sys/types.h>

#include "proto/base/digest.h"

#define SPARSE_HASH_BLOCK (4 * KIB)

/* Reads up to size bytes (a multiple of the block) from the data at or after *offset (likewise) on,
 * and adds each block that is not all zero to the hash: its number (uint64, little-endian) and its
 * bytes, filled up with zeros at the end of the file. Moves *offset behind them. Blocks. Bytes
 * read, 0 at the end, a negative errno. */
ssize_t sparse_hash_step(struct hasher *hasher, int fd, off_t *offset, void *buffer, size_t size);

/* What tells the blocks of one file from what is hashed next. */
void sparse_hash_end(struct hasher *hasher);

/* Reads until size bytes are there or the file ends; a negative errno. */
ssize_t read_fully_at(int fd, void *buffer, size_t size, off_t offset);
