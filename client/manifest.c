#include <openssl/evp.h>
#include <stdio.h>

#include "client/job_call.h"
#include "client/ui/json_indent.h"
#include "proto/base/json.h"
#include "proto/davit/v1/registries.pb-c.h"

#define MANIFEST_MAX_BYTES (4 * MIB)
#define OCI_MANIFEST "application/vnd.oci.image.manifest.v1+json"
#define OCI_INDEX "application/vnd.oci.image.index.v1+json"
#define DOCKER_LIST "application/vnd.docker.distribution.manifest.list.v2+json"

/* What Docker prints is put together as text, so that each manifest keeps its own words and order;
 * add_json_indented() lays it out. */

typedef Davit__V1__Manifest manifest_message;

struct inspection {
    manifest_message **items; /* the one that was named, then what it lists */
    size_t count;
    json_t *first; /* parsed */
};

static void inspection_done(struct inspection *inspection)
{
    for (size_t i = 0; i < inspection->count; i++)
        davit__v1__manifest__free_unpacked(inspection->items[i], NULL);
    free(inspection->items);
    json_decref(inspection->first);
}

/* --- Members ----------------------------------------------------------------------------------
 */

static void add_comma(struct strbuf *out)
{
    if (out->length && !strchr("{[", out->data[out->length - 1]))
        strbuf_add_char(out, ',');
}

static void add_member(struct strbuf *out, const char *key, const char *json)
{
    add_comma(out);
    strbuf_addf(out, "\"%s\":%s", key, json);
}

static void add_text(struct strbuf *out, const char *key, const char *text)
{
    if (str_empty(text))
        return;
    add_comma(out);
    strbuf_addf(out, "\"%s\":", key);
    strbuf_add_quoted(out, text);
}

/* A member of an object as it is, if it is there. */
static void add_copy(struct strbuf *out, const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    char *text = value ? json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;

    if (text)
        add_member(out, key, text);
    free(text);
}

static void add_platform(struct strbuf *out, const json_t *platform)
{
    static const char *const keys[] = {"architecture", "os",      "os.version",
                                       "os.features",  "variant", "features"};

    add_member(out, "platform", "{");
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
        add_copy(out, platform, keys[i]);
    strbuf_add_char(out, '}');
}

static json_t *config_platform(const Davit__V1__Platform *message)
{
    json_t *platform = json_object();

    if (!message)
        return platform;
    json_object_set_new(platform, "architecture", json_string(message->architecture));
    json_object_set_new(platform, "os", json_string(message->os));
    if (!str_empty(message->os_version))
        json_object_set_new(platform, "os.version", json_string(message->os_version));
    if (!str_empty(message->variant))
        json_object_set_new(platform, "variant", json_string(message->variant));
    if (message->n_os_features) {
        json_t *features = json_array();
        for (size_t i = 0; i < message->n_os_features; i++)
            json_array_append_new(features, json_string(message->os_features[i]));
        json_object_set_new(platform, "os.features", features);
    }
    return platform;
}

/* --- Plain ------------------------------------------------------------------------------------
 */

static const char *media_type_of_entry(const json_t *entry)
{
    const char *type = json_str(entry, "mediaType");

    return type ? type : OCI_MANIFEST;
}

/* Docker makes the list anew: of OCI manifests an index, of others its own list. */
static void add_list(const json_t *index, struct strbuf *out)
{
    const json_t *entries = json_object_get(index, "manifests"), *entry;
    const bool oci = str_eq(media_type_of_entry(json_array_get(entries, 0)), OCI_MANIFEST);
    CLEANUP_STRBUF struct strbuf text = {0};
    size_t i;

    strbuf_add_str(&text, "{\"schemaVersion\":2");
    add_text(&text, "mediaType", oci ? OCI_INDEX : DOCKER_LIST);
    add_member(&text, "manifests", "[");
    json_array_foreach ((json_t *)entries, i, entry) {
        add_comma(&text);
        strbuf_add_char(&text, '{');
        add_text(&text, "mediaType", media_type_of_entry(entry));
        add_copy(&text, entry, "size");
        add_copy(&text, entry, "digest");
        add_platform(&text, json_object_get(entry, "platform"));
        strbuf_add_char(&text, '}');
    }
    strbuf_add_str(&text, "]}");
    add_json_indented(out, text.data, text.length, "   ");
}

/* --- Verbose ----------------------------------------------------------------------------------
 */

static void add_raw(struct strbuf *out, const ProtobufCBinaryData *data)
{
    CLEANUP_FREE unsigned char *encoded = xmalloc(data->len * 4 / 3 + 8);

    EVP_EncodeBlock(encoded, data->data, (int)data->len);
    add_text(out, "Raw", (const char *)encoded);
}

static void add_verbose(const manifest_message *manifest, const char *name, const json_t *platform,
                        struct strbuf *out)
{
    const bool oci = str_eq(manifest->media_type, OCI_MANIFEST);
    CLEANUP_FREE char *size = xasprintf("%zu", manifest->data.len);

    add_comma(out);
    strbuf_add_char(out, '{');
    add_text(out, "Ref", name);
    add_member(out, "Descriptor", "{");
    add_text(out, "mediaType", manifest->media_type);
    add_text(out, "digest", manifest->digest);
    add_member(out, "size", size);
    add_platform(out, platform);
    strbuf_add_char(out, '}');
    add_raw(out, &manifest->data);
    add_member(out, oci ? "OCIManifest" : "SchemaV2Manifest", "");
    strbuf_add(out, manifest->data.data, manifest->data.len);
    strbuf_add_char(out, '}');
}

static void add_all_verbose(const struct inspection *inspection, struct strbuf *out)
{
    const json_t *entries = json_object_get(inspection->first, "manifests");
    CLEANUP_STRBUF struct strbuf text = {0};

    if (!entries) {
        CLEANUP_JSON json_t *platform = config_platform(inspection->items[0]->platform);
        add_verbose(inspection->items[0], inspection->items[0]->reference, platform, &text);
    }
    if (entries)
        strbuf_add_char(&text, '[');
    for (size_t i = 1; entries && i < inspection->count; i++) {
        const manifest_message *manifest = inspection->items[i];
        const json_t *entry = json_array_get(entries, i - 1);
        CLEANUP_FREE char *name =
            xasprintf("%s@%s", inspection->items[0]->reference, manifest->digest);
        add_verbose(manifest, name, json_object_get(entry, "platform"), &text);
    }
    if (entries)
        strbuf_add_char(&text, ']');
    add_json_indented(out, text.data, text.length, "\t");
}

/* --- davit manifest inspect -------------------------------------------------------------------
 */

static struct grpc_call *await_start_call(struct cli *cli, const char *reference, struct error *err)
{
    Davit__V1__InspectManifestRequest request = DAVIT__V1__INSPECT_MANIFEST_REQUEST__INIT;
    CLEANUP(request_login_done) struct request_login login = {0};

    if (!await_cli_connect(cli, err) || !await_request_login(cli, reference, &login, err))
        return NULL;
    request.reference = (char *)reference;
    request.insecure = flag_bool(&cli->flags, "insecure");
    request.entries = flag_bool(&cli->flags, "verbose");
    request.auth = login.auth;
    return await_cli_stream(cli, "/davit.v1.Registries/InspectManifest", &request.base,
                            &davit__v1__manifest__descriptor, err);
}

static bool await_manifests(struct cli *cli, const char *reference, struct inspection *ret,
                            struct error *err)
{
    CLEANUP(grpc_call_cleanup)
    struct grpc_call *call = await_start_call(cli, reference, err);
    ProtobufCMessage *message;
    int r;

    if (!call)
        return false;
    while ((r = await_grpc_recv(call, &message, err)) > 0) {
        ret->items = xrealloc(ret->items, (ret->count + 1) * sizeof(manifest_message *));
        ret->items[ret->count++] = (manifest_message *)message;
    }
    /* Docker asks registries itself and says no more than that. */
    if (r < 0)
        return error_is(err, "MANIFEST_UNKNOWN") ? false : cli_daemon_error(err);
    if (ret->count == 0)
        return error_set(err, ERROR_INTERNAL, NULL, "the daemon sent no manifest");
    for (size_t i = 0; i < ret->count; i++) {
        json_t *json = json_parse(ret->items[i]->data.data, ret->items[i]->data.len,
                                  MANIFEST_MAX_BYTES, "the manifest", err);
        if (!json)
            return false;
        if (i == 0)
            ret->first = json;
        else
            json_decref(json);
    }
    return true;
}

/* Of two arguments the first would be a list of Docker's own making, which davit has not. */
static bool await_inspect(struct cli *cli, struct error *err)
{
    CLEANUP(inspection_done) struct inspection inspection = {0};
    CLEANUP_STRBUF struct strbuf text = {0};

    if (!await_manifests(cli, cli->flags.args[0], &inspection, err))
        return false;
    const ProtobufCBinaryData *data = &inspection.items[0]->data;
    if (flag_bool(&cli->flags, "verbose"))
        add_all_verbose(&inspection, &text);
    else if (json_object_get(inspection.first, "manifests"))
        add_list(inspection.first, &text);
    else
        add_json_indented(&text, (const char *)data->data, data->len, "\t");
    strbuf_add_char(&text, '\n');
    return await_cli_print(cli, text.data, text.length, err);
}

static const struct flag flags[] = {
    {.name = "insecure",
     .type = FLAG_BOOL,
     .help = "Allow communication with an insecure registry"},
    {.name = "verbose",
     .shorthand = 'v',
     .type = FLAG_BOOL,
     .help = "Output additional info including layers and platform"},
};

const struct command manifest_inspect_command = {
    .usage = "[OPTIONS] MANIFEST",
    .summary = "Display an image manifest, or manifest list",
    .flags = flags,
    .flag_count = ARRAY_SIZE(flags),
    .min_args = 1,
    .max_args = 1,
    .completes = COMPLETE_IMAGE,
    .description = "Shows a manifest, or a list of them for several platforms, as its registry has "
                   "it. Nothing is fetched of the image itself.",
    .examples = "    davit manifest inspect alpine:3.20\n"
                "    davit manifest inspect --verbose registry.example.com/team/app:1",
    .await_run = await_inspect,
};
