#include <inttypes.h>

#include "client/cli.h"
#include "client/filters.h"
#include "client/prompt.h"
#include "client/ui/units.h"
#include "proto/davit/v1/system.pb-c.h"

typedef Davit__V1__PruneResult prune_result;
typedef Davit__V1__PruneResult__Removed removed;

/* --- Before ------------------------------------------------------------------------------------
 */

/* Docker's words. */
static void add_image_question(const struct cli *cli, struct strbuf *out)
{
    strbuf_addf(out, "WARNING! This will remove all %s.\n",
                flag_bool(&cli->flags, "all")
                    ? "images without at least one container associated to them"
                    : "dangling images");
}

/* Likewise, for what davit has. */
static void add_system_question(const struct cli *cli, struct strbuf *out)
{
    char *const *filters = flag_list(&cli->flags, "filter");
    strbuf_addf(out,
                "WARNING! This will remove:\n"
                "  - all %s\n"
                "  - all layers that no image has\n"
                "  - all downloads that were broken off\n",
                flag_bool(&cli->flags, "all")
                    ? "images without at least one container associated to them"
                    : "dangling images");
    if (filters && *filters)
        strbuf_add_str(out, "\n  Items to be pruned will be filtered with:\n");
    for (char *const *filter = filters; filter && *filter; filter++)
        strbuf_addf(out, "  - %s\n", *filter);
    strbuf_add_char(out, '\n');
}

/* True if the user wants it. */
static bool await_confirmation(struct cli *cli, bool images_only, bool *ret, struct error *err)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    if (images_only)
        add_image_question(cli, &text);
    else
        add_system_question(cli, &text);
    strbuf_add_str(&text, "Are you sure you want to continue? [y/N] ");
    CLEANUP_FREE char *answer = await_prompt(cli, strbuf_text(&text), false, err);
    *ret = answer && strcasecmp(answer, "y") == 0;
    return answer;
}

/* --- The call ----------------------------------------------------------------------------------
 */

static void job_free(Davit__V1__Job **job)
{
    davit__v1__job__free_unpacked(*job, NULL);
}

/* As Docker's command line, which asks for the one or the other: so what the user says of it
 * contradicts it, or is superfluous. */
static char **filters_to_send(const struct cli *cli, bool images_only)
{
    char **filters = filters_normal(flag_list(&cli->flags, "filter"));
    if (images_only)
        strv_add(&filters, flag_bool(&cli->flags, "all") ? "dangling=false" : "dangling=true");
    return filters;
}

static bool has_result(const Davit__V1__Job *job)
{
    return job && job->result_case == DAVIT__V1__JOB__RESULT_PRUNE_RESULT;
}

/* The last snapshot has the result; after a failure, of what had gone before it. */
static bool await_job(struct cli *cli, bool images_only, Davit__V1__Job **ret, struct error *err)
{
    Davit__V1__PruneRequest request = DAVIT__V1__PRUNE_REQUEST__INIT;
    CLEANUP(grpc_call_cleanup) struct grpc_call *call = NULL;
    CLEANUP(strv_cleanup) char **filters = filters_to_send(cli, images_only);
    ProtobufCMessage *message = NULL;
    int r;
    request.all = flag_bool(&cli->flags, "all");
    request.images_only = images_only;
    request.dry_run = flag_bool(&cli->flags, "dry-run");
    request.filters = filters;
    request.n_filters = strv_count(filters);
    request.cancel_on_leave = true;
    call = await_cli_stream(cli, "/davit.v1.System/Prune", &request.base,
                            &davit__v1__job_update__descriptor, err);
    if (!call)
        return false;
    while ((r = await_grpc_recv(call, &message, err)) > 0) {
        Davit__V1__JobUpdate *update = (Davit__V1__JobUpdate *)message;
        job_free(ret);
        *ret = TAKE(update->job);
        davit__v1__job_update__free_unpacked(update, NULL);
    }
    if (r < 0)
        return cli_daemon_error(err);
    if (has_result(*ret))
        return true;
    return error_set(err, ERROR_INTERNAL, NULL, "the daemon ended the prune without a result");
}

/* --- After -------------------------------------------------------------------------------------
 */

static void add_left_out(uint64_t count, struct strbuf *out)
{
    if (count > 0)
        strbuf_addf(out, "and %" PRIu64 " more\n", count);
}

static void add_removed(const prune_result *result, struct strbuf *out)
{
    strbuf_add_str(out, result->dry_run ? "Would Delete Images:\n" : "Deleted Images:\n");
    for (size_t i = 0; i < result->n_removed; i++) {
        const removed *one = result->removed[i];
        const bool untagged = one->what_case == DAVIT__V1__PRUNE_RESULT__REMOVED__WHAT_UNTAGGED;
        strbuf_addf(out, "%s%s\n",
                    untagged ? "untagged: " : "deleted: ", untagged ? one->untagged : one->deleted);
    }
    add_left_out(result->removed_left_out, out);
    strbuf_add_char(out, '\n');
}

/* As Docker: each kind of which there was something, then an empty line. */
static void add_result(const prune_result *result, struct strbuf *out)
{
    const char *verb = result->dry_run ? "Would Delete" : "Deleted";
    if (result->n_removed + result->removed_left_out > 0)
        add_removed(result, out);
    if (result->n_layers + result->layers_left_out > 0) {
        strbuf_addf(out, "%s Layers:\n", verb);
        for (size_t i = 0; i < result->n_layers; i++)
            strbuf_addf(out, "%s\n", result->layers[i]);
        add_left_out(result->layers_left_out, out);
        strbuf_add_char(out, '\n');
    }
    if (result->partials > 0)
        strbuf_addf(out, "%s Partial Downloads: %u\n\n", verb, result->partials);
    strbuf_add_str(out, result->dry_run ? "Total space that would be reclaimed: "
                                        : "Total reclaimed space: ");
    add_size(out, result->reclaimed_bytes);
    strbuf_add_char(out, '\n');
}

static bool await_prune(struct cli *cli, bool images_only, struct error *err)
{
    CLEANUP(job_free) Davit__V1__Job *job = NULL;
    CLEANUP_STRBUF struct strbuf text = {0};
    bool wanted = flag_bool(&cli->flags, "force") || flag_bool(&cli->flags, "dry-run"), ok;
    cli_cancel_on_signals(cli);
    if (!wanted && !await_confirmation(cli, images_only, &wanted, err))
        return false;
    if (!wanted)
        return true;
    ok = await_job(cli, images_only, &job, err);
    if (!has_result(job))
        return false;
    add_result(job->prune_result, &text);
    return await_cli_print(cli, text.data, text.length, ok ? err : NULL) && ok;
}

/* --- Flags -------------------------------------------------------------------------------------
 */

#define PRUNE_FLAGS(all_help, filter_example)                                 \
    {.name = "all", .shorthand = 'a', .type = FLAG_BOOL, .help = (all_help)}, \
        {.name = "dry-run",                                                   \
         .type = FLAG_BOOL,                                                   \
         .help = "Remove nothing, say what would be removed"},                \
        {.name = "filter",                                                    \
         .type = FLAG_LIST,                                                   \
         .kind = "filter",                                                    \
         .help = "Provide filter values (e.g. \"" filter_example "\")",       \
         .suggestions = "label=|label!=|until=",                              \
         .check = filter_check},                                              \
    {                                                                         \
        .name = "force", .shorthand = 'f', .type = FLAG_BOOL,                 \
        .help = "Do not prompt for confirmation"                              \
    }

/* --- davit image prune -------------------------------------------------------------------------
 */

static bool await_image_prune(struct cli *cli, struct error *err)
{
    return await_prune(cli, true, err);
}

static const struct flag image_flags[] = {
    PRUNE_FLAGS("Remove all unused images, not just dangling ones", "until=<timestamp>"),
};

const struct command image_prune_command = {
    .usage = "[OPTIONS]",
    .summary = "Remove unused images",
    .flags = image_flags,
    .flag_count = ARRAY_SIZE(image_flags),
    .description =
        "Removes dangling images, which have no name and are no part of another image; with "
        "--all also those with names. Images that a container has stay, whether it runs or "
        "not.\n\n"
        "Filters: until=TIME, a date or a duration such as 24h; label=KEY[=VALUE]; "
        "label!=KEY[=VALUE].",
    .examples = "Remove what was made more than ten days ago and no container has:\n\n"
                "    davit image prune -a --filter until=240h\n\n"
                "See what it would be:\n\n"
                "    davit image prune -a --filter until=240h --dry-run",
    .await_run = await_image_prune,
};

/* --- davit system prune ------------------------------------------------------------------------
 */

static bool await_system_prune(struct cli *cli, struct error *err)
{
    return await_prune(cli, false, err);
}

static const struct flag flags[] = {
    PRUNE_FLAGS("Remove all unused images not just dangling ones", "label=<key>=<value>"),
    {.name = "volumes", .type = FLAG_BOOL, .unsupported = true},
};

const struct command prune_command = {
    .usage = "[OPTIONS]",
    .summary = "Remove unused data",
    .flags = flags,
    .flag_count = ARRAY_SIZE(flags),
    .description = "Removes images as davit image prune does, layers that no image has, and what "
                   "is kept of downloads that were broken off. Layers and downloads have no "
                   "labels: with a filter label=KEY they stay.",
    .examples = "Make room, without a question:\n\n"
                "    davit system prune -af",
    .await_run = await_system_prune,
};
