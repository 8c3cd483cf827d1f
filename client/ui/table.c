#include "client/ui/table.h"

#include "client/ui/terminal.h"

#define TABLE_MIN_WIDTH 10
#define TABLE_PADDING 3
#define SHORTEST 12    /* IDs stay whole */
#define LONG 40        /* what is so long and no free text is wanted whole */
#define CELLS_MAX 4096 /* of a line: more is left as it is */

void table_init(struct table *table, size_t columns)
{
    *table = (struct table){.columns = columns};
}

void table_done(struct table *table)
{
    strbuf_done(&table->text);
}

void table_row(struct table *table, const char *const *cells)
{
    for (size_t i = 0; i < table->columns; i++) {
        strbuf_add_str(&table->text, i ? "\t" : "");
        strbuf_add_printable(&table->text, cells[i]);
    }
    strbuf_add_char(&table->text, '\n');
}

void table_print(const struct table *table, struct strbuf *out)
{
    add_table(out, strbuf_text(&table->text), table->text.length, &(struct table_fit){0});
}

/* --- Lines and cells ---------------------------------------------------------------------------
 */

struct cell {
    char *text;
    size_t columns; /* that it takes */
    size_t width;   /* that it is given; 0: it is the last of its line */
};

struct line {
    struct cell *cells;
    size_t count;
};

struct lines {
    struct line *lines;
    size_t count, most; /* cells */
};

static void lines_done(struct lines *lines)
{
    for (size_t i = 0; i < lines->count; i++) {
        for (size_t k = 0; k < lines->lines[i].count; k++)
            free(lines->lines[i].cells[k].text);
        free(lines->lines[i].cells);
    }
    free(lines->lines);
}

static void split_line(struct line *line, const char *text, size_t length)
{
    const char *end = text + length;

    line->count = 1;
    for (const char *c = text; c < end && line->count < CELLS_MAX; c++)
        line->count += *c == '\t';
    line->cells = xcalloc(line->count, sizeof(*line->cells));
    for (size_t i = 0; i < line->count; i++) {
        const char *tab = i + 1 < line->count ? memchr(text, '\t', (size_t)(end - text)) : end;
        line->cells[i].text = xstrndup(text, (size_t)(tab - text));
        line->cells[i].columns = terminal_columns(line->cells[i].text);
        text = tab + 1;
    }
}

static void split_lines(struct lines *lines, const char *text, size_t length)
{
    const char *end = text + length;
    size_t count = 0;

    for (const char *c = text; c < end; c++)
        count += *c == '\n';
    lines->lines = xcalloc(count + 1, sizeof(*lines->lines));
    while (text < end) {
        const char *newline = memchr(text, '\n', (size_t)(end - text));
        struct line *line = &lines->lines[lines->count++];
        split_line(line, text, (size_t)((newline ? newline : end) - text));
        lines->most = MAX(lines->most, line->count);
        text = newline ? newline + 1 : end;
    }
}

/* --- Widths ------------------------------------------------------------------------------------
 */

static bool has_column(const struct lines *lines, size_t line, size_t column)
{
    return line < lines->count && column + 1 < lines->lines[line].count;
}

/* Each run of lines that have the column, and so all before it, has a width of its own. */
static void set_widths(struct lines *lines, size_t column)
{
    for (size_t start = 0, end; start < lines->count; start = end + 1) {
        size_t width = TABLE_MIN_WIDTH;
        for (end = start; has_column(lines, end, column); end++)
            width = MAX(width, lines->lines[end].cells[column].columns + TABLE_PADDING);
        for (size_t i = start; i < end; i++)
            lines->lines[i].cells[column].width = width;
    }
}

static size_t column_columns(const struct lines *lines, size_t column)
{
    size_t columns = 0;

    for (size_t i = 0; i < lines->count; i++) {
        if (column < lines->lines[i].count)
            columns = MAX(columns, lines->lines[i].cells[column].columns);
    }
    return columns;
}

static void shorten_column(struct lines *lines, size_t column, size_t columns)
{
    for (size_t i = 0; i < lines->count; i++) {
        if (column >= lines->lines[i].count)
            continue;
        struct cell *cell = &lines->lines[i].cells[column];
        char *text = terminal_shortened(cell->text, columns);
        free(cell->text);
        cell->text = text;
        cell->columns = terminal_columns(text);
    }
}

static bool is_free_text(const struct lines *lines, size_t column, const struct table_fit *fit)
{
    const char *heading = column < lines->lines[0].count ? lines->lines[0].cells[column].text : "";

    for (size_t i = 0; fit->free_texts && fit->free_texts[i]; i++) {
        if (str_eq(fit->free_texts[i], heading))
            return true;
    }
    return false;
}

struct column {
    size_t columns;
    bool free_text;
};

/* Takes from the widest columns first, of the ones or the others. What then is still too much. */
static size_t shrink(struct column *columns, size_t count, bool free_text, size_t excess)
{
    while (excess) {
        struct column *widest = NULL;
        for (size_t i = 0; i < count; i++) {
            struct column *column = &columns[i];
            const bool may =
                column->free_text == free_text && (free_text || column->columns <= LONG);
            if (may && (!widest || column->columns > widest->columns))
                widest = column;
        }
        if (!widest || widest->columns <= SHORTEST)
            break;
        widest->columns--;
        excess--;
    }
    return excess;
}

static void fit_lines(struct lines *lines, const struct table_fit *fit)
{
    CLEANUP_FREE struct column *columns = xcalloc(lines->most + 1, sizeof(*columns));
    size_t total = 0, excess;

    for (size_t i = 0; i < lines->most; i++) {
        columns[i] = (struct column){column_columns(lines, i), is_free_text(lines, i, fit)};
        total += i + 1 < lines->most ? MAX(columns[i].columns + TABLE_PADDING, TABLE_MIN_WIDTH)
                                     : columns[i].columns;
    }
    if (total <= fit->width)
        return;
    excess = shrink(columns, lines->most, true, total - fit->width);
    shrink(columns, lines->most, false, excess);
    for (size_t i = 0; i < lines->most; i++)
        shorten_column(lines, i, columns[i].columns);
}

/* --- Printing ----------------------------------------------------------------------------------
 */

void add_table(struct strbuf *out, const char *text, size_t length, const struct table_fit *fit)
{
    CLEANUP(lines_done) struct lines lines = {0};

    split_lines(&lines, text, length);
    if (fit->width && lines.count)
        fit_lines(&lines, fit);
    for (size_t i = 0; i + 1 < lines.most; i++)
        set_widths(&lines, i);
    for (size_t i = 0; i < lines.count; i++) {
        for (size_t k = 0; k < lines.lines[i].count; k++) {
            const struct cell *cell = &lines.lines[i].cells[k];
            strbuf_add_str(out, cell->text);
            if (cell->width)
                strbuf_addf(out, "%*s", (int)(cell->width - cell->columns), "");
        }
        strbuf_add_char(out, '\n');
    }
}
