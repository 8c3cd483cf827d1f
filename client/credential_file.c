#include "client/credential_file.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <pwd.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "client/secrets.h"
#include "client/ui/json_indent.h"
#include "proto/async/await.h"
#include "proto/base/strbuf.h"

#define CONFIG_MAX_BYTES (4 * MIB)

/* --- Reading ----------------------------------------------------------------------------------
 */

char *credential_file_path(void)
{
    const char *dir = getenv("DOCKER_CONFIG"), *home = getenv("HOME");
    const struct passwd *user;

    if (!str_empty(dir))
        return xasprintf("%s/config.json", dir);
    if (str_empty(home)) {
        user = getpwuid(getuid());
        home = user ? user->pw_dir : "/";
    }
    return xasprintf("%s/.docker/config.json", home);
}

bool credential_file_load(const char *path, json_t **ret, struct error *err)
{
    CLEANUP_SECRET_STRBUF struct strbuf text = {0};
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    *ret = NULL;
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
        return true;
    if (fd < 0)
        return error_set_errno(err, errno, "cannot read %s", path);
    /* At once, so that no secret is left where a growing buffer was. */
    strbuf_reserve(&text, 16 * KIB);
    do {
        strbuf_reserve(&text, 16 * KIB);
        n = read(fd, text.data + text.length, 16 * KIB);
        if (n < 0)
            return error_set_errno(err, errno, "cannot read %s", path);
        text.length += (size_t)n;
        text.data[text.length] = '\0';
    } while (n > 0 && text.length <= CONFIG_MAX_BYTES);
    *ret = json_parse(text.data, text.length, CONFIG_MAX_BYTES, path, err);
    if (!*ret)
        drop_quotation(err);
    return *ret != NULL;
}

/* --- Entries ----------------------------------------------------------------------------------
 */

/* "https://host:port/v1/" is "host:port". */
static bool is_key_of(const char *key, const char *domain)
{
    size_t length;

    if (str_starts(key, "https://"))
        key += strlen("https://");
    else if (str_starts(key, "http://"))
        key += strlen("http://");
    length = strcspn(key, "/");
    return length == strlen(domain) && strncmp(key, domain, length) == 0;
}

const json_t *credential_entry_find(const json_t *entries, const char *key, const char *domain)
{
    const json_t *exact = json_object_get(entries, key);
    const char *other;
    json_t *value;

    if (exact)
        return exact;
    json_object_foreach ((json_t *)entries, other, value) {
        if (is_key_of(other, domain))
            return value;
    }
    return NULL;
}

static bool erase_entries(json_t *entries, const char *domain)
{
    const char *key;
    void *next;
    json_t *value;
    bool erased = false;

    json_object_foreach_safe (entries, next, key, value) {
        if (is_key_of(key, domain))
            erased |= json_object_del(entries, key) == 0;
    }
    return erased;
}

/* --- Writing ----------------------------------------------------------------------------------
 */

/* One edit, in the thread pool. */
struct work {
    const struct credential_edit *edit;
    bool changed, ok;
    struct error error;
};

/* Where a link leads, also one that dangles: the file that is to be replaced. */
static char *final_path(const char *path)
{
    char *real = realpath(path, NULL);
    char target[4096];
    ssize_t length;

    if (real)
        return real;
    length = readlink(path, target, sizeof(target) - 1);
    if (length <= 0)
        return xstrdup(path);
    target[length] = '\0';
    if (target[0] == '/')
        return xstrdup(target);
    CLEANUP_FREE char *copy = xstrdup(path);
    return xasprintf("%s/%s", dirname(copy), target);
}

static bool make_directory(const char *dir, struct error *err)
{
    CLEANUP_FREE char *copy = xstrdup(dir);

    for (char *slash = copy + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = '\0';
        mkdir(copy, 0700);
        *slash = '/';
    }
    if (mkdir(dir, 0700) < 0 && errno != EEXIST)
        return error_set_errno(err, errno, "cannot make %s", dir);
    return true;
}

/* Held until it is closed: whoever edits the file waits here, and reads it only then. A file system
 * that knows no locks has to do without. */
static int lock_directory(const char *dir, struct error *err)
{
    CLEANUP_CLOSE int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0 || (flock(fd, LOCK_EX) < 0 && errno != ENOLCK && errno != EOPNOTSUPP)) {
        error_set_errno(err, errno, "cannot lock %s", dir);
        return -1;
    }
    return TAKE_FD(fd);
}

static bool write_all(int fd, const struct strbuf *text)
{
    size_t written = 0;

    while (written < text->length) {
        ssize_t n = write(fd, text->data + written, text->length - written);
        if (n < 0)
            return false;
        written += (size_t)n;
    }
    return true;
}

static bool write_temporary(const char *temporary, const char *path, const struct strbuf *text)
{
    struct stat old;
    CLEANUP_CLOSE int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    if (fd < 0 || fchmod(fd, 0600) < 0 || !write_all(fd, text))
        return false;
    /* sudo with the user's HOME: it stays the user's. */
    if (stat(path, &old) == 0 && old.st_uid != geteuid() && fchown(fd, old.st_uid, old.st_gid) < 0)
        return false;
    return fsync(fd) == 0;
}

static bool replace_file(const char *path, int dir_fd, const json_t *config, struct error *err)
{
    CLEANUP_FREE char *temporary = xasprintf("%s.%d", path, getpid());
    CLEANUP_SECRET_STRBUF struct strbuf text = {0};
    char *plain = json_text(config);

    strbuf_reserve(&text, strlen(plain) * 4);
    add_json_indented(&text, plain, strlen(plain), "\t");
    explicit_bzero(plain, strlen(plain));
    free(plain);
    unlink(temporary); /* of a process that had our number before */
    if (write_temporary(temporary, path, &text) && rename(temporary, path) == 0 &&
        fsync(dir_fd) == 0)
        return true;
    error_set_errno(err, errno, "cannot write %s", path);
    unlink(temporary);
    return false;
}

static bool edit_config(json_t *config, const struct credential_edit *edit)
{
    json_t *entries = json_object_get(config, "auths");

    if (!json_is_object(entries)) {
        if (!edit->entry)
            return false;
        entries = json_object();
        json_object_set_new(config, "auths", entries);
    }
    if (!edit->entry)
        return erase_entries(entries, edit->domain);
    if (json_equal(json_object_get(entries, edit->key), edit->entry))
        return false;
    /* A spelling of old would be found no more, but would not go away either. */
    if (!json_object_get(entries, edit->key))
        erase_entries(entries, edit->domain);
    json_object_set(entries, edit->key, edit->entry);
    return true;
}

static void edit_blocking(void *arg)
{
    struct work *work = arg;
    CLEANUP_FREE char *path = final_path(work->edit->path);
    CLEANUP_FREE char *copy = xstrdup(path);
    CLEANUP_JSON json_t *config = NULL;
    CLEANUP_CLOSE int dir_fd = -1;
    const char *dir = dirname(copy);

    if (work->edit->entry && !make_directory(dir, &work->error))
        return;
    if (!work->edit->entry && access(path, F_OK) < 0 && errno == ENOENT) {
        work->ok = true; /* nothing there to be erased */
        return;
    }
    dir_fd = lock_directory(dir, &work->error);
    if (dir_fd < 0 || !credential_file_load(path, &config, &work->error))
        return;
    if (!config)
        config = json_object();
    work->changed = edit_config(config, work->edit);
    work->ok = !work->changed || replace_file(path, dir_fd, config, &work->error);
}

bool await_credential_file_edit(const struct credential_edit *edit, bool *ret_changed,
                                struct error *err)
{
    struct work work = {.edit = edit};
    const int r = await_work(edit_blocking, &work, "changing config.json");

    *ret_changed = work.changed && work.ok;
    if (work.ok)
        return true;
    if (r < 0 && !error_is_set(&work.error))
        return await_error(err, r, "changing %s", edit->path);
    return error_move(err, &work.error);
}
