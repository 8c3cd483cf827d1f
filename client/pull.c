#include "client/pull.h"

#include <stdio.h>

#include "client/job_call.h"
#include "client/ui/plan.h"
#include "proto/base/size.h"
#include "proto/davit/v1/registries.pb-c.h"

/* --- The call ----------------------------------------------------------------------------------
 */

static struct grpc_call *await_start_call(struct cli *cli, const struct pull_options *options,
                                          bool detach, struct error *err)
{
    Davit__V1__PullRequest request = DAVIT__V1__PULL_REQUEST__INIT;
    CLEANUP(request_login_done) struct request_login login = {0};
    if (!await_cli_connect(cli, err) || !await_request_login(cli, options->reference, &login, err))
        return NULL;
    request.reference = (char *)options->reference;
    request.platform = text_or_empty(options->platform);
    request.detach = detach;
    request.cancel_on_leave = options->watch.interrupt == WATCH_INTERRUPT_CANCELS;
    request.limit_bytes_per_second = options->limit_bytes_per_second;
    request.auth = login.auth;
    return await_job_call(cli, "/davit.v1.Images/Pull", &request.base, err);
}

bool await_pull(struct cli *cli, const struct pull_options *options, struct error *err)
{
    struct watch_options watch = options->watch;
    watch.what = "pull";
    cli_cancel_on_signals(cli);
    CLEANUP(grpc_call_cleanup)
    struct grpc_call *call = await_start_call(cli, options, false, err);
    return call && await_watch(cli, call, &watch, err);
}

/* --- Detached ----------------------------------------------------------------------------------
 */

static bool await_detached(struct cli *cli, const struct pull_options *options, struct error *err)
{
    CLEANUP(grpc_call_cleanup)
    struct grpc_call *call = await_start_call(cli, options, true, err);
    return call && await_print_job(cli, call, err);
}

/* --- The plan ----------------------------------------------------------------------------------
 */

static void plan_free(Davit__V1__PullPlan **plan)
{
    davit__v1__pull_plan__free_unpacked(*plan, NULL);
}

/* What would be done; exit code 1 if it could not be, for want of space. */
static bool await_plan(struct cli *cli, const struct pull_options *options, struct error *err)
{
    Davit__V1__PullRequest request = DAVIT__V1__PULL_REQUEST__INIT;
    CLEANUP(plan_free) Davit__V1__PullPlan *plan = NULL;
    CLEANUP(request_login_done) struct request_login login = {0};
    CLEANUP_STRBUF struct strbuf text = {0};
    if (!await_request_login(cli, options->reference, &login, err))
        return false;
    request.reference = (char *)options->reference;
    request.platform = text_or_empty(options->platform);
    request.auth = login.auth;
    if (!await_cli_call(cli, "/davit.v1.Images/Plan", &request.base,
                        &davit__v1__pull_plan__descriptor, (ProtobufCMessage **)&plan, err))
        return false;
    if (str_eq(options->watch.progress, "json"))
        plan_print_json(plan, &text);
    else
        plan_print(plan, &text);
    cli->exit_code = plan->fits ? EXIT_SUCCESS : EXIT_FAILURE;
    return await_cli_print(cli, text.data, text.length, err);
}

/* --- All tags ----------------------------------------------------------------------------------
 */

static void tags_free(Davit__V1__ListTagsResponse **response)
{
    davit__v1__list_tags_response__free_unpacked(*response, NULL);
}

static Davit__V1__ListTagsResponse *await_tags(struct cli *cli, const char *reference,
                                               struct error *err)
{
    Davit__V1__ListTagsRequest request = DAVIT__V1__LIST_TAGS_REQUEST__INIT;
    CLEANUP(request_login_done) struct request_login login = {0};
    Davit__V1__ListTagsResponse *response = NULL;
    if (!await_request_login(cli, reference, &login, err))
        return NULL;
    request.reference = (char *)reference;
    request.auth = login.auth;
    if (!await_cli_call(cli, "/davit.v1.Registries/ListTags", &request.base,
                        &davit__v1__list_tags_response__descriptor, (ProtobufCMessage **)&response,
                        err))
        return NULL;
    return response;
}

/* As Docker, if all went well. */
static bool await_say_tags(struct cli *cli, const struct pull_options *options,
                           const Davit__V1__ListTagsResponse *tags, size_t failed, bool changed,
                           struct error *err)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    if (!options->watch.quiet && failed)
        strbuf_addf(&text, "Status: Downloaded %zu of %zu tags of %s\n",
                    tags->n_references - failed, tags->n_references, tags->repository);
    else if (!options->watch.quiet)
        strbuf_addf(&text, "Status: %s for %s\n",
                    changed ? "Downloaded newer image" : "Image is up to date", tags->repository);
    strbuf_addf(&text, "%s\n", tags->repository);
    return await_cli_print(cli, text.data, text.length, err);
}

/* One that fails does not keep the others, but nor is it forgotten. */
static bool await_pull_tags(struct cli *cli, const struct pull_options *options, struct error *err)
{
    CLEANUP(tags_free)
    Davit__V1__ListTagsResponse *tags = await_tags(cli, options->reference, err);
    struct pull_options one = *options;
    size_t failed = 0;
    bool changed = false;
    if (!tags)
        return false;
    if (tags->n_references == 0)
        return error_set(err, ERROR_NOT_FOUND, NULL, "repository %s has no tags", tags->repository);
    one.watch.one_of_many = true;
    one.watch.ret_changed = &changed;
    for (size_t i = 0; i < tags->n_references; i++) {
        CLEANUP_ERROR struct error problem = {0};
        one.reference = tags->references[i];
        if (await_pull(cli, &one, &problem))
            continue;
        if (problem.code == ERROR_CANCELLED || error_is(&problem, "CONNECTION_LOST"))
            return error_move(err, &problem); /* no use to go on */
        failed++;
        error_prefix(&problem, "%s", one.reference);
        cli_print_failure(cli, &problem);
    }
    if (failed > 0)
        cli->exit_code = EXIT_FAILURE;
    if (failed == tags->n_references || str_eq(options->watch.progress, "json"))
        return true;
    return await_say_tags(cli, options, tags, failed, changed, err);
}

/* --- davit pull --------------------------------------------------------------------------------
 */

static bool names_tag(const char *reference)
{
    const char *slash = strrchr(reference, '/');
    return strpbrk(slash ? slash : reference, ":@") != NULL;
}

static bool await_pull_as_asked(struct cli *cli, struct error *err)
{
    struct pull_options options = {
        .reference = cli->flags.args[0],
        .platform = flag_string(&cli->flags, "platform"),
        .watch = {.progress = flag_string(&cli->flags, "progress"),
                  .quiet = flag_bool(&cli->flags, "quiet")},
    };
    const char *rate = flag_string(&cli->flags, "limit-rate");
    const bool all = flag_bool(&cli->flags, "all-tags"), detach = flag_bool(&cli->flags, "detach");
    if (rate)
        size_parse(rate, &options.limit_bytes_per_second);
    if (flag_bool(&cli->flags, "detach-on-interrupt"))
        options.watch.interrupt = WATCH_INTERRUPT_DETACHES;
    cli_cancel_on_signals(cli);
    if (flag_bool(&cli->flags, "plan") && (all || detach))
        return error_set(err, ERROR_INVALID_ARGUMENT, NULL,
                         "conflicting options: cannot specify --plan with --all-tags or --detach");
    if (flag_bool(&cli->flags, "plan"))
        return await_plan(cli, &options, err);
    if (all && names_tag(options.reference))
        return error_set(err, ERROR_INVALID_ARGUMENT, NULL, "tag can't be used with --all-tags/-a");
    if (all && detach)
        return error_set(err, ERROR_INVALID_ARGUMENT, NULL,
                         "conflicting options: cannot specify both --all-tags and --detach");
    if (all)
        return await_pull_tags(cli, &options, err);
    return detach ? await_detached(cli, &options, err) : await_pull(cli, &options, err);
}

static bool await_pull_command(struct cli *cli, struct error *err)
{
    return await_pull_as_asked(cli, err) || cli_reference_error(err);
}

static const struct flag flags[] = {
    {.name = "all-tags",
     .shorthand = 'a',
     .type = FLAG_BOOL,
     .help = "Download all tagged images in the repository"},
    {.name = "detach",
     .shorthand = 'd',
     .type = FLAG_BOOL,
     .help = "Pull in the background and print the job's ID"},
    {.name = "detach-on-interrupt",
     .type = FLAG_BOOL,
     .help = "Let the pull go on when it is interrupted (Ctrl-C)"},
    {.name = "limit-rate",
     .type = FLAG_STRING,
     .kind = "rate",
     .help = "Fetch at most so many bytes per second: 500k, 2M, 512KiB; 0 for no limit",
     .check = check_rate},
    {.name = "plan",
     .type = FLAG_BOOL,
     .help = "Only show what would be fetched, from where, and the disk it needs"},
    {.name = "platform",
     .type = FLAG_STRING,
     .help = "Set platform if the image is multi-platform capable: os/arch[/variant]",
     .suggestions = PLATFORM_SUGGESTIONS},
    {.name = "progress",
     .type = FLAG_STRING,
     .help = "How progress is shown",
     .choices = WATCH_PROGRESS_CHOICES,
     .fallback = "auto"},
    {.name = "quiet", .shorthand = 'q', .type = FLAG_BOOL, .help = "Suppress verbose output"},
};

const struct command pull_command = {
    .usage = "[OPTIONS] NAME[:TAG|@DIGEST]",
    .summary = "Download an image from a registry",
    .flags = flags,
    .flag_count = ARRAY_SIZE(flags),
    .min_args = 1,
    .max_args = 1,
    .completes = COMPLETE_IMAGE,
    .description = "Fetches an image, or with --all-tags all tags of a repository. Without a tag "
                   "or digest, the tag is latest; without a registry, it is Docker Hub.\n"
                   "\n"
                   "On a terminal each layer has a bar; elsewhere, or with --progress=plain, there "
                   "are lines, and with --progress=json one JSON object per snapshot. What was "
                   "fetched before a failure, a cancel or a power cut is not fetched again.\n"
                   "\n"
                   "The pull belongs to the daemon: it goes on when davit is killed or its "
                   "terminal is closed, and \"davit jobs watch\" joins it again. Ctrl-C asks; "
                   "pressed twice it cancels, unless others wait for the same image.",
    .examples = "    davit pull debian:12\n"
                "    davit pull --platform linux/arm64 alpine\n"
                "\n"
                "By digest, which always is the same image:\n"
                "\n"
                "    davit pull "
                "debian@sha256:27586f4609433f2f49a9157405b473c62c3cb28a581c413393975b4e8496d0ab\n"
                "\n"
                "What it would fetch, and whether that fits on the disk:\n"
                "\n"
                "    davit pull --plan python:3.12\n"
                "\n"
                "In the background, at half a megabyte per second at most:\n"
                "\n"
                "    davit pull --detach --limit-rate 500k ubuntu",
    .await_run = await_pull_command,
};
