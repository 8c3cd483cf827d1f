/* References: what is taken has a normal form, which means itself. */
#include "daemon/registry/reference.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP_FREE char *text = xstrndup((const char *)data, size);
    CLEANUP_REFERENCE struct reference reference = {0}, again = {0}, short_again = {0};
    CLEANUP_FREE char *canonical = NULL;
    CLEANUP_FREE char *familiar = NULL;
    CLEANUP_FREE char *canonical_again = NULL;
    CLEANUP_FREE char *canonical_short = NULL;

    if (!reference_parse(text, &reference, NULL))
        return 0;
    CHECK(strlen(reference.domain) + 1 + strlen(reference.path) <= 255);
    CHECK(!strstr(reference.path, "..") && reference.path[0] != '/');
    canonical = reference_canonical(&reference);
    CHECK(reference_parse(canonical, &again, NULL));
    canonical_again = reference_canonical(&again);
    CHECK(strcmp(canonical, canonical_again) == 0);
    familiar = reference_familiar(&reference);
    CHECK(reference_parse(familiar, &short_again, NULL));
    canonical_short = reference_canonical(&short_again);
    CHECK(strcmp(canonical, canonical_short) == 0);
    return 0;
}
