/* HTTP/1 requests: whatever comes, in whatever pieces, the parser takes no more than it was given
 * and ends complete, refused or waiting. */
#include "daemon/server/docker/request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t step = size ? 1 + data[0] % 64 : 1;
    const char *text = (const char *)data + 1;
    size_t taken = 0, length = size ? size - 1 : 0;

    while (taken < length) {
        CLEANUP(request_done) struct request request;
        CLEANUP_FREE char *path = NULL;
        request_init(&request);
        while (taken < length && !request.complete && !request.refusal) {
            size_t given = MIN(step, length - taken);
            size_t n = request_feed(&request, text + taken, given);
            CHECK(n <= given);
            taken += n;
        }
        if (request.refusal)
            break;
        path = request_path(&request);
        CHECK(strlen(path) <= request.url.length);
    }
    return 0;
}
