#include "proto/base/version.h"
#include "client/show.h"
#include "proto/davit/v1/system.pb-c.h"

#if defined(__x86_64__)
#define ARCH "amd64"
#elif defined(__aarch64__)
#define ARCH "arm64"
#elif defined(__riscv)
#define ARCH "riscv64"
#elif defined(__powerpc64__)
#define ARCH "ppc64le"
#elif defined(__s390x__)
#define ARCH "s390x"
#elif defined(__arm__)
#define ARCH "arm"
#elif defined(__i386__)
#define ARCH "386"
#else
#define ARCH "unknown"
#endif

static void response_free(Davit__V1__VersionResponse **response)
{
    davit__v1__version_response__free_unpacked(*response, NULL);
}

static bool await_server_version(struct cli *cli, Davit__V1__VersionResponse **ret,
                                 struct error *err)
{
    Davit__V1__VersionRequest request = DAVIT__V1__VERSION_REQUEST__INIT;
    return await_cli_call(cli, "/davit.v1.System/Version", &request.base,
                          &davit__v1__version_response__descriptor, (ProtobufCMessage **)ret, err);
}

/* --- For people --------------------------------------------------------------------------------
 */

static void add_client(struct strbuf *text)
{
    strbuf_add_str(text, "Client:\n");
    strbuf_addf(text, " Version:           %s\n", DAVIT_VERSION);
    if (*DAVIT_GIT_COMMIT)
        strbuf_addf(text, " Git commit:        %s\n", DAVIT_GIT_COMMIT);
    strbuf_addf(text, " OS/Arch:           linux/%s\n", ARCH);
}

static void add_server(const Davit__V1__VersionResponse *server, struct strbuf *text)
{
    strbuf_add_str(text, "\nServer: davitd\n Engine:\n");
    strbuf_addf(text, "  Version:          %s\n", server->version);
    if (!str_empty(server->git_commit))
        strbuf_addf(text, "  Git commit:       %s\n", server->git_commit);
    if (!str_empty(server->build_time))
        strbuf_addf(text, "  Built:            %s\n", server->build_time);
    strbuf_addf(text, "  OS/Arch:          %s/%s\n", server->os, server->arch);
    strbuf_addf(text, "  Kernel:           %s\n", server->kernel);
    for (size_t i = 0; i < server->n_components; i++)
        strbuf_addf(text, " %s:\n  Version:          %s\n", server->components[i]->name,
                    server->components[i]->version);
}

/* --- For programs ------------------------------------------------------------------------------
 */

static json_t *client_json(void)
{
    return json_pack("{s:s, s:s, s:s, s:s}", "Version", DAVIT_VERSION, "GitCommit",
                     DAVIT_GIT_COMMIT, "Os", "linux", "Arch", ARCH);
}

/* As Docker has them, the engine itself is the first. */
static json_t *components_json(const Davit__V1__VersionResponse *server)
{
    json_t *components = json_array();
    json_array_append_new(components, json_pack("{s:s, s:s, s:{s:s, s:s, s:s, s:s, s:s}}", "Name",
                                                "Engine", "Version", server->version, "Details",
                                                "Arch", server->arch, "BuildTime",
                                                server->build_time, "GitCommit", server->git_commit,
                                                "KernelVersion", server->kernel, "Os", server->os));
    for (size_t i = 0; i < server->n_components; i++)
        json_array_append_new(components,
                              json_pack("{s:s, s:s, s:{}}", "Name", server->components[i]->name,
                                        "Version", server->components[i]->version, "Details"));
    return components;
}

static json_t *server_json(const Davit__V1__VersionResponse *server)
{
    return json_pack("{s:{s:s}, s:o, s:s, s:s, s:s, s:s, s:s, s:s}", "Platform", "Name", "davitd",
                     "Components", components_json(server), "Version", server->version, "GitCommit",
                     server->git_commit, "Os", server->os, "Arch", server->arch, "KernelVersion",
                     server->kernel, "BuildTime", server->build_time);
}

/* --- davit version -----------------------------------------------------------------------------
 */

static const struct template_type client_type = {TYPE_ROW, .name = "system.clientVersion"};
static const struct template_type server_type = {TYPE_ROW, .name = "types.Version"};
static const struct template_type server_pointer = {TYPE_POINTER, .name = "*types.Version",
                                                    .element = &server_type};
static const struct template_field version_fields[] = {
    {.name = "Client", .key = "Client", .type = &client_type},
    {.name = "Server", .key = "Server", .type = &server_pointer},
    {.name = NULL},
};
static const struct template_type version_type = {TYPE_STRUCT, .name = "system.versionInfo",
                                                  .fields = version_fields};

static bool add_version(const struct showing *showing, const Davit__V1__VersionResponse *server,
                        struct strbuf *text, struct error *err)
{
    if (!showing_is_plain(showing)) {
        CLEANUP_JSON json_t *json = json_pack("{s:o, s:o}", "Client", client_json(), "Server",
                                              server ? server_json(server) : json_null());
        return showing_add(showing, &version_type, json, text, err);
    }
    add_client(text);
    if (server)
        add_server(server, text);
    return true;
}

/* The client's part is printed also if the daemon does not answer; that is the error then. */
static bool await_version(struct cli *cli, struct error *err)
{
    CLEANUP_SHOWING struct showing showing = {0};
    CLEANUP(response_free) Davit__V1__VersionResponse *server = NULL;
    CLEANUP_STRBUF struct strbuf text = {0};
    CLEANUP_ERROR struct error unanswered = {0};
    if (!showing_init(&showing, cli, "version", err))
        return false;
    const bool answered = await_server_version(cli, &server, &unanswered);
    bool done = add_version(&showing, server, &text, err);
    if (!await_cli_print(cli, text.data, text.length, done ? err : NULL))
        done = false;
    if (answered)
        return done;
    error_done(err);
    return error_move(err, &unanswered);
}

static const struct flag flags[] = {
    {.name = "format",
     .shorthand = 'f',
     .type = FLAG_STRING,
     .help = FORMAT_HELP,
     .suggestions = FORMAT_SUGGESTIONS},
};

const struct command version_command = {
    .usage = "[OPTIONS]",
    .summary = "Show the davit version information",
    .flags = flags,
    .flag_count = ARRAY_SIZE(flags),
    .examples = "    davit version\n"
                "    davit version --format \"{{.Server.Version}}\"",
    .await_run = await_version,
};
