#include "client/environment.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>

#include "proto/base/strbuf.h"

struct variables {
    char **list; /* NULL-terminated */
    size_t count;
};

bool environment_check(const char *variable, struct error *err)
{
    if (*variable && *variable != '=')
        return true;
    return error_set(err, ERROR_INVALID_ARGUMENT, NULL, "invalid environment variable: %s",
                     variable);
}

static void add(struct variables *variables, const char *text)
{
    const char *here = strchr(text, '=') ? NULL : getenv(text);
    variables->list = xrealloc(variables->list, (variables->count + 2) * sizeof(char *));
    variables->list[variables->count++] = here ? xasprintf("%s=%s", text, here) : xstrdup(text);
    variables->list[variables->count] = NULL;
}

/* One line of a file, as Docker's CLI reads it (opts/file.go): blanks before the name and "#" lines
 * are skipped, the value is taken as it stands. */
static bool add_line(struct variables *variables, const char *line, struct error *err)
{
    while (isspace((unsigned char)*line))
        line++;
    if (*line == '\0' || *line == '#')
        return true;
    const size_t name = strcspn(line, "=");
    if (name == 0)
        return error_set(err, ERROR_INVALID_ARGUMENT, NULL,
                         "poorly formatted environment: no variable name on line '%s'", line);
    for (size_t i = 0; i < name; i++) {
        if (isspace((unsigned char)line[i]))
            return error_set(err, ERROR_INVALID_ARGUMENT, NULL,
                             "poorly formatted environment: variable '%.*s' contains whitespaces",
                             (int)name, line);
    }
    /* A name alone that is not set here is left out of files, unlike on the command line. */
    if (line[name] == '=' || getenv(line))
        add(variables, line);
    return true;
}

static void file_close(FILE **file)
{
    if (*file)
        fclose(*file);
}

static bool read_file(const char *path, struct strbuf *ret, struct error *err)
{
    CLEANUP(file_close) FILE *file = fopen(path, "re");
    char chunk[4096];
    size_t n;
    if (!file)
        return error_set_errno(err, errno, "open %s", path);
    while ((n = fread(chunk, 1, sizeof(chunk), file)) > 0) {
        strbuf_add(ret, chunk, n);
        if (ret->length > ENV_FILE_MAX)
            return error_set(err, ERROR_RESOURCE_EXHAUSTED, NULL,
                             "environment file %s is larger than %llu bytes", path, ENV_FILE_MAX);
    }
    if (ferror(file))
        return error_set_errno(err, errno, "read %s", path);
    if (memchr(strbuf_text(ret), '\0', ret->length))
        return error_set(err, ERROR_INVALID_ARGUMENT, NULL,
                         "environment file %s is no text: it contains zero bytes", path);
    return true;
}

static bool add_file(struct variables *variables, const char *path, struct error *err)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    if (!read_file(path, &text, err))
        return false;
    char *rest = text.data;
    if (rest && str_starts(rest, "\xef\xbb\xbf")) /* a byte order mark, from Windows */
        rest += 3;
    while (rest) {
        char *line = strsep(&rest, "\n");
        const size_t length = strlen(line);
        if (length && line[length - 1] == '\r')
            line[length - 1] = '\0';
        if (!add_line(variables, line, err))
            return error_prefix(err, "%s", path);
    }
    return true;
}

char **environment_read(char *const *files, char *const *flags, struct error *err)
{
    struct variables variables = {.list = xcalloc(1, sizeof(char *))};
    for (; files && *files; files++) {
        if (!add_file(&variables, *files, err)) {
            strv_free(variables.list);
            return NULL;
        }
    }
    for (; flags && *flags; flags++)
        add(&variables, *flags);
    return variables.list;
}
