#include "tests/unit/test.h"

#include "client/environment.h"

static char path[64];

static void write_file(const void *data, size_t size)
{
    strcpy(path, "/tmp/test_environment.XXXXXX");
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, size), (ssize_t)size);
    close(fd);
}

static char **read_text(const char *text, char *const *flags, struct error *err)
{
    write_file(text, strlen(text));
    char **list = environment_read((char *const[]){path, NULL}, flags, err);
    unlink(path);
    return list;
}

static void test_file_and_flags(void **state UNUSED)
{
    CLEANUP_ERROR struct error err = {0};
    setenv("TEST_SET", "from here", 1);
    unsetenv("TEST_UNSET");
    CLEANUP(strv_cleanup)
    char **list =
        read_text("\xef\xbb\xbf# comment\n\n  A=1 \nB= two words=x\r\nTEST_SET\nTEST_UNSET\nC=",
                  (char *const[]){"D=4", "TEST_SET", "TEST_UNSET", NULL}, &err);
    const char *expected[] = {"A=1 ", "B= two words=x",     "TEST_SET=from here", "C=",
                              "D=4",  "TEST_SET=from here", "TEST_UNSET"};
    assert_ok(list, &err);
    assert_int_equal(strv_count(list), ARRAY_SIZE(expected));
    for (size_t i = 0; i < ARRAY_SIZE(expected); i++)
        assert_string_equal(list[i], expected[i]);
}

static void test_nothing(void **state UNUSED)
{
    CLEANUP_ERROR struct error err = {0};
    CLEANUP(strv_cleanup) char **list = environment_read(NULL, NULL, &err);
    assert_non_null(list);
    assert_null(list[0]);
    CLEANUP(strv_cleanup) char **empty = read_text("", NULL, &err);
    assert_non_null(empty);
    assert_null(empty[0]);
}

static void test_bad_files(void **state UNUSED)
{
    CLEANUP_ERROR struct error err = {0};
    assert_null(read_text("A=1\nX Y=2\n", NULL, &err));
    assert_error(&err, ERROR_INVALID_ARGUMENT,
                 "poorly formatted environment: variable 'X Y' contains whitespaces");
    assert_null(read_text("=2\n", NULL, &err));
    assert_error(&err, ERROR_INVALID_ARGUMENT,
                 "poorly formatted environment: no variable name on line '=2'");
    assert_null(environment_read((char *const[]){"/nonexistent/env", NULL}, NULL, &err));
    assert_error(&err, ERROR_NOT_FOUND, "open /nonexistent/env: No such file or directory");
    assert_null(environment_read((char *const[]){"/", NULL}, NULL, &err));
    assert_true(error_is_set(&err));
    error_done(&err);

    write_file("A=1\0B=2", 7);
    assert_null(environment_read((char *const[]){path, NULL}, NULL, &err));
    assert_error(&err, ERROR_INVALID_ARGUMENT, "zero bytes");
    unlink(path);

    /* A file that never ends. */
    assert_null(environment_read((char *const[]){"/dev/zero", NULL}, NULL, &err));
    assert_error(&err, ERROR_RESOURCE_EXHAUSTED, "larger than");
}

static void test_names(void **state UNUSED)
{
    CLEANUP_ERROR struct error err = {0};
    assert_true(environment_check("A", &err));
    assert_true(environment_check("A=", &err));
    assert_false(environment_check("", &err));
    assert_error(&err, ERROR_INVALID_ARGUMENT, "invalid environment variable: ");
    assert_false(environment_check("=x", &err));
    assert_error(&err, ERROR_INVALID_ARGUMENT, "invalid environment variable: =x");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_file_and_flags),
        cmocka_unit_test(test_nothing),
        cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
