#include "client/credential_helper.h"

#include <errno.h>

#include "client/secrets.h"
#include "proto/async/await.h"
#include "proto/async/stream.h"
#include "proto/base/json.h"
#include "proto/base/strbuf.h"

#define OUTPUT_MAX_BYTES (1 * MIB)
#define TOKEN_USER "<token>" /* helpers have an identity token in place of a password */

/* --- Running them ------------------------------------------------------------------------------
 */

struct helper {
    struct process *process;
    struct stream *in, *out;
};

static void helper_done(struct helper *helper)
{
    stream_free(helper->in);
    stream_free(helper->out);
    process_free(helper->process);
}

static bool await_start(const char *program, const char *verb, struct helper *ret,
                        struct error *err)
{
    char *argv[] = {(char *)program, (char *)verb, NULL};
    CLEANUP_CLOSE int in_read = -1;
    CLEANUP_CLOSE int in_write = -1;
    CLEANUP_CLOSE int out_read = -1;
    CLEANUP_CLOSE int out_write = -1;
    struct process_options options = {.argv = argv, .fd_count = 3};
    int r;

    if ((r = pipe_cloexec(&in_read, &in_write)) < 0 ||
        (r = pipe_cloexec(&out_read, &out_write)) < 0)
        return error_set_errno(err, r, "cannot run %s", program);
    options.fds[0] = in_read;
    options.fds[1] = out_write;
    options.fds[2] = STDERR_FILENO;
    ret->process = await_process_start(&options, err);
    if (!ret->process)
        return false;
    ret->in = stream_new(TAKE_FD(in_write));
    ret->out = stream_new(TAKE_FD(out_read));
    return true;
}

/* What it wrote, and its exit status. One that does not read its input has said why. */
static bool await_run(const char *program, const char *verb, const struct strbuf *input,
                      struct strbuf *ret, int *ret_status, struct error *err)
{
    CLEANUP(helper_done) struct helper helper = {0};
    ssize_t n;
    int r;

    if (!await_start(program, verb, &helper, err))
        return false;
    r = await_write(helper.in, strbuf_text(input), input->length);
    helper.in = stream_free(helper.in);
    if (r < 0 && r != -EPIPE)
        return await_error(err, r, "writing to %s", program);
    do {
        strbuf_reserve(ret, 4096);
        n = await_read(helper.out, ret->data + ret->length, 4096);
        if (n > 0)
            ret->length += (size_t)n;
        ret->data[ret->length] = '\0';
    } while (n > 0 && ret->length <= OUTPUT_MAX_BYTES);
    if (n > 0) /* it has not ended, nor will it: freeing it kills it */
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, NULL, "its output has no end");
    if (n < 0 || (r = await_process(helper.process, ret_status)) < 0)
        return await_error(err, n < 0 ? (int)n : r, "running %s", program);
    return true;
}

static bool failed(const char *program, const char *why, struct error *err)
{
    error_set(err, ERROR_FAILED_PRECONDITION, "CREDENTIALS",
              "the credential helper %s does not work: %.200s", program, why);
    return error_hint(err,
                      "install it, or remove its name from \"credsStore\" and \"credHelpers\" in "
                      "Docker's config.json");
}

/* True with its output, whatever its exit status. */
static bool await_ask(const char *name, const char *verb, const struct strbuf *input,
                      struct strbuf *ret, int *ret_status, struct error *err)
{
    CLEANUP_FREE char *program = xasprintf("docker-credential-%s", name);
    CLEANUP_ERROR struct error problem = {0};

    if (strchr(name, '/'))
        return failed(program, "its name has a slash in it", err);
    if (!await_run(program, verb, input, ret, ret_status, &problem))
        return problem.code == ERROR_CANCELLED ? error_move(err, &problem)
                                               : failed(program, problem.message, err);
    if (*ret_status != 0)
        ret->data[strcspn(ret->data, "\r\n")] = '\0'; /* a complaint: its first line */
    return true;
}

static bool complained(const char *name, const char *complaint, struct error *err)
{
    CLEANUP_FREE char *program = xasprintf("docker-credential-%s", name);

    return failed(program, complaint, err);
}

/* --- The verbs ---------------------------------------------------------------------------------
 */

bool await_helper_get(const char *name, const char *server, struct credentials *ret,
                      struct error *err)
{
    CLEANUP_STRBUF struct strbuf input = {0};
    CLEANUP_SECRET_STRBUF struct strbuf output = {0};
    CLEANUP_JSON json_t *json = NULL;
    CLEANUP_ERROR struct error problem = {0};
    const char *username, *secret;
    int status = 0;

    strbuf_add_str(&input, server);
    if (!await_ask(name, "get", &input, &output, &status, err))
        return false;
    if (status != 0)
        return strstr(output.data, "credentials not found") ? true
                                                            : complained(name, output.data, err);
    json = json_parse(output.data, output.length, OUTPUT_MAX_BYTES, "its output", &problem);
    username = json_str(json, "Username");
    secret = json_str(json, "Secret");
    if (!json)
        drop_quotation(&problem);
    if (!username || !secret)
        return complained(name, json ? "its output lacks Username or Secret" : problem.message,
                          err);
    if (strcmp(username, TOKEN_USER) == 0) {
        ret->identity_token = xstrdup(secret);
    } else if (*username) {
        ret->username = xstrdup(username);
        ret->password = xstrdup(secret);
    }
    return true;
}

bool await_helper_store(const char *name, const char *server, const struct credentials *credentials,
                        struct error *err)
{
    CLEANUP_SECRET_STRBUF struct strbuf input = {0};
    CLEANUP_STRBUF struct strbuf output = {0};
    const bool token = credentials->identity_token != NULL;
    const char *secret = token ? credentials->identity_token : credentials->password;
    int status = 0;

    strbuf_reserve(&input, 6 * (strlen(server) + strlen(secret)) + 1024);
    strbuf_add_str(&input, "{\"ServerURL\":");
    strbuf_add_quoted(&input, server);
    strbuf_add_str(&input, ",\"Username\":");
    strbuf_add_quoted(&input, token ? TOKEN_USER : credentials->username);
    strbuf_add_str(&input, ",\"Secret\":");
    strbuf_add_quoted(&input, secret);
    strbuf_add_str(&input, "}\n");
    return await_ask(name, "store", &input, &output, &status, err) &&
           (status == 0 || complained(name, output.data, err));
}

bool await_helper_erase(const char *name, const char *server, struct error *err)
{
    CLEANUP_STRBUF struct strbuf input = {0}, output = {0};
    int status = 0;

    strbuf_add_str(&input, server);
    if (!await_ask(name, "erase", &input, &output, &status, err))
        return false;
    return status == 0 || strstr(output.data, "credentials not found") ||
           complained(name, output.data, err);
}
