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

struct flag {
    const char *name; /* without the dashes */
    char shorthand;   /* 0: none */
    enum flag_type type;
    const char *kind; /* what the help calls its value; NULL: "string" or "list" */
    const char *help;
    const char *choices;  /* "auto|tty": the only values allowed; NULL: any */
    const char *fallback; /* default, shown in the help and returned by flag_string; or NULL */
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

/* The name must be in the table, with that type. What they return belongs to the flags. */
bool flag_bool(const struct flags *flags, const char *name);
const char *flag_string(const struct flags *flags,
                        const char *name);                           /* fallback or NULL if unset */
char *const *flag_list(const struct flags *flags, const char *name); /* NULL if unset */
bool flag_is_set(const struct flags *flags, const char *name);

/* Appends the lines of a help text, "  -q, --quiet   Suppress...", wrapped to width columns. */
void flags_describe(const struct flag *table, size_t count, size_t width, struct strbuf *out);
