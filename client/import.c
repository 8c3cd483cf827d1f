#include <stdio.h>

#include "client/ui/terminal.h"
#include "client/upload.h"
#include "proto/davit/v1/images.pb-c.h"

static bool is_url(const char *source)
{
    return str_starts(source, "http://") || str_starts(source, "https://");
}

static bool await_call(struct cli *cli, struct upload *upload, const char *source,
                       struct error *err)
{
    Davit__V1__ImportImageRequest__ImportOptions options =
        DAVIT__V1__IMPORT_IMAGE_REQUEST__IMPORT_OPTIONS__INIT;
    Davit__V1__ImportImageRequest first = DAVIT__V1__IMPORT_IMAGE_REQUEST__INIT,
                                  piece = DAVIT__V1__IMPORT_IMAGE_REQUEST__INIT;
    const struct watch_options watch = {
        .quiet = !terminal_is_smart(STDOUT_FILENO),
        .interrupt = WATCH_INTERRUPT_CANCELS,
        .what = "import",
    };
    options.bytes_total = upload ? upload->bytes_total : 0;
    options.source = (char *)source;
    options.reference = (char *)(cli->flags.arg_count > 1 ? cli->flags.args[1] : "");
    options.message = (char *)flag_string(&cli->flags, "message");
    options.platform = (char *)flag_string(&cli->flags, "platform");
    options.changes = (char **)flag_list(&cli->flags, "change");
    options.n_changes = strv_count(options.changes);
    options.message = options.message ? options.message : (char *)"";
    options.platform = options.platform ? options.platform : (char *)"";
    first.what_case = DAVIT__V1__IMPORT_IMAGE_REQUEST__WHAT_OPTIONS;
    first.options = &options;
    piece.what_case = DAVIT__V1__IMPORT_IMAGE_REQUEST__WHAT_DATA;
    return await_upload(cli, upload, "/davit.v1.Images/Import", &first.base, &piece.base,
                        &piece.data, &watch, err) ||
           cli_reference_error(err);
}

static bool await_import_command(struct cli *cli, struct error *err)
{
    const char *source = cli->flags.args[0];
    const bool from_stdin = str_eq(source, "-");
    const bool from_url = is_url(source);
    CLEANUP(upload_done) struct upload upload = {0};
    /* Opening a FIFO waits: until then signals end davit. */
    if (!from_url && !upload_open(&upload, from_stdin ? NULL : source, err))
        return false;
    cli_cancel_on_signals(cli);
    return from_url ? await_call(cli, NULL, source, err)
                    : await_call(cli, &upload, from_stdin ? "-" : path_base(source), err);
}

static const struct flag flags[] = {
    {.name = "change",
     .shorthand = 'c',
     .type = FLAG_LIST,
     .help = "Apply Dockerfile instruction to the created image"},
    {.name = "message",
     .shorthand = 'm',
     .type = FLAG_STRING,
     .help = "Set commit message for imported image"},
    {.name = "platform",
     .type = FLAG_STRING,
     .help = "Set platform if server is multi-platform capable",
     .suggestions = PLATFORM_SUGGESTIONS},
};

const struct command import_command = {
    .usage = "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
    .summary = "Import the contents from a tarball to create a filesystem image",
    .flags = flags,
    .flag_count = ARRAY_SIZE(flags),
    .min_args = 1,
    .max_args = 2,
    .completes = COMPLETE_FILE_IMAGE,
    .description =
        "Makes an image of one layer from a tar of a root file system: a file, standard input "
        "('-'), or what the daemon fetches from a URL; plain or compressed by gzip, zstd, xz or "
        "bzip2. Prints the image's ID.\n\n"
        "Instructions that change its configuration: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, "
        "LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME, WORKDIR.",
    .examples = "    davit import rootfs.tar.xz mydistro:12\n"
                "    tar -c . | davit import -c 'CMD [\"/bin/sh\"]' -m 'from here' - here:latest\n"
                "    davit import https://example.com/rootfs.tar.gz",
    .await_run = await_import_command,
};
