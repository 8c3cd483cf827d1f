/* A layer's tar as the compressed blob that it becomes on its way to a registry: made as it is
 * sent, in the thread pool, of which no more than a chunk is in memory. Any part of it can be had
 * again, at worst by beginning anew: the same comes out. Begin with pack_new(). */
#pragma once

#include "daemon/store/compress.h"
#include "daemon/store/layer_tar.h"

struct pack;

/* Takes the tar over. What it fails with this does, too: DATA_LOSS (LAYER_DAMAGED). */
struct pack *pack_new(struct layer_tar *tar, enum compression compression);
struct pack *pack_free(struct pack *pack); /* takes NULL; returns NULL */

/* As await_chunk, await_read and await_measure of struct upload_content. A chunk of UINT64_MAX, all
 * there is, is made while it is read. */
int64_t await_pack_chunk(struct pack *pack, uint64_t offset, uint64_t min_bytes, uint64_t max_bytes,
                         bool *ret_last, struct error *err);
ssize_t await_pack_read(struct pack *pack, uint64_t offset, void *buffer, size_t size,
                        struct error *err);
bool await_pack_measure(struct pack *pack, struct digest *ret_digest, uint64_t *ret_size,
                        struct error *err);

/* How much of the tar about so many bytes of the present chunk stand for; all of it at the end. */
uint64_t pack_tar_bytes(const struct pack *pack, uint64_t offset);
