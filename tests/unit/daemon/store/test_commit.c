/* Several images at once, parents, and what lists know of configs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/store/event.h"
#include "tests/unit/daemon/store/fixture.h"

/* The config is the caller's text. */
static void sample_with_config(struct sample *sample, const char *name, const char *config,
                               const struct digest *diff_ids, size_t count)
{
    sample_make(sample, name, 1, diff_ids, count);
    sample->image.config_data = (char *)config;
    sample->image.config_size = strlen(config);
    sample->image.id = digest_of(config, strlen(config));
}

static const struct image *get(const struct store *store, const struct sample *sample)
{
    return image_find_id(store, sample->image.id.text, NULL);
}

/* --- Several images ----------------------------------------------------------------------------
 */

static void check_tags(const struct store *store, const struct sample *one,
                       const struct sample *two)
{
    const struct image *first = get(store, one), *second = get(store, two);

    CHECK(first->tag_count == 2 && str_eq(first->tags[0], "a:1") && str_eq(first->tags[1], "z:1"));
    CHECK(second->tag_count == 2 && str_eq(second->tags[0], "b:1"));
    CHECK(str_eq(second->tags[1], "moves:1") && image_find(store, "moves:1") == second);
    CHECK(second->repo_digest_count == 1 && image_find(store, "b@sha256:x") == second);
    CHECK(!first->tags[2] && !second->tags[2] && !second->repo_digests[1]);
}

static bool body_several(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_scratch("several", err);
    char *const tags[2][4] = {{"z:1", "a:1", "moves:1"}, {"moves:1", "b:1"}};
    char *const digests[] = {"b@sha256:x", NULL};
    struct image_commit items[2] = {{.tags = tags[0]}, {.tags = tags[1], .repo_digests = digests}};
    struct event_note load = {.action = "load", .actor = "x", .name = "x"};
    struct digest diff_ids[3];
    struct sample old, one, two;
    int64_t events;

    CHECK(store);
    await_three_layers(store, diff_ids, err);
    sample_make(&old, "old", 1, diff_ids, 1);
    sample_make(&one, "one", 2, diff_ids, 2);
    sample_make(&two, "two", 3, diff_ids, 3);
    items[0].image = &one.image;
    items[1].image = &two.image;
    CHECK(await_image_commit(store, &old.image, "a:1", NULL, NULL, err));
    events = event_last_id(store);
    CHECK(await_images_commit(store, items, 2, &load, 1, err));
    CHECK(event_last_id(store) == events + 1);
    CHECK(items[0].is_new && items[0].changed && items[1].is_new && items[1].changed);
    /* Who had the tags before, also within the same call: of two the last has it. */
    CHECK(!digest_is_set(&items[0].moved_from[0]) && !digest_is_set(&items[0].moved_from[2]));
    CHECK(digest_eq(&items[0].moved_from[1], &old.image.id));
    CHECK(digest_eq(&items[1].moved_from[0], &one.image.id));
    CHECK(!digest_is_set(&items[1].moved_from[1]) && get(store, &old)->tag_count == 0);
    image_commits_done(items, 2);
    check_tags(store, &one, &two);
    /* Once more: nothing is new. */
    items[0].tags = NULL;
    CHECK(await_images_commit(store, items, 2, NULL, 0, err));
    CHECK(!items[0].changed && !items[1].changed && !items[1].is_new);
    image_commits_done(items, 2);
    store_close_await(store);
    CHECK((store = await_open_scratch("several", err)));
    check_tags(store, &one, &two);
    CHECK(image_is_dangling(get(store, &old)) && !image_is_intermediate(get(store, &old)));
    store_close_await(store);
    return true;
}

static void test_several(void **state UNUSED)
{
    run_task(body_several, NULL);
}

static bool body_all_or_nothing(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_scratch("nothing", err);
    char *const tags[] = {"a:1", NULL};
    struct image_commit items[2] = {{.tags = tags}, {.tags = tags}};
    struct event_note event = {.action = "load", .actor = "x", .name = "x"};
    struct digest diff_ids[3], absent = digest_of("absent", 6);
    struct sample one, two;
    int64_t events;

    CHECK(store);
    await_three_layers(store, diff_ids, err);
    sample_make(&one, "one", 1, diff_ids, 1);
    one.image.event = &event;
    sample_make(&two, "two", 2, &absent, 1);
    items[0].image = &one.image;
    items[1].image = &two.image;
    events = event_last_id(store);
    CHECK(!await_images_commit(store, items, 2, &event, 1, err) && error_is(err, "LAYER_MISSING"));
    error_done(err);
    image_commits_done(items, 2);
    CHECK(!image_find(store, "a:1") && !get(store, &one) && event_last_id(store) == events);
    /* Also if the database refuses the second. */
    sample_make(&two, "two", 2, diff_ids, 1);
    change_database("nothing", "CREATE TRIGGER no BEFORE INSERT ON images"
                               " WHEN new.created_unix_ns = 2 BEGIN SELECT RAISE(FAIL, 'no'); END");
    CHECK(!await_images_commit(store, items, 2, &event, 1, err) && error_is_set(err));
    error_done(err);
    image_commits_done(items, 2);
    CHECK(!image_find(store, "a:1") && !get(store, &one) && event_last_id(store) == events);
    store_close_await(store);
    CHECK((store = await_open_scratch("nothing", err)));
    CHECK(!image_find(store, "a:1") && !get(store, &one));
    store_close_await(store);
    return true;
}

static void test_all_or_nothing(void **state UNUSED)
{
    run_task(body_all_or_nothing, NULL);
}

#define MANY 10000

static bool body_many_tags(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_scratch("many", err);
    CLEANUP(strv_cleanup) char **tags = xcalloc(MANY + 1, sizeof(char *));
    struct sample sample;
    struct image_commit item = {.image = &sample.image, .tags = tags};
    const struct image *image;
    uint64_t began_ms;

    CHECK(store);
    sample_make(&sample, "many", 1, sample.diff_ids, 0);
    for (size_t i = 0; i < MANY; i++) /* in no order */
        tags[i] = xasprintf("a/b:t%05zu", i * 7919 % MANY);
    CHECK(await_images_commit(store, &item, 1, NULL, 0, err));
    image_commits_done(&item, 1);
    store_close_await(store);
    began_ms = now_ms();
    CHECK((store = await_open_scratch("many", err)));
    CHECK(now_ms() - began_ms < 2000); /* a quadratic one takes longer */
    image = get(store, &sample);
    CHECK(image->tag_count == MANY && image_find(store, "a/b:t09999") == image);
    for (size_t i = 1; i < MANY; i++)
        CHECK(strcmp(image->tags[i - 1], image->tags[i]) < 0);
    /* They all move, and some come back at once. */
    {
        struct sample other;
        char *const back[] = {tags[0], tags[1], NULL};
        struct image_commit items[2] = {{.tags = tags}, {.image = &sample.image, .tags = back}};
        sample_make(&other, "other", 2, sample.diff_ids, 0);
        items[0].image = &other.image;
        CHECK(await_images_commit(store, items, 2, NULL, 0, err));
        image_commits_done(items, 2);
        CHECK(get(store, &sample)->tag_count == 2 && get(store, &other)->tag_count == MANY - 2);
        CHECK(!get(store, &sample)->tags[2] && !get(store, &other)->tags[MANY - 2]);
        CHECK(image_find(store, tags[1]) == image && image_find(store, tags[2]) != image);
        for (size_t i = 1; i < MANY - 2; i++)
            CHECK(strcmp(get(store, &other)->tags[i - 1], get(store, &other)->tags[i]) < 0);
    }
    CHECK(await_delete_image(store, &sample.image.id, NULL, err) && !get(store, &sample));
    store_close_await(store);
    return true;
}

static void test_many_tags(void **state UNUSED)
{
    run_task(body_many_tags, NULL);
}

/* A list could not send them. */
static bool body_too_many_tags(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_scratch("too-many", err);
    CLEANUP(strv_cleanup) char **tags = xcalloc(MANY + 1, sizeof(char *));
    char *const more[] = {"a/b:more", NULL}, *const again[] = {"a/b:t00000", NULL};
    struct sample sample;
    struct image_commit items[2] = {{.image = &sample.image, .tags = tags},
                                    {.image = &sample.image, .tags = more}};

    CHECK(store);
    sample_make(&sample, "too-many", 1, sample.diff_ids, 0);
    for (size_t i = 0; i < MANY; i++)
        tags[i] = xasprintf("a/b:t%05zu", i);
    CHECK(!await_images_commit(store, items, 2, NULL, 0, err) && error_is(err, "TOO_MANY_NAMES"));
    CHECK(!get(store, &sample));
    error_done(err);
    CHECK(await_images_commit(store, items, 1, NULL, 0, err));
    image_commits_done(items, 1);
    CHECK(!await_images_commit(store, &items[1], 1, NULL, 0, err));
    CHECK(error_is(err, "TOO_MANY_NAMES"));
    error_done(err);
    CHECK(!await_image_tag(store, &sample.image.id, more[0], NULL, err));
    CHECK(error_is(err, "TOO_MANY_NAMES") && get(store, &sample)->tag_count == MANY);
    error_done(err);
    /* What it has it may get again. */
    items[1].tags = again;
    CHECK(await_images_commit(store, &items[1], 1, NULL, 0, err));
    image_commits_done(&items[1], 1);
    CHECK(await_image_tag(store, &sample.image.id, again[0], NULL, err));
    store_close_await(store);
    return true;
}

static void test_too_many_tags(void **state UNUSED)
{
    run_task(body_too_many_tags, NULL);
}

/* --- Parents -----------------------------------------------------------------------------------
 */

static void check_family(const struct store *store, const struct sample *parent,
                         const struct sample *child, const struct sample *other)
{
    CHECK(get(store, parent)->children == 2 && get(store, child)->children == 0);
    CHECK(digest_eq(&get(store, child)->parent, &parent->image.id));
    CHECK(digest_eq(&get(store, other)->parent, &parent->image.id));
    CHECK(image_is_intermediate(get(store, parent)) && !image_is_dangling(get(store, parent)));
    CHECK(!digest_is_set(&get(store, parent)->parent));
}

static bool body_parents(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_scratch("parents", err);
    struct image_commit items[2];
    struct digest diff_ids[3];
    struct sample parent, child, other;
    struct image_deletion deletions[2] = {{.whole = true}, {.whole = true}};

    CHECK(store);
    await_three_layers(store, diff_ids, err);
    sample_make(&parent, "parent", 1, diff_ids, 1);
    sample_make(&child, "child", 2, diff_ids, 2);
    sample_make(&other, "other", 3, diff_ids, 3);
    child.image.parent = other.image.parent = parent.image.id;
    /* Children may come first, and a circle is none. */
    parent.image.parent = child.image.id;
    items[0] = (struct image_commit){.image = &child.image};
    items[1] = (struct image_commit){.image = &parent.image};
    CHECK(await_images_commit(store, items, 2, NULL, 0, err));
    CHECK(await_image_commit(store, &other.image, NULL, NULL, NULL, err));
    check_family(store, &parent, &child, &other);
    /* A parent stays, and one that is not there is none. */
    child.image.parent = (struct digest){0};
    CHECK(await_image_commit(store, &child.image, NULL, NULL, NULL, err));
    child.image.parent = digest_of("absent", 6);
    CHECK(await_image_commit(store, &child.image, NULL, NULL, NULL, err));
    store_close_await(store);
    CHECK((store = await_open_scratch("parents", err)));
    check_family(store, &parent, &child, &other);
    /* A parent goes after its children only. */
    CHECK(await_delete_image(store, &other.image.id, NULL, err));
    CHECK(get(store, &parent)->children == 1);
    CHECK(!await_delete_image(store, &parent.image.id, NULL, err));
    CHECK(error_is(err, "IMAGE_CHANGED"));
    error_done(err);
    deletions[0].id = child.image.id;
    deletions[1].id = parent.image.id;
    CHECK(await_images_delete(store, deletions, 2, NULL, err));
    CHECK(!get(store, &parent) && !get(store, &child) && !layer_find(store, &diff_ids[0], NULL));
    store_close_await(store);
    return true;
}

static void test_parents(void **state UNUSED)
{
    run_task(body_parents, NULL);
}

#define DEEP 1500

/* Each is the child of the one before, as an archive may say: that takes neither long nor is it
 * believed without end. */
static bool body_deep(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_scratch("deep", err);
    CLEANUP_FREE struct sample *samples = xcalloc(DEEP, sizeof(*samples));
    CLEANUP_FREE struct image_commit *items = xcalloc(DEEP, sizeof(*items));
    size_t children = 0;
    uint64_t began_ms;

    CHECK(store);
    for (size_t i = 0; i < DEEP; i++) {
        char name[20];
        snprintf(name, sizeof(name), "deep %zu", i);
        sample_make(&samples[i], name, 1, samples[i].diff_ids, 0);
        if (i > 0)
            samples[i].image.parent = samples[i - 1].image.id;
        items[i].image = &samples[i].image;
    }
    began_ms = now_ms();
    CHECK(await_images_commit(store, items, DEEP, NULL, 0, err));
    CHECK(now_ms() - began_ms < 2000); /* a cubic one takes longer */
    image_commits_done(items, DEEP);
    for (size_t i = 0; i < DEEP; i++)
        children += get(store, &samples[i])->children;
    CHECK(children > DEEP - 5 && children < DEEP - 1);
    CHECK(get(store, &samples[0])->children == 1);
    store_close_await(store);
    return true;
}

static void test_deep(void **state UNUSED)
{
    run_task(body_deep, NULL);
}

/* --- Details -----------------------------------------------------------------------------------
 */

static const char labelled[] = "{\"variant\": \"v8\", \"config\": {\"Labels\":"
                               " {\"b\": \"2\", \"a\": \"1\", \"n\": 3, \"o\": null}}}";

static void check_details(const struct store *store, const struct sample *with,
                          const struct sample *without)
{
    const struct image *image = get(store, with);

    CHECK(str_eq(image->labels, "{\"a\":\"1\",\"b\":\"2\"}") && str_eq(image->variant, "v8"));
    image = get(store, without);
    CHECK(!image->labels && !image->variant && image->tagged_unix_ns == 0);
}

static bool body_details(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_scratch("details", err);
    struct image_commit item = {.tagged = true};
    struct sample with, without, long_one;
    CLEANUP_FREE char *text = xmalloc(70000), *config = NULL;
    int64_t before = wall_clock_ns(), tagged;

    CHECK(store);
    memset(text, 'x', 69999);
    text[69999] = '\0';
    config = xasprintf("{\"config\": {\"Labels\": {\"a\": \"%s\"}}}", text);
    sample_with_config(&with, "with", labelled, with.diff_ids, 0);
    sample_with_config(&without, "without", "{\"config\": {\"Labels\": {}}}", with.diff_ids, 0);
    sample_with_config(&long_one, "long", config, with.diff_ids, 0);
    CHECK(await_image_commit(store, &with.image, NULL, NULL, NULL, err));
    CHECK(await_image_commit(store, &without.image, "a:1", NULL, NULL, err));
    CHECK(await_image_commit(store, &long_one.image, NULL, NULL, NULL, err));
    check_details(store, &with, &without);
    CHECK(!get(store, &long_one)->labels);
    /* Of a tag a user gave. */
    CHECK(await_image_tag(store, &with.image.id, "a:2", NULL, err));
    tagged = get(store, &with)->tagged_unix_ns;
    CHECK(tagged >= before);
    item.image = &with.image;
    CHECK(await_images_commit(store, &item, 1, NULL, 0, err));
    image_commits_done(&item, 1);
    CHECK(get(store, &with)->tagged_unix_ns > tagged);
    tagged = get(store, &with)->tagged_unix_ns;
    store_close_await(store);
    CHECK((store = await_open_scratch("details", err)));
    check_details(store, &with, &without);
    CHECK(get(store, &with)->tagged_unix_ns == tagged);
    store_close_await(store);
    /* As a store looks that was written before there were details. */
    change_database("details", "DELETE FROM image_details");
    CHECK((store = await_open_scratch("details", err)));
    check_details(store, &with, &without);
    store_close_await(store);
    change_database("details", "UPDATE images SET config = CAST('{}' AS BLOB)");
    CHECK((store = await_open_scratch("details", err)));
    check_details(store, &with, &without); /* once */
    store_close_await(store);
    return true;
}

static void test_details(void **state UNUSED)
{
    run_task(body_details, NULL);
}

/* --- Order and look-up -------------------------------------------------------------------------
 */

static bool body_order(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_scratch("order", err);
    static struct sample samples[200];
    size_t count;

    CHECK(store);
    for (size_t i = 0; i < ARRAY_SIZE(samples); i++) {
        char name[16];
        snprintf(name, sizeof(name), "image %zu", i);
        sample_make(&samples[i], name, (int64_t)(i * 37 % 100), samples[i].diff_ids, 0);
        CHECK(await_image_commit(store, &samples[i].image, NULL, NULL, NULL, err));
    }
    for (int again = 0; again < 2; again++) {
        for (size_t i = 0; i < ARRAY_SIZE(samples) / 2; i++) {
            CLEANUP_FREE const struct image **list = image_list(store, &count);
            const struct sample *gone = &samples[again * 100 + i];
            CHECK(count == ARRAY_SIZE(samples) - (size_t)again * 100 - i && get(store, gone));
            for (size_t k = 1; k < count; k++)
                CHECK(list[k - 1]->created_unix_ns >= list[k]->created_unix_ns);
            CHECK(await_delete_image(store, &gone->image.id, NULL, err) && !get(store, gone));
        }
        store_close_await(store);
        CHECK((store = await_open_scratch("order", err)));
    }
    store_close_await(store);
    return true;
}

static void test_order(void **state UNUSED)
{
    run_task(body_order, NULL);
}

static bool body_candidates(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_scratch("candidates", err);
    static struct sample samples[40];
    size_t count, sum = 0;

    CHECK(store);
    for (size_t i = 0; i < ARRAY_SIZE(samples); i++) {
        char name[16];
        snprintf(name, sizeof(name), "image %zu", i);
        sample_make(&samples[i], name, (int64_t)i, samples[i].diff_ids, 0);
        CHECK(await_image_commit(store, &samples[i].image, NULL, NULL, NULL, err));
    }
    for (const char *digit = "0123456789abcdef"; *digit; digit++) {
        char prefix[] = "sha256:?";
        prefix[7] = *digit;
        CLEANUP_FREE const struct image **list = image_candidates(store, prefix, 2, &count);
        for (size_t i = 0; i < MIN(count, 2U); i++)
            CHECK(digest_hex(&list[i]->id)[0] == *digit);
        CHECK(!list[MIN(count, 2U)]);
        CHECK(count < 2 || list[0]->created_unix_ns > list[1]->created_unix_ns);
        sum += count;
    }
    CHECK(sum == ARRAY_SIZE(samples));
    store_close_await(store);
    return true;
}

static void test_candidates(void **state UNUSED)
{
    run_task(body_candidates, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_several),    cmocka_unit_test(test_all_or_nothing),
        cmocka_unit_test(test_many_tags),  cmocka_unit_test(test_too_many_tags),
        cmocka_unit_test(test_parents),    cmocka_unit_test(test_deep),
        cmocka_unit_test(test_details),    cmocka_unit_test(test_order),
        cmocka_unit_test(test_candidates),
    };

    own_mounts();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
