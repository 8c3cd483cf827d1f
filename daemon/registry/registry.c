#include "daemon/registry/internal.h"
#include "proto/base/log.h"

#define MANIFEST_ATTEMPTS 4
#define BACKOFF_MS 250
#define INDEX_MAX_DEPTH 2

/* --- Life cycle ------------------------------------------------------------------------------- */

void registry_client_configure(struct registry_client *client,
                               const struct registry_options *options)
{
    strv_free(client->transport.insecure);
    client->transport.insecure = strv_dup(options->insecure_registries);
    free(client->transport.tls.certs_dir);
    client->transport.tls.certs_dir = xstrdup(options->certs_dir);
    strv_free(client->hosts_dirs);
    client->hosts_dirs = strv_dup(options->hosts_dirs);
    mirrors_free(client->mirrors, client->mirror_count);
    client->mirrors = mirrors_new(options, &client->mirror_count);
    /* Hosts may be insecure, or not, from now on. */
    map_free(client->schemes);
    client->schemes = map_new();
}

struct registry_client *registry_client_new(const struct registry_options *options)
{
    struct registry_client *client = xcalloc(1, sizeof(*client));
    const struct http_options http = {
        .user_agent = options->user_agent,
        .connect_timeout_ms = options->connect_timeout_ms,
        .stall_timeout_ms = options->stall_timeout_ms,
    };

    client->transport.http = http_new(&http);
    client->transport.backoff_ms = options->backoff_ms ? options->backoff_ms : BACKOFF_MS;
    client->auth_cache = auth_cache_new();
    registry_client_configure(client, options);
    health_table_init(&client->health);
    return client;
}

struct registry_client *registry_client_free(struct registry_client *client)
{
    if (!client)
        return NULL;
    http_free(client->transport.http);
    tls_loader_done(&client->transport.tls);
    strv_free(client->transport.insecure);
    auth_cache_free(client->auth_cache);
    map_free(client->schemes);
    mirrors_free(client->mirrors, client->mirror_count);
    strv_free(client->hosts_dirs);
    health_table_done(&client->health);
    free(client);
    return NULL;
}

struct resolved_image *resolved_image_free(struct resolved_image *image)
{
    if (!image)
        return NULL;
    free(image->manifest_data);
    free(image->config_data);
    manifest_free(image->manifest);
    image_config_free(image->config);
    free(image);
    return NULL;
}

/* --- Documents -------------------------------------------------------------------------------- */

/* A manifest or config as it came, with what it hashes to. */
struct document {
    struct strbuf data;
    char *content_type;
    struct digest digest;
};

static void document_done(struct document *document)
{
    strbuf_done(&document->data);
    free(document->content_type);
}

/* What is being asked for, by whom, and where. */
struct resolution {
    struct registry_client *client;
    const struct source *source;
    unsigned int attempts; /* while it is busy */
    const struct reference *reference;
    const struct platform *platform;
    struct registry_wait *wait; /* or NULL */
};

static bool wrong_bytes(const char *what, const struct digest *expected,
                        const struct digest *actual, struct error *err)
{
    error_set(err, ERROR_DATA_LOSS, "DIGEST_MISMATCH",
              "the registry sent wrong bytes for %s %s: their digest is %s", what, expected->text,
              actual->text);
    return error_hint(err, "nothing was kept of it; try again, and if it happens again the "
                           "registry, a mirror or a proxy damages data");
}

static bool check_document(const struct document *document, const char *what,
                           const struct descriptor *expected, struct error *err)
{
    if (!expected)
        return true;
    if (!digest_eq(&document->digest, &expected->digest))
        return wrong_bytes(what, &expected->digest, &document->digest, err);
    if (expected->media_type && document->data.length != expected->size_bytes)
        return error_set(err, ERROR_DATA_LOSS, "DIGEST_MISMATCH",
                         "the %s %s has %zu bytes, but what refers to it says %llu", what,
                         expected->digest.text, document->data.length,
                         (unsigned long long)expected->size_bytes);
    return true;
}

/* distribution-spec: the header, where there is one, names what the server believes it sent. */
static bool check_digest_header(struct http_response *response, const struct document *document,
                                struct error *err)
{
    const char *text = http_header(response, "Docker-Content-Digest", 0);
    struct digest claimed;

    if (str_empty(text))
        return true;
    if (!digest_parse(text, &claimed, err)) {
        err->code = ERROR_FAILED_PRECONDITION;
        return error_prefix(err, "header Docker-Content-Digest");
    }
    return digest_eq(&claimed, &document->digest)
               ? true
               : wrong_bytes("the manifest", &claimed, &document->digest, err);
}

static bool not_found(const struct resolution *resolution, struct error *err)
{
    CLEANUP_FREE char *name = reference_familiar(resolution->reference);

    if (err->code != ERROR_NOT_FOUND || error_is(err, "NO_MATCHING_PLATFORM"))
        return false;
    free(err->reason);
    err->reason = xstrdup("MANIFEST_UNKNOWN");
    error_prefix(err, "manifest for %s not found", name);
    return error_hint(err, "check the name and the tag");
}

/* A manifest by tag or digest. `expected` is what an index or a digest reference says of it; its
 * media_type is NULL if the size is not known. */
static bool await_manifest(const struct resolution *resolution, const char *name,
                           const struct descriptor *expected, struct document *ret,
                           struct error *err)
{
    static const char *const headers[] = {
        "Accept-Encoding: identity",
        ACCEPT_MANIFESTS,
        NULL,
    };
    const struct source_request request = {
        .kind = "manifests",
        .name = name,
        .headers = headers,
        .attempts = resolution->attempts,
        .body = &ret->data,
        .body_limit_bytes = MANIFEST_MAX_BYTES,
        .wait = resolution->wait,
    };
    CLEANUP(http_response_cleanup)
    struct http_response *response =
        await_source_ask(resolution->client, resolution->source, &request, err);

    if (!response)
        return false;
    if (http_status(response) != 200) {
        await_refusal(response, source_name(resolution->source), err);
        if (error_is(err, "NAME_UNKNOWN") || err->code != ERROR_NOT_FOUND)
            return explain(resolution->source, err);
        return not_found(resolution, err);
    }
    ret->content_type = xstrdup(http_header(response, "Content-Type", 0));
    ret->digest = digest_of(strbuf_text(&ret->data), ret->data.length);
    return check_digest_header(response, ret, err) &&
           check_document(ret, "the manifest", expected, err);
}

static bool await_config(const struct resolution *resolution, const struct descriptor *config,
                         struct document *ret, struct error *err)
{
    static const char *const headers[] = {"Accept-Encoding: identity", NULL};
    const struct source_request request = {
        .kind = "blobs",
        .name = config->digest.text,
        .headers = headers,
        .attempts = resolution->attempts,
        .body = &ret->data,
        .body_limit_bytes = MANIFEST_MAX_BYTES,
        .wait = resolution->wait,
    };
    CLEANUP(http_response_cleanup)
    struct http_response *response =
        await_source_ask(resolution->client, resolution->source, &request, err);

    if (!response)
        return false;
    if (http_status(response) != 200) {
        await_refusal(response, source_name(resolution->source), err);
        if (err->code == ERROR_NOT_FOUND) {
            free(err->reason);
            err->reason = xstrdup("BLOB_UNKNOWN");
            return error_prefix(err, "the image's configuration %s is missing",
                                config->digest.text);
        }
        return explain(resolution->source, err);
    }
    ret->digest = digest_of(strbuf_text(&ret->data), ret->data.length);
    return check_document(ret, "the image configuration", config, err);
}

/* --- From a reference to an image ------------------------------------------------------------- */

/* Follows indexes down to the image manifest for the platform. */
static bool await_image_manifest(const struct resolution *resolution, struct resolved_image *image,
                                 struct error *err)
{
    const struct reference *reference = resolution->reference;
    bool by_digest = digest_is_set(&reference->digest);
    struct descriptor wanted = {.digest = reference->digest};
    CLEANUP_FREE char *name = xstrdup(by_digest ? reference->digest.text : reference->tag);
    CLEANUP(manifest_cleanup) struct manifest *index = NULL;

    for (unsigned int depth = 0; depth <= INDEX_MAX_DEPTH; depth++) {
        CLEANUP(document_done) struct document document = {0};
        struct manifest *manifest;
        const struct index_entry *entry;
        if (!await_manifest(resolution, name, by_digest || depth ? &wanted : NULL, &document, err))
            return false;
        manifest = manifest_parse(strbuf_text(&document.data), document.data.length,
                                  document.content_type, err);
        if (!manifest)
            return false;
        if (depth == 0)
            image->digest = document.digest;
        manifest_free(index);
        index = NULL;
        if (manifest->kind == MANIFEST_IMAGE) {
            image->manifest = manifest;
            image->manifest_digest = document.digest;
            image->manifest_size = document.data.length;
            image->manifest_data = strbuf_take(&document.data);
            return true;
        }
        index = manifest;
        entry = manifest_choose(index, resolution->platform, err);
        if (!entry)
            return false;
        wanted = entry->descriptor; /* borrowed from the index */
        free(name);
        name = xstrdup(wanted.digest.text);
    }
    return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_MANIFEST",
                     "invalid manifest: indexes are nested more than %d deep", INDEX_MAX_DEPTH);
}

static bool check_image(const struct resolution *resolution, const struct resolved_image *image,
                        struct error *err)
{
    const struct image_config *config = image->config;
    const struct platform offered = {.os = config->os,
                                     .architecture = config->architecture,
                                     .variant = config->variant};

    if (config->diff_id_count != image->manifest->layer_count)
        return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_MANIFEST",
                         "invalid image: the manifest has %zu layers, the configuration %zu",
                         image->manifest->layer_count, config->diff_id_count);
    /* An index chose by platform already; but there may have been none, or it may lie. Variants in
     * configurations are often missing or wrong. */
    if (str_empty(offered.architecture) ||
        (str_eq(offered.os, resolution->platform->os) &&
         (str_eq(offered.architecture, resolution->platform->architecture) ||
          platform_rank(resolution->platform, &offered) >= 0)))
        return true;
    CLEANUP_FREE char *wanted_text = platform_text(resolution->platform);
    CLEANUP_FREE char *offered_text = platform_text(&offered);
    error_set(err, ERROR_NOT_FOUND, "NO_MATCHING_PLATFORM",
              "the image does not exist for platform %s, only for: %.100s", wanted_text,
              offered_text);
    return error_hint(err, "to pull it nonetheless, give --platform %.100s", offered_text);
}

static struct resolved_image *await_resolve_at(const struct resolution *resolution,
                                               struct error *err)
{
    CLEANUP(resolved_image_cleanup) struct resolved_image *image = xcalloc(1, sizeof(*image));
    CLEANUP(document_done) struct document config = {0};

    if (!await_image_manifest(resolution, image, err) ||
        !await_config(resolution, &image->manifest->config, &config, err))
        return NULL;
    image->config = image_config_parse(strbuf_text(&config.data), config.data.length, err);
    if (!image->config || !check_image(resolution, image, err))
        return NULL;
    image->config_size = config.data.length;
    image->config_data = strbuf_take(&config.data);
    return TAKE(image);
}

struct resolved_image *await_registry_resolve(struct registry_client *client,
                                              const struct reference *reference,
                                              const struct registry_auth *auth,
                                              const struct platform *platform,
                                              struct registry_wait *ret_wait, struct error *err)
{
    CLEANUP_SOURCE_LIST struct source_list sources = {0};
    enum source_use use = digest_is_set(&reference->digest) ? SOURCE_PULL : SOURCE_RESOLVE;
    struct resolved_image *image = NULL;
    CLEANUP_ERROR struct error last = {0};
    bool itself = false; /* has said no */

    if (!await_registry_sources(client, reference, auth, use, &sources, err))
        return NULL;
    for (size_t i = 0; i < sources.count; i++) {
        struct source *source = sources.items[i];
        const struct resolution resolution = {
            .client = client,
            .source = source,
            /* Rather the next one than a busy one once more. */
            .attempts = source_is_mirror(source) && i + 1 < sources.count ? 1 : MANIFEST_ATTEMPTS,
            .reference = reference,
            .platform = platform,
            .wait = ret_wait,
        };
        CLEANUP_ERROR struct error failure = {0};
        image = await_resolve_at(&resolution, &failure);
        if (image) {
            source_served(source, 0);
            break;
        }
        source_failed(source, &failure);
        /* What the registry itself says counts, wherever its turn was. */
        itself = itself || !source_is_mirror(source);
        if (!source_is_mirror(source) || !itself || failure.code == ERROR_CANCELLED)
            error_move(&last, &failure);
        if (task_check() < 0)
            break;
    }
    if (!image)
        error_move(err, &last);
    return image;
}
