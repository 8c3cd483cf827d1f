#include "client/commands.h"

/* Common ones in Docker's order, then all others by the alphabet. */
static const struct command_name top_names[] = {
    {.name = "run", .command = &run_command, .common = true},
    {.name = "pull", .command = &pull_command, .common = true},
    {.name = "push", .command = &push_command, .common = true},
    {.name = "images", .command = &images_command, .common = true},
    {.name = "login", .command = &login_command, .common = true},
    {.name = "logout", .command = &logout_command, .common = true},
    {.name = "search", .command = &search_command, .common = true},
    {.name = "version", .command = &version_command, .common = true},
    {.name = "info", .command = &info_command, .common = true},
    {.name = "events", .command = &events_command},
    {.name = "history", .command = &history_command},
    {.name = "import", .command = &import_command},
    {.name = "inspect", .command = &inspect_command},
    {.name = "load", .command = &load_command},
    {.name = "rmi", .command = &rmi_command},
    {.name = "save", .command = &save_command},
    {.name = "tag", .command = &tag_command},
    {.name = "__complete", .command = &complete_command, .hidden = true},
};

static const struct command_name container_names[] = {
    {.name = "run", .command = &run_command},
};

static const struct command_name image_names[] = {
    {.name = "history", .command = &history_command},
    {.name = "import", .command = &import_command},
    {.name = "inspect", .command = &image_inspect_command},
    {.name = "load", .command = &load_command},
    {.name = "ls", .alias = "list", .command = &images_command},
    {.name = "prune", .command = &image_prune_command},
    {.name = "pull", .command = &pull_command},
    {.name = "push", .command = &push_command},
    {.name = "rm", .alias = "remove", .command = &rmi_command},
    {.name = "save", .command = &save_command},
    {.name = "tag", .command = &tag_command},
};

static const struct command_name jobs_names[] = {
    {.name = "cancel", .command = &jobs_cancel_command},
    {.name = "ls", .alias = "list", .command = &jobs_command},
    {.name = "update", .command = &jobs_update_command},
    {.name = "watch", .command = &jobs_watch_command},
};

static const struct command_name manifest_names[] = {
    {.name = "inspect", .command = &manifest_inspect_command},
};

static const struct command_name system_names[] = {
    {.name = "df", .command = &df_command},         {.name = "events", .command = &events_command},
    {.name = "info", .command = &info_command},     {.name = "prune", .command = &prune_command},
    {.name = "verify", .command = &verify_command},
};

#define NAMES(array) .names = array, .count = ARRAY_SIZE(array)

const struct command_group command_groups[] = {
    {.name = NULL, .summary = "A container engine for servers", NAMES(top_names)},
    {.name = "container", .summary = "Manage containers", NAMES(container_names)},
    {.name = "image", .summary = "Manage images", NAMES(image_names)},
    {.name = "jobs", .summary = "Manage jobs", NAMES(jobs_names), .bare = &jobs_command},
    {.name = "manifest",
     .summary = "Manage image manifests and manifest lists",
     NAMES(manifest_names)},
    {.name = "system", .summary = "Manage davit", NAMES(system_names)},
};
const size_t command_group_count = ARRAY_SIZE(command_groups);

const struct flag global_flags[] = {
    {.name = "config", .type = FLAG_STRING, .unsupported = true},
    {.name = "context", .shorthand = 'c', .type = FLAG_STRING, .unsupported = true},
    {.name = "debug", .shorthand = 'D', .type = FLAG_BOOL, .unsupported = true},
    {.name = "host",
     .shorthand = 'H',
     .type = FLAG_STRING,
     .help = "Daemon socket to connect to: unix:///PATH; overrides DAVIT_HOST",
     .fallback = "unix:///run/davit/davit.sock"},
    {.name = "log-level", .shorthand = 'l', .type = FLAG_STRING, .unsupported = true},
    {.name = "tls", .type = FLAG_BOOL, .unsupported = true},
    {.name = "tlscacert", .type = FLAG_STRING, .unsupported = true},
    {.name = "tlscert", .type = FLAG_STRING, .unsupported = true},
    {.name = "tlskey", .type = FLAG_STRING, .unsupported = true},
    {.name = "tlsverify", .type = FLAG_BOOL, .unsupported = true},
    {.name = "version",
     .shorthand = 'v',
     .type = FLAG_BOOL,
     .help = "Print version information and quit"},
};
const size_t global_flag_count = ARRAY_SIZE(global_flags);

const struct command_group *command_group_find(const char *name)
{
    for (size_t i = 1; i < command_group_count; i++) {
        if (str_eq(command_groups[i].name, name))
            return &command_groups[i];
    }
    return NULL;
}

const struct command *command_find(const struct command_group *group, const char *name)
{
    for (size_t i = 0; i < group->count; i++) {
        const struct command_name *entry = &group->names[i];
        if (str_eq(entry->name, name) || (entry->alias && str_eq(entry->alias, name)))
            return entry->command;
    }
    return NULL;
}

/* By name and group; for the top level the group is empty. */
bool command_is_to_come(const struct command_group *group, const char *name)
{
    static const struct {
        const char *group, *names;
    } lists[] = {
        {"", " attach build builder commit cp create diff exec export kill logs network pause port "
             "ps rename restart rm start stats stop top unpause update volume wait "},
        {"container", " attach commit cp create diff exec export inspect kill list logs ls pause "
                      "port prune rename restart rm start stats stop top unpause update wait "},
        {"image", " build "},
        {"manifest", " annotate create push rm "},
    };
    CLEANUP_FREE char *word = xasprintf(" %s ", name);
    for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
        if (str_eq(lists[i].group, group->name ? group->name : ""))
            return !strchr(name, ' ') && strstr(lists[i].names, word);
    }
    return false;
}

/* Optimal string alignment: insertions, deletions, changes and swaps of neighbours. Words longer
 * than what any command is called are not near to it. */
#define SUGGEST_MAX_LENGTH 15
#define SUGGEST_MAX_DISTANCE 2

static unsigned distance(const char *a, const char *b)
{
    const size_t la = strlen(a), lb = strlen(b);
    unsigned d[SUGGEST_MAX_LENGTH + 1][SUGGEST_MAX_LENGTH + 1];
    if (la > SUGGEST_MAX_LENGTH || lb > SUGGEST_MAX_LENGTH)
        return SUGGEST_MAX_DISTANCE + 1;
    for (size_t i = 0; i <= la; i++) {
        for (size_t k = 0; k <= lb; k++) {
            if (i == 0 || k == 0) {
                d[i][k] = (unsigned)(i + k);
                continue;
            }
            d[i][k] = MIN(d[i - 1][k], d[i][k - 1]) + 1;
            d[i][k] = MIN(d[i][k], d[i - 1][k - 1] + (a[i - 1] != b[k - 1]));
            if (i > 1 && k > 1 && a[i - 1] == b[k - 2] && a[i - 2] == b[k - 1])
                d[i][k] = MIN(d[i][k], d[i - 2][k - 2] + 1);
        }
    }
    return d[la][lb];
}

/* "lss" for "ls": what is one letter too long or too short, of names too short for the rest. */
static bool extends(const char *candidate, const char *name)
{
    return *name && (str_starts(name, candidate) || str_starts(candidate, name));
}

static void consider(const char *candidate, const char *name, unsigned *best, const char **ret)
{
    /* Within two changes anything of three letters is like "run", and of two like "push". */
    const unsigned far = distance(candidate, name);
    const bool near = far < strlen(candidate) - 1 && far < strlen(name);
    if (far < *best && (near || (far == 1 && extends(candidate, name)))) {
        *best = far;
        *ret = candidate;
    }
}

const char *command_suggest(const struct command_group *group, const char *name)
{
    const char *nearest = NULL;
    unsigned best = SUGGEST_MAX_DISTANCE + 1;
    for (size_t i = 0; i < group->count; i++) {
        if (!group->names[i].hidden)
            consider(group->names[i].name, name, &best, &nearest);
    }
    for (size_t i = 1; !group->name && i < command_group_count; i++)
        consider(command_groups[i].name, name, &best, &nearest);
    return nearest;
}
