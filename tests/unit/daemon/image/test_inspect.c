/* ImageInspect and history, from configurations of all kinds. What is expected is what dockerd 28.5
 * answers for the same configurations. */
#include "tests/unit/test.h"

#include "daemon/image/history.h"
#include "daemon/image/image_config.h"
#include "daemon/image/inspect.h"
#include "daemon/registry/manifest.h"

#define ID "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define DIFF_ID "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

static char *inspect(const char *config, struct error *err)
{
    const struct image_facts facts = {.id = ID, .parent = "", .size_bytes = 42, .driver = "erofs"};

    return image_inspect_json(&facts, config, strlen(config), err);
}

/* --- The document ------------------------------------------------------------------------------
 */

static void test_whole_document(void **state UNUSED)
{
    char *tags[] = {"app:1", "app:latest", NULL}, *digests[] = {"app@" DIFF_ID, NULL};
    const struct image_facts facts = {
        .id = ID,
        .parent = DIFF_ID,
        .tags = tags,
        .digests = digests,
        .size_bytes = 3345,
        .driver = "directory",
        .tagged_unix_ns = 1700000000120000000,
    };
    static const char config[] =
        "{\"architecture\":\"arm\",\"variant\":\"v7\",\"os\":\"linux\",\"os.version\":\"1.2\","
        "\"author\":\"Me <me@x>\",\"docker_version\":\"27.0\",\"comment\":\"top\","
        "\"created\":\"2024-01-02T03:04:05.120000000+02:00\",\"config\":{\"User\":\"me\"},"
        "\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"" DIFF_ID "\"]},"
        "\"history\":[{\"comment\":\"last\"}]}";
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_FREE char *json = image_inspect_json(&facts, config, strlen(config), &err);

    assert_ok(json, &err);
    assert_string_equal(
        json,
        "{\"Id\":\"" ID "\",\"RepoTags\":[\"app:1\",\"app:latest\"],"
        "\"RepoDigests\":[\"app@" DIFF_ID "\"],\"Parent\":\"" DIFF_ID "\",\"Comment\":\"top\","
        "\"Created\":\"2024-01-02T03:04:05.12+02:00\",\"DockerVersion\":\"27.0\","
        "\"Author\":\"Me \\u003cme@x\\u003e\",\"Architecture\":\"arm\",\"Variant\":\"v7\","
        "\"Os\":\"linux\",\"OsVersion\":\"1.2\",\"Size\":3345,"
        "\"GraphDriver\":{\"Data\":{},\"Name\":\"directory\"},"
        "\"RootFS\":{\"Type\":\"layers\",\"Layers\":[\"" DIFF_ID "\"]},"
        "\"Metadata\":{\"LastTagTime\":\"2023-11-14T22:13:20.12Z\"},"
        "\"Config\":{\"Cmd\":null,\"Entrypoint\":null,\"Env\":null,\"Labels\":null,"
        "\"OnBuild\":null,\"User\":\"me\",\"Volumes\":null,\"WorkingDir\":\"\"}}");
}

static void test_least_document(void **state UNUSED)
{
    static const char *const configs[] = {
        "{}", "{\"config\":null,\"created\":null,\"author\":null,\"history\":null}",
        "{\"created\":\"yesterday\",\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[]}}"};

    for (size_t i = 0; i < ARRAY_SIZE(configs); i++) {
        CLEANUP_ERROR struct error err = {0};
        CLEANUP_FREE char *json = inspect(configs[i], &err);
        assert_ok(json, &err);
        assert_string_equal(
            json,
            "{\"Id\":\"" ID "\",\"RepoTags\":[],\"RepoDigests\":[],\"Parent\":\"\",\"Comment\":"
            "\"\",\"DockerVersion\":\"\",\"Author\":\"\",\"Architecture\":\"\",\"Os\":\"linux\","
            "\"Size\":42,\"GraphDriver\":{\"Data\":{},\"Name\":\"erofs\"},"
            "\"RootFS\":{\"Type\":\"layers\"},"
            "\"Metadata\":{\"LastTagTime\":\"0001-01-01T00:00:00Z\"},"
            "\"Config\":{\"Cmd\":null,\"Entrypoint\":null,\"Env\":null,\"Labels\":null,"
            "\"OnBuild\":null,\"User\":\"\",\"Volumes\":null,\"WorkingDir\":\"\"}}");
    }
}

static void test_comment_of_last_step(void **state UNUSED)
{
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_FREE char *json =
        inspect("{\"comment\":\"\",\"history\":[{\"comment\":\"a\"},{\"comment\":\"b\"}]}", &err);

    assert_ok(json, &err);
    assert_non_null(strstr(json, "\"Comment\":\"b\""));
}

/* --- "Config" ----------------------------------------------------------------------------------
 */

static void test_config(void **state UNUSED)
{
    static const struct {
        const char *config, *document;
    } cases[] = {
        {"null", "{\"Cmd\":null,\"Entrypoint\":null,\"Env\":null,\"Labels\":null,\"OnBuild\":null,"
                 "\"User\":\"\",\"Volumes\":null,\"WorkingDir\":\"\"}"},
        {"{\"Env\":[],\"Cmd\":[],\"Entrypoint\":[],\"ExposedPorts\":{},\"Volumes\":{},"
         "\"Labels\":{},\"OnBuild\":[],\"Shell\":[],\"Healthcheck\":{},\"StopSignal\":\"\","
         "\"ArgsEscaped\":false}",
         "{\"Cmd\":null,\"Entrypoint\":null,\"Env\":null,\"Healthcheck\":{},\"Labels\":null,"
         "\"OnBuild\":null,\"User\":\"\",\"Volumes\":null,\"WorkingDir\":\"\"}"},
        {"{\"Hostname\":\"h\",\"Tty\":true,\"Image\":\"x\",\"StopTimeout\":5,\"User\":\"web:web\","
         "\"ExposedPorts\":{\"80/tcp\":{},\"443/tcp\":{\"x\":1},\"53\":null},\"Env\":[\"A=b\","
         "\"C\"],\"Cmd\":[\"sh\",\"-c\"],\"Healthcheck\":{\"Test\":[\"CMD\",\"x\"],"
         "\"Interval\":30000000000,\"Timeout\":0,\"Retries\":3,\"StartPeriod\":1000000,"
         "\"StartInterval\":5},\"ArgsEscaped\":true,\"Volumes\":{\"/v\":{},\"/a\":{}},"
         "\"WorkingDir\":\"/w\",\"Entrypoint\":[\"/e\"],\"OnBuild\":[\"RUN x\"],"
         "\"Labels\":{\"b\":\"2\",\"a\":\"1\"},\"StopSignal\":\"9\",\"Shell\":[\"/bin/bash\"]}",
         "{\"ArgsEscaped\":true,\"Cmd\":[\"sh\",\"-c\"],\"Entrypoint\":[\"/e\"],\"Env\":[\"A=b\","
         "\"C\"],\"ExposedPorts\":{\"443/tcp\":{},\"53\":{},\"80/tcp\":{}},\"Healthcheck\":"
         "{\"Interval\":30000000000,\"Retries\":3,\"StartInterval\":5,\"StartPeriod\":1000000,"
         "\"Test\":[\"CMD\",\"x\"]},\"Labels\":{\"a\":\"1\",\"b\":\"2\"},\"OnBuild\":[\"RUN x\"],"
         "\"Shell\":[\"/bin/bash\"],\"StopSignal\":\"9\",\"User\":\"web:web\",\"Volumes\":{\"/a\":"
         "{},\"/v\":{}},\"WorkingDir\":\"/w\"}"},
        {"{\"Cmd\":\"ls\",\"Entrypoint\":\"\",\"Shell\":\"sh\",\"Env\":[null,\"A=1\"],"
         "\"Labels\":{\"a\":null}}",
         "{\"Cmd\":[\"ls\"],\"Entrypoint\":[\"\"],\"Env\":[\"\",\"A=1\"],\"Labels\":{\"a\":\"\"},"
         "\"OnBuild\":null,\"Shell\":[\"sh\"],\"User\":\"\",\"Volumes\":null,"
         "\"WorkingDir\":\"\"}"},
        {"{\"Env\":[\"A=<b>&c\",\"B=\\u2028\\u00e9\\u001B[0m\\\\\\/\\\"\"]}",
         "{\"Cmd\":null,\"Entrypoint\":null,\"Env\":[\"A=\\u003cb\\u003e\\u0026c\","
         "\"B=\\u2028\xc3\xa9\\u001b[0m\\\\/\\\"\"],\"Labels\":null,\"OnBuild\":null,\"User\":"
         "\"\",\"Volumes\":null,\"WorkingDir\":\"\"}"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_FREE char *config = xasprintf("{\"config\":%s}", cases[i].config);
        CLEANUP_ERROR struct error err = {0};
        CLEANUP_FREE char *json = inspect(config, &err);
        assert_ok(json, &err);
        const char *found = strstr(json, ",\"Config\":");
        CLEANUP_FREE char *wanted = xasprintf(",\"Config\":%s}", cases[i].document);
        assert_string_equal(found, wanted);
    }
}

static void test_what_cannot_be(void **state UNUSED)
{
    static const struct {
        const char *config, *message;
    } cases[] = {
        {"{\"config\":[]}", "config is an array, not an object"},
        {"{\"config\":{\"Env\":{}}}", "config.Env is an object, not an array of strings"},
        {"{\"config\":{\"Env\":\"A=b\"}}", "config.Env is a string, not an array"},
        {"{\"config\":{\"Env\":[\"a\",1]}}", "config.Env[1] is a number, not a string"},
        {"{\"config\":{\"Cmd\":5}}", "config.Cmd is a number"},
        {"{\"config\":{\"User\":1000}}", "config.User is a number, not a string"},
        {"{\"config\":{\"StopSignal\":true}}", "config.StopSignal is a boolean, not a string"},
        {"{\"config\":{\"Labels\":{\"a\":1}}}", "config.Labels[\"a\"] is a number, not a string"},
        {"{\"config\":{\"Labels\":[]}}", "config.Labels is an array, not an object"},
        {"{\"config\":{\"Labels\":{\"\\u001b[2J\":[]}}}", "[\"\\u001b[2J\"] is an array"},
        {"{\"config\":{\"Volumes\":[\"/a\"]}}", "config.Volumes is an array, not an object"},
        {"{\"config\":{\"ExposedPorts\":{\"80\":true}}}",
         "config.ExposedPorts[\"80\"] is a boolean, not an object"},
        {"{\"config\":{\"Healthcheck\":[]}}", "config.Healthcheck is an array, not an object"},
        {"{\"config\":{\"Healthcheck\":{\"Interval\":1.5}}}",
         "config.Healthcheck.Interval is a number, not a whole number"},
        {"{\"config\":{\"Healthcheck\":{\"Test\":\"x\"}}}",
         "config.Healthcheck.Test is a string, not an array of strings"},
        {"{\"config\":{\"ArgsEscaped\":\"yes\"}}", "config.ArgsEscaped is a string"},
        {"{\"author\":5}", "author is a number, not a string"},
        {"{\"os\":{}}", "os is an object, not a string"},
        {"{\"comment\":false}", "comment is a boolean, not a string"},
        {"{\"config\":{\"User\":\"\\ud800\"}}", "not valid JSON"},
        {"{\"config\":{\"User\":\"\\u0000\"}}", "not valid JSON"},
        {"{\"config\":{\"User\":\"\xff\"}}", "not valid JSON"},
        {"{\"config\":{},\"config\":{}}", "not valid JSON"},
        {"", "not valid JSON"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_ERROR struct error err = {0};
        CLEANUP_FREE char *json = inspect(cases[i].config, &err);
        if (json)
            fail_msg("%s gave %s", cases[i].config, json);
        if (!strstr(err.message, cases[i].message))
            fail_msg("%s: %s", cases[i].config, err.message);
    }
}

static void test_dates(void **state UNUSED)
{
    static const struct {
        const char *text, *date;
    } cases[] = {
        {"2024-01-02T03:04:05Z", "2024-01-02T03:04:05Z"},
        {"2024-01-02T03:04:05.000Z", "2024-01-02T03:04:05Z"},
        {"2024-01-02T03:04:05.100000000Z", "2024-01-02T03:04:05.1Z"},
        {"2024-01-02T03:04:05.123456789Z", "2024-01-02T03:04:05.123456789Z"},
        {"2024-01-02T03:04:05.12345678901Z", "2024-01-02T03:04:05.123456789Z"},
        {"2024-01-02T03:04:05+00:00", "2024-01-02T03:04:05Z"},
        {"2024-01-02T03:04:05.5-07:30", "2024-01-02T03:04:05.5-07:30"},
        {"0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"},
        {"2024-13-02T03:04:05Z", NULL},
        {"2024-01-02T24:04:05Z", NULL},
        {"2024-01-02T03:04:05", NULL},
        {"2024-01-02T03:04:05.Z", NULL},
        {"2024-01-02T03:04:05Zx", NULL},
        {"2024-01-02T03:04:05+0700", NULL},
        {"2024-01-02T03:04:05+07:00x", NULL},
        {"2024-01-02", NULL},
        {"", NULL},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_FREE char *date = image_date(cases[i].text);
        if (!str_eq(date, cases[i].date))
            fail_msg("%s: %s", cases[i].text, date ? date : "(null)");
    }
}

/* --- History -----------------------------------------------------------------------------------
 */

static void test_history(void **state UNUSED)
{
    static const char config[] =
        "{\"history\":[{\"created\":\"1970-01-01T00:00:01Z\",\"created_by\":\"a\\tb\","
        "\"comment\":\"first\"},{\"empty_layer\":true,\"created\":\"0001-01-01T00:00:00Z\"},"
        "{\"created_by\":null,\"empty_layer\":false}]}";
    const uint64_t sizes[] = {7, 9, 11};
    CLEANUP(image_history_done) struct image_history history;
    CLEANUP_ERROR struct error err = {0};

    assert_ok(image_history_parse(config, strlen(config), sizes, 3, &history, &err), &err);
    assert_int_equal(history.count, 3);
    assert_string_equal(history.steps[0].created_by, "");
    assert_int_equal(history.steps[0].size_bytes, 9);
    assert_int_equal(history.steps[0].created_unix_ns, 0);
    assert_int_equal(history.steps[1].size_bytes, 0);
    assert_int_equal(history.steps[1].created_unix_ns, TIME_LONG_AGO);
    assert_int_equal(history.steps[2].size_bytes, 7);
    assert_int_equal(history.steps[2].created_unix_ns, 1000000000);
    assert_string_equal(history.steps[2].created_by, "a\tb");
    assert_string_equal(history.steps[2].comment, "first");
}

static void test_no_history(void **state UNUSED)
{
    static const char *const configs[] = {"{}", "{\"history\":null}", "{\"history\":[]}"};

    for (size_t i = 0; i < ARRAY_SIZE(configs); i++) {
        CLEANUP(image_history_done) struct image_history history;
        assert_true(image_history_parse(configs[i], strlen(configs[i]), NULL, 0, &history, NULL));
        assert_int_equal(history.count, 0);
    }
}

static void test_history_that_cannot_be(void **state UNUSED)
{
    static const struct {
        const char *config, *message;
    } cases[] = {
        {"{\"history\":{}}", "history is an object, not an array"},
        {"{\"history\":[{},{\"empty_layer\":true},5]}", "history[2] is a number, not an object"},
        {"{\"history\":[{\"created_by\":[]}]}", "history[0].created_by is an array, not a string"},
        {"{\"history\":[{\"comment\":1}]}", "history[0].comment is a number, not a string"},
        {"{\"history\":[{\"empty_layer\":\"yes\"}]}", "history[0].empty_layer is a string"},
        {"{\"history\":[{},{},{}]}", "its history has more layers than the image: 2"},
        {"{", "not valid JSON"},
    };
    const uint64_t sizes[] = {1, 2};

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP(image_history_done) struct image_history history;
        CLEANUP_ERROR struct error err = {0};
        const char *config = cases[i].config;
        assert_false(image_history_parse(config, strlen(config), sizes, 2, &history, &err));
        if (!strstr(err.message, cases[i].message))
            fail_msg("%s: %s", config, err.message);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_document),
        cmocka_unit_test(test_least_document),
        cmocka_unit_test(test_comment_of_last_step),
        cmocka_unit_test(test_config),
        cmocka_unit_test(test_what_cannot_be),
        cmocka_unit_test(test_dates),
        cmocka_unit_test(test_history),
        cmocka_unit_test(test_no_history),
        cmocka_unit_test(test_history_that_cannot_be),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
