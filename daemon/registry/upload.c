/* Uploads: one session after the other until the registry has the blob. */
#include "daemon/registry/upload.h"

#include <stdio.h>

#include "daemon/registry/internal.h"
#include "proto/async/await.h"
#include "proto/async/loop.h"
#include "proto/base/log.h"

#define SMALL_ATTEMPTS 4

/* A chunk should take about so long: what a broken connection costs, with servers that lose the
 * session then, is the chunk. */
#define CHUNK_AIM_MS 8000
#define CHUNK_MIN_BYTES (256 * KIB)
#define CHUNK_FIRST_BYTES (4 * MIB)
#define CHUNK_MAX_BYTES (64 * MIB)
/* With a chunk a server may ask for more at least than it gets by itself ("OCI-Chunk-Min-Length").
 */
#define CHUNK_MIN_LENGTH_MAX_BYTES (64 * MIB)

/* How fast a server closes an upload at least: it may have to read all of it again. */
#define CLOSE_BYTES_PER_MS (10 * MIB / 1000)

#define FRUITLESS_MAX 6
#define BACKOFF_MAX_MS 30000
#define WAIT_MAX_MS (10 * 60 * 1000)
/* In a row, without getting on. */
#define WAITS_MAX_MS (15 * 60 * 1000)

/* --- Places ------------------------------------------------------------------------------------
 */

struct source *await_registry_target(struct registry_client *client,
                                     const struct reference *reference,
                                     const struct registry_auth *auth, struct error *err)
{
    CLEANUP_SOURCE_LIST struct source_list list = {0};

    if (!await_registry_sources(client, reference, auth, SOURCE_PUSH, &list, err))
        return NULL;
    return source_ref(list.items[0]);
}

/* --- Again and again ---------------------------------------------------------------------------
 */

struct patience {
    unsigned int fruitless; /* failures since it last got on */
    uint64_t waited_ms;     /* since then */
};

static bool worth_a_retry(const struct error *err)
{
    return err->code == ERROR_UNAVAILABLE && !error_is(err, "TLS_FAILED");
}

/* Waits before the next try, or says that there is to be none. watcher may be NULL. */
static bool await_patience(const struct registry_client *client, struct source *target,
                           const struct upload_watcher *watcher, struct patience *patience,
                           struct error *failure, struct error *err)
{
    uint64_t wait_ms;
    int r;

    source_failed(target, failure);
    patience->fruitless++;
    if (!worth_a_retry(failure) || patience->fruitless >= FRUITLESS_MAX ||
        patience->waited_ms > WAITS_MAX_MS)
        return error_move(err, failure);
    wait_ms = client->transport.backoff_ms << (patience->fruitless - 1);
    wait_ms = MIN(wait_ms, BACKOFF_MAX_MS);
    wait_ms = wait_ms / 2 + (uint64_t)random() % (wait_ms / 2 + 1);
    wait_ms = MIN(MAX(wait_ms, failure->retry_after_ms), WAIT_MAX_MS);
    patience->waited_ms += wait_ms;
    log_debug("a registry is asked again", LOG("registry", target->name),
              LOG("error", failure->message), LOG("wait_ms", wait_ms));
    if (watcher)
        watcher->waits(watcher->arg, failure, loop_now_ms() + wait_ms);
    r = await_sleep(wait_ms);
    if (r < 0)
        return await_error(err, r, "waiting for %s", target->name);
    if (watcher)
        watcher->goes_on(watcher->arg);
    return true;
}

/* A small request that can be made again as it is. A server that asks to be left alone is, and the
 * watcher told. */
static struct http_response *await_ask(struct registry_client *client, struct source *target,
                                       const struct source_request *request,
                                       const struct upload_watcher *watcher, struct error *err)
{
    struct source_request patient = *request;
    struct patience patience = {0};

    patient.attempts = SMALL_ATTEMPTS;
    patient.caller_waits = true;
    for (;;) {
        CLEANUP_ERROR struct error failure = {0};
        struct http_response *response = await_source_ask(client, target, &patient, &failure);
        if (response)
            return response;
        if (!failure.retry_after_ms) {
            error_move(err, &failure);
            return NULL;
        }
        if (!await_patience(client, target, watcher, &patience, &failure, err))
            return NULL;
    }
}

/* --- Blobs that are there ----------------------------------------------------------------------
 */

static bool await_refused(const struct source *target, struct http_response *response,
                          struct error *err)
{
    await_refusal(response, target->name, err);
    return explain_push(target, err);
}

/* Reads what is left, so that the connection can be used again. */
static void await_drained(struct http_response *response)
{
    CLEANUP_STRBUF struct strbuf rest = {0};

    await_http_body(response, ERROR_BODY_MAX_BYTES, &rest, NULL);
}

/* Whether what it says of the blob is so. A length of 0 is what some say to any HEAD. */
static bool is_the_blob(const struct http_response *response, const struct digest *blob,
                        uint64_t size_bytes)
{
    const char *digest = http_header(response, "Docker-Content-Digest", 0);
    const char *length = http_header(response, "Content-Length", 0);

    return (str_empty(digest) || str_eq(digest, blob->text)) &&
           (str_empty(length) || str_eq(length, "0") || strtoull(length, NULL, 10) == size_bytes);
}

bool await_blob_present(struct registry_client *client, struct source *target,
                        const struct digest *blob, uint64_t size_bytes,
                        const struct upload_watcher *watcher, bool *ret_present, struct error *err)
{
    const struct source_request request = {
        .method = "HEAD",
        .kind = "blobs",
        .name = blob->text,
        .push = true,
    };
    CLEANUP(http_response_cleanup)
    struct http_response *response = await_ask(client, target, &request, watcher, err);

    if (!response)
        return false;
    await_drained(response);
    switch (http_status(response)) {
    case 200:
        *ret_present = is_the_blob(response, blob, size_bytes);
        return true;
    case 404:
    case 405: /* it does not know the question: then we send */
        *ret_present = false;
        return true;
    default:
        return await_refused(target, response, err);
    }
}

/* Ends a session that nobody will use. What the server says to it does not matter. */
static void await_drop_session(struct registry_client *client, struct source *target,
                               const char *url)
{
    const struct source_request request = {
        .method = "DELETE",
        .url = url,
        .attempts = 1,
        .push = true,
    };

    http_response_free(await_source_ask(client, target, &request, NULL));
}

/* Where a session is, from the Location of an answer; NULL if there is none that makes sense. */
static char *session_url(const struct registry_client *client, const char *answered_url,
                         const struct http_response *response, struct error *err)
{
    return exchange_location(&client->transport, answered_url, http_header(response, "Location", 0),
                             err);
}

bool await_blob_mount(struct registry_client *client, struct source *target,
                      const struct digest *blob, const char *from,
                      const struct upload_watcher *watcher, bool *ret_mounted, struct error *err)
{
    CLEANUP_FREE char *path =
        xasprintf("/%s/blobs/uploads/?mount=%s&from=%s", target->repository, blob->text, from);
    CLEANUP_FREE char *answered = NULL, *session = NULL;
    const struct source_request request = {
        .method = "POST",
        .path = path,
        .push = true,
        .mount_from = from,
        .ret_url = &answered,
    };
    CLEANUP(http_response_cleanup) struct http_response *response = NULL;

    *ret_mounted = false;
    response = await_ask(client, target, &request, watcher, err);
    if (!response) {
        bool refused = err && (error_is(err, "UNAUTHORIZED") || error_is(err, "DENIED"));
        if (refused)
            error_done(err); /* there, perhaps: sending will tell of here */
        return refused;
    }
    await_drained(response);
    *ret_mounted = http_status(response) == 201;
    /* It would rather have it sent. Not in this session: others are to be asked first. */
    if (http_status(response) == 202)
        session = session_url(client, answered, response, NULL);
    if (session)
        await_drop_session(client, target, session);
    return true;
}

/* --- An upload ---------------------------------------------------------------------------------
 */

struct upload {
    struct registry_client *client;
    struct source *target;
    const struct upload_content *content;
    const struct upload_watcher *watcher;
    char *session;   /* NULL: none is open */
    uint64_t offset; /* the server has so much */
    uint64_t chunk_min_bytes, chunk_max_bytes;
    uint64_t limit_bytes;   /* of a chunk, by experience */
    uint64_t reached_bytes; /* the most that a server ever had */
    unsigned int setbacks;  /* without an error, since that last grew */
    bool unsure;            /* of what the server has */
    bool out_of_range;      /* it refused a chunk for where it begins, last time */
    bool whole;             /* it takes no chunks */
    bool careful;           /* sessions were lost: each chunk has a connection of its own */
    bool closing;           /* it was asked to close the session */
    bool damaged;           /* it had other bytes than were sent */
    bool done;
    struct digest digest; /* once it is done, or closing */
    uint64_t size_bytes;
};

/* Smaller chunks on connections of their own may come through where larger ones do not. */
static void lose_session(struct upload *upload, const char *why)
{
    log_debug("an upload begins again", LOG("registry", upload->target->name), LOG("why", why),
              LOG("bytes", upload->offset));
    free(TAKE(upload->session));
    upload->careful = true;
    upload->offset = 0;
    upload->unsure = upload->out_of_range = false;
    upload->setbacks++;
    upload->limit_bytes = MAX(MIN(upload->limit_bytes, CHUNK_FIRST_BYTES * 2) / 2, CHUNK_MIN_BYTES);
    upload->chunk_max_bytes = MIN(upload->chunk_max_bytes, upload->limit_bytes);
}

static bool protocol_error(const struct upload *upload, const char *why, struct error *err)
{
    error_set(err, ERROR_FAILED_PRECONDITION, "REGISTRY_PROTOCOL", "%s: %s", upload->target->name,
              why);
    return error_hint(err, "the registry, or a proxy before it, does not work properly");
}

/* Takes the next URL of the session; the present one stays if the answer has none. */
static bool take_location(struct upload *upload, const char *answered,
                          const struct http_response *response, struct error *err)
{
    char *url;

    if (!http_header(response, "Location", 0))
        return upload->session || protocol_error(upload, "it does not say where to send to", err);
    url = session_url(upload->client, answered, response, err);
    if (!url)
        return false;
    free(upload->session);
    upload->session = url;
    return true;
}

/* "0-1023", also "bytes=0-1023": what the server has. That of nothing is "0-0", as is that of one
 * byte, which then comes again. */
static bool parse_range(const char *text, uint64_t *ret_bytes)
{
    unsigned long long last;
    int end = 0;

    if (!text)
        return false;
    if (str_starts(text, "bytes="))
        text += strlen("bytes=");
    if (sscanf(text, "0-%19llu%n", &last, &end) != 1 || text[end])
        return false;
    *ret_bytes = last ? (uint64_t)last + 1 : 0;
    return true;
}

static bool await_open_session(struct upload *upload, struct error *err)
{
    CLEANUP_FREE char *path = xasprintf("/%s/blobs/uploads/", upload->target->repository);
    CLEANUP_FREE char *answered = NULL;
    const struct source_request request = {
        .method = "POST",
        .path = path,
        .attempts = 1,
        .push = true,
        .ret_url = &answered,
    };
    CLEANUP(http_response_cleanup)
    struct http_response *response =
        await_source_ask(upload->client, upload->target, &request, err);
    const char *min_length;

    if (!response)
        return false;
    if (http_status(response) != 202)
        return await_refused(upload->target, response, err);
    await_drained(response);
    min_length = http_header(response, "OCI-Chunk-Min-Length", 0);
    upload->chunk_min_bytes =
        min_length ? MIN(strtoull(min_length, NULL, 10), CHUNK_MIN_LENGTH_MAX_BYTES) : 0;
    return take_location(upload, answered, response, err);
}

/* What the server has. */
static void note_offset(struct upload *upload, uint64_t offset)
{
    upload->offset = offset;
    if (offset > upload->reached_bytes) {
        upload->reached_bytes = offset;
        upload->setbacks = 0;
    } else {
        upload->setbacks++;
    }
}

/* After something went wrong: how much does the server have? Some lose the session with that. */
static bool await_ask_offset(struct upload *upload, struct error *err)
{
    CLEANUP_FREE char *answered = NULL;
    const struct source_request request = {
        .url = upload->session,
        .attempts = 1,
        .push = true,
        .ret_url = &answered,
    };
    CLEANUP(http_response_cleanup)
    struct http_response *response =
        await_source_ask(upload->client, upload->target, &request, err);
    uint64_t bytes;

    if (!response)
        return false;
    await_drained(response);
    if (http_status(response) >= 200 && http_status(response) < 300 &&
        parse_range(http_header(response, "Range", 0), &bytes) && (!upload->whole || bytes == 0) &&
        take_location(upload, answered, response, NULL)) {
        note_offset(upload, bytes);
        upload->unsure = false;
        return true;
    }
    if (upload->closing) { /* the answer to that may have been lost */
        upload->closing = false;
        if (!await_blob_present(upload->client, upload->target, &upload->digest, upload->size_bytes,
                                upload->watcher, &upload->done, err) ||
            upload->done)
            return upload->done;
    }
    lose_session(upload, "the registry does not know the session any more");
    return true;
}

/* The size of the next chunk aims at a time. */
static void adapt(struct upload *upload, uint64_t bytes, uint64_t took_ms)
{
    uint64_t aim = bytes * CHUNK_AIM_MS / MAX(took_ms, 1U);

    if (bytes)
        upload->chunk_max_bytes =
            MIN(MAX(aim, CHUNK_MIN_BYTES), MIN(upload->limit_bytes, CHUNK_MAX_BYTES));
}

/* A server that knows no chunks, or none of this size (some want 5 MiB and say so by a 400): all at
 * once, then. */
static bool await_give_up_chunks(struct upload *upload, struct http_response *response,
                                 struct error *err)
{
    if (upload->whole || (upload->closing && upload->offset == 0))
        return await_refused(upload->target, response, err);
    log_debug("a registry takes no chunks", LOG("registry", upload->target->name),
              LOG("status", http_status(response)));
    await_drained(response);
    upload->whole = true;
    lose_session(upload, "it takes no chunks");
    return true;
}

/* It did not take the chunk: another way may do. */
static bool await_other_way(struct upload *upload, struct http_response *response,
                            uint64_t chunk_bytes, struct error *err)
{
    int status = http_status(response);

    switch (status) {
    case 404: /* BLOB_UPLOAD_UNKNOWN, BLOB_UPLOAD_INVALID */
        await_drained(response);
        if (upload->closing) {
            upload->unsure = true; /* looks whether the blob is there */
            return true;
        }
        lose_session(upload, "the registry has lost the session");
        return true;
    case 416:
        if (upload->out_of_range) /* twice: it wants another range than it says */
            return await_give_up_chunks(upload, response, err);
        await_drained(response);
        upload->unsure = upload->out_of_range = true;
        return true;
    case 413:
        if (upload->whole || chunk_bytes <= CHUNK_MIN_BYTES)
            return await_refused(upload->target, response, err);
        upload->limit_bytes = MAX(chunk_bytes / 4, CHUNK_MIN_BYTES);
        upload->chunk_max_bytes = upload->limit_bytes;
        upload->unsure = true;
        return true;
    case 400:
    case 405:
    case 411:
    case 415:
        return await_give_up_chunks(upload, response, err);
    default:
        return await_refused(upload->target, response, err);
    }
}

/* A chunk as the body of a request. */
struct chunk {
    const struct upload_content *content;
    uint64_t offset; /* in the content */
};

static ssize_t await_read_chunk(void *arg, uint64_t offset, void *buffer, size_t size,
                                struct error *err)
{
    const struct chunk *chunk = arg;
    const struct upload_content *content = chunk->content;

    return content->await_read(content->arg, chunk->offset + offset, buffer, size, err);
}

/* One request with a chunk: PATCH, or PUT for the last one, which closes the session. */
static struct http_response *await_send(struct upload *upload, uint64_t size, bool last,
                                        char **ret_url, struct error *err)
{
    bool all = last && upload->offset == 0; /* "POST then PUT" */
    CLEANUP_FREE char *range =
        size && !all ? xasprintf("Content-Range: %llu-%llu", (unsigned long long)upload->offset,
                                 (unsigned long long)(upload->offset + size - 1))
                     : NULL;
    CLEANUP_FREE char *url =
        last ? xasprintf("%s%cdigest=%s", upload->session, strchr(upload->session, '?') ? '&' : '?',
                         upload->digest.text)
             : xstrdup(upload->session);
    const char *headers[] = {"Content-Type: application/octet-stream", range, NULL};
    struct chunk chunk = {upload->content, upload->offset};
    const struct http_body body = {.size_bytes = size,
                                   .await_read = await_read_chunk,
                                   .arg = &chunk};
    const struct source_request request = {
        .method = last ? "PUT" : "PATCH",
        .url = url,
        .headers = headers,
        .attempts = 1,
        .push = true,
        .request_body = &body,
        .answer_grace_ms = last ? (upload->offset + size) / CLOSE_BYTES_PER_MS : 0,
        .own_connection = upload->careful,
        .ret_url = ret_url,
    };

    return await_source_ask(upload->client, upload->target, &request, err);
}

/* Whether the registry has what we sent, when it says that all is well. */
static bool check_closed(struct upload *upload, const struct http_response *response,
                         struct error *err)
{
    const char *digest = http_header(response, "Docker-Content-Digest", 0);

    if (!str_empty(digest) && !str_eq(digest, upload->digest.text)) {
        error_set(err, ERROR_DATA_LOSS, "DIGEST_MISMATCH",
                  "%s has other bytes than were sent: %.100s instead of %s", upload->target->name,
                  digest, upload->digest.text);
        return error_hint(err, "the registry, or a proxy before it, damages data");
    }
    upload->done = true;
    return true;
}

static bool take_chunk(struct upload *upload, const char *answered,
                       const struct http_response *response, uint64_t size, struct error *err)
{
    const char *range = http_header(response, "Range", 0);
    uint64_t bytes = upload->offset + size;

    if (!take_location(upload, answered, response, err))
        return false;
    if (range && (!parse_range(range, &bytes) || bytes > upload->offset + size))
        return protocol_error(upload, "it says that it has more than was sent", err);
    note_offset(upload, bytes);
    return true;
}

/* The registry has other bytes than we think it has: something on the way there may have damaged
 * them, once. */
static bool await_wrong_digest(struct upload *upload, struct http_response *response,
                               struct error *err)
{
    await_refused(upload->target, response, err);
    if (!strstr(err->message, "digest invalid"))
        return false;
    if (!upload->damaged) {
        error_done(err);
        upload->damaged = true;
        lose_session(upload, "the registry has other bytes than were sent");
        return true;
    }
    err->code = ERROR_DATA_LOSS;
    free(err->reason);
    err->reason = xstrdup("DIGEST_MISMATCH");
    return false;
}

static bool await_next_chunk(struct upload *upload, struct error *err)
{
    const struct upload_content *content = upload->content;
    CLEANUP_FREE char *answered = NULL;
    CLEANUP(http_response_cleanup) struct http_response *response = NULL;
    uint64_t max_bytes = upload->whole ? UINT64_MAX : upload->chunk_max_bytes;
    uint64_t started_ms;
    bool last = false;
    int64_t size = -1;

    if (!upload->whole ||
        content->await_measure(content->arg, &upload->digest, &upload->size_bytes, err))
        size = content->await_chunk(content->arg, upload->offset, upload->chunk_min_bytes,
                                    MAX(max_bytes, upload->chunk_min_bytes), &last, err);
    if (size < 0 ||
        (last && !content->await_measure(content->arg, &upload->digest, &upload->size_bytes, err)))
        return false;
    upload->watcher->goes_on(upload->watcher->arg);
    upload->closing = last;
    started_ms = loop_now_ms();
    response = await_send(upload, (uint64_t)size, last, &answered, err);
    if (!response) {
        upload->unsure = true;
        return false;
    }
    upload->unsure = false;
    if (last && http_status(response) >= 200 && http_status(response) <= 204) {
        await_drained(response);
        return check_closed(upload, response, err);
    }
    if (!last && http_status(response) == 202) {
        await_drained(response);
        upload->out_of_range = false;
        adapt(upload, (uint64_t)size, loop_now_ms() - started_ms);
        return take_chunk(upload, answered, response, (uint64_t)size, err);
    }
    if (last && http_status(response) == 400)
        return await_wrong_digest(upload, response, err);
    return await_other_way(upload, response, (uint64_t)size, err);
}

static bool await_step(struct upload *upload, struct error *err)
{
    if (upload->session && upload->unsure)
        return await_ask_offset(upload, err);
    if (!upload->session)
        return await_open_session(upload, err);
    return await_next_chunk(upload, err);
}

/* --- Until it is there -------------------------------------------------------------------------
 */

static bool await_all_steps(struct upload *upload, struct error *err)
{
    struct patience patience = {0};
    uint64_t reached_bytes = 0; /* when it last got on */

    while (!upload->done) {
        CLEANUP_ERROR struct error failure = {0};
        if (!await_step(upload, &failure)) {
            if (upload->reached_bytes > reached_bytes)
                patience = (struct patience){0};
            reached_bytes = upload->reached_bytes;
            if (!await_patience(upload->client, upload->target, upload->watcher, &patience,
                                &failure, err))
                return false;
        } else if (upload->setbacks > FRUITLESS_MAX) {
            return protocol_error(upload, "it loses what is sent again and again", err);
        }
    }
    return true;
}

bool await_upload(struct registry_client *client, struct source *target,
                  const struct upload_content *content, const struct upload_watcher *watcher,
                  struct digest *ret_digest, uint64_t *ret_size, struct error *err)
{
    struct upload upload = {
        .client = client,
        .target = target,
        .content = content,
        .watcher = watcher,
        .chunk_max_bytes = CHUNK_FIRST_BYTES,
        .limit_bytes = CHUNK_MAX_BYTES,
    };
    bool ok = await_all_steps(&upload, err);

    free(upload.session);
    if (!ok)
        return false;
    source_served(target, 0);
    *ret_digest = upload.digest;
    *ret_size = upload.size_bytes;
    return true;
}

/* --- Manifests ---------------------------------------------------------------------------------
 */

struct memory {
    const char *data;
    size_t size;
};

static ssize_t await_read_memory(void *arg, uint64_t offset, void *buffer, size_t size,
                                 struct error *err UNUSED)
{
    const struct memory *memory = arg;
    size_t n = MIN(size, memory->size - offset);

    memcpy(buffer, memory->data + offset, n);
    return (ssize_t)n;
}

bool await_manifest_put(struct registry_client *client, struct source *target, const char *name,
                        const char *media_type, const void *data, size_t size,
                        const struct upload_watcher *watcher, struct error *err)
{
    CLEANUP_FREE char *type = xasprintf("Content-Type: %s", media_type);
    const char *headers[] = {type, NULL};
    struct memory memory = {data, size};
    const struct http_body body = {.size_bytes = size,
                                   .await_read = await_read_memory,
                                   .arg = &memory};
    const struct source_request request = {
        .method = "PUT",
        .kind = "manifests",
        .name = name,
        .headers = headers,
        .push = true,
        .request_body = &body,
    };
    const struct digest digest = digest_of(data, size);
    CLEANUP(http_response_cleanup)
    struct http_response *response = await_ask(client, target, &request, watcher, err);
    const char *stored;

    if (!response)
        return false;
    if (http_status(response) < 200 || http_status(response) > 204)
        return await_refused(target, response, err);
    await_drained(response);
    stored = http_header(response, "Docker-Content-Digest", 0);
    if (str_empty(stored) || str_eq(stored, digest.text))
        return true;
    error_set(err, ERROR_DATA_LOSS, "DIGEST_MISMATCH",
              "%s has another manifest than was sent: %.100s instead of %s", target->name, stored,
              digest.text);
    return error_hint(err, "the registry, or a proxy before it, damages data");
}
