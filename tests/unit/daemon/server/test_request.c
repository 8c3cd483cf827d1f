#include "tests/unit/test.h"

#include "daemon/server/docker/request.h"

/* Feeds the text in pieces of `step` bytes; what is not taken at the end stays. */
static size_t feed(struct request *request, const char *text, size_t step)
{
    size_t length = strlen(text), taken = 0;

    while (taken < length && !request->complete && !request->refusal)
        taken += request_feed(request, text + taken, MIN(step, length - taken));
    return taken;
}

static void test_simple(void **state)
{
    static const char text[] = "GET /v1.43/version?a=b HTTP/1.1\r\nHost: x\r\n\r\n";

    (void)state;
    for (size_t step = 1; step < sizeof(text); step++) {
        CLEANUP(request_done) struct request request;
        CLEANUP_FREE char *path = NULL;
        request_init(&request);
        assert_int_equal(feed(&request, text, step), strlen(text));
        assert_true(request.complete);
        assert_true(request.keep_alive);
        path = request_path(&request);
        assert_string_equal(path, "/version");
        assert_string_equal(request_method(&request), "GET");
    }
}

static void test_stops_at_the_end(void **state)
{
    static const char first[] = "POST /x HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc";
    CLEANUP(request_done) struct request request;
    CLEANUP_FREE char *text = xasprintf("%sGET /y HTTP/1.1\r\n\r\n", first);

    (void)state;
    request_init(&request);
    assert_int_equal(feed(&request, text, 1000), strlen(first));
    assert_true(request.complete);
    assert_int_equal(request.body_bytes, 3);
}

static void test_paths(void **state)
{
    static const char *const cases[][2] = {
        {"/_ping", "/_ping"},        {"/v1.24/_ping", "/_ping"}, {"/v1.x/_ping", "/v1.x/_ping"},
        {"/v1.43", "/v1.43"},        {"/v1.43/", "/"},           {"/v2.0/_ping", "/v2.0/_ping"},
        {"/a/v1.43/b", "/a/v1.43/b"}};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP(request_done) struct request request;
        CLEANUP_FREE char *text = xasprintf("GET %s HTTP/1.1\r\n\r\n", cases[i][0]);
        CLEANUP_FREE char *path = NULL;
        request_init(&request);
        feed(&request, text, 1000);
        assert_true(request.complete);
        path = request_path(&request);
        assert_string_equal(path, cases[i][1]);
    }
}

static void test_refusals(void **state)
{
    CLEANUP_STRBUF struct strbuf many = {0};
    struct {
        const char *text;
        int status;
    } cases[] = {
        {"nonsense\r\n\r\n", 400},
        {"GET / HTTP/9.9\r\n\r\n", 400},
        {"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400},
        {"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
        {"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400},
        {"POST /x HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n", 501},
        {NULL, 431},
    };

    (void)state;
    strbuf_add_str(&many, "GET / HTTP/1.1\r\n");
    for (int i = 0; i < 5000; i++)
        strbuf_addf(&many, "X-%d: aaaaaaaaaaaaaaaa\r\n", i);
    cases[ARRAY_SIZE(cases) - 1].text = many.data;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP(request_done) struct request request;
        request_init(&request);
        feed(&request, cases[i].text, 100);
        if (request.refusal != cases[i].status)
            fail_msg("case %zu: %d instead of %d", i, request.refusal, cases[i].status);
    }
}

static void test_body_limit(void **state)
{
    CLEANUP(request_done) struct request request;
    CLEANUP_FREE char *chunk = xcalloc(1, 64 * KIB);
    size_t fed = 0;

    (void)state;
    request_init(&request);
    feed(&request, "POST / HTTP/1.1\r\nContent-Length: 100000000\r\n\r\n", 1000);
    while (!request.refusal && fed < 100 * MIB)
        fed += request_feed(&request, chunk, 64 * KIB);
    assert_int_equal(request.refusal, 413);
    assert_true(fed <= REQUEST_BODY_MAX + 64 * KIB);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_simple),     cmocka_unit_test(test_stops_at_the_end),
        cmocka_unit_test(test_paths),      cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_body_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
