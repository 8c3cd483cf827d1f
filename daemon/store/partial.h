/* Blobs on their way in, and what is kept of those that did not arrive: each in a file of its own
 * below the data root, partial/<hex of its digest>, with a map of what is in it. Bytes come in any
 * order and from several threads; what came is found again after a cancelled transfer, a kill, a
 * full disk or a power cut.
 *
 * Nouns: a *partial*, a blob that is being fetched; *kept*, one that nobody works on. Begin with
 * await_partial_open(), ask partial_missing() what to fetch, and write it. What is kept is removed
 * once it is old, too much, or in the way of something that has to be stored: leases prevent that.
 *
 * What a partial holds is what somebody sent, at best: its digest is for the caller to check, over
 * all bytes. */
#pragma once

#include "daemon/store/byte_ranges.h"
#include "daemon/store/store.h"

struct partial;

/* Finds what is kept of a blob, or begins with nothing; a file that is damaged, or of a blob of
 * another size, is discarded. One user at a time has it: waits for the others. Suspends. */
struct partial *await_partial_open(struct store *store, const struct digest *blob,
                                   uint64_t size_bytes, struct error *err);

/* Ends the use, and makes durable what is to be kept: whole blocks of 4 KiB (more for blobs beyond
 * 4 GiB). No read or write may be going on. Suspends, also for a cancelled task. Takes NULL;
 * returns NULL. */
struct partial *partial_close_await(struct partial *partial);

/* Nothing of it is kept when it is closed: the bytes are wrong, or stored elsewhere now. */
void partial_discard(struct partial *partial);

/* What it holds, byte-exact for what was written since it was opened. On any thread. */
uint64_t partial_bytes(struct partial *partial);
uint64_t partial_contiguous(struct partial *partial); /* from the first byte on */
bool partial_missing(struct partial *partial, uint64_t from, struct byte_range *ret);

/* Writes what is not there yet: a byte never changes once it is, nor while another thread writes
 * it (which then may be missing still on return). Blocks; from several threads at once. NO_SPACE
 * where it would get into the reserve. After an error, what was written counts; IO_ERROR of a disk
 * that lost bytes comes again with every write. */
bool partial_write_blocking(struct partial *partial, uint64_t offset, const void *data, size_t size,
                            struct error *err);

/* Bytes that are there. Blocks. */
bool partial_read_blocking(struct partial *partial, uint64_t offset, void *data, size_t size,
                           struct error *err);

/* Forgets all bytes, to begin again in place. Nobody may read or write meanwhile. Suspends. */
bool await_partial_reset(struct partial *partial, struct error *err);

/* Keeps the blob beside the layer when that is committed. All of it is there, and its digest was
 * checked. It stays the caller's, to be closed after the commit; if that succeeded it is to be
 * discarded, which leaves the layer's copy alone. Suspends. */
void layer_adopt_blob_await(struct layer_writer *writer, struct partial *partial);

/* --- What is kept ------------------------------------------------------------------------------
 */

/* Blobs that somebody is going to open: what is kept of them stays, however old or large it is. */
struct partial_lease;
struct partial_lease *partial_lease_new(struct store *store, const struct digest *blobs,
                                        size_t count);
struct partial_lease *partial_lease_free(struct partial_lease *lease); /* does not suspend; NULL */

/* How many bytes there are of a blob, also of one that is open. From the disk: suspends. */
bool await_partial_kept(struct store *store, const struct digest *blob, uint64_t size_bytes,
                        uint64_t *ret_bytes, struct error *err);

/* Removes what was written last before a moment (INT64_MAX: all) and is neither in use nor leased.
 * dry_run: nothing is removed. ret: what was (or would be), also after an error. */
struct partials_pruned {
    size_t count;
    uint64_t freed_bytes; /* on the disk */
};
bool await_partials_prune(struct store *store, int64_t before_unix_ns, bool dry_run,
                          struct partials_pruned *ret, struct error *err);
