/* Pulling an image with everything the user sees of it: for `davit pull` and for `davit run` of an
 * image that is not there. */
#pragma once

#include "client/watch.h"

struct pull_options {
    const char *reference;
    const char *platform; /* NULL: the daemon's own */
    uint64_t limit_bytes_per_second;
    struct watch_options watch;
};

/* Pulls and shows progress until the image is there. Errors and cancel as of await_watch(). */
bool await_pull(struct cli *cli, const struct pull_options *options, struct error *err);
