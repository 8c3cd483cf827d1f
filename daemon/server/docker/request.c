#include "daemon/server/docker/request.h"

#include <ctype.h>

static int refuse(struct request *request, int status)
{
    request->refusal = status;
    return HPE_USER;
}

static int count_header(llhttp_t *parser, const char *data, size_t size)
{
    struct request *request = parser->data;

    (void)data;
    request->header_bytes += size;
    return request->header_bytes > REQUEST_HEADER_MAX ? refuse(request, 431) : 0;
}

static int on_url(llhttp_t *parser, const char *data, size_t size)
{
    struct request *request = parser->data;

    strbuf_add(&request->url, data, size);
    return count_header(parser, data, size);
}

static int on_body(llhttp_t *parser, const char *data, size_t size)
{
    struct request *request = parser->data;

    (void)data;
    request->body_bytes += size;
    return request->body_bytes > REQUEST_BODY_MAX ? refuse(request, 413) : 0;
}

static int on_headers_complete(llhttp_t *parser)
{
    struct request *request = parser->data;

    /* Never taken as an upgrade: what follows belongs to nobody. */
    return parser->upgrade ? refuse(request, 501) : 0;
}

static int on_message_complete(llhttp_t *parser)
{
    struct request *request = parser->data;

    request->complete = true;
    request->keep_alive = llhttp_should_keep_alive(parser);
    return HPE_PAUSED;
}

void request_init(struct request *request)
{
    static const llhttp_settings_t settings = {
        .on_url = on_url,
        .on_header_field = count_header,
        .on_header_value = count_header,
        .on_headers_complete = on_headers_complete,
        .on_body = on_body,
        .on_message_complete = on_message_complete,
    };

    *request = (struct request){0};
    llhttp_init(&request->parser, HTTP_REQUEST, &settings);
    request->parser.data = request;
}

void request_done(struct request *request)
{
    strbuf_done(&request->url);
}

size_t request_feed(struct request *request, const char *data, size_t size)
{
    llhttp_errno_t r = llhttp_execute(&request->parser, data, size);

    if (r == HPE_OK)
        return size;
    if (r != HPE_PAUSED && !request->refusal)
        request->refusal = 400;
    return (size_t)(llhttp_get_error_pos(&request->parser) - data);
}

const char *request_method(const struct request *request)
{
    return llhttp_method_name((llhttp_method_t)request->parser.method);
}

char *request_path(const struct request *request)
{
    const char *path = strbuf_text(&request->url);
    const char *rest = path;

    if (str_starts(path, "/v1.")) {
        rest = path + strlen("/v1.");
        while (isdigit((unsigned char)*rest))
            rest++;
        if (*rest != '/')
            rest = path;
    }
    return xstrndup(rest, strcspn(rest, "?"));
}
