/* TOML 1.0 (https://toml.io/en/v1.0.0), for hosts.toml. A parser without I/O. Everything of the
 * language is checked; dates and floats keep their text. */
#pragma once

#include "proto/base/error.h"

#define TOML_MAX_BYTES (1 * MIB)
#define TOML_MAX_DEPTH 16
#define TOML_MAX_VALUES 4096

enum toml_kind {
    TOML_STRING,
    TOML_INTEGER,
    TOML_FLOAT,
    TOML_BOOLEAN,
    TOML_DATE, /* with or without a time and an offset; or a time alone */
    TOML_ARRAY,
    TOML_TABLE,
};

/* A value; an array and a table have others, in the order of the file. */
struct toml {
    enum toml_kind kind;
    char *key; /* in a table; NULL in an array */
    unsigned int line;
    char *text; /* of a string, float or date. Strings hold no zero bytes: those are refused */
    int64_t integer;
    bool boolean;
    struct toml **children;
    size_t count;
    /* How a table came about, for what may be added to it; a plain array may not grow. */
    enum { TOML_IMPLIED, TOML_BY_HEADER, TOML_BY_DOTS, TOML_CLOSED } origin;
};

/* The table of the whole document. INVALID_ARGUMENT, reason INVALID_CONFIG, says NAME:LINE and
 * why. The caller frees it. */
struct toml *toml_parse(const char *text, size_t size, const char *name, struct error *err);
struct toml *toml_free(struct toml *toml);
static inline void toml_cleanup(struct toml **toml)
{
    *toml = toml_free(*toml);
}

/* A table's value, or NULL. Borrowed. */
struct toml *toml_get(const struct toml *table, const char *key);

/* "a string", "an array". Static. */
const char *toml_kind_name(enum toml_kind kind);
