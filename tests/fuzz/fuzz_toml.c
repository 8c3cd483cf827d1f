/* TOML and hosts.toml: any text ends in a tree or an error that names a line; what was read is
 * inside the limits, and of hosts.toml it is what requests can be made of. */
#include "daemon/registry/hosts_file.h"
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

static void check_entry(const struct host_entry *entry)
{
    CHECK((entry->base == NULL) == (entry->name == NULL));
    CHECK(!entry->base || str_starts(entry->base, "http"));
    CHECK(entry->uses && entry->access);
    for (char **header = entry->access->headers; header && *header; header++)
        CHECK(strchr(*header, ':') && !strpbrk(*header, "\r\n"));
}

static void read_hosts(const uint8_t *data, size_t size)
{
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_HOSTS_FILE struct hosts_file file = {0};

    if (hosts_file_parse((const char *)data, size, "/d/hosts.toml", &file, &err)) {
        CHECK(file.count <= HOSTS_FILE_MAX_HOSTS);
        for (size_t i = 0; i < file.count; i++)
            check_entry(&file.hosts[i]);
        check_entry(&file.server);
    } else {
        CHECK(err.message && strncmp(err.message, "/d/hosts.toml:", 14) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP_ERROR struct error err = {0};
    CLEANUP(toml_cleanup) struct toml *toml = toml_parse((const char *)data, size, "f", &err);

    CHECK(toml || (err.message && strncmp(err.message, "f:", 2) == 0));
    read_hosts(data, size);
    CHECK(!toml || count_values(toml, 0) <= TOML_MAX_VALUES);
    return 0;
}
