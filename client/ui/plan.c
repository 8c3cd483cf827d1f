#include "client/ui/plan.h"

#include "client/ui/table.h"
#include "client/ui/units.h"
#include "proto/base/json.h"

typedef Davit__V1__PullPlan pull_plan;
typedef Davit__V1__PlannedLayer planned_layer;

static const char *what_word(const planned_layer *layer)
{
    switch (layer->what) {
    case DAVIT__V1__PLANNED_LAYER__WHAT__FETCH:
        return layer->bytes_kept ? "to be resumed" : "to be fetched";
    case DAVIT__V1__PLANNED_LAYER__WHAT__SHARED:
        return "another pull fetches it";
    case DAVIT__V1__PLANNED_LAYER__WHAT__PRESENT:
        return "already exists";
    default:
        return "";
    }
}

static void add_layers(const pull_plan *plan, struct strbuf *out)
{
    static const char *const heading[] = {"LAYER", "SIZE", "KEPT", "STATE"};
    CLEANUP_TABLE struct table table;
    table_init(&table, ARRAY_SIZE(heading));
    table_row(&table, heading);
    for (size_t i = 0; i < plan->n_layers; i++) {
        const planned_layer *layer = plan->layers[i];
        CLEANUP_FREE char *id = xstrndup(id_digits(layer->digest), SHORT_ID);
        table_row(&table, (const char *[]){id, size_text(layer->bytes_total).text,
                                           size_text(layer->bytes_kept).text, what_word(layer)});
    }
    table_print(&table, out);
}

void plan_print(const pull_plan *plan, struct strbuf *out)
{
    strbuf_addf(out, "%s\nDigest: %s\n", plan->reference, plan->digest);
    if (plan->n_layers)
        add_layers(plan, out);
    strbuf_add_str(out, "From:   ");
    for (size_t i = 0; i < plan->n_sources; i++) {
        strbuf_add_str(out, i ? ", then " : "");
        strbuf_add_printable(out, plan->sources[i]);
    }
    strbuf_addf(out, "\nFetch:  %s of %s\nDisk:   %s, ", size_text(plan->bytes_to_fetch).text,
                size_text(plan->bytes_total).text, size_text(plan->disk_bytes).text);
    strbuf_addf(out, "%s free", size_text(plan->disk_free_bytes).text);
    if (plan->disk_reserve_bytes)
        strbuf_addf(out, " (%s of it in reserve)", size_text(plan->disk_reserve_bytes).text);
    strbuf_add_str(out, plan->fits ? "\n" : ": does not fit\n");
}

/* --- JSON --------------------------------------------------------------------------------------
 */

static json_t *layer_json(const planned_layer *layer)
{
    const ProtobufCEnumValue *what =
        protobuf_c_enum_descriptor_get_value(&davit__v1__planned_layer__what__descriptor,
                                             (int)layer->what);
    return json_pack("{s:s, s:I, s:I, s:s}", "digest", layer->digest, "bytes_total",
                     (json_int_t)layer->bytes_total, "bytes_kept", (json_int_t)layer->bytes_kept,
                     "what", what ? what->name : "UNKNOWN");
}

void plan_print_json(const pull_plan *plan, struct strbuf *out)
{
    json_t *layers = json_array(), *sources = json_array();
    for (size_t i = 0; i < plan->n_layers; i++)
        json_array_append_new(layers, layer_json(plan->layers[i]));
    for (size_t i = 0; i < plan->n_sources; i++)
        json_array_append_new(sources, json_string(plan->sources[i]));
    CLEANUP_JSON json_t *object =
        json_pack("{s:s, s:s, s:s, s:o, s:o, s:I, s:I, s:I, s:I, s:I, s:b}", "reference",
                  plan->reference, "digest", plan->digest, "image_id", plan->image_id, "layers",
                  layers, "sources", sources, "bytes_total", (json_int_t)plan->bytes_total,
                  "bytes_to_fetch", (json_int_t)plan->bytes_to_fetch, "disk_bytes",
                  (json_int_t)plan->disk_bytes, "disk_free_bytes",
                  (json_int_t)plan->disk_free_bytes, "disk_reserve_bytes",
                  (json_int_t)plan->disk_reserve_bytes, "fits", plan->fits);
    CLEANUP_FREE char *line = json_text(object);
    strbuf_addf(out, "%s\n", line);
}
