#include "daemon/container/engine.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include "daemon/container/kept.h"
#include "daemon/container/usage.h"
#include "daemon/store/tree.h"
#include "proto/async/await.h"
#include "proto/base/log.h"

#define ID_LENGTH 64

#define ORPHAN_TIMEOUT_MS 10000
#define ORPHAN_POLL_MS 10

/* --- Files of a container ----------------------------------------------------------------------
 */

struct removal {
    const struct container_paths *paths;
    bool keep_data, ok;
    struct error err;
};

static bool remove_dir(const char *path, struct error *err)
{
    CLEANUP_FREE char *parent = xstrdup(path);
    char *name = strrchr(parent, '/');
    CLEANUP_CLOSE int parent_fd = -1;
    int r;

    *name++ = '\0';
    parent_fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    r = parent_fd < 0 ? -errno : tree_remove(parent_fd, name, NULL);
    return r == 0 || error_set_errno(err, r, "cannot remove %s", path);
}

static void remove_files(void *arg)
{
    struct removal *removal = arg;
    const struct container_paths *paths = removal->paths;

    /* Data last: what remains of it tells the next daemon to try again. */
    removal->ok = rootfs_unmount(paths, &removal->err) &&
                  remove_dir(paths->bundle_dir, &removal->err) &&
                  (removal->keep_data || remove_dir(paths->data_dir, &removal->err));
}

bool remove_files_await(const struct container_paths *paths, bool keep_data, struct error *err)
{
    CLEANUP(task_unshield) struct task_shield shield = task_shield();
    struct removal removal = {.paths = paths, .keep_data = keep_data};

    await_work(remove_files, &removal, "removing a container's files");
    return removal.ok || error_move(err, &removal.err);
}

/* --- What a killed daemon left ------------------------------------------------------------------
 */

struct leftovers {
    const struct container_engine *engine;
    char **ids;
    char **kept_ids; /* of those that ended in order, and whose files are to stay */
};

static bool exists(const char *root, const char *id, const char *file)
{
    CLEANUP_FREE char *path = xasprintf("%s/containers/%s%s", root, id, file);

    return access(path, F_OK) == 0;
}

static bool is_id(const char *name)
{
    return strlen(name) == ID_LENGTH && strspn(name, "0123456789abcdef") == ID_LENGTH;
}

static void note_leftover(struct leftovers *leftovers, const char *id, bool in_data_root)
{
    const struct container_engine *engine = leftovers->engine;
    bool has_bundle = exists(engine->exec_root, id, "");

    if (in_data_root && !has_bundle && exists(engine->data_root, id, "/" KEPT_NOTE)) {
        strv_add(&leftovers->kept_ids, id);
        return;
    }
    if (!in_data_root && exists(engine->data_root, id, ""))
        return; /* already noted */
    strv_add(&leftovers->ids, id);
}

static void list_directory(struct leftovers *leftovers, const char *root, bool in_data_root)
{
    CLEANUP_FREE char *path = xasprintf("%s/containers", root);
    const struct dirent *entry;
    DIR *dir = opendir(path);

    while (dir && (entry = readdir(dir))) {
        if (is_id(entry->d_name))
            note_leftover(leftovers, entry->d_name, in_data_root);
    }
    if (dir)
        closedir(dir);
}

static void list_leftovers(void *arg)
{
    struct leftovers *leftovers = arg;

    list_directory(leftovers, leftovers->engine->data_root, true);
    list_directory(leftovers, leftovers->engine->exec_root, false);
}

struct search {
    const char *id;
    bool found;
};

/* Whether a process of ours, so in our PID namespace, has the ID among its arguments. */
static bool names_id(const char *process, const char *id)
{
    CLEANUP_FREE char *command_path = xasprintf("/proc/%s/cmdline", process);
    CLEANUP_FREE char *namespace_path = xasprintf("/proc/%s/ns/pid", process);
    CLEANUP_CLOSE int fd = open(command_path, O_RDONLY | O_CLOEXEC);
    char command[4096];
    struct stat ours, theirs;
    ssize_t n = fd < 0 ? -1 : read(fd, command, sizeof(command));

    return n > 0 && memmem(command, (size_t)n, id, strlen(id)) &&
           stat("/proc/self/ns/pid", &ours) == 0 && stat(namespace_path, &theirs) == 0 &&
           ours.st_ino == theirs.st_ino;
}

static void search_runtime(void *arg)
{
    struct search *search = arg;
    const struct dirent *entry;
    DIR *dir = opendir("/proc");

    search->found = false;
    while (dir && !search->found && (entry = readdir(dir))) {
        if (isdigit((unsigned char)entry->d_name[0]))
            search->found = names_id(entry->d_name, search->id);
    }
    if (dir)
        closedir(dir);
}

/* A runtime that the killed daemon had called goes on without it: let it end, so that it does not
 * create what has just been looked for. */
static int await_runtime_end(const char *id)
{
    struct search search = {.id = id};
    uint64_t until_ms = now_ms() + ORPHAN_TIMEOUT_MS;
    int r;

    do {
        if ((r = await_work(search_runtime, &search, "looking for a runtime")) < 0)
            return r;
    } while (search.found && now_ms() < until_ms && (r = await_sleep(ORPHAN_POLL_MS)) == 0);
    return r;
}

static bool await_remove_leftover(struct container_engine *engine, const char *id, bool *ret_kept,
                                  struct error *err)
{
    int r = await_runtime_end(id);
    CLEANUP(container_paths_done) struct container_paths paths = {0};
    CLEANUP(runtime_set_done) struct runtime_set defaults = {0}; /* --runtime may be new */
    const struct runtime *runtime = NULL;
    bool keep = exists(engine->data_root, id, "/" KEPT_NOTE);

    if (r < 0)
        return await_error(err, r, "waiting for an earlier daemon's runtime");
    runtime_set_init(&defaults, NULL, engine->exec_root);
    runtime = runtime_owning(&engine->runtimes, id);
    if (!runtime)
        runtime = runtime_owning(&defaults, id);
    container_paths_init(&paths, engine->data_root, engine->exec_root, id);
    if (runtime && !await_runtime_delete(runtime, id, err))
        return false;
    if (!remove_files_await(&paths, keep, err))
        return false;
    *ret_kept = keep;
    return true;
}

static bool await_remove_leftovers(struct container_engine *engine, struct error *err)
{
    struct leftovers leftovers = {.engine = engine};
    CLEANUP(strv_cleanup) char **ids = NULL;
    CLEANUP(strv_cleanup) char **kept_ids = NULL;
    int r = await_work(list_leftovers, &leftovers, "looking for old containers");

    ids = leftovers.ids;
    kept_ids = leftovers.kept_ids;
    if (r < 0)
        return await_error(err, r, "looking for old containers");
    for (size_t i = 0; i < strv_count(ids); i++) {
        CLEANUP_ERROR struct error problem = {0};
        bool kept = false;
        if (await_remove_leftover(engine, ids[i], &kept, &problem))
            log_info("removed a container that an earlier daemon left", LOG("id", ids[i]));
        else if ((r = task_check()) < 0)
            return await_error(err, r, "removing old containers");
        else
            log_warn("cannot remove a container that an earlier daemon left", LOG("id", ids[i]),
                     LOG("error", problem.message));
        if (kept)
            strv_add(&kept_ids, ids[i]);
    }
    return await_kept_load(engine, kept_ids, err);
}

/* --- Life cycle ---------------------------------------------------------------------------------
 */

static bool ask_versions(void *arg, struct error *err UNUSED)
{
    struct container_engine *engine = arg;

    await_runtime_versions(&engine->runtimes);
    engine->versions_asked = true;
    return true;
}

/* Absolute, without links: overlayfs and runtimes get these paths. */
static char *make_root(const char *root, struct error *err)
{
    CLEANUP_FREE char *containers = xasprintf("%s/containers", root);
    char *absolute = NULL;

    if ((mkdir(root, 0700) < 0 && errno != EEXIST) ||
        (mkdir(containers, 0700) < 0 && errno != EEXIST) || !(absolute = realpath(root, NULL)))
        error_set_errno(err, errno, "cannot create %s", containers);
    return absolute;
}

static bool make_directories(struct container_engine *engine,
                             const struct container_engine_options *options, struct error *err)
{
    CLEANUP_FREE char *runtime_dir = NULL;

    if (!(engine->data_root = make_root(options->data_root, err)) ||
        !(engine->exec_root = make_root(options->exec_root, err)))
        return false;
    runtime_dir = xasprintf("%s/runtime", engine->exec_root);
    if (mkdir(runtime_dir, 0700) < 0 && errno != EEXIST)
        return error_set_errno(err, errno, "cannot create %s", runtime_dir);
    return true;
}

struct container_engine *await_container_engine_new(const struct container_engine_options *options,
                                                    struct error *err)
{
    struct container_engine *engine = xcalloc(1, sizeof(*engine));

    engine->store = options->store;
    list_init(&engine->containers);
    list_init(&engine->kept);
    group_init(&engine->group);
    wait_queue_init(&engine->container_came);
    wait_queue_init(&engine->container_gone);
    /* A container's first process is the runtime's child; when the runtime has ended it becomes
     * ours, and we learn its exit status. */
    if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
        error_set_errno(err, errno, "cannot become a subreaper");
    else if (make_directories(engine, options, err)) {
        runtime_set_init(&engine->runtimes, options->runtime, engine->exec_root);
        if (await_remove_leftovers(engine, err) &&
            task_spawn(&engine->group, "runtime versions", NULL, ask_versions, engine, err) &&
            task_spawn(&engine->group, "count containers", NULL, await_usage_task, engine, err))
            return engine;
    }
    return container_engine_free_await(engine);
}

struct container_engine *container_engine_free_await(struct container_engine *engine)
{
    if (!engine)
        return NULL;
    atomic_store(&engine->stopping, true);
    {
        CLEANUP(task_unshield) struct task_shield shield = task_shield();
        LIST_FOR_EACH (node, &engine->containers) {
            container_kill(container_of_node(node));
        }
        while (!list_empty(&engine->containers))
            await_wake(&engine->container_gone, "waiting for containers to go");
        group_done_await(&engine->group);
    }
    kept_clear(engine);
    runtime_set_done(&engine->runtimes);
    free(engine->data_root);
    free(engine->exec_root);
    free(engine);
    return NULL;
}

/* --- Looking at it ------------------------------------------------------------------------------
 */

const char *container_runtime_name(const struct container_engine *engine)
{
    const struct runtime *runtime = runtime_preferred(&engine->runtimes);

    return runtime ? runtime->name : "";
}

const char *container_runtime_version(const struct container_engine *engine)
{
    const struct runtime *runtime = runtime_preferred(&engine->runtimes);

    return runtime && runtime->version ? runtime->version : "";
}

bool container_runtime_absent(const struct container_engine *engine)
{
    return engine->versions_asked && !runtime_preferred(&engine->runtimes);
}

size_t container_count(const struct container_engine *engine)
{
    size_t count = 0;

    LIST_FOR_EACH (node, &engine->containers) {
        count++;
    }
    LIST_FOR_EACH (node, &engine->kept) {
        count++;
    }
    return count;
}

size_t container_running_count(const struct container_engine *engine)
{
    size_t count = 0;

    LIST_FOR_EACH (node, &engine->containers) {
        count += container_is_running(container_of_node(node));
    }
    return count;
}
