/* Evaluates templates as `davit inspect --format` does, many at once: for comparing them with those
 * of Docker's command line. Standard input is {"data": ..., "templates": [...]}, standard output an
 * array of [text or null, error or null]. */
#include <stdio.h>

#include "client/inspect_types.h"

#define INPUT_MAX_BYTES (16 * MIB)

static json_t *evaluate(const char *text, const json_t *data)
{
    CLEANUP_ERROR struct error err = {0};
    CLEANUP(template_cleanup) struct template *template = template_parse(text, &err);
    CLEANUP_STRBUF struct strbuf out = {0};

    if (template && template_render_inspected(template, &image_inspect_type, data, &out, &err))
        return json_pack("[o, n]", json_stringn_nocheck(strbuf_text(&out), out.length));
    return json_pack("[n, s]", err.message);
}

int main(void)
{
    CLEANUP_FREE char *input = xmalloc(INPUT_MAX_BYTES);
    const size_t size = fread(input, 1, INPUT_MAX_BYTES, stdin);
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_JSON json_t *json = json_parse(input, size, INPUT_MAX_BYTES, "the input", &err);
    CLEANUP_JSON json_t *results = json_array();
    const json_t *templates = json_object_get(json, "templates");

    if (!json) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    for (size_t i = 0; i < json_array_size(templates); i++) {
        const char *text = json_string_value(json_array_get(templates, i));
        json_array_append_new(results, evaluate(text, json_object_get(json, "data")));
    }
    return json_dumpf(results, stdout, JSON_COMPACT) < 0;
}
