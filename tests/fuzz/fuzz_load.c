/* What the documents of an archive of images say. The input is members, each a byte that says which
 * (see take_member), two for its length, and so many bytes. */
#include "daemon/image/load_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Blobs have the names of their content, so that descriptors can be right. */
static char *path_of(uint8_t which, const uint8_t *content, size_t size)
{
    static const char *const paths[] = {"manifest.json", "index.json",  "c.json", "d.json",
                                        "l/layer.tar",   "k/layer.tar", "link",   "n/layer.tar"};
    struct digest digest;

    if (which < ARRAY_SIZE(paths))
        return xstrdup(paths[which]);
    digest = digest_of(content, size);
    return xasprintf("blobs/sha256/%s", digest_hex(&digest));
}

static void take_member(struct members *members, uint8_t which, const uint8_t *content, size_t size)
{
    CLEANUP_FREE char *path = path_of(which, content, size);
    enum member_kind kind = which == 6 || which == 7
                                ? MEMBER_LINK
                                : member_kind_of(path, size, content, MIN(size, MEMBER_HEAD_BYTES));
    struct member *member = member_new(path, kind, kind == MEMBER_LINK ? 0 : size);

    if (kind == MEMBER_LINK)
        member->target = xstrndup((const char *)content, size);
    if (kind == MEMBER_DOCUMENT) {
        member->data = xcalloc(1, size + 1);
        memcpy(member->data, content, size);
    }
    if (kind == MEMBER_LAYER) {
        member->format = layer_format_of(content, size);
        member->digest = member->layer.diff_id = digest_of(content, size);
        member->layer.tar_bytes = size;
    }
    members_add(members, member, NULL);
}

static void check_plan(const struct load_plan *plan)
{
    CHECK(plan->count > 0);
    for (size_t i = 0; i < plan->count; i++) {
        const struct planned_image *image = &plan->images[i];
        CHECK(digest_eq(&image->id, &image->config_member->digest));
        CHECK(!digest_eq(&image->id, &image->parent));
        for (size_t j = 0; j < image->config->diff_id_count; j++)
            CHECK(digest_eq(&image->layers[j]->layer.diff_id, &image->config->diff_ids[j]));
        CHECK(!image->manifest || image->manifest->layer_count == image->config->diff_id_count);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP(members_done) struct members members;
    CLEANUP(load_plan_done) struct load_plan plan = {0};
    CLEANUP(platform_done) struct platform platform = {0};
    CLEANUP_ERROR struct error err = {0};

    members_init(&members);
    CHECK(platform_parse("linux/amd64", &platform, NULL));
    while (size >= 3) {
        size_t length = MIN((size_t)data[1] << 8 | data[2], size - 3);
        take_member(&members, data[0], data + 3, length);
        data += 3 + length;
        size -= 3 + length;
    }
    if (load_plan_make(&plan, &members, &platform, &err))
        check_plan(&plan);
    else
        CHECK(error_is_set(&err) && err.message);
    return 0;
}
