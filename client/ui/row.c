#include "client/ui/row.h"

#include "client/ui/units.h"

void row_set_text(json_t *row, const char *key, const char *text)
{
    json_t *json = json_string(text);
    json_object_set_new(row, key, json ? json : json_string(""));
}

void row_set_id(json_t *row, const char *key, const char *id, bool full)
{
    CLEANUP_FREE char *text = full ? xstrdup(id) : xstrndup(id_digits(id), SHORT_ID);
    row_set_text(row, key, text);
}

void row_set_times(json_t *row, const char *since_key, int64_t unix_ns, int64_t now_unix)
{
    CLEANUP_STRBUF struct strbuf at = {0}, since = {0};
    add_moment(&at, unix_ns);
    row_set_text(row, "CreatedAt", strbuf_text(&at));
    if (unix_ns != MOMENT_LONG_AGO) {
        add_duration(&since, now_unix - unix_ns / 1000000000);
        strbuf_add_str(&since, " ago");
    }
    row_set_text(row, since_key, strbuf_text(&since));
}
