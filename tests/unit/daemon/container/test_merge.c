#include "tests/unit/test.h"

#include "daemon/container/merge.h"
#include "proto/base/strbuf.h"

#define LIST(...) ((char *[]){__VA_ARGS__ __VA_OPT__(, ) NULL})

static char *join(char *const *strv)
{
    struct strbuf text = {0};

    for (size_t i = 0; strv && strv[i]; i++)
        strbuf_addf(&text, "%s|", strv[i]);
    return strbuf_take(&text);
}

static void check_command(char *const *image_entrypoint, char *const *image_cmd,
                          char *const *entrypoint, char *const *command, const char *expected)
{
    CLEANUP_ERROR struct error err = {0};
    CLEANUP(strv_cleanup)
    char **args = merge_command(image_entrypoint, image_cmd, entrypoint, command, &err);
    CLEANUP_FREE char *text = join(args);

    if (expected) {
        assert_ok(args != NULL, &err);
        assert_string_equal(text, expected);
    } else {
        assert_null(args);
        assert_true(error_is(&err, "NO_COMMAND"));
        assert_error(&err, ERROR_INVALID_ARGUMENT, "no command specified");
    }
}

static void commands_merge_as_in_docker(void **state UNUSED)
{
    char **entry = LIST("entry", "-e"), **cmd = LIST("cmd", "-c"), **none = LIST();

    check_command(entry, cmd, NULL, NULL, "entry|-e|cmd|-c|");
    check_command(NULL, cmd, NULL, NULL, "cmd|-c|");
    check_command(entry, NULL, NULL, NULL, "entry|-e|");
    check_command(entry, cmd, NULL, LIST("own"), "entry|-e|own|");
    check_command(entry, cmd, NULL, none, "entry|-e|cmd|-c|");
    check_command(entry, cmd, LIST("mine"), NULL, "mine|");
    check_command(entry, cmd, LIST("mine"), LIST("own"), "mine|own|");
    check_command(entry, cmd, LIST(""), LIST("own"), "own|");
    check_command(entry, cmd, none, LIST("own", ""), "own||");
    check_command(entry, cmd, LIST(""), NULL, NULL);
    check_command(NULL, NULL, NULL, NULL, NULL);
    check_command(LIST(""), NULL, NULL, NULL, NULL);
}

static void check_environment(char *const *image_env, char *const *user_env, const char *expected)
{
    CLEANUP_ERROR struct error err = {0};
    CLEANUP(strv_cleanup)
    char **env = merge_environment(image_env, user_env, "host", "/root", &err);
    CLEANUP_FREE char *text = join(env);

    assert_ok(env != NULL, &err);
    assert_string_equal(text, expected);
}

#define DEFAULT_PATH "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin|"

static void environments_merge_in_dockers_order(void **state UNUSED)
{
    check_environment(NULL, NULL, DEFAULT_PATH "HOSTNAME=host|HOME=/root|");
    check_environment(LIST("PATH=/bin", "A=1"), LIST("B=2"),
                      "PATH=/bin|HOSTNAME=host|B=2|A=1|HOME=/root|");
    check_environment(LIST("A=1", "B=image"), LIST("B=user", "B=later", "C="),
                      DEFAULT_PATH "HOSTNAME=host|B=later|C=|A=1|HOME=/root|");
    check_environment(LIST("HOME=/image"), LIST("HOSTNAME=mine"),
                      DEFAULT_PATH "HOSTNAME=mine|HOME=/image|");
    /* A prefix of a name is another name. */
    check_environment(LIST("PAT=1", "PATHS=2"), NULL,
                      DEFAULT_PATH "HOSTNAME=host|PAT=1|PATHS=2|HOME=/root|");
    check_environment(LIST("A=1", "B=2"), LIST("A", "HOSTNAME"), DEFAULT_PATH "B=2|HOME=/root|");
}

static void huge_environments_are_refused(void **state UNUSED)
{
    CLEANUP_FREE char **env = xcalloc(ENVIRONMENT_MAX + 2, sizeof(*env));
    CLEANUP_ERROR struct error err = {0};
    char item[] = "A=1";

    for (size_t i = 0; i < ENVIRONMENT_MAX + 1; i++)
        env[i] = item;
    assert_null(merge_environment(env, NULL, "host", "/", &err));
    assert_error(&err, ERROR_RESOURCE_EXHAUSTED, "the limit is 4096");
}

static void working_dirs_are_absolute_and_clean(void **state UNUSED)
{
    static const struct {
        const char *image, *user, *expected;
    } cases[] = {
        {NULL, NULL, "/"},        {"", "", "/"},
        {"/srv", NULL, "/srv"},   {"/srv", "", "/srv"},
        {"/srv", "/x", "/x"},     {NULL, "/a/b/", "/a/b"},
        {NULL, "//a//b", "/a/b"}, {NULL, "/a/./b", "/a/b"},
        {NULL, "/a/../b", "/b"},  {NULL, "/../../x", "/x"},
        {NULL, "/..", "/"},       {NULL, "/a/b/..", "/a"},
        {NULL, "/...", "/..."},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_ERROR struct error err = {0};
        CLEANUP_FREE char *dir = merge_working_dir(cases[i].image, cases[i].user, &err);
        assert_ok(dir != NULL, &err);
        assert_string_equal(dir, cases[i].expected);
    }
}

static void relative_working_dirs_are_refused(void **state UNUSED)
{
    CLEANUP_ERROR struct error err = {0};

    assert_null(merge_working_dir("/srv", "foo", &err));
    assert_error(&err, ERROR_INVALID_ARGUMENT,
                 "the working directory 'foo' is invalid, it needs to be an absolute path");
    assert_null(merge_working_dir("foo", NULL, &err));
    assert_error(&err, ERROR_INVALID_ARGUMENT, "'foo' is invalid");
}

static void hostnames_are_checked(void **state UNUSED)
{
    static const char *const good[] = {"a", "web-1", "a.example.org", "A_b"};
    static const char *const bad[] = {
        "",
        "-a",
        ".a",
        "a b",
        "a\nb",
        "a/b",
        "h\xc3\xb6st",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    };
    CLEANUP_ERROR struct error err = {0};

    for (size_t i = 0; i < ARRAY_SIZE(good); i++)
        assert_ok(check_hostname(good[i], &err), &err);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_false(check_hostname(bad[i], &err));
        assert_error(&err, ERROR_INVALID_ARGUMENT, "invalid hostname");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commands_merge_as_in_docker),
        cmocka_unit_test(environments_merge_in_dockers_order),
        cmocka_unit_test(huge_environments_are_refused),
        cmocka_unit_test(working_dirs_are_absolute_and_clean),
        cmocka_unit_test(relative_working_dirs_are_refused),
        cmocka_unit_test(hostnames_are_checked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
