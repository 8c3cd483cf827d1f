/* Help texts in Docker's layout, made from the table of commands. All functions append. */
#pragma once

#include "client/commands.h"

/* `davit --help` for the top level, `davit image --help` for a group. */
void help_group(const struct command_group *group, size_t width, struct strbuf *out);

/* `path` is the name by which the command was called, "davit image ls". */
void help_command(const struct command *command, const char *path, size_t width,
                  struct strbuf *out);

/* What follows an error on the command line: how it is used, and where to read more. */
void help_after_error(const struct command *command, const char *path, struct strbuf *out);
void help_group_after_error(const struct command_group *group, struct strbuf *out);

/* Every name of a command, "davit image ls, davit image list, davit images"; the count of them. */
size_t help_aliases(const struct command *command, struct strbuf *out);
