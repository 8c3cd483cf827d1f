#include "client/show.h"
#include "client/ui/units.h"
#include "proto/base/version.h"
#include "proto/davit/v1/system.pb-c.h"

typedef Davit__V1__InfoResponse info_response;

static void response_free(info_response **response)
{
    davit__v1__info_response__free_unpacked(*response, NULL);
}

/* --- For people --------------------------------------------------------------------------------
 */

static void add_line(struct strbuf *text, const char *name, const char *value)
{
    if (!str_empty(value))
        strbuf_addf(text, " %s: %s\n", name, value);
}

static void add_list(struct strbuf *text, const char *name, char *const *values, size_t count)
{
    if (count)
        strbuf_addf(text, " %s:\n", name);
    for (size_t i = 0; i < count; i++)
        strbuf_addf(text, "  %s\n", values[i]);
}

static void add_client(struct strbuf *text)
{
    strbuf_addf(text, "Client:\n Version:    %s\n", DAVIT_VERSION);
}

static void add_containers(struct strbuf *text, const info_response *info)
{
    strbuf_addf(text, " Containers: %u\n  Running: %u\n  Paused: 0\n  Stopped: %u\n",
                info->containers, info->containers_running,
                info->containers - info->containers_running);
    strbuf_addf(text, " Images: %u\n", info->images);
}

static void add_runtime(struct strbuf *text, const info_response *info)
{
    add_line(text, "Runtimes", info->runtime);
    add_line(text, "Default Runtime", info->runtime);
    if (!str_empty(info->runtime))
        strbuf_addf(text, " %s version: %s\n", info->runtime, info->runtime_version);
}

/* Those that have a profile have davit's own. */
static void add_security(struct strbuf *text, const info_response *info)
{
    if (info->n_security_options)
        strbuf_add_str(text, " Security Options:\n");
    for (size_t i = 0; i < info->n_security_options; i++)
        strbuf_addf(text, "  %s\n%s", info->security_options[i],
                    str_eq(info->security_options[i], "seccomp") ? "   Profile: builtin\n" : "");
}

static void add_storage(struct strbuf *text, const info_response *info)
{
    add_line(text, "Storage Driver", info->storage_driver);
    if (!str_empty(info->backing_filesystem))
        strbuf_addf(text, "  Backing Filesystem: %s\n", info->backing_filesystem);
    if (!str_empty(info->storage_driver_reason))
        strbuf_addf(text, "  Reason: %s\n", info->storage_driver_reason);
}

static void add_machine(struct strbuf *text, const info_response *info)
{
    add_line(text, "Kernel Version", info->kernel_version);
    add_line(text, "Operating System", info->operating_system);
    add_line(text, "OSType", info->os_type);
    add_line(text, "Architecture", info->architecture);
    strbuf_addf(text, " CPUs: %u\n Total Memory: ", info->cpus);
    add_memory_size(text, info->memory_bytes);
    strbuf_add_char(text, '\n');
    add_line(text, "Name", info->name);
    add_line(text, "ID", info->id);
}

static void add_loop(struct strbuf *text, const info_response *info)
{
    strbuf_addf(text, " Tasks: %u\n Loop Worst Stall: %.1fms", info->tasks,
                (double)info->loop_worst_stall_us / 1000);
    if (!str_empty(info->loop_worst_stall_task))
        strbuf_addf(text, " (%s)", info->loop_worst_stall_task);
    strbuf_add_char(text, '\n');
}

static void add_mirrors(struct strbuf *text, const info_response *info)
{
    if (info->n_mirrors)
        strbuf_add_str(text, " Registry Mirrors:\n");
    for (size_t i = 0; i < info->n_mirrors; i++) {
        const Davit__V1__RegistryMirror *mirror = info->mirrors[i];
        strbuf_addf(text, "  %s", mirror->url);
        if (strcmp(mirror->registry, "docker.io") != 0)
            strbuf_addf(text, " (%s)", mirror->registry);
        if (mirror->behind_ms)
            strbuf_addf(text, ": asked last for %llus, for it failed: %s",
                        (unsigned long long)(mirror->behind_ms + 999) / 1000, mirror->last_error);
        strbuf_add_char(text, '\n');
    }
}

/* Docker's lines in Docker's order, then davit's own. */
static void add_server(struct strbuf *text, const info_response *info)
{
    add_containers(text, info);
    add_line(text, "Server Version", info->version);
    add_storage(text, info);
    add_line(text, "Cgroup Driver", info->cgroup_driver);
    add_line(text, "Cgroup Version", info->cgroup_version);
    add_line(text, "Swarm", "inactive");
    add_runtime(text, info);
    add_security(text, info);
    add_machine(text, info);
    add_line(text, "Davit Root Dir", info->data_root);
    add_line(text, "Davit Exec Root Dir", info->exec_root);
    add_line(text, "HTTPS Proxy", info->https_proxy);
    add_line(text, "No Proxy", info->no_proxy);
    add_list(text, "Insecure Registries", info->insecure_registries, info->n_insecure_registries);
    add_mirrors(text, info);
    strbuf_addf(text, " Max Concurrent Downloads: %u\n", info->max_concurrent_downloads);
    add_loop(text, info);
    strbuf_add_char(text, '\n');
}

/* --- For programs ------------------------------------------------------------------------------
 */

static json_t *strings_json(char *const *values, size_t count)
{
    json_t *array = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(array, json_string(values[i]));
    return array;
}

static json_t *mirrors_json(const info_response *info)
{
    json_t *array = json_array();
    for (size_t i = 0; i < info->n_mirrors; i++) {
        const Davit__V1__RegistryMirror *mirror = info->mirrors[i];
        json_array_append_new(array, json_pack("{s:s, s:s, s:i, s:I, s:I, s:s}", "Registry",
                                               mirror->registry, "URL", mirror->url, "Failures",
                                               (int)mirror->failures, "BehindMilliseconds",
                                               (json_int_t)mirror->behind_ms, "BytesServed",
                                               (json_int_t)mirror->bytes_served, "LastError",
                                               mirror->last_error));
    }
    return array;
}

static void set_string(json_t *json, const char *key, const char *value)
{
    json_object_set_new(json, key, json_string(value));
}

static void set_number(json_t *json, const char *key, uint64_t value)
{
    json_object_set_new(json, key, json_integer((json_int_t)value));
}

static json_t *security_json(const info_response *info)
{
    json_t *array = json_array();
    for (size_t i = 0; i < info->n_security_options; i++) {
        const char *option = info->security_options[i];
        CLEANUP_FREE char *text =
            xasprintf("name=%s%s", option, str_eq(option, "seccomp") ? ",profile=builtin" : "");
        json_array_append_new(array, json_string(text));
    }
    return array;
}

static json_t *driver_status_json(const info_response *info)
{
    return json_pack("[[s, s], [s, s]]", "Backing Filesystem", info->backing_filesystem, "Reason",
                     info->storage_driver_reason);
}

static json_t *runtimes_json(const info_response *info)
{
    return str_empty(info->runtime) ? json_object()
                                    : json_pack("{s:{s:s}}", info->runtime, "path", info->runtime);
}

static void set_machine(json_t *json, const info_response *info)
{
    set_string(json, "KernelVersion", info->kernel_version);
    set_string(json, "OperatingSystem", info->operating_system);
    set_string(json, "OSType", info->os_type);
    set_string(json, "Architecture", info->architecture);
    set_number(json, "NCPU", info->cpus);
    set_number(json, "MemTotal", info->memory_bytes);
}

static void set_registries(json_t *json, const info_response *info)
{
    json_object_set_new(
        json, "RegistryConfig",
        json_pack("{s:o, s:o}", "InsecureRegistryCIDRs",
                  strings_json(info->insecure_registries, info->n_insecure_registries), "Mirrors",
                  strings_json(info->registry_mirrors, info->n_registry_mirrors)));
}

/* What Docker does not have. */
static void set_own(json_t *json, const info_response *info)
{
    set_string(json, "DavitRootDir", info->data_root);
    set_string(json, "DavitExecRootDir", info->exec_root);
    set_string(json, "DriverReason", info->storage_driver_reason);
    set_string(json, "BackingFilesystem", info->backing_filesystem);
    set_string(json, "RuntimeVersion", info->runtime_version);
    set_number(json, "MaxConcurrentDownloads", info->max_concurrent_downloads);
    set_number(json, "Tasks", info->tasks);
    set_number(json, "LoopWorstStallMicroseconds", info->loop_worst_stall_us);
    set_string(json, "LoopWorstStallTask", info->loop_worst_stall_task);
    json_object_set_new(json, "InsecureRegistries",
                        strings_json(info->insecure_registries, info->n_insecure_registries));
    json_object_set_new(json, "RegistryMirrors",
                        strings_json(info->registry_mirrors, info->n_registry_mirrors));
    json_object_set_new(json, "Mirrors", mirrors_json(info));
}

static json_t *client_info_json(void)
{
    return json_pack("{s:b, s:s, s:s, s:s}", "Debug", 0, "Version", DAVIT_VERSION, "GitCommit",
                     DAVIT_GIT_COMMIT, "Os", "linux");
}

/* Docker's names in Docker's order where Docker has the thing. */
static json_t *info_json(const info_response *info)
{
    json_t *json = json_object();
    set_string(json, "ID", info->id);
    set_number(json, "Containers", info->containers);
    set_number(json, "ContainersRunning", info->containers_running);
    set_number(json, "ContainersPaused", 0);
    set_number(json, "ContainersStopped", info->containers - info->containers_running);
    set_number(json, "Images", info->images);
    set_string(json, "Driver", info->storage_driver);
    json_object_set_new(json, "DriverStatus", driver_status_json(info));
    set_string(json, "CgroupDriver", info->cgroup_driver);
    set_string(json, "CgroupVersion", info->cgroup_version);
    set_machine(json, info);
    set_registries(json, info);
    set_string(json, "DockerRootDir", info->data_root);
    set_string(json, "HttpsProxy", info->https_proxy);
    set_string(json, "NoProxy", info->no_proxy);
    set_string(json, "Name", info->name);
    set_string(json, "ServerVersion", info->version);
    json_object_set_new(json, "Runtimes", runtimes_json(info));
    set_string(json, "DefaultRuntime", info->runtime);
    json_object_set_new(json, "Swarm",
                        json_pack("{s:s, s:b}", "LocalNodeState",
                                  str_empty(info->version) ? "" : "inactive", "ControlAvailable",
                                  0));
    json_object_set_new(json, "SecurityOptions", security_json(info));
    json_object_set_new(json, "Warnings", strings_json(info->warnings, info->n_warnings));
    set_own(json, info);
    json_object_set_new(json, "ClientInfo", client_info_json());
    return json;
}

/* --- davit info --------------------------------------------------------------------------------
 */

static const struct template_type info_type = {TYPE_ROW, .name = "system.dockerInfo"};

/* As Docker: a template that is content with what is known here does not need the daemon. */
static bool needs_server(const struct showing *showing)
{
    CLEANUP_JSON json_t *json = json_pack("{s:o}", "ClientInfo", client_info_json());
    CLEANUP_STRBUF struct strbuf text = {0};
    return !showing->template || str_eq(showing->format, "{{json .}}") ||
           !showing_add(showing, &info_type, json, &text, NULL);
}

static bool await_print_info(struct cli *cli, const struct showing *showing,
                             const info_response *info, struct error *err)
{
    CLEANUP_STRBUF struct strbuf text = {0}, warnings = {0};
    if (!showing_is_plain(showing)) {
        CLEANUP_JSON json_t *json = info_json(info);
        const bool shown = showing_add(showing, &info_type, json, &text, err);
        return await_cli_print(cli, text.data, text.length, shown ? err : NULL) && shown;
    }
    add_client(&text);
    strbuf_add_str(&text, "\nServer:\n");
    if (!str_empty(info->version))
        add_server(&text, info);
    for (size_t i = 0; i < info->n_warnings; i++)
        strbuf_addf(&warnings, "WARNING: %s\n", info->warnings[i]);
    return await_cli_print(cli, text.data, text.length, err) &&
           await_cli_print_error(cli, warnings.data, warnings.length, err);
}

/* Without a daemon what is known here is shown all the same, and then the error. */
static bool await_info(struct cli *cli, struct error *err)
{
    static const info_response nothing = DAVIT__V1__INFO_RESPONSE__INIT;
    Davit__V1__InfoRequest request = DAVIT__V1__INFO_REQUEST__INIT;
    CLEANUP_SHOWING struct showing showing = {0};
    CLEANUP(response_free) info_response *info = NULL;
    CLEANUP_ERROR struct error ignored = {0};
    if (!showing_init(&showing, cli, "", err))
        return false;
    if (!needs_server(&showing))
        return await_print_info(cli, &showing, &nothing, err);
    if (await_cli_call(cli, "/davit.v1.System/Info", &request.base,
                       &davit__v1__info_response__descriptor, (ProtobufCMessage **)&info, err))
        return await_print_info(cli, &showing, info, err);
    await_print_info(cli, &showing, &nothing, &ignored);
    return false;
}

static const struct flag flags[] = {
    {.name = "format",
     .shorthand = 'f',
     .type = FLAG_STRING,
     .help = FORMAT_HELP,
     .suggestions = FORMAT_SUGGESTIONS},
};

const struct command info_command = {
    .usage = "[OPTIONS]",
    .summary = "Display system-wide information",
    .flags = flags,
    .flag_count = ARRAY_SIZE(flags),
    .description = "Shows the state and the settings of the daemon.",
    .examples = "    davit info\n"
                "    davit info --format \"{{.Driver}} below {{.DavitRootDir}}\"",
    .await_run = await_info,
};
