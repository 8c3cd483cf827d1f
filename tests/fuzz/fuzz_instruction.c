/* Instructions of Dockerfiles, and what `import --change` makes of them: understood or refused; a
 * configuration that was changed is one that can be read again. The first byte chooses what there
 * is before: a configuration with an environment, or none. */
#include "daemon/build/change.h"
#include "daemon/build/instruction.h"

#define TEXT_MAX_BYTES (8 * KIB) /* longer ones find nothing new, slowly */
#define JSON_BYTES (64 * MIB)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_all(const char *text)
{
    struct instruction_reader reader = {.rest = text};
    int r;

    do {
        CLEANUP(instruction_done) struct instruction instruction = {0};
        CLEANUP_ERROR struct error err = {0};
        const char *before = reader.rest;
        r = instruction_next(&reader, &instruction, &err);
        CHECK((r < 0) == error_is_set(&err));
        if (r <= 0)
            continue;
        CHECK(reader.rest > before && reader.rest <= text + strlen(text));
        CHECK(instruction.name && instruction.text);
        CHECK(instruction.kind != INSTRUCTION_OTHER || !instruction.args);
    } while (r > 0);
}

static void change(const char *text, bool with_env)
{
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_JSON json_t *config =
        with_env ? json_pack("{s:[s,s], s:{s:s}}", "Env", "PATH=/bin", "A=b", "Labels", "x", "y")
                 : json_object();
    CLEANUP_JSON json_t *again = NULL;
    CLEANUP_FREE char *json = NULL;
    char *changes[] = {(char *)text};

    if (!changes_apply(config, changes, 1, &err)) {
        CHECK(error_is_set(&err) && err.message && *err.message);
        return;
    }
    json = json_text(config);
    again = json_parse(json, strlen(json), JSON_BYTES, "it", NULL);
    CHECK(again && json_equal(again, config));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP_FREE char *text = NULL;

    if (size == 0 || size > TEXT_MAX_BYTES)
        return 0;
    text = xstrndup((const char *)data + 1, size - 1);
    read_all(text);
    change(text, data[0] & 1);
    return 0;
}
