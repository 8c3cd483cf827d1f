#include "client/cli.h"
#include "client/prompt.h"
#include "client/ui/units.h"
#include "proto/base/timestamp.h"
#include "proto/davit/v1/system.pb-c.h"

typedef Davit__V1__PruneResult prune_result;

#define UNTIL "until="

/* --- Before ------------------------------------------------------------------------------------
 */

static bool read_until(const char *filter, int64_t *ret_unix_ns)
{
    return str_starts(filter, UNTIL) &&
           timestamp_parse(filter + strlen(UNTIL), wall_clock_ns(), ret_unix_ns);
}

static bool check_filter(const char *filter, struct error *err)
{
    int64_t unix_ns;
    if (read_until(filter, &unix_ns))
        return true;
    if (str_starts(filter, UNTIL))
        return error_set(err, ERROR_INVALID_ARGUMENT, NULL, "no time, nor a duration such as 24h");
    return error_set(err, ERROR_INVALID_ARGUMENT, NULL, "the only filter is until=<timestamp>");
}

/* Of several times all must be right: the earliest. 0: none. */
static int64_t until_unix_ms(const struct flags *flags)
{
    int64_t earliest = 0, unix_ns;
    for (char *const *filter = flag_list(flags, "filter"); filter && *filter; filter++) {
        if (read_until(*filter, &unix_ns))
            earliest = earliest ? MIN(earliest, unix_ns / 1000000) : MAX(unix_ns / 1000000, 1);
    }
    return earliest;
}

/* True if the user wants it. Docker's words, for what davit has. */
static bool await_confirmation(struct cli *cli, bool *ret, struct error *err)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    char *const *filters = flag_list(&cli->flags, "filter");
    strbuf_addf(&text,
                "WARNING! This will remove:\n"
                "  - all %s\n"
                "  - all layers that no image has\n"
                "  - all downloads that were broken off\n",
                flag_bool(&cli->flags, "all")
                    ? "images without at least one container associated to them"
                    : "dangling images");
    if (filters && *filters)
        strbuf_add_str(&text, "\n  Items to be pruned will be filtered with:\n");
    for (char *const *filter = filters; filter && *filter; filter++)
        strbuf_addf(&text, "  - %s\n", *filter);
    strbuf_add_str(&text, "\nAre you sure you want to continue? [y/N] ");
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

/* The last snapshot has the result. */
static bool await_job(struct cli *cli, Davit__V1__Job **ret, struct error *err)
{
    Davit__V1__PruneRequest request = DAVIT__V1__PRUNE_REQUEST__INIT;
    CLEANUP(grpc_call_cleanup) struct grpc_call *call = NULL;
    ProtobufCMessage *message = NULL;
    int r;
    request.all = flag_bool(&cli->flags, "all");
    request.until_unix_ms = until_unix_ms(&cli->flags);
    request.cancel_on_leave = true;
    if (!await_cli_connect(cli, err))
        return false;
    call = grpc_client_call(cli->client, "/davit.v1.System/Prune",
                            &davit__v1__job_update__descriptor, NULL, err);
    if (!call || !await_grpc_send(call, &request.base, err) || !await_grpc_close_send(call, err))
        return cli_daemon_error(err);
    while ((r = await_grpc_recv(call, &message, err)) > 0) {
        Davit__V1__JobUpdate *update = (Davit__V1__JobUpdate *)message;
        job_free(ret);
        *ret = TAKE(update->job);
        davit__v1__job_update__free_unpacked(update, NULL);
    }
    if (r < 0)
        return cli_daemon_error(err);
    if (*ret && (*ret)->result_case == DAVIT__V1__JOB__RESULT_PRUNE_RESULT)
        return true;
    return error_set(err, ERROR_INTERNAL, NULL, "the daemon ended the prune without a result");
}

/* --- davit system prune ------------------------------------------------------------------------
 */

static void add_lines(struct strbuf *out, const char *verb, char *const *items, size_t count)
{
    for (size_t i = 0; i < count; i++)
        strbuf_addf(out, "%s%s\n", verb, items[i]);
}

/* As Docker: each kind of which there was something, then an empty line. */
static void add_result(const prune_result *result, struct strbuf *out)
{
    if (result->n_deleted > 0 || result->n_untagged > 0) {
        strbuf_add_str(out, "Deleted Images:\n");
        add_lines(out, "untagged: ", result->untagged, result->n_untagged);
        add_lines(out, "deleted: ", result->deleted, result->n_deleted);
        strbuf_add_char(out, '\n');
    }
    if (result->n_layers > 0) {
        strbuf_add_str(out, "Deleted Layers:\n");
        add_lines(out, "", result->layers, result->n_layers);
        strbuf_add_char(out, '\n');
    }
    if (result->partials > 0)
        strbuf_addf(out, "Deleted Partial Downloads: %u\n\n", result->partials);
    strbuf_add_str(out, "Total reclaimed space: ");
    add_size(out, result->reclaimed_bytes);
    strbuf_add_char(out, '\n');
}

static bool await_prune(struct cli *cli, struct error *err)
{
    CLEANUP(job_free) Davit__V1__Job *job = NULL;
    CLEANUP_STRBUF struct strbuf text = {0};
    bool wanted = flag_bool(&cli->flags, "force");
    cli_cancel_on_signals(cli);
    if (!wanted && !await_confirmation(cli, &wanted, err))
        return false;
    if (!wanted)
        return true;
    if (!await_job(cli, &job, err))
        return false;
    add_result(job->prune_result, &text);
    return await_cli_print(cli, text.data, text.length, err);
}

static const struct flag flags[] = {
    {.name = "all",
     .shorthand = 'a',
     .type = FLAG_BOOL,
     .help = "Remove all unused images not just dangling ones"},
    {.name = "filter",
     .type = FLAG_LIST,
     .kind = "filter",
     .help = "Provide filter values (e.g. \"until=<timestamp>\")",
     .check = check_filter},
    {.name = "force",
     .shorthand = 'f',
     .type = FLAG_BOOL,
     .help = "Do not prompt for confirmation"},
    {.name = "volumes", .type = FLAG_BOOL, .unsupported = true},
};

const struct command prune_command = {
    .usage = "[OPTIONS]",
    .summary = "Remove unused data",
    .flags = flags,
    .flag_count = ARRAY_SIZE(flags),
    .await_run = await_prune,
};
