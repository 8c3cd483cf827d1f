#include "daemon/registry/queries.h"
#include "daemon/server/handlers.h"
#include "proto/base/json.h"
#include "proto/base/log.h"
#include "proto/base/version.h"
#include "proto/davit/v1/registries.pb-c.h"

static const char *or_null(const char *value)
{
    return str_empty(value) ? NULL : value;
}

static struct registry_auth auth_of(const Davit__V1__RegistryAuth *message)
{
    return (struct registry_auth){
        .username = message ? or_null(message->username) : NULL,
        .password = message ? or_null(message->password) : NULL,
        .identity_token = message ? or_null(message->identity_token) : NULL,
    };
}

/* --- Login ------------------------------------------------------------------------------------ */

static bool handle_login(struct grpc_call *call, void *context, struct error *err)
{
    const struct engines *engines = context;
    CLEANUP_MESSAGE ProtobufCMessage *message = await_grpc_request(call, err);
    const Davit__V1__LoginRequest *request = (const Davit__V1__LoginRequest *)message;
    Davit__V1__LoginResponse response = DAVIT__V1__LOGIN_RESPONSE__INIT;
    CLEANUP_SECRET char *token = NULL;
    CLEANUP_REFERENCE struct reference reference = {0};
    CLEANUP_FREE char *name = NULL;

    if (!message)
        return false;
    /* What can be a registry in a reference is one. */
    name = xasprintf("%s/x", request->registry);
    if (strchr(request->registry, '/') || !reference_parse(name, &reference, NULL) ||
        !str_eq(reference.domain, request->registry))
        return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_REGISTRY",
                         "\"%.200s\" is no registry", request->registry);
    const struct registry_auth auth = auth_of(request->auth);
    log_info("login", LOG("registry", request->registry), LOG("peer", grpc_call_peer(call)));
    if (!await_registry_login(engines->pull.registry, request->registry, &auth, &token, err))
        return false;
    if (token)
        response.identity_token = token;
    return await_grpc_send(call, &response.base, err);
}

/* --- Search ----------------------------------------------------------------------------------- */

/* As in struct search_query. */
static bool wanted_of(Davit__V1__SearchRequest__Wanted wanted, int *ret, struct error *err)
{
    switch (wanted) {
    case DAVIT__V1__SEARCH_REQUEST__WANTED__ANY:
        *ret = -1;
        return true;
    case DAVIT__V1__SEARCH_REQUEST__WANTED__YES:
        *ret = 1;
        return true;
    case DAVIT__V1__SEARCH_REQUEST__WANTED__NO:
        *ret = 0;
        return true;
    default:
        return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_FILTER", "unknown filter value %d",
                         (int)wanted);
    }
}

static bool handle_search(struct grpc_call *call, void *context, struct error *err)
{
    const struct engines *engines = context;
    CLEANUP_MESSAGE ProtobufCMessage *message = await_grpc_request(call, err);
    const Davit__V1__SearchRequest *request = (const Davit__V1__SearchRequest *)message;
    Davit__V1__SearchResponse response = DAVIT__V1__SEARCH_RESPONSE__INIT;
    CLEANUP_SEARCH_RESULTS struct search_results results = {0};
    CLEANUP_FREE Davit__V1__SearchResult *items = NULL;
    CLEANUP_FREE Davit__V1__SearchResult **list = NULL;

    if (!message)
        return false;
    if (request->limit > SEARCH_LIMIT_MAX)
        return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_LIMIT",
                         "limit %u is outside the range of [1, %d]", request->limit,
                         SEARCH_LIMIT_MAX);
    const struct registry_auth auth = auth_of(request->auth);
    struct search_query query = {
        .term = request->term,
        .limit = request->limit ? request->limit : SEARCH_LIMIT_DEFAULT,
        .stars = request->stars,
    };
    if (!wanted_of(request->official, &query.official, err) ||
        !wanted_of(request->automated, &query.automated, err) ||
        !await_registry_search(engines->pull.registry, &query, &auth, &results, err))
        return false;
    items = xcalloc(results.count + 1, sizeof(*items));
    list = xcalloc(results.count + 1, sizeof(*list));
    for (size_t i = 0; i < results.count; i++) {
        const struct search_result *result = &results.items[i];
        davit__v1__search_result__init(&items[i]);
        items[i].name = result->name;
        items[i].description = result->description;
        items[i].stars = result->stars;
        items[i].is_official = result->official;
        items[i].is_automated = result->automated;
        list[i] = &items[i];
    }
    response.results = list;
    response.n_results = results.count;
    return await_grpc_send(call, &response.base, err);
}

/* --- Tags ------------------------------------------------------------------------------------- */

static bool handle_list_tags(struct grpc_call *call, void *context, struct error *err)
{
    const struct engines *engines = context;
    CLEANUP_MESSAGE ProtobufCMessage *message = await_grpc_request(call, err);
    const Davit__V1__ListTagsRequest *request = (const Davit__V1__ListTagsRequest *)message;
    Davit__V1__ListTagsResponse response = DAVIT__V1__LIST_TAGS_RESPONSE__INIT;
    CLEANUP_REFERENCE struct reference reference = {0};
    CLEANUP(strv_cleanup) char **tags = NULL;
    CLEANUP_FREE char *name = NULL, *repository = NULL;

    if (!message || !reference_parse(request->reference, &reference, err))
        return false;
    if (!reference.default_tag)
        return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_REFERENCE",
                         "%s names a tag or digest already", request->reference);
    const struct registry_auth auth = auth_of(request->auth);
    if (!await_registry_tags(engines->pull.registry, &reference, &auth, &tags, err))
        return false;
    name = reference_familiar_name(&reference);
    repository = reference_name(&reference);
    for (char **tag = tags; *tag; tag++) {
        char *full = xasprintf("%s:%s", name, *tag);
        free(*tag);
        *tag = full;
    }
    response.references = tags;
    response.n_references = strv_count(tags);
    response.repository = repository;
    return await_grpc_send(call, &response.base, err);
}

/* --- Manifests -------------------------------------------------------------------------------- */

/* For --insecure: one that knows the host as such. The caller frees it. */
static struct registry_client *insecure_client(const struct reference *reference)
{
    char *const hosts[] = {reference->domain, NULL};
    const struct registry_options options = {
        .insecure_registries = hosts,
        .certs_dir = "/etc/docker/certs.d",
        .user_agent = "davit/" DAVIT_VERSION,
    };

    return registry_client_new(&options);
}

static void registry_client_cleanup(struct registry_client **client)
{
    *client = registry_client_free(*client);
}

/* What an image's configuration says that it is for; the texts stay the configuration's. */
static void read_platform(const json_t *config, Davit__V1__Platform *ret, char **features,
                          size_t features_max)
{
    const char *const keys[] = {"architecture", "os", "os.version", "variant"};
    char **const members[] = {&ret->architecture, &ret->os, &ret->os_version, &ret->variant};
    const json_t *list = json_object_get(config, "os.features"), *feature;
    size_t i;

    davit__v1__platform__init(ret);
    for (i = 0; i < ARRAY_SIZE(keys); i++) {
        const char *text = json_str(config, keys[i]);
        if (text)
            *members[i] = (char *)text;
    }
    ret->os_features = features;
    json_array_foreach ((json_t *)list, i, feature) {
        if (json_is_string(feature) && ret->n_os_features < features_max)
            features[ret->n_os_features++] = (char *)json_string_value(feature);
    }
}

static bool await_send_manifest(struct grpc_call *call, const struct reference *reference,
                                const struct registry_manifest *manifest, struct error *err)
{
    Davit__V1__Manifest message = DAVIT__V1__MANIFEST__INIT;
    Davit__V1__Platform platform;
    CLEANUP_FREE char *name = reference_familiar(reference);
    CLEANUP_JSON json_t *config = NULL;
    char *features[32];

    message.reference = name;
    message.digest = (char *)manifest->digest.text;
    message.media_type = manifest->media_type;
    message.data = (ProtobufCBinaryData){manifest->size, (uint8_t *)manifest->data};
    if (manifest->config_data) {
        config = json_parse(manifest->config_data, manifest->config_size, MANIFEST_MAX_BYTES,
                            "the image configuration", err);
        if (!config)
            return false;
        read_platform(config, &platform, features, ARRAY_SIZE(features));
        message.platform = &platform;
    }
    return await_grpc_send(call, &message.base, err);
}

static bool handle_inspect_manifest(struct grpc_call *call, void *context, struct error *err)
{
    const struct engines *engines = context;
    CLEANUP_MESSAGE ProtobufCMessage *message = await_grpc_request(call, err);
    const Davit__V1__InspectManifestRequest *request =
        (const Davit__V1__InspectManifestRequest *)message;
    CLEANUP_REFERENCE struct reference reference = {0};
    CLEANUP_REGISTRY_MANIFEST struct registry_manifest manifest = {0};
    CLEANUP(registry_client_cleanup) struct registry_client *insecure = NULL;
    struct registry_client *client = engines->pull.registry;

    if (!message || !reference_parse(request->reference, &reference, err))
        return false;
    const struct registry_auth auth = auth_of(request->auth);
    if (request->insecure)
        client = insecure = insecure_client(&reference);
    if (!await_registry_manifest(client, &reference, &auth, request->entries, &manifest, err) ||
        !await_send_manifest(call, &reference, &manifest, err))
        return false;
    for (size_t i = 0; request->entries && i < manifest.entry_count; i++) {
        CLEANUP_REGISTRY_MANIFEST struct registry_manifest entry = {0};
        reference.digest = manifest.entries[i];
        if (!await_registry_manifest(client, &reference, &auth, false, &entry, err) ||
            !await_send_manifest(call, &reference, &entry, err))
            return false;
    }
    return true;
}

void handlers_registries_add(struct grpc_server *server, const struct engines *engines)
{
    static const struct grpc_method methods[] = {
        {"Login", handle_login},
        {"Search", handle_search},
        {"ListTags", handle_list_tags},
        {"InspectManifest", handle_inspect_manifest},
    };

    grpc_server_add(server, &davit__v1__registries__descriptor, methods, ARRAY_SIZE(methods),
                    (void *)engines);
}
