/* Drives uploads for test_upload.py: options first, then one command. Prints a line of JSON: its
 * result, or its error, with how often it waited before a retry.
 *
 *   present REFERENCE DIGEST SIZE
 *   mount REFERENCE DIGEST REPOSITORY
 *   upload REFERENCE FILE             in chunks of --chunk bytes at most
 *   manifest REFERENCE NAME FILE
 */
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>

#include "daemon/registry/upload.h"
#include "proto/async/loop.h"
#include "proto/base/json.h"

struct tool {
    struct registry_options options;
    struct registry_auth auth;
    uint64_t chunk_bytes;
    char **arguments;
    struct registry_client *client;
    struct source *target;
    char *data;
    size_t size;
    uint64_t read_bytes; /* of which the server may have got less */
    int waits;
    uint64_t longest_wait_ms;
};

static const char *next(struct tool *tool)
{
    if (!*tool->arguments)
        die("the command lacks an argument");
    return *tool->arguments++;
}

static void read_file(struct tool *tool, const char *path)
{
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    off_t size = lseek(fd, 0, SEEK_END);

    CHECK(size >= 0);
    tool->size = (size_t)size;
    tool->data = xmalloc(tool->size + 1);
    CHECK(pread(fd, tool->data, tool->size, 0) == size);
}

/* --- Content ---------------------------------------------------------------------------------- */

static int64_t await_chunk(void *arg, uint64_t offset, uint64_t min_bytes, uint64_t max_bytes,
                           bool *ret_last, struct error *err UNUSED)
{
    const struct tool *tool = arg;
    uint64_t size = MIN(MAX(MIN(tool->chunk_bytes, max_bytes), min_bytes), tool->size - offset);

    if (max_bytes == UINT64_MAX)
        size = tool->size - offset;
    *ret_last = offset + size == tool->size;
    return (int64_t)size;
}

static ssize_t await_read_content(void *arg, uint64_t offset, void *buffer, size_t size,
                                  struct error *err UNUSED)
{
    struct tool *tool = arg;

    CHECK(offset + size <= tool->size);
    memcpy(buffer, tool->data + offset, size);
    tool->read_bytes += size;
    return (ssize_t)size;
}

static bool await_measure(void *arg, struct digest *ret_digest, uint64_t *ret_size,
                          struct error *err UNUSED)
{
    const struct tool *tool = arg;

    *ret_digest = digest_of(tool->data, tool->size);
    *ret_size = tool->size;
    return true;
}

static void waits(void *arg, const struct error *why UNUSED, uint64_t until_ms)
{
    struct tool *tool = arg;

    tool->waits++;
    tool->longest_wait_ms = MAX(tool->longest_wait_ms, until_ms - loop_now_ms());
}

static void goes_on(void *arg UNUSED)
{
}

/* --- Commands --------------------------------------------------------------------------------- */

static json_t *await_upload_file(struct tool *tool, struct error *err)
{
    const struct upload_content content = {.await_chunk = await_chunk,
                                           .await_read = await_read_content,
                                           .await_measure = await_measure,
                                           .arg = tool};
    const struct upload_watcher watcher = {.waits = waits, .goes_on = goes_on, .arg = tool};
    struct digest digest;
    uint64_t size;

    read_file(tool, next(tool));
    if (!await_upload(tool->client, tool->target, &content, &watcher, &digest, &size, err))
        return NULL;
    return json_pack("{s:s, s:I, s:I}", "digest", digest.text, "size", (json_int_t)size, "read",
                     (json_int_t)tool->read_bytes);
}

static json_t *await_named(struct tool *tool, const char *name, struct error *err)
{
    CLEANUP_REFERENCE struct reference reference = {0};
    const struct upload_watcher watcher = {.waits = waits, .goes_on = goes_on, .arg = tool};
    struct digest digest = {0};
    bool yes = false, ok = false;

    if (!reference_parse(next(tool), &reference, err))
        return NULL;
    tool->target = await_registry_target(tool->client, &reference, &tool->auth, err);
    if (!tool->target)
        return NULL;
    if (strcmp(name, "upload") == 0)
        return await_upload_file(tool, err);
    if (strcmp(name, "manifest") == 0) {
        const char *tag = next(tool);
        read_file(tool, next(tool));
        ok = await_manifest_put(tool->client, tool->target, tag,
                                "application/vnd.oci.image.manifest.v1+json", tool->data,
                                tool->size, &watcher, err);
        return ok ? json_object() : NULL;
    }
    if (!digest_parse(next(tool), &digest, err))
        return NULL;
    if (strcmp(name, "present") == 0)
        ok = await_blob_present(tool->client, tool->target, &digest, strtoull(next(tool), NULL, 10),
                                &watcher, &yes, err);
    else if (strcmp(name, "mount") == 0)
        ok = await_blob_mount(tool->client, tool->target, &digest, next(tool), &watcher, &yes, err);
    else
        die("unknown command %s", name);
    return ok ? json_pack("{s:b}", "yes", yes) : NULL;
}

static bool await_main(void *arg, struct error *err UNUSED)
{
    struct tool *tool = arg;
    CLEANUP_ERROR struct error problem = {0};
    json_t *result;
    char *text;

    tool->client = registry_client_new(&tool->options);
    result = await_named(tool, next(tool), &problem);
    if (!result)
        result =
            json_pack("{s:s, s:s*, s:s, s:s*}", "code", error_code_name(problem.code), "reason",
                      problem.reason, "message", problem.message, "hint", problem.hint);
    json_object_set_new(result, "waits", json_integer(tool->waits));
    json_object_set_new(result, "longest_wait_ms", json_integer((json_int_t)tool->longest_wait_ms));
    text = json_text(result);
    printf("%s\n", text);
    free(text);
    json_decref(result);
    source_unref(tool->target);
    registry_client_free(tool->client);
    free(tool->data);
    return true;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"user", required_argument, NULL, 'u'},
        {"password", required_argument, NULL, 'p'},
        {"stall-ms", required_argument, NULL, 's'},
        {"chunk", required_argument, NULL, 'c'},
        {NULL, 0, NULL, 0},
    };
    struct tool tool = {.chunk_bytes = UINT64_MAX,
                        .options = {.user_agent = "davit/test", .backoff_ms = 1}};
    CLEANUP_ERROR struct error err = {0};
    int option;

    while ((option = getopt_long(argc, argv, "+", options, NULL)) >= 0) {
        switch (option) {
        case 'u':
            tool.auth.username = optarg;
            break;
        case 'p':
            tool.auth.password = optarg;
            break;
        case 's':
            tool.options.stall_timeout_ms = strtoull(optarg, NULL, 10);
            break;
        case 'c':
            tool.chunk_bytes = strtoull(optarg, NULL, 10);
            break;
        default:
            return 2;
        }
    }
    tool.arguments = argv + optind;
    if (loop_run_main(await_main, &tool, &err))
        return 0;
    fprintf(stderr, "%s\n", err.message);
    return 1;
}
