/* Sending a file, or standard input, to a job that works on it: what `davit load` and `davit
 * import` have in common. */
#pragma once

#include "client/watch.h"

struct upload {
    struct stream *input;
    uint64_t bytes_total; /* 0: not known */
    bool is_file;
    uint8_t *buffer;
    size_t first_size; /* of what was read before the call, in the buffer */
};

/* The last name of a path: what jobs are called. */
static inline const char *path_base(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* Opens the file; NULL: standard input. "open NAME: No such file or directory". */
bool upload_open(struct upload *upload, const char *file, struct error *err);
void upload_done(struct upload *upload);

/* Reads the first bytes. 0: there are none; -1 with err. */
ssize_t await_upload_begin(struct upload *upload, struct error *err);

/* Makes the call (upload NULL: there is nothing to send): sends the options, then the bytes while
 * its job is watched. message: for pieces; data: its member that takes them. A job that ends before
 * it has all ends the sending, too. */
bool await_upload(struct cli *cli, struct upload *upload, const char *method,
                  const ProtobufCMessage *options, ProtobufCMessage *message,
                  ProtobufCBinaryData *data, const struct watch_options *watch, struct error *err);
