/* --format: any text is a template or is refused, and what it makes of data ends, fits in memory
 * and steers no terminal. */
#include "client/ui/template.h"

#define OUTPUT_MAX_BYTES (64 * MIB)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char values[] =
    "{\"ID\": \"sha256:0123\", \"Names\": [\"a\", \"b\"], \"Size\": 17,"
    " \"Big\": true, \"Sub\": {\"Field\": \"\\u001b[31m\"}, \"None\": null}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP_FREE char *text = xstrndup((const char *)data, size);
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_JSON json_t *json = json_parse(values, strlen(values), 4 * KIB, "the data", NULL);
    CLEANUP(template_cleanup) struct template *template = template_parse(text, &err);
    CLEANUP_STRBUF struct strbuf out = {0};

    CHECK((template != NULL) == !error_is_set(&err));
    if (!template)
        return 0;
    if (!template_render(template, json, &out, &err))
        CHECK(error_is_set(&err));
    CHECK(out.length <= OUTPUT_MAX_BYTES);
    CHECK(memchr(data, 27, size) || !out.length || !memchr(out.data, 27, out.length));
    return 0;
}
