#include "daemon/server/listener.h"

#include <errno.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>

#include "daemon/system/info.h"

#define BACKLOG 1024

/* Creates the directories above path: 0711, so that the socket's group can reach it. */
static bool make_parents(const char *path, struct error *err)
{
    CLEANUP_FREE char *copy = xstrdup(path);

    for (char *slash = strchr(copy + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(copy, 0711) < 0 && errno != EEXIST)
            return error_set_errno(err, errno, "cannot create directory %s", copy);
        *slash = '/';
    }
    return true;
}

/* A daemon that died leaves its socket behind: connecting tells whether anybody listens. */
static bool remove_stale(const struct sockaddr_un *address, struct error *err)
{
    CLEANUP_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const char *path = address->sun_path;
    struct stat st;

    if (lstat(path, &st) < 0)
        return errno == ENOENT || error_set_errno(err, errno, "cannot look at %s", path);
    if (!S_ISSOCK(st.st_mode)) {
        error_set(err, ERROR_ALREADY_EXISTS, "SOCKET_IN_USE",
                  "cannot listen on %s: it exists and is not a socket", path);
        return error_hint(err, "remove it, or choose another path with --host");
    }
    if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 || errno == EAGAIN) {
        error_set(err, ERROR_ALREADY_EXISTS, "SOCKET_IN_USE",
                  "cannot listen on %s: another process does", path);
        return error_hint(err, "stop the other davitd, or choose another path with --host");
    }
    if (unlink(path) < 0 && errno != ENOENT)
        return error_set_errno(err, errno, "cannot remove the stale socket %s", path);
    return true;
}

static bool set_owner(const char *path, const char *group, struct error *err)
{
    gid_t gid = 0;

    if (group && !system_group_id(group, &gid)) {
        error_set(err, ERROR_NOT_FOUND, NULL, "cannot give %s to group \"%s\": no such group", path,
                  group);
        return error_hint(err, "create it with 'groupadd --system %s'", group);
    }
    if (chown(path, 0, gid) < 0 || chmod(path, 0660) < 0)
        return error_set_errno(err, errno, "cannot set owner and mode of %s", path);
    return true;
}

bool listener_open(const char *host, const char *group, struct listener *ret, struct error *err)
{
    const char *path = host + strlen("unix://");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    CLEANUP_CLOSE int fd = -1;
    mode_t mask;
    int bound;

    *ret = (struct listener){0};
    if (strlen(path) >= sizeof(address.sun_path))
        return error_set(err, ERROR_INVALID_ARGUMENT, NULL,
                         "cannot listen on %s: the path is longer than %zu bytes", path,
                         sizeof(address.sun_path) - 1);
    memcpy(address.sun_path, path, strlen(path) + 1);
    if (!make_parents(path, err) || !remove_stale(&address, err))
        return false;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return error_set_errno(err, errno, "cannot create a socket");
    mask = umask(0177); /* nobody else connects before owner and mode are set */
    bound = bind(fd, (struct sockaddr *)&address, sizeof(address));
    umask(mask);
    if (bound < 0)
        return error_set_errno(err, errno, "cannot listen on %s", path);
    if (!set_owner(path, group, err) || listen(fd, BACKLOG) < 0) {
        if (!error_is_set(err))
            error_set_errno(err, errno, "cannot listen on %s", path);
        unlink(path);
        return false;
    }
    ret->path = xstrdup(path);
    ret->stream = stream_new(TAKE_FD(fd));
    return true;
}

bool listeners_from_systemd(struct listener *listeners, size_t *ret_count, struct error *err)
{
    int count = sd_listen_fds(1);

    *ret_count = 0;
    if (count < 0)
        return error_set_errno(err, count, "cannot take over systemd's sockets");
    if (count > LISTENERS_MAX)
        return error_set(err, ERROR_INVALID_ARGUMENT, NULL,
                         "systemd passed %d sockets, the limit is %d", count, LISTENERS_MAX);
    for (int i = 0; i < count; i++) {
        int fd = SD_LISTEN_FDS_START + i;
        if (sd_is_socket(fd, AF_UNIX, SOCK_STREAM, 1) <= 0)
            return error_set(err, ERROR_INVALID_ARGUMENT, NULL,
                             "descriptor %d from systemd is not a listening unix socket", fd);
        listeners[*ret_count] = (struct listener){.stream = stream_new(fd)};
        ++*ret_count;
    }
    return true;
}

void listener_done(struct listener *listener)
{
    if (listener->path)
        unlink(listener->path);
    free(listener->path);
    stream_free(listener->stream);
    *listener = (struct listener){0};
}
