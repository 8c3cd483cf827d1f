/* davit jobs: what the daemon does or has done, to be listed, watched, changed and cancelled. */
#include <inttypes.h>
#include <stdio.h>

#include "client/job_call.h"
#include "client/ui/template.h"
#include "client/ui/terminal.h"
#include "client/ui/units.h"
#include "proto/base/json.h"
#include "proto/davit/v1/jobs.pb-c.h"

/* --- Rows --------------------------------------------------------------------------------------
 */

/* The protocol's word for it, as people write it. The caller's. */
static char *word_of(const ProtobufCEnumDescriptor *type, int value)
{
    const ProtobufCEnumValue *known = protobuf_c_enum_descriptor_get_value(type, value);
    char *word = xstrdup(known ? known->name : "unknown");
    for (char *c = word; *c; c++)
        *c = *c >= 'A' && *c <= 'Z' ? (char)(*c - 'A' + 'a') : *c;
    return word;
}

static void set(json_t *row, const char *key, const struct strbuf *text)
{
    json_object_set_new(row, key, json_string(strbuf_text(text)));
}

static void set_age(json_t *row, const char *key, int64_t unix_ms)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    if (unix_ms) {
        add_duration(&text, (wall_clock_ns() / 1000000 - unix_ms) / 1000);
        strbuf_add_str(&text, " ago");
    }
    set(row, key, &text);
}

static void set_rate(json_t *row, const char *key, uint64_t bytes_per_second)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    if (bytes_per_second) {
        add_size(&text, bytes_per_second);
        strbuf_add_str(&text, "/s");
    }
    set(row, key, &text);
}

static void set_progress(json_t *row, const Davit__V1__JobProgress *progress)
{
    CLEANUP_STRBUF struct strbuf percent = {0}, size = {0}, all = {0};
    strbuf_addf(&percent, "%u%%", progress->percent);
    if (progress->bytes_total) {
        add_size(&size, progress->bytes_fetched);
        strbuf_add_char(&size, '/');
        add_size(&size, progress->bytes_total);
    }
    strbuf_addf(&all, "%s%s%s", strbuf_text(&percent), size.length ? " " : "", strbuf_text(&size));
    set(row, "Percent", &percent);
    set(row, "Size", &size);
    set(row, "Progress", &all);
    set_rate(row, "Speed", progress->bytes_per_second);
}

static json_t *row_of(const Davit__V1__Job *job)
{
    CLEANUP_FREE char *kind = word_of(&davit__v1__job__kind__descriptor, (int)job->kind);
    CLEANUP_FREE char *state = word_of(&davit__v1__job__state__descriptor, (int)job->state);
    CLEANUP_STRBUF struct strbuf watchers = {0}, started = {0}, failure = {0};
    json_t *row = json_pack("{s:s, s:s, s:s, s:s}", "ID", job->id, "Kind", kind, "Subject",
                            job->subject, "State", state);
    CHECK(row);
    if (job->progress)
        set_progress(row, job->progress);
    set_rate(row, "Limit", job->limit_bytes_per_second);
    strbuf_addf(&watchers, "%u", job->watchers);
    set(row, "Watchers", &watchers);
    strbuf_addf(&started, "%" PRId64, job->started_unix_ms);
    set(row, "StartedAt", &started);
    set_age(row, "Started", job->started_unix_ms);
    set_age(row, "Ended", job->ended_unix_ms);
    if (job->failure)
        strbuf_add_str(&failure, job->failure->message);
    set(row, "Error", &failure);
    return row;
}

/* --- Filters -----------------------------------------------------------------------------------
 */

static const char *const filter_names[] = {"id", "kind", "state", "subject"};
static const char *const filter_fields[] = {"ID", "Kind", "State", "Subject"};

static const char *filter_value(const char *filter, size_t which)
{
    const size_t length = strlen(filter_names[which]);
    return strncmp(filter, filter_names[which], length) == 0 && filter[length] == '='
               ? filter + length + 1
               : NULL;
}

static bool check_filter(const char *filter, struct error *err)
{
    CLEANUP_STRBUF struct strbuf safe = {0};
    if (!strchr(filter, '='))
        return error_set(err, ERROR_INVALID_ARGUMENT, NULL,
                         "bad format of filter (expected name=value)");
    for (size_t i = 0; i < ARRAY_SIZE(filter_names); i++) {
        if (filter_value(filter, i))
            return true;
    }
    strbuf_add_printable(&safe, filter);
    return error_set(err, ERROR_INVALID_ARGUMENT, NULL,
                     "invalid filter '%.*s': there are id, kind, state and subject",
                     (int)strcspn(strbuf_text(&safe), "="), strbuf_text(&safe));
}

/* Alternatives of one name; an id may be its beginning. */
static bool is_wanted(char *const *filters, const json_t *row)
{
    for (size_t i = 0; i < ARRAY_SIZE(filter_names); i++) {
        const char *has = json_str(row, filter_fields[i]);
        bool asked = false, match = false;
        for (char *const *filter = filters; filter && *filter; filter++) {
            const char *value = filter_value(*filter, i);
            asked |= value != NULL;
            match |= value && (i == 0 ? str_starts(has, value) : str_eq(has, value));
        }
        if (asked && !match)
            return false;
    }
    return true;
}

static bool asks_for_state(char *const *filters)
{
    for (; filters && *filters; filters++) {
        if (str_starts(*filters, "state=") && !str_eq(*filters, "state=running"))
            return true;
    }
    return false;
}

/* --- davit jobs --------------------------------------------------------------------------------
 */

static void list_free(Davit__V1__ListJobsResponse **response)
{
    davit__v1__list_jobs_response__free_unpacked(*response, NULL);
}

static bool add_rows(const struct flags *flags, const json_t *rows, struct strbuf *out,
                     struct error *err)
{
    static const struct format_column columns[] = {
        {"ID", "JOB ID"},         {"Kind", "KIND"},   {"Subject", "SUBJECT"},
        {"State", "STATE"},       {"Size", "SIZE"},   {"Progress", "PROGRESS"},
        {"Percent", "PERCENT"},   {"Speed", "SPEED"}, {"Limit", "LIMIT"},
        {"Watchers", "WATCHERS"}, {"Ended", "ENDED"}, {"Started", "STARTED"},
        {"Error", "ERROR"},
    };
    const struct format format = {
        .text = flag_string(flags, "format"),
        .type_name = "*job",
        .width = terminal_table_width(),
        .free_texts = (const char *const[]){"SUBJECT", "ERROR", NULL},
        .table = "{{.ID}}\t{{.Kind}}\t{{.Subject}}\t{{.State}}\t{{.Progress}}\t{{.Started}}",
        .columns = columns,
        .column_count = ARRAY_SIZE(columns),
    };
    size_t i;
    json_t *row;

    if (!flag_bool(flags, "quiet"))
        return format_rows(&format, rows, out, err);
    json_array_foreach ((json_t *)rows, i, row)
        strbuf_addf(out, "%s\n", json_str(row, "ID"));
    return true;
}

static bool await_list(struct cli *cli, struct error *err)
{
    Davit__V1__ListJobsRequest request = DAVIT__V1__LIST_JOBS_REQUEST__INIT;
    CLEANUP(list_free) Davit__V1__ListJobsResponse *response = NULL;
    CLEANUP_JSON json_t *rows = json_array();
    CLEANUP_STRBUF struct strbuf text = {0};
    char *const *filters = flag_list(&cli->flags, "filter");

    request.all = flag_bool(&cli->flags, "all") || asks_for_state(filters);
    if (!await_cli_call(cli, "/davit.v1.Jobs/List", &request.base,
                        &davit__v1__list_jobs_response__descriptor, (ProtobufCMessage **)&response,
                        err))
        return false;
    for (size_t i = 0; i < response->n_jobs; i++) {
        CLEANUP_JSON json_t *row = row_of(response->jobs[i]);
        if (is_wanted(filters, row))
            json_array_append(rows, row);
    }
    return add_rows(&cli->flags, rows, &text, err) &&
           await_cli_print(cli, text.data, text.length, err);
}

#define JOB_FILTERS                                                                   \
    "id=|kind=pull|kind=push|kind=prune|kind=verify|kind=save|kind=load|kind=import|" \
    "state=running|state=done|state=failed|state=cancelled|subject="

static const struct flag list_flags[] = {
    {.name = "all",
     .shorthand = 'a',
     .type = FLAG_BOOL,
     .help = "Show all jobs (default shows just running)"},
    {.name = "filter",
     .shorthand = 'f',
     .type = FLAG_LIST,
     .kind = "filter",
     .help = "Filter output based on conditions provided: id=, kind=, state=, subject=",
     .suggestions = JOB_FILTERS,
     .check = check_filter},
    {.name = "format",
     .type = FLAG_STRING,
     .help = FORMAT_ROWS_HELP,
     .suggestions = FORMAT_ROWS_SUGGESTIONS},
    {.name = "quiet", .shorthand = 'q', .type = FLAG_BOOL, .help = "Only show job IDs"},
};

const struct command jobs_command = {
    .usage = "[OPTIONS]",
    .summary = "List jobs",
    .flags = list_flags,
    .flag_count = ARRAY_SIZE(list_flags),
    .description = "Lists what the daemon is doing: pulls, pushes and others. How jobs ended is "
                   "remembered for 7 days.",
    .examples =
        "    davit jobs\n"
        "    davit jobs --all --filter state=failed --format \"{{.ID}} {{.Subject}}: {{.Error}}\"",
    .await_run = await_list,
};

/* --- davit jobs watch --------------------------------------------------------------------------
 */

static bool await_watch_command(struct cli *cli, struct error *err)
{
    const struct watch_options options = {
        .progress = flag_string(&cli->flags, "progress"),
        .quiet = flag_bool(&cli->flags, "quiet"),
        .interrupt = WATCH_INTERRUPT_DETACHES,
        .what = "job",
    };
    Davit__V1__WatchJobRequest request = DAVIT__V1__WATCH_JOB_REQUEST__INIT;
    CLEANUP(grpc_call_cleanup) struct grpc_call *call = NULL;

    request.id = cli->flags.args[0];
    call = await_job_call(cli, "/davit.v1.Jobs/Watch", &request.base, err);
    return call && await_watch(cli, call, &options, err);
}

static const struct flag watch_flags[] = {
    {.name = "progress",
     .type = FLAG_STRING,
     .help = "How progress is shown",
     .choices = WATCH_PROGRESS_CHOICES,
     .fallback = "auto"},
    {.name = "quiet", .shorthand = 'q', .type = FLAG_BOOL, .help = "Suppress verbose output"},
};

const struct command jobs_watch_command = {
    .usage = "[OPTIONS] JOB",
    .summary = "Show the progress of a job until it ends",
    .flags = watch_flags,
    .flag_count = ARRAY_SIZE(watch_flags),
    .min_args = 1,
    .max_args = 1,
    .completes = COMPLETE_JOBS,
    .examples = "    davit jobs watch 0a1b2c3d4e5f",
    .await_run = await_watch_command,
};

/* --- davit jobs cancel, update -----------------------------------------------------------------
 */

/* As Docker: one that fails does not keep the others. */
static bool await_each(struct cli *cli,
                       bool (*await_one)(struct cli *cli, char *id, struct error *err),
                       struct error *err)
{
    for (size_t i = 0; i < cli->flags.arg_count; i++) {
        CLEANUP_ERROR struct error one = {0};
        CLEANUP_FREE char *line = xasprintf("%s\n", cli->flags.args[i]);
        if (await_one(cli, cli->flags.args[i], &one)) {
            if (!await_cli_print(cli, line, strlen(line), err))
                return false;
            continue;
        }
        if (one.code == ERROR_CANCELLED || one.code == ERROR_UNAVAILABLE)
            return error_move(err, &one); /* no use to go on */
        cli->exit_code = EXIT_FAILURE;
        cli_print_failure(cli, &one);
    }
    return true;
}

static bool await_cancel_one(struct cli *cli, char *id, struct error *err)
{
    Davit__V1__CancelJobRequest request = DAVIT__V1__CANCEL_JOB_REQUEST__INIT;
    Davit__V1__CancelJobResponse *response = NULL;

    request.id = id;
    if (!await_cli_call(cli, "/davit.v1.Jobs/Cancel", &request.base,
                        &davit__v1__cancel_job_response__descriptor, (ProtobufCMessage **)&response,
                        err))
        return false;
    davit__v1__cancel_job_response__free_unpacked(response, NULL);
    return true;
}

static bool await_cancel(struct cli *cli, struct error *err)
{
    return await_each(cli, await_cancel_one, err);
}

const struct command jobs_cancel_command = {
    .usage = "JOB [JOB...]",
    .summary = "Cancel one or more jobs",
    .min_args = 1,
    .max_args = ANY_NUMBER,
    .completes = COMPLETE_JOBS,
    .examples = "    davit jobs cancel $(davit jobs -q)",
    .await_run = await_cancel,
};

static bool await_update_one(struct cli *cli, char *id, struct error *err)
{
    Davit__V1__UpdateJobRequest request = DAVIT__V1__UPDATE_JOB_REQUEST__INIT;
    Davit__V1__UpdateJobResponse *response = NULL;

    request.id = id;
    request.limit_case = DAVIT__V1__UPDATE_JOB_REQUEST__LIMIT_LIMIT_BYTES_PER_SECOND;
    size_parse(flag_string(&cli->flags, "limit-rate"), &request.limit_bytes_per_second);
    if (!await_cli_call(cli, "/davit.v1.Jobs/Update", &request.base,
                        &davit__v1__update_job_response__descriptor, (ProtobufCMessage **)&response,
                        err))
        return false;
    davit__v1__update_job_response__free_unpacked(response, NULL);
    return true;
}

static bool await_update(struct cli *cli, struct error *err)
{
    if (flag_is_set(&cli->flags, "limit-rate"))
        return await_each(cli, await_update_one, err);
    error_set(err, ERROR_INVALID_ARGUMENT, NULL,
              "You must provide one or more flags when using "
              "this command.");
    return error_hint(err, "such as --limit-rate 500k");
}

static const struct flag update_flags[] = {
    {.name = "limit-rate",
     .type = FLAG_STRING,
     .kind = "rate",
     .help = "Transfer at most so many bytes per second: 500k, 2M, 512KiB; 0 for no limit",
     .check = check_rate},
};

const struct command jobs_update_command = {
    .usage = "OPTIONS JOB [JOB...]",
    .summary = "Change one or more jobs that run",
    .flags = update_flags,
    .flag_count = ARRAY_SIZE(update_flags),
    .min_args = 1,
    .max_args = ANY_NUMBER,
    .completes = COMPLETE_JOBS,
    .examples = "    davit jobs update --limit-rate 500k 0a1b2c3d4e5f",
    .await_run = await_update,
};
