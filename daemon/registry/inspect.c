#include "daemon/registry/internal.h"
#include "daemon/registry/queries.h"
#include "proto/base/json.h"

#define ATTEMPTS 4

void registry_manifest_done(struct registry_manifest *manifest)
{
    free(manifest->media_type);
    free(manifest->data);
    free(manifest->config_data);
    free(manifest->entries);
    *manifest = (struct registry_manifest){0};
}

struct source *await_own_source(struct registry_client *client, const struct reference *reference,
                                const struct registry_auth *auth, struct error *err)
{
    CLEANUP_SOURCE_LIST struct source_list list = {0};

    if (!await_registry_sources(client, reference, auth, SOURCE_RESOLVE, &list, err))
        return NULL;
    for (size_t i = 0; i < list.count; i++) {
        if (!source_is_mirror(list.items[i]))
            return source_ref(list.items[i]);
    }
    return registry_itself(client, reference, auth);
}

struct inspection {
    struct registry_client *client;
    const struct source *source;
    const struct reference *reference;
};

/* A document of the repository, and its media type. */
static bool await_document(const struct inspection *inspection, const char *kind, const char *name,
                           struct strbuf *ret, char **ret_media_type, struct error *err)
{
    static const char *const headers[] = {"Accept-Encoding: identity", ACCEPT_MANIFESTS, NULL};
    const struct source_request request = {
        .kind = kind,
        .name = name,
        .headers = headers,
        .attempts = ATTEMPTS,
        .body = ret,
        .body_limit_bytes = MANIFEST_MAX_BYTES,
    };
    CLEANUP(http_response_cleanup)
    struct http_response *response =
        await_source_ask(inspection->client, inspection->source, &request, err);
    CLEANUP_FREE char *familiar = NULL;

    if (!response)
        return false;
    if (http_status(response) == 200) {
        if (ret_media_type)
            *ret_media_type = xstrdup(http_header(response, "Content-Type", 0));
        return true;
    }
    await_refusal(response, source_name(inspection->source), err);
    if (err->code != ERROR_NOT_FOUND)
        return explain(inspection->source, err);
    familiar = reference_familiar(inspection->reference);
    free(err->reason);
    err->reason = xstrdup("MANIFEST_UNKNOWN");
    error_set(err, ERROR_NOT_FOUND, "MANIFEST_UNKNOWN", "no such manifest: %s", familiar);
    return error_hint(err, "check the name and the tag");
}

static bool wrong_bytes(const char *what, const struct digest *digest, struct error *err)
{
    return error_set(err, ERROR_DATA_LOSS, "DIGEST_MISMATCH",
                     "the registry sent wrong bytes for %s %s", what, digest->text);
}

static bool await_config(const struct inspection *inspection, const json_t *descriptor,
                         struct registry_manifest *ret, struct error *err)
{
    CLEANUP_STRBUF struct strbuf body = {0};
    struct digest digest, actual;

    const char *text = json_str(descriptor, "digest");

    if (!digest_parse(text ? text : "", &digest, err))
        return false;
    if (!await_document(inspection, "blobs", digest.text, &body, NULL, err))
        return false;
    actual = digest_of(strbuf_text(&body), body.length);
    if (!digest_eq(&actual, &digest))
        return wrong_bytes("the image configuration", &digest, err);
    ret->config_size = body.length;
    ret->config_data = strbuf_take(&body);
    return true;
}

static bool take_entries(const json_t *list, struct registry_manifest *ret, struct error *err)
{
    const json_t *entry;
    size_t i;

    if (json_array_size(list) > INDEX_MAX_ENTRIES)
        return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_MANIFEST",
                         "invalid manifest: the index has more than %d entries", INDEX_MAX_ENTRIES);
    ret->entries = xcalloc(json_array_size(list) + 1, sizeof(*ret->entries));
    json_array_foreach ((json_t *)list, i, entry) {
        const char *text = json_str(entry, "digest");
        if (!digest_parse(text ? text : "", &ret->entries[i], err))
            return error_prefix(err, "invalid manifest");
        ret->entry_count++;
    }
    return true;
}

/* What kind of document it is: by its own word, else by the header's, without parameters. */
static char *media_type_of(const json_t *json, const char *content_type)
{
    const char *own = json_str(json, "mediaType");

    if (!str_empty(own))
        return xstrdup(own);
    return content_type ? xstrndup(content_type, strcspn(content_type, "; ")) : xstrdup("");
}

bool await_registry_manifest(struct registry_client *client, const struct reference *reference,
                             const struct registry_auth *auth, bool with_config,
                             struct registry_manifest *ret, struct error *err)
{
    CLEANUP(source_cleanup)
    struct source *source = await_own_source(client, reference, auth, err);
    const struct inspection inspection = {client, source, reference};
    const bool by_digest = digest_is_set(&reference->digest);
    const char *name = by_digest ? reference->digest.text : reference->tag;
    CLEANUP_REGISTRY_MANIFEST struct registry_manifest manifest = {0};
    CLEANUP_STRBUF struct strbuf body = {0};
    CLEANUP_FREE char *content_type = NULL;
    CLEANUP_JSON json_t *json = NULL;

    if (!source || !await_document(&inspection, "manifests", name, &body, &content_type, err))
        return false;
    manifest.digest = digest_of(strbuf_text(&body), body.length);
    if (by_digest && !digest_eq(&manifest.digest, &reference->digest))
        return wrong_bytes("the manifest", &reference->digest, err);
    json = json_parse(strbuf_text(&body), body.length, MANIFEST_MAX_BYTES, "the manifest", err);
    if (!json)
        return false;
    manifest.media_type = media_type_of(json, content_type);
    const json_t *config = json_object_get(json, "config");
    const json_t *entries = json_object_get(json, "manifests");
    if (!json_is_object(config) == !json_is_array(entries))
        return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_MANIFEST",
                         "invalid manifest: it is neither an image's nor an index");
    if (entries ? !take_entries(entries, &manifest, err)
                : with_config && !await_config(&inspection, config, &manifest, err))
        return false;
    manifest.size = body.length;
    manifest.data = strbuf_take(&body);
    *ret = manifest;
    manifest = (struct registry_manifest){0};
    return true;
}
