/* Pulling an image with everything the user sees of it: for `davit pull` and for `davit run` of an
 * image that is not there. */
#pragma once

#include "client/cli.h"

struct pull_options {
    const char *reference;
    const char *platform; /* NULL: the daemon's own */
    const char *progress; /* "auto", "tty", "plain" or "json" */
    bool quiet;
    bool within_run; /* everything goes to standard error, as Docker has it */
};

#define PULL_PROGRESS_CHOICES "auto|tty|plain|json"

/* Pulls and shows progress until the image is there. Cancel leaves the terminal in order and the
 * daemon stops what nobody else waits for. Errors: the daemon's, or of writing the output. */
bool await_pull(struct cli *cli, const struct pull_options *options, struct error *err);
