/* The compressed blob that is kept of a layer which comes another way than from a registry: made of
 * the layer's bytes, or written as it came. For the thread pool. */
#pragma once

#include "proto/base/digest.h"

struct blob_writer;

/* Into a new file of the directory, whose descriptor stays the caller's and open. compress: what
 * will be written is the layer's tar; otherwise it is the blob. */
struct blob_writer *blob_writer_new(int dir_fd, bool compress);
struct blob_writer *blob_writer_free(struct blob_writer *blob); /* takes NULL; returns NULL */

bool blob_writer_compresses(const struct blob_writer *blob);

/* ret_bytes: by so many the file has grown. */
bool blob_write_blocking(struct blob_writer *blob, const void *data, size_t size,
                         uint64_t *ret_bytes, struct error *err);

/* No more bytes: the file is complete and durable. */
bool blob_finish_blocking(struct blob_writer *blob, struct digest *ret_digest, uint64_t *ret_size,
                          struct error *err);
