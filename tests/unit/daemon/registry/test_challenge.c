#include "tests/unit/test.h"

#include "daemon/registry/challenge.h"

static void test_headers(void **state)
{
    static const struct {
        const char *header;
        enum challenge_kind kind;
        const char *realm, *service, *scope;
    } cases[] = {
        {"Basic realm=\"x\"", CHALLENGE_BASIC, "x", NULL, NULL},
        {"basic", CHALLENGE_BASIC, NULL, NULL, NULL},
        {"Bearer realm=\"https://a/token\",service=\"s\",scope=\"repository:a/b:pull\"",
         CHALLENGE_BEARER, "https://a/token", "s", "repository:a/b:pull"},
        {"BEARER Realm=\"r\" , SERVICE = s ,\tscope=\"a b\"", CHALLENGE_BEARER, "r", "s", "a b"},
        {"Bearer realm=\"a,b=\\\"c\\\"\",service=\"x\"", CHALLENGE_BEARER, "a,b=\"c\"", "x", NULL},
        {"Bearer realm=\"r\",error=\"invalid_token\",scope=\"a:pull,push\"", CHALLENGE_BEARER, "r",
         NULL, "a:pull,push"},
        /* Several at once, in any order; Bearer is the better. */
        {"Basic realm=\"b\", Bearer realm=\"r\",service=\"s\"", CHALLENGE_BEARER, "r", "s", NULL},
        {"Bearer realm=\"r\",service=\"s\", Basic realm=\"b\"", CHALLENGE_BEARER, "r", "s", NULL},
        {"Negotiate, Basic realm=\"b\"", CHALLENGE_BASIC, "b", NULL, NULL},
        {"Negotiate YWJj==, Bearer realm=\"r\"", CHALLENGE_BEARER, "r", NULL, NULL},
        {"Digest realm=\"d\",nonce=\"n\", Basic realm=\"b\"", CHALLENGE_BASIC, "b", NULL, NULL},
        {"Bearer realm=\"1\", Bearer realm=\"2\"", CHALLENGE_BEARER, "1", NULL, NULL},
        /* A Bearer that names no token server is of no use. */
        {"Bearer", CHALLENGE_NONE, NULL, NULL, NULL},
        {"Bearer service=\"s\"", CHALLENGE_NONE, NULL, NULL, NULL},
        {"Bearer realm=\"\"", CHALLENGE_NONE, NULL, NULL, NULL},
        {"", CHALLENGE_NONE, NULL, NULL, NULL},
        {",,, ,", CHALLENGE_NONE, NULL, NULL, NULL},
        {"=\"x\"", CHALLENGE_NONE, NULL, NULL, NULL},
        {"Bearer realm=\"not closed", CHALLENGE_BEARER, "not closed", NULL, NULL},
        {"Bearer realm=\"back\\", CHALLENGE_BEARER, "back\\", NULL, NULL},
        {"Bearer realm=", CHALLENGE_NONE, NULL, NULL, NULL},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_CHALLENGE struct challenge challenge = {0};
        challenge_add(&challenge, cases[i].header);
        if (challenge.kind != cases[i].kind || !str_eq(challenge.realm, cases[i].realm) ||
            !str_eq(challenge.service, cases[i].service) ||
            !str_eq(challenge.scope, cases[i].scope))
            fail_msg("%s: got %d realm=%s service=%s scope=%s", cases[i].header, challenge.kind,
                     challenge.realm, challenge.service, challenge.scope);
    }
}

static void test_several_headers(void **state)
{
    CLEANUP_CHALLENGE struct challenge challenge = {0};

    (void)state;
    challenge_add(&challenge, "Basic realm=\"b\"");
    assert_int_equal(challenge.kind, CHALLENGE_BASIC);
    challenge_add(&challenge, "Bearer realm=\"r\"");
    assert_int_equal(challenge.kind, CHALLENGE_BEARER);
    challenge_add(&challenge, "Basic realm=\"b\"");
    assert_int_equal(challenge.kind, CHALLENGE_BEARER);
    assert_string_equal(challenge.realm, "r");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_several_headers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
