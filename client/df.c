#include "client/df.h"

#include "client/show.h"
#include "client/ui/row.h"
#include "client/ui/terminal.h"
#include "proto/base/size.h"

#define NONE "<none>"

/* As Docker's clients have them: numbers as text. */
static void set_count(json_t *object, const char *key, unsigned count)
{
    CLEANUP_FREE char *text = xasprintf("%u", count);
    row_set_text(object, key, text);
}

/* And for programs the bytes: "SharedSize": "1.5kB", "SharedSizeBytes": 1512. */
static void set_size(json_t *object, const char *key, uint64_t bytes)
{
    CLEANUP_FREE char *exact = xasprintf("%sBytes", key);
    row_set_text(object, key, size_text(bytes).text);
    json_object_set_new(object, exact, json_integer((json_int_t)bytes));
}

/* --- In sum ------------------------------------------------------------------------------------
 */

struct kind {
    const char *name;
    unsigned total, active;
    uint64_t size_bytes, reclaimable_bytes;
};

static struct kind kind_of(const char *name, const Davit__V1__Usage *usage)
{
    static const Davit__V1__Usage none = DAVIT__V1__USAGE__INIT;
    usage = usage ? usage : &none;
    return (struct kind){name, usage->total, usage->active, usage->size_bytes,
                         usage->reclaimable_bytes};
}

/* "11.63MB (70%)"; Docker gives no part of nothing. */
static void add_reclaimable(const struct kind *kind, struct strbuf *out)
{
    add_size(out, kind->reclaimable_bytes);
    if (kind->size_bytes)
        strbuf_addf(out, " (%u%%)",
                    (unsigned)((double)kind->reclaimable_bytes * 100 / (double)kind->size_bytes));
}

static json_t *kind_json(const struct kind *kind)
{
    CLEANUP_STRBUF struct strbuf reclaimable = {0};
    json_t *object = json_object();
    add_reclaimable(kind, &reclaimable);
    set_count(object, "Active", kind->active);
    row_set_text(object, "Reclaimable", strbuf_text(&reclaimable));
    json_object_set_new(object, "ReclaimableBytes",
                        json_integer((json_int_t)kind->reclaimable_bytes));
    set_size(object, "Size", kind->size_bytes);
    set_count(object, "TotalCount", kind->total);
    row_set_text(object, "Type", kind->name);
    return object;
}

bool df_print(const disk_usage *usage, const struct df_view *view, struct strbuf *out,
              struct error *err)
{
    static const struct format_column columns[] = {
        {"Type", "TYPE"}, {"TotalCount", "TOTAL"},        {"Active", "ACTIVE"},
        {"Size", "SIZE"}, {"Reclaimable", "RECLAIMABLE"},
    };
    const struct format format = {
        .text = view->format,
        .table = "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
        .type_name = "*formatter.diskUsageImagesContext",
        .columns = columns,
        .column_count = ARRAY_SIZE(columns),
        .width = view->width,
    };
    /* Docker's four first; volumes and build caches are still to come. */
    const struct kind kinds[] = {
        kind_of("Images", usage->images),
        kind_of("Containers", usage->containers),
        kind_of("Local Volumes", NULL),
        kind_of("Build Cache", NULL),
        kind_of("Partial downloads", usage->partials),
        {"Database", 1, 1, usage->metadata_bytes, 0},
    };
    CLEANUP_JSON json_t *rows = json_array();
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
        json_array_append_new(rows, kind_json(&kinds[i]));
    return format_rows(&format, rows, out, err);
}

/* --- One by one --------------------------------------------------------------------------------
 */

/* Of an image with several names the first, as Docker has it here. */
static void set_name(json_t *object, const Davit__V1__Image *image)
{
    const char *tag = image->n_repo_tags ? image->repo_tags[0] : NULL;
    const char *digest = image->n_repo_digests ? image->repo_digests[0] : NONE;
    const char *colon = tag ? strrchr(tag, ':') : NULL;
    CLEANUP_FREE char *repository =
        colon ? xstrndup(tag, (size_t)(colon - tag)) : xstrndup(digest, strcspn(digest, "@"));
    row_set_text(object, "Repository", repository);
    row_set_text(object, "Tag", colon ? colon + 1 : NONE);
}

/* Keys are in the order of the alphabet, as Docker's own are. */
static json_t *image_json(const Davit__V1__ImageUsage *usage, const struct df_view *view, bool full)
{
    const Davit__V1__Image *image = usage->image;
    const uint64_t size_bytes = usage->shared_bytes + usage->unique_bytes;
    const char *at = image->n_repo_digests ? strchr(image->repo_digests[0], '@') : NULL;
    json_t *object = json_object();
    set_count(object, "Containers", usage->containers);
    row_set_times(object, "CreatedSince", image->created_unix_ns, view->now_unix);
    row_set_text(object, "Digest", at ? at + 1 : "");
    row_set_id(object, "ID", image->id, full);
    set_name(object, image);
    set_size(object, "SharedSize", usage->shared_bytes);
    set_size(object, "Size", size_bytes);
    row_set_text(object, "Size", short_size_text(size_bytes).text);
    set_size(object, "UniqueSize", usage->unique_bytes);
    row_set_text(object, "VirtualSize", size_text(size_bytes).text);
    return object;
}

static json_t *container_json(const Davit__V1__ContainerUsage *usage, const struct df_view *view,
                              bool full)
{
    json_t *object = json_object();
    row_set_text(object, "Command", "");
    row_set_times(object, "RunningFor", usage->created_unix * 1000000000, view->now_unix);
    row_set_id(object, "ID", usage->id, full);
    if (str_empty(usage->image))
        row_set_id(object, "Image", usage->image_id, false);
    else
        row_set_text(object, "Image", usage->image);
    row_set_text(object, "ImageID", usage->image_id);
    row_set_text(object, "LocalVolumes", "0");
    row_set_text(object, "Names", "");
    set_size(object, "Size", usage->size_bytes);
    row_set_text(object, "State", usage->running ? "running" : "exited");
    row_set_text(object, "Status", usage->running ? "Up" : "Exited");
    return object;
}

static json_t *verbose_json(const disk_usage *usage, const struct df_view *view, bool full)
{
    json_t *object = json_object(), *images = json_array(), *containers = json_array();
    for (size_t i = 0; i < usage->n_image_list; i++)
        json_array_append_new(images, image_json(usage->image_list[i], view, full));
    for (size_t i = 0; i < usage->n_container_list; i++)
        json_array_append_new(containers, container_json(usage->container_list[i], view, full));
    json_object_set_new(object, "Images", images);
    json_object_set_new(object, "Containers", containers);
    json_object_set_new(object, "Volumes", json_array());
    json_object_set_new(object, "BuildCache", json_array());
    set_size(object, "PartialDownloadsSize", usage->partials ? usage->partials->size_bytes : 0);
    set_size(object, "DatabaseSize", usage->metadata_bytes);
    return object;
}

/* A title and a table of all its columns. */
static bool add_table(const char *title, const json_t *rows, const struct format_column *columns,
                      size_t count, size_t width, struct strbuf *out, struct error *err)
{
    CLEANUP_STRBUF struct strbuf template = {0};
    struct format format = {.columns = columns, .column_count = count, .width = width};
    for (size_t i = 0; i < count; i++)
        strbuf_addf(&template, "%s{{if .%s}}{{.%s}}{{else}}%s{{end}}", i ? "\t" : "",
                    columns[i].field, columns[i].field,
                    str_eq(columns[i].field, "CreatedSince") ? "N/A" : "");
    format.table = strbuf_text(&template);
    strbuf_addf(out, "%s\n\n", title);
    return format_rows(&format, rows, out, err);
}

static bool add_tables(const json_t *usage, size_t width, struct strbuf *out, struct error *err)
{
    static const struct format_column images[] = {
        {"Repository", "REPOSITORY"},
        {"Tag", "TAG"},
        {"ID", "IMAGE ID"},
        {"CreatedSince", "CREATED"},
        {"Size", "SIZE"},
        {"SharedSize", "SHARED SIZE"},
        {"UniqueSize", "UNIQUE SIZE"},
        {"Containers", "CONTAINERS"},
    };
    static const struct format_column containers[] = {
        {"ID", "CONTAINER ID"}, {"Image", "IMAGE"},
        {"Command", "COMMAND"}, {"LocalVolumes", "LOCAL VOLUMES"},
        {"Size", "SIZE"},       {"RunningFor", "CREATED"},
        {"Status", "STATUS"},   {"Names", "NAMES"},
    };
    static const struct format_column volumes[] = {{"Name", "VOLUME NAME"},
                                                   {"Links", "LINKS"},
                                                   {"Size", "SIZE"}};
    static const struct format_column caches[] = {
        {"ID", "CACHE ID"},          {"CacheType", "CACHE TYPE"},    {"Size", "SIZE"},
        {"CreatedSince", "CREATED"}, {"LastUsedSince", "LAST USED"}, {"UsageCount", "USAGE"},
        {"Shared", "SHARED"},
    };
    if (!add_table("Images space usage:", json_object_get(usage, "Images"), images,
                   ARRAY_SIZE(images), width, out, err) ||
        !add_table("\nContainers space usage:", json_object_get(usage, "Containers"), containers,
                   ARRAY_SIZE(containers), width, out, err) ||
        !add_table("\nLocal Volumes space usage:", json_object_get(usage, "Volumes"), volumes,
                   ARRAY_SIZE(volumes), width, out, err) ||
        !add_table("\nBuild cache usage: 0B", json_object_get(usage, "BuildCache"), caches,
                   ARRAY_SIZE(caches), width, out, err))
        return false;
    strbuf_addf(out, "\nPartial downloads usage: %s\n\nDatabase usage: %s\n",
                json_string_value(json_object_get(usage, "PartialDownloadsSize")),
                json_string_value(json_object_get(usage, "DatabaseSize")));
    return true;
}

bool df_print_verbose(const disk_usage *usage, const struct df_view *view, struct strbuf *out,
                      struct error *err)
{
    static const struct template_type type = {TYPE_ROW, .name = "*formatter.diskUsageContext"};
    const bool tables = !view->format || str_eq(view->format, "table");
    CLEANUP_JSON json_t *json = verbose_json(usage, view, !tables);
    if (tables)
        return add_tables(json, view->width, out, err);
    if (str_eq(view->format, "json")) {
        CLEANUP_FREE char *line = json_text(json);
        strbuf_addf(out, "%s\n", line);
        return true;
    }
    CLEANUP(template_cleanup) struct template *template = template_parse(view->format, err);
    return template && show_template(template, &type, json, out, err);
}

/* --- davit system df ---------------------------------------------------------------------------
 */

static void response_free(disk_usage **response)
{
    davit__v1__disk_usage_response__free_unpacked(*response, NULL);
}

static bool await_df(struct cli *cli, struct error *err)
{
    Davit__V1__DiskUsageRequest request = DAVIT__V1__DISK_USAGE_REQUEST__INIT;
    CLEANUP(response_free) disk_usage *usage = NULL;
    CLEANUP_STRBUF struct strbuf text = {0};
    const char *format = flag_string(&cli->flags, "format");
    const struct df_view view = {
        .format = str_empty(format) ? NULL : format,
        .now_unix = wall_clock_ns() / 1000000000,
        .width = terminal_table_width(),
    };
    request.verbose = flag_bool(&cli->flags, "verbose");
    if (!await_cli_call(cli, "/davit.v1.System/DiskUsage", &request.base,
                        &davit__v1__disk_usage_response__descriptor, (ProtobufCMessage **)&usage,
                        err))
        return false;
    if (!(request.verbose ? df_print_verbose : df_print)(usage, &view, &text, err))
        return false;
    return await_cli_print(cli, text.data, text.length, err);
}

static const struct flag flags[] = {
    {.name = "format",
     .type = FLAG_STRING,
     .help = FORMAT_ROWS_HELP,
     .suggestions = FORMAT_ROWS_SUGGESTIONS},
    {.name = "verbose",
     .shorthand = 'v',
     .type = FLAG_BOOL,
     .help = "Show detailed information on space usage"},
};

const struct command df_command = {
    .usage = "[OPTIONS]",
    .summary = "Show davit disk usage",
    .flags = flags,
    .flag_count = ARRAY_SIZE(flags),
    .description = "Shows what takes space on the disk, exactly as much as it does. It is answered "
                   "from the daemon's memory, at once.\n"
                   "\n"
                   "Beside images and containers these are partial downloads, which are kept so "
                   "that a pull goes on where it ended, and the daemon's database.",
    .examples = "    davit system df\n"
                "    davit system df --verbose\n"
                "    davit system df --format \"{{.Type}}: {{.Reclaimable}}\"\n"
                "    davit system df --verbose --format "
                "\"{{range .Images}}{{.ID}} {{.UniqueSize}}{{println}}{{end}}\"",
    .await_run = await_df,
};
