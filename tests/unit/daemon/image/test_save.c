/* What an archive of images consists of, byte for byte the same however it is read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>

#include "daemon/image/image.h"
#include "daemon/image/save.h"
#include "tests/unit/daemon/store/fixture.h"

#define A "docker.io/library/a"
#define B "example.com/team/b"

/* A parent and a child, of two and three layers, and one that has a layer twice and no name. */
struct shelf {
    struct store *store;
    struct digest diff_ids[3];
    struct sample parent, child, twice;
};

static void await_shelf(struct shelf *shelf, const char *name, struct error *err)
{
    char *const a[] = {A ":1", A ":2", B ":x", NULL}, *const b[] = {B ":latest", NULL};
    struct image_commit items[] = {
        {.image = &shelf->parent.image, .tags = b},
        {.image = &shelf->child.image, .tags = a},
        {.image = &shelf->twice.image},
    };
    struct digest twice[2];

    CHECK((shelf->store = await_open_scratch(name, err)));
    await_three_layers(shelf->store, shelf->diff_ids, err);
    twice[0] = twice[1] = shelf->diff_ids[0];
    sample_make(&shelf->parent, "parent", 1, shelf->diff_ids, 2);
    sample_make(&shelf->child, "child", 2, shelf->diff_ids, 3);
    sample_make(&shelf->twice, "twice", 3, twice, 2);
    shelf->child.image.parent = shelf->parent.image.id;
    CHECK(await_images_commit(shelf->store, items, 3, NULL, 0, err));
    image_commits_done(items, 3);
}

/* All of it, in parts of so many bytes. */
static void await_read_all(struct save *save, size_t part, struct strbuf *ret, struct error *err)
{
    ssize_t n;

    CHECK(await_save_prepare(save, err));
    do {
        strbuf_reserve(ret, part);
        n = await_save_read(save, ret->data + ret->length, part, err);
        CHECK(n >= 0);
        ret->length += (size_t)n;
    } while (n > 0);
    CHECK(ret->length == save_bytes_total(save));
    CHECK(save_progress(save).bytes_done == ret->length);
}

static void await_archive(struct shelf *shelf, char *const *references, size_t count, size_t part,
                          struct strbuf *ret, struct error *err)
{
    struct save *save = await_save_new(shelf->store, references, count, NULL, err);

    CHECK(save);
    await_read_all(save, part, ret, err);
    save_free(save);
}

#define REFERENCES(...)                 \
    (char *const[]){__VA_ARGS__, NULL}, \
        sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *)

/* The content of an entry; NULL: there is none of this name. */
static const char *find_entry(const struct strbuf *archive, const char *name, uint64_t *ret_size)
{
    size_t offset = 0;

    while (offset < archive->length && archive->data[offset]) {
        const char *header = archive->data + offset;
        *ret_size = strtoull(header + 124, NULL, 8);
        if (str_eq(header, name))
            return header + 512;
        offset += 512 + (*ret_size + 511) / 512 * 512;
    }
    return NULL;
}

static json_t *document(const struct strbuf *archive, const char *name)
{
    uint64_t size;
    const char *data = find_entry(archive, name, &size);
    json_t *json = data ? json_loadb(data, size, 0, NULL) : NULL;

    assert_non_null(json);
    return json;
}

/* --- Tests -------------------------------------------------------------------------------------
 */

/* Whatever the order of the names and the sizes of the parts. */
static bool body_same_bytes(void *arg UNUSED, struct error *err)
{
    CLEANUP_STRBUF struct strbuf one = {0};
    struct shelf shelf;

    await_shelf(&shelf, "same", err);
    await_archive(&shelf, REFERENCES("a:1", B), 1 * MIB, &one, err);
    for (size_t part = 1; part < 5000; part = part * 7 + 3) {
        CLEANUP_STRBUF struct strbuf other = {0};
        await_archive(&shelf, REFERENCES(B ":x", B ":latest", "a:1", "a:1"), part, &other, err);
        assert_int_equal(other.length, one.length);
        assert_memory_equal(other.data, one.data, one.length);
    }
    store_close_await(shelf.store);
    return true;
}

/* Sorted entries, each blob once and as its name says, zeros at the end. */
static bool body_layout(void *arg UNUSED, struct error *err)
{
    CLEANUP_STRBUF struct strbuf archive = {0};
    struct shelf shelf;
    const char *last = "";
    size_t offset = 0, blobs = 0;

    await_shelf(&shelf, "layout", err);
    await_archive(&shelf, REFERENCES("a", B, shelf.twice.image.id.text), 1000, &archive, err);
    while (archive.data[offset]) {
        const char *header = archive.data + offset;
        uint64_t size = strtoull(header + 124, NULL, 8);
        assert_true(strcmp(header, last) > 0);
        last = header;
        if (str_starts(header, "blobs/sha256/") && size) {
            struct digest digest = digest_of(header + 512, size);
            assert_string_equal(digest_hex(&digest), header + strlen("blobs/sha256/"));
            blobs++;
        }
        offset += 512 + (size + 511) / 512 * 512;
    }
    assert_int_equal(blobs, 3 + 3 + 3); /* layers, configs, manifests */
    assert_int_equal(archive.length - offset, 1024);
    for (; offset < archive.length; offset++)
        assert_int_equal(archive.data[offset], 0);
    store_close_await(shelf.store);
    return true;
}

static void expect_tags(const json_t *image, const char *expected)
{
    CLEANUP_FREE char *text =
        json_dumps(json_object_get(image, "RepoTags"), JSON_COMPACT | JSON_ENCODE_ANY);

    assert_string_equal(text, expected);
}

static const json_t *image_of(const json_t *manifest, const struct digest *id)
{
    CLEANUP_FREE char *config = xasprintf("blobs/sha256/%s", digest_hex(id));
    json_t *image;
    size_t i;

    json_array_foreach (manifest, i, image) {
        if (str_eq(json_string_value(json_object_get(image, "Config")), config))
            return image;
    }
    return NULL;
}

static bool body_names(void *arg UNUSED, struct error *err)
{
    CLEANUP_STRBUF struct strbuf archive = {0};
    json_t *manifest, *index, *repositories;
    struct shelf shelf;

    await_shelf(&shelf, "names", err);
    await_archive(&shelf, REFERENCES(B, shelf.twice.image.id.text), 1000, &archive, err);
    manifest = document(&archive, "manifest.json");
    assert_int_equal(json_array_size(manifest), 3);
    expect_tags(image_of(manifest, &shelf.child.image.id), "[\"" B ":x\"]");
    expect_tags(image_of(manifest, &shelf.parent.image.id), "[\"" B ":latest\"]");
    expect_tags(image_of(manifest, &shelf.twice.image.id), "null");
    assert_string_equal(json_string_value(
                            json_object_get(image_of(manifest, &shelf.child.image.id), "Parent")),
                        shelf.parent.image.id.text);
    assert_null(json_object_get(image_of(manifest, &shelf.parent.image.id), "Parent"));
    assert_int_equal(json_array_size(
                         json_object_get(image_of(manifest, &shelf.twice.image.id), "Layers")),
                     2);
    index = document(&archive, "index.json");
    assert_int_equal(json_array_size(json_object_get(index, "manifests")), 3);
    repositories = document(&archive, "repositories");
    assert_int_equal(json_object_size(repositories), 1);
    assert_string_equal(json_string_value(json_object_get(json_object_get(repositories, B), "x")),
                        digest_hex(&shelf.diff_ids[2]));
    json_decref(manifest);
    json_decref(index);
    json_decref(repositories);
    store_close_await(shelf.store);
    return true;
}

/* A parent that is not saved is none; without a name there are no repositories. */
static bool body_alone(void *arg UNUSED, struct error *err)
{
    CLEANUP_STRBUF struct strbuf archive = {0};
    json_t *manifest;
    struct shelf shelf;
    uint64_t size;

    await_shelf(&shelf, "alone", err);
    await_archive(&shelf, REFERENCES(shelf.child.image.id.text), 1000, &archive, err);
    manifest = document(&archive, "manifest.json");
    assert_int_equal(json_array_size(manifest), 1);
    expect_tags(json_array_get(manifest, 0), "null");
    assert_null(json_object_get(json_array_get(manifest, 0), "Parent"));
    assert_null(find_entry(&archive, "repositories", &size));
    json_decref(manifest);
    store_close_await(shelf.store);
    return true;
}

static bool body_not_found(void *arg UNUSED, struct error *err)
{
    struct shelf shelf;

    await_shelf(&shelf, "nothing", err);
    CHECK(!await_save_new(shelf.store, REFERENCES("a:1", "c"), NULL, err));
    assert_string_equal(err->message, "No such image: c");
    error_done(err);
    CHECK(!await_save_new(shelf.store, REFERENCES("a:3"), NULL, err));
    assert_string_equal(err->message, "No such image: a:3");
    error_done(err);
    CHECK(!await_save_new(shelf.store, NULL, 0, NULL, err));
    CHECK(error_is(err, "NO_IMAGES"));
    error_done(err);
    store_close_await(shelf.store);
    return true;
}

/* Each may be the beginning of an ID, which is looked for among all images. */
static bool body_many_references(void *arg UNUSED, struct error *err)
{
    CLEANUP_FREE char **references = xcalloc(SAVE_MAX_REFERENCES + 1, sizeof(*references));
    struct shelf shelf;
    struct save *save;

    await_shelf(&shelf, "references", err);
    for (size_t i = 0; i <= SAVE_MAX_REFERENCES; i++)
        references[i] = i % 2 ? "a" : "a:1";
    CHECK(!await_save_new(shelf.store, references, SAVE_MAX_REFERENCES + 1, NULL, err));
    CHECK(error_is(err, "TOO_MANY_REFERENCES"));
    error_done(err);
    save = await_save_new(shelf.store, references, SAVE_MAX_REFERENCES, NULL, err);
    CHECK(save);
    save_free(save);
    store_close_await(shelf.store);
    return true;
}

/* Layers stay while they are saved; configs were read before, unless they are many. */
static bool body_removed(void *arg UNUSED, struct error *err)
{
    CLEANUP_STRBUF struct strbuf before = {0}, archive = {0};
    struct shelf shelf;
    struct save *save;
    char *names[] = {A ":1", A ":2", B ":x", NULL};
    struct image_deletion deletion = {.names = names, .whole = true};

    await_shelf(&shelf, "removed", err);
    deletion.id = shelf.child.image.id;
    await_archive(&shelf, REFERENCES("a:1"), 1000, &before, err);
    save = await_save_new(shelf.store, REFERENCES("a:1"), NULL, err);
    CHECK(save && await_save_prepare(save, err));
    CHECK(await_images_delete(shelf.store, &deletion, 1, NULL, err));
    strbuf_reserve(&archive, before.length);
    CHECK(await_save_read(save, archive.data, before.length, err) == (ssize_t)before.length);
    assert_memory_equal(archive.data, before.data, before.length);
    save_free(save);
    CHECK(!await_save_new(shelf.store, REFERENCES("a:1"), NULL, err));
    error_done(err);
    store_close_await(shelf.store);
    return true;
}

/* Beyond so many bytes configs are read again when it is their turn: they may have gone. */
static bool body_large_configs(void *arg UNUSED, struct error *err)
{
    enum { SIZE = 3 * MIB };
    CLEANUP_STRBUF struct strbuf archive = {0};
    CLEANUP_FREE char *one = xmalloc(SIZE), *other = xmalloc(SIZE);
    char *const configs[2] = {one, other};
    struct image_deletion deletions[2] = {{.whole = true}, {.whole = true}};
    struct sample samples[2];
    struct shelf shelf;
    struct save *save;
    ssize_t n;

    await_shelf(&shelf, "large", err);
    for (size_t i = 0; i < 2; i++) {
        struct image *image = &samples[i].image;
        uint64_t size;
        const char *entry;
        CLEANUP_FREE char *name = NULL;
        sample_make(&samples[i], "large", 1, shelf.diff_ids, 1);
        memset(configs[i], ' ', SIZE);
        configs[i][0] = '{';
        configs[i][SIZE - 1 - i] = '}';
        image->config_data = configs[i];
        image->config_size = SIZE;
        image->id = deletions[i].id = digest_of(configs[i], SIZE);
        CHECK(await_image_commit(shelf.store, image, NULL, NULL, NULL, err));
        name = xasprintf("blobs/sha256/%s", digest_hex(&image->id));
        strbuf_clear(&archive);
        await_archive(&shelf, REFERENCES(samples[0].image.id.text, image->id.text), 100000,
                      &archive, err);
        entry = find_entry(&archive, name, &size);
        CHECK(entry && size == SIZE);
        assert_memory_equal(entry, configs[i], SIZE);
    }
    save = await_save_new(shelf.store, REFERENCES(deletions[0].id.text, deletions[1].id.text), NULL,
                          err);
    CHECK(save && await_save_prepare(save, err));
    CHECK(await_images_delete(shelf.store, deletions, 2, NULL, err));
    strbuf_clear(&archive);
    while ((n = await_save_read(save, archive.data, 100000, err)) > 0)
        ;
    CHECK(n < 0 && error_is(err, "IMAGE_REMOVED"));
    CHECK(strstr(err->message, "was removed while it was being saved"));
    error_done(err);
    save_free(save);
    store_close_await(shelf.store);
    return true;
}

/* What is saved can be loaded: beyond that it is refused, before the first byte. */
static bool body_too_much(void *arg UNUSED, struct error *err)
{
    enum { SIZE = 3900 * KIB, COUNT = 9 };
    CLEANUP_FREE char *config = xmalloc(SIZE);
    char *references[COUNT];
    struct sample samples[COUNT];
    struct shelf shelf;
    struct save *save;

    await_shelf(&shelf, "too-much", err);
    memset(config, ' ', SIZE);
    config[0] = '{';
    for (size_t i = 0; i < COUNT; i++) {
        struct image *image = &samples[i].image;
        sample_make(&samples[i], "much", 1, shelf.diff_ids, 1);
        config[SIZE - 1 - i] = '}';
        image->config_data = config;
        image->config_size = SIZE - i;
        image->id = digest_of(config, SIZE - i);
        references[i] = image->id.text;
        CHECK(await_image_commit(shelf.store, image, NULL, NULL, NULL, err));
        config[SIZE - 1 - i] = ' ';
    }
    save = await_save_new(shelf.store, references, COUNT - 1, NULL, err);
    CHECK(save && await_save_prepare(save, err));
    save_free(save);
    save = await_save_new(shelf.store, references, COUNT, NULL, err);
    CHECK(save && !await_save_prepare(save, err));
    CHECK(error_is(err, "TOO_MANY_IMAGES"));
    error_done(err);
    save_free(save);
    store_close_await(shelf.store);
    return true;
}

#define TEST(name)                      \
    static void test_##name(void **arg) \
    {                                   \
        (void)arg;                      \
        run_task(body_##name, NULL);    \
    }

TEST(same_bytes)
TEST(layout)
TEST(names)
TEST(alone)
TEST(not_found)
TEST(many_references)
TEST(removed)
TEST(large_configs)
TEST(too_much)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bytes),    cmocka_unit_test(test_layout),
        cmocka_unit_test(test_names),         cmocka_unit_test(test_alone),
        cmocka_unit_test(test_not_found),     cmocka_unit_test(test_removed),
        cmocka_unit_test(test_large_configs), cmocka_unit_test(test_many_references),
        cmocka_unit_test(test_too_much),
    };

    own_mounts();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
