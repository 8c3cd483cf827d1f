#include "daemon/reload.h"

#include <systemd/sd-daemon.h>
#include <time.h>

#include "daemon/registry/hosts_dir.h"
#include "proto/async/await.h"
#include "proto/base/log.h"
#include "proto/base/strbuf.h"
#include "proto/base/version.h"

struct reload {
    struct reload_options options;
    struct group group;
    bool running, again;
};

struct registry_options registry_options_of(const struct config *config)
{
    return (struct registry_options){
        .insecure_registries = config->insecure_registries,
        .mirrors = config->registry_mirrors,
        .mirrors_of = config->mirrors,
        .hosts_dirs = config->hosts_dirs,
        .certs_dir = config->certs_dir,
        .user_agent = "davit/" DAVIT_VERSION,
        .connect_timeout_ms = config->connect_timeout_ms,
        .stall_timeout_ms = config->stall_timeout_ms,
        .backoff_ms = config->retry_backoff_ms,
    };
}

bool config_check_registries(const struct config *config, struct error *err)
{
    const struct registry_options options = registry_options_of(config);

    return registry_options_check(&options, err);
}

/* --- hosts.toml ------------------------------------------------------------------------------- */

/* They are read when they are needed; but who writes them wants to know now. */
struct check {
    char **dirs;
    char **errors;
};

static void check_in_pool(void *arg)
{
    struct check *check = arg;

    hosts_dirs_check_blocking(check->dirs, &check->errors);
}

static void await_check_hosts(const struct config *config)
{
    struct check check = {.dirs = strv_dup(config->hosts_dirs)};

    await_work(check_in_pool, &check, "checking hosts.toml");
    for (char **error = check.errors; error && *error; error++)
        log_error("pulls from this registry will fail", LOG("error", *error));
    strv_free(check.dirs);
    strv_free(check.errors);
}

static bool check_task(void *arg, struct error *err UNUSED)
{
    const struct reload *reload = arg;

    await_check_hosts(reload->options.config);
    return true;
}

/* --- Life cycle ------------------------------------------------------------------------------- */

struct reload *reload_new(const struct reload_options *options)
{
    struct reload *reload = xcalloc(1, sizeof(*reload));

    reload->options = *options;
    group_init(&reload->group);
    task_spawn(&reload->group, "hosts-check", NULL, check_task, reload, NULL);
    return reload;
}

struct reload *reload_free_await(struct reload *reload)
{
    if (!reload)
        return NULL;
    group_done_await(&reload->group);
    free(reload);
    return NULL;
}

/* --- Applying --------------------------------------------------------------------------------- */

static void note(struct strbuf *changed, const char *key)
{
    strbuf_addf(changed, "%s%s", changed->length ? ", " : "", key);
}

static bool strv_same(char *const *a, char *const *b)
{
    size_t count = strv_count(a);

    if (count != strv_count(b))
        return false;
    for (size_t i = 0; i < count; i++) {
        if (!str_eq(a[i], b[i]))
            return false;
    }
    return true;
}

/* Swaps, so that the old value is released with the fresh configuration. */
#define SWAP(a, b)                    \
    do {                              \
        __typeof__(a) swapped_ = (a); \
        (a) = (b);                    \
        (b) = swapped_;               \
    } while (0)

static void swap_list(char ***now, char ***fresh, const char *key, struct strbuf *changed)
{
    if (strv_same(*now, *fresh))
        return;
    note(changed, key);
    SWAP(*now, *fresh);
}

static void swap_number(uint64_t *now, uint64_t fresh, const char *key, struct strbuf *changed)
{
    if (*now == fresh)
        return;
    note(changed, key);
    *now = fresh;
}

static void apply_registry(struct reload *reload, struct config *fresh, struct strbuf *changed)
{
    struct config *now = reload->options.config;
    size_t before = changed->length;
    struct registry_options options;

    swap_list(&now->mirrors, &fresh->mirrors, "mirrors", changed);
    swap_list(&now->registry_mirrors, &fresh->registry_mirrors, "registry-mirrors", changed);
    swap_list(&now->insecure_registries, &fresh->insecure_registries, "insecure-registries",
              changed);
    swap_list(&now->hosts_dirs, &fresh->hosts_dirs, "hosts-dirs", changed);
    if (!str_eq(now->certs_dir, fresh->certs_dir)) {
        note(changed, "certs-dir");
        SWAP(now->certs_dir, fresh->certs_dir);
    }
    if (changed->length == before)
        return;
    options = registry_options_of(now);
    registry_client_configure(reload->options.registry, &options);
}

static void apply_transfers(struct reload *reload, const struct config *fresh,
                            struct strbuf *changed)
{
    struct config *now = reload->options.config;
    uint64_t max_concurrent = now->max_concurrent_downloads;
    uint64_t max_uploads = now->max_concurrent_uploads;
    size_t before = changed->length;

    swap_number(&max_concurrent, fresh->max_concurrent_downloads, "max-concurrent-downloads",
                changed);
    swap_number(&max_uploads, fresh->max_concurrent_uploads, "max-concurrent-uploads", changed);
    swap_number(&now->limit_bytes_per_s, fresh->limit_bytes_per_s, "limit-rate", changed);
    if (changed->length == before)
        return;
    now->max_concurrent_downloads = (unsigned int)max_concurrent;
    transfer_table_set_limits(reload->options.transfers, now->max_concurrent_downloads,
                              now->limit_bytes_per_s);
    now->max_concurrent_uploads = (unsigned int)max_uploads;
    push_engine_set_limits(reload->options.push, now->max_concurrent_uploads,
                           now->limit_bytes_per_s);
}

static void apply_log(struct reload *reload, const struct config *fresh, struct strbuf *changed)
{
    struct config *now = reload->options.config;

    if (now->log_level == fresh->log_level)
        return;
    note(changed, "log-level");
    now->log_level = fresh->log_level;
    log_setup(now->log_level, now->log_format);
}

/* What else is different, which the administrator should not take for applied. */
static void warn_of_others(const struct config *now, const struct config *fresh)
{
    CLEANUP_STRBUF struct strbuf keys = {0};
    const struct {
        const char *key;
        bool same;
    } others[] = {
        {"connect-timeout", now->connect_timeout_ms == fresh->connect_timeout_ms},
        {"data-root", str_eq(now->data_root, fresh->data_root)},
        {"default-runtime", str_eq(now->runtime, fresh->runtime)},
        {"exec-root", str_eq(now->exec_root, fresh->exec_root)},
        {"group", str_eq(now->group, fresh->group)},
        {"hosts", strv_same(now->hosts, fresh->hosts)},
        {"keep-compressed", now->keep_compressed == fresh->keep_compressed &&
                                now->drop_compressed == fresh->drop_compressed},
        {"log-format", now->log_format == fresh->log_format},
        {"low-speed-limit", now->low_speed_bytes_per_s == fresh->low_speed_bytes_per_s},
        {"low-speed-time", now->low_speed_ms == fresh->low_speed_ms},
        {"max-connections", now->max_connections == fresh->max_connections},
        {"partial-max-size", now->partial_max_bytes == fresh->partial_max_bytes},
        {"partial-ttl", now->partial_ttl_ms == fresh->partial_ttl_ms},
        {"pidfile", str_eq(now->pidfile, fresh->pidfile)},
        {"reserve-space", now->reserve_bytes == fresh->reserve_bytes &&
                              now->reserve_percent == fresh->reserve_percent},
        {"resume-jobs", now->resume_jobs == fresh->resume_jobs},
        {"retry-backoff", now->retry_backoff_ms == fresh->retry_backoff_ms},
        {"scrub-interval", now->scrub_interval_ms == fresh->scrub_interval_ms},
        {"stall-timeout", now->stall_timeout_ms == fresh->stall_timeout_ms},
        {"storage-driver", str_eq(now->storage_driver, fresh->storage_driver)},
    };

    for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
        if (!others[i].same)
            note(&keys, others[i].key);
    }
    if (keys.length)
        log_warn("these settings change with the next start only", LOG("keys", keys.data));
}

/* --- The task --------------------------------------------------------------------------------- */

struct load {
    int argc;
    char **argv;
    struct config config;
    bool ok;
    struct error error;
};

static void load_in_pool(void *arg)
{
    struct load *load = arg;

    load->ok = config_load(load->argc, load->argv, &load->config, &load->error) &&
               config_check_registries(&load->config, &load->error);
}

static void load_done(struct load *load)
{
    config_done(&load->config);
    error_done(&load->error);
}

static void tell_systemd(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%llu\nSTATUS=Reading the configuration",
               (unsigned long long)now.tv_sec * 1000000 + (unsigned long long)now.tv_nsec / 1000);
}

static void await_reload(struct reload *reload)
{
    CLEANUP(load_done)
    struct load load = {.argc = reload->options.argc, .argv = reload->options.argv};
    CLEANUP_STRBUF struct strbuf changed = {0};

    if (await_work(load_in_pool, &load, "reading the configuration") < 0)
        return;
    if (!load.ok) {
        log_error("configuration not reloaded, the old one stays",
                  LOG("error", load.error.message));
        return;
    }
    warn_of_others(reload->options.config, &load.config);
    apply_registry(reload, &load.config, &changed);
    apply_transfers(reload, &load.config, &changed);
    apply_log(reload, &load.config, &changed);
    await_check_hosts(reload->options.config);
    log_info("configuration reloaded", LOG("changed", changed.length ? changed.data : "nothing"));
}

static bool reload_task(void *arg, struct error *err UNUSED)
{
    struct reload *reload = arg;

    do {
        reload->again = false;
        tell_systemd();
        await_reload(reload);
        sd_notify(0, "READY=1\nSTATUS=Serving");
    } while (reload->again && task_check() == 0);
    reload->running = false;
    return true;
}

void reload_begin(struct reload *reload)
{
    CLEANUP_ERROR struct error err = {0};

    if (reload->running) {
        reload->again = true;
        return;
    }
    reload->running = task_spawn(&reload->group, "reload", NULL, reload_task, reload, &err);
    if (!reload->running)
        log_error("configuration not reloaded", LOG("error", err.message));
}
