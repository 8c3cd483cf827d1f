/* The push side of the registry client: whether blobs are there, sending and mounting them, and
 * manifests (OCI distribution-spec, "Push"). Begin with await_registry_target(), then
 * await_upload() for a blob. Reasons of errors are those that registry.h lists; PERMISSION_DENIED
 * (DENIED) where one may not push. */
#pragma once

#include "daemon/registry/registry.h"
#include "daemon/registry/source.h"

/* Where what is pushed to a reference goes: the registry itself, or what hosts.toml has instead.
 * The caller releases it. */
struct source *await_registry_target(struct registry_client *client,
                                     const struct reference *reference,
                                     const struct registry_auth *auth, struct error *err);

/* What is known of a call while it runs. Neither suspends; until_ms is on the loop's clock. */
struct upload_watcher {
    void (*waits)(void *arg, const struct error *why, uint64_t until_ms); /* before a retry */
    void (*goes_on)(void *arg);
    void *arg;
};

/* Whether the repository has the blob; not if it says that it has something else of that name. All
 * of these calls try again for a while where that may help, and obey Retry-After; their watcher may
 * be NULL, but for await_upload(). */
bool await_blob_present(struct registry_client *client, struct source *target,
                        const struct digest *blob, uint64_t size_bytes,
                        const struct upload_watcher *watcher, bool *ret_present, struct error *err);

/* Has the registry take the blob over from another of its repositories ("library/busybox"). That it
 * does not, or that one may not read there, is no error. */
bool await_blob_mount(struct registry_client *client, struct source *target,
                      const struct digest *blob, const char *from,
                      const struct upload_watcher *watcher, bool *ret_mounted, struct error *err);

/* The bytes of a blob, from any offset on: what was sent may have to be sent again. */
struct upload_content {
    /* Gets ready a chunk that begins at offset and has max_bytes at most, and min_bytes at least
     * unless it is the last. It can be read until the next call. May suspend. Returns its size; 0
     * only at the end, -1 with err. */
    int64_t (*await_chunk)(void *arg, uint64_t offset, uint64_t min_bytes, uint64_t max_bytes,
                           bool *ret_last, struct error *err);
    /* As in struct http_body, within the chunk. */
    ssize_t (*await_read)(void *arg, uint64_t offset, void *buffer, size_t size, struct error *err);
    /* The digest and size of all of it; known at once once the last chunk was ready, else it may
     * take as long as making all of them. After it a chunk may be as large as the whole blob. */
    bool (*await_measure)(void *arg, struct digest *ret_digest, uint64_t *ret_size,
                          struct error *err);
    void *arg;
};

/* Sends a blob, whatever goes wrong on the way: in chunks, each from the offset that the server
 * has; again from the start if it lost the session; all at once if it takes no chunks. Without a
 * limit of attempts as long as it gets on, else a few. Suspends; cancel leaves the session to the
 * server. What the server has at the end is known to be the content by its digest. */
bool await_upload(struct registry_client *client, struct source *target,
                  const struct upload_content *content, const struct upload_watcher *watcher,
                  struct digest *ret_digest, uint64_t *ret_size, struct error *err);

/* Puts a manifest under a tag or digest. DATA_LOSS (DIGEST_MISMATCH) if the registry says that it
 * is another one. */
bool await_manifest_put(struct registry_client *client, struct source *target, const char *name,
                        const char *media_type, const void *data, size_t size,
                        const struct upload_watcher *watcher, struct error *err);
