#include "client/df.h"

#include "client/cli.h"
#include "client/ui/units.h"
#include "proto/base/json.h"

#define SHORT_ID 12
#define NONE "<none>"

/* --- In sum ------------------------------------------------------------------------------------
 */

struct kind {
    const char *name;
    unsigned total, active;
    uint64_t size_bytes, reclaimable_bytes;
};

#define KINDS 4

static struct kind kind_of(const char *name, const Davit__V1__Usage *usage)
{
    static const Davit__V1__Usage none = DAVIT__V1__USAGE__INIT;
    usage = usage ? usage : &none;
    return (struct kind){name, usage->total, usage->active, usage->size_bytes,
                         usage->reclaimable_bytes};
}

static void list_kinds(const disk_usage *usage, struct kind ret[KINDS])
{
    ret[0] = kind_of("Images", usage->images);
    ret[1] = kind_of("Containers", usage->containers);
    ret[2] = kind_of("Partial downloads", usage->partials);
    ret[3] = (struct kind){"Database", 1, 1, usage->metadata_bytes, 0};
}

/* "11.63MB (70%)"; Docker gives no part of nothing. */
static void add_reclaimable(const struct kind *kind, struct strbuf *out)
{
    add_size(out, kind->reclaimable_bytes);
    if (kind->size_bytes)
        strbuf_addf(out, " (%u%%)",
                    (unsigned)((double)kind->reclaimable_bytes * 100 / (double)kind->size_bytes));
}

void df_print(const disk_usage *usage, struct strbuf *out)
{
    static const char *const heading[] = {"TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"};
    CLEANUP_TABLE struct table table;
    struct kind kinds[KINDS];
    list_kinds(usage, kinds);
    table_init(&table, ARRAY_SIZE(heading));
    table_row(&table, heading);
    for (size_t i = 0; i < KINDS; i++) {
        CLEANUP_STRBUF struct strbuf size = {0}, reclaimable = {0};
        CLEANUP_FREE char *total = xasprintf("%u", kinds[i].total);
        CLEANUP_FREE char *active = xasprintf("%u", kinds[i].active);
        add_size(&size, kinds[i].size_bytes);
        add_reclaimable(&kinds[i], &reclaimable);
        table_row(&table, (const char *[]){kinds[i].name, total, active, strbuf_text(&size),
                                           strbuf_text(&reclaimable)});
    }
    table_print(&table, out);
}

static void set_text(json_t *object, const char *key, const struct strbuf *text)
{
    json_object_set_new(object, key, json_string(strbuf_text(text)));
}

static void set_number(json_t *object, const char *key, uint64_t number)
{
    json_object_set_new(object, key, json_integer((json_int_t)number));
}

/* Docker's are all text. */
void df_print_json(const disk_usage *usage, struct strbuf *out)
{
    struct kind kinds[KINDS];
    list_kinds(usage, kinds);
    for (size_t i = 0; i < KINDS; i++) {
        CLEANUP_STRBUF struct strbuf size = {0}, reclaimable = {0};
        CLEANUP_FREE char *total = xasprintf("%u", kinds[i].total);
        CLEANUP_FREE char *active = xasprintf("%u", kinds[i].active);
        CLEANUP_JSON json_t *object = json_pack("{s:s, s:s, s:s}", "Type", kinds[i].name,
                                                "TotalCount", total, "Active", active);
        add_size(&size, kinds[i].size_bytes);
        add_reclaimable(&kinds[i], &reclaimable);
        set_text(object, "Size", &size);
        set_text(object, "Reclaimable", &reclaimable);
        set_number(object, "SizeBytes", kinds[i].size_bytes);
        set_number(object, "ReclaimableBytes", kinds[i].reclaimable_bytes);
        CLEANUP_FREE char *line = json_text(object);
        strbuf_addf(out, "%s\n", line);
    }
}

/* --- One by one --------------------------------------------------------------------------------
 */

/* Of an image with several names, the first, as Docker has it here. */
struct name {
    char *repository;
    const char *tag;
};

static void name_done(struct name *name)
{
    free(name->repository);
}

static struct name name_of(const Davit__V1__Image *image)
{
    const char *first = image->n_repo_tags ? image->repo_tags[0] : NULL;
    const char *digest = image->n_repo_digests ? image->repo_digests[0] : NONE;
    const char *colon = first ? strrchr(first, ':') : NULL;
    if (colon)
        return (struct name){xstrndup(first, (size_t)(colon - first)), colon + 1};
    return (struct name){xstrndup(digest, strcspn(digest, "@")), NONE};
}

static char *short_id(const char *id)
{
    const char *colon = strchr(id, ':');
    return xstrndup(colon ? colon + 1 : id, SHORT_ID);
}

static void add_age(int64_t seconds, struct strbuf *out)
{
    add_duration(out, seconds);
    strbuf_add_str(out, " ago");
}

static void add_image(struct table *table, const Davit__V1__ImageUsage *usage, int64_t now_unix)
{
    const Davit__V1__Image *image = usage->image;
    CLEANUP(name_done) struct name name = name_of(image);
    CLEANUP_STRBUF struct strbuf age = {0}, size = {0}, shared = {0}, unique = {0};
    CLEANUP_FREE char *id = short_id(image->id);
    CLEANUP_FREE char *containers = xasprintf("%u", usage->containers);
    if (image->created_unix_ns)
        add_age(now_unix - image->created_unix_ns / 1000000000, &age);
    else
        strbuf_add_str(&age, "N/A"); /* not in the image */
    add_size(&size, usage->shared_bytes + usage->unique_bytes);
    add_size(&shared, usage->shared_bytes);
    add_size(&unique, usage->unique_bytes);
    table_row(table,
              (const char *[]){name.repository, name.tag, id, strbuf_text(&age), strbuf_text(&size),
                               strbuf_text(&shared), strbuf_text(&unique), containers});
}

static void add_container(struct table *table, const Davit__V1__ContainerUsage *usage,
                          int64_t now_unix)
{
    CLEANUP_STRBUF struct strbuf age = {0}, size = {0};
    CLEANUP_FREE char *id = short_id(usage->id);
    CLEANUP_FREE char *image =
        str_empty(usage->image) ? short_id(usage->image_id) : xstrdup(usage->image);
    add_age(now_unix - usage->created_unix, &age);
    add_size(&size, usage->size_bytes);
    table_row(table, (const char *[]){id, image, strbuf_text(&size), strbuf_text(&age),
                                      usage->running ? "Up" : "Exited"});
}

void df_print_verbose(const disk_usage *usage, int64_t now_unix, struct strbuf *out)
{
    static const char *const images[] = {"REPOSITORY", "TAG",         "IMAGE ID",    "CREATED",
                                         "SIZE",       "SHARED SIZE", "UNIQUE SIZE", "CONTAINERS"};
    static const char *const containers[] = {"CONTAINER ID", "IMAGE", "SIZE", "CREATED", "STATUS"};
    CLEANUP_TABLE struct table image_table, container_table;
    table_init(&image_table, ARRAY_SIZE(images));
    table_row(&image_table, images);
    for (size_t i = 0; i < usage->n_image_list; i++)
        add_image(&image_table, usage->image_list[i], now_unix);
    table_init(&container_table, ARRAY_SIZE(containers));
    table_row(&container_table, containers);
    for (size_t i = 0; i < usage->n_container_list; i++)
        add_container(&container_table, usage->container_list[i], now_unix);
    strbuf_add_str(out, "Images space usage:\n\n");
    table_print(&image_table, out);
    strbuf_add_str(out, "\nContainers space usage:\n\n");
    table_print(&container_table, out);
    strbuf_add_str(out, "\nPartial downloads space usage: ");
    add_size(out, usage->partials ? usage->partials->size_bytes : 0);
    strbuf_add_str(out, "\n\nDatabase space usage: ");
    add_size(out, usage->metadata_bytes);
    strbuf_add_char(out, '\n');
}

static json_t *image_json(const Davit__V1__ImageUsage *usage)
{
    CLEANUP(name_done) struct name name = name_of(usage->image);
    const json_int_t size = (json_int_t)usage->shared_bytes + (json_int_t)usage->unique_bytes;
    return json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I}", "Repository", name.repository, "Tag",
                     name.tag, "ID", usage->image->id, "Size", size, "SharedSize",
                     (json_int_t)usage->shared_bytes, "UniqueSize", (json_int_t)usage->unique_bytes,
                     "Containers", (json_int_t)usage->containers);
}

static json_t *container_json(const Davit__V1__ContainerUsage *usage)
{
    return json_pack("{s:s, s:s, s:s, s:I, s:s}", "ID", usage->id, "Image", usage->image, "ImageID",
                     usage->image_id, "Size", (json_int_t)usage->size_bytes, "State",
                     usage->running ? "running" : "exited");
}

void df_print_verbose_json(const disk_usage *usage, struct strbuf *out)
{
    json_t *images = json_array(), *containers = json_array();
    for (size_t i = 0; i < usage->n_image_list; i++)
        json_array_append_new(images, image_json(usage->image_list[i]));
    for (size_t i = 0; i < usage->n_container_list; i++)
        json_array_append_new(containers, container_json(usage->container_list[i]));
    CLEANUP_JSON json_t *object =
        json_pack("{s:o, s:o, s:I, s:I}", "Images", images, "Containers", containers,
                  "PartialDownloadsSize",
                  (json_int_t)(usage->partials ? usage->partials->size_bytes : 0), "DatabaseSize",
                  (json_int_t)usage->metadata_bytes);
    CLEANUP_FREE char *line = json_text(object);
    strbuf_addf(out, "%s\n", line);
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
    const bool json = str_eq(flag_string(&cli->flags, "format"), "json");
    request.verbose = flag_bool(&cli->flags, "verbose");
    if (!await_cli_call(cli, "/davit.v1.System/DiskUsage", &request.base,
                        &davit__v1__disk_usage_response__descriptor, (ProtobufCMessage **)&usage,
                        err))
        return false;
    if (json && request.verbose)
        df_print_verbose_json(usage, &text);
    else if (json)
        df_print_json(usage, &text);
    else if (request.verbose)
        df_print_verbose(usage, wall_clock_ns() / 1000000000, &text);
    else
        df_print(usage, &text);
    return await_cli_print(cli, text.data, text.length, err);
}

static const struct flag flags[] = {
    {.name = "format",
     .type = FLAG_STRING,
     .help = "Format the output",
     .choices = "table|json",
     .fallback = "table"},
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
    .description = "Shows what takes space on the disk. It is answered from the daemon's memory, "
                   "exact and at once.",
    .examples = "    davit system df\n"
                "    davit system df --verbose\n"
                "    davit system df --format \"{{.Type}}: {{.Reclaimable}}\"",
    .await_run = await_df,
};
