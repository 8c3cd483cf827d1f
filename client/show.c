#include "client/show.h"

#define PARSING "template parsing error: "

bool showing_init(struct showing *showing, struct cli *cli, const char *name, struct error *err)
{
    const char *format = flag_string(&cli->flags, "format");
    *showing = (struct showing){.format = format, .json = str_eq(format, "json")};
    if (str_empty(format) || showing->json)
        return true;
    showing->template = template_parse_named(name, format, err);
    if (!showing->template)
        cli->exit_code = EXIT_TEMPLATE;
    return showing->template;
}

void showing_done(struct showing *showing)
{
    template_cleanup(&showing->template);
}

bool showing_is_plain(const struct showing *showing)
{
    return !showing->template && !showing->json;
}

const char *template_problem(const struct error *err)
{
    const size_t length = strlen(PARSING);
    return err->message + (str_starts(err->message, PARSING) ? length : 0);
}

bool show_template(const struct template *template, const struct template_type *type,
                   const json_t *data, struct strbuf *out, struct error *err)
{
    CLEANUP_ERROR struct error problem = {0};
    if (template_render_as(template, type, data, out, &problem))
        return true;
    return error_set(err, problem.code, problem.reason, "%s", template_problem(&problem));
}

bool showing_add(const struct showing *showing, const struct template_type *type,
                 const json_t *data, struct strbuf *out, struct error *err)
{
    bool shown = true;
    if (showing->json) {
        CLEANUP_FREE char *text = json_text(data);
        strbuf_add_str(out, text);
    } else {
        shown = show_template(showing->template, type, data, out, err);
    }
    strbuf_add_char(out, '\n'); /* also after an error, as Docker */
    return shown;
}
