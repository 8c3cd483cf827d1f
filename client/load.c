#include <stdio.h>

#include "client/ui/terminal.h"
#include "client/upload.h"
#include "proto/davit/v1/images.pb-c.h"

static bool await_call(struct cli *cli, struct upload *upload, const char *file, struct error *err)
{
    Davit__V1__LoadImagesRequest__LoadOptions options =
        DAVIT__V1__LOAD_IMAGES_REQUEST__LOAD_OPTIONS__INIT;
    Davit__V1__LoadImagesRequest first = DAVIT__V1__LOAD_IMAGES_REQUEST__INIT,
                                 piece = DAVIT__V1__LOAD_IMAGES_REQUEST__INIT;
    const struct watch_options watch = {
        .quiet = flag_bool(&cli->flags, "quiet") || !terminal_is_smart(STDOUT_FILENO),
        .interrupt = WATCH_INTERRUPT_CANCELS,
        .what = "load",
    };
    options.bytes_total = upload->bytes_total;
    options.subject = (char *)(file ? path_base(file) : "stdin");
    if (flag_is_set(&cli->flags, "platform"))
        options.platform = (char *)flag_string(&cli->flags, "platform");
    first.what_case = DAVIT__V1__LOAD_IMAGES_REQUEST__WHAT_OPTIONS;
    first.options = &options;
    piece.what_case = DAVIT__V1__LOAD_IMAGES_REQUEST__WHAT_DATA;
    return await_upload(cli, upload, "/davit.v1.Images/Load", &first.base, &piece.base, &piece.data,
                        &watch, err);
}

static bool nothing_to_load(struct error *err)
{
    return error_set(err, ERROR_INVALID_ARGUMENT, NULL,
                     "requested load from stdin, but stdin is empty");
}

static bool await_load_command(struct cli *cli, struct error *err)
{
    const char *file = flag_string(&cli->flags, "input");
    CLEANUP(upload_done) struct upload upload = {0};
    ssize_t n;
    if (str_empty(file) && isatty(STDIN_FILENO))
        return nothing_to_load(err);
    if (!upload_open(&upload, str_empty(file) ? NULL : file, err))
        return false;
    cli_cancel_on_signals(cli);
    n = await_upload_begin(&upload, err);
    if (n < 0)
        return false;
    if (n == 0 && str_empty(file))
        return nothing_to_load(err);
    return await_call(cli, &upload, str_empty(file) ? NULL : file, err);
}

static const struct flag flags[] = {
    {.name = "input",
     .shorthand = 'i',
     .type = FLAG_STRING,
     .help = "Read from tar archive file, instead of STDIN",
     .completes = COMPLETE_FILES},
    {.name = "platform",
     .type = FLAG_STRING,
     .help = "Load only the given platform variant. Formatted as \"os[/arch[/variant]]\" "
             "(e.g., \"linux/amd64\")",
     .suggestions = PLATFORM_SUGGESTIONS},
    {.name = "quiet", .shorthand = 'q', .type = FLAG_BOOL, .help = "Suppress the load output"},
};

const struct command load_command = {
    .usage = "[OPTIONS]",
    .summary = "Load an image from a tar archive or STDIN",
    .flags = flags,
    .flag_count = ARRAY_SIZE(flags),
    .min_args = 0,
    .max_args = 0,
    .description =
        "Loads images with their names and tags from an archive that docker, podman, skopeo or "
        "davit saved: what 'docker save' writes, or an OCI image layout, plain or compressed by "
        "gzip, zstd, xz or bzip2. All of its images are loaded, or none; layers that are there are "
        "read, but not stored again.\n\n"
        "Of an image for several platforms the one for this machine is loaded, or with --platform "
        "that one; then an archive with an image that does not run on it is an error.",
    .examples = "    davit load -i busybox.tar\n"
                "    davit load < images.tar.zst\n"
                "    ssh server docker save myapp | davit load",
    .await_run = await_load_command,
};
