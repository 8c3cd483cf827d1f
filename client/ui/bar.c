#include "client/ui/bar.h"

#include "client/ui/units.h"

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

/* "12MB/1.2GB" */
static void add_amounts(struct strbuf *out, uint64_t done, uint64_t total)
{
    add_size(out, done);
    strbuf_add_char(out, '/');
    add_size(out, total);
}

/* A bar in the room that all the other parts leave. */
static void add_parts(const struct bar_line *line, const struct strbuf *const *parts, size_t count,
                      size_t width, struct strbuf *out)
{
    CLEANUP_STRBUF struct strbuf bar = {0};
    size_t used = strlen(line->what) + 2;
    for (size_t i = 0; i < count; i++)
        used += parts[i]->length ? parts[i]->length + 2 : 0;
    if (line->total && used + BAR_MIN <= width)
        add_bar(&bar, line->done, line->total, MIN(width - used, BAR_MAX + 3));
    strbuf_add_str(out, line->what);
    if (bar.length)
        add_part(out, &bar, width);
    for (size_t i = 0; i < count; i++) {
        if (parts[i]->length)
            add_part(out, parts[i], width);
    }
}

void bar_line_draw(const struct bar_line *line, struct terminal_size size, struct strbuf *out)
{
    CLEANUP_STRBUF struct strbuf text = {0}, bytes = {0}, note = {0}, speed = {0}, eta = {0};
    const struct strbuf *const parts[] = {&bytes, &note, &speed, &eta};
    const size_t width = size.width > 1 ? size.width - 1 : 1;
    if (line->total)
        add_amounts(&bytes, line->done, line->total);
    if (line->note)
        strbuf_add_str(&note, line->note);
    if (line->bytes_per_second) {
        add_size(&speed, line->bytes_per_second);
        strbuf_add_str(&speed, "/s");
    }
    if (line->eta_ms >= 0) {
        strbuf_add_str(&eta, "ETA ");
        add_countdown(&eta, line->eta_ms);
    }
    add_parts(line, parts, ARRAY_SIZE(parts), width, &text);
    strbuf_add_str(out, TERMINAL_HIDE_CURSOR "\r" TERMINAL_NO_WRAP);
    strbuf_add(out, strbuf_text(&text), MIN(text.length, width));
    strbuf_add_str(out, TERMINAL_ERASE_LINE TERMINAL_WRAP);
}

void bar_line_leave(struct strbuf *out)
{
    strbuf_add_str(out, "\r" TERMINAL_ERASE_LINE TERMINAL_SHOW_CURSOR);
}
