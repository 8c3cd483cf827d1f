/* Prints davit(1) in roff, from the table of commands; runs at build time. */
#include <stdio.h>

#include "client/help.h"
#include "proto/base/version.h"

/* Hyphens that are typed, and nothing that roff takes for a command. */
static void put_text(const char *text)
{
    if (*text == '.' || *text == '\'')
        fputs("\\&", stdout);
    for (; *text; text++) {
        if (*text == '-')
            fputs("\\-", stdout);
        else if (*text == '\\')
            fputs("\\e", stdout);
        else
            putchar(*text);
    }
}

static void put_flags(const struct flag *flags, size_t count)
{
    static const char *const kinds[] = {"", " STRING", " LIST"};
    for (size_t i = 0; i < count; i++) {
        if (flags[i].unsupported)
            continue;
        fputs(".TP\n.B ", stdout);
        if (flags[i].shorthand)
            printf("\\-%c, ", flags[i].shorthand);
        fputs("\\-\\-", stdout);
        put_text(flags[i].name);
        if (flags[i].kind) {
            putchar(' ');
            put_text(flags[i].kind);
        } else {
            fputs(kinds[flags[i].type], stdout);
        }
        putchar('\n');
        put_text(flags[i].help);
        if (flags[i].choices)
            printf(" (%s)", flags[i].choices);
        if (flags[i].fallback) {
            fputs(" (default \"", stdout);
            put_text(flags[i].fallback);
            fputs("\")", stdout);
        }
        putchar('\n');
    }
}

static void put_command(const struct command *command)
{
    CLEANUP_STRBUF struct strbuf names = {0};
    help_aliases(command, &names);
    fputs(".SS ", stdout);
    put_text(strbuf_text(&names));
    fputs("\n.I ", stdout);
    put_text(command->usage);
    fputs("\n.PP\n", stdout);
    put_text(command->summary);
    fputs(".\n", stdout);
    put_flags(command->flags, command->flag_count);
}

static bool is_at_top(const struct command *command)
{
    const struct command_group *top = &command_groups[0];
    for (size_t i = 0; i < top->count; i++) {
        if (top->names[i].command == command)
            return true;
    }
    return false;
}

/* Of the other groups what the top level does not have: a command stands with all its names. */
static void put_group(const struct command_group *group)
{
    for (size_t i = 0; i < group->count; i++) {
        const struct command_name *name = &group->names[i];
        if (!name->hidden && (!group->name || !is_at_top(name->command)))
            put_command(name->command);
    }
}

int main(void)
{
    printf(".TH DAVIT 1 \"\" \"davit %s\" \"User Commands\"\n", DAVIT_VERSION);
    fputs(".SH NAME\ndavit \\- run containers from images\n"
          ".SH SYNOPSIS\n.B davit\n[OPTIONS] COMMAND\n"
          ".SH DESCRIPTION\n"
          "davit is the command line of\n.BR davitd (8),\na container engine for servers. Its "
          "commands, flags, output and exit codes are Docker's.\n"
          ".SH OPTIONS\n",
          stdout);
    put_flags(global_flags, global_flag_count);
    fputs(".SH COMMANDS\n", stdout);
    for (size_t i = 0; i < command_group_count; i++)
        put_group(&command_groups[i]);
    fputs(
        ".SH JOBS\n"
        "What\n.BR pull ,\n.B push\nand others start goes on in the daemon when davit is killed or "
        "its terminal is closed;\n.B davit jobs watch\njoins it again. Ctrl\\-C asks: pressed "
        "twice "
        "it cancels, unless others wait for the same.\n"
        ".SH EXIT STATUS\n"
        "0, or 1 when a command fails. 125 for a flag that is wrong. 128 + n when signal n ended "
        "davit.\n.B run\n"
        "returns the container's own exit code, 128 + n if signal n ended it, 127 if its command "
        "was not found, 126 if it cannot be executed, and 125 for any other failure.\n"
        ".SH ENVIRONMENT\n"
        ".TP\n.B DAVIT_HOST\nWhere the daemon listens, as for\n.BR \\-\\-host .\n"
        ".TP\n.B DOCKER_CONFIG\nThe directory of\n.I config.json\nwith the credentials for "
        "registries.\n"
        ".TP\n.B NO_COLOR\nIf not empty, nothing is coloured.\n"
        ".SH FILES\n.TP\n.I /run/davit/davit.sock\nThe daemon's socket.\n"
        ".TP\n.I ~/.docker/config.json\nCredentials for registries, or the names of programs that "
        "keep them, as Docker has it.\n"
        ".SH SEE ALSO\n.BR davitd (8)\n",
        stdout);
    return ferror(stdout) ? 1 : 0;
}
