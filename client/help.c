#include "client/help.h"

static const char *group_path(const struct command_group *group)
{
    return group->name ? group->name : "";
}

static size_t name_width(const struct command_group *group)
{
    size_t width = 9; /* as Docker: columns of nearby lists line up */
    for (size_t i = 0; i < group->count; i++) {
        if (!group->names[i].hidden)
            width = MAX(width, strlen(group->names[i].name));
    }
    return width;
}

void help_group(const struct command_group *group, size_t width, struct strbuf *out)
{
    const char *space = group->name ? " " : "";
    strbuf_addf(out, "\nUsage:  davit%s%s %s\n\n%s\n", space, group_path(group),
                group->bare   ? "[OPTIONS] [COMMAND]"
                : group->name ? "COMMAND"
                              : "[OPTIONS] COMMAND",
                group->summary);
    if (group->bare) {
        strbuf_add_str(out, "\nOptions:\n");
        flags_describe(group->bare->flags, group->bare->flag_count, width, out);
    }
    if (!group->name) {
        strbuf_add_str(out, "\nOptions:\n");
        flags_describe(global_flags, global_flag_count, width, out);
        strbuf_add_str(out, "\nManagement Commands:\n");
        for (size_t i = 1; i < command_group_count; i++)
            strbuf_addf(out, "  %-*s   %s\n", (int)name_width(group), command_groups[i].name,
                        command_groups[i].summary);
    }
    strbuf_add_str(out, "\nCommands:\n");
    for (size_t i = 0; i < group->count; i++) {
        if (!group->names[i].hidden)
            strbuf_addf(out, "  %-*s   %s\n", (int)name_width(group), group->names[i].name,
                        group->names[i].command->summary);
    }
    strbuf_addf(out, "\nRun 'davit%s%s COMMAND --help' for more information on a command.\n", space,
                group_path(group));
}

void help_usage(const struct command *command, const char *path, struct strbuf *out)
{
    strbuf_addf(out, "\nUsage:  %s%s%s\n\n%s\n", path, *command->usage ? " " : "", command->usage,
                command->summary);
}

static void add_alias(const struct command_group *group, const char *name, size_t *count,
                      struct strbuf *out)
{
    strbuf_addf(out, "%sdavit%s%s %s", *count ? ", " : "", group->name ? " " : "",
                group_path(group), name);
    ++*count;
}

size_t help_aliases(const struct command *command, struct strbuf *out)
{
    size_t count = 0;
    /* The long names first, as Docker has them: the top level comes last. */
    for (size_t i = 1; i <= command_group_count; i++) {
        const struct command_group *group = &command_groups[i % command_group_count];
        if (group->bare == command) {
            strbuf_addf(out, "%sdavit %s", count ? ", " : "", group->name);
            count++;
        }
        for (size_t k = 0; k < group->count; k++) {
            if (group->names[k].command != command)
                continue;
            add_alias(group, group->names[k].name, &count, out);
            if (group->names[k].alias)
                add_alias(group, group->names[k].alias, &count, out);
        }
    }
    return count;
}

void help_command(const struct command *command, const char *path, size_t width, struct strbuf *out)
{
    CLEANUP_STRBUF struct strbuf aliases = {0};
    help_usage(command, path, out);
    if (help_aliases(command, &aliases) > 1)
        strbuf_addf(out, "\nAliases:\n  %s\n", strbuf_text(&aliases));
    if (command->flag_count) {
        strbuf_add_str(out, "\nOptions:\n");
        flags_describe(command->flags, command->flag_count, width, out);
    }
}
