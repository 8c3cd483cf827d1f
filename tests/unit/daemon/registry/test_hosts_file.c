#include "tests/unit/test.h"

#include "daemon/registry/hosts_file.h"
#include "daemon/registry/source.h"

#define ALL (SOURCE_PULL | SOURCE_RESOLVE | SOURCE_PUSH)

static bool parse(const char *text, struct hosts_file *ret, struct error *err)
{
    return hosts_file_parse(text, strlen(text), "/etc/d/docker.io/hosts.toml", ret, err);
}

static void test_all_there_is(void **state)
{
    static const char text[] = "server = \"https://registry-1.docker.io\"\n"
                               "capabilities = [\"pull\", \"PUSH\"]\n"
                               "[host.\"https://m.example.com:5000/\"]\n"
                               "  capabilities = [\"pull\"]\n"
                               "  ca = \"m.crt\"\n"
                               "  client = [[\"c.cert\", \"/k/c.key\"], [\"d.pem\", \"\"]]\n"
                               "  dial_timeout = \"1500ms\"\n"
                               "  proxy = \"socks5h://u:p@proxy:1080/\"\n"
                               "  unknown = 3\n"
                               "  [host.\"https://m.example.com:5000/\".header]\n"
                               "    X-One = \"1\"\n"
                               "    x-two = [\"a\", \"b\"]\n"
                               "[host.\"http://10.0.0.1\"]\n"
                               "  skip_verify = true\n"
                               "  ca = [\"/a.crt\", \"b.crt\"]\n"
                               "  client = [\"both.pem\", \"other.pem\"]\n"
                               "[host.\"harbor.example/v2/proxy/\"]\n"
                               "  override_path = true\n"
                               "  capabilities = [\"pull\", \"resolve\"]\n"
                               "[host.\"https://x/cache\"]\n"
                               "[host.\"https://y/v2/\"]\n"
                               "  client = []\n"
                               "  ca = []\n"
                               "[host.\"https://z\"]\n"
                               "  override_path = true\n";
    CLEANUP_HOSTS_FILE struct hosts_file file = {0};
    CLEANUP_ERROR struct error err = {0};
    const struct host_access *access;

    (void)state;
    if (!parse(text, &file, &err))
        fail_msg("%s", err.message);
    assert_string_equal(file.server.base, "https://registry-1.docker.io/v2");
    assert_string_equal(file.server.name, "registry-1.docker.io");
    assert_int_equal(file.server.uses, SOURCE_PULL | SOURCE_PUSH);
    assert_int_equal(file.count, 6);

    assert_string_equal(file.hosts[0].base, "https://m.example.com:5000/v2");
    assert_string_equal(file.hosts[0].name, "m.example.com:5000");
    assert_int_equal(file.hosts[0].uses, SOURCE_PULL);
    access = file.hosts[0].access;
    assert_string_equal(access->ca_files[0], "/etc/d/docker.io/m.crt");
    assert_null(access->ca_files[1]);
    assert_string_equal(access->certificate_file, "/etc/d/docker.io/c.cert");
    assert_string_equal(access->key_file, "/k/c.key");
    assert_true(access->connect_timeout_ms == 1500);
    assert_string_equal(access->proxy, "socks5h://u:p@proxy:1080/");
    assert_string_equal(access->headers[0], "X-One: 1");
    assert_string_equal(access->headers[1], "x-two: a");
    assert_string_equal(access->headers[2], "x-two: b");
    assert_null(access->headers[3]);
    assert_false(access->skip_verify);

    assert_string_equal(file.hosts[1].base, "http://10.0.0.1/v2");
    assert_int_equal(file.hosts[1].uses, ALL);
    access = file.hosts[1].access;
    assert_true(access->skip_verify);
    assert_string_equal(access->ca_files[0], "/a.crt");
    assert_string_equal(access->ca_files[1], "/etc/d/docker.io/b.crt");
    assert_string_equal(access->certificate_file, "/etc/d/docker.io/both.pem");
    assert_string_equal(access->key_file, "/etc/d/docker.io/both.pem");

    assert_string_equal(file.hosts[2].base, "https://harbor.example/v2/proxy");
    assert_int_equal(file.hosts[2].uses, SOURCE_PULL | SOURCE_RESOLVE);
    assert_string_equal(file.hosts[3].base, "https://x/cache/v2");
    assert_string_equal(file.hosts[4].base, "https://y/v2");
    assert_null(file.hosts[4].access->certificate_file);
    assert_string_equal(file.hosts[5].base, "https://z");
}

static void test_no_server(void **state)
{
    static const char *const texts[] = {
        "",
        "capabilities = [\"pull\"]\nserver = \"\"",
        "[host.\"https://m\"]\ncapabilities = []",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        CLEANUP_HOSTS_FILE struct hosts_file file = {0};
        CLEANUP_ERROR struct error err = {0};
        assert_true(parse(texts[i], &file, &err));
        assert_null(file.server.base);
        assert_int_equal(file.server.uses, ALL);
        assert_int_equal(file.count, i == 2);
        assert_true(file.count == 0 || file.hosts[0].uses == ALL);
    }
}

static void test_refused(void **state)
{
    static const struct {
        const char *text, *fragment;
    } cases[] = {
        {"server = 1", "hosts.toml:1: \"server\" must be a string"},
        {"server = ", "hosts.toml:1: a value is missing"},
        {"server = \"ftp://x\"", "\"server\" is no host"},
        {"server = \"https://u:p@x\"", "\"server\" is no host"},
        {"server = \"https://x?y=z\"", "\"server\" is no host"},
        {"server = \"https:x\"", "\"server\" is no host"},
        {"server = \"https://\"", "\"server\" is no host"},
        {"server = \"https:/x/y://\"", "\"server\" is no host"},
        {"server = \"https:///x/y\"", "\"server\" is no host"},
        {"\nhost = 3", "hosts.toml:2: \"host\" must be a table"},
        {"[host]\nx = 1", "\"x\" must be a table"},
        {"[host.\"https://a b\"]", "is no host"},
        {"[host.\"\"]", "is no host"},
        {"capabilities = \"pull\"", "must be an array"},
        {"[host.\"https://m\"]\ncapabilities = [\"pull\", \"fly\"]",
         "hosts.toml:2: \"capabilities\""},
        {"capabilities = [1]", "\"capabilities\" has \"\", but may have"},
        {"ca = 1", "\"ca\" must be a string or an array"},
        {"ca = [\"a\", 1]", "\"ca\" must be a string or an array"},
        {"client = true", "\"client\" must be"},
        {"client = [1]", "\"client\" must be"},
        {"client = [[\"a\"]]", "\"client\" must have pairs"},
        {"client = [[\"a\", 1]]", "\"client\" must have pairs"},
        {"skip_verify = \"yes\"", "\"skip_verify\" must be a boolean"},
        {"override_path = 1", "\"override_path\" must be a boolean"},
        {"dial_timeout = 3", "\"dial_timeout\" must be a string"},
        {"dial_timeout = \"3\"", "\"dial_timeout\" must be a duration"},
        {"proxy = 1", "\"proxy\" must be a string"},
        {"proxy = \"p:3128\"", "\"proxy\" must be http://"},
        {"proxy = \"ftp://p\"", "\"proxy\" must be http://"},
        {"proxy = \"http://\"", "\"proxy\" must be http://"},
        {"proxy = \"http:///x\"", "\"proxy\" must be http://"},
        {"proxy = \"http://p/x\"", "\"proxy\" must be http://"},
        {"header = \"x\"", "\"header\" must be a table"},
        {"[header]\nx = 1", "\"x\" must be a string or an array"},
        {"[header]\nx = \"a\\r\\nHost: evil\"", "\"x\" is no valid header"},
        {"[header]\n\"a b\" = \"c\"", "is no valid header"},
        {"[header]\n\"\" = \"c\"", "is no valid header"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct hosts_file file;
        CLEANUP_ERROR struct error err = {0};
        if (parse(cases[i].text, &file, &err))
            fail_msg("accepted: %s", cases[i].text);
        assert_error(&err, ERROR_INVALID_ARGUMENT, cases[i].fragment);
    }
}

static void test_too_many(void **state)
{
    char text[HOSTS_FILE_MAX_HOSTS * 32 + 64] = "";
    CLEANUP_HOSTS_FILE struct hosts_file file = {0};
    CLEANUP_ERROR struct error err = {0};
    size_t length = 0;

    (void)state;
    for (unsigned int i = 0; i < HOSTS_FILE_MAX_HOSTS; i++)
        length +=
            (size_t)snprintf(text + length, sizeof(text) - length, "[host.\"https://m%u\"]\n", i);
    assert_true(parse(text, &file, &err));
    assert_int_equal(file.count, HOSTS_FILE_MAX_HOSTS);
    hosts_file_done(&file);
    snprintf(text + length, sizeof(text) - length, "[host.\"https://last\"]\n");
    assert_false(parse(text, &file, &err));
    assert_error(&err, ERROR_INVALID_ARGUMENT, "one too many");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_there_is),
        cmocka_unit_test(test_no_server),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_too_many),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
