#include "client/job_call.h"
#include "proto/base/size.h"

static bool await_push_command(struct cli *cli, struct error *err)
{
    const char *rate = flag_string(&cli->flags, "limit-rate");
    const bool detach = flag_bool(&cli->flags, "detach");
    const struct watch_options watch = {
        .progress = flag_string(&cli->flags, "progress"),
        .quiet = flag_bool(&cli->flags, "quiet"),
        .interrupt = flag_bool(&cli->flags, "detach-on-interrupt") ? WATCH_INTERRUPT_DETACHES
                                                                   : WATCH_INTERRUPT_ASKS,
        .what = "push",
    };
    Davit__V1__PushRequest request = DAVIT__V1__PUSH_REQUEST__INIT;
    CLEANUP(request_login_done) struct request_login login = {0};
    CLEANUP(grpc_call_cleanup) struct grpc_call *call = NULL;

    cli_cancel_on_signals(cli);
    if (rate)
        size_parse(rate, &request.limit_bytes_per_second);
    request.reference = cli->flags.args[0];
    request.all_tags = flag_bool(&cli->flags, "all-tags");
    request.compression = text_or_empty(flag_string(&cli->flags, "compression"));
    request.detach = detach;
    if (!await_cli_connect(cli, err) || !await_request_login(cli, request.reference, &login, err))
        return false;
    request.auth = login.auth;
    call = await_job_call(cli, "/davit.v1.Images/Push", &request.base, err);
    if (!call)
        return false;
    if (detach ? await_print_job(cli, call, err) : await_watch(cli, call, &watch, err))
        return true;
    return cli_reference_error(err);
}

static const struct flag flags[] = {
    {.name = "all-tags",
     .shorthand = 'a',
     .type = FLAG_BOOL,
     .help = "Push all tags of an image to the repository"},
    {.name = "compression",
     .type = FLAG_STRING,
     .help = "How layers that the registry lacks are compressed; as they were, if not given",
     .choices = "gzip|zstd"},
    {.name = "detach",
     .shorthand = 'd',
     .type = FLAG_BOOL,
     .help = "Push in the background and print the job's ID"},
    {.name = "detach-on-interrupt",
     .type = FLAG_BOOL,
     .help = "Let the push go on when it is interrupted (Ctrl-C)"},
    {.name = "limit-rate",
     .type = FLAG_STRING,
     .kind = "rate",
     .help = "Send at most so many (compressed) bytes per second: 500k, 2M, 512KiB; 0 for no "
             "limit",
     .check = check_rate},
    {.name = "progress",
     .type = FLAG_STRING,
     .help = "How progress is shown",
     .choices = WATCH_PROGRESS_CHOICES,
     .fallback = "auto"},
    {.name = "quiet", .shorthand = 'q', .type = FLAG_BOOL, .help = "Suppress verbose output"},
};

const struct command push_command = {
    .usage = "[OPTIONS] NAME[:TAG]",
    .summary = "Upload an image to a registry",
    .flags = flags,
    .flag_count = ARRAY_SIZE(flags),
    .min_args = 1,
    .max_args = 1,
    .completes = COMPLETE_IMAGE,
    .description =
        "Sends an image to the registry that its name says, without the layers that are there "
        "already. The image has the manifest it came with, and so its digest, wherever its layers "
        "are at the registry, can be mounted there from another repository, or were kept as they "
        "came; davit says so where the manifest differs.\n"
        "\n"
        "As with pull, the work belongs to the daemon.",
    .examples = "    davit tag app:1 registry.example.com/team/app:1\n"
                "    davit push registry.example.com/team/app:1\n"
                "\n"
                "All tags of a repository, layers that have to be compressed by zstd:\n"
                "\n"
                "    davit push --all-tags --compression zstd registry.example.com/team/app",
    .await_run = await_push_command,
};
