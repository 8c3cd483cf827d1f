#include "proto/base/log.h"

#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

#include "proto/base/strbuf.h"

static _Atomic(enum log_level) chosen_level = LOG_LEVEL_INFO;
static _Atomic(enum log_format) chosen_format = LOG_FORMAT_TEXT;

static const char *const level_names[] = {"debug", "info", "warn", "error"};

void log_setup(enum log_level level, enum log_format format)
{
    chosen_level = level;
    chosen_format = format;
}

bool log_level_parse(const char *text, enum log_level *ret)
{
    for (size_t i = 0; i < ARRAY_SIZE(level_names); i++) {
        if (str_eq(text, level_names[i])) {
            *ret = (enum log_level)i;
            return true;
        }
    }
    if (!str_eq(text, "fatal"))
        return false;
    *ret = LOG_LEVEL_ERROR;
    return true;
}

bool log_format_parse(const char *text, enum log_format *ret)
{
    if (str_eq(text, "text"))
        *ret = LOG_FORMAT_TEXT;
    else if (str_eq(text, "json"))
        *ret = LOG_FORMAT_JSON;
    else
        return false;
    return true;
}

/* A value from a peer may hold newlines, quotes or escapes: they are written so that one event
 * stays one line. The escapes are JSON's, in both formats. */
static void add_quoted(struct strbuf *line, const char *value)
{
    strbuf_add_char(line, '"');
    for (const unsigned char *c = (const unsigned char *)value; *c; c++) {
        if (*c == '"' || *c == '\\')
            strbuf_addf(line, "\\%c", *c);
        else if (*c < 0x20 || *c == 0x7f)
            strbuf_addf(line, "\\u%04x", *c);
        else
            strbuf_add_char(line, (char)*c);
    }
    strbuf_add_char(line, '"');
}

static void add_value(struct strbuf *line, const struct log_field *field, bool always_quote)
{
    const char *text = field->string;

    switch (field->type) {
    case LOG_SIGNED:
        strbuf_addf(line, "%lld", (long long)field->number);
        return;
    case LOG_UNSIGNED:
        strbuf_addf(line, "%llu", (unsigned long long)field->size);
        return;
    case LOG_STRING:
        break;
    }
    if (!text)
        text = always_quote ? "" : "-";
    if (always_quote || !*text || strpbrk(text, " \"\\=\t\r\n\033"))
        add_quoted(line, text);
    else
        strbuf_add_str(line, text);
}

static void add_time(struct strbuf *line)
{
    struct timespec now;
    struct tm utc;
    char text[32];

    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &utc);
    strbuf_addf(line, "%s.%03ldZ", text, now.tv_nsec / 1000000);
}

void log_write(enum log_level level, const char *message, const struct log_field *fields,
               size_t count)
{
    static const int priorities[] = {7, 6, 4, 3}; /* syslog's, for the journal */
    CLEANUP_STRBUF struct strbuf line = {0};
    bool journal = getenv("JOURNAL_STREAM") != NULL;
    bool json = chosen_format == LOG_FORMAT_JSON;

    if (level < chosen_level)
        return;
    if (journal)
        strbuf_addf(&line, "<%d>", priorities[level]);
    if (json) {
        strbuf_add_str(&line, "{\"time\":\"");
        add_time(&line);
        strbuf_addf(&line, "\",\"level\":\"%s\",\"msg\":", level_names[level]);
        add_quoted(&line, message);
    } else {
        if (!journal) {
            add_time(&line);
            strbuf_addf(&line, " %-5s ", level_names[level]);
        }
        strbuf_add_str(&line, message);
    }
    for (size_t i = 0; i < count; i++) {
        strbuf_addf(&line, json ? ",\"%s\":" : " %s=", fields[i].key);
        add_value(&line, &fields[i], json);
    }
    strbuf_add_str(&line, json ? "}\n" : "\n");
    /* A log that cannot be written has nowhere to complain to. */
    if (write(STDERR_FILENO, line.data, line.length) < 0)
        return;
}
