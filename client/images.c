#include "client/images.h"

#include "client/credential_file.h"
#include "client/filters.h"
#include "client/ui/row.h"
#include "client/ui/template.h"
#include "client/ui/terminal.h"
#include "proto/base/size.h"

#define NONE "<none>"
#define RAW_NAME "repository: {{.Repository}}\ntag: {{.Tag}}\n"
#define RAW_REST "image_id: {{.ID}}\ncreated_at: {{.CreatedAt}}\nvirtual_size: {{.Size}}\n"
#define AGE "{{if .CreatedSince}}{{.CreatedSince}}{{else}}N/A{{end}}"

struct row {
    const Davit__V1__Image *image;
    const char *repository, *tag, *digest;
};

struct rows {
    const struct images_view *view;
    bool digests; /* somebody looks at them */
    json_t *array;
};

/* --- Rows --------------------------------------------------------------------------------------
 */

/* Under Docker's names, in the order of the alphabet, as Docker's own are. */
static void add_row(struct rows *rows, const struct row *row)
{
    const Davit__V1__Image *image = row->image;
    CLEANUP_FREE char *containers = xasprintf("%u", image->containers);
    json_t *object = json_object();
    row_set_text(object, "Containers", containers);
    row_set_times(object, "CreatedSince", image->created_unix_ns, rows->view->now_unix);
    row_set_text(object, "Digest", row->digest);
    row_set_id(object, "ID", image->id, rows->view->full_ids);
    row_set_text(object, "Repository", row->repository);
    row_set_text(object, "SharedSize", "N/A"); /* as in Docker, where `system df -v` has them */
    row_set_text(object, "Size", short_size_text(image->size_bytes).text);
    row_set_text(object, "Tag", row->tag);
    row_set_text(object, "UniqueSize", "N/A");
    row_set_text(object, "VirtualSize", size_text(image->size_bytes).text);
    json_array_append_new(rows->array, object);
}

/* Splits "repository<separator>rest" at the last separator that is not within the repository. */
static char *split(const char *text, char separator, const char **ret_rest)
{
    const char *at = strrchr(text, separator);
    *ret_rest = at ? at + 1 : NONE;
    return at ? xstrndup(text, (size_t)(at - text)) : xstrdup(text);
}

static bool is_of(const char *name, const char *repository, char separator)
{
    const size_t length = strlen(repository);
    return strncmp(name, repository, length) == 0 && name[length] == separator &&
           !strchr(name + length + 1, '/');
}

static bool has_tag(const Davit__V1__Image *image, const char *repository)
{
    for (size_t i = 0; i < image->n_repo_tags; i++) {
        if (is_of(image->repo_tags[i], repository, ':'))
            return true;
    }
    return false;
}

static void add_tagged(struct rows *rows, const Davit__V1__Image *image, const char *repo_tag)
{
    struct row row = {.image = image, .digest = NONE};
    CLEANUP_FREE char *repository = split(repo_tag, ':', &row.tag);
    bool shown = false;
    row.repository = repository;
    for (size_t i = 0; rows->digests && i < image->n_repo_digests; i++) {
        if (!is_of(image->repo_digests[i], repository, '@'))
            continue;
        row.digest = strchr(image->repo_digests[i], '@') + 1;
        add_row(rows, &row);
        shown = true;
    }
    if (!shown)
        add_row(rows, &row);
}

/* Repositories of which only digests are known: one row each, or one per digest. */
static size_t add_untagged(struct rows *rows, const Davit__V1__Image *image)
{
    CLEANUP_FREE char *last = NULL;
    size_t count = 0;
    for (size_t i = 0; i < image->n_repo_digests; i++) {
        struct row row = {.image = image, .tag = NONE};
        CLEANUP_FREE char *repository = split(image->repo_digests[i], '@', &row.digest);
        const bool again = str_eq(last, repository);
        row.repository = repository;
        if (!has_tag(image, repository) && (rows->view->digests || !again)) {
            row.digest = rows->view->digests ? row.digest : "";
            add_row(rows, &row);
            count++;
        }
        free(last);
        last = TAKE(repository);
    }
    return count;
}

static json_t *make_rows(const Davit__V1__ListImagesResponse *list, const struct images_view *view)
{
    struct rows rows = {view, view->digests, json_array()};
    if (view->format && strstr(view->format, "{{.Digest}}"))
        rows.digests = true;
    for (size_t i = 0; i < list->n_images; i++) {
        const Davit__V1__Image *image = list->images[i];
        for (size_t k = 0; k < image->n_repo_tags; k++)
            add_tagged(&rows, image, image->repo_tags[k]);
        if (add_untagged(&rows, image) + image->n_repo_tags == 0)
            add_row(&rows, &(struct row){image, NONE, NONE, NONE});
    }
    return rows.array;
}

bool images_print(const Davit__V1__ListImagesResponse *list, const struct images_view *view,
                  struct strbuf *out, struct error *err)
{
    static const struct format_column columns[] = {
        {"ID", "IMAGE ID"},
        {"Repository", "REPOSITORY"},
        {"Tag", "TAG"},
        {"Digest", "DIGEST"},
        {"CreatedAt", "CREATED AT"},
        {"CreatedSince", "CREATED"},
        {"Size", "SIZE"},
        {"Containers", "CONTAINERS"},
        {"VirtualSize", "SIZE"},
        {"SharedSize", "SHARED SIZE"},
        {"UniqueSize", "UNIQUE SIZE"},
    };
    CLEANUP_JSON json_t *rows = make_rows(list, view);
    CLEANUP_FREE char *text = xstrdup(view->format);
    struct format format = {
        .table = view->digests ? "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t" AGE
                                 "\t{{.Size}}"
                               : "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t" AGE "\t{{.Size}}",
        .raw = view->only_ids  ? "image_id: {{.ID}}"
               : view->digests ? RAW_NAME "digest: {{.Digest}}\n" RAW_REST
                               : RAW_NAME RAW_REST,
        .type_name = "*formatter.imageContext",
        .width = view->full_ids ? 0 : view->width,
        .free_texts = (const char *const[]){"REPOSITORY", NULL},
        .columns = columns,
        .column_count = ARRAY_SIZE(columns),
    };
    if (view->only_ids && (!text || str_eq(text, "table"))) {
        free(text);
        text = xstrdup("{{.ID}}");
    } else if (text && view->digests && str_starts(text, "table ") &&
               !strstr(text, "{{.Digest}}")) {
        char *with = xasprintf("%s\t{{.Digest}}", text);
        free(text);
        text = with;
    }
    format.text = text;
    return format_rows(&format, rows, out, err);
}

/* --- davit images ------------------------------------------------------------------------------
 */

/* Takes over the images of one page. */
static void add_page(Davit__V1__ListImagesResponse *all, Davit__V1__ListImagesResponse *page)
{
    if (page->n_images == 0)
        return;
    all->images = xrealloc(all->images, (all->n_images + page->n_images) * sizeof(*all->images));
    for (size_t i = 0; i < page->n_images; i++)
        all->images[all->n_images++] = TAKE(page->images[i]);
    page->n_images = 0;
}

bool await_image_list(struct cli *cli, Davit__V1__ListImagesRequest *request,
                      Davit__V1__ListImagesResponse **ret, struct error *err)
{
    CLEANUP_FREE char *token = NULL;
    *ret = xcalloc(1, sizeof(**ret));
    davit__v1__list_images_response__init(*ret);
    do {
        CLEANUP_IMAGE_LIST Davit__V1__ListImagesResponse *page = NULL;
        request->page_token = token ? token : "";
        if (!await_cli_call(cli, "/davit.v1.Images/List", &request->base,
                            &davit__v1__list_images_response__descriptor,
                            (ProtobufCMessage **)&page, err))
            return false;
        add_page(*ret, page);
        free(token);
        token = xstrdup(page->next_page_token);
    } while (*token);
    return true;
}

/* What Docker's config.json has instead of --format; *ret is NULL for nothing, the caller's. A file
 * that makes no sense is a warning, as in Docker. */
static bool await_config_format(struct cli *cli, char **ret, struct error *err)
{
    CLEANUP_FREE char *path = credential_file_path();
    CLEANUP_JSON json_t *config = NULL;
    CLEANUP_ERROR struct error failure = {0};
    CLEANUP_STRBUF struct strbuf text = {0};
    const char *format;
    if (!credential_file_load(path, &config, &failure)) {
        strbuf_addf(&text, "WARNING: %s\n", failure.message);
        return await_cli_print_error(cli, text.data, text.length, err);
    }
    format = json_str(config, "imagesFormat");
    *ret = str_empty(format) ? NULL : xstrdup(format);
    return true;
}

static bool await_images(struct cli *cli, struct error *err)
{
    Davit__V1__ListImagesRequest request = DAVIT__V1__LIST_IMAGES_REQUEST__INIT;
    CLEANUP_IMAGE_LIST Davit__V1__ListImagesResponse *list = NULL;
    CLEANUP(strv_cleanup) char **filters = filters_normal(flag_list(&cli->flags, "filter"));
    CLEANUP_STRBUF struct strbuf text = {0};
    const char *format = flag_string(&cli->flags, "format");
    const bool only_ids = flag_bool(&cli->flags, "quiet");
    CLEANUP_FREE char *config_format = NULL;
    if (str_empty(format) && !only_ids && !await_config_format(cli, &config_format, err))
        return false;
    const struct images_view view = {
        .only_ids = only_ids,
        .full_ids = flag_bool(&cli->flags, "no-trunc"),
        .digests = flag_bool(&cli->flags, "digests"),
        .format = str_empty(format) ? config_format : format,
        .now_unix = wall_clock_ns() / 1000000000,
        .width = terminal_table_width(),
    };
    if (cli->flags.arg_count)
        request.reference = cli->flags.args[0];
    request.all = flag_bool(&cli->flags, "all");
    request.filters = filters;
    request.n_filters = strv_count(filters);
    if (!await_image_list(cli, &request, &list, err) || !images_print(list, &view, &text, err))
        return false;
    return await_cli_print(cli, text.data, text.length, err);
}

static const struct flag flags[] = {
    {.name = "all",
     .shorthand = 'a',
     .type = FLAG_BOOL,
     .help = "Show all images (default hides intermediate images)"},
    {.name = "digests", .type = FLAG_BOOL, .help = "Show digests"},
    {.name = "filter",
     .shorthand = 'f',
     .type = FLAG_LIST,
     .kind = "filter",
     .help = "Filter output based on conditions provided: dangling=true|false, label=KEY[=VALUE], "
             "before=IMAGE, since=IMAGE, until=TIME, reference=PATTERN",
     .suggestions =
         "before=IMAGE|dangling=false|dangling=true|label=|reference=|since=IMAGE|until=",
     .check = filter_check},
    {.name = "format",
     .type = FLAG_STRING,
     .help = FORMAT_ROWS_HELP,
     .suggestions = FORMAT_ROWS_SUGGESTIONS},
    {.name = "no-trunc", .type = FLAG_BOOL, .help = "Don't truncate output"},
    {.name = "quiet", .shorthand = 'q', .type = FLAG_BOOL, .help = "Only show image IDs"},
    {.name = "tree", .type = FLAG_BOOL, .unsupported = true},
};

const struct command images_command = {
    .usage = "[OPTIONS] [REPOSITORY[:TAG]]",
    .summary = "List images",
    .flags = flags,
    .flag_count = ARRAY_SIZE(flags),
    .max_args = 1,
    .completes = COMPLETE_IMAGE,
    .description = "Lists images, newest first, one line for each of their names. Images that "
                   "others were made from are left out unless --all is given; an image without a "
                   "name is \"<none>\", and \"dangling\" where no other image needs it.\n"
                   "\n"
                   "The argument is a repository, with or without a tag, or a pattern of them. "
                   "Filters are dangling=true, label=KEY[=VALUE], before=IMAGE, since=IMAGE, "
                   "until=TIME and reference=PATTERN; all that are given have to match.\n"
                   "\n"
                   "Without --format, \"imagesFormat\" of Docker's config.json counts.",
    .examples = "    davit images\n"
                "    davit images busybox\n"
                "    davit images --filter dangling=true --quiet\n"
                "    davit images --filter \"reference=registry.example.com/*/*:1.*\" --digests\n"
                "    davit images --format \"table {{.Repository}}\\t{{.Tag}}\\t{{.Size}}\"",
    .await_run = await_images,
};
