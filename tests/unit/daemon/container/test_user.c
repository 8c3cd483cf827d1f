#include "tests/unit/test.h"

#include "daemon/container/user.h"

#define PASSWD                                    \
    "root:x:0:0:root:/root:/bin/sh\n"             \
    "\n"                                          \
    "broken\n"                                    \
    "huge:x:4294967296:0::/huge:\n"               \
    "minus:x:-1:0::/minus:\n"                     \
    "bin:x:2:2:bin:/bin:/bin/sh\n"                \
    "web:x:1000:1000:Web,,,:/srv/web:/bin/sh\n"   \
    "web:x:0:0:second entry:/root:/bin/sh\n"      \
    "also1000:x:1000:7::/other:\n"                \
    "1234:x:0:0:digits as a name:/root:/bin/sh\n" \
    "relative:x:50:50::home:/bin/sh\n"            \
    "last:x:60:60"

#define GROUP                    \
    "root:x:0:root\n"            \
    "web:x:1000:\n"              \
    "audio:x:29:web,bin\n"       \
    "video:x:44:bin,web,other\n" \
    "webmaster:x:45:webx,xweb\n" \
    "bad:x:99999999999:web\n"    \
    "5678:x:0:web"

static bool resolve(const char *text, const char *passwd, const char *group, struct exec_user *ret,
                    struct error *err)
{
    const struct user_file passwd_file = {passwd, passwd ? strlen(passwd) : 0};
    const struct user_file group_file = {group, group ? strlen(group) : 0};

    return exec_user_resolve(text, passwd_file, group_file, ret, err);
}

struct expectation {
    const char *text;
    uint32_t uid, gid;
    const char *home;
    const char *groups; /* "29 44 " */
};

static void check(const struct expectation *expected, const char *passwd, const char *group)
{
    CLEANUP(exec_user_done) struct exec_user user = {0};
    CLEANUP_ERROR struct error err = {0};
    char groups[256] = "";
    size_t length = 0;

    assert_ok(resolve(expected->text, passwd, group, &user, &err), &err);
    for (size_t i = 0; i < user.group_count; i++)
        length += (size_t)snprintf(groups + length, sizeof(groups) - length, "%u ", user.groups[i]);
    if (user.uid != expected->uid || user.gid != expected->gid ||
        !str_eq(user.home, expected->home) || !str_eq(groups, expected->groups))
        fail_msg("\"%s\" gave %u:%u, home %s, groups %s", expected->text, user.uid, user.gid,
                 user.home, groups);
}

static void users_resolve_as_in_docker(void **state UNUSED)
{
    static const struct expectation cases[] = {
        {"", 0, 0, "/root", "0 "},
        {"root", 0, 0, "/root", "0 "},
        {"web", 1000, 1000, "/srv/web", "29 44 0 "},
        {"1000", 1000, 1000, "/srv/web", "29 44 0 "},
        {"bin", 2, 2, "/bin", "29 44 "},
        {"web:audio", 1000, 29, "/srv/web", ""},
        {"web:29", 1000, 29, "/srv/web", ""},
        {"web:777", 1000, 777, "/srv/web", ""},
        {"1000:777", 1000, 777, "/srv/web", ""},
        {"4242", 4242, 0, "/", ""},
        {"4242:audio", 4242, 29, "/", ""},
        {":44", 0, 44, "/root", ""},
        {"web:", 1000, 1000, "/srv/web", "29 44 0 "},
        {"4294967294", 4294967294U, 0, "/", ""},
        {"last", 60, 60, "/", ""},
        {"relative", 50, 50, "/", ""},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        check(&cases[i], PASSWD, GROUP);
}

/* An image may name a user "1234" that is root: digits are a uid all the same. */
static void digits_are_never_a_name(void **state UNUSED)
{
    check(&(struct expectation){"1234", 1234, 0, "/", ""}, PASSWD, GROUP);
    check(&(struct expectation){"web:5678", 1000, 5678, "/srv/web", ""}, PASSWD, GROUP);
}

static void files_may_be_missing(void **state UNUSED)
{
    CLEANUP(exec_user_done) struct exec_user user = {0};
    CLEANUP_ERROR struct error err = {0};

    check(&(struct expectation){"", 0, 0, "/", ""}, NULL, NULL);
    check(&(struct expectation){"12:34", 12, 34, "/", ""}, NULL, NULL);
    check(&(struct expectation){"web", 1000, 1000, "/srv/web", ""}, PASSWD, NULL);
    assert_false(resolve("web", NULL, NULL, &user, &err));
    assert_error(&err, ERROR_NOT_FOUND,
                 "unable to find user web: no matching entries in passwd file");
}

static void wrong_users_are_refused(void **state UNUSED)
{
    static const struct {
        const char *text;
        enum error_code code;
        const char *message;
    } cases[] = {
        {"foo", ERROR_NOT_FOUND, "unable to find user foo: no matching entries in passwd file"},
        {"huge", ERROR_NOT_FOUND, "unable to find user huge"},
        {"minus", ERROR_NOT_FOUND, "unable to find user minus"},
        {"broken", ERROR_NOT_FOUND, "unable to find user broken"},
        {"web:foo", ERROR_NOT_FOUND, "unable to find group foo: no matching entries in group"},
        {"web:bad", ERROR_NOT_FOUND, "unable to find group bad"},
        {"4294967295", ERROR_INVALID_ARGUMENT, "must be in range 0-4294967294"},
        {"99999999999999999999999", ERROR_INVALID_ARGUMENT, "must be in range"},
        {"-1", ERROR_INVALID_ARGUMENT, "must be in range"},
        {"+1", ERROR_INVALID_ARGUMENT, "must be in range"},
        {"0:4294967295", ERROR_INVALID_ARGUMENT, "must be in range"},
        {"root:root:root", ERROR_INVALID_ARGUMENT, "expected user[:group]"},
        {"root\nroot", ERROR_INVALID_ARGUMENT, "invalid user"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP(exec_user_done) struct exec_user user = {0};
        CLEANUP_ERROR struct error err = {0};
        assert_false(resolve(cases[i].text, PASSWD, GROUP, &user, &err));
        assert_error(&err, cases[i].code, cases[i].message);
    }
}

static void long_names_and_lines_are_no_trouble(void **state UNUSED)
{
    CLEANUP_FREE char *name = xmalloc(300);
    CLEANUP_FREE char *line = xmalloc(MIB);
    CLEANUP(exec_user_done) struct exec_user user = {0};
    CLEANUP_ERROR struct error err = {0};

    memset(name, 'a', 299);
    name[299] = '\0';
    assert_false(resolve(name, PASSWD, GROUP, &user, &err));
    assert_error(&err, ERROR_INVALID_ARGUMENT, "invalid user: too long");
    memset(line, ':', MIB);
    memcpy(line + MIB - 20, "\nx:y:1:2::/home:/sh", 19);
    line[MIB - 1] = '\0';
    check(&(struct expectation){"x", 1, 2, "/home", ""}, line, line);
}

/* A name with a NUL in it matches nothing, a home with one is not used. */
static void nul_bytes_are_bytes(void **state UNUSED)
{
    static const char passwd[] = "we\0b:x:5:5::/a:\nnul:x:6:6::/a\0b:\n";
    CLEANUP(exec_user_done) struct exec_user user = {0};
    CLEANUP_ERROR struct error err = {0};

    assert_ok(exec_user_resolve("nul", (struct user_file){passwd, sizeof(passwd) - 1},
                                (struct user_file){0}, &user, &err),
              &err);
    assert_int_equal(user.uid, 6);
    assert_string_equal(user.home, "/");
    exec_user_done(&user);
    assert_false(exec_user_resolve("we", (struct user_file){passwd, sizeof(passwd) - 1},
                                   (struct user_file){0}, &user, &err));
    assert_error(&err, ERROR_NOT_FOUND, "unable to find user we");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(users_resolve_as_in_docker),
        cmocka_unit_test(digits_are_never_a_name),
        cmocka_unit_test(files_may_be_missing),
        cmocka_unit_test(wrong_users_are_refused),
        cmocka_unit_test(long_names_and_lines_are_no_trouble),
        cmocka_unit_test(nul_bytes_are_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
