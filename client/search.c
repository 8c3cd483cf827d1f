#include <stdio.h>

#include "client/filters.h"
#include "client/job_call.h"
#include "client/ui/template.h"
#include "client/ui/terminal.h"
#include "proto/davit/v1/registries.pb-c.h"

#define DESCRIPTION_COLUMNS 45

/* --- Filters ----------------------------------------------------------------------------------
 */

/* pflag's words. */
static bool check_limit(const char *limit, struct error *err)
{
    char *end;

    strtol(limit, &end, 10);
    return *limit && !*end ? true
                           : error_set(err, ERROR_INVALID_ARGUMENT, NULL,
                                       "strconv.ParseInt: parsing \"%s\": invalid syntax", limit);
}

static bool parse_wanted(const char *text, Davit__V1__SearchRequest__Wanted *ret)
{
    const bool yes = str_eq(text, "true") || str_eq(text, "1");

    *ret = yes ? DAVIT__V1__SEARCH_REQUEST__WANTED__YES : DAVIT__V1__SEARCH_REQUEST__WANTED__NO;
    return yes || str_eq(text, "false") || str_eq(text, "0");
}

static bool parse_stars(const char *text, uint32_t *ret)
{
    char *end;
    const unsigned long stars = strtoul(text, &end, 10);

    *ret = (uint32_t)MIN(stars, UINT32_MAX);
    return *text >= '0' && *text <= '9' && !*end;
}

static bool invalid_filter(const char *filter, struct error *err)
{
    CLEANUP_STRBUF struct strbuf safe = {0};

    strbuf_add_printable(&safe, filter);
    error_set(err, ERROR_INVALID_ARGUMENT, NULL, "invalid filter '%s'", strbuf_text(&safe));
    return error_hint(err, "filters are is-official=true|false, is-automated=true|false and "
                           "stars=NUMBER");
}

static bool take_filter(const char *filter, Davit__V1__SearchRequest *request, struct error *err)
{
    const char *value = strchr(filter, '=') + 1;
    const size_t length = (size_t)(value - filter) - 1;
    bool ok;

    if (strncmp(filter, "stars", MAX(length, 5)) == 0) {
        ok = parse_stars(value, &request->stars);
    } else if (strncmp(filter, "is-official", MAX(length, 11)) == 0) {
        ok = parse_wanted(value, &request->official);
    } else if (strncmp(filter, "is-automated", MAX(length, 12)) == 0) {
        ok = parse_wanted(value, &request->automated);
    } else {
        CLEANUP_FREE char *name = xstrndup(filter, length);
        return invalid_filter(name, err);
    }
    return ok || invalid_filter(filter, err);
}

static bool take_filters(char *const *filters, Davit__V1__SearchRequest *request, struct error *err)
{
    for (; filters && *filters; filters++) {
        if (!take_filter(*filters, request, err))
            return false;
    }
    return true;
}

/* --- Rows -------------------------------------------------------------------------------------
 */

/* On one line, and, but for --no-trunc, not longer than Docker's. It is made printable where it is
 * printed. */
static char *shown_description(const char *description, bool whole)
{
    CLEANUP_FREE char *line = xstrdup(description);

    for (char *c = line; *c; c++)
        *c = *c == '\n' || *c == '\r' || *c == '\t' ? ' ' : *c;
    return whole ? TAKE(line) : terminal_shortened(line, DESCRIPTION_COLUMNS);
}

static json_t *row_of(const Davit__V1__SearchResult *result, bool table, bool whole)
{
    const char *yes = table ? "[OK]" : "true", *no = table ? "" : "false";
    CLEANUP_FREE char *description = shown_description(result->description, whole);
    CLEANUP_FREE char *stars = xasprintf("%u", result->stars);

    return json_pack("{s:s, s:s, s:s, s:s, s:s}", "Name", result->name, "Description", description,
                     "StarCount", stars, "IsOfficial", result->is_official ? yes : no,
                     "IsAutomated", result->is_automated ? yes : no);
}

static bool add_results(const struct flags *flags, const Davit__V1__SearchResponse *response,
                        struct strbuf *out, struct error *err)
{
    static const struct format_column columns[] = {
        {"Name", "NAME"},           {"Description", "DESCRIPTION"}, {"StarCount", "STARS"},
        {"IsOfficial", "OFFICIAL"}, {"IsAutomated", "AUTOMATED"},
    };
    const struct format format = {
        .text = flag_string(flags, "format"),
        .type_name = "*registry.searchContext",
        .width = flag_bool(flags, "no-trunc") ? 0 : terminal_table_width(),
        .free_texts = (const char *const[]){"NAME", "DESCRIPTION", NULL},
        .table = "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}",
        .columns = columns,
        .column_count = ARRAY_SIZE(columns),
    };
    const bool table = !format.text || str_starts(format.text, "table");
    CLEANUP_JSON json_t *rows = json_array();

    for (size_t i = 0; i < response->n_results; i++)
        json_array_append_new(rows,
                              row_of(response->results[i], table, flag_bool(flags, "no-trunc")));
    return format_rows(&format, rows, out, err);
}

/* --- davit search -----------------------------------------------------------------------------
 */

static void response_free(Davit__V1__SearchResponse **response)
{
    davit__v1__search_response__free_unpacked(*response, NULL);
}

static bool take_limit(const struct flags *flags, Davit__V1__SearchRequest *request,
                       struct error *err)
{
    const char *text = flag_string(flags, "limit");
    const long limit = text ? strtol(text, NULL, 10) : 0;

    if (limit < 0 || limit > 100)
        return error_set(err, ERROR_INVALID_ARGUMENT, NULL,
                         "limit %ld is outside the range of [1, 100]", limit);
    request->limit = (uint32_t)limit;
    return true;
}

static bool await_search(struct cli *cli, struct error *err)
{
    Davit__V1__SearchRequest request = DAVIT__V1__SEARCH_REQUEST__INIT;
    CLEANUP(request_login_done) struct request_login login = {0};
    CLEANUP(response_free) Davit__V1__SearchResponse *response = NULL;
    CLEANUP_STRBUF struct strbuf text = {0};
    CLEANUP(strv_cleanup) char **filters = filters_normal(flag_list(&cli->flags, "filter"));

    request.term = cli->flags.args[0];
    if (!take_filters(filters, &request, err) || !take_limit(&cli->flags, &request, err) ||
        !await_request_login(cli, request.term, &login, err))
        return false;
    request.auth = login.auth;
    return await_cli_call(cli, "/davit.v1.Registries/Search", &request.base,
                          &davit__v1__search_response__descriptor, (ProtobufCMessage **)&response,
                          err) &&
           add_results(&cli->flags, response, &text, err) &&
           await_cli_print(cli, text.data, text.length, err);
}

static const struct flag flags[] = {
    {.name = "filter",
     .shorthand = 'f',
     .type = FLAG_LIST,
     .kind = "filter",
     .help = "Filter output based on conditions provided: is-official=, is-automated=, stars=",
     .suggestions = "is-official=true|is-official=false|is-automated=|stars=",
     .check = filter_check},
    {.name = "format",
     .type = FLAG_STRING,
     .help = FORMAT_ROWS_HELP,
     .suggestions = FORMAT_ROWS_SUGGESTIONS},
    {.name = "limit",
     .type = FLAG_STRING,
     .kind = "int",
     .help = "Max number of search results",
     .fallback = "25",
     .check = check_limit},
    {.name = "no-trunc", .type = FLAG_BOOL, .help = "Don't truncate output"},
};

const struct command search_command = {
    .usage = "[OPTIONS] TERM",
    .summary = "Search Docker Hub for images",
    .flags = flags,
    .flag_count = ARRAY_SIZE(flags),
    .min_args = 1,
    .max_args = 1,
    .description = "Searches Docker Hub, or with HOST:PORT/TERM the catalogue of a registry.",
    .examples =
        "    davit search --limit 5 busybox\n"
        "    davit search --filter is-official=true --format \"{{.Name}}: {{.StarCount}}\" nginx\n"
        "    davit search localhost:5000/app",
    .await_run = await_search,
};
