/* Shared between the files of this folder only. */
#pragma once

#include <stdatomic.h>

#include "daemon/store/blob_writer.h"
#include "daemon/store/db.h"
#include "daemon/store/layer_driver.h"
#include "daemon/store/partial.h"
#include "daemon/store/store.h"
#include "proto/base/list.h"
#include "proto/base/map.h"

#define LAYER_BLOB "layer.blob" /* in a layer's directory: as it was fetched, if it is kept */
#define LAYERS_MAX 127          /* of one image */
#define NAMES_MAX 10000         /* of one image: a list has them in one message */

/* What the database has of a layer. */
struct layer_row {
    struct layer_info info;
    int64_t created_unix_ns, verified_unix_ns;
    uint64_t disk_bytes; /* 0: not counted yet */
    uint64_t blob_bytes; /* 0: the compressed blob was not kept */
    struct digest blob;
    const char *seal, *damage; /* NULL: none */
};

/* A committed layer. */
struct layer {
    struct layer_info info;
    uint64_t disk_bytes; /* allocated by all that lies in its directory; 0: not counted yet */
    uint64_t blob_bytes;
    int64_t verified_unix_ns; /* when it was last seen to be as it was fetched */
    char *damage;             /* why it is in quarantine, where nothing uses it; NULL: it is not */
    bool blob_damaged;
    uint64_t version; /* another once its files are others */
    unsigned int mounts, image_uses;
    unsigned int marks;   /* of a count that is going on */
    int64_t used_unix_ns; /* when a lease or mount last let go of it, or it came */
    bool doomed;          /* who stored it has dropped it, while another one held it */
    bool hidden;          /* being removed: nothing finds it any more */
    bool mounting;        /* a task mounts or unmounts it right now */
    bool mounted;         /* by this daemon, or found so when it started */
};

/* What holds an image so that it cannot be deleted: a container. */
struct image_hold {
    struct list node;
    struct digest image;
    char *container; /* its ID */
    bool running;
};

struct layer_lease {
    struct store *store;
    struct digest *diff_ids;
    size_t count;
};

/* Trees in tmp/ that the background removes. */
struct trash {
    struct list names;
    struct wait_queue waiters;
    struct wait_queue removed; /* woken whenever a tree has gone */
    atomic_bool stop;
};

/* Blobs on their way in (partial.h). */
struct partials {
    int dir_fd;
    struct map *open; /* by digest: those that somebody works on, or removes */
    struct wait_queue closed, opened;
    struct wait_queue changes; /* woken when more may be kept, or removed */
    bool changed;              /* since that was looked at */
    struct list leases;
    char boot_id[40]; /* of the running kernel */
    int64_t ttl_ns;
    uint64_t max_bytes;
};

/* The newest events, so that readers who keep up need not ask the database. */
#define EVENTS_RECENT 64
struct event_log {
    int64_t max; /* that are kept */
    int64_t last_id;
    struct event_record *recent[EVENTS_RECENT]; /* at id % EVENTS_RECENT */
    struct wait_queue changed;
};

struct store {
    char *data_root;
    char *untar_path, *index_path; /* the confined readers of layers, */
    char *archive_path;            /* and of archives of images */
    char id[33];
    int64_t grace_ns;
    uint64_t reserve_bytes;
    unsigned int reserve_percent;
    atomic_uint_fast64_t grown_bytes; /* that were written since the start */
    int lock_fd, layers_fd, tmp_fd, mnt_fd;
    uint64_t sequence; /* of names in tmp/ */
    struct db *db;
    const struct layer_driver *driver;
    char *driver_reason;
    struct map *layers;   /* by diff_id */
    uint64_t layer_bytes; /* on the disk, of all of them */
    size_t damaged_count;
    uint64_t scrub_interval_ms; /* 0: never */
    bool keep_blobs, drop_blobs;
    int64_t images_verified_unix_ns;
    struct wait_queue mount_queue;
    struct map *leased;    /* how many leases there are, by diff_id; also of layers still to come */
    struct image **images; /* newest first; its room is a power of two */
    size_t image_count;
    struct map *images_by_id; /* also hidden ones */
    struct map *names;        /* of images, by canonical name */
    struct list holds;
    struct event_log events;
    struct trash trash;
    struct partials partials;
    struct group background;
};

/* --- open.c: what is done before anybody knows the store; blocks -------------------------------
 */

bool store_open_blocking(struct store *store, const struct store_options *options,
                         struct error *err);

/* --- driver.c: which storage driver keeps the layers of a data root ------------------------------
 */

/* INVALID_ARGUMENT (UNKNOWN_STORAGE_DRIVER); NULL is fine. */
bool driver_name_check(const char *name, struct error *err);

/* Sets store->driver and its reason: the forced one (NULL: none), else what wrote the data root
 * (recorded; NULL for a new one), else the best that works here. A data root with layers is for
 * the driver that wrote them. FAILED_PRECONDITION (STORAGE_DRIVER_MISMATCH,
 * STORAGE_DRIVER_UNSUPPORTED). Blocks. */
bool driver_choose(struct store *store, const char *forced, const char *recorded, bool has_layers,
                   struct error *err);

/* --- layer.c -----------------------------------------------------------------------------------
 */

struct layer *layer_get(const struct store *store, const struct digest *diff_id); /* or NULL */
void layer_add(struct store *store, const struct layer_row *row);
struct layer *layer_free(struct layer *layer); /* takes NULL; returns NULL */
void layer_drop(struct store *store, const struct digest *diff_id);

/* What the row says, in memory; the files are others than before. */
void layer_update(struct store *store, struct layer *layer, const struct layer_row *row);
void layer_set_disk_bytes(struct store *store, struct layer *layer, uint64_t disk_bytes);
void layer_set_damage(struct store *store, struct layer *layer, const char *damage);

/* False with FAILED_PRECONDITION (LAYER_IN_USE) while it is in quarantine and cannot be replaced,
 * because containers use its files. */
bool layer_check_replaceable(const struct store *store, const struct layer *layer,
                             struct error *err);

/* Who uses a layer that has been replaced keeps what was mounted; the next one gets the new. */
void layer_unmount_replaced_await(struct store *store, struct layer *layer);

/* Unmounts what is mounted though nobody uses it: the last daemon did. */
void layer_unmount_unused_await(struct store *store, const struct digest *diff_id);

/* A name in tmp/ that nobody else has. The caller's. */
char *tmp_name(struct store *store, const struct digest *diff_id);

/* --- commit.c ----------------------------------------------------------------------------------
 */

struct layer_writer {
    struct store *store;
    struct digest diff_id;
    char *name; /* in tmp/ */
    int dir_fd;
    void *preparation; /* the driver's */
    struct hasher *hasher;
    uint64_t tar_bytes;
    /* The kept blob is the file of a partial, or is written with the layer; or there is none. */
    struct partial *adopted;
    struct blob_writer *blob_writer;
    struct digest blob;
    uint64_t blob_bytes;
};

/* Says that this layer could not be stored, and where. Returns false. */
bool layer_failed(const struct layer_writer *writer, struct error *err);

/* Moves a complete layer into its place, then writes its row; content is what the driver says of
 * it. If it was committed by another meanwhile, that one stays, and ret tells of it; one that is
 * damaged is replaced. */
bool await_commit_row(struct layer_writer *writer, const struct layer_content *content,
                      struct layer_info *ret, struct error *err);

/* --- blob.c ------------------------------------------------------------------------------------
 */

/* Notes where the image's layers were seen, if it says so. */
bool sources_write(struct db *db, const struct image *image, struct error *err);

/* Notes one of them. */
bool source_write(struct db *db, const char *diff_id, const char *repository,
                  const struct layer_blob *blob, int64_t now, struct error *err);

/* --- ledger.c ----------------------------------------------------------------------------------
 */

/* Background task: counts the bytes of layers for which that has not been done, and ends. */
bool await_count_task(void *store, struct error *err);

/* --- scrub.c -----------------------------------------------------------------------------------
 */

/* In the table meta: when manifests and configs were last verified. */
#define IMAGES_VERIFIED_KEY "images_verified_unix_ns"
bool images_verified_write(struct db *db, void *store, struct error *err);

/* Background task: verifies what has not been verified for the scrub interval. */
bool await_scrub_task(void *store, struct error *err);

/* --- image.c -----------------------------------------------------------------------------------
 */

struct image *image_get(const struct store *store, const struct digest *id); /* or NULL */
struct image *image_at(const struct store *store, const struct digest *id);  /* also hidden ones */
struct image *image_new(void);
struct image *image_free(struct image *image);
void image_add(struct store *store, struct image *image); /* takes it over */
void image_drop(struct store *store, struct image *image);
void image_add_name(struct store *store, struct image *image, const char *name, bool is_tag);
void image_drop_name(struct store *store, const char *name);
/* The parent is there: it goes after its children only. Unset: none. */
void image_set_parent(struct store *store, struct image *image, const struct digest *parent);

/* The same for many: in any order, to be sorted in the end. */
void image_append(struct store *store, struct image *image);
void images_sort(struct store *store);
void image_sort_names(struct image *image);
/* INVALID_ARGUMENT (TOO_MANY_NAMES). */
bool image_check_name_count(size_t count, struct error *err);

/* Returns the image that had the name until now (NULL: none), which is still to be settled. */
struct image *image_append_name(struct store *store, struct image *image, const char *name,
                                bool is_tag);
/* Sorts, and drops the names that it has no more. */
void image_settle_names(const struct store *store, struct image *image);

unsigned int image_uses(const struct image *image, const struct digest *diff_id);

/* --- image_details.c ---------------------------------------------------------------------------
 */

struct image_details {
    char *labels, *variant; /* as in struct image */
};
struct image_details image_details_of(const void *config, size_t size);
void image_details_done(struct image_details *details);

/* Unless there are some. */
bool image_details_write(struct db *db, const struct digest *id,
                         const struct image_details *details, struct error *err);
bool image_parent_write(struct db *db, const struct digest *id, const struct digest *parent,
                        struct error *err);
bool image_tagged_write(struct db *db, const struct digest *id, int64_t unix_ns, struct error *err);

/* Those of all images that there are; makes those that are missing. */
bool image_details_load(struct db *db, struct store *store, struct error *err);

/* --- event.c -----------------------------------------------------------------------------------
 */

struct event_note;

void event_log_init(struct event_log *log, int64_t max);
void event_log_done(struct event_log *log);
bool event_log_load(struct db *db, struct event_log *log, struct error *err);

/* In the transaction of a change: writes the event of it (note may be NULL: none). *ret is NULL or
 * what an earlier try of the transaction wrote. */
bool event_write(struct db *db, const struct store *store, const struct event_note *note,
                 struct event_record **ret, struct error *err);

/* Once that is committed, the database still being locked; takes the event over (may be NULL). */
void event_publish(struct store *store, struct event_record *event);

/* --- gc.c --------------------------------------------------------------------------------------
 */

/* True if a lease, a mount or an image uses the layer, other than `uses` times by images. */
bool layer_in_use(const struct store *store, const struct layer *layer, unsigned int uses);

/* --- image_delete.c ----------------------------------------------------------------------------
 */

/* Removes layers that nothing uses, rows first. The database is locked. Suspends, cannot be
 * cancelled once it has begun. */
bool await_layers_delete(struct store *store, struct layer **layers, size_t count,
                         struct layers_pruned *ret, struct error *err);

/* Background task: removes layers that nothing has used for the grace time. */
bool await_collect_task(void *store, struct error *err);

/* --- space.c -----------------------------------------------------------------------------------
 */

/* To be called for whatever layers' files grow by, before it is written. Blocks, on any thread;
 * looks at the disk only every now and then. NO_SPACE if it would get into the reserve. */
bool space_grow_blocking(struct store *store, uint64_t bytes, struct error *err);

/* While something is fetched: sees to it that there is room for a while, as long as there is
 * something kept that can go. */
bool await_headroom(struct store *store, struct error *err);

/* --- partial.c ---------------------------------------------------------------------------------
 */

/* Background task: makes durable what is fetched, every two seconds. */
bool await_partial_sync_task(void *store, struct error *err);

/* Removes the file of a partial that nobody has open. */
bool await_partial_remove(struct store *store, const struct digest *blob, struct error *err);

/* Puts a partial whose blob is complete and was checked into a directory, durable, as a second
 * name. Blocks; nobody else uses it meanwhile. */
bool partial_link_blocking(struct partial *partial, int dir_fd, const char *name,
                           struct error *err);

/* --- kept.c ------------------------------------------------------------------------------------
 */

/* Background task: removes of what is kept what is old or too much. */
bool await_sweep_task(void *store, struct error *err);

/* There may be more that is kept, or that can be removed. Does not suspend. */
void kept_changed(struct store *store);

/* Removes the oldest that nobody uses; ret_dropped: there was one. */
bool await_kept_drop_oldest(struct store *store, bool *ret_dropped, struct error *err);

/* Fills the members that tell of partials. */
bool await_kept_usage(struct store *store, struct store_usage *ret, struct error *err);

/* --- trash.c -----------------------------------------------------------------------------------
 */

void trash_add(struct store *store, const char *name); /* in tmp/; does not suspend */
bool await_trash_task(void *store, struct error *err);
void trash_clear(struct store *store);
