/* What is asked about images: configurations as documents and histories, filters, patterns. The
 * first byte chooses. */
#include "daemon/image/filter.h"
#include "daemon/image/glob.h"
#include "daemon/image/history.h"
#include "daemon/image/image_config.h"
#include "daemon/image/inspect.h"
#include "daemon/registry/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What is answered is JSON on one line, and nothing of it means something in HTML. */
static void check_inspect(const char *config, size_t size)
{
    const struct image_facts facts = {.id = "sha256:", .parent = "", .driver = "erofs"};
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_FREE char *json = image_inspect_json(&facts, config, size, &err);

    CHECK(json ? !error_is_set(&err) : error_is_set(&err) && strlen(err.message) < 4096);
    if (!json)
        return;
    CLEANUP_JSON json_t *document =
        json_parse(json, strlen(json), 2 * MANIFEST_MAX_BYTES, "the document", NULL);
    CHECK(document && json_is_object(json_object_get(document, "Config")));
    CHECK(!strpbrk(json, "<>&\n"));
}

static void check_history(const char *config, size_t size)
{
    const uint64_t sizes[] = {1, 2, 3};
    CLEANUP(image_history_done) struct image_history history;
    uint64_t total = 0;

    if (!image_history_parse(config, size, sizes, ARRAY_SIZE(sizes), &history, NULL))
        return;
    for (size_t i = 0; i < history.count; i++)
        total += history.steps[i].size_bytes;
    CHECK(total <= 6);
}

/* Lines: a labels object, then filters. */
static void check_filters(char *text)
{
    char *labels = strsep(&text, "\n"), *filters[16];
    const struct image image = {.labels = labels, .created_unix_ns = 1000000000};
    CLEANUP_IMAGE_FILTER struct image_filter filter;
    CLEANUP_ERROR struct error err = {0};
    size_t count = 0;

    while (text && count < ARRAY_SIZE(filters)) {
        filters[count] = strsep(&text, "\n");
        /* These look into a store. */
        if (!str_starts(filters[count], "before=") && !str_starts(filters[count], "since="))
            count++;
    }
    if (!image_filter_parse(NULL, IMAGE_FILTER_LIST, filters, count, &filter, &err)) {
        CHECK(error_is(&err, "INVALID_FILTER"));
        return;
    }
    image_filter_match(&filter, &image);
    image_filter_match_name(&filter, "docker.io/library/busybox:latest");
}

/* A pattern and a text. */
static void check_glob(char *text)
{
    char *pattern = strsep(&text, "\n");

    CHECK(!glob_match(pattern, text ? text : "") || glob_is_valid(pattern));
    if (!strpbrk(pattern, "*?[\\"))
        CHECK(glob_match(pattern, pattern));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP_FREE char *text = size ? xstrndup((const char *)data + 1, size - 1) : NULL;
    CLEANUP_FREE char *date = text ? image_date(text) : NULL;

    if (!text)
        return 0;
    switch (data[0] % 4) {
    case 0:
        check_inspect((const char *)data + 1, size - 1);
        break;
    case 1:
        check_history((const char *)data + 1, size - 1);
        break;
    case 2:
        check_filters(text);
        break;
    default:
        check_glob(text);
    }
    return 0;
}
