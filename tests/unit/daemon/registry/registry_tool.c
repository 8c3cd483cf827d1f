/* Drives the registry client for test_registry_client.py: options first, then commands, which run
 * one after the other with one client. Each prints a line of JSON: its result, or its error.
 *
 *   resolve REFERENCE                        what it stands for
 *   blob REFERENCE DIGEST SIZE OFFSET        reads it to its end, from the first source that has
 *                                            it: bytes and their SHA-256
 *   range REFERENCE DIGEST SIZE OFFSET END VALIDATOR   the same of a range from the first source,
 *                                            with where it began, its validator ("-": none), and
 *                                            whether the source does ranges
 *   sources REFERENCE USE                    for pull, resolve or push: their names in order
 *   blobs COUNT REFERENCE DIGEST SIZE        so many at once, of which the first error counts
 *   slow REFERENCE DIGEST SIZE               one byte, or --slow-at; the rest after a line of input
 *   wait                                     for a line of input
 *   stall                                    the longest time that the loop was kept busy
 *
 * With --cancel, the first line of input cancels the command that runs. Names below .test are those
 * of this machine, so that it can be a registry that is not on loopback; hang.test is never found.
 */
#include <dlfcn.h>
#include <getopt.h>
#include <netdb.h>
#include <stdio.h>

#include "daemon/registry/registry.h"
#include "daemon/registry/source.h"
#include "proto/async/await.h"
#include "proto/async/loop.h"
#include "proto/async/stream.h"
#include "proto/base/json.h"

#define BUFFER_BYTES (256 * KIB)

struct tool {
    struct registry_options options;
    struct registry_auth auth;
    const char *platform;
    bool cancel;
    struct http_flow flow;
    size_t buffer_bytes;
    uint64_t slow_at;
    char **commands;
    struct registry_client *client;
    struct stream *input;
};

/* Stands before the C library's, for libcurl.
 * NOLINTNEXTLINE(readability-inconsistent-declaration-parameter-name) */
__attribute__((visibility("default"))) int getaddrinfo(const char *name, const char *service,
                                                       const struct addrinfo *hints,
                                                       struct addrinfo **ret)
{
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **) =
        dlsym(RTLD_NEXT, "getaddrinfo");

    while (str_eq(name, "hang.test"))
        pause();
    return real(name && str_ends(name, ".test") ? "127.0.0.1" : name, service, hints, ret);
}

static bool print(json_t *json)
{
    CLEANUP_FREE char *text = json_text(json);

    printf("%s\n", text);
    fflush(stdout);
    json_decref(json);
    return true;
}

static const char *next(struct tool *tool)
{
    if (!*tool->commands)
        die("a command lacks an argument");
    return *tool->commands++;
}

static bool await_line(struct tool *tool, struct error *err)
{
    char c;
    ssize_t n = await_read(tool->input, &c, 1);

    return n < 0 ? await_error(err, (int)n, "reading input") : true;
}

static bool await_resolve(struct tool *tool, struct error *err)
{
    CLEANUP_REFERENCE struct reference reference = {0};
    CLEANUP_PLATFORM struct platform platform = {0};
    CLEANUP(resolved_image_cleanup) struct resolved_image *image = NULL;
    json_t *layers = json_array(), *result;

    if (!reference_parse(next(tool), &reference, err) ||
        !platform_parse(tool->platform, &platform, err))
        goto out;
    image = await_registry_resolve(tool->client, &reference, &tool->auth, &platform, NULL, err);
    if (!image)
        goto out;
    for (size_t i = 0; i < image->manifest->layer_count; i++)
        json_array_append_new(layers, json_string(image->manifest->layers[i].digest.text));
    result = json_pack("{s:s, s:s, s:s, s:s, s:i, s:i, s:O}", "digest", image->digest.text,
                       "manifest_digest", image->manifest_digest.text, "id",
                       image->manifest->config.digest.text, "architecture",
                       image->config->architecture, "manifest_size", (int)image->manifest_size,
                       "config_size", (int)image->config_size, "layers", layers);
    print(result);
out:
    json_decref(layers);
    return image != NULL;
}

/* --- Blobs ------------------------------------------------------------------------------------ */

struct blob_job {
    struct tool *tool;
    struct reference reference;
    struct descriptor blob;
    uint64_t offset, end, count; /* end: 0 for the blob's */
    const char *validator;
    bool slow;
    struct digest digest;
};

static void job_done(struct blob_job *job)
{
    reference_done(&job->reference);
    free(job->blob.media_type);
}

/* Reads what comes from *position on to its end, except for what the job has already. */
static bool await_read_all(struct blob_job *job, struct blob_stream *stream, struct error *err)
{
    uint64_t position = blob_stream_offset(stream), from = job->offset;
    CLEANUP(hasher_cleanup) struct hasher *hasher = hasher_new();
    CLEANUP_FREE char *buffer = xmalloc(BUFFER_BYTES);
    ssize_t n;

    blob_stream_limit_buffer(stream, job->tool->buffer_bytes);
    while ((n = await_blob_read(stream, buffer, job->slow && !job->count ? 1 : BUFFER_BYTES, err)) >
           0) {
        size_t known = position < from ? MIN(from - position, (size_t)n) : 0;
        hasher_update(hasher, buffer + known, (size_t)n - known);
        position += (uint64_t)n;
        job->count += (uint64_t)n - known;
        if (job->slow && job->count >= MAX(job->tool->slow_at, 1U)) {
            job->slow = false;
            print(json_pack("{s:b}", "waiting", 1));
            if (!await_line(job->tool, err))
                return false;
        }
    }
    if (n < 0) /* an error stays */
        CHECK(await_blob_read(stream, buffer, 1, err) == -1);
    job->digest = hasher_finish(hasher);
    return n == 0;
}

static struct blob_request request_of(const struct blob_job *job, struct source *source)
{
    return (struct blob_request){
        .source = source,
        .blob = &job->blob,
        .offset = job->offset,
        .end = job->end ? job->end : job->blob.size_bytes,
        .validator = job->validator,
        .flow = job->tool->flow,
    };
}

/* From the first source that opens it. */
static bool await_blob(void *arg, struct error *err)
{
    struct blob_job *job = arg;
    CLEANUP_SOURCE_LIST struct source_list sources = {0};
    CLEANUP(blob_stream_cleanup) struct blob_stream *stream = NULL;

    if (!await_registry_sources(job->tool->client, &job->reference, &job->tool->auth, SOURCE_PULL,
                                &sources, err))
        return false;
    for (size_t i = 0; i < sources.count && !stream; i++) {
        const struct blob_request request = request_of(job, sources.items[i]);
        error_done(err);
        stream = await_blob_open(job->tool->client, &request, err);
        if (stream && await_read_all(job, stream, err)) {
            source_served(sources.items[i], job->count);
            return true;
        }
        source_failed(sources.items[i], err);
    }
    return false;
}

static bool take_job(struct tool *tool, struct blob_job *job, struct error *err)
{
    job->tool = tool;
    if (!reference_parse(next(tool), &job->reference, err) ||
        !digest_parse(next(tool), &job->blob.digest, err))
        return false;
    job->blob.size_bytes = strtoull(next(tool), NULL, 10);
    return true;
}

static bool await_one_blob(struct tool *tool, bool slow, struct error *err)
{
    CLEANUP(job_done) struct blob_job job = {.slow = slow};

    if (!take_job(tool, &job, err))
        return false;
    if (!slow)
        job.offset = strtoull(next(tool), NULL, 10);
    if (!await_blob(&job, err))
        return false;
    return print(
        json_pack("{s:I, s:s}", "bytes", (json_int_t)job.count, "sha256", job.digest.text));
}

static bool await_range(struct tool *tool, struct error *err)
{
    CLEANUP(job_done) struct blob_job job = {0};
    CLEANUP_SOURCE_LIST struct source_list sources = {0};
    CLEANUP(blob_stream_cleanup) struct blob_stream *stream = NULL;
    struct blob_request request;
    const char *validator;

    if (!take_job(tool, &job, err))
        return false;
    job.offset = strtoull(next(tool), NULL, 10);
    job.end = strtoull(next(tool), NULL, 10);
    validator = next(tool);
    job.validator = strcmp(validator, "-") == 0 ? NULL : validator;
    if (!await_registry_sources(tool->client, &job.reference, &tool->auth, SOURCE_PULL, &sources,
                                err))
        return false;
    request = request_of(&job, sources.items[0]);
    stream = await_blob_open(tool->client, &request, err);
    if (!stream)
        return false;
    job.offset = 0;
    if (!await_read_all(&job, stream, err))
        return false;
    return print(json_pack("{s:I, s:I, s:s, s:s*, s:b}", "offset",
                           (json_int_t)blob_stream_offset(stream), "bytes", (json_int_t)job.count,
                           "sha256", job.digest.text, "validator", blob_stream_validator(stream),
                           "ranges", !source_ignores_ranges(sources.items[0])));
}

static bool await_sources(struct tool *tool, struct error *err)
{
    CLEANUP_REFERENCE struct reference reference = {0};
    CLEANUP_SOURCE_LIST struct source_list sources = {0};
    json_t *names = json_array();
    const char *use;
    bool ok;

    ok = reference_parse(next(tool), &reference, err);
    use = next(tool);
    ok = ok && await_registry_sources(tool->client, &reference, &tool->auth,
                                      strcmp(use, "pull") == 0      ? SOURCE_PULL
                                      : strcmp(use, "resolve") == 0 ? SOURCE_RESOLVE
                                                                    : SOURCE_PUSH,
                                      &sources, err);
    for (size_t i = 0; i < sources.count; i++)
        json_array_append_new(names, json_string(source_name(sources.items[i])));
    if (ok)
        print(json_pack("{s:O}", "sources", names));
    json_decref(names);
    return ok;
}

#define BLOBS_MAX 8

static bool await_blobs(struct tool *tool, struct error *err)
{
    size_t count = strtoul(next(tool), NULL, 10);
    struct blob_job jobs[BLOBS_MAX] = {0};
    CLEANUP(job_done) struct blob_job job = {0};
    CLEANUP(group_done_await) struct group group;

    group_init(&group);
    CHECK(count <= BLOBS_MAX);
    if (!take_job(tool, &job, err))
        return false;
    for (size_t i = 0; i < count; i++) {
        jobs[i] = job;
        if (!task_spawn(&group, "blob", NULL, await_blob, &jobs[i], err))
            return false;
    }
    if (!await_group(&group, err))
        return false;
    for (size_t i = 0; i < count; i++)
        CHECK(digest_eq(&jobs[i].digest, &job.blob.digest));
    job.count = jobs[0].count * count;
    return print(json_pack("{s:I}", "bytes", (json_int_t)job.count));
}

/* --- Commands --------------------------------------------------------------------------------- */

static bool await_command_named(struct tool *tool, const char *name, struct error *err)
{
    if (strcmp(name, "resolve") == 0)
        return await_resolve(tool, err);
    if (strcmp(name, "blob") == 0)
        return await_one_blob(tool, false, err);
    if (strcmp(name, "range") == 0)
        return await_range(tool, err);
    if (strcmp(name, "sources") == 0)
        return await_sources(tool, err);
    if (strcmp(name, "slow") == 0)
        return await_one_blob(tool, true, err);
    if (strcmp(name, "blobs") == 0)
        return await_blobs(tool, err);
    if (strcmp(name, "wait") == 0)
        return print(json_pack("{s:b}", "waiting", 1)) && await_line(tool, err);
    if (strcmp(name, "stall") == 0)
        return print(json_pack("{s:I, s:s}", "us", (json_int_t)loop_worst_stall().worst_us, "task",
                               loop_worst_stall().task_name));
    die("unknown command %s", name);
}

static bool await_commands(void *arg, struct error *err UNUSED)
{
    struct tool *tool = arg;

    while (*tool->commands) {
        CLEANUP_ERROR struct error problem = {0};
        if (await_command_named(tool, next(tool), &problem))
            continue;
        json_t *failure =
            json_pack("{s:s, s:s*, s:s, s:s*}", "code", error_code_name(problem.code), "reason",
                      problem.reason, "message", problem.message, "hint", problem.hint);
        if (problem.retry_after_ms)
            json_object_set_new(failure, "retry_after_ms",
                                json_integer((json_int_t)problem.retry_after_ms));
        print(failure);
        if (problem.code == ERROR_CANCELLED)
            break;
    }
    return true;
}

static bool await_main(void *arg, struct error *err)
{
    struct tool *tool = arg;
    CLEANUP(stream_cleanup) struct stream *input = stream_new(dup(STDIN_FILENO));
    bool ok;

    tool->input = input;
    tool->client = registry_client_new(&tool->options);
    {
        CLEANUP(group_done_await) struct group group;
        group_init(&group);
        ok = task_spawn(&group, "commands", NULL, await_commands, tool, err) &&
             (!tool->cancel || await_line(tool, err));
        if (tool->cancel)
            group_cancel(&group);
        ok = ok && (await_group(&group, err) || tool->cancel);
    }
    tool->client = registry_client_free(tool->client);
    return ok;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"insecure", required_argument, NULL, 'i'},
        {"mirror", required_argument, NULL, 'm'},
        {"mirror-of", required_argument, NULL, 'M'}, /* twice: a registry, and a URL */
        {"certs", required_argument, NULL, 'c'},
        {"user", required_argument, NULL, 'u'},
        {"password", required_argument, NULL, 'p'},
        {"identity-token", required_argument, NULL, 't'},
        {"stall-ms", required_argument, NULL, 's'},
        {"connect-ms", required_argument, NULL, 'o'},
        {"low-speed", required_argument, NULL, 'l'}, /* bytes per second */
        {"low-speed-ms", required_argument, NULL, 'w'},
        {"buffer", required_argument, NULL, 'b'},
        {"slow-at", required_argument, NULL, 'e'},
        {"hosts-dir", required_argument, NULL, 'h'},
        {"platform", required_argument, NULL, 'a'},
        {"cancel", no_argument, NULL, 'x'},
        {NULL, 0, NULL, 0},
    };
    char *insecure[8] = {0}, *mirrors[8] = {0}, *hosts_dirs[8] = {0};
    char *mirrors_of[8] = {0};
    size_t insecure_count = 0, mirror_count = 0, hosts_dir_count = 0;
    size_t mirror_of_count = 0;
    struct tool tool = {.platform = "",
                        .options = {.insecure_registries = insecure,
                                    .mirrors = mirrors,
                                    .mirrors_of = mirrors_of,
                                    .hosts_dirs = hosts_dirs,
                                    .user_agent = "davit/test",
                                    .backoff_ms = 1}};
    CLEANUP_ERROR struct error err = {0};
    int option;

    while ((option = getopt_long(argc, argv, "+", options, NULL)) >= 0) {
        switch (option) {
        case 'i':
            CHECK(insecure_count < ARRAY_SIZE(insecure) - 1);
            insecure[insecure_count++] = optarg;
            break;
        case 'm':
            CHECK(mirror_count < ARRAY_SIZE(mirrors) - 1);
            mirrors[mirror_count++] = optarg;
            break;
        case 'M':
            CHECK(mirror_of_count < ARRAY_SIZE(mirrors_of) - 1);
            mirrors_of[mirror_of_count++] = optarg;
            break;
        case 'c':
            tool.options.certs_dir = optarg;
            break;
        case 'u':
            tool.auth.username = optarg;
            break;
        case 'p':
            tool.auth.password = optarg;
            break;
        case 't':
            tool.auth.identity_token = optarg;
            break;
        case 's':
            tool.options.stall_timeout_ms = strtoull(optarg, NULL, 10);
            break;
        case 'o':
            tool.options.connect_timeout_ms = strtoull(optarg, NULL, 10);
            break;
        case 'l':
            tool.flow.low_speed_bytes_per_s = strtoull(optarg, NULL, 10);
            break;
        case 'w':
            tool.flow.low_speed_ms = strtoull(optarg, NULL, 10);
            break;
        case 'b':
            tool.buffer_bytes = strtoull(optarg, NULL, 10);
            break;
        case 'e':
            tool.slow_at = strtoull(optarg, NULL, 10);
            break;
        case 'h':
            CHECK(hosts_dir_count < ARRAY_SIZE(hosts_dirs) - 1);
            hosts_dirs[hosts_dir_count++] = optarg;
            break;
        case 'a':
            tool.platform = optarg;
            break;
        case 'x':
            tool.cancel = true;
            break;
        default:
            return 2;
        }
    }
    tool.commands = argv + optind;
    if (loop_run_main(await_main, &tool, &err))
        return 0;
    fprintf(stderr, "%s\n", err.message);
    return 1;
}
