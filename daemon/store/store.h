/* What is on disk: layers, keyed by diff_id, and the metadata of images in SQLite. Durable before
 * visible: a layer or an image exists when its row is committed, and the row is committed after
 * its files are durable; everything else below the data root is litter that start-up removes.
 *
 * Nouns: the *store*; a *layer*; a *layer_writer*, a layer on its way; an *image row*; a *tag*.
 * Begin with await_layer_prepare() to store a layer, with await_image_commit() for an image. */
#pragma once

#include "proto/async/task.h"
#include "proto/base/digest.h"

struct store;
struct image;
struct event_note;

struct store_options {
    const char *data_root;
    const char *driver;           /* NULL: the best that works here */
    const char *programs_dir;     /* of davit-untar and so on; NULL: this program's, or libexec */
    uint64_t reserve_bytes;       /* what layers leave free on the disk: the smaller of this and */
    unsigned int reserve_percent; /* of this part of it */
    uint64_t layer_grace_ms; /* how long a layer that nothing uses is kept, for a pull that is tried
                                again; 0: a day */
    uint64_t scrub_interval_ms; /* everything is verified as often as this; 0: never */
    int64_t events_max;         /* that are kept; 0: EVENTS_MAX_DEFAULT */
    uint64_t partial_ttl_ms;    /* how long blobs that did not arrive are kept; 0: three days */
    uint64_t partial_max_bytes; /* and how much of them; 0: 20 GB */
    /* Whether layers' compressed blobs stay beside them; neither: where the driver keeps no tar */
    bool keep_blobs, drop_blobs;
};

/* Creates the data root (0700) if needed, takes its lock, opens and migrates the database, removes
 * litter (large trees in the background). FAILED_PRECONDITION with reason DATA_ROOT_IN_USE (naming
 * the other's pid) if another daemon has the lock; an unwritable root says so. The strings are
 * copied. */
struct store *await_store_open(const struct store_options *options, struct error *err);

/* Ends the background work and releases everything, also the lock. Writers, leases and mounts must
 * have been given back. Suspends, also for a cancelled task. Takes NULL; returns NULL. */
struct store *store_close_await(struct store *store);

const char *store_driver_name(const struct store *store);
const char *store_driver_reason(const struct store *store);
const char *store_id(const struct store *store); /* made once per data root */
bool store_keeps_blobs(const struct store *store);

/* --- Layers: prepare, write, commit, mount, unmount, remove ------------------------------------
 */

struct layer_info {
    struct digest diff_id;
    uint64_t tar_bytes;     /* length of the uncompressed tar */
    uint64_t content_bytes; /* of regular files and symlinks, each inode once: Docker's size */
};

/* From memory; false if there is no such layer. ret may be NULL. */
bool layer_find(const struct store *store, const struct digest *diff_id, struct layer_info *ret);

/* All layers, also those of no image and damaged ones; the array is the caller's. */
struct digest *layer_list(const struct store *store, size_t *ret_count);

struct layer_writer;

/* Begins a layer. Bytes of the uncompressed tar are then written in order. diff_id may be NULL: the
 * layer becomes whatever its bytes are, and await_layer_commit() tells. */
struct layer_writer *await_layer_prepare(struct store *store, const struct digest *diff_id,
                                         struct error *err);

/* Waits while the writer is busy: back-pressure. An archive that is damaged or hostile fails here
 * or at commit with DATA_LOSS (INVALID_LAYER), a full disk with NO_SPACE. */
bool await_layer_write(struct layer_writer *writer, const void *data, size_t size,
                       struct error *err);

/* The same in two halves, for those who are on the thread pool already when the bytes are there:
 * the first blocks, the second belongs to the task and comes next, with the same bytes. */
bool layer_write_blocking(struct layer_writer *writer, const void *data, size_t size,
                          struct error *err);
bool await_layer_written(struct layer_writer *writer, const void *data, size_t size,
                         struct error *err);

/* Before the first byte of a layer that does not come from a registry: its compressed blob is to be
 * kept, if the store keeps blobs. compress: it is made of the bytes that are written, unless the
 * driver keeps these themselves. Otherwise it is given as it came with layer_keep_blocking(), also
 * beside them, for the thread pool. */
void layer_writer_keep(struct layer_writer *writer, bool compress);
bool layer_keep_blocking(struct layer_writer *writer, const void *data, size_t size,
                         struct error *err);

/* No more bytes: checks the hash of all that was written against diff_id (DATA_LOSS, reason
 * DIFF_ID_MISMATCH), makes the files durable, then the row. A layer that was committed by another
 * meanwhile is kept, and this is success. Nothing holds it from then on: take a lease at once. */
bool await_layer_commit(struct layer_writer *writer, struct layer_info *ret, struct error *err);

/* Removes what was not committed; always call it. Suspends, also for a cancelled task. */
struct layer_writer *layer_writer_free_await(struct layer_writer *writer);

/* The layer as a directory to use as overlayfs lower layer, until unmounted; counted. The path is
 * the caller's. Whiteouts are in overlayfs form. */
bool await_layer_mount(struct store *store, const struct digest *diff_id, char **ret_path,
                       struct error *err);
void layer_unmount_await(struct store *store, const struct digest *diff_id);

/* Unmounts the layers that a daemon before this one mounted and nobody uses: to be called once
 * those who outlived it have mounted theirs again. Suspends, also for a cancelled task. */
void store_unmount_unused_await(struct store *store);

/* Removes layers that nothing uses, nor has since a moment (INT64_MAX: whenever that was). */
struct layers_pruned {
    struct digest *diff_ids;
    size_t count;
    uint64_t freed_bytes; /* on the disk */
};
bool await_layers_prune(struct store *store, int64_t before_unix_ns, struct layers_pruned *ret,
                        struct error *err);
/* What that would remove now. Does not suspend. */
struct layers_pruned layers_unused(const struct store *store, int64_t before_unix_ns);
void layers_pruned_done(struct layers_pruned *pruned);

/* Removes those of some layers that nothing uses and that have not been there for longer than since
 * a moment, or that another call would have removed if they had not been held; what fails is
 * logged. Suspends, also for a cancelled task. */
void layers_drop_await(struct store *store, const struct digest *diff_ids, size_t count,
                       int64_t since_unix_ns);

/* --- Space -------------------------------------------------------------------------------------
 *
 * Layers leave a reserve free on the disk: writing one fails with NO_SPACE before it is touched.
 */

/* Of the file system that the data root lies on. */
struct space {
    uint64_t disk_bytes;
    uint64_t free_bytes; /* as df(1) has it */
    uint64_t reserve_bytes;
    bool inodes_spent;
};

/* What there is now. Where needed_bytes do not fit, it first waits for what is being removed in the
 * background, then removes partial blobs that nobody uses, the oldest first. */
bool await_space(struct store *store, uint64_t needed_bytes, struct space *ret, struct error *err);

/* False with NO_SPACE, which says what is needed, what there is, and what to do, if needed_bytes do
 * not fit beside what was promised to others. */
bool space_check(const struct store *store, const struct space *space, uint64_t needed_bytes,
                 uint64_t promised_bytes, struct error *err);

/* Sets the hint of a NO_SPACE: what to do about it. */
void space_hint(const struct store *store, const struct space *space, struct error *err);

/* --- Leases ------------------------------------------------------------------------------------
 */

/* Keeps layers that are fetched for an image that has no row yet: while a lease is held, none of
 * them is removed. */
struct layer_lease;
struct layer_lease *layer_lease_new(struct store *store, const struct digest *diff_ids,
                                    size_t count);
struct layer_lease *layer_lease_free(struct layer_lease *lease); /* does not suspend; NULL */

/* --- Trust -------------------------------------------------------------------------------------
 */

struct layer_verification {
    uint64_t
        bytes_per_second; /* 0: as fast as it goes; otherwise also at the lowest I/O priority */
    uint64_t bytes_done;  /* of layer_verify_bytes(); grows meanwhile */
};

/* Reads all of a layer from the disk and compares it with what was committed. DATA_LOSS otherwise:
 * LAYER_DAMAGED, and from then on it is in quarantine, where mounts refuse it with this error,
 * layer_find() does not find it, and a new copy replaces it; or BLOB_DAMAGED, where only the
 * compressed copy has changed, so that it can be used. A layer in quarantine that is in order
 * leaves it. LAYER_NOT_FOUND, also if it is removed meanwhile; ABORTED (LAYER_REPLACED). */
bool await_layer_verify(struct store *store, const struct digest *diff_id,
                        struct layer_verification *verification, struct error *err);
uint64_t layer_verify_bytes(const struct store *store, const struct digest *diff_id);

size_t store_damaged_count(const struct store *store); /* layers in quarantine */

/* Bytes allocated on the disk. */
struct store_usage {
    size_t image_count, active_image_count; /* active: a container holds it */
    size_t layer_count;
    uint64_t layer_bytes;                       /* of all layers, also those of no image */
    uint64_t active_layer_bytes;                /* of active images */
    uint64_t metadata_bytes;                    /* the database and what else there is */
    size_t partial_count, active_partial_count; /* active: it is being fetched, or about to be */
    uint64_t partial_bytes, active_partial_bytes;
};
/* From memory, but for the sizes of the database and of partial blobs. */
bool await_store_usage(struct store *store, struct store_usage *ret, struct error *err);

struct image_usage {
    uint64_t shared_bytes; /* of layers that other images have too */
    uint64_t unique_bytes; /* of the others: what its removal gives back */
    unsigned int containers;
};
struct image_usage image_usage(const struct store *store, const struct image *image);
unsigned int image_containers(const struct store *store, const struct digest *id);

/* A layer as registries have it. */
struct layer_blob {
    struct digest digest;
    char *media_type;
    uint64_t size_bytes;
};

/* Where a layer was seen, newest first: for fetching it again, and for pushing it without sending
 * it. Noted by await_image_commit(), as many as are worth it. */
struct layer_sources {
    struct layer_source {
        struct layer_blob blob;
        char *repository; /* "docker.io/library/busybox" */
    } * items;
    size_t count;
};
bool await_layer_sources(struct store *store, const struct digest *diff_id,
                         struct layer_sources *ret, struct error *err);
void layer_sources_done(struct layer_sources *sources);

/* The layer that a compressed blob was found to be, by its digest; unset: not known. The layer may
 * have gone meanwhile. */
bool await_layer_find_blob(struct store *store, const struct digest *blob, struct digest *ret,
                           struct error *err);

/* Notes that a repository has a layer, for it was sent there. */
bool await_layer_sent(struct store *store, const struct digest *diff_id,
                      const struct layer_blob *blob, const char *repository, struct error *err);

/* --- Images ------------------------------------------------------------------------------------
 */

/* An image as kept in memory and in its rows. */
struct image {
    struct digest id;              /* of the config */
    struct digest manifest_digest; /* of the image manifest */
    /* For await_image_commit. They are not kept in memory: NULL in images that the store hands
     * out, read them with await_image_data(). */
    char *manifest_data, *config_data;
    size_t manifest_size, config_size;
    const struct layer_blob *blobs; /* also: what its layers were, as many as diff_ids, */
    const char *repository;         /* and where; "": not in a registry; NULL without blobs */
    const struct event_note *event; /* and: how it came, told in the same transaction; or NULL */
    int64_t created_unix_ns;
    char *os, *architecture;
    struct digest parent;    /* the local image it was made from; unset: none */
    struct digest *diff_ids; /* bottom first */
    size_t diff_id_count;
    /* The rest is filled by the store. */
    char *variant;          /* "v8"; or NULL */
    char *labels;           /* a JSON object of texts; NULL: none, or more than 64 KiB */
    int64_t tagged_unix_ns; /* when it was last given a tag by a user; 0: never */
    size_t children;        /* images whose parent it is */
    uint64_t size_bytes;    /* sum of content_bytes */
    char **tags;            /* canonical: "docker.io/library/busybox:latest"; in order; or NULL */
    size_t tag_count;
    char **repo_digests; /* canonical: "docker.io/library/busybox@sha256:..."; likewise */
    size_t repo_digest_count;
    bool hidden;  /* being deleted: no function finds it any more */
    bool damaged; /* its manifest or config was found to have changed */
};

/* Docker's words: a dangling image has no tag and no child; an intermediate one has children, and
 * no name at all: lists leave it out unless they are for all. */
bool image_is_dangling(const struct image *image);
bool image_is_intermediate(const struct image *image);

/* An image to be added or updated, and the names that it is given. */
struct image_commit {
    const struct image *image; /* a parent that is set replaces an earlier one; one that is neither
                                  in the store nor among the others (any more) counts as none */
    char *const *tags;         /* canonical, NULL-terminated; or NULL */
    char *const *repo_digests; /* likewise */
    bool tagged;               /* by a user: that changes tagged_unix_ns */
    /* Filled by await_images_commit(). */
    bool is_new;
    bool changed; /* it is new, or one of its tags was new or pointed elsewhere before; without
                     tags the same for its digests */
    struct digest *moved_from; /* per tag: the image that had it until then; unset: none */
};

/* Adds or updates several images, moves tags to them and records repository digests, in one
 * transaction: all of it happens, or nothing. Every diff_id must be committed. `events` (may be
 * NULL) are told after those of the images. Of tags that come twice the last counts. The caller
 * keeps everything, and gives items to image_commits_done() in any case. */
bool await_images_commit(struct store *store, struct image_commit *items, size_t count,
                         const struct event_note *events, size_t event_count, struct error *err);
void image_commits_done(struct image_commit *items, size_t count); /* what was filled */

/* The same for one image with at most one tag and one digest (NULL: none). ret_changed may be NULL.
 */
bool await_image_commit(struct store *store, const struct image *image, const char *tag,
                        const char *repo_digest, bool *ret_changed, struct error *err);

/* Puts an image's manifest and config back as they were: only id, manifest_digest and
 * the data of `image` are looked at. IMAGE_NOT_FOUND if it has gone. */
bool await_image_restore(struct store *store, const struct image *image, struct error *err);

/* Gives an image a tag ("docker.io/library/busybox:latest"), which another may lose by that, and
 * tells of it. IMAGE_NOT_FOUND. */
bool await_image_tag(struct store *store, const struct digest *id, const char *canonical,
                     const struct event_note *event, struct error *err);

/* Notes that an image was pushed: the repository digest that it has there, and what is told of it.
 * IMAGE_NOT_FOUND if it has gone. */
bool await_image_pushed(struct store *store, const struct digest *id, const char *repo_digest,
                        const struct event_note *event, struct error *err);

/* From memory, newest first; the array is the caller's, its members the store's: do not hold them
 * across an await. NULL-terminated. */
const struct image **image_list(const struct store *store, size_t *ret_count);

/* The same one by one, for who awaits meanwhile: the first one behind that place, or NULL. The
 * image of the place itself may have gone. Begin with IMAGE_PLACE_FIRST. */
struct image_place {
    int64_t created_unix_ns;
    struct digest id;
};
#define IMAGE_PLACE_FIRST ((struct image_place){.created_unix_ns = INT64_MAX})
const struct image *image_next(const struct store *store, const struct image_place *place);

/* The manifest and config of an image, read from the database and checked against their digests
 * (DATA_LOSS, IMAGE_DAMAGED). NUL-terminated. NOT_FOUND (IMAGE_NOT_FOUND). */
struct image_data {
    char *manifest, *config;
    size_t manifest_size, config_size;
    struct digest manifest_digest;
};
bool await_image_data(struct store *store, const struct digest *id, struct image_data *ret,
                      struct error *err);
void image_data_done(struct image_data *data);

/* By canonical tag, canonical name@digest, or NULL. Borrowed until the next await. */
const struct image *image_find(const struct store *store, const char *canonical);

/* By ID or unique prefix of one (with or without "sha256:"). NULL: none, or *ret_ambiguous. */
const struct image *image_find_id(const struct store *store, const char *prefix,
                                  bool *ret_ambiguous);

/* Those whose ID begins so, at most max of them, newest first; *ret_count is how many there are.
 * The array is the caller's. */
const struct image **image_candidates(const struct store *store, const char *prefix, size_t max,
                                      size_t *ret_count);

/* What goes of an image. */
struct image_deletion {
    struct digest id;
    char **names; /* canonical, NULL-terminated: those that go */
    size_t told;  /* so many events "untag" come before that of "delete" */
    bool whole;   /* the image goes; the names are all it has, and its children go before it */
    bool forced;  /* although containers that have ended have it */
};

/* Removes names and images in one transaction, all or nothing, and the layers that no other image,
 * lease or mount uses; the files of layers in the background. ABORTED (IMAGE_CHANGED), and nothing
 * is done, if something is not (any more) as the items say, or running containers have an image:
 * look again. IMAGE_NOT_FOUND. ret (may be NULL): the layers; the caller's. */
bool await_images_delete(struct store *store, const struct image_deletion *items, size_t count,
                         struct layers_pruned *ret, struct error *err);

/* What the layers that would go take on the disk, as things are. */
uint64_t images_delete_bytes(const struct store *store, const struct image_deletion *items,
                             size_t count);

/* A container holds its image: it cannot be deleted while the container runs, and only by force
 * once it has ended. Does not suspend. */
struct image_hold;
struct image_hold *image_hold_new(struct store *store, const struct digest *id,
                                  const char *container_id, bool running);
void image_hold_set_running(struct image_hold *hold, bool running); /* takes NULL */
struct image_hold *image_hold_free(struct image_hold *hold);        /* takes NULL; returns NULL */

/* The ID of the newest container that has the image and runs, or does not; NULL: there is none.
 * Borrowed until the next await. */
const char *image_holder(const struct store *store, const struct digest *id, bool running);
