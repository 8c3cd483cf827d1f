#include "proto/base/log.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
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

/* A value from a peer may hold newlines, quotes, escapes or anything else: strbuf.h writes it so
 * that one event stays one line. It may be long as well. */
#define VALUE_MAX_BYTES 4096

static void add_string(struct strbuf *line, const char *text, bool always_quote)
{
    CLEANUP_FREE char *cut = NULL;
    CLEANUP_STRBUF struct strbuf quoted = {0};
    size_t length = strnlen(text, VALUE_MAX_BYTES + 1);

    if (length > VALUE_MAX_BYTES) {
        length = VALUE_MAX_BYTES;
        while (length > VALUE_MAX_BYTES - 4 && ((unsigned char)text[length] & 0xc0) == 0x80)
            length--; /* not inside a character */
        text = cut = xasprintf("%.*s...", (int)length, text);
        length += strlen("...");
    }
    strbuf_add_quoted(&quoted, text);
    if (always_quote || length == 0 || strpbrk(text, " =") || quoted.length != length + 2)
        strbuf_add(line, quoted.data, quoted.length);
    else
        strbuf_add(line, text, length);
}

static void add_value(struct strbuf *line, const struct log_field *field, bool json)
{
    switch (field->type) {
    case LOG_SIGNED:
        strbuf_addf(line, "%lld", (long long)field->number);
        return;
    case LOG_UNSIGNED:
        strbuf_addf(line, "%llu", (unsigned long long)field->size);
        return;
    case LOG_STRING:
        if (field->string)
            add_string(line, field->string, json);
        else
            strbuf_add_str(line, json ? "null" : "-");
        return;
    }
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

/* True if stderr is the journal's socket, not only an ancestor's was: systemd.exec(5),
 * $JOURNAL_STREAM. */
static bool stderr_is_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    unsigned long long device, inode;
    struct stat st;

    return stream && sscanf(stream, "%llu:%llu", &device, &inode) == 2 &&
           fstat(STDERR_FILENO, &st) == 0 && st.st_dev == device && st.st_ino == inode;
}

static void write_line(const struct strbuf *line)
{
    size_t done = 0;

    while (done < line->length) {
        ssize_t n = write(STDERR_FILENO, line->data + done, line->length - done);
        if (n < 0 && errno != EINTR)
            return; /* a log that cannot be written has nowhere to complain to */
        done += n > 0 ? (size_t)n : 0;
    }
}

void log_write(enum log_level level, const char *message, const struct log_field *fields,
               size_t count)
{
    static const int priorities[] = {7, 6, 4, 3}; /* syslog's, for the journal */
    CLEANUP_STRBUF struct strbuf line = {0};
    bool json = chosen_format == LOG_FORMAT_JSON, journal;

    if (level < chosen_level)
        return;
    journal = stderr_is_journal();
    if (journal)
        strbuf_addf(&line, "<%d>", priorities[level]);
    if (json) {
        strbuf_add_str(&line, "{\"time\":\"");
        add_time(&line);
        strbuf_addf(&line, "\",\"level\":\"%s\",\"msg\":", level_names[level]);
        add_string(&line, message, true);
    } else {
        if (!journal) {
            add_time(&line);
            strbuf_addf(&line, " %-5s ", level_names[level]);
        }
        strbuf_add_printable(&line, message);
    }
    for (size_t i = 0; i < count; i++) {
        strbuf_addf(&line, json ? ",\"%s\":" : " %s=", fields[i].key);
        add_value(&line, &fields[i], json);
    }
    strbuf_add_str(&line, json ? "}\n" : "\n");
    write_line(&line);
}
