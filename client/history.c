#include "client/cli.h"
#include "client/ui/row.h"
#include "client/ui/template.h"
#include "client/ui/terminal.h"
#include "client/ui/units.h"
#include "proto/davit/v1/images.pb-c.h"

typedef Davit__V1__ImageHistoryResponse__Step history_step;

#define CREATED_BY_COLUMNS 45
#define YEAR_2000 946684800 /* Docker shows no age of what is said to be from before then */

struct view {
    bool human, whole;
    int64_t now_unix;
};

/* --- Rows --------------------------------------------------------------------------------------
 */

static void set_times(json_t *object, const history_step *step, const struct view *view)
{
    const int64_t seconds = step->created_unix_ns / 1000000000;
    CLEANUP_STRBUF struct strbuf at = {0}, since = {0};
    add_date(&at, step->created_unix_ns);
    row_set_text(object, "CreatedAt", strbuf_text(&at));
    if (!view->human) {
        strbuf_add_str(&since, strbuf_text(&at));
    } else if (seconds <= YEAR_2000) {
        strbuf_add_str(&since, "N/A");
    } else {
        add_duration(&since, view->now_unix - seconds);
        strbuf_add_str(&since, " ago");
    }
    row_set_text(object, "CreatedSince", strbuf_text(&since));
}

static void set_created_by(json_t *object, const history_step *step, bool whole)
{
    CLEANUP_FREE char *text = xstrdup(step->created_by), *shown = NULL;
    for (char *c = text; *c; c++)
        *c = *c == '\t' ? ' ' : *c;
    shown = whole ? TAKE(text) : terminal_shortened(text, CREATED_BY_COLUMNS);
    row_set_text(object, "CreatedBy", shown);
}

static json_t *row_of(const history_step *step, const struct view *view)
{
    CLEANUP_FREE char *bytes = xasprintf("%llu", (unsigned long long)step->size_bytes);
    json_t *object = json_object();
    row_set_text(object, "Comment", step->comment);
    set_times(object, step, view);
    set_created_by(object, step, view->whole);
    row_set_id(object, "ID", *step->id ? step->id : "<missing>", view->whole);
    row_set_text(object, "Size", view->human ? short_size_text(step->size_bytes).text : bytes);
    return object;
}

/* --- davit history -----------------------------------------------------------------------------
 */

static void response_free(Davit__V1__ImageHistoryResponse **response)
{
    davit__v1__image_history_response__free_unpacked(*response, NULL);
}

static bool add_rows(const struct flags *flags, const Davit__V1__ImageHistoryResponse *response,
                     struct strbuf *out, struct error *err)
{
    static const struct format_column columns[] = {
        {"ID", "IMAGE"},
        {"CreatedSince", "CREATED"},
        {"CreatedAt", "CREATED AT"},
        {"CreatedBy", "CREATED BY"},
        {"Size", "SIZE"},
        {"Comment", "COMMENT"},
    };
    const struct view view = {
        .human = flag_bool(flags, "human"),
        .whole = flag_bool(flags, "no-trunc"),
        .now_unix = wall_clock_ns() / 1000000000,
    };
    struct format format = {
        .text = flag_string(flags, "format"),
        .table = view.human ? "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"
                            : "{{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
        .type_name = "*image.historyContext",
        .width = view.whole ? 0 : terminal_table_width(),
        .free_texts = (const char *const[]){"CREATED BY", "COMMENT", NULL},
        .columns = columns,
        .column_count = ARRAY_SIZE(columns),
    };
    CLEANUP_JSON json_t *rows = json_array();
    if (str_empty(format.text))
        format.text = NULL;
    if (flag_bool(flags, "quiet") && (!format.text || str_eq(format.text, "table")))
        format.text = "{{.ID}}";
    for (size_t i = 0; i < response->n_steps; i++)
        json_array_append_new(rows, row_of(response->steps[i], &view));
    return format_rows(&format, rows, out, err);
}

static bool await_history(struct cli *cli, struct error *err)
{
    Davit__V1__ImageHistoryRequest request = DAVIT__V1__IMAGE_HISTORY_REQUEST__INIT;
    CLEANUP(response_free) Davit__V1__ImageHistoryResponse *response = NULL;
    CLEANUP_STRBUF struct strbuf text = {0};
    request.reference = cli->flags.args[0];
    request.platform = (char *)flag_string(&cli->flags, "platform");
    if (!request.platform)
        request.platform = "";
    return await_cli_call(cli, "/davit.v1.Images/History", &request.base,
                          &davit__v1__image_history_response__descriptor,
                          (ProtobufCMessage **)&response, err) &&
           add_rows(&cli->flags, response, &text, err) &&
           await_cli_print(cli, text.data, text.length, err);
}

static const struct flag flags[] = {
    {.name = "format",
     .type = FLAG_STRING,
     .help = FORMAT_ROWS_HELP,
     .suggestions = FORMAT_ROWS_SUGGESTIONS},
    {.name = "human",
     .shorthand = 'H',
     .type = FLAG_BOOL,
     .help = "Print sizes and dates in human readable format",
     .fallback = "true"},
    {.name = "no-trunc", .type = FLAG_BOOL, .help = "Don't truncate output"},
    {.name = "platform",
     .type = FLAG_STRING,
     .help = "Show history for the given platform. Formatted as \"os[/arch[/variant]]\" (e.g., "
             "\"linux/amd64\")",
     .suggestions = PLATFORM_SUGGESTIONS},
    {.name = "quiet", .shorthand = 'q', .type = FLAG_BOOL, .help = "Only show image IDs"},
};

const struct command history_command = {
    .usage = "[OPTIONS] IMAGE",
    .summary = "Show the history of an image",
    .flags = flags,
    .flag_count = ARRAY_SIZE(flags),
    .min_args = 1,
    .max_args = 1,
    .completes = COMPLETE_IMAGE,
    .description =
        "Shows the steps that an image was made by, newest first: what was run, and how large the "
        "layer is that came of it. \"<missing>\" stands for steps that are no image here.",
    .examples = "    davit history debian:12\n"
                "    davit history --no-trunc --format \"{{.Size}}\\t{{.CreatedBy}}\" debian:12",
    .await_run = await_history,
};
