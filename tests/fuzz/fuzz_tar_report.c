/* What a taken-over davit-untar could say to the daemon. */
#include "daemon/store/archive/report.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP(layer_report_done) struct layer_report result = {0};
    CLEANUP_ERROR struct error err = {0};

    if (report_decode((const char *)data, size, &result, &err)) {
        CHECK(result.entries <= LAYER_ENTRIES_MAX);
        CHECK(result.opaque.length == 0 || result.opaque.data[result.opaque.length - 1] == '\0');
    } else {
        CHECK(error_is_set(&err) && err.message && strlen(err.message) <= 1000);
    }
    return 0;
}
