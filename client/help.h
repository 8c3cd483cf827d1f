/* Help texts in Docker's layout, made from the table of commands. All functions append. */
#pragma once

#include "client/commands.h"

/* `davit --help` for the top level, `davit image --help` for a group. */
void help_group(const struct command_group *group, size_t width, struct strbuf *out);

/* `path` is the name by which the command was called, "davit image ls". */
void help_command(const struct command *command, const char *path, size_t width,
                  struct strbuf *out);

/* "Usage:  davit pull [OPTIONS] NAME" and the summary: what follows an error about arguments. */
void help_usage(const struct command *command, const char *path, struct strbuf *out);

/* Every name of a command, "davit image ls, davit image list, davit images"; the count of them. */
size_t help_aliases(const struct command *command, struct strbuf *out);
