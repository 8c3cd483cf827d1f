#include "client/show.h"

#include "client/ui/template.h"

#define EXIT_TEMPLATE 64 /* Docker's, where a template cannot be parsed */

bool showing_init(struct showing *showing, struct cli *cli, struct error *err)
{
    const char *format = flag_string(&cli->flags, "format");
    *showing = (struct showing){.json = str_eq(format, "json")};
    if (str_empty(format) || showing->json)
        return true;
    showing->template = template_parse(format, err);
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

bool showing_add(const struct showing *showing, const json_t *data, struct strbuf *out,
                 struct error *err)
{
    bool shown = true;
    if (showing->json) {
        CLEANUP_FREE char *text = json_text(data);
        strbuf_add_str(out, text);
    } else {
        shown = template_render(showing->template, data, out, err);
    }
    strbuf_add_char(out, '\n'); /* also after an error, as Docker */
    return shown;
}
