#include "tests/unit/test.h"

#include <errno.h>

static void test_set(void **state UNUSED)
{
    CLEANUP_ERROR struct error err = {0};

    assert_false(error_is_set(&err));
    assert_false(error_is(&err, "X"));
    assert_false(error_set(&err, ERROR_NOT_FOUND, "IMAGE_NOT_FOUND", "no image %s", "busybox"));
    assert_true(error_is_set(&err));
    assert_int_equal(err.code, ERROR_NOT_FOUND);
    assert_true(error_is(&err, "IMAGE_NOT_FOUND"));
    assert_false(error_is(&err, "IMAGE"));
    assert_string_equal(err.message, "no image busybox");
    assert_null(err.hint);
}

static void test_set_replaces_everything(void **state UNUSED)
{
    CLEANUP_ERROR struct error err = {0};

    error_set(&err, ERROR_NOT_FOUND, "A", "first");
    error_hint(&err, "hint of the first");
    error_set(&err, ERROR_ABORTED, NULL, "second");
    assert_int_equal(err.code, ERROR_ABORTED);
    assert_null(err.reason);
    assert_null(err.hint);
    assert_string_equal(err.message, "second");
}

static void test_arguments_may_be_the_errors_own(void **state UNUSED)
{
    CLEANUP_ERROR struct error err = {0};

    error_set(&err, ERROR_NOT_FOUND, "REASON", "message");
    error_hint(&err, "hint");
    error_set(&err, ERROR_INTERNAL, err.reason, "again: %s", err.message);
    assert_string_equal(err.reason, "REASON");
    assert_string_equal(err.message, "again: message");
    error_prefix(&err, "%s", err.message);
    assert_string_equal(err.message, "again: message: again: message");
    error_hint(&err, "one");
    error_hint(&err, "%s two", err.hint);
    assert_string_equal(err.hint, "one two");
    error_set_errno(&err, EIO, "%s", err.message);
    assert_string_equal(err.message, "again: message: again: message: Input/output error");
}

static void test_nobody_wants_to_know(void **state UNUSED)
{
    struct error err = {0};

    assert_false(error_set(NULL, ERROR_INTERNAL, "X", "x"));
    assert_false(error_set_errno(NULL, EIO, "x"));
    assert_false(error_prefix(NULL, "x"));
    assert_false(error_hint(NULL, "x"));
    error_set(&err, ERROR_INTERNAL, "X", "x");
    assert_false(error_move(NULL, &err)); /* freed: LeakSanitizer would tell */
    assert_false(error_is_set(&err));
}

static void test_errno(void **state UNUSED)
{
    static const struct {
        int errnum;
        enum error_code code;
    } cases[] = {
        {ECANCELED, ERROR_CANCELLED},         {-ECANCELED, ERROR_CANCELLED},
        {ETIMEDOUT, ERROR_DEADLINE_EXCEEDED}, {ENOENT, ERROR_NOT_FOUND},
        {EEXIST, ERROR_ALREADY_EXISTS},       {EACCES, ERROR_PERMISSION_DENIED},
        {EPERM, ERROR_PERMISSION_DENIED},     {-ENOSPC, ERROR_RESOURCE_EXHAUSTED},
        {EMFILE, ERROR_RESOURCE_EXHAUSTED},   {ECONNREFUSED, ERROR_UNAVAILABLE},
        {EINVAL, ERROR_INVALID_ARGUMENT},     {EIO, ERROR_INTERNAL},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_ERROR struct error err = {0};
        assert_false(error_set_errno(&err, cases[i].errnum, "opening %s", "file"));
        assert_int_equal(err.code, cases[i].code);
        assert_true(str_starts(err.message, "opening file: "));
    }
}

static void test_errno_texts(void **state UNUSED)
{
    CLEANUP_ERROR struct error err = {0};

    error_set_errno(&err, ETIMEDOUT, "pulling");
    assert_string_equal(err.message, "pulling: timed out");
    error_set_errno(&err, ENOSPC, "writing a layer");
    assert_true(error_is(&err, "NO_SPACE"));
    assert_non_null(err.hint);
    error_set_errno(&err, EIO, "writing a layer");
    assert_true(error_is(&err, "IO_ERROR"));
    assert_non_null(strstr(err.hint, "dmesg"));
}

static void test_prefix_and_hint(void **state UNUSED)
{
    CLEANUP_ERROR struct error err = {0};

    error_set(&err, ERROR_NOT_FOUND, "R", "inner");
    assert_false(error_prefix(&err, "outer %d", 1));
    assert_string_equal(err.message, "outer 1: inner");
    assert_string_equal(err.reason, "R");
    assert_false(error_hint(&err, "try %s", "again"));
    error_prefix(&err, "top");
    assert_string_equal(err.hint, "try again");
}

static void test_move_and_copy(void **state UNUSED)
{
    CLEANUP_ERROR struct error a = {0};
    CLEANUP_ERROR struct error b = {0};
    const char *message;

    error_set(&a, ERROR_NOT_FOUND, "R", "text");
    error_hint(&a, "hint");
    a.retry_after_ms = 7;
    error_set(&b, ERROR_INTERNAL, NULL, "old");
    message = a.message;
    assert_false(error_move(&b, &a));
    assert_false(error_is_set(&a));
    assert_null(a.message);
    assert_ptr_equal(b.message, message);
    assert_false(error_copy(&a, &b));
    assert_ptr_not_equal(a.message, b.message);
    assert_string_equal(a.message, "text");
    assert_string_equal(a.reason, "R");
    assert_string_equal(a.hint, "hint");
    assert_true(a.retry_after_ms == 7);
    error_prefix(&a, "more");
    assert_true(a.retry_after_ms == 7);
    error_set(&b, ERROR_INTERNAL, NULL, "another");
    assert_true(b.retry_after_ms == 0);
    error_set(&a, a.code, a.reason, "text");
    error_move(&a, &a);
    assert_string_equal(a.message, "text");
    error_copy(&a, &a);
    assert_string_equal(a.message, "text");
}

static void test_messages_are_one_printable_line(void **state UNUSED)
{
    CLEANUP_ERROR struct error err = {0};

    error_set(&err, ERROR_INTERNAL, NULL, "the peer says \"%s\"", "a\nb\033[2J\xff");
    assert_string_equal(err.message, "the peer says \"a\\nb\\u001b[2J\xef\xbf\xbd\"");
    error_prefix(&err, "%s", "x\ny");
    assert_true(str_starts(err.message, "x\\ny: the peer"));
    error_hint(&err, "%s", "\r");
    assert_string_equal(err.hint, "\\r");
    error_set(&err, ERROR_INTERNAL, NULL, "cut %.2s", "\xe2\x82\xac");
    assert_string_equal(err.message, "cut \xef\xbf\xbd\xef\xbf\xbd");
}

static void test_code_names(void **state UNUSED)
{
    assert_string_equal(error_code_name(ERROR_NONE), "OK");
    assert_string_equal(error_code_name(ERROR_UNAUTHENTICATED), "UNAUTHENTICATED");
    assert_string_equal(error_code_name(ERROR_FAILED_PRECONDITION), "FAILED_PRECONDITION");
    assert_string_equal(error_code_name((enum error_code)17), "UNKNOWN");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set),
        cmocka_unit_test(test_set_replaces_everything),
        cmocka_unit_test(test_arguments_may_be_the_errors_own),
        cmocka_unit_test(test_nobody_wants_to_know),
        cmocka_unit_test(test_errno),
        cmocka_unit_test(test_errno_texts),
        cmocka_unit_test(test_prefix_and_hint),
        cmocka_unit_test(test_move_and_copy),
        cmocka_unit_test(test_messages_are_one_printable_line),
        cmocka_unit_test(test_code_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
