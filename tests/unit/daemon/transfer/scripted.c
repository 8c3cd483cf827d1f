#include "tests/unit/daemon/transfer/scripted.h"

#include "proto/async/await.h"
#include "proto/async/loop.h"

#define CHUNK_BYTES (64 * KIB)
#define STALL_MS 30000 /* until that is noticed here; the engine should be quicker */

struct asked asked[REQUESTS_MAX];
unsigned int asked_count;
const char *blob_data;
uint64_t blob_size;

struct blob_stream {
    struct source *source;
    struct answer answer;
    uint64_t offset, position, end;
};

void scripted_reset(void)
{
    asked_count = 0;
}

/* --- Sources ---------------------------------------------------------------------------------- */

struct source *source_ref(struct source *source)
{
    source->references++;
    return source;
}

struct source *source_unref(struct source *source)
{
    if (source)
        source->references--;
    return NULL;
}

const char *source_name(const struct source *source)
{
    return source->name;
}

bool source_is_mirror(const struct source *source)
{
    return source->mirror;
}

void source_failed(struct source *source, const struct error *err UNUSED)
{
    source->failures++;
}

void source_served(struct source *source, uint64_t bytes)
{
    source->served += bytes;
}

bool source_ignores_ranges(const struct source *source)
{
    return source->ignores_ranges;
}

/* --- Blobs ------------------------------------------------------------------------------------ */

static bool refuse(const struct answer *answer, struct error *err)
{
    error_set(err, answer->error_code, answer->error, "scripted: %s", answer->error);
    err->retry_after_ms = answer->retry_after_ms;
    return false;
}

struct blob_stream *await_blob_open(struct registry_client *client UNUSED,
                                    const struct blob_request *request, struct error *err)
{
    struct source *source = request->source;
    static const struct answer busy = {.error = "REGISTRY_BUSY", .error_code = ERROR_UNAVAILABLE};
    struct answer answer = {0};
    struct blob_stream *stream;
    int r = await_sleep(1);

    if (r < 0) {
        await_error(err, r, "asking");
        return NULL;
    }
    CHECK(asked_count < REQUESTS_MAX);
    asked[asked_count++] = (struct asked){source, request->offset, request->end, loop_now_ms()};
    if (source->requests < ANSWERS_MAX)
        answer = source->script[source->requests];
    source->requests++;
    if (source->connections_max && source->open >= source->connections_max)
        answer = busy;
    if (answer.error) {
        refuse(&answer, err);
        return NULL;
    }
    stream = xcalloc(1, sizeof(*stream));
    stream->source = source;
    stream->answer = answer;
    stream->offset = stream->position = request->offset;
    stream->end = request->end;
    if (!stream->answer.chunk_ms)
        stream->answer.chunk_ms = source->chunk_ms;
    if (answer.whole && (request->offset > 0 || request->end < blob_size)) {
        source->ignores_ranges = true;
        stream->offset = stream->position = 0;
        stream->end = blob_size;
    }
    source->open++;
    source->open_max = MAX(source->open_max, source->open);
    return stream;
}

uint64_t blob_stream_offset(const struct blob_stream *stream)
{
    return stream->offset;
}

uint64_t blob_stream_end(const struct blob_stream *stream)
{
    return stream->end;
}

const char *blob_stream_validator(const struct blob_stream *stream UNUSED)
{
    return "\"etag\"";
}

void blob_stream_limit_buffer(struct blob_stream *stream UNUSED, size_t size_bytes UNUSED)
{
}

ssize_t await_blob_read(struct blob_stream *stream, void *buffer, size_t size, struct error *err)
{
    const struct answer *answer = &stream->answer;
    uint64_t sent = stream->position - stream->offset;
    int r = answer->chunk_ms ? await_sleep(answer->chunk_ms) : await_yield();

    if (r == 0 && answer->stall_after && sent >= answer->stall_after) {
        r = await_sleep(STALL_MS);
        if (r == 0) {
            error_set(err, ERROR_UNAVAILABLE, "STALLED", "scripted: stalled");
            return -1;
        }
    }
    if (r < 0) {
        await_error(err, r, "reading");
        return -1;
    }
    if (answer->drop_after && sent >= answer->drop_after) {
        error_set(err, ERROR_UNAVAILABLE, "CONNECTION_FAILED", "scripted: dropped");
        return -1;
    }
    if (stream->position == stream->end && answer->too_long) {
        error_set(err, ERROR_FAILED_PRECONDITION, "REGISTRY_PROTOCOL", "scripted: too long");
        return -1;
    }
    size = MIN(MIN(size, CHUNK_BYTES), stream->end - stream->position);
    if (answer->drop_after)
        size = MIN(size, answer->drop_after - sent);
    if (answer->stall_after)
        size = MIN(size, answer->stall_after - sent);
    memcpy(buffer, blob_data + stream->position, size);
    if (answer->wrong_at >= stream->position && answer->wrong_at < stream->position + size &&
        answer->wrong_at)
        ((char *)buffer)[answer->wrong_at - stream->position] ^= 1;
    stream->position += size;
    stream->source->bytes += size;
    return (ssize_t)size;
}

struct blob_stream *blob_stream_free(struct blob_stream *stream)
{
    if (stream)
        stream->source->open--;
    free(stream);
    return NULL;
}
