#include "tests/unit/test.h"

#include <fcntl.h>

#include "proto/base/list.h"
#include "proto/base/strbuf.h"

/* --- util.h ----------------------------------------------------------------------------------- */

static void test_take_moves_ownership(void **state UNUSED)
{
    CLEANUP_FREE char *text = xstrdup("text");
    CLEANUP_FREE char *taken = TAKE(text);
    CLEANUP_CLOSE int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int number = fd;

    assert_null(text);
    assert_string_equal(taken, "text");
    assert_int_equal(TAKE_FD(fd), number);
    assert_int_equal(fd, -1);
    close_fd(&number);
    assert_int_equal(number, -1);
    close_fd(&number);
}

static void test_cleanup_closes_and_frees(void **state UNUSED)
{
    int number;

    {
        CLEANUP_CLOSE int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        number = fd;
        assert_true(fcntl(number, F_GETFD) >= 0);
    }
    assert_int_equal(fcntl(number, F_GETFD), -1);
}

static void test_strings(void **state UNUSED)
{
    CLEANUP_FREE char *part = xstrndup("abcdef", 3);
    CLEANUP_FREE char *whole = xstrndup("ab", 100);
    CLEANUP_FREE char *formatted = xasprintf("%d-%s", 7, "x");

    assert_string_equal(part, "abc");
    assert_string_equal(whole, "ab");
    assert_string_equal(formatted, "7-x");
    assert_null(xstrdup(NULL));
    assert_true(str_eq(NULL, NULL) && str_eq("a", "a"));
    assert_false(str_eq("a", NULL) || str_eq(NULL, "a") || str_eq("a", "b"));
    assert_true(str_empty(NULL) && str_empty("") && !str_empty(" "));
    assert_true(str_starts("sha256:abc", "sha256:") && str_starts("x", ""));
    assert_false(str_starts("sha", "sha256:"));
    assert_true(str_ends("layer.tar", ".tar") && str_ends("x", ""));
    assert_false(str_ends("tar", "layer.tar") || str_ends("layer.tgz", ".tar"));
}

static void test_strv(void **state UNUSED)
{
    char *const strings[] = {"a", "", "c", NULL};
    CLEANUP(strv_cleanup) char **copy = strv_dup(strings);

    assert_int_equal(strv_count(copy), 3);
    assert_string_equal(copy[2], "c");
    assert_ptr_not_equal(copy[2], strings[2]);
    assert_null(copy[3]);
    assert_null(strv_dup(NULL));
    assert_int_equal(strv_count(NULL), 0);
    assert_null(strv_free(NULL));
}

static void test_allocation_of_nothing_is_something(void **state UNUSED)
{
    CLEANUP_FREE void *a = xmalloc(0);
    CLEANUP_FREE void *b = xcalloc(0, 8);
    CLEANUP_FREE void *c = xrealloc(NULL, 0);
    CLEANUP_FREE void *d = xmemdup("", 0);

    assert_true(a && b && c && d);
}

static void test_clocks(void **state UNUSED)
{
    uint64_t before = now_ms();

    assert_true(now_ms() >= before);
    assert_true(wall_clock_ns() > 1600000000LL * 1000000000LL);
}

static void false_check(void *arg UNUSED)
{
    CHECK(1 + 1 == 3);
}

static void huge_allocation(void *arg UNUSED)
{
    void *volatile unused = xmalloc(SIZE_MAX / 4);

    (void)unused;
}

static void test_check_and_exhaustion_abort(void **state UNUSED)
{
    assert_dies(false_check, NULL, SIGABRT, "check failed: 1 + 1 == 3");
#if !defined(TEST_ASAN) && !defined(TEST_TSAN) /* they report it themselves */
    assert_dies(huge_allocation, NULL, SIGABRT, "fatal: out of memory allocating");
#else
    (void)huge_allocation;
#endif
}

/* --- list.h ----------------------------------------------------------------------------------- */

struct item {
    int number;
    struct list node;
};

static int sum_in_order(struct list *head)
{
    int sum = 0;

    LIST_FOR_EACH (node, head) {
        sum = sum * 10 + LIST_ITEM(node, struct item, node)->number;
    }
    return sum;
}

static void test_list(void **state UNUSED)
{
    struct item items[4] = {{.number = 1}, {.number = 2}, {.number = 3}, {.number = 4}};
    struct list head, other;

    list_init(&head);
    list_init(&other);
    assert_true(list_empty(&head));
    assert_null(list_first(&head));
    for (int i = 0; i < 4; i++)
        list_append(&head, &items[i].node);
    assert_int_equal(sum_in_order(&head), 1234);
    assert_ptr_equal(list_first(&head), &items[0].node);
    list_remove(&items[1].node);
    list_remove(&items[1].node); /* twice does nothing */
    assert_int_equal(sum_in_order(&head), 134);
    LIST_FOR_EACH (node, &head) {
        list_remove(node);
        list_append(&other, node);
    }
    assert_true(list_empty(&head));
    assert_int_equal(sum_in_order(&other), 134);
}

static void test_list_move_all(void **state UNUSED)
{
    struct item items[4] = {{.number = 1}, {.number = 2}, {.number = 3}, {.number = 4}};
    struct list a, b;

    list_init(&a);
    list_init(&b);
    list_move_all(&a, &b);
    assert_true(list_empty(&a) && list_empty(&b));
    list_append(&a, &items[0].node);
    list_append(&a, &items[1].node);
    list_move_all(&a, &b);
    assert_int_equal(sum_in_order(&a), 12);
    list_move_all(&b, &a);
    assert_true(list_empty(&a));
    assert_int_equal(sum_in_order(&b), 12);
    list_append(&a, &items[2].node);
    list_append(&a, &items[3].node);
    list_move_all(&b, &a);
    assert_int_equal(sum_in_order(&b), 1234);
    list_append(&b, &items[0].node); /* the ends are right, too */
    assert_ptr_equal(b.prev, &items[0].node);
}

/* --- strbuf.h --------------------------------------------------------------------------------- */

static void test_strbuf_grows_and_stays_terminated(void **state UNUSED)
{
    CLEANUP_STRBUF struct strbuf buf = {0};

    assert_string_equal(strbuf_text(&buf), "");
    for (int i = 0; i < 1000; i++) {
        strbuf_add_char(&buf, (char)('a' + i % 26));
        assert_int_equal(strlen(buf.data), (size_t)i + 1);
    }
    assert_int_equal(buf.length, 1000);
    strbuf_clear(&buf);
    assert_string_equal(strbuf_text(&buf), "");
    strbuf_addf(&buf, "%s=%d", "x", 42);
    strbuf_add_str(&buf, "");
    strbuf_add(&buf, NULL, 0);
    assert_string_equal(buf.data, "x=42");
}

static void test_strbuf_consume(void **state UNUSED)
{
    CLEANUP_STRBUF struct strbuf buf = {0};

    strbuf_consume(&buf, 0);
    strbuf_add(&buf, "ab\0cd", 5);
    strbuf_consume(&buf, 3);
    assert_string_equal(buf.data, "cd");
    strbuf_consume(&buf, 2);
    assert_int_equal(buf.length, 0);
    assert_string_equal(buf.data, "");
}

static void test_strbuf_take(void **state UNUSED)
{
    struct strbuf buf = {0};
    CLEANUP_FREE char *nothing = strbuf_take(&buf);
    CLEANUP_FREE char *text = NULL;

    assert_string_equal(nothing, "");
    strbuf_add_str(&buf, "text");
    text = strbuf_take(&buf);
    assert_string_equal(text, "text");
    assert_null(buf.data);
    assert_int_equal(buf.length + buf.capacity, 0);
}

static void consume_too_much(void *arg UNUSED)
{
    struct strbuf buf = {0};

    strbuf_consume(&buf, 1);
}

static void test_strbuf_consume_beyond_the_end_aborts(void **state UNUSED)
{
    assert_dies(consume_too_much, NULL, SIGABRT, "check failed");
}

#define REPLACEMENT "\xef\xbf\xbd"

static void test_printable_text(void **state UNUSED)
{
    static const struct {
        const char *text, *expected;
    } cases[] = {
        {"", ""},
        {"plain \"quoted\" back\\slash", "plain \"quoted\" back\\slash"},
        {"two\nlines\r\tand\a\x7f", "two\\nlines\\r\\tand\\u0007\\u007f"},
        {"\033]0;title\033\\", "\\u001b]0;title\\u001b\\"},
        {"\xc2\x9b"
         "31m",
         "\\u009b31m"}, /* C1: CSI in one character */
        {"a\xe2\x80\xaegnp.exe|\xe2\x81\xa6|\xe2\x80\xa8", "a\\u202egnp.exe|\\u2066|\\u2028"},
        {"\xe2\x80\xa7|\xe2\x80\xaf|\xe2\x81\xa5|\xe2\x81\xaa", NULL}, /* those beside them */
        {"\xc2\xa0|\xc3\xa4|\xe2\x82\xac|\xf0\x9f\x90\xb3", NULL},     /* valid stays as it is */
        {"\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf", NULL},            /* the edges of the ranges */
        {"\xff|\x80|\xc3", REPLACEMENT "|" REPLACEMENT "|" REPLACEMENT},
        {"\xc0\x80", REPLACEMENT REPLACEMENT},                 /* overlong NUL */
        {"\xe0\x9f\xbf", REPLACEMENT REPLACEMENT REPLACEMENT}, /* overlong */
        {"\xf0\x8f\xbf\xbf", REPLACEMENT REPLACEMENT REPLACEMENT REPLACEMENT},
        {"\xed\xa0\x80", REPLACEMENT REPLACEMENT REPLACEMENT}, /* a surrogate */
        {"\xf4\x90\x80\x80", REPLACEMENT REPLACEMENT REPLACEMENT REPLACEMENT},
        {"\xf5\x80", REPLACEMENT REPLACEMENT},
        {"\xe2\x82", REPLACEMENT REPLACEMENT}, /* cut at the end */
        {"\xe2\x82x", REPLACEMENT REPLACEMENT "x"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_STRBUF struct strbuf buf = {0};
        strbuf_add_printable(&buf, cases[i].text);
        assert_string_equal(strbuf_text(&buf),
                            cases[i].expected ? cases[i].expected : cases[i].text);
    }
}

static void test_quoted_text(void **state UNUSED)
{
    CLEANUP_STRBUF struct strbuf buf = {0};

    strbuf_add_quoted(&buf, "a\"b\\c\n\xff");
    assert_string_equal(buf.data, "\"a\\\"b\\\\c\\n" REPLACEMENT "\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_take_moves_ownership),
        cmocka_unit_test(test_cleanup_closes_and_frees),
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_strv),
        cmocka_unit_test(test_allocation_of_nothing_is_something),
        cmocka_unit_test(test_clocks),
        cmocka_unit_test(test_check_and_exhaustion_abort),
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_list_move_all),
        cmocka_unit_test(test_strbuf_grows_and_stays_terminated),
        cmocka_unit_test(test_strbuf_consume),
        cmocka_unit_test(test_strbuf_take),
        cmocka_unit_test(test_strbuf_consume_beyond_the_end_aborts),
        cmocka_unit_test(test_printable_text),
        cmocka_unit_test(test_quoted_text),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
