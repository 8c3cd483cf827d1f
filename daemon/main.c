/* davitd: starts the engines in their order, tells systemd, waits for a signal, stops them in the
 * opposite order. Begin with await_daemon(). */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>

#include "daemon/config.h"
#include "daemon/reload.h"
#include "daemon/server/job_message.h"
#include "daemon/server/server.h"
#include "daemon/transfer/transfer.h"
#include "proto/async/await.h"
#include "proto/async/loop.h"
#include "proto/base/version.h"

/* Calls that run when a stop is asked for have this long to end by themselves. With what their
 * unwinding takes it stays below the 10 s in which the daemon promises to exit. */
#define STOP_GRACE_MS 3000

/* libuv's pool does everything that blocks; a download slot takes at most one thread at a time. */
#define POOL_THREADS "8"

/* glibc would give each of them an arena of its own, whose freed memory stays with the process. */
#define MALLOC_ARENAS 2

struct daemon {
    struct config *config;
    int argc;
    char **argv;
    struct reload *reload; /* NULL before the engines are there and after */
    struct task *serving;  /* the task that a stop cancels; NULL before and after */
    bool stopping;
    struct loop_timer watchdog;
    uint64_t watchdog_ms;
};

/* --- Signals, systemd ------------------------------------------------------------------------- */

static void on_stop(int signum, void *arg)
{
    struct daemon *daemon = arg;

    log_info("stopping", LOG("signal", strsignal(signum)));
    sd_notify(0, "STOPPING=1\nSTATUS=Finishing work");
    daemon->stopping = true;
    if (daemon->serving)
        task_cancel(daemon->serving);
}

static void on_reload(int signum UNUSED, void *arg)
{
    struct daemon *daemon = arg;

    if (daemon->reload)
        reload_begin(daemon->reload);
}

static void on_dump(int signum UNUSED, void *arg UNUSED)
{
    struct loop_stall stall = loop_worst_stall();

    log_info("loop", LOG("worst_stall_us", stall.worst_us),
             LOG("task", (const char *)stall.task_name));
    task_dump();
}

/* A timer of the loop: a loop that no longer turns feeds no watchdog. */
static void feed_watchdog(struct loop_timer *timer)
{
    struct daemon *daemon = CONTAINER_OF(timer, struct daemon, watchdog);

    sd_notify(0, "WATCHDOG=1");
    loop_timer_start(timer, daemon->watchdog_ms, feed_watchdog);
}

static void start_watchdog(struct daemon *daemon)
{
    uint64_t interval_us = 0;

    if (sd_watchdog_enabled(0, &interval_us) <= 0)
        return;
    daemon->watchdog_ms = MAX(interval_us / 2000, 1U);
    feed_watchdog(&daemon->watchdog);
}

/* --- Files ------------------------------------------------------------------------------------ */

static bool make_directory(const char *path, mode_t mode, const char *what, const char *root,
                           struct error *err)
{
    if (mkdir(path, mode) == 0 || errno == EEXIST)
        return true;
    error_set_errno(err, errno, "cannot create the %s %s", what, root);
    return error_hint(err,
                      "choose a place that can be written to with --data-root and --exec-root");
}

static bool make_root(const char *path, mode_t mode, const char *what, struct error *err)
{
    CLEANUP_FREE char *copy = xstrdup(path);

    for (char *slash = strchr(copy + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (!make_directory(copy, 0711, what, path, err))
            return false;
        *slash = '/';
    }
    return make_directory(path, mode, what, path, err);
}

static bool write_pidfile(const char *path, struct error *err)
{
    CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    char text[32];
    int length = snprintf(text, sizeof(text), "%d\n", getpid());

    if (fd < 0 || write(fd, text, (size_t)length) != length)
        return error_set_errno(err, errno, "cannot write the pidfile %s", path);
    return true;
}

/* --- The daemon's life ------------------------------------------------------------------------ */

static bool await_serve(struct daemon *daemon, struct engines *engines, struct error *err)
{
    struct server *server = server_new(engines, err);
    bool ok = server != NULL;

    if (ok && !daemon->stopping) {
        log_info("ready", LOG("version", DAVIT_VERSION),
                 LOG("data_root", daemon->config->data_root),
                 LOG("storage_driver", store_driver_name(engines->store)));
        sd_notify(0, "READY=1\nSTATUS=Serving");
        daemon->serving = task_current();
        ok = await_server_run(server, STOP_GRACE_MS, err);
        daemon->serving = NULL;
        if (!ok && daemon->stopping) {
            error_done(err);
            ok = true;
        }
    }
    server_free(server);
    return ok;
}

/* Everything between an open store and its closing. */
static bool await_engines(struct daemon *daemon, struct store *store, struct error *err)
{
    const struct config *config = daemon->config;
    const struct registry_options registry_options = registry_options_of(config);
    const struct container_engine_options container_options = {
        .store = store,
        .data_root = config->data_root,
        .exec_root = config->exec_root,
        .runtime = config->runtime,
    };
    struct transfer_options transfer_options = {
        .store = store,
        .max_concurrent = config->max_concurrent_downloads,
        .max_connections = config->max_connections,
        .bytes_per_second = config->limit_bytes_per_s,
        .low_speed_bytes_per_s = config->low_speed_bytes_per_s,
        .low_speed_ms = config->low_speed_ms,
        .backoff_ms = config->retry_backoff_ms,
    };
    struct system_info info;
    struct engines engines = {.config = config, .info = &info, .store = store};
    bool ok;

    engines.containers = await_container_engine_new(&container_options, err);
    if (!engines.containers)
        return false;
    store_unmount_unused_await(store);
    system_info_gather(config->data_root, &info);
    engines.pull.store = store;
    engines.pull.registry = transfer_options.client = registry_client_new(&registry_options);
    engines.pull.transfers = transfer_table_new(&transfer_options);
    engines.push = push_engine_new(&(struct push_options){
        .store = store,
        .registry = engines.pull.registry,
        .max_concurrent = config->max_concurrent_uploads,
        .bytes_per_second = config->limit_bytes_per_s,
    });
    daemon->reload = reload_new(&(struct reload_options){
        .argc = daemon->argc,
        .argv = daemon->argv,
        .config = daemon->config,
        .registry = engines.pull.registry,
        .transfers = engines.pull.transfers,
        .push = engines.push,
    });
    engines.jobs = job_table_new(&(struct job_table_options){
        .store = store,
        .encode = job_update_encode,
        .resume = config->resume_jobs,
        .spec_of_request = job_spec_of_request,
        .context = &engines,
    });
    ok = await_job_table_recover(engines.jobs, err) && await_serve(daemon, &engines, err);
    job_table_stop_await(engines.jobs, 0);
    job_table_free(engines.jobs);
    {
        CLEANUP(task_unshield) struct task_shield shield = task_shield();
        daemon->reload = reload_free_await(daemon->reload);
        transfer_table_free_await(engines.pull.transfers);
        container_engine_free_await(engines.containers);
    }
    push_engine_free(engines.push);
    registry_client_free(engines.pull.registry);
    system_info_done(&info);
    return ok;
}

static bool await_daemon(void *arg, struct error *err)
{
    struct daemon *daemon = arg;
    const struct config *config = daemon->config;
    const struct store_options options = {
        .data_root = config->data_root,
        .driver = config->storage_driver,
        .reserve_bytes = config->reserve_bytes,
        .reserve_percent = config->reserve_percent,
        .scrub_interval_ms = config->scrub_interval_ms,
        .partial_ttl_ms = config->partial_ttl_ms,
        .partial_max_bytes = config->partial_max_bytes,
        .keep_blobs = config->keep_compressed,
        .drop_blobs = config->drop_compressed,
    };
    struct loop_signal *handlers[] = {
        loop_signal_start(SIGTERM, on_stop, daemon),
        loop_signal_start(SIGINT, on_stop, daemon),
        loop_signal_start(SIGHUP, on_reload, daemon),
        loop_signal_start(SIGUSR1, on_dump, daemon),
    };
    struct store *store = NULL;
    bool ok = make_root(config->data_root, 0700, "data root", err) &&
              make_root(config->exec_root, 0711, "exec root", err) &&
              (store = await_store_open(&options, err)) != NULL &&
              (!config->pidfile || write_pidfile(config->pidfile, err));

    if (ok) {
        start_watchdog(daemon);
        ok = await_engines(daemon, store, err);
        loop_timer_stop(&daemon->watchdog);
        if (config->pidfile)
            unlink(config->pidfile);
    }
    store_close_await(store);
    for (size_t i = 0; i < ARRAY_SIZE(handlers); i++)
        loop_signal_stop(handlers[i]);
    return ok;
}

static int report(const struct error *err)
{
    fprintf(stderr, "davitd: %s\n", err->message);
    if (err->hint)
        fprintf(stderr, "%s\n", err->hint);
    sd_notifyf(0, "STATUS=%s", err->message);
    return EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    CLEANUP(config_done) struct config config = {0};
    CLEANUP_ERROR struct error err = {0};
    struct daemon daemon = {.config = &config, .argc = argc, .argv = argv};

    if (!config_load(argc, argv, &config, &err))
        return report(&err);
    if (config.show_help) {
        fputs(config_help(), stdout);
        return EXIT_SUCCESS;
    }
    if (config.show_version) {
        printf("davitd version " DAVIT_VERSION ", build %s\n",
               *DAVIT_GIT_COMMIT ? DAVIT_GIT_COMMIT : "unknown");
        return EXIT_SUCCESS;
    }
    if (!config_check_registries(&config, &err))
        return report(&err);
    if (config.validate) {
        puts("configuration OK");
        return EXIT_SUCCESS;
    }
    if (geteuid() != 0) {
        error_set(&err, ERROR_PERMISSION_DENIED, NULL,
                  "davitd needs to be started with root privileges");
        return report(&err);
    }
    log_setup(config.log_level, config.log_format);
    mallopt(M_ARENA_MAX, MALLOC_ARENAS);
    setenv("UV_THREADPOOL_SIZE", POOL_THREADS, 0);
    if (!loop_run_main(await_daemon, &daemon, &err))
        return report(&err);
    log_info("stopped");
    return EXIT_SUCCESS;
}
