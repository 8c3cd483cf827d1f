/* Structured log, one line per event, to stderr. Start with log_info("pulled image",
 * LOG("image", name), LOG("bytes", size)): any number of typed fields, no secrets in them.
 * Formats: text for people, json for machines; with systemd's journal on stderr each line starts
 * with its priority as sd-daemon(3) describes. Whatever the values hold, one event is one line and,
 * in the json format, valid JSON; a value over 4 KiB is cut. Thread-safe by one write(2) per line.
 * Messages and keys are ours ("pulled", "image"), values may be a stranger's. */
#pragma once

#include "proto/base/error.h"

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR };
enum log_format { LOG_FORMAT_TEXT, LOG_FORMAT_JSON };

struct log_field {
    const char *key;
    enum { LOG_STRING, LOG_SIGNED, LOG_UNSIGNED } type;
    union {
        const char *string;
        int64_t number;
        uint64_t size;
    };
};

static inline struct log_field log_field_str(const char *key, const char *value)
{
    return (struct log_field){.key = key, .type = LOG_STRING, .string = value};
}

static inline struct log_field log_field_int(const char *key, int64_t value)
{
    return (struct log_field){.key = key, .type = LOG_SIGNED, .number = value};
}

static inline struct log_field log_field_uint(const char *key, uint64_t value)
{
    return (struct log_field){.key = key, .type = LOG_UNSIGNED, .size = value};
}

#define LOG(key, value) \
    _Generic((value),                                                                              \
        char *: log_field_str,                                                                     \
        const char *: log_field_str,                                                               \
        unsigned int: log_field_uint,                                                              \
        unsigned long: log_field_uint,                                                             \
        unsigned long long: log_field_uint,                                                        \
        default: log_field_int)(key, value)

/* Chooses level and format for the process. The defaults are info and text. */
void log_setup(enum log_level level, enum log_format format);

/* Parses "debug", "info", "warn", "error" (and "fatal" as error) / "text", "json". */
bool log_level_parse(const char *text, enum log_level *ret);
bool log_format_parse(const char *text, enum log_format *ret);

void log_write(enum log_level level, const char *message, const struct log_field *fields,
               size_t count);

#define LOG_LINE(level, message, ...)                                            \
    do {                                                                         \
        const struct log_field log_fields_[] = {{.key = NULL}, ##__VA_ARGS__};   \
        log_write(level, message, log_fields_ + 1, ARRAY_SIZE(log_fields_) - 1); \
    } while (0)

#define log_debug(message, ...) LOG_LINE(LOG_LEVEL_DEBUG, message, ##__VA_ARGS__)
#define log_info(message, ...) LOG_LINE(LOG_LEVEL_INFO, message, ##__VA_ARGS__)
#define log_warn(message, ...) LOG_LINE(LOG_LEVEL_WARN, message, ##__VA_ARGS__)
#define log_error(message, ...) LOG_LINE(LOG_LEVEL_ERROR, message, ##__VA_ARGS__)
