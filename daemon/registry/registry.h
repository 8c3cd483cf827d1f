/* The registry client: the pull side of the OCI distribution-spec and Docker's token
 * authentication, over HTTP(S) on the loop. Begin with await_registry_resolve() for a reference,
 * with await_blob_open() for its bytes. */
#pragma once

#include "daemon/registry/http.h"
#include "daemon/registry/manifest.h"
#include "daemon/registry/reference.h"
#include "daemon/registry/wait.h"
#include "proto/async/task.h"

struct registry_client;

struct registry_options {
    char *const *insecure_registries; /* "host[:port]" or CIDR; HTTP or unverified TLS allowed */
    char *const *mirrors; /* of docker.io: "https://mirror.example.com", tried in order */
    /* Of any registry: pairs of its name and a URL, whose path comes before the repository, or is
     * used as it is where it has a "v2" in it. Tried in order, before those above. */
    char *const *mirrors_of;
    char *const *hosts_dirs; /* "/etc/containerd/certs.d"; per host: hosts.toml */
    const char *certs_dir;   /* "/etc/docker/certs.d"; per host: ca .crt, client .cert+.key */
    const char *user_agent;
    /* 0: 30 s to connect, 60 s without a byte, 250 ms before the first of a few retries. */
    uint64_t connect_timeout_ms, stall_timeout_ms, backoff_ms;
};

/* For configuration: INVALID_ARGUMENT, reason INVALID_CONFIG, names the mirror or insecure registry
 * that makes no sense. */
bool registry_options_check(const struct registry_options *options, struct error *err);

/* Options are copied, invalid entries are ignored. Curl and the TLS store are set up at the first
 * request, not here. */
struct registry_client *registry_client_new(const struct registry_options *options);

/* Takes mirrors, insecure registries and directories anew; the rest stays. Sources that are there
 * stay what they are. */
void registry_client_configure(struct registry_client *client,
                               const struct registry_options *options);

/* The mirrors that are configured, with what is known of them; the caller frees the array with
 * registry_mirrors_free. Those of hosts.toml are not known before they are needed. */
struct registry_mirror {
    char *registry, *url;  /* "docker.io", "https://mirror.example.com/cache" */
    unsigned int failures; /* in a row; 0: healthy, or never asked */
    uint64_t behind_ms;    /* so long it is asked after the others */
    uint64_t bytes_served;
    char *last_error; /* NULL: none since it last served */
};
struct registry_mirror *registry_mirrors(const struct registry_client *client, size_t *ret_count);
void registry_mirrors_free(struct registry_mirror *mirrors, size_t count);
struct registry_client *registry_client_free(struct registry_client *client); /* no request open */

struct registry_auth {
    const char *username, *password; /* NULL: anonymous */
    const char *identity_token;
};

/* What a reference stands for, for one platform. */
struct resolved_image {
    struct digest digest;              /* of what the reference named: manifest or index */
    struct digest manifest_digest;     /* of the image manifest chosen */
    char *manifest_data, *config_data; /* verified against their digests */
    size_t manifest_size, config_size;
    struct manifest *manifest;
    struct image_config *config;
};
struct resolved_image *resolved_image_free(struct resolved_image *image);
static inline void resolved_image_cleanup(struct resolved_image **image)
{
    *image = resolved_image_free(*image);
}

/* Reference to manifest and config, with every byte checked: digest grammar, size, hash. Suspends.
 * auth may be NULL. The caller owns the result. Cancel aborts the requests. Mirrors are
 * asked first, never with credentials; the error is then the registry's own. ret_wait (may be
 * NULL; the caller's) says meanwhile when it waits for a registry that is busy.
 *
 * Reasons of this and of the blob calls below:
 * - UNAVAILABLE: CONNECTION_FAILED (refused, unknown host, broken), STALLED, TOO_SLOW,
 *   REGISTRY_BUSY (429 and 5xx, after some retries; err->retry_after_ms if it said),
 * BLOB_TRUNCATED, TLS_FAILED (which no retry will mend);
 * - UNAUTHENTICATED: UNAUTHORIZED; PERMISSION_DENIED: DENIED;
 * - NOT_FOUND: MANIFEST_UNKNOWN, BLOB_UNKNOWN, NO_MATCHING_PLATFORM;
 * - DATA_LOSS: DIGEST_MISMATCH;
 * - FAILED_PRECONDITION: REGISTRY_PROTOCOL (it breaks the rules), RANGE_BROKEN (of blobs: see
 *   there), TLS_FAILED and INVALID_CONFIG (a bad file of ours);
 * - those of manifest_parse and image_config_parse. */
struct resolved_image *await_registry_resolve(struct registry_client *client,
                                              const struct reference *reference,
                                              const struct registry_auth *auth,
                                              const struct platform *platform,
                                              struct registry_wait *ret_wait, struct error *err);

/* One blob, or a range of it, as a stream of bytes as they come; back-pressure by reading. */
struct blob_stream;
struct source;

struct blob_request {
    struct source *source;
    const struct descriptor *blob;
    uint64_t offset, end;  /* end is exclusive; the whole blob, 0 to its size, is no range */
    const char *validator; /* of an earlier answer of the same source (If-Range); or NULL */
    struct http_flow flow;
};

/* Asks one source, once. Suspends until the response's headers are there. A range other than the
 * one asked for, or a length that is not the descriptor's, is an error; with the reason
 * RANGE_BROKEN if the whole blob may yet be had there, and source_ignores_ranges() is true from
 * then on. The health of the source is the caller's to report. The caller frees the stream. */
struct blob_stream *await_blob_open(struct registry_client *client,
                                    const struct blob_request *request, struct error *err);

/* Where it begins: what was asked for, or 0 where the server ignores ranges and sends all. */
uint64_t blob_stream_offset(const struct blob_stream *stream);

/* Where it ends, likewise; exclusive. */
uint64_t blob_stream_end(const struct blob_stream *stream);

/* What to ask this source with for other ranges of the same bytes: a strong ETag, a Last-Modified,
 * or NULL. Owned by the stream. */
const char *blob_stream_validator(const struct blob_stream *stream);

/* Lets the kernel receive only about that much ahead of the reader, for transfers that are slow on
 * purpose; 0: as much as it likes. */
void blob_stream_limit_buffer(struct blob_stream *stream, size_t size_bytes);

/* Bytes, 0 at the proper end (exactly the request's), -1 with err. The bytes are not hashed here.
 */
ssize_t await_blob_read(struct blob_stream *stream, void *buffer, size_t size, struct error *err);
struct blob_stream *blob_stream_free(struct blob_stream *stream);
static inline void blob_stream_cleanup(struct blob_stream **stream)
{
    *stream = blob_stream_free(*stream);
}
