/* Times as text, from servers, settings and users. The first byte chooses the parser, the rest is
 * its input: what is taken lies where the parser's comment says. */
#include "daemon/registry/http_date.h"
#include "proto/base/duration.h"
#include "proto/base/timestamp.h"

#define NOW_UNIX 1795000000
#define YEAR_MS (366 * 24 * 3600 * 1000ULL)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP_FREE char *text = size ? xstrndup((const char *)data + 1, size - 1) : NULL;
    int64_t moment = 0;
    uint64_t ms = 0;

    if (!text)
        return 0;
    switch (data[0] % 4) {
    case 0:
        http_date_parse(text, NOW_UNIX, &moment);
        break;
    case 1:
        CHECK(retry_after_ms(text, NOW_UNIX) <= YEAR_MS);
        break;
    case 2:
        CHECK(!duration_parse(text, &ms) || ms <= 101 * YEAR_MS);
        break;
    default:
        timestamp_parse(text, NOW_UNIX * (int64_t)1000000000, &moment);
    }
    return 0;
}
