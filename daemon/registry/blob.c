/* Blobs as streams: the range that was asked for, and not a byte more or less than promised. */
#include <stdio.h>

#include "daemon/registry/internal.h"

/* Transfers retry by themselves, at the byte where they are: here only a short hiccup is covered.
 */
#define BLOB_ATTEMPTS 2
#define SKIP_BUFFER_BYTES (64 * KIB)

struct blob_stream {
    struct mirror *mirror;          /* where it comes from; NULL: the registry itself */
    char *host_name, *digest;       /* for errors */
    struct http_response *response; /* NULL: nothing is left to read */
    uint64_t position, size_bytes;
    struct error failure; /* of a read: the next ones fail alike */
};

struct blob_stream *blob_stream_free(struct blob_stream *stream)
{
    if (!stream)
        return NULL;
    http_response_free(stream->response);
    free(stream->host_name);
    free(stream->digest);
    error_done(&stream->failure);
    free(stream);
    return NULL;
}

static bool protocol_error(const struct blob_stream *stream, const char *why, const char *detail,
                           struct error *err)
{
    error_set(err, ERROR_FAILED_PRECONDITION, "REGISTRY_PROTOCOL",
              "%s sends something else than blob %s: %s%.100s", stream->host_name, stream->digest,
              why, detail);
    return error_hint(err, "the registry, or a proxy before it, does not work properly");
}

/* --- Opening ---------------------------------------------------------------------------------- */

/* The length that the headers promise, if they do, must be what is to come. */
static bool check_length(const struct blob_stream *stream, uint64_t expected, struct error *err)
{
    const char *length = http_header(stream->response, "Content-Length", 0);
    const char *encoding = http_header(stream->response, "Content-Encoding", 0);
    char text[32];

    if (!str_empty(encoding) && !str_eq(encoding, "identity"))
        return protocol_error(stream, "its encoding was not asked for: ", encoding, err);
    snprintf(text, sizeof(text), "%llu", (unsigned long long)expected);
    if (length && strcmp(length, text) != 0)
        return protocol_error(stream, "its length is wrong: ", length, err);
    return true;
}

/* "bytes FIRST-LAST/SIZE"; the size may be "*" (RFC 9110, 14.4). */
static bool check_range(const struct blob_stream *stream, uint64_t offset, struct error *err)
{
    const char *range = http_header(stream->response, "Content-Range", 0);
    unsigned long long last = stream->size_bytes - 1;
    char known[96], unknown[96];

    snprintf(known, sizeof(known), "bytes %llu-%llu/%llu", (unsigned long long)offset, last,
             (unsigned long long)stream->size_bytes);
    snprintf(unknown, sizeof(unknown), "bytes %llu-%llu/*", (unsigned long long)offset, last);
    if (str_eq(range, known) || str_eq(range, unknown))
        return check_length(stream, stream->size_bytes - offset, err);
    return protocol_error(stream, "another range than asked for: ", range ? range : "none", err);
}

/* The server ignored the range: what we have is read once more, and dropped. */
static bool await_skip(struct blob_stream *stream, uint64_t offset, struct error *err)
{
    CLEANUP_FREE char *buffer = xmalloc(SKIP_BUFFER_BYTES);

    while (stream->position < offset) {
        ssize_t n =
            await_blob_read(stream, buffer, MIN(SKIP_BUFFER_BYTES, offset - stream->position), err);
        if (n < 0)
            return false;
        CHECK(n > 0);
    }
    return true;
}

static bool refuse(struct blob_stream *stream, const struct reference *reference,
                   const struct registry_auth *auth, struct error *err)
{
    CLEANUP_FREE char *name = reference_familiar_name(reference);

    await_refusal(stream->response, stream->host_name, err);
    if (err->code != ERROR_NOT_FOUND)
        return explain(reference, auth, err);
    free(err->reason);
    err->reason = xstrdup("BLOB_UNKNOWN");
    error_prefix(err, "blob %s of %s not found", stream->digest, name);
    return error_hint(err, "the registry has lost a part of the image: push it again");
}

static bool await_open_at(struct registry_client *client, struct endpoint *endpoint,
                          struct blob_stream *stream, const struct reference *reference,
                          uint64_t offset, struct error *err)
{
    CLEANUP_FREE char *range =
        offset ? xasprintf("Range: bytes=%llu-", (unsigned long long)offset) : NULL;
    const struct endpoint_request request = {
        .kind = "blobs",
        .name = stream->digest,
        .header = range,
        .attempts = BLOB_ATTEMPTS,
    };

    stream->response = await_endpoint_get(client, endpoint, reference, &request, err);
    if (!stream->response)
        return false;
    stream->host_name = xstrdup(strstr(endpoint->base, "://") + 3);
    switch (http_status(stream->response)) {
    case 200:
        return check_length(stream, stream->size_bytes, err) && await_skip(stream, offset, err);
    case 206:
        if (!offset)
            return protocol_error(stream, "a part, where all was asked for", "", err);
        stream->position = offset;
        return check_range(stream, offset, err);
    case 416:
        return protocol_error(stream, "it ends before the range asked for", "", err);
    default:
        return refuse(stream, reference, endpoint->auth, err);
    }
}

static struct blob_stream *stream_new(struct mirror *mirror, const struct descriptor *blob)
{
    struct blob_stream *stream = xcalloc(1, sizeof(*stream));

    stream->mirror = mirror;
    stream->digest = xstrdup(blob->digest.text);
    stream->size_bytes = blob->size_bytes;
    return stream;
}

struct blob_stream *await_blob_open(struct registry_client *client,
                                    const struct reference *reference,
                                    const struct registry_auth *auth, const struct descriptor *blob,
                                    uint64_t offset, struct error *err)
{
    struct endpoint endpoints[ENDPOINTS_MAX];
    size_t count = list_endpoints(client, reference, auth, endpoints);
    CLEANUP_ERROR struct error last = {0};
    struct blob_stream *found = NULL;

    CHECK(offset <= blob->size_bytes);
    for (size_t i = 0; i < count && !found; i++) {
        CLEANUP(blob_stream_cleanup)
        struct blob_stream *stream = stream_new(endpoints[i].mirror, blob);
        /* Nothing is left to ask for: the stream is at its end. */
        bool complete = offset == blob->size_bytes;
        if (complete || await_open_at(client, &endpoints[i], stream, reference, offset, &last))
            found = TAKE(stream);
        else if (!endpoint_failed(endpoints[i].mirror, &last))
            break;
    }
    if (!found)
        error_move(err, &last);
    endpoints_done(endpoints, count);
    return found;
}

/* --- Reading ---------------------------------------------------------------------------------- */

/* After the last byte there must be the end. */
static bool await_end(struct blob_stream *stream, struct error *err)
{
    char excess;
    ssize_t n = await_http_read(stream->response, &excess, 1, err);

    if (n > 0)
        protocol_error(stream, "it is longer than the manifest says", "", err);
    if (n != 0)
        return false;
    stream->response = http_response_free(stream->response);
    return true;
}

static void read_failed(struct blob_stream *stream, ssize_t n)
{
    struct error *err = &stream->failure;

    if (n == 0 || error_is(err, "TRUNCATED")) {
        error_set(err, ERROR_UNAVAILABLE, "BLOB_TRUNCATED",
                  "%s sent only %llu of %llu bytes of blob %s", stream->host_name,
                  (unsigned long long)stream->position, (unsigned long long)stream->size_bytes,
                  stream->digest);
        error_hint(err, "the registry, or a proxy before it, breaks off: try again");
    } else if (error_is(err, "CONNECTION_LOST")) {
        free(err->reason);
        err->reason = xstrdup("CONNECTION_FAILED");
    }
    endpoint_failed(stream->mirror, err);
}

ssize_t await_blob_read(struct blob_stream *stream, void *buffer, size_t size, struct error *err)
{
    uint64_t left = stream->size_bytes - stream->position;
    ssize_t n = -1;

    if (!stream->response)
        return 0;
    if (!error_is_set(&stream->failure)) {
        if (left > 0)
            n = await_http_read(stream->response, buffer, MIN(size, left), &stream->failure);
        else if (await_end(stream, &stream->failure))
            return 0;
        if (n > 0) {
            stream->position += (uint64_t)n;
            return n;
        }
        read_failed(stream, n);
    }
    error_copy(err, &stream->failure);
    return -1;
}
