/* WWW-Authenticate: any text ends in a challenge or none, in one header or in several. */
#include "daemon/registry/challenge.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP_FREE char *text = xstrndup((const char *)data, size);
    CLEANUP_CHALLENGE struct challenge one = {0}, lines = {0};
    char *rest = text, *line;

    challenge_add(&one, text);
    CHECK(one.kind != CHALLENGE_BEARER || !str_empty(one.realm));
    while ((line = strsep(&rest, "\n"))) {
        enum challenge_kind before = lines.kind;
        challenge_add(&lines, line);
        CHECK(lines.kind >= before);
    }
    return 0;
}
