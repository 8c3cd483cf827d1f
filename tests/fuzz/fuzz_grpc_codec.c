/* What strangers put into gRPC's message prefix and header values. */
#include "proto/grpc/codec.h"
#include "proto/grpc/status.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_prefix(const uint8_t *data, size_t size)
{
    CLEANUP_ERROR struct error err = {0};
    size_t message_size = 0;
    int r = grpc_prefix_read(data, size, 4 * MIB, &message_size, &err);

    CHECK(r <= 0 || message_size <= 4 * MIB);
    CHECK((r < 0) == error_is_set(&err));
}

static void try_percent(const char *text)
{
    CLEANUP_STRBUF struct strbuf decoded = {0}, encoded = {0}, again = {0};

    grpc_percent_decode(&decoded, text);
    CHECK(decoded.length <= strlen(text));
    CHECK(strlen(strbuf_text(&decoded)) == decoded.length);
    grpc_percent_encode(&encoded, strbuf_text(&decoded));
    grpc_percent_decode(&again, strbuf_text(&encoded));
    CHECK(strcmp(strbuf_text(&again), strbuf_text(&decoded)) == 0);
}

static void try_timeout(const char *text)
{
    char formatted[GRPC_TIMEOUT_TEXT];
    uint64_t ms, again;

    if (!grpc_timeout_parse(text, &ms))
        return;
    grpc_timeout_format(ms, formatted);
    CHECK(grpc_timeout_parse(formatted, &again));
    CHECK(again >= ms); /* never shorter */
}

static void try_base64(const char *text)
{
    CLEANUP_STRBUF struct strbuf decoded = {0}, encoded = {0}, again = {0};

    if (!grpc_base64_decode(&decoded, text))
        return;
    grpc_base64_encode(&encoded, strbuf_text(&decoded), decoded.length);
    CHECK(grpc_base64_decode(&again, strbuf_text(&encoded)));
    CHECK(again.length == decoded.length);
    CHECK(memcmp(strbuf_text(&again), strbuf_text(&decoded), again.length) == 0);
}

/* Code, NUL, message, NUL, details. */
static void try_status(const char *text, const uint8_t *end)
{
    const char *message = text + strlen(text) + 1;
    CLEANUP_ERROR struct error err = {0};

    if ((const uint8_t *)message >= end)
        return;
    const uint8_t *details = (const uint8_t *)message + strlen(message) + 1;
    status_parse(text, message, details, details < end ? (size_t)(end - details) : 0, &err);
    CHECK(err.code <= ERROR_UNAUTHENTICATED);
    CHECK(!error_is_set(&err) || err.message);
    struct status_headers headers;
    status_headers_make(&headers, &err);
    status_headers_done(&headers);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP_FREE char *text = xmalloc(size + 1);

    if (size)
        memcpy(text, data, size);
    text[size] = '\0';
    try_prefix(data, size);
    try_percent(text);
    try_timeout(text);
    try_base64(text);
    try_status(text, (const uint8_t *)text + size);
    return 0;
}
