#include "daemon/image/plain_manifest.h"

#include "proto/base/strbuf.h"

static void add_descriptor(struct strbuf *json, const char *media_type, const struct digest *digest,
                           uint64_t size_bytes)
{
    strbuf_addf(json, "{\"mediaType\":\"%s\",\"digest\":\"%s\",\"size\":%llu}", media_type,
                digest->text, (unsigned long long)size_bytes);
}

char *plain_manifest(const struct digest *config, uint64_t config_size,
                     const struct layer_info *layers, size_t count)
{
    struct strbuf json = {0};

    strbuf_add_str(&json,
                   "{\"schemaVersion\":2,\"mediaType\":\"" PLAIN_MANIFEST_TYPE "\",\"config\":");
    add_descriptor(&json, PLAIN_CONFIG_TYPE, config, config_size);
    strbuf_add_str(&json, ",\"layers\":[");
    for (size_t i = 0; i < count; i++) {
        if (i)
            strbuf_add_char(&json, ',');
        add_descriptor(&json, PLAIN_LAYER_TYPE, &layers[i].diff_id, layers[i].tar_bytes);
    }
    strbuf_add_str(&json, "]}");
    return strbuf_take(&json);
}
