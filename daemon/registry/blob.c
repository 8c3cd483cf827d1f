/* Blobs as streams: the range that was asked for, and not a byte more or less than promised. */
#include <stdio.h>
#include <strings.h>
#include <time.h>

#include "daemon/registry/http_date.h"
#include "daemon/registry/internal.h"

/* Transfers retry by themselves, at the byte where they are. */
#define BLOB_ATTEMPTS 1

struct blob_stream {
    struct source *source;
    char *digest;                   /* for errors */
    struct http_response *response; /* NULL: nothing is left to read */
    uint64_t offset, position, end, size_bytes;
    char *validator;      /* NULL: none */
    struct error failure; /* of a read: the next ones fail alike */
};

struct blob_stream *blob_stream_free(struct blob_stream *stream)
{
    if (!stream)
        return NULL;
    http_response_free(stream->response);
    source_unref(stream->source);
    free(stream->digest);
    free(stream->validator);
    error_done(&stream->failure);
    free(stream);
    return NULL;
}

static bool wrong_answer(const struct blob_stream *stream, const char *reason, const char *why,
                         const char *detail, struct error *err)
{
    error_set(err, ERROR_FAILED_PRECONDITION, reason,
              "%s sends something else than blob %s: %s%.100s", source_name(stream->source),
              stream->digest, why, detail);
    return error_hint(err, "the registry, or a proxy before it, does not work properly");
}

static bool protocol_error(const struct blob_stream *stream, const char *why, const char *detail,
                           struct error *err)
{
    return wrong_answer(stream, "REGISTRY_PROTOCOL", why, detail, err);
}

/* Wrong ranges say nothing of what a request for the whole blob brings. */
static bool range_broken(const struct blob_stream *stream, const char *why, const char *detail,
                         struct error *err)
{
    health_learn_whole_only(stream->source->health);
    return wrong_answer(stream, "RANGE_BROKEN", why, detail, err);
}

/* --- What the headers say --------------------------------------------------------------------- */

/* The length that the headers promise, if they do, must be what is to come. NULL if so. */
static const char *wrong_length(const struct blob_stream *stream, uint64_t expected)
{
    const char *length = http_header(stream->response, "Content-Length", 0);
    char text[32];

    snprintf(text, sizeof(text), "%llu", (unsigned long long)expected);
    return length && strcmp(length, text) != 0 ? length : NULL;
}

static bool check_encoding(const struct blob_stream *stream, struct error *err)
{
    const char *encoding = http_header(stream->response, "Content-Encoding", 0);

    if (str_empty(encoding) || str_eq(encoding, "identity"))
        return true;
    return protocol_error(stream, "its encoding was not asked for: ", encoding, err);
}

static bool is_strong(const char *etag)
{
    return etag && etag[0] == '"';
}

/* "bytes FIRST-LAST/SIZE"; the size may be "*" (RFC 9110, 14.4). */
static bool check_part(const struct blob_stream *stream, const struct blob_request *request,
                       struct error *err)
{
    const char *range = http_header(stream->response, "Content-Range", 0);
    const char *etag = http_header(stream->response, "ETag", 0), *length;
    const char *type = http_header(stream->response, "Content-Type", 0);
    unsigned long long first = request->offset, last = request->end - 1;
    char known[96], unknown[96];

    snprintf(known, sizeof(known), "bytes %llu-%llu/%llu", first, last,
             (unsigned long long)stream->size_bytes);
    snprintf(unknown, sizeof(unknown), "bytes %llu-%llu/*", first, last);
    if (type && strncasecmp(type, "multipart/byteranges", strlen("multipart/byteranges")) == 0)
        return range_broken(stream, "several parts, where one was asked for", "", err);
    if (!str_eq(range, known) && !str_eq(range, unknown))
        return range_broken(stream, "another range than asked for: ", range ? range : "none", err);
    if ((length = wrong_length(stream, stream->end - stream->offset)))
        return range_broken(stream, "its length is wrong: ", length, err);
    if (is_strong(request->validator) && is_strong(etag) && !str_eq(etag, request->validator))
        return range_broken(stream, "a part of something else, by its ETag: ", etag, err);
    return true;
}

/* All, though a range was asked for. */
static void learn_of_whole(struct blob_stream *stream, const struct blob_request *request)
{
    const char *header = is_strong(request->validator) ? "ETag" : "Last-Modified";
    const char *validator = http_header(stream->response, header, 0);

    /* "If-Range" did not match: parts may be had nonetheless, but not with a validator. A digest
     * names the same bytes for ever, so that there is no need for one. */
    if (request->validator && !str_eq(validator, request->validator))
        stream->source->health->validators_change = true;
    else
        health_learn_whole_only(stream->source->health);
}

/* A time may stand for two states of one second, unless it is long past (RFC 9110, 8.8.2.2). */
static bool is_strong_time(const struct http_response *response, const char *modified)
{
    const char *date = http_header(response, "Date", 0);
    int64_t now = time(NULL), modified_unix, date_unix;

    return modified && date && http_date_parse(modified, now, &modified_unix) &&
           http_date_parse(date, now, &date_unix) && date_unix - modified_unix >= 60;
}

static void take_validator(struct blob_stream *stream)
{
    const char *etag = http_header(stream->response, "ETag", 0);
    const char *modified = http_header(stream->response, "Last-Modified", 0);

    if (stream->source->health->validators_change)
        return;
    if (is_strong(etag))
        stream->validator = xstrdup(etag);
    else if (!etag && is_strong_time(stream->response, modified))
        stream->validator = xstrdup(modified);
}

/* --- Opening ---------------------------------------------------------------------------------- */

static bool refuse(struct blob_stream *stream, struct error *err)
{
    CLEANUP_FREE char *name = reference_familiar_name(&stream->source->reference);

    await_refusal(stream->response, source_name(stream->source), err);
    if (err->code != ERROR_NOT_FOUND)
        return explain(stream->source, err);
    free(err->reason);
    err->reason = xstrdup("BLOB_UNKNOWN");
    error_prefix(err, "blob %s of %s not found", stream->digest, name);
    return error_hint(err, "the registry has lost a part of the image: push it again");
}

static bool await_take_answer(struct blob_stream *stream, const struct blob_request *request,
                              bool part, struct error *err)
{
    const char *length;

    switch (http_status(stream->response)) {
    case 200:
        stream->position = stream->offset = 0;
        stream->end = stream->size_bytes;
        if (part)
            learn_of_whole(stream, request);
        if (!check_encoding(stream, err))
            return false;
        length = wrong_length(stream, stream->size_bytes);
        return !length || protocol_error(stream, "its length is wrong: ", length, err);
    case 206:
        if (!part)
            return protocol_error(stream, "a part, where all was asked for", "", err);
        return check_encoding(stream, err) && check_part(stream, request, err);
    case 416:
        return range_broken(stream, "it ends before the range asked for", "", err);
    default:
        return refuse(stream, err);
    }
}

static struct blob_stream *stream_new(const struct blob_request *request)
{
    struct blob_stream *stream = xcalloc(1, sizeof(*stream));

    stream->source = source_ref(request->source);
    stream->digest = xstrdup(request->blob->digest.text);
    stream->size_bytes = request->blob->size_bytes;
    stream->position = stream->offset = request->offset;
    stream->end = request->end;
    return stream;
}

struct blob_stream *await_blob_open(struct registry_client *client,
                                    const struct blob_request *request, struct error *err)
{
    CLEANUP(blob_stream_cleanup) struct blob_stream *stream = stream_new(request);
    bool part = request->offset > 0 || request->end < stream->size_bytes;
    CLEANUP_FREE char *range =
        xasprintf("Range: bytes=%llu-%llu", (unsigned long long)request->offset,
                  (unsigned long long)request->end - 1);
    CLEANUP_FREE char *condition =
        request->validator ? xasprintf("If-Range: %s", request->validator) : NULL;
    const char *headers[] = {"Accept-Encoding: identity", part ? range : NULL, condition, NULL};
    const struct source_request get = {
        .kind = "blobs",
        .name = stream->digest,
        .headers = headers,
        .attempts = BLOB_ATTEMPTS,
        .flow = request->flow,
    };

    CHECK(request->offset <= request->end && request->end <= stream->size_bytes);
    /* Nothing is to be asked for: the stream is at its end. */
    if (request->offset == request->end)
        return TAKE(stream);
    stream->response = await_source_ask(client, request->source, &get, err);
    if (!stream->response || !await_take_answer(stream, request, part, err))
        return NULL;
    take_validator(stream);
    return TAKE(stream);
}

uint64_t blob_stream_offset(const struct blob_stream *stream)
{
    return stream->offset;
}

uint64_t blob_stream_end(const struct blob_stream *stream)
{
    return stream->end;
}

const char *blob_stream_validator(const struct blob_stream *stream)
{
    return stream->validator;
}

void blob_stream_limit_buffer(struct blob_stream *stream, size_t size_bytes)
{
    if (stream->response)
        http_limit_buffer(stream->response, size_bytes);
}

/* --- Reading ---------------------------------------------------------------------------------- */

/* After the last byte there must be the end. */
static bool await_end(struct blob_stream *stream, struct error *err)
{
    char excess;
    ssize_t n = await_http_read(stream->response, &excess, 1, err);

    if (n > 0)
        protocol_error(stream, "it is longer than announced", "", err);
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
                  "%s sent only %llu of %llu bytes of blob %s", source_name(stream->source),
                  (unsigned long long)(stream->position - stream->offset),
                  (unsigned long long)(stream->end - stream->offset), stream->digest);
        error_hint(err, "the registry, or a proxy before it, breaks off: try again");
    } else if (error_is(err, "CONNECTION_LOST")) {
        free(err->reason);
        err->reason = xstrdup("CONNECTION_FAILED");
    }
}

ssize_t await_blob_read(struct blob_stream *stream, void *buffer, size_t size, struct error *err)
{
    uint64_t left = stream->end - stream->position;
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
