/* Writes the manual in roff, a page for each command and group and davit(1), from the table of
 * commands; runs at build time. A page is named by the command's first name, davit-image-ls(1);
 * those of its other names only refer to it. */
#include <errno.h>
#include <stdio.h>

#include "client/help.h"
#include "proto/base/version.h"

/* --- Roff --------------------------------------------------------------------------------------
 */

/* Hyphens that are typed, and nothing that roff takes for a command. */
static void add_text(struct strbuf *out, const char *text)
{
    for (; *text; text++) {
        const bool starts = out->length == 0 || out->data[out->length - 1] == '\n';
        if (starts && (*text == '.' || *text == '\''))
            strbuf_add_str(out, "\\&");
        if (*text == '-')
            strbuf_add_str(out, "\\-");
        else if (*text == '\\')
            strbuf_add_str(out, "\\e");
        else if (*text == '"')
            strbuf_add_str(out, "\\(dq");
        else
            strbuf_add_char(out, *text);
    }
}

/* Lines stay lines; blanks that align columns do not. */
static void add_lines(struct strbuf *out, const char *text)
{
    while (*text) {
        if (*text == '\n')
            strbuf_add_str(out, "\n.br");
        CLEANUP_FREE char *piece =
            xstrndup(text, *text == '\n' || *text == ' ' ? 1 : strcspn(text, " \n"));
        add_text(out, piece);
        text += strlen(piece);
        while (str_starts(text, " ") && str_eq(piece, " "))
            text++;
    }
}

static void add_line(struct strbuf *out, const char *macro, const char *text)
{
    strbuf_addf(out, ".%s ", macro);
    add_text(out, text);
    strbuf_add_char(out, '\n');
}

/* A description or examples, as struct command has them. */
static void add_paragraphs(struct strbuf *out, const char *text)
{
    bool verbatim = false, begins = false;
    while (*text) {
        const size_t length = strcspn(text, "\n");
        CLEANUP_FREE char *line = xstrndup(text, length);
        text += length + (text[length] == '\n');
        const bool example = str_starts(line, "    ");
        if (verbatim && !example)
            strbuf_add_str(out, ".fi\n.RE\n");
        if (*line && begins)
            strbuf_add_str(out, ".PP\n");
        if (example && !verbatim)
            strbuf_add_str(out, ".RS 4\n.nf\n");
        verbatim = example;
        begins = !*line;
        if (*line) {
            add_text(out, example ? line + 4 : line);
            strbuf_add_char(out, '\n');
        }
    }
    if (verbatim)
        strbuf_add_str(out, ".fi\n.RE\n");
}

static void add_flags(struct strbuf *out, const struct flag *flags, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (flags[i].unsupported)
            continue;
        CLEANUP_STRBUF struct strbuf name = {0};
        if (flags[i].shorthand)
            strbuf_addf(&name, "-%c, ", flags[i].shorthand);
        strbuf_addf(&name, "--%s", flags[i].name);
        if (*flag_kind(&flags[i]))
            strbuf_addf(&name, " %s", flag_kind(&flags[i]));
        strbuf_add_str(out, ".TP\n");
        add_line(out, "B", strbuf_text(&name));
        add_lines(out, flags[i].help);
        CLEANUP_STRBUF struct strbuf values = {0};
        flag_describe_values(&flags[i], &values);
        add_text(out, strbuf_text(&values));
        strbuf_add_char(out, '\n');
    }
}

static void add_reference(struct strbuf *out, const char *page)
{
    strbuf_add_str(out, ".BR ");
    add_text(out, page);
    strbuf_add_str(out, " (1)\n");
}

/* --- Pages -------------------------------------------------------------------------------------
 */

struct manual {
    const char *directory;
    bool failed;
};

static char *page_name(const char *path)
{
    char *name = xstrdup(path);
    for (char *c = name; *c; c++)
        *c = *c == ' ' ? '-' : *c;
    return name;
}

static void write_page(struct manual *manual, const char *name, const struct strbuf *text)
{
    CLEANUP_FREE char *path = xasprintf("%s/%s.1", manual->directory, name);
    FILE *file = fopen(path, "we");
    if (file && fwrite(text->data, 1, text->length, file) == text->length && fclose(file) == 0)
        return;
    fprintf(stderr, "%s: %s\n", path, strerror(errno));
    manual->failed = true;
}

static void begin_page(struct strbuf *out, const char *page)
{
    strbuf_add_str(out, ".TH ");
    for (const char *c = page; *c; c++) {
        const char upper[] = {(char)(*c >= 'a' && *c <= 'z' ? *c - 'a' + 'A' : *c), '\0'};
        add_text(out, upper);
    }
    strbuf_addf(out, " 1 \"%s\" \"davit %s\" \"User Commands\"\n.SH NAME\n", DAVIT_DATE,
                DAVIT_VERSION);
}

/* The names of a command, "davit image ls" and so on, NULL-terminated; the first is its page's. */
static char **command_paths(const struct command *command)
{
    CLEANUP_STRBUF struct strbuf names = {0};
    char **paths = xcalloc(help_aliases(command, &names) + 1, sizeof(*paths));
    char *rest = names.data;
    for (size_t i = 0; rest; i++) {
        const char *path = strsep(&rest, ",");
        paths[i] = xstrdup(path + (*path == ' '));
    }
    return paths;
}

static void add_command_list(struct strbuf *out, const struct command_group *group)
{
    for (size_t i = 0; i < group->count; i++) {
        if (group->names[i].hidden)
            continue;
        CLEANUP(strv_cleanup) char **paths = command_paths(group->names[i].command);
        CLEANUP_FREE char *page = page_name(paths[0]);
        strbuf_add_str(out, ".TP\n");
        add_line(out, "B", group->names[i].name);
        add_text(out, group->names[i].command->summary);
        strbuf_add_str(out, ":\n");
        add_reference(out, page);
    }
}

static void add_synopsis(struct strbuf *out, char *const *paths, const char *usage)
{
    strbuf_add_str(out, ".SH SYNOPSIS\n");
    for (size_t i = 0; paths[i]; i++) {
        if (i)
            strbuf_add_str(out, ".br\n");
        add_line(out, "B", paths[i]);
        add_text(out, usage);
        strbuf_add_char(out, '\n');
    }
}

static void add_section(struct strbuf *out, const char *title, const char *paragraphs)
{
    strbuf_addf(out, ".SH %s\n", title);
    add_paragraphs(out, paragraphs);
}

/* `group`: the one whose bare name the command is, or NULL. */
static void write_command(struct manual *manual, const struct command *command,
                          const struct command_group *group)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    CLEANUP(strv_cleanup) char **paths = command_paths(command);
    CLEANUP_FREE char *page = page_name(paths[0]);
    begin_page(&text, page);
    for (size_t i = 0; paths[i]; i++) {
        CLEANUP_FREE char *name = page_name(paths[i]);
        strbuf_add_str(&text, i ? ", " : "");
        add_text(&text, name);
    }
    strbuf_add_str(&text, " \\- ");
    add_text(&text, command->summary);
    strbuf_add_char(&text, '\n');
    add_synopsis(&text, paths, command->usage);
    strbuf_add_str(&text, ".SH DESCRIPTION\n");
    if (command->description) {
        add_paragraphs(&text, command->description);
    } else {
        add_text(&text, command->summary);
        strbuf_add_str(&text, ".\n");
    }
    if (group) {
        strbuf_add_str(&text, ".SH COMMANDS\n");
        add_command_list(&text, group);
    }
    if (command->flag_count) {
        strbuf_add_str(&text, ".SH OPTIONS\n");
        add_flags(&text, command->flags, command->flag_count);
    }
    if (command->examples)
        add_section(&text, "EXAMPLES", command->examples);
    strbuf_add_str(&text, ".SH SEE ALSO\n.BR davit (1)\n");
    write_page(manual, page, &text);

    for (size_t i = 1; paths[i]; i++) {
        CLEANUP_STRBUF struct strbuf link = {0};
        CLEANUP_FREE char *name = page_name(paths[i]);
        strbuf_addf(&link, ".so man1/%s.1\n", page);
        write_page(manual, name, &link);
    }
}

static void write_group(struct manual *manual, const struct command_group *group)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    CLEANUP_FREE char *path = xasprintf("davit %s", group->name);
    CLEANUP_FREE char *page = page_name(path);
    begin_page(&text, page);
    add_text(&text, page);
    strbuf_add_str(&text, " \\- ");
    add_text(&text, group->summary);
    strbuf_add_char(&text, '\n');
    add_synopsis(&text, (char *const[]){path, NULL}, "COMMAND");
    strbuf_add_str(&text, ".SH COMMANDS\n");
    add_command_list(&text, group);
    strbuf_add_str(&text, ".SH SEE ALSO\n.BR davit (1)\n");
    write_page(manual, page, &text);
}

/* --- davit(1) ----------------------------------------------------------------------------------
 */

static const char description[] =
    "davit is the command line of davitd(8), a container engine for servers. Its commands, flags, "
    "output and exit codes are Docker's.";

static const char formats[] =
    "What a command lists or shows can be laid out by --format: \"json\", one object per line; "
    "\"table\", or \"table\" and a template, a table with headings; or a template, as Docker's "
    "users know them from Go:\n"
    "\n"
    "    davit images --format \"{{.Repository}}:{{.Tag}}\"\n"
    "    davit images --format \"table {{.ID}}\\t{{.Size}}\"\n"
    "    davit inspect --format \"{{range .Config.Env}}{{println .}}{{end}}\" busybox\n"
    "    davit inspect --format \"{{json .Config.Labels}}\" busybox\n"
    "\n"
    "A template has fields and fields of them, \"if\" and \"else\", \"range\", \"with\", "
    "\"break\" and \"continue\", \"define\" and \"template\", variables, pipes and comments. Its "
    "functions are and, or, not, "
    "eq, ne, lt, le, gt, ge, index, slice, len, print, printf, println, html, js, urlquery, json, "
    "join, split, lower, upper, title, truncate and pad.";

static const char jobs[] =
    "A pull or push goes on in the daemon when davit is killed or its terminal is closed; "
    "\"davit jobs watch\" joins it again. Ctrl-C asks: pressed twice it cancels, unless others "
    "wait "
    "for the same. Loads, imports and saves end with their davit.";

static const char exit_status[] =
    "0, or 1 when a command fails. 125 for a flag that is wrong, 64 for a template of "
    "inspect, info, version or events that is none. 128 + n when signal n ended "
    "davit. \"run\" returns the container's own exit code, 128 + n if signal n ended it, 127 if "
    "its command was not found, 126 if it cannot be executed, and 125 for any other failure.";

static void write_top(struct manual *manual)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    begin_page(&text, "davit");
    strbuf_add_str(&text, "davit \\- a container engine for servers\n"
                          ".SH SYNOPSIS\n.B davit\n[OPTIONS] COMMAND\n");
    add_section(&text, "DESCRIPTION", description);
    strbuf_add_str(&text, ".SH OPTIONS\n");
    add_flags(&text, global_flags, global_flag_count);
    strbuf_add_str(&text, ".SH COMMANDS\n");
    add_command_list(&text, &command_groups[0]);
    for (size_t i = 1; i < command_group_count; i++) {
        CLEANUP_FREE char *page = xasprintf("davit-%s", command_groups[i].name);
        strbuf_add_str(&text, ".TP\n");
        add_line(&text, "B", command_groups[i].name);
        add_text(&text, command_groups[i].summary);
        strbuf_add_str(&text, ":\n");
        add_reference(&text, page);
    }
    add_section(&text, "FORMATS", formats);
    add_section(&text, "JOBS", jobs);
    add_section(&text, "EXIT STATUS", exit_status);
    strbuf_add_str(
        &text,
        ".SH ENVIRONMENT\n"
        ".TP\n.B DAVIT_HOST\nWhere the daemon listens, as for\n.BR \\-\\-host .\n"
        ".TP\n.B DOCKER_CONFIG\nThe directory of\n.I config.json\nwith the credentials for "
        "registries.\n"
        ".TP\n.B NO_COLOR\nIf not empty, nothing is coloured.\n"
        ".SH FILES\n.TP\n.I /run/davit/davit.sock\nThe daemon's socket.\n"
        ".TP\n.I ~/.docker/config.json\nCredentials for registries, or the names of programs that "
        "keep them, as Docker has it.\n"
        ".SH SEE ALSO\n.BR davitd (8)\n");
    write_page(manual, "davit", &text);
}

/* A command of several groups is written where it comes first; again would do no harm. */
static void write_all(struct manual *manual)
{
    write_top(manual);
    for (size_t i = 0; i < command_group_count; i++) {
        const struct command_group *group = &command_groups[i];
        if (group->name && !group->bare)
            write_group(manual, group);
        for (size_t k = 0; k < group->count; k++) {
            const struct command_name *name = &group->names[k];
            if (!name->hidden)
                write_command(manual, name->command, name->command == group->bare ? group : NULL);
        }
    }
}

int main(int argc, char **argv)
{
    struct manual manual = {.directory = argc == 2 ? argv[1] : NULL};
    if (!manual.directory) {
        fputs("usage: davit-manual DIRECTORY\n", stderr);
        return EXIT_FAILURE;
    }
    write_all(&manual);
    return manual.failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
