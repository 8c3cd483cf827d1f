#include "client/images.h"

#include "client/cli.h"
#include "client/ui/units.h"

#define SHORT_ID 12
#define NONE "<none>"

struct row {
    const Davit__V1__Image *image;
    const char *repository, *tag, *digest;
};

/* --- Rows --------------------------------------------------------------------------------------
 */

static void add_id(const Davit__V1__Image *image, bool full, struct strbuf *out)
{
    const char *hex = strchr(image->id, ':');
    if (full || !hex)
        strbuf_add_str(out, image->id);
    else
        strbuf_addf(out, "%.*s", SHORT_ID, hex + 1);
}

static void add_age(const Davit__V1__Image *image, int64_t now_unix, struct strbuf *out)
{
    if (image->created_unix_ns == 0) {
        strbuf_add_str(out, "N/A"); /* not in the image */
        return;
    }
    add_duration(out, now_unix - image->created_unix_ns / 1000000000);
    strbuf_add_str(out, " ago");
}

static void add_row(struct table *table, const struct row *row, const struct images_view *view,
                    struct strbuf *ids)
{
    CLEANUP_STRBUF struct strbuf id = {0}, age = {0}, size = {0};
    add_id(row->image, view->full_ids, &id);
    if (view->only_ids) {
        strbuf_addf(ids, "%s\n", strbuf_text(&id));
        return;
    }
    add_age(row->image, view->now_unix, &age);
    add_size(&size, row->image->size_bytes);
    const char *with[] = {row->repository,  row->tag,          row->digest,
                          strbuf_text(&id), strbuf_text(&age), strbuf_text(&size)};
    const char *without[] = {with[0], with[1], with[3], with[4], with[5]};
    table_row(table, view->digests ? with : without);
}

/* Splits "repository<separator>rest" at the last separator that is not within the repository. */
static char *split(const char *text, char separator, const char **ret_rest)
{
    const char *at = strrchr(text, separator);
    *ret_rest = at ? at + 1 : NONE;
    return at ? xstrndup(text, (size_t)(at - text)) : xstrdup(text);
}

static bool digest_is_of(const char *repo_digest, const char *repository)
{
    const size_t length = strlen(repository);
    return strncmp(repo_digest, repository, length) == 0 && repo_digest[length] == '@';
}

static bool has_tag(const Davit__V1__Image *image, const char *repository)
{
    const size_t length = strlen(repository);
    for (size_t i = 0; i < image->n_repo_tags; i++) {
        const char *colon = strrchr(image->repo_tags[i], ':');
        if (colon && (size_t)(colon - image->repo_tags[i]) == length &&
            strncmp(image->repo_tags[i], repository, length) == 0)
            return true;
    }
    return false;
}

static void add_tagged(struct table *table, const Davit__V1__Image *image, const char *repo_tag,
                       const struct images_view *view, struct strbuf *ids)
{
    struct row row = {.image = image, .digest = NONE};
    CLEANUP_FREE char *repository = split(repo_tag, ':', &row.tag);
    size_t rows = 0;
    row.repository = repository;
    for (size_t i = 0; view->digests && i < image->n_repo_digests; i++) {
        if (!digest_is_of(image->repo_digests[i], repository))
            continue;
        row.digest = strchr(image->repo_digests[i], '@') + 1;
        add_row(table, &row, view, ids);
        rows++;
    }
    if (rows == 0)
        add_row(table, &row, view, ids);
}

/* Repositories of which only a digest is known. */
static size_t add_untagged(struct table *table, const Davit__V1__Image *image,
                           const struct images_view *view, struct strbuf *ids)
{
    size_t rows = 0;
    for (size_t i = 0; i < image->n_repo_digests; i++) {
        struct row row = {.image = image, .tag = NONE};
        CLEANUP_FREE char *repository = split(image->repo_digests[i], '@', &row.digest);
        row.repository = repository;
        if (has_tag(image, repository))
            continue;
        add_row(table, &row, view, ids);
        rows++;
    }
    return rows;
}

void images_print(const Davit__V1__ListImagesResponse *list, const struct images_view *view,
                  struct strbuf *out)
{
    static const char *const with[] = {"REPOSITORY", "TAG",     "DIGEST",
                                       "IMAGE ID",   "CREATED", "SIZE"};
    static const char *const without[] = {"REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"};
    CLEANUP_TABLE struct table table;
    table_init(&table, view->digests ? ARRAY_SIZE(with) : ARRAY_SIZE(without));
    table_row(&table, view->digests ? with : without);
    for (size_t i = 0; i < list->n_images; i++) {
        const Davit__V1__Image *image = list->images[i];
        for (size_t k = 0; k < image->n_repo_tags; k++)
            add_tagged(&table, image, image->repo_tags[k], view, out);
        if (add_untagged(&table, image, view, out) + image->n_repo_tags == 0) {
            const struct row row = {image, NONE, NONE, NONE};
            add_row(&table, &row, view, out);
        }
    }
    if (!view->only_ids)
        table_print(&table, out);
}

/* --- davit images ------------------------------------------------------------------------------
 */

static void response_free(Davit__V1__ListImagesResponse **response)
{
    davit__v1__list_images_response__free_unpacked(*response, NULL);
}

static bool await_images(struct cli *cli, struct error *err)
{
    Davit__V1__ListImagesRequest request = DAVIT__V1__LIST_IMAGES_REQUEST__INIT;
    CLEANUP(response_free) Davit__V1__ListImagesResponse *response = NULL;
    CLEANUP_STRBUF struct strbuf text = {0};
    const struct images_view view = {
        .only_ids = flag_bool(&cli->flags, "quiet"),
        .full_ids = flag_bool(&cli->flags, "no-trunc"),
        .digests = flag_bool(&cli->flags, "digests"),
        .now_unix = wall_clock_ns() / 1000000000,
    };
    if (cli->flags.arg_count)
        request.reference = cli->flags.args[0];
    if (!await_cli_call(cli, "/davit.v1.Images/List", &request.base,
                        &davit__v1__list_images_response__descriptor,
                        (ProtobufCMessage **)&response, err))
        return false;
    images_print(response, &view, &text);
    return await_cli_print(cli, text.data, text.length, err);
}

static const struct flag flags[] = {
    {.name = "digests", .type = FLAG_BOOL, .help = "Show digests"},
    {.name = "no-trunc", .type = FLAG_BOOL, .help = "Don't truncate output"},
    {.name = "quiet", .shorthand = 'q', .type = FLAG_BOOL, .help = "Only show image IDs"},
};

const struct command images_command = {
    .usage = "[OPTIONS] [REPOSITORY[:TAG]]",
    .summary = "List images",
    .flags = flags,
    .flag_count = ARRAY_SIZE(flags),
    .max_args = 1,
    .completes = COMPLETE_IMAGE,
    .await_run = await_images,
};
