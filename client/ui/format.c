/* --format of lists: a template for each row, or for the rows and the heading of a table. */
#include "client/ui/table.h"
#include "client/ui/template_value.h"

/* As Docker: blanks around it go, "\t" and "\n" may be written so in a shell's quotes. */
static char *tidied(const char *text)
{
    CLEANUP_STRBUF struct strbuf out = {0};
    size_t length;

    text += strspn(text, " ");
    for (length = strlen(text); length && text[length - 1] == ' ';)
        length--;
    for (const char *end = text + length; text < end; text++) {
        const bool escape = end - text > 1 && text[0] == '\\' && (text[1] == 't' || text[1] == 'n');
        strbuf_add_char(&out, !escape ? *text : text[1] == 't' ? '\t' : '\n');
        text += escape;
    }
    return strbuf_take(&out);
}

static bool render_row(const struct template *template, const struct template_type *type,
                       const json_t *row, struct strbuf *out, struct error *err)
{
    struct evaluation evaluation = {.one_line = true};

    return evaluate_template(&evaluation, template, type, row, out, err);
}

/* What fails in the heading is not said: Docker, too, shows it as far as it goes. */
static void render_heading(const struct template *template, const struct format *format,
                           struct strbuf *out)
{
    struct evaluation evaluation = {.heading = true};
    CLEANUP_JSON json_t *headings = json_object();

    for (size_t i = 0; i < format->column_count; i++)
        json_object_set_new(headings, format->columns[i].field,
                            json_string(format->columns[i].heading));
    evaluate_template(&evaluation, template, &template_string_map, headings, out, NULL);
}

static bool format_table(const struct format *format, const char *columns, const json_t *rows,
                         const struct template_type *type, struct strbuf *out, struct error *err)
{
    CLEANUP(template_cleanup) struct template *template = template_parse(columns, err);
    CLEANUP_STRBUF struct strbuf heading = {0}, text = {0};

    for (size_t i = 0; template && i < json_array_size(rows); i++) {
        if (!render_row(template, type, json_array_get(rows, i), &text, err))
            return false;
        strbuf_add_char(&text, '\n');
    }
    if (!template)
        return false;
    render_heading(template, format, &heading);
    strbuf_add_char(&heading, '\n');
    strbuf_add(&heading, strbuf_text(&text), text.length);
    add_table(out, strbuf_text(&heading), heading.length,
              &(struct table_fit){format->width, format->free_texts});
    return true;
}

bool format_rows(const struct format *format, const json_t *rows, struct strbuf *out,
                 struct error *err)
{
    const char *given = format->text ? format->text : "table";
    const char *wanted = str_eq(given, "table")                ? format->table
                         : str_starts(given, "table")          ? given + strlen("table")
                         : str_eq(given, "json")               ? "{{json .}}"
                         : str_eq(given, "raw") && format->raw ? format->raw
                                                               : given;
    CLEANUP_FREE char *text = tidied(wanted);
    const struct template_type type = {.kind = TYPE_ROW,
                                       .name = format->type_name ? format->type_name : "row"};

    if (str_starts(given, "table"))
        return format_table(format, text, rows, &type, out, err);
    CLEANUP(template_cleanup) struct template *template = template_parse(text, err);
    for (size_t i = 0; template && i < json_array_size(rows); i++) {
        if (!render_row(template, &type, json_array_get(rows, i), out, err))
            return false;
        strbuf_add_char(out, '\n');
    }
    return template != NULL;
}
