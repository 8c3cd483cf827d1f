#include "daemon/registry/download.h"

#include "daemon/registry/exchange.h"
#include "daemon/registry/internal.h"

#define ATTEMPTS 3
#define URL_MAX_BYTES (8 * KIB)

bool download_url_check(const char *url, struct error *err)
{
    CLEANUP_ORIGIN struct origin origin = {0};

    if (strlen(url) > URL_MAX_BYTES)
        return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_URL", "the URL is too long");
    if (origin_parse(url, &origin, err))
        return true;
    if (err) {
        free(err->reason);
        err->reason = xstrdup("INVALID_URL");
    }
    return false;
}

struct http_response *await_download(struct registry_client *client, const char *url,
                                     struct error *err)
{
    CLEANUP(http_response_cleanup) struct http_response *response = NULL;
    int status;

    response = await_exchange(&client->transport,
                              &(struct exchange){.url = url, .attempts = ATTEMPTS}, NULL, err);
    if (!response) {
        error_prefix(err, "Get \"%.1000s\"", url);
        if (err && error_is(err, "CONNECTION_REFUSED"))
            error_hint(err, "is the server running, and are its name and port right?");
        return NULL;
    }
    status = http_status(response);
    if (status == 200)
        return TAKE(response);
    error_set(err, ERROR_FAILED_PRECONDITION, "DOWNLOAD_FAILED",
              "failed to GET %.1000s with status %d", url, status);
    return NULL;
}

uint64_t download_bytes(const struct http_response *response)
{
    const char *length = http_header(response, "Content-Length", 0);

    return length ? strtoull(length, NULL, 10) : 0;
}
