/* Command-line flags as Docker's users know them (Go's pflag): "--name=value", "--name value",
 * "-xVALUE", "-x=VALUE", combined shorts, "--" ends flags; and pflag's words in the errors.
 * Nouns: a *flag* is one line of a command's table; *flags* is what a command line set.
 * To add a flag, add a line to the command's table and read it with flag_bool(), flag_string() or
 * flag_list() under its long name. */
#pragma once

#include "proto/base/error.h"
#include "proto/base/strbuf.h"

enum flag_type {
    FLAG_BOOL,
    FLAG_STRING, /* the last one given counts */
    FLAG_LIST,   /* each one given counts */
};

/* What a shell offers for an argument, or for the value of a flag. */
enum completion {
    COMPLETE_NOTHING,
    COMPLETE_IMAGE,     /* the first argument is an image here; of a flag, its value */
    COMPLETE_IMAGES,    /* all of them are */
    COMPLETE_JOBS,      /* all of them are jobs */
    COMPLETE_FILES,     /* files: of a flag, its value */
    COMPLETE_FILE_IMAGE /* the first argument is a file, the second an image */
};

struct flag {
    const char *name; /* without the dashes */
    char shorthand;   /* 0: none */
    enum flag_type type;
    const char *kind; /* what the help calls its value; NULL: "string" or "list" */
    const char *help;
    const char *choices; /* "auto|tty": the only values allowed; NULL: any */
    /* "dangling=true|label=|since=IMAGE": values that shells offer, of any that are allowed. What
     * ends in "=" is to be gone on with, what ends in "=IMAGE" with an image. Or NULL. */
    const char *suggestions;
    enum completion completes; /* what else they offer */
    /* Default, shown in the help and returned by flag_string() and, "true", by flag_bool(); or
     * NULL. */
    const char *fallback;
    /* Judges a value: false with a message. NULL: any value will do. */
    bool (*check)(const char *value, struct error *err);
    bool
        unsupported; /* Docker has it and davit has not yet: refused in so many words, not listed */
};

struct flags {
    const struct flag *table;
    size_t count;
    char ***values; /* per flag: NULL-terminated list of what was given, or NULL */
    char **args;    /* what is not a flag, in order; NULL-terminated; the words are argv's */
    size_t arg_count;
    bool help; /* --help, or -h where the table has no other use for it */
};

/* Parses argv (NULL-terminated, without the command's own name). flags_first: the first word that
 * is no flag ends them, the rest are arguments as they stand. argv and table must outlive ret.
 * INVALID_ARGUMENT in pflag's words; ret is empty then. Does not suspend. */
bool flags_parse(const struct flag *table, size_t count, bool flags_first, char *const *argv,
                 struct flags *ret, struct error *err);
void flags_done(struct flags *flags);

/* Texts and values for the flag --format: of commands that list, and of those that show one. */
#define FORMAT_KINDS                                                 \
    "'json':             Print in JSON format\n"                     \
    "'TEMPLATE':         Print output using the given Go template\n" \
    "See davit(1) for what templates can do"
#define FORMAT_HELP "Format output using a custom template:\n" FORMAT_KINDS
#define FORMAT_ROWS_HELP                                                               \
    "Format output using a custom template:\n"                                         \
    "'table':            Print output in table format with column headers (default)\n" \
    "'table TEMPLATE':   Print output in table format using the given Go template\n" FORMAT_KINDS
#define FORMAT_SUGGESTIONS "json"
#define FORMAT_ROWS_SUGGESTIONS "json|table"
/* For --platform. */
#define PLATFORM_SUGGESTIONS                                                                  \
    "linux/386|linux/amd64|linux/arm/v5|linux/arm/v6|linux/arm/v7|linux/arm64|linux/ppc64le|" \
    "linux/riscv64|linux/s390x"

/* The name must be in the table, with that type. What they return belongs to the flags. */
bool flag_bool(const struct flags *flags, const char *name);
const char *flag_string(const struct flags *flags,
                        const char *name);                           /* fallback or NULL if unset */
char *const *flag_list(const struct flags *flags, const char *name); /* NULL if unset */
bool flag_is_set(const struct flags *flags, const char *name);

/* What the help calls its value: "string"; "" for a switch. */
const char *flag_kind(const struct flag *flag);
/* Appends " (auto|tty) (default "auto")", what there is of it. */
void flag_describe_values(const struct flag *flag, struct strbuf *out);

/* Appends the lines of a help text, "  -q, --quiet   Suppress...", wrapped to width columns. */
void flags_describe(const struct flag *table, size_t count, size_t width, struct strbuf *out);
