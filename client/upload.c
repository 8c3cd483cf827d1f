#include "client/upload.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "proto/davit/v1/jobs.pb-c.h"

#define PIECE_BYTES (512 * KIB)

/* As Go words it: "open x: no such file or directory". */
static bool file_failed(const char *what, const char *file, int errnum, struct error *err)
{
    error_set_errno(err, errnum, "%s %s", what, file ? file : "standard input");
    char *why = strrchr(err->message, ':') + strlen(": ");
    *why = (char)tolower((unsigned char)*why);
    return false;
}

bool upload_open(struct upload *upload, const char *file, struct error *err)
{
    const int fd = file ? open(file, O_RDONLY | O_CLOEXEC) : dup(STDIN_FILENO);
    struct stat st;
    if (fd < 0)
        return file_failed("open", file, errno, err);
    upload->is_file = file;
    upload->input = stream_new(fd);
    upload->buffer = xmalloc(PIECE_BYTES);
    if (fstat(fd, &st) < 0)
        return true;
    if (S_ISDIR(st.st_mode))
        return file_failed("read", file, EISDIR, err);
    if (S_ISREG(st.st_mode)) {
        const off_t position = lseek(fd, 0, SEEK_CUR);
        upload->bytes_total = (uint64_t)(st.st_size - MIN(MAX(position, 0), st.st_size));
        posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    }
    return true;
}

void upload_done(struct upload *upload)
{
    stream_free(upload->input);
    free(upload->buffer);
}

static ssize_t await_piece(struct upload *upload, struct error *err)
{
    const ssize_t n = await_read(upload->input, upload->buffer, PIECE_BYTES);
    if (n < 0)
        await_error(err, (int)n, "cannot read %s", upload->is_file ? "the file" : "standard input");
    return n;
}

ssize_t await_upload_begin(struct upload *upload, struct error *err)
{
    const ssize_t n = await_piece(upload, err);
    upload->first_size = (size_t)MAX(n, 0);
    return n;
}

/* --- The call ----------------------------------------------------------------------------------
 */

struct sending {
    struct upload *upload;
    struct grpc_call *call;
    ProtobufCMessage *message;
    ProtobufCBinaryData *data;
    struct task *watcher;
    struct error read_error;
};

static void sending_done(struct sending *sending)
{
    error_done(&sending->read_error);
}

/* A call that has ended takes no more: whoever watches it learns why. */
static bool await_send(struct sending *sending, size_t size)
{
    *sending->data = (ProtobufCBinaryData){size, sending->upload->buffer};
    return await_grpc_send(sending->call, sending->message, NULL);
}

static bool send_task(void *arg, struct error *err UNUSED)
{
    struct sending *sending = arg;
    struct upload *upload = sending->upload;
    ssize_t n = (ssize_t)upload->first_size;
    if (n == 0)
        n = await_piece(upload, &sending->read_error);
    while (n > 0) {
        if (!await_send(sending, (size_t)n))
            return true;
        n = await_piece(upload, &sending->read_error);
    }
    if (n == 0)
        await_grpc_close_send(sending->call, NULL);
    else if (sending->read_error.code != ERROR_CANCELLED)
        task_cancel(sending->watcher); /* the archive is not whole: the call ends, and its job */
    return true;
}

bool await_upload(struct cli *cli, struct upload *upload, const char *method,
                  const ProtobufCMessage *options, ProtobufCMessage *message,
                  ProtobufCBinaryData *data, const struct watch_options *watch, struct error *err)
{
    CLEANUP(grpc_call_cleanup) struct grpc_call *call = NULL;
    CLEANUP(sending_done)
    struct sending sending = {.upload = upload, .message = message, .data = data};
    CLEANUP(group_done_await) struct group group;
    group_init(&group);
    if (!await_cli_connect(cli, err))
        return false;
    call = grpc_client_call(cli->client, method, &davit__v1__job_update__descriptor, NULL, err);
    if (!call || !await_grpc_send(call, options, err))
        return cli_daemon_error(err);
    sending.call = call;
    sending.watcher = task_current();
    if (!upload && !await_grpc_close_send(call, err))
        return cli_daemon_error(err);
    if (upload && !task_spawn(&group, "upload", NULL, send_task, &sending, err))
        return false;
    if (await_watch(cli, call, watch, err))
        return true;
    return error_is_set(&sending.read_error) && !cli->signum ? error_move(err, &sending.read_error)
                                                             : false;
}
