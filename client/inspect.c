#include "client/inspect.h"

#include "client/inspect_types.h"
#include "client/show.h"
#include "client/ui/json_indent.h"
#include "proto/davit/v1/images.pb-c.h"

#define DOCUMENT_MAX_BYTES (16 * MIB)

/* --- What is printed ---------------------------------------------------------------------------
 */

bool inspection_init(struct inspection *inspection, const char *format, struct error *err)
{
    *inspection = (struct inspection){.format = str_empty(format) ? NULL : format};
    if (!inspection->format || str_eq(format, "json"))
        return true;
    inspection->template = template_parse(format, err);
    return inspection->template;
}

void inspection_done(struct inspection *inspection)
{
    template_free(inspection->template);
    strbuf_done(&inspection->documents);
    strbuf_done(&inspection->text);
}

static bool add_rendered(struct inspection *inspection, const struct template_type *type,
                         const char *json, size_t size, struct error *err)
{
    CLEANUP_JSON json_t *document =
        json_parse(json, size, DOCUMENT_MAX_BYTES, "the daemon's answer", err);
    CLEANUP_STRBUF struct strbuf text = {0};
    if (!document || !template_render_inspected(inspection->template, type, document, &text, err))
        return false;
    strbuf_addf(&inspection->text, "%s\n", strbuf_text(&text));
    return true;
}

bool inspection_add(struct inspection *inspection, const struct template_type *type,
                    const char *json, size_t size, struct error *err)
{
    if (inspection->template)
        return add_rendered(inspection, type, json, size, err);
    if (inspection->documents.length)
        strbuf_add_char(&inspection->documents, ',');
    strbuf_add(&inspection->documents, json, size);
    return true;
}

void inspection_print(const struct inspection *inspection, struct strbuf *out)
{
    CLEANUP_FREE char *list = NULL;
    if (inspection->template) {
        strbuf_add_str(out, inspection->text.length ? strbuf_text(&inspection->text) : "\n");
        return;
    }
    list = xasprintf("[%s]", strbuf_text(&inspection->documents));
    if (inspection->format)
        add_json_safe(out, list, strlen(list));
    else
        add_json_indented(out, list, strlen(list), "    ");
    strbuf_add_char(out, '\n');
}

/* --- Kinds of objects --------------------------------------------------------------------------
 */

/* Fetches the document of one object; NOT_FOUND if there is no such one. platform: "" for any. */
typedef bool fetch_fn(struct cli *cli, const char *name, const char *platform, struct strbuf *ret,
                      struct error *err);

static void image_response_free(Davit__V1__InspectImageResponse **response)
{
    davit__v1__inspect_image_response__free_unpacked(*response, NULL);
}

static bool await_fetch_image(struct cli *cli, const char *name, const char *platform,
                              struct strbuf *ret, struct error *err)
{
    Davit__V1__InspectImageRequest request = DAVIT__V1__INSPECT_IMAGE_REQUEST__INIT;
    CLEANUP(image_response_free) Davit__V1__InspectImageResponse *response = NULL;
    if (!*name) /* as Docker's command line says it, without asking */
        return error_set(err, ERROR_NOT_FOUND, NULL, "Error: No such image: ");
    request.reference = (char *)name;
    request.platform = (char *)platform;
    if (!await_cli_call(cli, "/davit.v1.Images/Inspect", &request.base,
                        &davit__v1__inspect_image_response__descriptor,
                        (ProtobufCMessage **)&response, err))
        return false;
    strbuf_add(ret, response->document.data, response->document.len);
    return true;
}

/* In the order in which Docker looks for an object of any kind. Those that davit has not yet are
 * kinds, too, without an object: in Docker's words where a Docker without Swarm has the kind. */
static const struct kind {
    const char *name;
    const char *none[2]; /* before and behind the object's name */
    fetch_fn *await_fetch;
    const struct template_type *type;
} kinds[] = {
    {"config", {"davit has no configs: ", ""}, NULL, NULL},
    {"container", {"No such container: ", ""}, NULL, NULL},
    {"image", {NULL, NULL}, await_fetch_image, &image_inspect_type},
    {"network", {"network ", " not found"}, NULL, NULL},
    {"node", {"davit has no nodes: ", ""}, NULL, NULL},
    {"plugin", {"plugin ", " not found"}, NULL, NULL},
    {"secret", {"davit has no secrets: ", ""}, NULL, NULL},
    {"service", {"davit has no services: ", ""}, NULL, NULL},
    {"task", {"davit has no tasks: ", ""}, NULL, NULL},
    {"volume", {"get ", ": no such volume"}, NULL, NULL},
};

/* NULL, with all that there are, for a name that is none. */
static const struct kind *find_kind(const char *name, struct error *err)
{
    CLEANUP_STRBUF struct strbuf names = {0}, safe = {0};
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        if (str_eq(kinds[i].name, name))
            return &kinds[i];
        strbuf_addf(&names, "%s\"%s\"", i ? ", " : "", kinds[i].name);
    }
    strbuf_add_quoted(&safe, name);
    if (*name)
        error_set(err, ERROR_INVALID_ARGUMENT, NULL, "unknown type: %s: must be one of %s",
                  strbuf_text(&safe), strbuf_text(&names));
    else
        error_set(err, ERROR_INVALID_ARGUMENT, NULL, "type is empty: must be one of %s",
                  strbuf_text(&names));
    return NULL;
}

/* Another kind may have an object of this name. */
static bool is_passed_over(const struct error *err)
{
    return err->code == ERROR_NOT_FOUND || error_is(err, "INVALID_REFERENCE");
}

/* What is asked about each of the names. */
struct question {
    const struct kind *kind; /* NULL: any */
    const char *platform;    /* "": any */
    bool size;
};

static bool await_fetch(struct cli *cli, const struct question *question, const char *name,
                        const struct kind **ret_kind, struct strbuf *ret, struct error *err)
{
    const struct kind *kind = question->kind;
    if (kind && !kind->await_fetch)
        return error_set(err, ERROR_NOT_FOUND, NULL, "Error response from daemon: %s%s%s",
                         kind->none[0], name, kind->none[1]);
    if (kind) {
        *ret_kind = kind;
        return kind->await_fetch(cli, name, question->platform, ret, err);
    }
    if (!*name)
        return error_set(err, ERROR_INVALID_ARGUMENT, NULL,
                         "invalid container name or ID: value is empty");
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        CLEANUP_ERROR struct error one = {0};
        *ret_kind = &kinds[i];
        if (!kinds[i].await_fetch)
            continue;
        if (kinds[i].await_fetch(cli, name, question->platform, ret, &one))
            return true;
        if (!is_passed_over(&one))
            return error_move(err, &one);
    }
    return error_set(err, ERROR_NOT_FOUND, NULL, "Error: No such object: %s", name);
}

/* --- davit inspect, davit image inspect --------------------------------------------------------
 */

static bool await_inspect_one(struct cli *cli, const struct question *question, const char *name,
                              struct inspection *inspection, struct error *err)
{
    CLEANUP_STRBUF struct strbuf document = {0}, warning = {0};
    const struct kind *found = NULL;
    if (!await_fetch(cli, question, name, &found, &document, err))
        return false;
    if (question->size && !str_eq(found->name, "container")) {
        strbuf_addf(&warning, "WARNING: --size ignored for %s\n", found->name);
        if (!await_cli_print_error(cli, warning.data, warning.length, err))
            return false;
    }
    return inspection_add(inspection, found->type, strbuf_text(&document), document.length, err);
}

/* Failures of single names go to errors. False if it is no use to go on. */
static bool await_inspect_each(struct cli *cli, const struct question *question,
                               struct inspection *inspection, struct error *errors,
                               struct error *err)
{
    for (size_t i = 0; i < cli->flags.arg_count; i++) {
        await_inspect_one(cli, question, cli->flags.args[i], inspection, &errors[i]);
        if (errors[i].code == ERROR_CANCELLED || errors[i].code == ERROR_UNAVAILABLE)
            return error_move(err, &errors[i]);
    }
    return true;
}

/* As Docker: what was found is printed, then what was wrong with the others. */
static bool await_inspect_all(struct cli *cli, const struct question *question, struct error *err)
{
    CLEANUP(inspection_done) struct inspection inspection = {0};
    CLEANUP_STRBUF struct strbuf text = {0};
    CLEANUP_FREE struct error *errors = xcalloc(cli->flags.arg_count, sizeof(*errors));
    CLEANUP_ERROR struct error print_error = {0};
    if (!inspection_init(&inspection, flag_string(&cli->flags, "format"), &errors[0])) {
        cli->exit_code = EXIT_TEMPLATE;
        cli_print_failure(cli, &errors[0]);
        error_done(&errors[0]);
        return true;
    }
    bool ok = await_inspect_each(cli, question, &inspection, errors, err);
    inspection_print(&inspection, &text);
    if (!await_cli_print(cli, text.data, text.length, &print_error) && ok)
        ok = error_move(err, &print_error);
    for (size_t i = 0; i < cli->flags.arg_count; i++) {
        if (error_is_set(&errors[i])) {
            cli->exit_code = EXIT_FAILURE;
            cli_print_failure(cli, &errors[i]);
        }
        error_done(&errors[i]);
    }
    return ok;
}

static bool await_inspect_image(struct cli *cli, struct error *err)
{
    const char *platform = flag_string(&cli->flags, "platform");
    return await_inspect_all(cli,
                             &(struct question){.kind = find_kind("image", err),
                                                .platform = platform ? platform : ""},
                             err);
}

static bool await_inspect(struct cli *cli, struct error *err)
{
    const char *type = flag_string(&cli->flags, "type");
    const struct question question = {
        .kind = type ? find_kind(type, err) : NULL,
        .platform = "",
        .size = flag_bool(&cli->flags, "size"),
    };
    if (type && !question.kind)
        return false;
    return await_inspect_all(cli, &question, err);
}

static const struct flag image_flags[] = {
    {.name = "format",
     .shorthand = 'f',
     .type = FLAG_STRING,
     .help = FORMAT_HELP,
     .suggestions = FORMAT_SUGGESTIONS},
    {.name = "platform",
     .type = FLAG_STRING,
     .help = "Inspect a specific platform of the multi-platform image. If the image is not for it, "
             "the command will error out. 'os[/arch[/variant]]': Explicit platform (eg. "
             "linux/amd64)",
     .suggestions = PLATFORM_SUGGESTIONS},
};

const struct command image_inspect_command = {
    .usage = "[OPTIONS] IMAGE [IMAGE...]",
    .summary = "Display detailed information on one or more images",
    .flags = image_flags,
    .flag_count = ARRAY_SIZE(image_flags),
    .min_args = 1,
    .max_args = ANY_NUMBER,
    .completes = COMPLETE_IMAGES,
    .description = "Prints all there is to know of images, as the Docker Engine API has it: an "
                   "array of JSON objects, or for each what a template makes of it.",
    .examples =
        "    davit image inspect busybox\n"
        "    davit image inspect --format \"{{.Id}} {{.Architecture}}\" busybox debian:12\n"
        "    davit image inspect --format \"{{range .RootFS.Layers}}{{println .}}{{end}}\" busybox",
    .await_run = await_inspect_image,
};

static const struct flag flags[] = {
    {.name = "format",
     .shorthand = 'f',
     .type = FLAG_STRING,
     .help = FORMAT_HELP,
     .suggestions = FORMAT_SUGGESTIONS},
    {.name = "size",
     .shorthand = 's',
     .type = FLAG_BOOL,
     .help = "Display total file sizes if the type is container"},
    {.name = "type",
     .type = FLAG_STRING,
     .help = "Only inspect objects of the given type",
     .suggestions = "image"},
};

const struct command inspect_command = {
    .usage = "[OPTIONS] NAME|ID [NAME|ID...]",
    .summary = "Return low-level information on objects",
    .flags = flags,
    .flag_count = ARRAY_SIZE(flags),
    .min_args = 1,
    .max_args = ANY_NUMBER,
    .completes = COMPLETE_IMAGES,
    .description = "Prints all there is to know of objects, by name or ID: now images; containers, "
                   "networks and volumes are to come.",
    .examples = "    davit inspect busybox\n"
                "    davit inspect --type image --format \"{{json .Config.Env}}\" busybox",
    .await_run = await_inspect,
};
