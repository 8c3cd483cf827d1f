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

enum list { LIST_COMMON, LIST_OTHERS };

static void add_names(const struct command_group *group, enum list list, const char *title,
                      struct strbuf *out)
{
    size_t count = 0;
    for (size_t i = 0; i < group->count; i++) {
        const struct command_name *name = &group->names[i];
        if (name->hidden || name->common != (list == LIST_COMMON))
            continue;
        strbuf_addf(out, "%s  %-*s   %s\n", count++ ? "" : title, (int)name_width(group),
                    name->name, name->command->summary);
    }
}

static void add_groups(struct strbuf *out)
{
    strbuf_add_str(out, "\nManagement Commands:\n");
    for (size_t i = 1; i < command_group_count; i++)
        strbuf_addf(out, "  %-*s   %s\n", (int)name_width(&command_groups[0]),
                    command_groups[i].name, command_groups[i].summary);
}

void help_group(const struct command_group *group, size_t width, struct strbuf *out)
{
    strbuf_addf(out, "Usage:  davit%s%s %s\n\n%s\n", group->name ? " " : "", group_path(group),
                group->bare   ? "[OPTIONS] [COMMAND]"
                : group->name ? "COMMAND"
                              : "[OPTIONS] COMMAND",
                group->summary);
    if (group->bare) {
        strbuf_add_str(out, "\nOptions:\n");
        flags_describe(group->bare->flags, group->bare->flag_count, width, out);
    }
    add_names(group, LIST_COMMON, "\nCommon Commands:\n", out);
    if (!group->name)
        add_groups(out);
    add_names(group, LIST_OTHERS, "\nCommands:\n", out);
    if (!group->name) {
        strbuf_add_str(out, "\nGlobal Options:\n");
        flags_describe(global_flags, global_flag_count, width, out);
    }
    strbuf_addf(out, "\nRun 'davit%s%s COMMAND --help' for more information on a command.\n",
                group->name ? " " : "", group_path(group));
}

static void add_usage(const struct command *command, const char *path, struct strbuf *out)
{
    strbuf_addf(out, "Usage:  %s%s%s\n", path, *command->usage ? " " : "", command->usage);
}

static void add_reference(const char *path, struct strbuf *out)
{
    strbuf_addf(out, "\nRun '%s --help' for more information\n", path);
}

void help_after_error(const struct command *command, const char *path, struct strbuf *out)
{
    strbuf_add_char(out, '\n');
    add_usage(command, path, out);
    add_reference(path, out);
}

/* Docker's words for a group differ here from those of its help. */
void help_group_after_error(const struct command_group *group, struct strbuf *out)
{
    CLEANUP_FREE char *path = group->name ? xasprintf("davit %s", group->name) : xstrdup("davit");
    strbuf_addf(out, "\nUsage:  %s%s\n", path,
                group->bare   ? " [OPTIONS] [COMMAND]"
                : group->name ? ""
                              : " [OPTIONS] COMMAND [ARG...]");
    add_reference(path, out);
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
    add_usage(command, path, out);
    strbuf_addf(out, "\n%s\n", command->summary);
    if (help_aliases(command, &aliases) > 1)
        strbuf_addf(out, "\nAliases:\n  %s\n", strbuf_text(&aliases));
    if (command->flag_count) {
        strbuf_add_str(out, "\nOptions:\n");
        flags_describe(command->flags, command->flag_count, width, out);
    }
}
