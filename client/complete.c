#include "client/complete.h"

#include "client/images.h"
#include "client/ui/units.h"
#include "proto/davit/v1/jobs.pb-c.h"

#define LIST_TIMEOUT_MS 500    /* a shell that waits is worse than one that knows nothing */
#define IMAGE_FOLLOWS "=IMAGE" /* in a flag's suggestions */

/* One line, whatever the texts are: shells show them as they are. */
static void add_line(struct strbuf *out, const char *lead, const char *candidate, const char *about)
{
    CLEANUP_FREE char *first = xstrndup(about, strcspn(about, "\n"));
    strbuf_add_printable(out, lead);
    strbuf_add_printable(out, candidate);
    strbuf_add_char(out, '\t');
    strbuf_add_printable(out, first);
    strbuf_add_char(out, '\n');
}

static void add(struct strbuf *out, const char *prefix, const char *candidate, const char *about)
{
    if (str_starts(candidate, prefix))
        add_line(out, "", candidate, about);
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

/* One of a flag's suggestions, behind lead ("--filter=" or ""). True if prefix is past it and an
 * image's name is to follow: that begins at *ret_skip. */
static bool add_suggestion(const char *lead, const char *suggestion, const struct flag *flag,
                           const char *prefix, size_t *ret_skip, struct strbuf *out)
{
    CLEANUP_FREE char *candidate = xasprintf("%s%s", lead, suggestion);
    const bool image_follows = str_ends(candidate, IMAGE_FOLLOWS);
    if (image_follows)
        candidate[strlen(candidate) - strlen(IMAGE_FOLLOWS) + 1] = '\0';
    if (image_follows && str_starts(prefix, candidate)) {
        *ret_skip = strlen(candidate);
        return true;
    }
    /* What has been typed already is no completion: "label=". */
    if (!str_eq(prefix, candidate) || !str_ends(candidate, "="))
        add(out, prefix, candidate, flag->help);
    return false;
}

static struct completion_wish add_values(const struct flag *flag, const char *lead,
                                         const char *prefix, struct strbuf *out)
{
    const char *rest = flag->choices ? flag->choices : flag->suggestions;
    struct completion_wish wish = {flag->completes, strlen(lead)};
    while (rest && *rest) {
        const size_t length = strcspn(rest, "|");
        CLEANUP_FREE char *suggestion = xstrndup(rest, length);
        if (add_suggestion(lead, suggestion, flag, prefix, &wish.skip, out))
            wish.wants = COMPLETE_IMAGES;
        rest += length + (rest[length] == '|');
    }
    if (wish.wants == COMPLETE_IMAGE)
        wish.wants = COMPLETE_IMAGES;
    return wish;
}

static struct completion_wish add_flags(const struct flag_table *table, const char *prefix,
                                        struct strbuf *out)
{
    const bool equals = strchr(prefix, '=');
    for (size_t i = 0; i < table->count; i++) {
        const struct flag *flag = &table->flags[i];
        CLEANUP_FREE char *name = xasprintf("--%s", flag->name);
        CLEANUP_FREE char *lead = xasprintf("%s=", name);
        if (flag->unsupported)
            continue;
        if (equals && str_starts(prefix, lead))
            return add_values(flag, lead, prefix, out);
        if (!equals)
            add(out, prefix, name, flag->help);
    }
    if (!equals)
        add(out, prefix, "--help", "Print usage");
    return (struct completion_wish){0};
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

static struct completion_wish wanted(const struct command *command, size_t arg_count)
{
    const size_t max = command->max_args == ANY_NUMBER ? SIZE_MAX : (size_t)command->max_args;
    enum completion wants = command->completes;
    if (wants == COMPLETE_FILE_IMAGE)
        wants = arg_count == 0 ? COMPLETE_FILES : COMPLETE_IMAGES;
    else if (wants == COMPLETE_IMAGE)
        wants = arg_count == 0 ? COMPLETE_IMAGES : COMPLETE_NOTHING;
    return (struct completion_wish){arg_count < max ? wants : COMPLETE_NOTHING, 0};
}

struct completion_wish complete_words(char *const *words, struct strbuf *out)
{
    const struct completion_wish nothing = {0};
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
            return nothing; /* no such command */
        }
    }
    const char *last = words[0] ? words[0] : "";
    if (wanting)
        return add_values(wanting, "", last, out);
    if (last[0] == '-' && !flags_ended)
        return add_flags(&table, last, out);
    if (command)
        return wanted(command, arg_count);
    add_names(group, last, out);
    return nothing;
}

bool complete_is_id(const char *prefix)
{
    static const char hex[] = "0123456789abcdef";
    return *prefix && (prefix[strspn(prefix, hex)] == '\0' || str_starts(prefix, "sha256:"));
}

/* --- davit __complete --------------------------------------------------------------------------
 */

static void jobs_free(Davit__V1__ListJobsResponse **response)
{
    davit__v1__list_jobs_response__free_unpacked(*response, NULL);
}

static void add_image(const Davit__V1__Image *image, const char *lead, const char *prefix,
                      struct strbuf *out)
{
    const char *hex = id_digits(image->id);
    const bool whole = str_starts(prefix, "sha256:");
    CLEANUP_FREE char *brief = xstrndup(hex, SHORT_ID);
    const char *id = whole ? image->id : strlen(prefix) > SHORT_ID ? hex : brief;
    for (size_t i = 0; i < image->n_repo_tags; i++) {
        if (str_starts(image->repo_tags[i], prefix))
            add_line(out, lead, image->repo_tags[i], brief);
    }
    for (size_t i = 0; strchr(prefix, '@') && i < image->n_repo_digests; i++) {
        if (str_starts(image->repo_digests[i], prefix))
            add_line(out, lead, image->repo_digests[i], brief);
    }
    /* One without a name has only this to be called by. */
    if ((image->n_repo_tags == 0 || complete_is_id(prefix)) && str_starts(id, prefix))
        add_line(out, lead, id, image->n_repo_tags ? image->repo_tags[0] : "<none>");
}

/* Without a daemon there is nothing to offer, and nobody to tell; what came in time is offered. */
static void await_add_images(struct cli *cli, const char *lead, const char *prefix,
                             struct strbuf *out)
{
    Davit__V1__ListImagesRequest request = DAVIT__V1__LIST_IMAGES_REQUEST__INIT;
    CLEANUP_ERROR struct error ignored = {0};
    CLEANUP_IMAGE_LIST Davit__V1__ListImagesResponse *list = NULL;
    CLEANUP(deadline_pop) struct deadline deadline;
    request.all = complete_is_id(prefix);
    deadline_push(&deadline, LIST_TIMEOUT_MS);
    await_image_list(cli, &request, &list, &ignored);
    for (size_t i = 0; i < list->n_images; i++)
        add_image(list->images[i], lead, prefix, out);
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

/* The last line ":files" stands for the names of files, which shells complete better. */
static bool await_complete(struct cli *cli, struct error *err)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    const size_t count = cli->flags.arg_count;
    const char *last = count ? cli->flags.args[count - 1] : "";
    const struct completion_wish wish = complete_words(cli->flags.args, &text);
    CLEANUP_FREE char *lead = xstrndup(last, wish.skip);
    if (wish.wants == COMPLETE_IMAGES)
        await_add_images(cli, lead, last + strlen(lead), &text);
    else if (wish.wants == COMPLETE_JOBS)
        await_add_jobs(cli, last, &text);
    else if (wish.wants == COMPLETE_FILES)
        strbuf_add_str(&text, ":files\n");
    return await_cli_print(cli, text.data, text.length, err);
}

const struct command complete_command = {
    .usage = "-- WORD...",
    .summary = "Complete a command line (for shells)",
    .max_args = ANY_NUMBER,
    .flags_first = true,
    .await_run = await_complete,
};
