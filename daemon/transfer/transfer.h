/* Layers on their way from registries into the store: one table for the whole daemon, keyed by
 * blob digest, so that pulls which share a layer share its transfer.
 *
 * Nouns: the *table*; a *requester*, somebody who wants layers, such as a pull; a *transfer*, one
 * blob in flight: connections write what is missing of it to a file (daemon/store/partial.h), and
 * one consumer follows them, checks, inflates and stores; a *share*, what a requester holds of a
 * transfer. The last share to go cancels it. Begin with transfer_join(). */
#pragma once

#include "daemon/registry/registry.h"
#include "daemon/registry/source.h"
#include "daemon/store/store.h"

struct transfer_table;

struct transfer_options {
    struct store *store;
    struct registry_client *client;
    unsigned int max_concurrent;  /* layers that fetch at a time */
    unsigned int max_connections; /* in all; 0: 10 */
    uint64_t bytes_per_second;    /* that all of them may fetch; 0: no cap */
    /* A connection that is slower than this for so long is given up. 0: 1 KiB/s, 10 s. */
    uint64_t low_speed_bytes_per_s, low_speed_ms;
    uint64_t backoff_ms; /* before the first retry; 0: 250 ms */
};

/* Transfers' tasks run in a group of the table. */
struct transfer_table *transfer_table_new(const struct transfer_options *options);
/* Cancels what runs and waits for it; no share may be left. Returns NULL. */
struct transfer_table *transfer_table_free_await(struct transfer_table *table);

/* At any time; those who run go on. */
void transfer_table_set_limits(struct transfer_table *table, unsigned int max_concurrent,
                               uint64_t bytes_per_second);

/* --- Requesters --------------------------------------------------------------------------------
 *
 * The table is fair between them.
 */

struct requester;
struct requester *requester_new(uint64_t bytes_per_second); /* 0: no cap of its own */
/* Its shares have been given up. Takes NULL; returns NULL. */
struct requester *requester_free(struct requester *requester);
/* What it fetches together with others is capped only if all of them are, at the highest cap. */
void requester_set_limit(struct requester *requester, uint64_t bytes_per_second);
uint64_t requester_limit(const struct requester *requester);

/* --- Transfers ---------------------------------------------------------------------------------
 */

enum transfer_state {
    TRANSFER_WAITING,      /* for its turn */
    TRANSFER_FETCHING,     /* downloading, checking and storing at once */
    TRANSFER_RATE_LIMITED, /* all sources asked to be left alone: until .. */
    TRANSFER_RETRYING,     /* after a failure: from .. on */
    TRANSFER_STORING,      /* all bytes are here, the rest is being written */
    TRANSFER_DONE,
    TRANSFER_FAILED,
};

struct transfer_progress {
    enum transfer_state state;
    uint64_t bytes_fetched; /* that are here; falls only if they turn out to be wrong */
    uint64_t bytes_resumed; /* of which were here before */
    uint64_t bytes_stored;
    uint64_t bytes_per_second; /* smoothed */
    unsigned int connections;
    int64_t until_unix_ms; /* of RATE_LIMITED and RETRYING; else 0 */
    const char *source;    /* "mirror.example.com"; NULL while nobody was asked. Both borrowed */
    const char *error;     /* of RATE_LIMITED and RETRYING: what failed; until the next await */
};

struct transfer_request {
    struct requester *requester;       /* borrowed until the share is given up */
    const struct source_list *sources; /* where this requester would fetch it; referenced */
    const struct descriptor *blob;     /* the rest is copied */
    const struct digest *diff_id;
    uint64_t kept_bytes; /* that are known to be here, for transfer_table_disk_bytes_left() */
};

struct transfer_share;

/* Joins the transfer of a blob, or starts it. Does not suspend. A transfer asks its requesters'
 * sources in the order in which they joined. NULL with err if no task can be started. The caller
 * owns the share. */
struct transfer_share *transfer_join(struct transfer_table *table,
                                     const struct transfer_request *request, struct error *err);

/* Whether transfer_join() would find one that runs. */
bool transfer_runs(const struct transfer_table *table, const struct descriptor *blob,
                   const struct digest *diff_id);

/* A lower bound of what the transfers that run have yet to write: blobs, and layers, whose files
 * never take less than the blob. */
uint64_t transfer_table_disk_bytes_left(const struct transfer_table *table);

/* Whether some that were given up have not ended yet: what they had stored is still on the disk. */
bool transfer_table_unwinds(const struct transfer_table *table);

/* Waits until one of those has ended. */
int await_transfer_unwound(struct transfer_table *table);

/* The newest state; does not suspend. */
struct transfer_progress transfer_progress(const struct transfer_share *share);

uint64_t transfer_blob_bytes(const struct transfer_share *share); /* of which these are fetched */

/* Whether somebody else began it, or wants it, too. */
bool transfer_is_shared(const struct transfer_share *share);

/* Waits until the layer is committed. If that failed because no source had it, each share gets the
 * error of its own sources; what was fetched is kept. Cancel leaves the transfer to the others. */
bool await_transfer(struct transfer_share *share, struct error *err);

/* Gives up the share and its sources; the last one cancels a transfer that has not ended. Returns
 * NULL. */
struct transfer_share *transfer_leave(struct transfer_share *share);
static inline void transfer_leave_cleanup(struct transfer_share **share)
{
    *share = transfer_leave(*share);
}
