/* davit: finds the command in the table, parses its flags and runs it as the loop's main task. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>

#include "client/cli.h"
#include "client/help.h"
#include "client/ui/terminal.h"
#include "proto/base/version.h"

#define EXIT_USAGE 1   /* what Docker returns for unknown commands and wrong counts of arguments */
#define EXIT_FLAGS 125 /* and for flags */

/* A missing standard stream would be taken by the next file that is opened. Writing to a missing
 * standard output fails as it should: its text would be lost. */
static void open_standard_fds(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        const int how = fd == STDOUT_FILENO ? O_RDONLY : O_RDWR;
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF && open("/dev/null", how) != fd)
            die("cannot open /dev/null for descriptor %d", fd);
    }
}

static int print(const struct strbuf *text)
{
    fputs(strbuf_text(text), stdout);
    if (fflush(stdout) == 0)
        return EXIT_SUCCESS;
    if (errno == EPIPE)
        return 128 + SIGPIPE; /* whoever reads has seen enough */
    perror("cannot write to standard output");
    return EXIT_FAILURE;
}

/* Docker leaves the last column free. */
static size_t help_width(void)
{
    return isatty(STDOUT_FILENO) ? terminal_size(STDOUT_FILENO).width - 1 : 79;
}

static int print_group_help(const struct command_group *group)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    help_group(group, help_width(), &text);
    return print(&text);
}

static int print_command_help(const struct command *command, const char *path)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    help_command(command, path, help_width(), &text);
    return print(&text);
}

static int usage_error(const struct strbuf *text, int code)
{
    fputs(strbuf_text(text), stderr);
    return code;
}

static int group_flag_error(const struct command_group *group, const struct error *err)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    strbuf_addf(&text, "%s\n", err->message);
    help_group_after_error(group, &text);
    return usage_error(&text, EXIT_FLAGS);
}

static int flag_error(const struct cli *cli, const struct error *err)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    strbuf_addf(&text, "%s\n", err->message);
    help_after_error(cli->command, cli->path, &text);
    return usage_error(&text, EXIT_FLAGS);
}

static int unknown_command(const struct command_group *group, const char *name)
{
    const char *within = group->name ? group->name : "", *space = group->name ? " " : "";
    const bool to_come = command_is_to_come(group, name);
    const char *near = to_come ? NULL : command_suggest(group, name);
    CLEANUP_STRBUF struct strbuf text = {0};
    strbuf_addf(&text, "davit: unknown command: davit%s%s ", space, within);
    strbuf_add_printable(&text, name);
    strbuf_add_char(&text, '\n');
    if (to_come)
        strbuf_add_str(&text, "\nDocker has this command, davit does not have it yet\n");
    if (near)
        strbuf_addf(&text, "\nDid you mean 'davit%s%s %s'?\n", space, within, near);
    if (group->name)
        help_group_after_error(group, &text);
    else
        strbuf_add_str(&text, "\nRun 'davit --help' for more information\n");
    return usage_error(&text, EXIT_USAGE);
}

/* --- Running a command -------------------------------------------------------------------------
 */

static bool check_arg_count(const struct cli *cli)
{
    const struct command *command = cli->command;
    const int count = (int)cli->flags.arg_count, min = command->min_args, max = command->max_args;
    CLEANUP_STRBUF struct strbuf text = {0};
    if (count >= min && (max == ANY_NUMBER || count <= max))
        return true;
    strbuf_addf(&text, "davit: '%s' ", cli->path);
    if (max == 0)
        strbuf_add_str(&text, "accepts no arguments\n");
    else if (min == max)
        strbuf_addf(&text, "requires %d argument%s\n", min, min == 1 ? "" : "s");
    else if (count < min)
        strbuf_addf(&text, "requires at least %d argument%s\n", min, min == 1 ? "" : "s");
    else
        strbuf_addf(&text, "requires at most %d argument%s\n", max, max == 1 ? "" : "s");
    help_after_error(command, cli->path, &text);
    fputs(strbuf_text(&text), stderr);
    return false;
}

static bool await_main(void *arg, struct error *err)
{
    struct cli *cli = arg;
    cli->main_task = task_current();
    group_init(&cli->group);
    const bool done = cli->command->await_run(cli, err);
    cli_done_await(cli);
    return done;
}

static int run_command_of(struct cli *cli, char *const *argv)
{
    CLEANUP_ERROR struct error err = {0};
    const struct command *command = cli->command;
    if (!flags_parse(command->flags, command->flag_count, command->flags_first, argv, &cli->flags,
                     &err))
        return flag_error(cli, &err);
    if (cli->flags.help)
        return print_command_help(command, cli->path);
    if (!check_arg_count(cli))
        return EXIT_USAGE;
    const bool done = loop_run_main(await_main, cli, &err);
    if (cli->signum)
        return 128 + cli->signum;
    if (done)
        return cli->exit_code;
    cli_print_failure(cli, &err);
    if (cli->exit_code)
        return cli->exit_code;
    return command->failure_exit ? command->failure_exit : EXIT_FAILURE;
}

static int run_in_group(struct cli *cli, const struct command_group *group, char *const *argv)
{
    if (str_eq(argv[0], "--help") || str_eq(argv[0], "-h") || (!argv[0] && !group->bare))
        return print_group_help(group);
    if (group->bare && (!argv[0] || argv[0][0] == '-')) {
        cli->command = group->bare;
        cli->path = xasprintf("davit %s", group->name);
        return run_command_of(cli, argv);
    }
    if (argv[0][0] == '-') {
        CLEANUP_ERROR struct error err = {0};
        CLEANUP(flags_done) struct flags none = {0};
        if (!flags_parse(NULL, 0, true, argv, &none, &err))
            return group_flag_error(group, &err);
    }
    cli->command = command_find(group, argv[0]);
    if (!cli->command)
        return unknown_command(group, argv[0]);
    cli->path = group->name ? xasprintf("davit %s %s", group->name, argv[0])
                            : xasprintf("davit %s", argv[0]);
    return run_command_of(cli, argv + 1);
}

/* `davit help image ls` is `davit image ls --help`. */
static int print_help_topic(char *const *topic)
{
    const struct command_group *group = &command_groups[0];
    const struct command *command = NULL;
    CLEANUP_STRBUF struct strbuf path = {0};
    strbuf_add_str(&path, "davit");
    for (; *topic && !command; topic++) {
        const struct command_group *inner = group->name ? NULL : command_group_find(*topic);
        command = inner ? NULL : command_find(group, *topic);
        if (!inner && !command)
            break;
        group = inner ? inner : group;
        strbuf_addf(&path, " %s", *topic);
    }
    if (*topic && !command) {
        CLEANUP_STRBUF struct strbuf safe = {0};
        strbuf_add_printable(&safe, *topic);
        fprintf(stderr, "unknown help topic: %s\n", strbuf_text(&safe));
        return EXIT_USAGE;
    }
    return command ? print_command_help(command, strbuf_text(&path)) : print_group_help(group);
}

static int run(struct cli *cli, struct flags *globals, char *const *argv)
{
    CLEANUP_ERROR struct error err = {0};
    if (!flags_parse(global_flags, global_flag_count, true, argv, globals, &err))
        return group_flag_error(&command_groups[0], &err);
    if (flag_bool(globals, "version") && !globals->help) {
        CLEANUP_STRBUF struct strbuf text = {0};
        strbuf_add_str(&text, "davit version " DAVIT_VERSION);
        if (*DAVIT_GIT_COMMIT)
            strbuf_add_str(&text, ", build " DAVIT_GIT_COMMIT);
        strbuf_add_char(&text, '\n');
        return print(&text);
    }
    if (globals->help || !globals->arg_count)
        return print_group_help(&command_groups[0]);

    const char *from_environment = getenv("DAVIT_HOST");
    cli->host = flag_string(globals, "host");
    if (!flag_is_set(globals, "host") && !str_empty(from_environment))
        cli->host = from_environment;

    if (str_eq(globals->args[0], "help"))
        return print_help_topic(globals->args + 1);
    const struct command_group *group = command_group_find(globals->args[0]);
    if (group)
        return run_in_group(cli, group, globals->args + 1);
    return run_in_group(cli, &command_groups[0], globals->args);
}

int main(int argc UNUSED, char **argv)
{
    struct cli cli = {0};
    struct flags globals = {0};
    open_standard_fds();
    signal(SIGPIPE, SIG_IGN);
    const int code = run(&cli, &globals, argv + 1);
    free(cli.path);
    flags_done(&cli.flags);
    flags_done(&globals);
    return code;
}
