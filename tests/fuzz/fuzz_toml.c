/* TOML: any text ends in a tree or an error that names a line; what was read is inside the limits.
 */
#include "daemon/registry/toml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t count_values(const struct toml *toml, unsigned int depth)
{
    size_t count = 1;

    CHECK(depth <= 4 * TOML_MAX_DEPTH * TOML_MAX_DEPTH);
    CHECK(toml->kind == TOML_ARRAY || toml->kind == TOML_TABLE || toml->count == 0);
    CHECK(toml->kind != TOML_STRING || toml->text);
    CHECK(toml->line >= 1);
    for (size_t i = 0; i < toml->count; i++) {
        const struct toml *child = toml->children[i];
        CHECK((toml->kind == TOML_TABLE) == (child->key != NULL));
        CHECK(toml->kind != TOML_TABLE || toml_get(toml, child->key) == child);
        count += count_values(child, depth + 1);
    }
    return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP_ERROR struct error err = {0};
    CLEANUP(toml_cleanup) struct toml *toml = toml_parse((const char *)data, size, "f", &err);

    CHECK(toml || (err.message && strncmp(err.message, "f:", 2) == 0));
    CHECK(!toml || count_values(toml, 0) <= TOML_MAX_VALUES);
    return 0;
}
