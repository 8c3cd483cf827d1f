/* Layers on their way from a registry into the store: one table for the whole daemon, keyed by
 * blob digest, so that pulls which share a layer share its transfer.
 *
 * Nouns: the *table*; a *transfer*, one blob in flight, fetched, checked, inflated and stored by
 * one task; a *share*, what a pull holds of a transfer. The last share to go cancels it.
 * Begin with transfer_join(). */
#pragma once

#include "daemon/registry/registry.h"
#include "daemon/store/store.h"

struct transfer_table;

struct transfer_options {
    struct store *store;
    struct registry_client *client;
    unsigned int max_concurrent; /* at most that many fetch at a time */
    bool keep_compressed;        /* the blobs stay beside the layers */
};

/* Transfers' tasks run in a group of the table. */
struct transfer_table *transfer_table_new(const struct transfer_options *options);
/* Cancels what runs and waits for it; no share may be left. Returns NULL. */
struct transfer_table *transfer_table_free_await(struct transfer_table *table);

enum transfer_state {
    TRANSFER_WAITING,  /* for its turn */
    TRANSFER_FETCHING, /* downloading, checking and storing at once */
    TRANSFER_STORING,  /* all bytes are here, the rest is being written */
    TRANSFER_DONE,
    TRANSFER_FAILED,
};

struct transfer_progress {
    enum transfer_state state;
    uint64_t bytes_fetched, bytes_stored;
    uint64_t bytes_per_second; /* smoothed */
};

struct transfer_share;

/* Joins the transfer of a blob, or starts it. Does not suspend. reference and auth say where this
 * requester would fetch it; they are copied. A transfer tries its requesters' sources in the order
 * in which they joined. NULL with err if no task can be started. The caller owns the share. */
struct transfer_share *transfer_join(struct transfer_table *table,
                                     const struct reference *reference,
                                     const struct registry_auth *auth,
                                     const struct descriptor *blob, const struct digest *diff_id,
                                     struct error *err);

/* Whether transfer_join() would find one that runs. */
bool transfer_runs(const struct transfer_table *table, const struct descriptor *blob,
                   const struct digest *diff_id);

/* Lower bounds of what the disk has to have for a blob of this size, and for what the transfers
 * that run have yet to fetch. A layer's files never take less than the blob, which may be kept,
 * too. */
uint64_t transfer_disk_bytes(const struct transfer_table *table, uint64_t blob_bytes);
uint64_t transfer_table_disk_bytes_left(const struct transfer_table *table);

/* Whether some that were given up have not ended yet: what they had stored is still on the disk. */
bool transfer_table_unwinds(const struct transfer_table *table);

/* Waits until one of those has ended. */
int await_transfer_unwound(struct transfer_table *table);

/* The newest state; does not suspend. */
struct transfer_progress transfer_progress(const struct transfer_share *share);

uint64_t transfer_blob_bytes(const struct transfer_share *share); /* of which these are fetched */

/* Waits until the layer is committed. Every share gets the same error if it failed. Cancel leaves
 * the transfer to the others. */
bool await_transfer(struct transfer_share *share, struct error *err);

/* Gives up the share; the last one cancels a transfer that has not ended. Returns NULL. */
struct transfer_share *transfer_leave(struct transfer_share *share);
static inline void transfer_leave_cleanup(struct transfer_share **share)
{
    *share = transfer_leave(*share);
}
