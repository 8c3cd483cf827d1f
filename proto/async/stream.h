/* Byte streams on file descriptors: sockets, pipes, terminals by readiness, regular files through
 * the thread pool. One task may read while another writes; two readers at once abort. */
#pragma once

#include <sys/socket.h>
#include <sys/types.h>

#include "proto/async/task.h"

struct stream;

/* Takes ownership of fd, makes it non-blocking where that makes sense. */
struct stream *stream_new(int fd);
struct stream *stream_free(struct stream *stream); /* closes; no task may be waiting; NULL */
static inline void stream_cleanup(struct stream **stream)
{
    *stream = stream_free(*stream);
}

int stream_fd(const struct stream *stream);

/* Frees the stream and hands its descriptor back, open; no task may be waiting. */
int stream_release(struct stream *stream);

/* Bytes read, 0 at the end, or a negative errno. Waits until at least one byte is there. */
ssize_t await_read(struct stream *stream, void *buffer, size_t size);

/* Writes all of it: 0 or a negative errno (-EPIPE if the reader has gone; no SIGPIPE). */
int await_write(struct stream *stream, const void *data, size_t size);

/* One attempt without waiting: count, 0 at the end (read), or -EAGAIN and other errnos. */
ssize_t stream_try_read(struct stream *stream, void *buffer, size_t size);
ssize_t stream_try_write(struct stream *stream, const void *data, size_t size);

/* Waits until a read (write) would not block. */
int await_readable(struct stream *stream);
int await_writable(struct stream *stream);

/* Waits for a connection on a listening socket: a new CLOEXEC descriptor, or a negative errno. */
int await_accept(struct stream *listener);

/* Connects to a unix socket: a descriptor, or -1 with err ("cannot connect to ..."). */
int await_connect_unix(const char *path, struct error *err);

/* Makes a pipe with CLOEXEC on both ends. 0 or a negative errno. */
int pipe_cloexec(int *ret_read_fd, int *ret_write_fd);
