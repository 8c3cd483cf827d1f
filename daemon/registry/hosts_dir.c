#include "daemon/registry/hosts_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "daemon/registry/toml.h"
#include "proto/async/await.h"
#include "proto/base/strbuf.h"

/* One search, on the thread pool; nothing of it is shared meanwhile. */
struct search {
    char **paths; /* in order */
    struct hosts_file file;
    bool found, ok;
    struct error error;
};

static void search_done(struct search *search)
{
    strv_free(search->paths);
    hosts_file_done(&search->file);
    error_done(&search->error);
}

static void add_path(struct search *search, const char *dir, const char *name)
{
    CLEANUP_FREE char *path = xasprintf("%s/%s/hosts.toml", dir, name);

    strv_add(&search->paths, path);
}

static void list_paths(struct search *search, char *const *dirs, const char *domain)
{
    const char *colon = strrchr(domain, ':');

    for (char *const *dir = dirs; dir && *dir; dir++) {
        if (colon) {
            CLEANUP_FREE char *name =
                xasprintf("%.*s_%s_", (int)(colon - domain), domain, colon + 1);
            add_path(search, *dir, name);
        }
        add_path(search, *dir, domain);
    }
    for (char *const *dir = dirs; dir && *dir; dir++)
        add_path(search, *dir, "_default");
}

static bool cannot_read(struct search *search, const char *path, const char *why)
{
    return error_set(&search->error, ERROR_FAILED_PRECONDITION, "INVALID_CONFIG",
                     "cannot read %s: %s", path, why);
}

static bool read_hosts(struct search *search, const char *path)
{
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    CLEANUP_STRBUF struct strbuf text = {0};
    char buffer[4096];
    struct stat st;
    ssize_t n;

    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
        return true;
    search->found = true;
    if (fd < 0 || fstat(fd, &st) < 0)
        return cannot_read(search, path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return cannot_read(search, path, "it is not a regular file");
    while ((n = read(fd, buffer, sizeof(buffer))) > 0 && text.length <= TOML_MAX_BYTES)
        strbuf_add(&text, buffer, (size_t)n);
    if (n < 0)
        return cannot_read(search, path, strerror(errno));
    if (hosts_file_parse(strbuf_text(&text), text.length, path, &search->file, &search->error))
        return true;
    search->error.code = ERROR_FAILED_PRECONDITION;
    return false;
}

static void search_in_pool(void *arg)
{
    struct search *search = arg;

    search->ok = true;
    for (char **path = search->paths; *path && search->ok && !search->found; path++)
        search->ok = read_hosts(search, *path);
}

bool await_hosts_load(char *const *dirs, const char *domain, struct hosts_file *ret,
                      bool *ret_found, struct error *err)
{
    CLEANUP(search_done) struct search search = {.ok = false};
    int r;

    *ret = (struct hosts_file){0};
    *ret_found = false;
    /* The domain becomes a directory's name. */
    if (!dirs || !*dirs || domain[0] == '.' || strchr(domain, '/'))
        return true;
    list_paths(&search, dirs, domain);
    if ((r = await_work(search_in_pool, &search, "reading hosts.toml")) < 0)
        return await_error(err, r, "reading hosts.toml");
    if (!search.ok)
        return error_move(err, &search.error);
    *ret_found = search.found;
    *ret = search.file;
    search.file = (struct hosts_file){0};
    return true;
}

static void check_dir(const char *dir, char ***ret_errors)
{
    DIR *entries = opendir(dir);
    const struct dirent *entry;

    while (entries && (entry = readdir(entries))) {
        CLEANUP(search_done) struct search search = {.ok = false};
        CLEANUP_FREE char *path = xasprintf("%s/%s/hosts.toml", dir, entry->d_name);
        if (entry->d_name[0] != '.' && !read_hosts(&search, path))
            strv_add(ret_errors, search.error.message);
    }
    if (entries)
        closedir(entries);
}

void hosts_dirs_check_blocking(char *const *dirs, char ***ret_errors)
{
    for (; dirs && *dirs; dirs++)
        check_dir(*dirs, ret_errors);
}
