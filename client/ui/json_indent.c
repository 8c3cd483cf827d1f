#include "client/ui/json_indent.h"

struct indenter {
    struct strbuf *out;
    const char *indent;
    const char *next, *end;
    unsigned depth;
};

static void add_newline(const struct indenter *indenter)
{
    strbuf_add_char(indenter->out, '\n');
    for (unsigned i = 0; i < indenter->depth; i++)
        strbuf_add_str(indenter->out, indenter->indent);
}

/* Within a string every character may be escaped. */
void add_json_safe(struct strbuf *out, const char *json, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        const unsigned char c = (unsigned char)json[i];
        const unsigned char following = i + 1 < size ? (unsigned char)json[i + 1] : 0;
        if (c == 0x7f) {
            strbuf_add_str(out, "\\u007f");
        } else if (c == 0xc2 && following >= 0x80 && following < 0xa0) { /* C1 */
            strbuf_addf(out, "\\u%04x", following);
            i++;
        } else {
            strbuf_add_char(out, (char)c);
        }
    }
}

/* From its first quote to its last, where next is left. */
static void add_string(struct indenter *indenter)
{
    const char *start = indenter->next++;

    while (indenter->next + 1 < indenter->end && *indenter->next != '"')
        indenter->next += *indenter->next == '\\' ? 2 : 1;
    indenter->next = MIN(indenter->next, indenter->end - 1);
    add_json_safe(indenter->out, start, (size_t)(indenter->next - start) + 1);
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static char peek(const struct indenter *indenter)
{
    const char *c = indenter->next + 1;

    while (c < indenter->end && is_blank(*c))
        c++;
    return c < indenter->end ? *c : '\0';
}

static void add_token(struct indenter *indenter)
{
    const char c = *indenter->next;

    if (c == '}' || c == ']') {
        indenter->depth--;
        add_newline(indenter);
    }
    strbuf_add_char(indenter->out, c);
    if (c == ':')
        strbuf_add_char(indenter->out, ' ');
    else if (c == ',')
        add_newline(indenter);
    if (c != '{' && c != '[')
        return;
    if (peek(indenter) == c + 2) { /* "{}" and "[]" stay together */
        while (*++indenter->next != c + 2)
            ;
        strbuf_add_char(indenter->out, (char)(c + 2));
        return;
    }
    indenter->depth++;
    add_newline(indenter);
}

void add_json_indented(struct strbuf *out, const char *json, size_t size, const char *indent)
{
    struct indenter indenter = {out, indent, json, json + size, 0};

    for (; indenter.next < indenter.end; indenter.next++) {
        if (*indenter.next == '"')
            add_string(&indenter);
        else if (!is_blank(*indenter.next))
            add_token(&indenter);
    }
}
