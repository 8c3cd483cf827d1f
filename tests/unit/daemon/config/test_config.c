#include "tests/unit/test.h"

#include <fcntl.h>

#include "daemon/config.h"

static char file_path[] = "/tmp/davit-test-config-XXXXXX";

static void write_file(const char *text)
{
    int fd = open(file_path, O_WRONLY | O_TRUNC | O_CREAT | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static bool load(struct config *config, struct error *err, char *const *extra)
{
    char *argv[32] = {"davitd", "--config-file", file_path};
    int argc = 3;

    for (; extra && *extra; extra++)
        argv[argc++] = *extra;
    return config_load(argc, argv, config, err);
}

#define ARGS(...) ((char *const[]){__VA_ARGS__, NULL})

static void test_defaults(void **state)
{
    CLEANUP(config_done) struct config config = {0};
    struct error err = {0};

    (void)state;
    write_file("{}");
    assert_ok(load(&config, &err, NULL), &err);
    assert_string_equal(config.data_root, "/var/lib/davit");
    assert_string_equal(config.exec_root, "/run/davit");
    assert_string_equal(config.hosts[0], "unix:///run/davit/davit.sock");
    assert_null(config.hosts[1]);
    assert_int_equal(config.max_concurrent_downloads, 3);
    assert_int_equal(config.max_concurrent_uploads, 5);
    assert_int_equal(config.log_level, LOG_LEVEL_INFO);
    assert_int_equal(config.log_format, LOG_FORMAT_TEXT);
    assert_null(config.storage_driver);
    assert_null(config.runtime);
    assert_int_equal(config.scrub_interval_ms, 30LL * 24 * 3600 * 1000);
    assert_int_equal(config.partial_ttl_ms, 72LL * 3600 * 1000);
    assert_int_equal(config.partial_max_bytes, 20000000000);
}

static void test_flags(void **state)
{
    CLEANUP(config_done) struct config config = {0};
    struct error err = {0};

    (void)state;
    write_file("{}");
    assert_ok(load(&config, &err,
                   ARGS("--data-root=/d", "--exec-root", "/e", "-H", "unix:///a", "--host",
                        "unix:///b", "--insecure-registry", "r:5000", "--registry-mirror",
                        "https://m", "--max-concurrent-downloads", "7", "-l", "warn",
                        "--log-format", "json", "--pidfile", "/p", "--runtime", "runc", "-s",
                        "directory")),
              &err);
    assert_string_equal(config.data_root, "/d");
    assert_string_equal(config.exec_root, "/e");
    assert_string_equal(config.hosts[0], "unix:///a");
    assert_string_equal(config.hosts[1], "unix:///b");
    assert_string_equal(config.insecure_registries[0], "r:5000");
    assert_string_equal(config.registry_mirrors[0], "https://m");
    assert_int_equal(config.max_concurrent_downloads, 7);
    assert_int_equal(config.log_level, LOG_LEVEL_WARN);
    assert_int_equal(config.log_format, LOG_FORMAT_JSON);
    assert_string_equal(config.pidfile, "/p");
    assert_string_equal(config.runtime, "runc");
    assert_string_equal(config.storage_driver, "directory");
}

static void test_file(void **state)
{
    CLEANUP(config_done) struct config config = {0};
    struct error err = {0};

    (void)state;
    write_file("{\"data-root\": \"/d\", \"hosts\": [\"unix:///x\", \"fd://\"], \"debug\": true,"
               "\"insecure-registries\": [\"a\", \"b\"], \"max-concurrent-downloads\": 9,"
               "\"max-concurrent-uploads\": 8,"
               "\"default-runtime\": \"crun\", \"group\": \"root\"}");
    assert_ok(load(&config, &err, ARGS("--exec-root", "/e")), &err);
    assert_string_equal(config.data_root, "/d");
    assert_string_equal(config.hosts[1], "fd://");
    assert_int_equal(strv_count(config.insecure_registries), 2);
    assert_int_equal(config.max_concurrent_downloads, 9);
    assert_int_equal(config.max_concurrent_uploads, 8);
    assert_int_equal(config.log_level, LOG_LEVEL_DEBUG);
    assert_string_equal(config.runtime, "crun");
}

static void test_registries(void **state)
{
    static const char *const expected[] = {"docker.io", "https://a", "docker.io", "https://b/c",
                                           "quay.io",   "https://q", NULL};
    CLEANUP(config_done) struct config config = {0};
    struct error err = {0};

    (void)state;
    write_file("{}");
    assert_ok(load(&config, &err, NULL), &err);
    assert_null(config.mirrors);
    assert_string_equal(config.hosts_dirs[0], "/etc/davit/hosts.d");
    assert_string_equal(config.hosts_dirs[1], "/etc/containerd/certs.d");
    assert_null(config.hosts_dirs[2]);
    assert_string_equal(config.certs_dir, "/etc/docker/certs.d");
    assert_int_equal(config.connect_timeout_ms, 30000);
    assert_int_equal(config.stall_timeout_ms, 60000);
    assert_int_equal(config.retry_backoff_ms, 250);
    config_done(&config);

    write_file("{\"mirrors\": {\"docker.io\": [\"https://a\", \"https://b/c\"],"
               "\"quay.io\": \"https://q\", \"none\": []}, \"hosts-dirs\": [\"/h\"],"
               "\"certs-dir\": \"/c\", \"connect-timeout\": \"500ms\","
               "\"stall-timeout\": \"2s\", \"retry-backoff\": \"1ms\"}");
    assert_ok(load(&config, &err, NULL), &err);
    assert_int_equal(strv_count(config.mirrors), 6);
    for (size_t i = 0; expected[i]; i++)
        assert_string_equal(config.mirrors[i], expected[i]);
    assert_string_equal(config.hosts_dirs[0], "/h");
    assert_null(config.hosts_dirs[1]);
    assert_string_equal(config.certs_dir, "/c");
    assert_int_equal(config.connect_timeout_ms, 500);
    assert_int_equal(config.stall_timeout_ms, 2000);
    assert_int_equal(config.retry_backoff_ms, 1);
    config_done(&config);

    write_file("{}");
    assert_ok(load(&config, &err,
                   ARGS("--mirror", "docker.io=https://a?b=c", "--mirror=x", "--hosts-dir", "/h")),
              &err);
    assert_int_equal(strv_count(config.mirrors), 4);
    assert_string_equal(config.mirrors[0], "docker.io");
    assert_string_equal(config.mirrors[1], "https://a?b=c");
    assert_string_equal(config.mirrors[2], ""); /* refused by who knows registries */
    assert_string_equal(config.mirrors[3], "x");
}

static void test_transfers(void **state)
{
    CLEANUP(config_done) struct config config = {0};
    struct error err = {0};

    (void)state;
    write_file("{}");
    assert_ok(load(&config, &err, NULL), &err);
    assert_int_equal(config.max_connections, 10);
    assert_int_equal(config.low_speed_bytes_per_s, 1000);
    assert_int_equal(config.low_speed_ms, 10000);
    assert_int_equal(config.limit_bytes_per_s, 0);
    config_done(&config);
    write_file("{\"max-connections\": 4, \"low-speed-limit\": \"10k\","
               "\"low-speed-time\": \"500ms\", \"limit-rate\": \"1.5M\"}");
    assert_ok(load(&config, &err, NULL), &err);
    assert_int_equal(config.max_connections, 4);
    assert_int_equal(config.low_speed_bytes_per_s, 10000);
    assert_int_equal(config.low_speed_ms, 500);
    assert_int_equal(config.limit_bytes_per_s, 1500000);
    config_done(&config);
    write_file("{}");
    assert_ok(load(&config, &err, ARGS("--low-speed-limit=0")), &err);
    assert_int_equal(config.low_speed_bytes_per_s, 1); /* 0 would be the default */
}

static void test_reserve(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
        unsigned int percent;
    } cases[] = {
        {NULL, 1000000000, 5},      {"0", 0, 100},         {"10GB", 10000000000, 100},
        {"512MiB", 512 * MIB, 100}, {"0%", UINT64_MAX, 0}, {"7%", UINT64_MAX, 7},
        {"99%", UINT64_MAX, 99},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP(config_done) struct config config = {0};
        struct error err = {0};
        char *const *flag = cases[i].text ? ARGS("--reserve-space", (char *)cases[i].text) : NULL;
        write_file("{}");
        assert_ok(load(&config, &err, flag), &err);
        assert_int_equal(config.reserve_bytes, cases[i].bytes);
        assert_int_equal(config.reserve_percent, cases[i].percent);
    }
}

static void test_bad_input(void **state)
{
    const struct {
        const char *file;
        char *const *args;
        const char *named; /* what the error must name */
    } cases[] = {
        {"{\"data-rot\": \"/d\"}", NULL, "data-rot"},
        {"{\"data-root\": \"/d\", \"data-root\": \"/e\"}", NULL, "data-root"},
        {"{\"data-root\": 5}", NULL, "data-root"},
        {"{\"hosts\": \"unix:///x\"}", NULL, "hosts"},
        {"{\"hosts\": [1]}", NULL, "hosts"},
        {"{\"debug\": \"yes\"}", NULL, "debug"},
        {"{\"max-concurrent-downloads\": \"3\"}", NULL, "max-concurrent-downloads"},
        {"{\"max-concurrent-downloads\": 0}", NULL, "max-concurrent-downloads"},
        {"{\"max-concurrent-downloads\": 4294967297}", NULL, "max-concurrent-downloads"},
        {"{\"log-level\": \"loud\"}", NULL, "loud"},
        {"{\"hosts\": [\"tcp://0.0.0.0:2375\"]}", NULL, "tcp://0.0.0.0:2375"},
        {"{\"data-root\": \"relative\"}", NULL, "relative"},
        {"[]", NULL, "not a JSON object"},
        {"{", NULL, "line 1"},
        {"{\"data-root\": \"/d\"}", ARGS("--data-root", "/e"), "both"},
        {"{}", ARGS("--frobnicate"), "--frobnicate"},
        {"{}", ARGS("--data-root"), "--data-root"},
        {"{}", ARGS("-Z"), "-Z"},
        {"{}", ARGS("serve"), "serve"},
        {"{}", ARGS("--max-concurrent-downloads", "-1"), "max-concurrent-downloads"},
        {"{}", ARGS("--max-concurrent-downloads", "3x"), "3x"},
        {"{}", ARGS("--log-format", "xml"), "xml"},
        {"{\"reserve-space\": 5}", NULL, "reserve-space"},
        {"{\"reserve-space\": \"much\"}", NULL, "\"much\""},
        {"{}", ARGS("--reserve-space", "100%"), "100%"},
        {"{}", ARGS("--reserve-space", "5%%"), "5%%"},
        {"{}", ARGS("--reserve-space", "-5%"), "-5%"},
        {"{}", ARGS("--reserve-space", "%"), "\"%\""},
        {"{}", ARGS("--reserve-space", ""), "reserve-space"},
        {"{}", ARGS("--scrub-interval", ""), "scrub-interval"},
        {"{}", ARGS("--scrub-interval", "30"), "30"},
        {"{}", ARGS("--scrub-interval", "-1h"), "-1h"},
        {"{}", ARGS("--scrub-interval", "1w"), "1w"},
        {"{}", ARGS("--scrub-interval", "1h30"), "1h30"},
        {"{}", ARGS("--scrub-interval", "99999999999999999999d"), "scrub-interval"},
        {"{\"scrub-interval\": 30}", NULL, "scrub-interval"},
        {"{\"keep-compressed\": \"yes\"}", NULL, "keep-compressed"},
        {"{\"mirrors\": []}", NULL, "\"mirrors\" must be an object"},
        {"{\"mirrors\": {\"a\": 1}}", NULL, "\"mirrors\" must be an object"},
        {"{\"mirrors\": {\"a\": [1]}}", NULL, "\"mirrors\" must be an object"},
        {"{\"mirrors\": {\"a\": \"b\"}}", ARGS("--mirror", "c=d"), "both"},
        {"{\"hosts-dirs\": [\"relative\"]}", NULL, "hosts-dirs \"relative\""},
        {"{\"certs-dir\": \"relative\"}", NULL, "certs-dir \"relative\""},
        {"{\"stall-timeout\": \"long\"}", NULL, "stall-timeout \"long\""},
        {"{\"max-connections\": 101}", NULL, "max-connections \"101\""},
        {"{\"limit-rate\": \"fast\"}", NULL, "limit-rate \"fast\""},
        {"{\"limit-rate\": 500}", NULL, "limit-rate"},
        {"{\"partial-ttl\": 72}", NULL, "partial-ttl"},
        {"{}", ARGS("--partial-ttl", "long"), "partial-ttl \"long\""},
        {"{}", ARGS("--partial-max-size", "20%"), "partial-max-size \"20%\""},
        {"{}", ARGS("--keep-compressed=never"), "keep-compressed \"never\""},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP(config_done) struct config config = {0};
        struct error err = {0};
        write_file(cases[i].file);
        if (load(&config, &err, cases[i].args))
            fail_msg("case %zu was accepted: %s", i, cases[i].file);
        assert_error(&err, ERROR_INVALID_ARGUMENT, cases[i].named);
    }
}

static void test_partial(void **state)
{
    CLEANUP(config_done) struct config config = {0};
    struct error err = {0};

    (void)state;
    write_file("{\"partial-ttl\": \"1h30m\", \"partial-max-size\": \"1GiB\"}");
    assert_ok(load(&config, &err, NULL), &err);
    assert_int_equal(config.partial_ttl_ms, 5400000);
    assert_int_equal(config.partial_max_bytes, GIB);
    config_done(&config);
    write_file("{}");
    assert_ok(load(&config, &err, ARGS("--partial-ttl=0", "--partial-max-size", "0")), &err);
    assert_int_equal(config.partial_ttl_ms, 1);
    assert_int_equal(config.partial_max_bytes, 1);
}

/* Said, denied, or neither. */
static void test_keep_compressed(void **state)
{
    const struct {
        const char *file;
        char *const *args;
        bool keep, drop;
    } cases[] = {{"{}", NULL, false, false},
                 {"{\"keep-compressed\": true}", NULL, true, false},
                 {"{\"keep-compressed\": false}", NULL, false, true},
                 {"{}", ARGS("--keep-compressed"), true, false},
                 {"{}", ARGS("--keep-compressed=true"), true, false},
                 {"{}", ARGS("--keep-compressed=false"), false, true}};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP(config_done) struct config config = {0};
        struct error err = {0};
        write_file(cases[i].file);
        assert_ok(load(&config, &err, cases[i].args), &err);
        assert_int_equal(config.keep_compressed, cases[i].keep);
        assert_int_equal(config.drop_compressed, cases[i].drop);
    }
}

static void test_scrub_interval(void **state)
{
    static const struct {
        char *text;
        uint64_t seconds;
    } cases[] = {{"0", 0},
                 {"0s", 0},
                 {"45s", 45},
                 {"90m", 5400},
                 {"720h", 720 * 3600},
                 {"1d12h30m", 36 * 3600 + 1800}};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP(config_done) struct config config = {0};
        struct error err = {0};
        write_file("{\"keep-compressed\": true}");
        assert_ok(load(&config, &err, ARGS("--scrub-interval", cases[i].text)), &err);
        assert_int_equal(config.scrub_interval_ms, cases[i].seconds * 1000);
        assert_true(config.keep_compressed);
    }
}

static void test_missing_file(void **state)
{
    CLEANUP(config_done) struct config config = {0};
    struct error err = {0};
    char *argv[] = {"davitd", "--config-file", "/nonexistent/daemon.json", NULL};

    (void)state;
    assert_false(config_load(3, argv, &config, &err));
    assert_error(&err, ERROR_NOT_FOUND, "/nonexistent/daemon.json");
}

static void test_help_needs_nothing(void **state)
{
    CLEANUP(config_done) struct config config = {0};
    struct error err = {0};
    char *argv[] = {"davitd", "--help", NULL};

    (void)state;
    assert_ok(config_load(2, argv, &config, &err), &err);
    assert_true(config.show_help);
    assert_non_null(strstr(config_help(), "--max-concurrent-downloads int"));
    assert_non_null(strstr(config_help(), "-H, --host list"));
}

static int setup(void **state)
{
    int fd = mkstemp(file_path);

    (void)state;
    close(fd);
    return fd < 0;
}

static int teardown(void **state)
{
    (void)state;
    return unlink(file_path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),       cmocka_unit_test(test_flags),
        cmocka_unit_test(test_file),           cmocka_unit_test(test_bad_input),
        cmocka_unit_test(test_registries),     cmocka_unit_test(test_transfers),
        cmocka_unit_test(test_reserve),        cmocka_unit_test(test_keep_compressed),
        cmocka_unit_test(test_scrub_interval), cmocka_unit_test(test_partial),
        cmocka_unit_test(test_missing_file),   cmocka_unit_test(test_help_needs_nothing),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
