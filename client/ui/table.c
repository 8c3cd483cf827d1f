#include "client/ui/table.h"

#include "client/ui/terminal.h"

#define TABLE_MIN_WIDTH 10
#define TABLE_PADDING 3

void table_init(struct table *table, size_t columns)
{
    *table = (struct table){.columns = columns};
}

void table_done(struct table *table)
{
    for (size_t i = 0; i < table->count; i++)
        free(table->cells[i]);
    free(table->cells);
    *table = (struct table){0};
}

void table_row(struct table *table, const char *const *cells)
{
    const size_t size = (table->count + table->columns) * sizeof(*table->cells);
    table->cells = xrealloc(table->cells, size);
    for (size_t i = 0; i < table->columns; i++) {
        CLEANUP_STRBUF struct strbuf cell = {0};
        strbuf_add_printable(&cell, cells[i]);
        table->cells[table->count++] = strbuf_take(&cell);
    }
}

static size_t column_width(const struct table *table, size_t column)
{
    size_t width = TABLE_MIN_WIDTH;
    for (size_t i = column; i < table->count; i += table->columns)
        width = MAX(width, terminal_columns(table->cells[i]) + TABLE_PADDING);
    return width;
}

void table_print(const struct table *table, struct strbuf *out)
{
    CLEANUP_FREE size_t *widths = xcalloc(table->columns, sizeof(*widths));
    for (size_t i = 0; i < table->columns; i++)
        widths[i] = column_width(table, i);
    for (size_t i = 0; i < table->count; i++) {
        const size_t column = i % table->columns;
        strbuf_add_str(out, table->cells[i]);
        if (column + 1 == table->columns)
            strbuf_add_char(out, '\n');
        else
            strbuf_addf(out, "%*s", (int)(widths[column] - terminal_columns(table->cells[i])), "");
    }
}
