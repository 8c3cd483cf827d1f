#include "tests/unit/test.h"

#include "daemon/registry/manifest.h"
#include "proto/base/strbuf.h"

#define HEX64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define DIGEST "sha256:" HEX64
#define DOCKER "application/vnd.docker.distribution.manifest.v2+json"
#define DOCKER_LIST "application/vnd.docker.distribution.manifest.list.v2+json"
#define OCI "application/vnd.oci.image.manifest.v1+json"
#define OCI_INDEX "application/vnd.oci.image.index.v1+json"
#define DESCRIPTOR(type) "{\"mediaType\":\"" type "\",\"size\":7,\"digest\":\"" DIGEST "\"}"
#define OCI_CONFIG DESCRIPTOR("application/vnd.oci.image.config.v1+json")
#define OCI_LAYER DESCRIPTOR("application/vnd.oci.image.layer.v1.tar+gzip")
#define OCI_LAYERS "\"config\":" OCI_CONFIG ",\"layers\":[" OCI_LAYER "]"
#define IMAGE(type) "{\"schemaVersion\":2,\"mediaType\":\"" type "\"," OCI_LAYERS "}"
#define ENTRY(platform)                                                             \
    "{\"mediaType\":\"" OCI "\",\"size\":7,\"digest\":\"" DIGEST "\",\"platform\":" \
    "{" platform "}}"
#define INDEX(entries) \
    "{\"schemaVersion\":2,\"mediaType\":\"" OCI_INDEX "\",\"manifests\":[" entries "]}"
#define PLATFORM(os, architecture) "\"os\":\"" os "\",\"architecture\":\"" architecture "\""

static struct manifest *parse(const char *text, const char *content_type, struct error *err)
{
    return manifest_parse(text, strlen(text), content_type, err);
}

static void test_image(void **state)
{
    static const char with_charset[] = OCI "; charset=utf-8";
    const char *const content_types[] = {OCI, with_charset,       NULL,
                                         "",  "application/json", "text/plain; x=y"};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(content_types); i++) {
        CLEANUP_ERROR struct error err = {0};
        CLEANUP(manifest_cleanup)
        struct manifest *manifest = parse(IMAGE(OCI), content_types[i], &err);
        assert_ok(manifest, &err);
        assert_int_equal(manifest->kind, MANIFEST_IMAGE);
        assert_string_equal(manifest->media_type, OCI);
        assert_int_equal(manifest->layer_count, 1);
        assert_string_equal(manifest->layers[0].digest.text, DIGEST);
        assert_int_equal(manifest->layers[0].size_bytes, 7);
        assert_string_equal(manifest->config.digest.text, DIGEST);
    }
}

static void test_kinds_of_layers(void **state)
{
    static const struct {
        const char *type, *message; /* NULL: taken */
    } cases[] = {
        {"application/vnd.docker.image.rootfs.diff.tar.gzip", NULL},
        {"application/vnd.docker.image.rootfs.diff.tar.zstd", NULL},
        {"application/vnd.docker.image.rootfs.diff.tar", NULL},
        {"application/vnd.oci.image.layer.v1.tar", NULL},
        {"application/vnd.oci.image.layer.v1.tar+gzip", NULL},
        {"application/vnd.oci.image.layer.v1.tar+zstd", NULL},
        {"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "does not distribute"},
        {"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "does not distribute"},
        {"application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "encrypted"},
        {"application/vnd.cncf.helm.chart.content.v1.tar+gzip", "unknown kind"},
        {"", "unknown kind"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_ERROR struct error err = {0};
        CLEANUP_FREE char *text =
            xasprintf("{\"schemaVersion\":2,\"config\":" OCI_CONFIG
                      ",\"layers\":[{\"mediaType\":\"%s\",\"size\":1,\"digest\":\"" DIGEST "\"}]}",
                      cases[i].type);
        CLEANUP(manifest_cleanup) struct manifest *manifest = parse(text, NULL, &err);
        if (!cases[i].message) {
            assert_ok(manifest, &err);
            continue;
        }
        assert_null(manifest);
        assert_true(error_is(&err, "UNSUPPORTED_MANIFEST"));
        assert_error(&err, ERROR_UNIMPLEMENTED, cases[i].message);
    }
}

static void test_refused(void **state)
{
    static const char invalid[] = "INVALID_MANIFEST", unsupported[] = "UNSUPPORTED_MANIFEST";
    static const struct {
        const char *text, *content_type, *reason, *message;
    } cases[] = {
        {"", NULL, "INVALID_JSON", "not valid JSON"},
        {"[]", NULL, invalid, "not an object"},
        {"{}", NULL, invalid, "schemaVersion is not 2"},
        {"{\"schemaVersion\":3," OCI_LAYERS "}", NULL, invalid, "schemaVersion is not 2"},
        {"{\"schemaVersion\":\"2\"," OCI_LAYERS "}", NULL, invalid, "schemaVersion is not 2"},
        {"{\"schemaVersion\":1,\"fsLayers\":[]}", NULL, unsupported, "schema 1"},
        {"{}", "application/vnd.docker.distribution.manifest.v1+prettyjws", unsupported,
         "schema 1"},
        {"<html>", "text/html; charset=utf-8", unsupported, "of type text/html"},
        {"{\"schemaVersion\":2}", NULL, invalid, "neither an image nor an index"},
        /* Two things at once. */
        {IMAGE(OCI), DOCKER, invalid, "differs from the type it was sent with"},
        {IMAGE(OCI), OCI_INDEX, invalid, "differs from the type it was sent with"},
        {"{\"schemaVersion\":2,\"manifests\":[]," OCI_LAYERS "}", NULL, invalid, "at once"},
        {"{\"schemaVersion\":2,\"manifests\":[]," OCI_LAYERS "}", OCI, invalid, "at once"},
        {"{\"schemaVersion\":2,\"manifests\":[],\"config\":" OCI_CONFIG "}", OCI_INDEX, invalid,
         "at once"},
        {"{\"schemaVersion\":2,\"fsLayers\":[]," OCI_LAYERS "}", OCI, unsupported, "schema 1"},
        {"{\"schemaVersion\":2,\"Manifests\":[]," OCI_LAYERS "}", OCI, invalid, "only in case"},
        {"{\"schemaVersion\":2,\"mediatype\":\"x\"," OCI_LAYERS "}", OCI, invalid, "only in case"},
        {"{\"schemaVersion\":2,\"schemaVersion\":2," OCI_LAYERS "}", OCI, "INVALID_JSON",
         "duplicate"},
        {IMAGE(OCI_INDEX), NULL, invalid, "not of the type it claims"},
        {"{\"schemaVersion\":2," OCI_LAYERS "}", OCI_INDEX, invalid, "not of the type it claims"},
        {"{\"schemaVersion\":2,\"manifests\":[]}", OCI, invalid, "not of the type it claims"},
        {IMAGE("application/vnd.oci.artifact.manifest.v1+json"), NULL, unsupported,
         "not a container image"},
        {"{\"schemaVersion\":2,\"mediaType\":2," OCI_LAYERS "}", NULL, invalid,
         "mediaType is not a string"},
        /* Parts. */
        {"{\"schemaVersion\":2,\"config\":" OCI_CONFIG ",\"layers\":{}}", NULL, invalid,
         "no array of layers"},
        {"{\"schemaVersion\":2,\"layers\":[" OCI_LAYER "]}", NULL, invalid, "not an object"},
        {"{\"schemaVersion\":2,\"config\":" DESCRIPTOR(
             "application/vnd.cncf.helm.config.v1+json") ",\"layers\":[" OCI_LAYER "]}",
         NULL, unsupported, "not a container image, its configuration is of type"},
        {"{\"schemaVersion\":2,\"config\":" OCI_CONFIG ",\"layers\":[7]}", NULL, invalid,
         "not an object"},
        {"{\"schemaVersion\":2,\"config\":" OCI_CONFIG
         ",\"layers\":[{\"size\":1,\"digest\":\"sha256:../../etc/passwd\"}]}",
         NULL, "INVALID_DIGEST", "invalid digest"},
        {"{\"schemaVersion\":2,\"config\":" OCI_CONFIG ",\"layers\":[{\"size\":1}]}", NULL, invalid,
         "no digest"},
        {"{\"schemaVersion\":2,\"config\":" OCI_CONFIG ",\"layers\":[{\"digest\":\"" DIGEST
         "\",\"size\":-1}]}",
         NULL, invalid, "no valid size"},
        {"{\"schemaVersion\":2,\"config\":" OCI_CONFIG ",\"layers\":[{\"digest\":\"" DIGEST
         "\",\"size\":1.5}]}",
         NULL, invalid, "no valid size"},
        {"{\"schemaVersion\":2,\"config\":" OCI_CONFIG ",\"layers\":[{\"digest\":\"" DIGEST
         "\",\"size\":9223372036854775807}]}",
         NULL, invalid, "the limit is"},
        {"{\"schemaVersion\":2,\"config\":{\"digest\":\"" DIGEST
         "\",\"size\":4194305},\"layers\":[" OCI_LAYER "]}",
         NULL, invalid, "the limit is 4194304"},
        {INDEX("7"), NULL, invalid, "not an object"},
        {INDEX(ENTRY("\"os\":\"linux\"")), NULL, invalid, "no os or architecture"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_ERROR struct error err = {0};
        CLEANUP(manifest_cleanup)
        struct manifest *manifest = parse(cases[i].text, cases[i].content_type, &err);
        if (manifest || !error_is(&err, cases[i].reason) || !strstr(err.message, cases[i].message))
            fail_msg("%s: expected %s with \"%s\", got %s: %s", cases[i].text, cases[i].reason,
                     cases[i].message, err.reason, err.message);
    }
}

static void repeat(struct strbuf *text, const char *part, size_t count)
{
    for (size_t i = 0; i < count; i++)
        strbuf_addf(text, "%s%s", i ? "," : "", part);
}

static void test_counts(void **state)
{
    static const struct {
        const char *before, *part, *after;
        size_t limit;
    } cases[] = {
        {"{\"schemaVersion\":2,\"config\":" OCI_CONFIG ",\"layers\":[", OCI_LAYER, "]}", 127},
        {"{\"schemaVersion\":2,\"manifests\":[", ENTRY(PLATFORM("linux", "arm")), "]}", 1024},
    };

    (void)state;
    for (size_t i = 0; i < 2 * ARRAY_SIZE(cases); i++) {
        size_t which = i / 2, excess = i % 2;
        CLEANUP_STRBUF struct strbuf text = {0};
        CLEANUP_ERROR struct error err = {0};
        strbuf_add_str(&text, cases[which].before);
        repeat(&text, cases[which].part, cases[which].limit + excess);
        strbuf_add_str(&text, cases[which].after);
        CLEANUP(manifest_cleanup)
        struct manifest *manifest = manifest_parse(text.data, text.length, NULL, &err);
        if (excess) {
            assert_null(manifest);
            assert_error(&err, ERROR_RESOURCE_EXHAUSTED, "the limit is");
        } else {
            assert_ok(manifest, &err);
            assert_int_equal(manifest->layer_count + manifest->entry_count, cases[which].limit);
        }
    }
}

static void test_index(void **state)
{
    static const char text[] =
        INDEX(ENTRY(PLATFORM("linux", "amd64")) "," ENTRY(PLATFORM("unknown", "unknown")) "," ENTRY(
            PLATFORM("linux", "arm") ",\"variant\":\"v6\"") ",{\"mediaType\":\"" OCI_INDEX
                                                            "\",\"size\":9,\"digest\":\"" DIGEST
                                                            "\"}");
    CLEANUP_ERROR struct error err = {0};
    CLEANUP(manifest_cleanup) struct manifest *index = parse(text, OCI_INDEX, &err);

    (void)state;
    assert_ok(index, &err);
    assert_int_equal(index->kind, MANIFEST_INDEX);
    assert_int_equal(index->entry_count, 3); /* the attestation is none */
    assert_string_equal(index->entries[0].platform.architecture, "amd64");
    assert_string_equal(index->entries[1].platform.variant, "v6");
    assert_null(index->entries[2].platform.os);
    assert_string_equal(index->entries[2].descriptor.media_type, OCI_INDEX);
}

/* --- Platforms -------------------------------------------------------------------------------- */

/* Which of the offered platforms (separated by spaces) is chosen; "" if none. */
static char *choose(const char *wanted, const char *offered, struct error *err)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    CLEANUP_FREE char *copy = xstrdup(offered);
    CLEANUP_PLATFORM struct platform platform = {0};
    CLEANUP(manifest_cleanup) struct manifest *index = NULL;
    const struct index_entry *entry;
    char *rest = copy, *one;
    bool first = true;

    strbuf_add_str(&text, "{\"schemaVersion\":2,\"manifests\":[");
    while ((one = strsep(&rest, " "))) {
        char *os = strsep(&one, "/"), *architecture = strsep(&one, "/");
        strbuf_addf(&text, "%s{\"size\":1,\"digest\":\"" DIGEST "\"", first ? "" : ",");
        if (architecture)
            strbuf_addf(&text,
                        ",\"platform\":{\"os\":\"%s\",\"architecture\":\"%s\",\"variant\":\"%s\"}",
                        os, architecture, one ? one : "");
        strbuf_add_str(&text, "}");
        first = false;
    }
    strbuf_add_str(&text, "]}");
    index = manifest_parse(text.data, text.length, NULL, err);
    assert_ok(index, err);
    assert_ok(platform_parse(wanted, &platform, err), err);
    entry = manifest_choose(index, &platform, err);
    if (!entry)
        return xstrdup("");
    return entry->platform.os ? platform_text(&entry->platform) : xstrdup("none");
}

static void test_choose(void **state)
{
    static const struct {
        const char *wanted, *offered, *chosen;
    } cases[] = {
        {"linux/amd64", "linux/arm64 linux/amd64", "linux/amd64"},
        {"linux/amd64", "windows/amd64 linux/amd64", "linux/amd64"},
        {"linux/amd64", "linux/386 linux/amd64", "linux/amd64"},
        {"linux/amd64", "linux/arm64 linux/386", "linux/386"},
        {"linux/amd64", "linux/amd64/v2", ""},
        {"linux/amd64", "linux/amd64/v1", "linux/amd64/v1"},
        {"linux/amd64/v3", "linux/amd64 linux/amd64/v2 linux/amd64/v4", "linux/amd64/v2"},
        {"linux/amd64/v3", "linux/amd64", "linux/amd64"},
        {"linux/386", "linux/amd64", ""},
        {"linux/arm64", "linux/arm/v7 linux/arm64/v8", "linux/arm64/v8"},
        {"linux/arm64/v8", "linux/arm64", "linux/arm64"},
        {"linux/arm64", "linux/arm/v6 linux/arm/v7", "linux/arm/v7"},
        {"linux/arm", "linux/arm/v5 linux/arm/v6", "linux/arm/v6"},
        {"linux/arm/v7", "linux/arm/v5 linux/arm/v7 linux/arm/v6", "linux/arm/v7"},
        {"linux/arm/v6", "linux/arm/v7 linux/arm/v5", "linux/arm/v5"},
        {"linux/arm/v5", "linux/arm/v6", ""},
        {"linux/arm/7", "linux/arm", "linux/arm"},
        {"linux/arm/v7", "linux/arm64", ""},
        {"linux/x86_64", "linux/amd64", "linux/amd64"},
        {"LINUX/AARCH64", "linux/arm64", "linux/arm64"},
        {"linux/s390x", "linux/amd64 linux/arm64", ""},
        {"linux/s390x", "linux/amd64 none", "none"},
        {"linux/amd64", "none linux/amd64", "linux/amd64"},
        {"windows/amd64", "linux/amd64", ""},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_ERROR struct error err = {0};
        CLEANUP_FREE char *chosen = choose(cases[i].wanted, cases[i].offered, &err);
        if (strcmp(chosen, cases[i].chosen) != 0)
            fail_msg("%s of %s: expected \"%s\", got \"%s\"", cases[i].wanted, cases[i].offered,
                     cases[i].chosen, chosen);
        if (!*chosen)
            assert_true(error_is(&err, "NO_MATCHING_PLATFORM"));
    }
}

static void test_no_match_lists(void **state)
{
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_FREE char *chosen = choose("linux/s390x", "linux/amd64 linux/arm/v7", &err);

    (void)state;
    assert_string_equal(chosen, "");
    assert_error(&err, ERROR_NOT_FOUND,
                 "does not exist for platform linux/s390x, only for: linux/amd64, linux/arm/v7");
}

static void test_platform_parse(void **state)
{
    static const struct {
        const char *text, *normal; /* NULL: refused */
    } cases[] = {
        {"linux/amd64", "linux/amd64"},
        {"linux/arm64/v8", "linux/arm64"},
        {"linux/arm", "linux/arm/v7"},
        {"linux/armhf", "linux/arm/v7"},
        {"linux/armel", "linux/arm/v6"},
        {"linux/i386", "linux/386"},
        {"linux/riscv64", "linux/riscv64"},
        {"macos/arm64", "darwin/arm64"},
        {"arm64", "linux/arm64"},
        {"s390x", "linux/s390x"},
        {"linux/amd64/v3", "linux/amd64/v3"},
        {"linux/amd64/v2/x", NULL},
        {"linux/", NULL},
        {"/amd64", NULL},
        {"linux/am d64", NULL},
        {"potato", NULL},
        {"linux/a\nb", NULL},
    };
    CLEANUP_PLATFORM struct platform native = {0};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_ERROR struct error err = {0};
        CLEANUP_PLATFORM struct platform platform = {0};
        bool ok = platform_parse(cases[i].text, &platform, &err);
        assert_int_equal(ok, cases[i].normal != NULL);
        if (!ok) {
            assert_true(error_is(&err, "INVALID_PLATFORM"));
            continue;
        }
        CLEANUP_FREE char *text = platform_text(&platform);
        assert_string_equal(text, cases[i].normal);
    }
    assert_true(platform_parse("", &native, NULL));
    assert_string_equal(native.os, "linux");
#ifdef __x86_64__
    assert_string_equal(native.architecture, "amd64");
#endif
}

/* --- Configurations --------------------------------------------------------------------------- */

#define ROOTFS "\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"" DIGEST "\"]}"

static struct image_config *parse_config(const char *text, struct error *err)
{
    return image_config_parse(text, strlen(text), err);
}

static void test_config(void **state)
{
    static const char text[] =
        "{\"architecture\":\"arm\",\"os\":\"linux\",\"variant\":\"v7\","
        "\"created\":\"2024-01-02T03:04:05.678Z\",\"config\":{\"Env\":[\"A=b\",\"C=d=e\"],"
        "\"Entrypoint\":[\"/bin/x\"],\"Cmd\":[\"a\",\"\"],\"User\":\"1000:1000\","
        "\"WorkingDir\":\"/w\",\"StopSignal\":\"SIGINT\",\"Other\":{}}," ROOTFS "}";
    CLEANUP_ERROR struct error err = {0};
    CLEANUP(image_config_cleanup) struct image_config *config = parse_config(text, &err);

    (void)state;
    assert_ok(config, &err);
    assert_string_equal(config->architecture, "arm");
    assert_string_equal(config->os, "linux");
    assert_string_equal(config->variant, "v7");
    assert_int_equal(config->created_unix_ns, 1704164645678000000);
    assert_int_equal(strv_count(config->env), 2);
    assert_string_equal(config->env[1], "C=d=e");
    assert_string_equal(config->entrypoint[0], "/bin/x");
    assert_string_equal(config->cmd[1], "");
    assert_string_equal(config->user, "1000:1000");
    assert_string_equal(config->working_dir, "/w");
    assert_string_equal(config->stop_signal, "SIGINT");
    assert_int_equal(config->diff_id_count, 1);
    assert_string_equal(config->diff_ids[0].text, DIGEST);
}

static void test_config_sparse(void **state)
{
    CLEANUP_ERROR struct error err = {0};
    CLEANUP(image_config_cleanup)
    struct image_config *config =
        parse_config("{\"config\":{\"Cmd\":\"sh\",\"Env\":null}," ROOTFS "}", &err);

    (void)state;
    assert_ok(config, &err);
    assert_string_equal(config->os, "linux");
    assert_string_equal(config->architecture, "");
    assert_null(config->env);
    assert_null(config->entrypoint);
    assert_int_equal(strv_count(config->cmd), 1);
    assert_string_equal(config->cmd[0], "sh");
    assert_null(config->user);
}

static void test_config_created(void **state)
{
    static const struct {
        const char *text;
        int64_t ns;
    } cases[] = {
        {"1970-01-01T00:00:00Z", 0},
        {"1970-01-01T00:00:01.000000001Z", 1000000001},
        {"1970-01-01T01:00:01+01:00", 1000000000},
        {"1969-12-31T23:00:01-01:00", 1000000000},
        {"1970-01-01T00:00:00.1234567891234Z", 123456789},
        {"0001-01-01T00:00:00Z", TIME_LONG_AGO},
        {"1969-12-31T23:59:59.5Z", -500000000},
        {"9999-01-01T00:00:00Z", TIME_FAR_AHEAD},
        {"yesterday", 0},
        {"", 0},
        {"2024-01-02", 0},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_FREE char *text = xasprintf("{\"created\":\"%s\"," ROOTFS "}", cases[i].text);
        CLEANUP_ERROR struct error err = {0};
        CLEANUP(image_config_cleanup) struct image_config *config = parse_config(text, &err);
        assert_ok(config, &err);
        assert_int_equal(config->created_unix_ns, cases[i].ns);
    }
}

static void test_config_refused(void **state)
{
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"", "not valid JSON"},
        {"[]", "not an object"},
        {"{}", "no rootfs"},
        {"{\"rootfs\":{\"type\":\"x\",\"diff_ids\":[]}}", "no rootfs"},
        {"{\"rootfs\":{\"type\":\"layers\"}}", "no rootfs"},
        {"{\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[1]}}", "not a string"},
        {"{\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"sha256:..\"]}}", "invalid digest"},
        {"{\"os\":1," ROOTFS "}", "not a string: os"},
        {"{\"config\":[]," ROOTFS "}", "not an object: config"},
        {"{\"config\":{\"User\":0}," ROOTFS "}", "not a string: User"},
        {"{\"config\":{\"Env\":{}}," ROOTFS "}", "not an array of strings: Env"},
        {"{\"config\":{\"Cmd\":[1]}," ROOTFS "}", "not an array of strings: Cmd"},
        {"{\"config\":{\"User\":\"a\\u0000b\"}," ROOTFS "}", "not valid JSON"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_ERROR struct error err = {0};
        CLEANUP(image_config_cleanup)
        struct image_config *config = parse_config(cases[i].text, &err);
        if (config)
            fail_msg("%s was taken", cases[i].text);
        assert_error(&err, ERROR_INVALID_ARGUMENT, cases[i].message);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_image),          cmocka_unit_test(test_kinds_of_layers),
        cmocka_unit_test(test_refused),        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_index),          cmocka_unit_test(test_choose),
        cmocka_unit_test(test_no_match_lists), cmocka_unit_test(test_platform_parse),
        cmocka_unit_test(test_config),         cmocka_unit_test(test_config_sparse),
        cmocka_unit_test(test_config_created), cmocka_unit_test(test_config_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
