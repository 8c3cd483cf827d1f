#include "client/complete.h"

#include "client/cli.h"
#include "proto/davit/v1/images.pb-c.h"
#include "proto/davit/v1/jobs.pb-c.h"

#define LIST_TIMEOUT_MS 2000 /* a shell that waits is worse than one that knows nothing */

static void add(struct strbuf *out, const char *prefix, const char *candidate, const char *about)
{
    if (str_starts(candidate, prefix))
        strbuf_addf(out, "%s\t%s\n", candidate, about);
}

/* --- Flags -------------------------------------------------------------------------------------
 */

struct flag_table {
    const struct flag *flags;
    size_t count;
};

/* The flag whose value the next word is, if `word` is such a flag without one. */
static const struct flag *awaits_value(const struct flag_table *table, const char *word)
{
    const size_t length = strlen(word);
    for (size_t i = 0; i < table->count && length >= 2 && word[0] == '-'; i++) {
        const struct flag *flag = &table->flags[i];
        if (flag->type == FLAG_BOOL)
            continue;
        if (word[1] == '-' ? str_eq(word + 2, flag->name)
                           : flag->shorthand && word[length - 1] == flag->shorthand)
            return flag;
    }
    return NULL;
}

/* Each of the choices, behind lead ("--progress=" or ""). */
static void add_choices(const struct flag *flag, const char *lead, const char *prefix,
                        struct strbuf *out)
{
    const char *rest = flag->choices;
    while (rest && *rest) {
        const size_t length = strcspn(rest, "|");
        CLEANUP_FREE char *candidate = xasprintf("%s%.*s", lead, (int)length, rest);
        add(out, prefix, candidate, flag->help);
        rest += length + (rest[length] == '|');
    }
}

static void add_flags(const struct flag_table *table, const char *prefix, struct strbuf *out)
{
    const char *equals = strchr(prefix, '=');
    for (size_t i = 0; i < table->count; i++) {
        const struct flag *flag = &table->flags[i];
        CLEANUP_FREE char *name = xasprintf("--%s", flag->name);
        CLEANUP_FREE char *lead = xasprintf("%s=", name);
        if (flag->unsupported)
            continue;
        if (equals && str_starts(prefix, lead))
            add_choices(flag, lead, prefix, out);
        else if (!equals)
            add(out, prefix, name, flag->help);
    }
    if (!equals)
        add(out, prefix, "--help", "Print usage");
}

/* --- Commands ----------------------------------------------------------------------------------
 */

static void add_names(const struct command_group *group, const char *prefix, struct strbuf *out)
{
    for (size_t i = 0; i < group->count; i++) {
        if (!group->names[i].hidden)
            add(out, prefix, group->names[i].name, group->names[i].command->summary);
    }
    for (size_t i = 1; !group->name && i < command_group_count; i++)
        add(out, prefix, command_groups[i].name, command_groups[i].summary);
    if (!group->name)
        add(out, prefix, "help", "Help about a command");
}

static enum completion wanted(const struct command *command, size_t arg_count)
{
    if (command->completes == COMPLETE_IMAGE)
        return arg_count == 0 ? COMPLETE_IMAGES : COMPLETE_NOTHING;
    return command->completes;
}

enum completion complete_words(char *const *words, struct strbuf *out)
{
    const struct command_group *group = &command_groups[0];
    const struct command *command = NULL;
    struct flag_table table = {global_flags, global_flag_count};
    const struct flag *wanting = NULL;
    size_t arg_count = 0;
    bool flags_ended = false;

    for (; words[0] && words[1]; words++) {
        if (wanting) {
            wanting = NULL;
        } else if (words[0][0] == '-' && words[0][1] && !flags_ended) {
            flags_ended = str_eq(words[0], "--");
            wanting = awaits_value(&table, words[0]);
        } else if (command) {
            arg_count++;
            flags_ended = flags_ended || command->flags_first;
        } else if (!group->name && command_group_find(words[0])) {
            group = command_group_find(words[0]);
            table = (struct flag_table){NULL, 0};
            if (group->bare)
                table = (struct flag_table){group->bare->flags, group->bare->flag_count};
        } else if ((command = command_find(group, words[0]))) {
            table = (struct flag_table){command->flags, command->flag_count};
        } else if (group->name || !str_eq(words[0], "help")) {
            return COMPLETE_NOTHING; /* no such command */
        }
    }
    const char *last = words[0] ? words[0] : "";
    if (wanting)
        add_choices(wanting, "", last, out);
    else if (last[0] == '-' && !flags_ended)
        add_flags(&table, last, out);
    else if (!command)
        add_names(group, last, out);
    else
        return wanted(command, arg_count);
    return COMPLETE_NOTHING;
}

/* --- davit __complete --------------------------------------------------------------------------
 */

static void jobs_free(Davit__V1__ListJobsResponse **response)
{
    davit__v1__list_jobs_response__free_unpacked(*response, NULL);
}

static void response_free(Davit__V1__ListImagesResponse **response)
{
    davit__v1__list_images_response__free_unpacked(*response, NULL);
}

/* Without a daemon there is nothing to offer, and nobody to tell. */
static void await_add_images(struct cli *cli, const char *prefix, struct strbuf *out)
{
    Davit__V1__ListImagesRequest request = DAVIT__V1__LIST_IMAGES_REQUEST__INIT;
    CLEANUP(response_free) Davit__V1__ListImagesResponse *response = NULL;
    CLEANUP_ERROR struct error ignored = {0};
    CLEANUP(deadline_pop) struct deadline deadline;
    deadline_push(&deadline, LIST_TIMEOUT_MS);
    if (!await_cli_call(cli, "/davit.v1.Images/List", &request.base,
                        &davit__v1__list_images_response__descriptor,
                        (ProtobufCMessage **)&response, &ignored))
        return;
    for (size_t i = 0; i < response->n_images; i++) {
        for (size_t k = 0; k < response->images[i]->n_repo_tags; k++)
            add(out, prefix, response->images[i]->repo_tags[k], "");
    }
}

static void await_add_jobs(struct cli *cli, const char *prefix, struct strbuf *out)
{
    Davit__V1__ListJobsRequest request = DAVIT__V1__LIST_JOBS_REQUEST__INIT;
    CLEANUP(jobs_free) Davit__V1__ListJobsResponse *response = NULL;
    CLEANUP_ERROR struct error ignored = {0};
    CLEANUP(deadline_pop) struct deadline deadline;
    deadline_push(&deadline, LIST_TIMEOUT_MS);
    if (!await_cli_call(cli, "/davit.v1.Jobs/List", &request.base,
                        &davit__v1__list_jobs_response__descriptor, (ProtobufCMessage **)&response,
                        &ignored))
        return;
    for (size_t i = 0; i < response->n_jobs; i++)
        add(out, prefix, response->jobs[i]->id, response->jobs[i]->subject);
}

static bool await_complete(struct cli *cli, struct error *err)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    const size_t count = cli->flags.arg_count;
    const char *prefix = count ? cli->flags.args[count - 1] : "";
    const enum completion wants = complete_words(cli->flags.args, &text);
    if (wants == COMPLETE_IMAGES)
        await_add_images(cli, prefix, &text);
    else if (wants == COMPLETE_JOBS)
        await_add_jobs(cli, prefix, &text);
    return await_cli_print(cli, text.data, text.length, err);
}

const struct command complete_command = {
    .usage = "-- WORD...",
    .summary = "Complete a command line (for shells)",
    .max_args = ANY_NUMBER,
    .flags_first = true,
    .await_run = await_complete,
};
