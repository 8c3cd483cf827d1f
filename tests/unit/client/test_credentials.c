#include "tests/unit/task_test.h"

#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>

#include "client/credentials.h"
#include "proto/async/await.h"

/* A directory with a config.json, and with programs that are found. */
static char *dir, *old_path;

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

static int set_up(void **state)
{
    char template[] = "/tmp/credentials-XXXXXX";
    CLEANUP_FREE char *path = NULL;

    (void)state;
    dir = xstrdup(mkdtemp(template));
    old_path = xstrdup(getenv("PATH"));
    path = xasprintf("%s:%s", dir, old_path);
    setenv("PATH", path, 1);
    setenv("DOCKER_CONFIG", dir, 1);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    setenv("PATH", old_path, 1);
    unsetenv("DOCKER_CONFIG");
    free(dir);
    free(old_path);
    return 0;
}

static void write_file(const char *name, const char *text, mode_t mode)
{
    CLEANUP_FREE char *path = xasprintf("%s/%s", dir, name);
    CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, mode);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

/* dXNlcjpwYXNz is user:pass, dTpwOnE= is u:p:q, dTo= is u: and nothing. */
static const char entries[] =
    "{\"auths\":{\"https://index.docker.io/v1/\":{\"auth\":\"dXNlcjpwYXNz\"},"
    "\"localhost:5000\":{\"auth\":\"dTpwOnE=\"},"
    "\"https://old.example.com/v1/\":{\"auth\":\"dTo=\"},"
    "\"token.example.com\":{\"auth\":\"dXNlcjpwYXNz\",\"identitytoken\":\"TOKEN\"},"
    "\"plain.example.com\":{\"username\":\"u\",\"password\":\"p\"},"
    "\"empty.example.com\":{},"
    "\"bad.example.com\":{\"auth\":\"!!!!\"},"
    "\"odd.example.com\":{\"auth\":\"dXNlcg==\"}},"
    "\"HttpHeaders\":{\"User-Agent\":\"Docker-Client\"}}";

TASK_TEST(test_entries)
{
    static const struct {
        const char *domain, *username, *password, *identity_token;
    } cases[] = {
        {"docker.io", "user", "pass", NULL},       {"localhost:5000", "u", "p:q", NULL},
        {"localhost", NULL, NULL, NULL},           {"localhost:5001", NULL, NULL, NULL},
        {"old.example.com", "u", "", NULL},        {"token.example.com", "user", NULL, "TOKEN"},
        {"plain.example.com", "u", "p", NULL},     {"empty.example.com", NULL, NULL, NULL},
        {"unknown.example.com", NULL, NULL, NULL},
    };

    write_file("config.json", entries, 0600);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_CREDENTIALS struct credentials found = {0};
        assert_ok(await_credentials_find(cases[i].domain, &found, err), err);
        if (!str_eq(found.username, cases[i].username) ||
            !str_eq(found.password, cases[i].password) ||
            !str_eq(found.identity_token, cases[i].identity_token))
            fail_msg("%s: %s, %s, %s", cases[i].domain, found.username, found.password,
                     found.identity_token);
    }
    return true;
}

TASK_TEST(test_bad_entries)
{
    CLEANUP_CREDENTIALS struct credentials found = {0};

    write_file("config.json", entries, 0600);
    assert_false(await_credentials_find("bad.example.com", &found, err));
    assert_true(error_is(err, "CREDENTIALS"));
    assert_error(err, ERROR_INVALID_ARGUMENT, "bad.example.com is not base64 of USER:PASSWORD");
    assert_false(await_credentials_find("odd.example.com", &found, err));
    assert_error(err, ERROR_INVALID_ARGUMENT, "odd.example.com is not base64 of USER:PASSWORD");
    return true;
}

TASK_TEST(test_no_file)
{
    CLEANUP_CREDENTIALS struct credentials found = {0};

    assert_ok(await_credentials_find("docker.io", &found, err), err);
    assert_null(found.username);
    return true;
}

TASK_TEST(test_home)
{
    CLEANUP_CREDENTIALS struct credentials found = {0};
    CLEANUP_FREE char *sub = xasprintf("%s/.docker", dir);
    CLEANUP_FREE char *old_home = xstrdup(getenv("HOME"));

    assert_int_equal(mkdir(sub, 0700), 0);
    write_file(".docker/config.json", entries, 0600);
    unsetenv("DOCKER_CONFIG");
    setenv("HOME", dir, 1);
    assert_ok(await_credentials_find("docker.io", &found, err), err);
    if (old_home)
        setenv("HOME", old_home, 1);
    assert_string_equal(found.username, "user");
    return true;
}

TASK_TEST(test_file_that_makes_no_sense)
{
    CLEANUP_CREDENTIALS struct credentials found = {0};

    write_file("config.json", "{\"auths\":", 0600);
    assert_false(await_credentials_find("docker.io", &found, err));
    assert_true(error_is(err, "CREDENTIALS"));
    assert_error(err, ERROR_INVALID_ARGUMENT, "config.json is not valid JSON");
    return true;
}

TASK_TEST(test_errors_quote_no_secret)
{
    CLEANUP_CREDENTIALS struct credentials found = {0};

    write_file("config.json", "{\"auths\":{\"docker.io\":{\"password\" \"SECRET\"}}}", 0600);
    assert_false(await_credentials_find("docker.io", &found, err));
    assert_null(strstr(err->message, "SECRET"));
    assert_error(err, ERROR_INVALID_ARGUMENT, "config.json is not valid JSON: line 1, column");
    write_file("config.json", "{\"credsStore\":\"broken\"}", 0600);
    write_file("docker-credential-broken",
               "#!/bin/sh\necho '{\"Username\":\"u\",\"Secret\" \"SECRET\"}'\n", 0700);
    assert_false(await_credentials_find("docker.io", &found, err));
    assert_null(strstr(err->message, "SECRET"));
    assert_error(err, ERROR_FAILED_PRECONDITION, "its output is not valid JSON: line 1, column");
    return true;
}

/* --- Whose ------------------------------------------------------------------------------------ */

static void test_registry_domain(void **state UNUSED)
{
    CLEANUP_FREE char *endless = xmalloc(100000);
    static const struct {
        const char *reference, *domain;
    } cases[] = {
        {"busybox", "docker.io"},
        {"busybox:1.36", "docker.io"},
        {"busybox@sha256:00", "docker.io"},
        {"library/busybox", "docker.io"},
        {"me/a/b:tag", "docker.io"},
        {"docker.io/me/a", "docker.io"},
        {"index.docker.io/me/a", "docker.io"},
        {"localhost", "docker.io"},
        {"localhost/a", "localhost"},
        {"localhost:5000/a:tag", "localhost:5000"},
        {"r.example.com/a@sha256:00", "r.example.com"},
        {"host:443/a", "host:443"},
        {"HOST/a", "HOST"},
        {"[::1]:5000/a", "[::1]:5000"},
        {"", "docker.io"},
        {"r.example.com\n/a", NULL},
        {"https://r.example.com/a", "https:"},
        {"a.b c/d", NULL},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_FREE char *domain = registry_domain(cases[i].reference);
        if (!str_eq(domain, cases[i].domain))
            fail_msg("%s: %s, not %s", cases[i].reference, domain, cases[i].domain);
    }
    memset(endless, '.', 100000);
    memcpy(endless + 99997, "/a", 3);
    assert_null(registry_domain(endless));
}

/* --- Helpers ---------------------------------------------------------------------------------- */

TASK_TEST(test_helpers)
{
    static const struct {
        const char *domain, *username, *password, *identity_token;
    } cases[] = {
        /* The store says what it was asked for. */
        {"docker.io", "store", "https://index.docker.io/v1/", NULL},
        {"r.example.com:5000", "store", "r.example.com:5000", NULL},
        {"own.example.com", NULL, NULL, "own.example.com"},
        /* Not in the store, but in the file. */
        {"missing.example.com", "user", "pass", NULL},
        {"missing.other.com", NULL, NULL, NULL},
    };

    write_file("config.json",
               "{\"auths\":{\"missing.example.com\":{\"auth\":\"dXNlcjpwYXNz\"},\"docker.io\":{}},"
               "\"credsStore\":\"store\",\"credHelpers\":{\"own.example.com\":\"own\"}}",
               0600);
    write_file(
        "docker-credential-store",
        "#!/bin/sh\nread -r server\n[ \"$1\" = get ] || exit 2\ncase $server in\nmissing*)\n"
        "echo 'credentials not found in native keychain'\nexit 1\n;;\nesac\n"
        "echo '{\"ServerURL\":\"'$server'\",\"Username\":\"store\",\"Secret\":\"'$server'\"}'\n",
        0700);
    write_file("docker-credential-own",
               "#!/bin/sh\nread -r server\n"
               "echo '{\"Username\":\"<token>\",\"Secret\":\"'$server'\"}'\n",
               0700);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_CREDENTIALS struct credentials found = {0};
        assert_ok(await_credentials_find(cases[i].domain, &found, err), err);
        if (!str_eq(found.username, cases[i].username) ||
            !str_eq(found.password, cases[i].password) ||
            !str_eq(found.identity_token, cases[i].identity_token))
            fail_msg("%s: %s, %s, %s", cases[i].domain, found.username, found.password,
                     found.identity_token);
    }
    return true;
}

TASK_TEST(test_helpers_that_do_not_work)
{
    static const struct {
        const char *name, *script, *message;
    } cases[] = {
        {"absent", NULL, "docker-credential-absent does not work"},
        {"../x", NULL, "a slash"},
        {"fails", "#!/bin/sh\necho 'the keychain is locked'\nexit 1\n", "the keychain is locked"},
        {"silent", "#!/bin/sh\nexit 0\n", "its output is not valid JSON"},
        {"odd", "#!/bin/sh\necho '{\"Username\":\"u\"}'\n", "lacks Username or Secret"},
        {"endless", "#!/bin/sh\nexec cat /dev/zero\n", "its output has no end"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_CREDENTIALS struct credentials found = {0};
        CLEANUP_FREE char *config = xasprintf("{\"credsStore\":\"%s\"}", cases[i].name);
        CLEANUP_FREE char *program = xasprintf("docker-credential-%s", cases[i].name);
        write_file("config.json", config, 0600);
        if (cases[i].script)
            write_file(program, cases[i].script, 0700);
        assert_false(await_credentials_find("docker.io", &found, err));
        assert_true(error_is(err, "CREDENTIALS"));
        assert_error(err, ERROR_FAILED_PRECONDITION, cases[i].message);
        assert_null(found.username);
    }
    return true;
}

static bool find_in_task(void *arg, struct error *err)
{
    return await_credentials_find("docker.io", arg, err);
}

TASK_TEST(test_cancel)
{
    CLEANUP_CREDENTIALS struct credentials found = {0};
    struct group group;
    CLEANUP_FREE char *fifo = xasprintf("%s/started", dir);
    CLEANUP_FREE char *script = xasprintf("#!/bin/sh\necho >%s\nexec sleep 1000\n", fifo);
    char line[2];
    CLEANUP_CLOSE int fd = -1;

    write_file("config.json", "{\"credsStore\":\"sleeps\"}", 0600);
    write_file("docker-credential-sleeps", script, 0700);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    fd = open(fifo, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    assert_true(fd >= 0);
    group_init(&group);
    assert_ok(task_spawn(&group, "find", NULL, find_in_task, &found, err), err);
    while (read(fd, line, sizeof(line)) < 0)
        assert_int_equal(await_sleep(5), 0);
    group_cancel(&group);
    assert_false(await_group(&group, err));
    assert_int_equal(err->code, ERROR_CANCELLED);
    error_done(err);
    return true;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_entries, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bad_entries, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_file, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_home, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_file_that_makes_no_sense, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_errors_quote_no_secret, set_up, tear_down),
        cmocka_unit_test(test_registry_domain),
        cmocka_unit_test_setup_teardown(test_helpers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_helpers_that_do_not_work, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_cancel, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
