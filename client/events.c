/* davit events: what happened, and what happens from now on, as Docker prints it. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "client/filters.h"
#include "client/show.h"
#include "proto/base/json.h"
#include "proto/base/timestamp.h"
#include "proto/davit/v1/events.pb-c.h"

#define NS_PER_SECOND INT64_C(1000000000)

/* --- Times -------------------------------------------------------------------------------------
 */

/* "id:123": after the event of that number. */
static bool read_id(const char *text, uint64_t *ret)
{
    char *end;
    if (!str_starts(text, "id:") || text[3] < '0' || text[3] > '9')
        return false;
    errno = 0;
    *ret = strtoull(text + 3, &end, 10);
    return *end == '\0' && errno == 0;
}

static bool check_until(const char *text, struct error *err)
{
    int64_t unix_ns;
    CLEANUP_STRBUF struct strbuf safe = {0};
    if (timestamp_parse(text, wall_clock_ns(), &unix_ns))
        return true;
    strbuf_add_quoted(&safe, text);
    return error_set(err, ERROR_INVALID_ARGUMENT, NULL,
                     "failed to parse value as time or duration: %s", strbuf_text(&safe));
}

static bool check_since(const char *text, struct error *err)
{
    uint64_t id;
    return read_id(text, &id) || check_until(text, err);
}

/* With all digits, in local time: Docker's form of RFC 3339. */
static void add_time(struct strbuf *out, int64_t unix_ns)
{
    const time_t seconds = (time_t)(unix_ns / NS_PER_SECOND);
    char text[64];
    struct tm local;
    localtime_r(&seconds, &local);
    strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &local);
    strbuf_addf(out, "%s.%09" PRId64, text, unix_ns % NS_PER_SECOND);
    const long offset = local.tm_gmtoff / 60, size = labs(offset);
    if (offset == 0)
        strbuf_add_char(out, 'Z');
    else
        strbuf_addf(out, "%c%02ld:%02ld", offset < 0 ? '-' : '+', size / 60, size % 60);
}

/* --- One event ---------------------------------------------------------------------------------
 */

static void add_line(struct strbuf *out, const Davit__V1__Event *event)
{
    CLEANUP_STRBUF struct strbuf line = {0};
    add_time(&line, event->time_unix_ns);
    strbuf_addf(&line, " %s %s %s", event->type, event->action, event->actor_id);
    for (size_t i = 0; i < event->n_attributes; i++)
        strbuf_addf(&line, "%s%s=%s", i == 0 ? " (" : ", ", event->attributes[i]->name,
                    event->attributes[i]->value);
    if (event->n_attributes)
        strbuf_add_char(&line, ')');
    strbuf_add_printable(out, strbuf_text(&line));
    strbuf_add_char(out, '\n');
}

static json_t *text_json(const char *text)
{
    json_t *json = json_string(text);
    return json ? json : json_null(); /* no UTF-8 */
}

static json_t *actor_json(const Davit__V1__Event *event)
{
    json_t *attributes = json_object();
    for (size_t i = 0; i < event->n_attributes; i++)
        json_object_set_new(attributes, event->attributes[i]->name,
                            text_json(event->attributes[i]->value));
    return json_pack("{s:o, s:o}", "ID", text_json(event->actor_id), "Attributes", attributes);
}

/* Docker's members under Docker's names. */
static json_t *event_json(const Davit__V1__Event *event)
{
    const json_int_t seconds = event->time_unix_ns / NS_PER_SECOND;
    json_t *json = json_object();
    json_object_set_new(json, "status", text_json(event->action));
    if (*event->actor_id)
        json_object_set_new(json, "id", text_json(event->actor_id));
    json_object_set_new(json, "Type", text_json(event->type));
    json_object_set_new(json, "Action", text_json(event->action));
    json_object_set_new(json, "Actor", actor_json(event));
    json_object_set_new(json, "scope", json_string("local"));
    json_object_set_new(json, "time", json_integer(seconds));
    json_object_set_new(json, "timeNano", json_integer(event->time_unix_ns));
    json_object_set_new(json, "number", json_integer((json_int_t)event->id));
    return json;
}

/* What templates see of it: Docker's fields, and davit's number. */
static const struct template_field actor_fields[] = {
    {"ID", "ID", &template_string, false},
    {"Attributes", "Attributes", &template_string_map, false},
    {.name = NULL},
};
static const struct template_type actor_type = {.kind = TYPE_STRUCT,
                                                .name = "events.Actor",
                                                .fields = actor_fields};

static const struct template_field message_fields[] = {
    {"Status", "status", &template_string, true},
    {"ID", "id", &template_string, true},
    {"From", "from", &template_string, true},
    {"Type", "Type", &template_string, false},
    {"Action", "Action", &template_string, false},
    {"Actor", "Actor", &actor_type, false},
    {"Scope", "scope", &template_string, true},
    {"Time", "time", &template_int64, true},
    {"TimeNano", "timeNano", &template_int64, true},
    {"Number", "number", &template_int64, true},
    {.name = NULL},
};
static const struct template_type message_type = {.kind = TYPE_STRUCT,
                                                  .name = "events.Message",
                                                  .fields = message_fields};
static const struct template_type message_pointer = {.kind = TYPE_POINTER,
                                                     .name = "*events.Message",
                                                     .element = &message_type};

/* --- davit events ------------------------------------------------------------------------------
 */

/* NULL for lines. As Docker, tries it at once, on an event without content. */
static bool choose_template(struct cli *cli, const char *format, struct template **ret,
                            struct error *err)
{
    CLEANUP(template_cleanup) struct template *template = NULL;
    CLEANUP_JSON json_t *nothing = json_object();
    CLEANUP_STRBUF struct strbuf text = {0};
    CLEANUP_ERROR struct error problem = {0};
    if (str_empty(format))
        return true;
    template = template_parse(str_eq(format, "json") ? "{{json .}}" : format, &problem);
    if (template && template_render_as(template, &message_pointer, nothing, &text, &problem)) {
        *ret = TAKE(template);
        return true;
    }
    cli->exit_code = EXIT_TEMPLATE;
    return error_set(err, problem.code, problem.reason, "Error parsing format: %s",
                     template_problem(&problem));
}

static bool await_show(struct cli *cli, const struct template *template,
                       const Davit__V1__Event *event, struct error *err)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    if (template) {
        CLEANUP_JSON json_t *data = event_json(event);
        if (!template_render_as(template, &message_type, data, &text, err))
            return false;
        strbuf_add_char(&text, '\n');
    } else {
        add_line(&text, event);
    }
    return await_cli_print(cli, text.data, text.length, err);
}

static void fill_request(const struct flags *flags, char **filters,
                         Davit__V1__SubscribeRequest *request)
{
    const char *since = flag_string(flags, "since"), *until = flag_string(flags, "until");
    const int64_t now = wall_clock_ns();
    if (since && read_id(since, &request->since_id)) {
        request->since_case = DAVIT__V1__SUBSCRIBE_REQUEST__SINCE_SINCE_ID;
    } else if (since) {
        request->since_case = DAVIT__V1__SUBSCRIBE_REQUEST__SINCE_SINCE_UNIX_NS;
        timestamp_parse(since, now, &request->since_unix_ns);
    }
    if (until)
        timestamp_parse(until, now, &request->until_unix_ns);
    request->filters = filters;
    request->n_filters = strv_count(filters);
}

static bool await_events(struct cli *cli, struct error *err)
{
    Davit__V1__SubscribeRequest request = DAVIT__V1__SUBSCRIBE_REQUEST__INIT;
    CLEANUP(grpc_call_cleanup) struct grpc_call *call = NULL;
    CLEANUP(template_cleanup) struct template *template = NULL;
    CLEANUP(strv_cleanup) char **filters = filters_normal(flag_list(&cli->flags, "filter"));
    ProtobufCMessage *message = NULL;
    int r;

    fill_request(&cli->flags, filters, &request);
    if (!choose_template(cli, flag_string(&cli->flags, "format"), &template, err))
        return false;
    call = await_cli_stream(cli, "/davit.v1.Events/Subscribe", &request.base,
                            &davit__v1__event__descriptor, err);
    if (!call)
        return false;
    while ((r = await_grpc_recv(call, &message, err)) > 0) {
        const bool shown = await_show(cli, template, (const Davit__V1__Event *)message, err);
        protobuf_c_message_free_unpacked(message, NULL);
        if (!shown)
            return false;
    }
    return r == 0 || cli_daemon_error(err);
}

#define EVENT_FILTERS                                                                            \
    "type=image|event=pull|event=push|event=tag|event=untag|event=delete|event=load|event=save|" \
    "event=import|image=IMAGE|label="

static const struct flag flags[] = {
    {.name = "filter",
     .shorthand = 'f',
     .type = FLAG_LIST,
     .kind = "filter",
     .help = "Filter output based on conditions provided",
     .suggestions = EVENT_FILTERS,
     .check = filter_check},
    {.name = "format", .type = FLAG_STRING, .help = FORMAT_HELP, .suggestions = FORMAT_SUGGESTIONS},
    {.name = "since",
     .type = FLAG_STRING,
     .help = "Show all events created since timestamp, or after the one of a number (id:123)",
     .check = check_since},
    {.name = "until",
     .type = FLAG_STRING,
     .help = "Stream events until this timestamp",
     .check = check_until},
};

const struct command events_command = {
    .usage = "[OPTIONS]",
    .summary = "Get real time events from the server",
    .flags = flags,
    .flag_count = ARRAY_SIZE(flags),
    .description = "Shows what happens to images, and with --since what happened before. Events "
                   "have numbers that rise by one; a reader that was away goes on behind the last "
                   "one it saw, and is told by an event \"gap\" if some of what it missed is gone.",
    .examples = "    davit events --since 1h --until 0s\n"
                "    davit events --filter event=pull --format \"{{.Actor.ID}}\"\n"
                "    davit events --since id:1234 --format json",
    .await_run = await_events,
};
