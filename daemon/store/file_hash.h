/* SHA-256 of a file as the disk has it: what is cached is read again, and nothing is left in the
 * cache. In steps, for the thread pool. */
#pragma once

#include <sys/types.h>

#include "proto/base/digest.h"

#define FILE_HASH_STEP_BYTES (1 * MIB)

struct file_hash;

/* A regular file in dir_fd. NULL with errno. */
struct file_hash *file_hash_open(int dir_fd, const char *name);
struct file_hash *file_hash_free(struct file_hash *hash); /* takes NULL; returns NULL */

/* Bytes read, about a MiB; 0 at the end; -1 with errno. */
ssize_t file_hash_step(struct file_hash *hash);

struct digest file_hash_finish(struct file_hash *hash); /* once, at the end */
