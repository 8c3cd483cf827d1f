#include "tests/unit/test.h"

#include "proto/base/digest.h"

/* FIPS 180-2, appendix B, and the empty string. */
#define EMPTY "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define ABC "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define MILLION_A "sha256:cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"

static void test_known_values(void **state UNUSED)
{
    CLEANUP(hasher_cleanup) struct hasher *hasher = hasher_new();
    struct digest digest = digest_of("", 0);
    char block[1000];

    assert_string_equal(digest.text, EMPTY);
    digest = digest_of("abc", 3);
    assert_string_equal(digest.text, ABC);
    memset(block, 'a', sizeof(block));
    for (int i = 0; i < 1000; i++)
        hasher_update(hasher, block, sizeof(block));
    digest = hasher_finish(hasher);
    assert_string_equal(digest.text, MILLION_A);
}

static void test_pieces_do_not_matter(void **state UNUSED)
{
    CLEANUP(hasher_cleanup) struct hasher *hasher = hasher_new();
    struct digest digest;

    hasher_update(hasher, "a", 1);
    hasher_update(hasher, NULL, 0);
    hasher_update(hasher, "bc", 2);
    digest = hasher_finish(hasher);
    assert_string_equal(digest.text, ABC);
    assert_null(hasher_free(NULL));
}

static void test_parse(void **state UNUSED)
{
    CLEANUP_ERROR struct error err = {0};
    struct digest a = {0}, b = digest_of("abc", 3);

    assert_false(digest_is_set(&a));
    assert_ok(digest_parse(ABC, &a, &err), &err);
    assert_true(digest_is_set(&a));
    assert_true(digest_eq(&a, &b));
    assert_string_equal(digest_hex(&a), strchr(ABC, ':') + 1);
    assert_ok(digest_parse(EMPTY, &b, &err), &err);
    assert_false(digest_eq(&a, &b));
}

static void test_refused(void **state UNUSED)
{
    static const char *const cases[] = {
        "",
        "sha256",
        "sha256:",
        "sha256:ab",
        "SHA256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "sha256:BA7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "sha256:ga7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "sha512:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        " " ABC,
        ABC "0",
        ABC "\n",
        ABC "/../x",
        "sha256:../../../../../../../../../../../../../../../../../../../etc/passwdaaa",
        "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015a",
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_ERROR struct error err = {0};
        struct digest digest = {0};
        assert_false(digest_parse(cases[i], &digest, &err));
        assert_true(error_is(&err, "INVALID_DIGEST"));
        assert_false(digest_is_set(&digest));
        assert_error(&err, ERROR_INVALID_ARGUMENT, "expected sha256:");
    }
}

static void test_long_garbage_is_cut_in_the_message(void **state UNUSED)
{
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_FREE char *text = xmalloc(100001);
    struct digest digest;

    memset(text, 'x', 100000);
    text[100000] = '\0';
    assert_false(digest_parse(text, &digest, &err));
    assert_true(strlen(err.message) < 300);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_values),
        cmocka_unit_test(test_pieces_do_not_matter),
        cmocka_unit_test(test_parse),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_long_garbage_is_cut_in_the_message),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
