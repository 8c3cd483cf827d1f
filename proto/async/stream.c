#include "proto/async/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "proto/async/await.h"
#include "proto/async/internal.h"
#include "proto/async/loop.h"

/* How a descriptor is waited for. */
enum stream_kind {
    STREAM_NONBLOCKING, /* ours alone: O_NONBLOCK and readiness */
    STREAM_SHARED,      /* stdin, stdout, stderr share their file description, and so its flags,
                           with other processes: readiness, then small blocking operations */
    STREAM_POOL,        /* regular files have no readiness: the thread pool */
};

struct stream {
    int fd;
    enum stream_kind kind;
    bool socket;
    uv_poll_t *poll; /* made at the first wait */
    int watched;     /* UV_READABLE | UV_WRITABLE */
    struct event readable, writable;
    bool reading, writing; /* in the thread pool */
};

/* A pipe that is ready for writing takes this much without blocking (pipe(7)). */
#define SHARED_WRITE_BYTES 4096

/* What the thread pool does of one operation cannot be cancelled. */
#define POOL_BYTES (1 * MIB)

struct stream *stream_new(int fd)
{
    struct stream *stream = xcalloc(1, sizeof(*stream));
    struct stat st;
    int flags = fcntl(fd, F_GETFL);

    stream->fd = fd;
    if (fstat(fd, &st) < 0 || flags < 0)
        die("a stream needs an open descriptor, not %d", fd);
    stream->socket = S_ISSOCK(st.st_mode);
    if (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode))
        stream->kind = STREAM_POOL;
    else if (fd <= STDERR_FILENO)
        stream->kind = STREAM_SHARED;
    else if (!(flags & O_NONBLOCK))
        fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    return stream;
}

static void on_poll_closed(uv_handle_t *handle)
{
    free(handle);
}

int stream_release(struct stream *stream)
{
    int fd = stream->fd;

    if (stream->readable.task || stream->writable.task || stream->reading || stream->writing)
        die("a stream is freed while a task waits for it");
    if (stream->poll) {
        uv_poll_stop(stream->poll);
        uv_close((uv_handle_t *)stream->poll, on_poll_closed);
    }
    free(stream);
    return fd;
}

struct stream *stream_free(struct stream *stream)
{
    if (stream)
        close(stream_release(stream));
    return NULL;
}

int stream_fd(const struct stream *stream)
{
    return stream->fd;
}

/* --- Readiness -------------------------------------------------------------------------------- */

static void on_poll(uv_poll_t *handle, int status, int events);

static void watch(struct stream *stream, int directions)
{
    stream->watched = directions;
    if (directions)
        uv_poll_start(stream->poll, directions, on_poll);
    else
        uv_poll_stop(stream->poll);
}

static void on_poll(uv_poll_t *handle, int status, int events)
{
    struct stream *stream = handle->data;

    if (status < 0) /* the operation itself will tell the error */
        events = UV_READABLE | UV_WRITABLE;
    events &= stream->watched;
    watch(stream, stream->watched & ~events);
    if (events & UV_READABLE)
        event_fire(&stream->readable);
    if (events & UV_WRITABLE)
        event_fire(&stream->writable);
}

/* Makes the handle at the first wait. 0, -EPERM if the kernel knows no readiness for it, or another
 * negative errno. */
static int make_poll(struct stream *stream)
{
    uv_poll_t *poll;
    int r, flags = fcntl(stream->fd, F_GETFL);

    if (stream->poll)
        return 0;
    poll = xcalloc(1, sizeof(*poll));
    r = uv_poll_init(loop_uv(), poll, stream->fd);
    if (r < 0) {
        free(poll);
        return r;
    }
    /* libuv has set O_NONBLOCK, which the others who share it do not expect. */
    if (stream->kind == STREAM_SHARED)
        fcntl(stream->fd, F_SETFL, flags);
    poll->data = stream;
    stream->poll = poll;
    return 0;
}

static int await_ready(struct stream *stream, int direction)
{
    struct event *event = direction == UV_READABLE ? &stream->readable : &stream->writable;
    int r = task_check();

    if (r < 0 || stream->kind == STREAM_POOL)
        return r;
    if (event->task)
        die("two tasks %s one stream", direction == UV_READABLE ? "read" : "write");
    if ((r = make_poll(stream)) < 0) {
        if (r != -EPERM)
            return r;
        stream->kind = STREAM_POOL; /* such as /dev/null */
        return 0;
    }
    event->fired = false;
    watch(stream, stream->watched | direction);
    r = await_event(event, direction == UV_READABLE ? "reading" : "writing");
    if (r < 0 && (stream->watched & direction))
        watch(stream, stream->watched & ~direction);
    return r;
}

int await_readable(struct stream *stream)
{
    return await_ready(stream, UV_READABLE);
}

int await_writable(struct stream *stream)
{
    return await_ready(stream, UV_WRITABLE);
}

/* --- Reading and writing ---------------------------------------------------------------------- */

/* A shared descriptor may block: ask the kernel first. */
static bool shared_would_block(const struct stream *stream, short events)
{
    struct pollfd pollfd = {.fd = stream->fd, .events = events};

    return stream->kind == STREAM_SHARED && poll(&pollfd, 1, 0) == 0;
}

ssize_t stream_try_read(struct stream *stream, void *buffer, size_t size)
{
    ssize_t n;

    if (shared_would_block(stream, POLLIN))
        return -EAGAIN;
    do
        n = read(stream->fd, buffer, size);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

ssize_t stream_try_write(struct stream *stream, const void *data, size_t size)
{
    ssize_t n;

    if (shared_would_block(stream, POLLOUT))
        return -EAGAIN;
    if (stream->kind == STREAM_SHARED)
        size = MIN(size, SHARED_WRITE_BYTES);
    do
        n = stream->socket ? send(stream->fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT)
                           : write(stream->fd, data, size);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

struct file_operation {
    struct stream *stream;
    void *buffer;
    const void *data;
    size_t size;
    ssize_t result;
};

static void file_read(void *arg)
{
    struct file_operation *op = arg;

    op->result = stream_try_read(op->stream, op->buffer, op->size);
}

static void file_write(void *arg)
{
    struct file_operation *op = arg;

    op->result = stream_try_write(op->stream, op->data, op->size);
}

static ssize_t await_file_operation(struct file_operation *op)
{
    bool *busy = op->data ? &op->stream->writing : &op->stream->reading;
    int r;

    if (*busy)
        die("two tasks %s one stream", op->data ? "write" : "read");
    op->size = MIN(op->size, POOL_BYTES);
    *busy = true;
    r = op->data ? await_work(file_write, op, "writing a file")
                 : await_work(file_read, op, "reading a file");
    *busy = false;
    return r < 0 ? r : op->result;
}

ssize_t await_read(struct stream *stream, void *buffer, size_t size)
{
    struct file_operation op = {.stream = stream, .buffer = buffer, .size = size};
    ssize_t n;
    int r = await_slice();

    if (r < 0)
        return r;
    while (stream->kind != STREAM_POOL) {
        n = stream_try_read(stream, buffer, size);
        if (n != -EAGAIN)
            return n;
        if ((r = await_readable(stream)) < 0)
            return r;
    }
    return await_file_operation(&op);
}

static ssize_t await_write_some(struct stream *stream, const void *data, size_t size)
{
    struct file_operation op = {.stream = stream, .data = data, .size = size};
    ssize_t n;
    int r = await_slice();

    if (r < 0)
        return r;
    while (stream->kind != STREAM_POOL) {
        n = stream_try_write(stream, data, size);
        if (n != -EAGAIN)
            return n;
        if ((r = await_writable(stream)) < 0)
            return r;
    }
    return await_file_operation(&op);
}

int await_write(struct stream *stream, const void *data, size_t size)
{
    const char *rest = data;

    if (size == 0)
        return task_check();
    while (size > 0) {
        ssize_t n = await_write_some(stream, rest, size);
        if (n < 0)
            return (int)n;
        rest += n;
        size -= (size_t)n;
    }
    return 0;
}

/* --- Sockets and pipes ------------------------------------------------------------------------ */

int await_accept(struct stream *listener)
{
    for (;;) {
        int r = await_slice();
        if (r < 0)
            return r;
        int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0)
            return fd;
        if (errno == EINTR || errno == ECONNABORTED)
            continue;
        if (errno != EAGAIN)
            return -errno;
        if ((r = await_readable(listener)) < 0)
            return r;
    }
}

/* A listener whose queue is full answers EAGAIN: a daemon that is busy starting. */
#define CONNECT_RETRY_MS 10
#define CONNECT_TIMEOUT_MS 5000

int await_connect_unix(const char *path, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    CLEANUP_CLOSE int fd = -1;
    uint64_t started_ms = loop_now_ms();
    int r = task_check();

    if (r < 0) {
        error_set_errno(err, r, "cannot connect to %s", path);
        return -1;
    }
    if (strlen(path) >= sizeof(address.sun_path)) {
        error_set(err, ERROR_INVALID_ARGUMENT, NULL,
                  "socket path \"%s\" is too long: %zu bytes, the limit is %zu", path, strlen(path),
                  sizeof(address.sun_path) - 1);
        return -1;
    }
    memcpy(address.sun_path, path, strlen(path) + 1);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        error_set_errno(err, errno, "cannot create a socket");
        return -1;
    }
    while (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        r = errno == EAGAIN ? await_sleep(CONNECT_RETRY_MS) : -errno;
        if (r == 0 && loop_now_ms() - started_ms > CONNECT_TIMEOUT_MS)
            r = -ETIMEDOUT;
        if (r < 0) {
            error_set_errno(err, r, "cannot connect to %s", path);
            return -1;
        }
    }
    return TAKE_FD(fd);
}

int pipe_cloexec(int *ret_read_fd, int *ret_write_fd)
{
    int fds[2];

    if (pipe2(fds, O_CLOEXEC) < 0)
        return -errno;
    *ret_read_fd = fds[0];
    *ret_write_fd = fds[1];
    return 0;
}
