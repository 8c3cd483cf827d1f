/* What davit can do: one table of commands, from which parsing, help, completion and the manual are
 * made. Nouns: a *command* is one thing davit does, with its flags and its function, defined at the
 * end of its own file; a *name* is how it is called somewhere; a *group* is a list of names, the
 * first group being the top level. Docker calls one command by several names ("davit rmi", "davit
 * image rm"): these are names of one command. To add a command, write its file and add its names to
 * the groups in commands.c. */
#pragma once

#include "client/flags.h"

struct cli;

struct command {
    const char *usage;   /* what follows its name: "[OPTIONS] NAME[:TAG|@DIGEST]" */
    const char *summary; /* one line, without a full stop */
    const struct flag *flags;
    size_t flag_count;
    int min_args, max_args;    /* ANY_NUMBER: no bound */
    bool flags_first;          /* flags end at the first argument */
    int failure_exit;          /* exit code when it fails; 0 means 1 */
    enum completion completes; /* what its arguments are */
    /* For its manual page. Paragraphs are set apart by empty lines; lines that begin with four
     * blanks are shown as they are. NULL: the summary says it all. */
    const char *description, *examples;
    /* Runs in the main task. False: err is printed and failure_exit is the exit code. */
    bool (*await_run)(struct cli *cli, struct error *err);
};

#define ANY_NUMBER (-1)

struct command_name {
    const char *name;
    const char *alias; /* a second name in the same group, or NULL */
    const struct command *command;
    bool common; /* at the top level: in the first list of the help */
    bool hidden; /* for scripts: in no list */
};

struct command_group {
    const char *name; /* NULL: the top level */
    const char *summary;
    const struct command_name *names;
    size_t count;
    const struct command *bare; /* what its name alone does, with flags; NULL: prints its help */
};

extern const struct command_group command_groups[];
extern const size_t command_group_count;

/* Flags before the command's name. */
extern const struct flag global_flags[];
extern const size_t global_flag_count;

/* Each in the file of that name. */
extern const struct command complete_command;
extern const struct command df_command;
extern const struct command events_command;
extern const struct command history_command;
extern const struct command image_inspect_command;
extern const struct command image_prune_command;
extern const struct command images_command;
extern const struct command import_command;
extern const struct command info_command;
extern const struct command inspect_command;
extern const struct command jobs_cancel_command;
extern const struct command jobs_command;
extern const struct command jobs_update_command;
extern const struct command jobs_watch_command;
extern const struct command load_command;
extern const struct command login_command;
extern const struct command logout_command;
extern const struct command manifest_inspect_command;
extern const struct command prune_command;
extern const struct command pull_command;
extern const struct command push_command;
extern const struct command rmi_command;
extern const struct command run_command;
extern const struct command save_command;
extern const struct command search_command;
extern const struct command tag_command;
extern const struct command verify_command;
extern const struct command version_command;

/* NULL if there is none of this name. */
const struct command_group *command_group_find(const char *name);
const struct command *command_find(const struct command_group *group, const char *name);

/* The name nearest to a mistyped one, or NULL if none is near. Static. */
const char *command_suggest(const struct command_group *group, const char *name);

/* Whether Docker has a command of this name there, which davit is still to get. */
bool command_is_to_come(const struct command_group *group, const char *name);
