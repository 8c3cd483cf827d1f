#include "client/cli.h"
#include "client/output_file.h"
#include "client/painter.h"
#include "client/ui/bar.h"
#include "client/ui/terminal.h"
#include "proto/davit/v1/images.pb-c.h"

/* What may be on its way while a piece is written. */
#define WINDOW_BYTES (1 * MIB)

struct save {
    struct cli *cli;
    const char *output; /* NULL: standard output */
    struct output_file file;
    uint64_t done_bytes, total_bytes;
    uint64_t began_ms;
    struct painter painter;
    bool drawn;
};

/* --- Progress ----------------------------------------------------------------------------------
 */

static void leave(void *arg, struct strbuf *out)
{
    struct save *save = arg;
    if (save->drawn)
        bar_line_leave(out);
    save->drawn = false;
}

static void render(void *arg, struct strbuf *out)
{
    struct save *save = arg;
    const uint64_t passed_ms = MAX(now_ms() - save->began_ms, 1);
    const struct bar_line line = {
        .what = "Saving",
        .done = save->done_bytes,
        .total = save->total_bytes,
        .bytes_per_second = save->done_bytes * 1000 / passed_ms,
        .eta_ms = save->done_bytes ? (int64_t)((double)(save->total_bytes - save->done_bytes) *
                                               (double)passed_ms / (double)save->done_bytes)
                                   : -1,
    };
    bar_line_draw(&line, terminal_size(save->painter.fd), out);
    save->drawn = true;
}

/* --- The archive -------------------------------------------------------------------------------
 */

static bool await_take(struct save *save, const void *data, size_t size, struct error *err)
{
    save->done_bytes += size;
    painter_changed(&save->painter, save->painter.live);
    if (!save->output)
        return await_cli_print(save->cli, data, size, err);
    return await_output_file_write(&save->file, data, size, err) ||
           error_prefix(err, "failed to save image");
}

static bool await_message(struct save *save, struct grpc_call *call,
                          const Davit__V1__SaveImagesResponse *message, struct error *err)
{
    switch (message->what_case) {
    case DAVIT__V1__SAVE_IMAGES_RESPONSE__WHAT_START:
        grpc_call_set_window(call, WINDOW_BYTES);
        save->total_bytes = message->start->bytes_total;
        save->began_ms = now_ms();
        return true;
    case DAVIT__V1__SAVE_IMAGES_RESPONSE__WHAT_DATA:
        return await_take(save, message->data.data, message->data.len, err);
    default:
        return true; /* of a newer daemon */
    }
}

static bool await_receive(struct save *save, struct grpc_call *call, struct error *err)
{
    ProtobufCMessage *message = NULL;
    int r;
    while ((r = await_grpc_recv(call, &message, err)) > 0) {
        const bool taken =
            await_message(save, call, (const Davit__V1__SaveImagesResponse *)message, err);
        protobuf_c_message_free_unpacked(message, NULL);
        if (!taken)
            return false;
    }
    if (r < 0)
        return cli_daemon_error(err);
    return save->done_bytes == save->total_bytes ||
           error_set(err, ERROR_DATA_LOSS, NULL, "the daemon sent %llu bytes of an archive of %llu",
                     (unsigned long long)save->done_bytes, (unsigned long long)save->total_bytes);
}

static bool await_call(struct save *save, struct error *err)
{
    CLEANUP(grpc_call_cleanup) struct grpc_call *call = NULL;
    Davit__V1__SaveImagesRequest request = DAVIT__V1__SAVE_IMAGES_REQUEST__INIT;
    request.references = save->cli->flags.args;
    request.n_references = save->cli->flags.arg_count;
    if (flag_is_set(&save->cli->flags, "platform"))
        request.platform = (char *)flag_string(&save->cli->flags, "platform");
    call = await_cli_stream(save->cli, "/davit.v1.Images/Save", &request.base,
                            &davit__v1__save_images_response__descriptor, err);
    return call && await_receive(save, call, err);
}

/* --- davit save --------------------------------------------------------------------------------
 */

static bool await_to_file(struct save *save, struct error *err)
{
    return await_output_file_open(save->output, &save->file, err) && await_call(save, err) &&
           (await_output_file_commit(&save->file, err) ||
            error_prefix(err, "failed to save image"));
}

static void save_done_await(struct save *save)
{
    painter_done_await(&save->painter);
    output_file_done(&save->file);
}

static bool await_save_command(struct cli *cli, struct error *err)
{
    const char *output = flag_string(&cli->flags, "output");
    CLEANUP(save_done_await)
    struct save save = {
        .cli = cli,
        .output = str_empty(output) ? NULL : output,
        .file = {.fd = -1},
    };
    CLEANUP_ERROR struct error show_error = {0};
    if (!save.output && isatty(STDOUT_FILENO))
        return error_set(err, ERROR_INVALID_ARGUMENT, NULL,
                         "cowardly refusing to save to a terminal. Use the -o flag or redirect");
    if (save.output && !output_file_check(save.output, err))
        return error_prefix(err, "failed to save image");
    save.painter = (struct painter){
        .cli = cli,
        .fd = STDERR_FILENO,
        .live = save.output && terminal_is_smart(STDERR_FILENO),
        .render = save.output && terminal_is_smart(STDERR_FILENO) ? render : NULL,
        .leave = leave,
        .arg = &save,
    };
    cli_cancel_on_signals(cli);
    if (!painter_start(&save.painter, err))
        return false;
    const bool saved = save.output ? await_to_file(&save, err) : await_call(&save, err);
    const bool shown = await_painter_finish(&save.painter, &show_error);
    if (error_is_set(&save.painter.error))
        return error_move(err, &save.painter.error);
    return saved && (shown || error_move(err, &show_error));
}

static const struct flag flags[] = {
    {.name = "output",
     .shorthand = 'o',
     .type = FLAG_STRING,
     .help = "Write to a file, instead of STDOUT",
     .completes = COMPLETE_FILES},
    {.name = "platform",
     .type = FLAG_STRING,
     .help = "Save only the given platform variant. Formatted as \"os[/arch[/variant]]\" "
             "(e.g., \"linux/amd64\")",
     .suggestions = PLATFORM_SUGGESTIONS},
};

const struct command save_command = {
    .usage = "[OPTIONS] IMAGE [IMAGE...]",
    .summary = "Save one or more images to a tar archive (streamed to STDOUT by default)",
    .flags = flags,
    .flag_count = ARRAY_SIZE(flags),
    .min_args = 1,
    .max_args = ANY_NUMBER,
    .completes = COMPLETE_IMAGES,
    .description =
        "Writes images with their layers and names to one tar archive, which is an OCI image "
        "layout and what 'docker save' writes at once. A name without a tag stands for all its "
        "tags, an ID for the image without a name. The same images give the same bytes.\n\n"
        "A file is written beside its place and gets its name once it is complete.",
    .examples = "    davit save -o busybox.tar busybox:latest\n"
                "    davit save alpine debian:12 | zstd > images.tar.zst\n"
                "    davit save myapp | ssh server davit load",
    .await_run = await_save_command,
};
