/* --format: any text is a template or is refused, and what it makes of data ends, fits in memory
 * and steers no terminal: of any data, of an image, and of rows of a table. */
#include "client/inspect_types.h"

#define OUTPUT_MAX_BYTES (2 * TEMPLATE_OUTPUT_MAX)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char values[] =
    "{\"Id\": \"sha256:0123\", \"RepoTags\": [\"a\", \"b\"], \"Size\": 17, \"Big\": true,"
    " \"Sub\": {\"Field\": \"\\u001b[31m\", \"float\": 1.5, \"list\": [1, null, {}]}, \"None\": "
    "null,"
    " \"Author\": \"\\u001b]0;x\\u0007\\u009b1m\", \"Metadata\": {\"LastTagTime\": "
    "\"2024-01-02T03:04\"},"
    " \"Config\": {\"Labels\": {\"\\u001b\": \"\\u001b\", \"a\": \"b\"}, \"Env\": [\"A=\\u001b\"],"
    " \"Healthcheck\": {\"Interval\": 90500000000}}, \"RootFS\": {\"Layers\": [\"x\", \"y\"]}}";

/* An escape that is not the data's: users may write it, plain or as what stands for it. */
static bool has_escape(const uint8_t *data, size_t size)
{
    return memchr(data, 27, size) || memchr(data, '\\', size) || memchr(data, '%', size) ||
           memchr(data, '\'', size);
}

static void check_output(const struct strbuf *out, const struct error *err, bool ok, bool escaped)
{
    CHECK(ok == !error_is_set(err));
    CHECK(out->length <= OUTPUT_MAX_BYTES);
    CHECK(escaped || !out->length || !memchr(out->data, 27, out->length));
}

static void check_rows(const char *text, const json_t *row, bool escaped)
{
    static const struct format_column columns[] = {{"Id", "ID"}, {"Author", "AUTHOR"}};
    const struct format format = {
        .text = text,
        .table = "{{.Id}}",
        .columns = columns,
        .column_count = ARRAY_SIZE(columns),
        .width = 40,
    };
    CLEANUP_JSON json_t *rows = json_pack("[O, O]", row, row);
    CLEANUP_STRBUF struct strbuf out = {0};
    CLEANUP_ERROR struct error err = {0};
    const bool ok = format_rows(&format, rows, &out, &err);

    if (ok)
        check_output(&out, &err, ok, escaped);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP_FREE char *text = xstrndup((const char *)data, size);
    CLEANUP_FREE char *table = xasprintf("table %s", text);
    CLEANUP_ERROR struct error parse_err = {0}, any_err = {0}, image_err = {0};
    CLEANUP_JSON json_t *json = json_parse(values, strlen(values), 4 * KIB, "the data", NULL);
    CLEANUP(template_cleanup) struct template *template = template_parse(text, &parse_err);
    CLEANUP_STRBUF struct strbuf any = {0}, image = {0};
    const bool escaped = has_escape(data, size);
    bool ok;

    CHECK((template != NULL) == !error_is_set(&parse_err));
    if (!template)
        return 0;
    ok = template_render(template, json, &any, &any_err);
    check_output(&any, &any_err, ok, escaped);
    ok = template_render_inspected(template, &image_inspect_type, json, &image, &image_err);
    check_output(&image, &image_err, ok, escaped);
    check_rows(text, json, escaped);
    check_rows(table, json, escaped);
    return 0;
}
