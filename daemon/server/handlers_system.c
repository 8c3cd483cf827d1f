#include <curl/curl.h>
#include <nghttp2/nghttp2.h>
#include <sqlite3.h>
#include <stdio.h>

#include "daemon/server/handlers.h"
#include "proto/async/loop.h"
#include "proto/base/version.h"
#include "proto/davit/v1/system.pb-c.h"

static char *text(const char *value)
{
    return (char *)(value ? value : "");
}

/* --- Version ---------------------------------------------------------------------------------- */

static bool handle_version(struct grpc_call *call, void *context, struct error *err)
{
    const struct engines *engines = context;
    CLEANUP_MESSAGE ProtobufCMessage *request = await_grpc_request(call, err);
    Davit__V1__VersionResponse response = DAVIT__V1__VERSION_RESPONSE__INIT;
    Davit__V1__Component components[5], *list[ARRAY_SIZE(components)];
    const struct {
        const char *name, *version;
    } parts[] = {
        {text(container_runtime_name(engines->containers)),
         text(container_runtime_version(engines->containers))},
        {"libuv", uv_version_string()},
        {"nghttp2", nghttp2_version(0)->version_str},
        {"libcurl", curl_version_info(CURLVERSION_NOW)->version},
        {"SQLite", sqlite3_libversion()},
    };

    if (!request)
        return false;
    for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
        davit__v1__component__init(&components[i]);
        components[i].name = text(parts[i].name);
        components[i].version = text(parts[i].version);
        list[i] = &components[i];
    }
    response.version = text(DAVIT_VERSION);
    response.git_commit = text(DAVIT_GIT_COMMIT);
    response.os = text("linux");
    response.arch = text(system_architecture());
    response.kernel = engines->info->kernel;
    /* Without a runtime its line is left out. */
    response.n_components = *parts[0].name ? ARRAY_SIZE(parts) : ARRAY_SIZE(parts) - 1;
    response.components = *parts[0].name ? list : list + 1;
    return await_grpc_send(call, &response.base, err);
}

/* --- Info ------------------------------------------------------------------------------------- */

static void fill_host(Davit__V1__InfoResponse *response, const struct system_info *info)
{
    response->name = text(info->host_name);
    response->backing_filesystem = text(info->backing_filesystem);
    response->cgroup_driver = text("cgroupfs");
    response->cgroup_version = text(info->cgroup_version);
    response->kernel_version = text(info->kernel);
    response->operating_system = text(info->operating_system);
    response->os_type = text("linux");
    response->architecture = text(info->machine);
    response->cpus = info->cpus;
    response->memory_bytes = info->memory_bytes;
    response->https_proxy = text(info->https_proxy);
    response->no_proxy = text(info->no_proxy);
}

static void fill_config(Davit__V1__InfoResponse *response, const struct config *config)
{
    response->data_root = config->data_root;
    response->exec_root = config->exec_root;
    response->n_insecure_registries = strv_count(config->insecure_registries);
    response->insecure_registries = config->insecure_registries;
    response->n_registry_mirrors = strv_count(config->registry_mirrors);
    response->registry_mirrors = config->registry_mirrors;
    response->max_concurrent_downloads = config->max_concurrent_downloads;
}

/* What one answer about mirrors points to. */
struct mirror_list {
    struct registry_mirror *mirrors;
    size_t count;
    Davit__V1__RegistryMirror *messages, **pointers;
};

static void mirror_list_done(struct mirror_list *list)
{
    registry_mirrors_free(list->mirrors, list->count);
    free(list->messages);
    free(list->pointers);
}

static void fill_mirrors(Davit__V1__InfoResponse *response, const struct registry_client *client,
                         struct mirror_list *list)
{
    list->mirrors = registry_mirrors(client, &list->count);
    list->messages = xcalloc(list->count + 1, sizeof(*list->messages));
    list->pointers = xcalloc(list->count + 1, sizeof(*list->pointers));
    for (size_t i = 0; i < list->count; i++) {
        const struct registry_mirror *mirror = &list->mirrors[i];
        Davit__V1__RegistryMirror *message = list->pointers[i] = &list->messages[i];
        davit__v1__registry_mirror__init(message);
        message->registry = mirror->registry;
        message->url = mirror->url;
        message->failures = mirror->failures;
        message->behind_ms = mirror->behind_ms;
        message->bytes_served = mirror->bytes_served;
        message->last_error = text(mirror->last_error);
    }
    response->n_mirrors = list->count;
    response->mirrors = list->pointers;
}

/* The caller's. */
static char **warnings_of(const struct engines *engines)
{
    CLEANUP_FREE const struct image **images = image_list(engines->store, NULL);
    size_t damaged = store_damaged_count(engines->store), damaged_images = 0;
    char **warnings = NULL;

    for (const struct image **image = images; *image; image++)
        damaged_images += (*image)->damaged;
    if (container_runtime_absent(engines->containers))
        strv_add(&warnings, "No OCI runtime was found: install crun or runc");
    if (damaged + damaged_images > 0) {
        CLEANUP_FREE char *line = xasprintf("Damaged on the disk: %zu layers, %zu images. Fetch "
                                            "them again with: davit system verify --repair",
                                            damaged, damaged_images);
        strv_add(&warnings, line);
    }
    return warnings;
}

static bool handle_info(struct grpc_call *call, void *context, struct error *err)
{
    const struct engines *engines = context;
    CLEANUP_MESSAGE ProtobufCMessage *request = await_grpc_request(call, err);
    Davit__V1__InfoResponse response = DAVIT__V1__INFO_RESPONSE__INIT;
    struct loop_stall stall = loop_worst_stall();
    char *security[] = {text("seccomp")};
    CLEANUP(strv_cleanup) char **warnings = warnings_of(engines);
    CLEANUP(mirror_list_done) struct mirror_list mirrors = {0};
    CLEANUP_FREE const struct image **images = NULL;
    size_t image_count = 0;

    if (!request)
        return false;
    images = image_list(engines->store, &image_count);
    fill_host(&response, engines->info);
    fill_config(&response, engines->config);
    fill_mirrors(&response, engines->pull.registry, &mirrors);
    response.id = text(store_id(engines->store));
    response.images = (uint32_t)image_count;
    response.containers = (uint32_t)container_count(engines->containers);
    response.containers_running = (uint32_t)container_running_count(engines->containers);
    response.storage_driver = text(store_driver_name(engines->store));
    response.storage_driver_reason = text(store_driver_reason(engines->store));
    response.runtime = text(container_runtime_name(engines->containers));
    response.runtime_version = text(container_runtime_version(engines->containers));
    response.tasks = (uint32_t)task_count();
    response.loop_worst_stall_us = stall.worst_us;
    response.loop_worst_stall_task = stall.task_name;
    response.version = text(DAVIT_VERSION);
    response.security_options = security;
    response.n_security_options = engines->info->seccomp ? 1 : 0;
    response.warnings = warnings;
    response.n_warnings = strv_count(warnings);
    return await_grpc_send(call, &response.base, err);
}

void handlers_system_add(struct grpc_server *server, const struct engines *engines)
{
    static const struct grpc_method methods[] = {
        {"Version", handle_version}, {"Info", handle_info},   {"DiskUsage", handle_disk_usage},
        {"Verify", handle_verify},   {"Prune", handle_prune},
    };

    grpc_server_add(server, &davit__v1__system__descriptor, methods, ARRAY_SIZE(methods),
                    (void *)engines);
}
