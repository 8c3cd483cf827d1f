/* The llhttp that was found or built: its header and its code belong together. */
#include <llhttp.h>

#include "tests/unit/test.h"

static int on_complete(llhttp_t *parser)
{
    *(int *)parser->data += 1;
    return 0;
}

static enum llhttp_errno parse(const char *text, int *ret_complete)
{
    llhttp_t parser;
    llhttp_settings_t settings;

    *ret_complete = 0;
    llhttp_settings_init(&settings);
    settings.on_message_complete = on_complete;
    llhttp_init(&parser, HTTP_REQUEST, &settings);
    parser.data = ret_complete;
    return llhttp_execute(&parser, text, strlen(text));
}

static void parses_pipelined_requests(void **state)
{
    int complete;

    (void)state;
    assert_int_equal(parse("GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n"
                           "POST /v1.41/x HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
                           &complete),
                     HPE_OK);
    assert_int_equal(complete, 2);
}

static void refuses_two_lengths(void **state)
{
    int complete;

    (void)state;
    assert_int_not_equal(parse("POST / HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n",
                               &complete),
                         HPE_OK);
    assert_int_equal(complete, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parses_pipelined_requests),
        cmocka_unit_test(refuses_two_lengths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
