#include "client/ui/bar.h"

void add_bar(struct strbuf *out, uint64_t done, uint64_t total, size_t width)
{
    const size_t inner = width - 3; /* "[>]" */
    const double part = total ? MIN((double)done / (double)total, 1) : 0;
    const size_t filled = (size_t)(part * (double)inner);
    strbuf_add_char(out, '[');
    for (size_t i = 0; i < inner + 1; i++)
        strbuf_add_char(out, i < filled ? '=' : i == filled ? '>' : ' ');
    strbuf_add_char(out, ']');
}

void add_part(struct strbuf *line, const struct strbuf *part, size_t width)
{
    const char *gap = line->length ? "  " : "";
    if (line->length + strlen(gap) + part->length <= width)
        strbuf_addf(line, "%s%s", gap, strbuf_text(part));
}
