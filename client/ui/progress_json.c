#include "client/ui/progress.h"
#include "proto/base/json.h"

/* Words of the protocol, from the messages' own description. */
static const char *enum_name(const ProtobufCEnumDescriptor *type, int value)
{
    const ProtobufCEnumValue *known = protobuf_c_enum_descriptor_get_value(type, value);
    return known ? known->name : "UNKNOWN";
}

static void set(json_t *object, const char *key, json_t *value)
{
    json_object_set_new(object, key, value ? value : json_null()); /* NULL: text is no UTF-8 */
}

static void set_number(json_t *object, const char *key, uint64_t value)
{
    set(object, key, json_integer((json_int_t)value));
}

static json_t *layer_json(const Davit__V1__JobItem *layer)
{
    json_t *object = json_object();
    set(object, "digest", json_string(layer->id));
    set(object, "state",
        json_string(enum_name(&davit__v1__job_item__state__descriptor, layer->state)));
    set_number(object, "bytes_fetched", layer->bytes_fetched);
    set_number(object, "bytes_total", layer->bytes_total);
    set_number(object, "bytes_stored", layer->bytes_stored);
    set_number(object, "bytes_resumed", layer->bytes_resumed);
    set_number(object, "bytes_per_second", layer->bytes_per_second);
    set_number(object, "connections", layer->connections);
    set(object, "source", str_empty(layer->source) ? NULL : json_string(layer->source));
    set(object, "until_unix_ms", layer->until_unix_ms ? json_integer(layer->until_unix_ms) : NULL);
    set(object, "error", str_empty(layer->error) ? NULL : json_string(layer->error));
    return object;
}

static void set_progress(json_t *object, const job_snapshot *job)
{
    const Davit__V1__JobProgress *now = job->progress;
    set(object, "job", json_string(job->id));
    set(object, "kind", json_string(enum_name(&davit__v1__job__kind__descriptor, job->kind)));
    set(object, "state", json_string(enum_name(&davit__v1__job__state__descriptor, job->state)));
    set_number(object, "sequence", now->sequence);
    set(object, "reference", json_string(job->subject));
    set(object, "phase",
        json_string(enum_name(&davit__v1__job_progress__phase__descriptor, now->phase)));
    set_number(object, "percent", now->percent);
    set_number(object, "bytes_fetched", now->bytes_fetched);
    set_number(object, "bytes_total", now->bytes_total);
    set_number(object, "bytes_per_second", now->bytes_per_second);
    set_number(object, "limit_bytes_per_second", job->limit_bytes_per_second);
    set(object, "eta_ms", now->eta_ms < 0 ? json_null() : json_integer(now->eta_ms));
    json_t *layers = json_array();
    for (size_t i = 0; i < now->n_items; i++)
        json_array_append_new(layers, layer_json(now->items[i]));
    set(object, "layers", layers);
}

static json_t *pull_result_json(const Davit__V1__PullResult *result)
{
    json_t *object = json_object();
    set(object, "reference", json_string(result->reference));
    set(object, "digest", json_string(result->digest));
    set(object, "image_id", json_string(result->image_id));
    set(object, "up_to_date", json_boolean(result->up_to_date));
    return object;
}

static json_t *push_result_json(const Davit__V1__PushResult *result)
{
    json_t *object = json_object(), *tags = json_array();
    set(object, "reference", json_string(result->reference));
    for (size_t i = 0; i < result->n_tags; i++) {
        const Davit__V1__PushedTag *tag = result->tags[i];
        json_t *item = json_object();
        set(item, "tag", json_string(tag->tag));
        set(item, "digest", json_string(tag->digest));
        set_number(item, "size", tag->size_bytes);
        set(item, "difference", str_empty(tag->difference) ? NULL : json_string(tag->difference));
        json_array_append_new(tags, item);
    }
    set(object, "tags", tags);
    return object;
}

void progress_add_json(const job_snapshot *job, bool with_result, struct strbuf *out)
{
    CLEANUP_JSON json_t *object = json_object();
    set_progress(object, job);
    if (with_result && job->result_case == DAVIT__V1__JOB__RESULT_PULL_RESULT)
        set(object, "result", pull_result_json(job->pull_result));
    if (with_result && job->result_case == DAVIT__V1__JOB__RESULT_PUSH_RESULT)
        set(object, "result", push_result_json(job->push_result));
    CLEANUP_FREE char *text = json_text(object);
    strbuf_addf(out, "%s\n", text);
}
