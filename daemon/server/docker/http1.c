#include "daemon/server/docker/http1.h"

#include "daemon/server/docker/request.h"
#include "proto/async/stream.h"
#include "proto/base/json.h"
#include "proto/base/version.h"

#define API_VERSION "1.51"
#define API_MIN_VERSION "1.24"
#define HEADER_TIMEOUT_MS 10000
#define IDLE_TIMEOUT_MS 120000

struct connection {
    const struct engines *engines;
    struct stream *stream;
    struct strbuf input; /* read, not parsed yet */
};

/* --- Answers ---------------------------------------------------------------------------------- */

static const char *status_text(int status)
{
    switch (status) {
    case 200:
        return "OK";
    case 400:
        return "Bad Request";
    case 404:
        return "Not Found";
    case 413:
        return "Payload Too Large";
    case 431:
        return "Request Header Fields Too Large";
    case 501:
        return "Not Implemented";
    default:
        return "Internal Server Error";
    }
}

static bool await_answer(struct connection *connection, const struct request *request, int status,
                         const char *type, const char *body)
{
    CLEANUP_STRBUF struct strbuf answer = {0};
    bool keep = request->keep_alive && !request->refusal;

    strbuf_addf(&answer,
                "HTTP/1.1 %d %s\r\nApi-Version: " API_VERSION "\r\nServer: davit/" DAVIT_VERSION
                " (linux)\r\nOstype: linux\r\n"
                "Docker-Experimental: false\r\nContent-Type: %s\r\nContent-Length: %zu\r\n%s\r\n",
                status, status_text(status), type, strlen(body),
                keep ? "" : "Connection: close\r\n");
    if (strcmp(request_method(request), "HEAD") != 0)
        strbuf_add_str(&answer, body);
    return await_write(connection->stream, answer.data, answer.length) == 0 && keep;
}

static bool await_answer_json(struct connection *connection, const struct request *request,
                              int status, json_t *json)
{
    CLEANUP_FREE char *body = json_text(json);

    return await_answer(connection, request, status, "application/json", body);
}

static bool await_refuse(struct connection *connection, const struct request *request, int status,
                         const char *message)
{
    CLEANUP_JSON json_t *json = json_pack("{s:s}", "message", message);

    return await_answer_json(connection, request, status, json);
}

static bool await_version(struct connection *connection, const struct request *request)
{
    const struct system_info *info = connection->engines->info;
    CLEANUP_JSON json_t *json =
        json_pack("{s:{s:s}, s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "Platform", "Name", "davit",
                  "Version", DAVIT_VERSION, "ApiVersion", API_VERSION, "MinAPIVersion",
                  API_MIN_VERSION, "GitCommit", DAVIT_GIT_COMMIT, "Os", "linux", "Arch",
                  system_architecture(), "KernelVersion", info->kernel);

    return await_answer_json(connection, request, 200, json);
}

static bool await_route(struct connection *connection, const struct request *request)
{
    const char *method = request_method(request);
    CLEANUP_FREE char *path = request_path(request);
    bool get = strcmp(method, "GET") == 0;

    if (strcmp(path, "/_ping") == 0 && (get || strcmp(method, "HEAD") == 0))
        return await_answer(connection, request, 200, "text/plain; charset=utf-8", "OK");
    if (strcmp(path, "/version") == 0 && get)
        return await_version(connection, request);
    return await_refuse(connection, request, 404, "page not found");
}

/* --- Connections ------------------------------------------------------------------------------ */

/* One request; false if the connection ends. */
static bool await_read_request(struct connection *connection, struct request *request)
{
    CLEANUP(deadline_pop) struct deadline deadline;
    char buffer[4096];
    bool began = connection->input.length > 0;

    deadline_push(&deadline, began ? HEADER_TIMEOUT_MS : IDLE_TIMEOUT_MS);
    while (!request->complete && !request->refusal) {
        if (connection->input.length == 0) {
            ssize_t n = await_read(connection->stream, buffer, sizeof(buffer));
            if (n <= 0)
                return false;
            strbuf_add(&connection->input, buffer, (size_t)n);
        }
        strbuf_consume(&connection->input,
                       request_feed(request, connection->input.data, connection->input.length));
    }
    return true;
}

static bool await_serve_one(struct connection *connection)
{
    CLEANUP(request_done) struct request request;

    request_init(&request);
    if (!await_read_request(connection, &request))
        return false;
    if (request.refusal)
        return await_refuse(connection, &request, request.refusal,
                            "the request is malformed, too large or not supported");
    return await_route(connection, &request);
}

void await_http1_serve(const struct engines *engines, int fd, const char *first, size_t first_size)
{
    CLEANUP(stream_cleanup) struct stream *stream = stream_new(fd);
    struct connection connection = {.engines = engines, .stream = stream};

    strbuf_add(&connection.input, first, first_size);
    while (await_serve_one(&connection))
        ;
    strbuf_done(&connection.input);
}
