/* Which images go with a name or an ID, and what is said of it: Docker's rules. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/image/image.h"
#include "daemon/image/prune.h"
#include "daemon/store/event.h"
#include "tests/unit/daemon/store/fixture.h"

#define A "docker.io/library/a"
#define B "docker.io/library/b"
#define DIGEST "@sha256:eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee"

/* A store with a grandparent, a parent and a child, of one, two and three layers. */
struct family {
    struct store *store;
    struct digest diff_ids[3], chain[3];
    struct sample grandparent, parent, child;
};

static void await_family(struct family *family, const char *name, char *const *tags,
                         char *const *digests, struct error *err)
{
    struct image_commit items[] = {
        {.image = &family->grandparent.image},
        {.image = &family->parent.image},
        {.image = &family->child.image, .tags = tags, .repo_digests = digests},
    };

    CHECK((family->store = await_open_scratch(name, err)));
    await_three_layers(family->store, family->diff_ids, err);
    sample_make(&family->grandparent, "grandparent", 1, family->diff_ids, 1);
    sample_make(&family->parent, "parent", 2, family->diff_ids, 2);
    sample_make(&family->child, "child", 3, family->diff_ids, 3);
    family->parent.image.parent = family->grandparent.image.id;
    family->child.image.parent = family->parent.image.id;
    CHECK(await_images_commit(family->store, items, 3, NULL, 0, err));
    image_commits_done(items, 3);
    family->chain[0] = family->diff_ids[0];
    for (size_t i = 1; i < 3; i++) {
        CLEANUP_FREE char *link =
            xasprintf("%s %s", family->chain[i - 1].text, family->diff_ids[i].text);
        family->chain[i] = digest_of(link, strlen(link));
    }
}

static size_t count_images(const struct store *store)
{
    size_t count;
    CLEANUP_FREE const struct image **list = image_list(store, &count);

    return count;
}

/* "U" or "D" and what, in lines; each what is once in the list. */
static void check_lines(const struct image_removals *removals, const char *const *wanted)
{
    for (size_t i = 0; i < removals->count; i++) {
        CHECK(wanted[i] && (wanted[i][0] == 'U') == removals->items[i].untagged);
        assert_string_equal(wanted[i] + 1, removals->items[i].what);
    }
    CHECK(!wanted[removals->count]);
}

static void await_check_removal(struct family *family, const char *text, bool force, bool no_prune,
                                const char *const *wanted, struct error *err)
{
    CLEANUP(image_removals_done) struct image_removals removals = {0};
    const struct image_remove options = {.force = force, .no_prune = no_prune};

    CHECK(await_image_remove(family->store, text, &options, &removals, err));
    check_lines(&removals, wanted);
}

static void await_check_conflict(struct family *family, const char *text, bool force,
                                 const char *reason, const char *message, struct error *err)
{
    CLEANUP(image_removals_done) struct image_removals removals = {0};
    const struct image_remove options = {.force = force};
    size_t before = count_images(family->store);

    CHECK(!await_image_remove(family->store, text, &options, &removals, err));
    CHECK(removals.count == 0 && count_images(family->store) == before);
    CHECK(error_is(err, reason));
    assert_string_equal(err->message, message);
    error_done(err);
}

/* --- Names -------------------------------------------------------------------------------------
 */

static const char *deleted(char *buffer, const struct digest *digest)
{
    return strcat(strcpy(buffer, "D"), digest->text);
}

static bool body_last_name(void *arg UNUSED, struct error *err)
{
    struct family family;
    char *const tags[] = {A ":1", A ":2", NULL}, *const digests[] = {A DIGEST, NULL};
    char lines[6][80];
    int64_t events;

    await_family(&family, "last", tags, digests, err);
    events = event_last_id(family.store);
    await_check_removal(&family, "a:1", false, false, (const char *[]){"Ua:1", NULL}, err);
    CHECK(event_last_id(family.store) == events + 1); /* untag */
    /* All three go: parents have no name. */
    await_check_removal(&family, "a:2", false, false,
                        (const char *[]){"Ua:2", "Ua" DIGEST,
                                         deleted(lines[0], &family.child.image.id),
                                         deleted(lines[1], &family.chain[2]),
                                         deleted(lines[2], &family.parent.image.id),
                                         deleted(lines[3], &family.chain[1]),
                                         deleted(lines[4], &family.grandparent.image.id),
                                         deleted(lines[5], &family.chain[0]), NULL},
                        err);
    CHECK(event_last_id(family.store) == events + 5); /* untag, delete three times */
    CHECK(count_images(family.store) == 0 && !layer_find(family.store, &family.diff_ids[0], NULL));
    store_close_await(family.store);
    return true;
}

static bool body_no_prune(void *arg UNUSED, struct error *err)
{
    struct family family;
    char *const tags[] = {A ":1", NULL};
    char lines[2][80];

    await_family(&family, "no-prune", tags, NULL, err);
    await_check_removal(&family, "a:1", false, true,
                        (const char *[]){"Ua:1", deleted(lines[0], &family.child.image.id),
                                         deleted(lines[1], &family.chain[2]), NULL},
                        err);
    CHECK(count_images(family.store) == 2);
    CHECK(layer_find(family.store, &family.diff_ids[1], NULL));
    store_close_await(family.store);
    return true;
}

/* A digest goes only with the last tag of its own repository. */
static bool body_digests(void *arg UNUSED, struct error *err)
{
    struct family family;
    char *const tags[] = {A ":1", B ":1", NULL}, *const digests[] = {A DIGEST, B DIGEST, NULL};

    await_family(&family, "digests", tags, digests, err);
    await_check_removal(&family, "b" DIGEST, false, false, (const char *[]){"Ub" DIGEST, NULL},
                        err);
    await_check_removal(&family, "a:1", false, false, (const char *[]){"Ua:1", "Ua" DIGEST, NULL},
                        err);
    CHECK(count_images(family.store) == 3 && image_find(family.store, B ":1"));
    store_close_await(family.store);
    return true;
}

static bool body_named_parent_stays(void *arg UNUSED, struct error *err)
{
    struct family family;
    char *const tags[] = {A ":1", NULL};
    char lines[2][80];
    CLEANUP_FREE char *conflict = NULL;

    await_family(&family, "named", tags, NULL, err);
    CHECK(await_image_tag(family.store, &family.parent.image.id, B ":1", NULL, err));
    /* By name, that only takes the name away; by ID it is a conflict. */
    conflict = xasprintf("conflict: unable to delete %.12s (cannot be forced) - image has "
                         "dependent child images",
                         digest_hex(&family.parent.image.id));
    await_check_conflict(&family, family.parent.image.id.text, true, "IMAGE_HAS_CHILDREN", conflict,
                         err);
    await_check_removal(&family, "b:1", false, false, (const char *[]){"Ub:1", NULL}, err);
    CHECK(await_image_tag(family.store, &family.parent.image.id, B ":1", NULL, err));
    await_check_removal(&family, "a:1", false, false,
                        (const char *[]){"Ua:1", deleted(lines[0], &family.child.image.id),
                                         deleted(lines[1], &family.chain[2]), NULL},
                        err);
    CHECK(count_images(family.store) == 2);
    store_close_await(family.store);
    return true;
}

/* --- IDs ---------------------------------------------------------------------------------------
 */

static bool body_by_id(void *arg UNUSED, struct error *err)
{
    struct family family;
    char *const tags[] = {A ":2", A ":1", B ":1", NULL}, *const digests[] = {A DIGEST, NULL};
    char lines[2][80];
    CLEANUP_FREE char *conflict = NULL, *prefix = NULL, *name = NULL, *untagged = NULL;

    await_family(&family, "by-id", tags, digests, err);
    conflict = xasprintf("conflict: unable to delete %.12s (must be forced) - image is referenced "
                         "in multiple repositories",
                         digest_hex(&family.child.image.id));
    prefix = xstrndup(digest_hex(&family.child.image.id), 12);
    await_check_conflict(&family, prefix, false, "IMAGE_CONFLICT", conflict, err);
    /* Two tags of one repository are two. */
    await_check_removal(&family, "b:1", false, false, (const char *[]){"Ub:1", NULL}, err);
    await_check_conflict(&family, prefix, false, "IMAGE_CONFLICT", conflict, err);
    /* A name that looks like the ID is taken for it. */
    name = xasprintf("docker.io/library/%s:latest", prefix);
    CHECK(await_image_tag(family.store, &family.child.image.id, name, NULL, err));
    await_check_conflict(&family, prefix, false, "IMAGE_CONFLICT", conflict, err);
    untagged = xasprintf("U%s:latest", prefix);
    CHECK(await_image_tag(family.store, &family.child.image.id, B ":1", NULL, err));
    CHECK(await_image_pushed(family.store, &family.child.image.id, B DIGEST, NULL, err));
    await_check_removal(&family, prefix, true, true,
                        (const char *[]){untagged, "Ua:1", "Ua:2", "Ua" DIGEST, "Ub:1", "Ub" DIGEST,
                                         deleted(lines[0], &family.child.image.id),
                                         deleted(lines[1], &family.chain[2]), NULL},
                        err);
    store_close_await(family.store);
    return true;
}

/* One tag and the digests of its repository are as one name. */
static bool body_by_id_of_one_name(void *arg UNUSED, struct error *err)
{
    struct family family;
    char *const tags[] = {A ":1", NULL}, *const digests[] = {A DIGEST, NULL};
    char lines[2][80];
    CLEANUP_FREE char *conflict = NULL;

    await_family(&family, "one-name", tags, digests, err);
    conflict = xasprintf("conflict: unable to delete %.12s (must be forced) - image is referenced "
                         "in multiple repositories",
                         digest_hex(&family.child.image.id));
    CHECK(await_image_pushed(family.store, &family.child.image.id, B DIGEST, NULL, err));
    await_check_conflict(&family, family.child.image.id.text, false, "IMAGE_CONFLICT", conflict,
                         err);
    await_check_removal(&family, "b" DIGEST, false, false, (const char *[]){"Ub" DIGEST, NULL},
                        err);
    await_check_removal(&family, family.child.image.id.text, false, true,
                        (const char *[]){"Ua:1", "Ua" DIGEST,
                                         deleted(lines[0], &family.child.image.id),
                                         deleted(lines[1], &family.chain[2]), NULL},
                        err);
    store_close_await(family.store);
    return true;
}

/* --- Containers --------------------------------------------------------------------------------
 */

#define CONTAINER "1a2b3c4d5e6f7a8b"

static bool body_containers(void *arg UNUSED, struct error *err)
{
    struct family family;
    char *const tags[] = {A ":1", NULL};
    char line[80];
    CLEANUP_FREE char *by_name = NULL, *running = NULL, *stopped = NULL;
    const char *hex;
    struct image_hold *hold;

    await_family(&family, "containers", tags, NULL, err);
    hex = digest_hex(&family.child.image.id);
    by_name = xasprintf("conflict: unable to remove repository reference \"a:1\" (must force) - "
                        "container 1a2b3c4d5e6f is using its referenced image %.12s",
                        hex);
    running = xasprintf("conflict: unable to delete %.12s (cannot be forced) - image is being used "
                        "by running container 1a2b3c4d5e6f",
                        hex);
    stopped = xasprintf("conflict: unable to delete %.12s (must be forced) - image is being used "
                        "by stopped container 1a2b3c4d5e6f",
                        hex);
    hold = image_hold_new(family.store, &family.child.image.id, CONTAINER, true);
    await_check_conflict(&family, "a:1", false, "IMAGE_IN_USE", by_name, err);
    await_check_conflict(&family, hex, false, "IMAGE_IN_USE", running, err);
    await_check_conflict(&family, hex, true, "IMAGE_IN_USE", running, err);
    image_hold_set_running(hold, false);
    await_check_conflict(&family, "a:1", false, "IMAGE_IN_USE", by_name, err);
    await_check_conflict(&family, hex, false, "IMAGE_IN_USE", stopped, err);
    /* Of two names one goes. */
    CHECK(await_image_tag(family.store, &family.child.image.id, A ":2", NULL, err));
    await_check_removal(&family, "a:2", false, false, (const char *[]){"Ua:2", NULL}, err);
    /* By force: the name only while it runs, then all but the layers, which the container has. */
    image_hold_set_running(hold, true);
    await_check_removal(&family, "a:1", true, false, (const char *[]){"Ua:1", NULL}, err);
    image_hold_set_running(hold, false);
    await_check_conflict(&family, hex, false, "IMAGE_IN_USE", stopped, err);
    await_check_removal(&family, hex, true, true,
                        (const char *[]){deleted(line, &family.child.image.id), NULL}, err);
    image_hold_free(hold);
    store_close_await(family.store);
    return true;
}

/* --- Finding -----------------------------------------------------------------------------------
 */

static bool body_ambiguous(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_scratch("ambiguous", err);
    static struct sample samples[40];
    char prefix[2] = "";

    CHECK(store);
    for (size_t i = 0; i < ARRAY_SIZE(samples); i++) {
        char name[16];
        snprintf(name, sizeof(name), "image %zu", i);
        sample_make(&samples[i], name, (int64_t)i, samples[i].diff_ids, 0);
        CHECK(
            await_image_commit(store, &samples[i].image, i == 39 ? A ":1" : NULL, NULL, NULL, err));
    }
    prefix[0] = digest_hex(&samples[39].image.id)[0]; /* the newest comes first */
    CLEANUP_FREE char *wanted =
        xasprintf("more than one image has an ID that begins with %s: %.12s (a:1), ", prefix,
                  digest_hex(&samples[39].image.id));
    CHECK(!image_resolve(store, prefix, err) && error_is(err, "AMBIGUOUS_ID"));
    CHECK(str_starts(err->message, wanted));
    error_done(err);
    store_close_await(store);
    return true;
}

static bool body_tag_names(void *arg UNUSED, struct error *err)
{
    static const struct {
        const char *source, *target, *reason, *message;
    } wrong[] = {
        {"a:1", "B", "INVALID_REFERENCE",
         "Error parsing reference: \"B\" is not a valid repository/tag: invalid reference format: "
         "repository name (library/B) must be lowercase"},
        {"nope", "x:B:y", "INVALID_REFERENCE",
         "Error parsing reference: \"x:B:y\" is not a valid repository/tag: invalid reference "
         "format"},
        {"B", "x", "INVALID_REFERENCE",
         "Error parsing reference: \"B\" is not a valid repository/tag: invalid reference format: "
         "repository name (library/B) must be lowercase"},
        {"a:1", "x" DIGEST, "INVALID_REFERENCE",
         "refusing to create a tag with a digest reference"},
        {"a:1", "sha256:abc", "AMBIGUOUS_NAME",
         "refusing to create an ambiguous tag using digest algorithm as name"},
        {"nope", "x", "IMAGE_NOT_FOUND", "No such image: nope:latest"},
        {"docker.io/library/nope:2", "x", "IMAGE_NOT_FOUND", "No such image: nope:2"},
        {"abcdef", "x", "IMAGE_NOT_FOUND", "No such image: abcdef:latest"},
    };
    struct family family;
    char *const tags[] = {A ":1", NULL};
    const char *id;

    await_family(&family, "tags", tags, NULL, err);
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        CHECK(!await_image_tag_as(family.store, wrong[i].source, wrong[i].target, err));
        assert_string_equal(err->message, wrong[i].message);
        CHECK(error_is(err, wrong[i].reason));
        error_done(err);
    }
    id = family.child.image.id.text;
    CHECK(await_image_tag_as(family.store, id, "by:id", err));
    CHECK(await_image_tag_as(family.store, id + strlen("sha256:"), "by:hex", err));
    CHECK(await_image_tag_as(family.store, "by:hex", "localhost:5000/by/name", err));
    CHECK(digest_eq(&image_find(family.store, "localhost:5000/by/name:latest")->id,
                    &family.child.image.id));
    /* A name that another image has moves. */
    CHECK(await_image_tag_as(family.store, family.parent.image.id.text, "a:1", err));
    CHECK(digest_eq(&image_find(family.store, A ":1")->id, &family.parent.image.id));
    store_close_await(family.store);
    return true;
}

/* --- Pruning -----------------------------------------------------------------------------------
 */

static void await_check_prune(struct family *family, const struct prune_request *request,
                              const char *const *wanted, struct error *err)
{
    CLEANUP(prune_cleanup) struct prune *prune = prune_new(family->store, request, err);

    CHECK(prune && await_prune(prune, err));
    check_lines(prune_result(prune).images, wanted);
}

static bool body_prune(void *arg UNUSED, struct error *err)
{
    const struct prune_request dangling = {.images_only = true}, planned = {.dry_run = true},
                               all = {.all = true};
    const char *const nothing[] = {NULL};
    struct family family;
    char *const tags[] = {A ":1", NULL}, *const digests[] = {A DIGEST, NULL};
    char lines[6][80];
    const char *const everything[] = {"Ua:1",   "Ua" DIGEST, lines[0], lines[1], lines[2],
                                      lines[3], lines[4],    lines[5], NULL};
    struct image_hold *hold;

    await_family(&family, "prune", tags, digests, err);
    deleted(lines[0], &family.child.image.id);
    deleted(lines[1], &family.chain[2]);
    deleted(lines[2], &family.parent.image.id);
    deleted(lines[3], &family.chain[1]);
    deleted(lines[4], &family.grandparent.image.id);
    deleted(lines[5], &family.chain[0]);
    /* Intermediate images are not dangling, also those with a digest. */
    CHECK(await_image_pushed(family.store, &family.parent.image.id, B DIGEST, NULL, err));
    await_check_prune(&family, &dangling, nothing, err);
    await_check_prune(&family, &planned, nothing, err);
    CHECK(await_untag(family.store, B DIGEST, err));
    hold = image_hold_new(family.store, &family.child.image.id, CONTAINER, false);
    await_check_prune(&family, &all, nothing, err);
    image_hold_free(hold);
    CHECK(await_untag(family.store, A ":1", err));
    /* A digest is no tag: the whole chain of parents goes, in a dry run on paper only. */
    await_check_prune(&family, &planned, everything + 1, err);
    CHECK(count_images(family.store) == 3);
    CHECK(await_image_tag(family.store, &family.child.image.id, A ":1", NULL, err));
    await_check_prune(&family, &planned, nothing, err);
    await_check_prune(&family, &all, everything, err);
    CHECK(count_images(family.store) == 0);
    store_close_await(family.store);
    return true;
}

/* A parent with a name of its own, whose child a container has, keeps only itself. */
static bool body_prune_keeps_children(void *arg UNUSED, struct error *err)
{
    const struct prune_request all = {.all = true}, planned = {.all = true, .dry_run = true};
    const char *const wanted[] = {"Ub:1", NULL};
    struct family family;
    char *const tags[] = {A ":1", NULL};
    struct image_hold *hold;

    await_family(&family, "keeps", tags, NULL, err);
    CHECK(await_image_tag(family.store, &family.parent.image.id, B ":1", NULL, err));
    hold = image_hold_new(family.store, &family.child.image.id, CONTAINER, true);
    await_check_prune(&family, &planned, wanted, err);
    await_check_prune(&family, &all, wanted, err);
    CHECK(count_images(family.store) == 3 && image_find(family.store, A ":1"));
    image_hold_free(hold);
    store_close_await(family.store);
    return true;
}

/* What went before a failure is told, in the result and as an event. */
static bool body_prune_fails(void *arg UNUSED, struct error *err)
{
    const struct prune_request dangling = {.images_only = true};
    CLEANUP(prune_cleanup) struct prune *prune = NULL;
    struct sample first, second;
    struct family family;
    char *const tags[] = {A ":1", NULL};
    int64_t events;

    await_family(&family, "fails", tags, NULL, err);
    sample_make(&first, "first", 5, family.diff_ids, 0);
    sample_make(&second, "second", 4, family.diff_ids, 0);
    CHECK(await_image_commit(family.store, &first.image, NULL, NULL, NULL, err));
    CHECK(await_image_commit(family.store, &second.image, NULL, NULL, NULL, err));
    change_database("fails", "CREATE TRIGGER no BEFORE DELETE ON images"
                             " WHEN old.created_unix_ns = 4 BEGIN SELECT RAISE(FAIL, 'no'); END");
    events = event_last_id(family.store);
    CHECK((prune = prune_new(family.store, &dangling, err)));
    CHECK(!await_prune(prune, err) && error_is_set(err));
    error_done(err);
    CHECK(prune_result(prune).images->count == 1 && count_images(family.store) == 4);
    assert_string_equal(prune_result(prune).images->items[0].what, first.image.id.text);
    CHECK(event_last_id(family.store) == events + 2); /* delete, prune */
    /* Nothing goes, nothing is told. */
    prune = prune_free(prune);
    CHECK((prune = prune_new(family.store, &dangling, err)));
    CHECK(!await_prune(prune, err) && event_last_id(family.store) == events + 2);
    error_done(err);
    store_close_await(family.store);
    return true;
}

#define MANY 2000

struct passer_by {
    size_t turns;
    bool stop;
};

static bool await_pass_by(void *arg, struct error *err UNUSED)
{
    struct passer_by *passer_by = arg;

    while (!passer_by->stop) {
        passer_by->turns++;
        CHECK(await_yield() == 0);
    }
    return true;
}

/* A dry run of many images lets others run. */
static bool body_prune_in_slices(void *arg UNUSED, struct error *err)
{
    const struct prune_request planned = {.images_only = true, .dry_run = true};
    CLEANUP(prune_cleanup) struct prune *prune = NULL;
    CLEANUP_FREE struct sample *samples = xcalloc(MANY, sizeof(*samples));
    CLEANUP_FREE struct image_commit *items = xcalloc(MANY, sizeof(*items));
    struct group group;
    struct passer_by passer_by = {0};
    struct store *store = await_open_scratch("slices", err);
    size_t before;

    CHECK(store);
    for (size_t i = 0; i < MANY; i++) {
        char name[20];
        snprintf(name, sizeof(name), "many %zu", i);
        sample_make(&samples[i], name, (int64_t)i, samples[i].diff_ids, 0);
        items[i].image = &samples[i].image;
    }
    CHECK(await_images_commit(store, items, MANY, NULL, 0, err));
    image_commits_done(items, MANY);
    CHECK((prune = prune_new(store, &planned, err)));
    group_init(&group);
    CHECK(task_spawn(&group, "pass by", NULL, await_pass_by, &passer_by, err));
    CHECK(await_yield() == 0);
    before = passer_by.turns;
    CHECK(await_prune(prune, err) && prune_result(prune).images->count == MANY);
    CHECK(passer_by.turns > before);
    passer_by.stop = true;
    CHECK(await_group(&group, err));
    store_close_await(store);
    return true;
}

#define TEST(name)                               \
    static void test_##name(void **state UNUSED) \
    {                                            \
        run_task(body_##name, NULL);             \
    }
TEST(last_name)
TEST(no_prune)
TEST(digests)
TEST(named_parent_stays)
TEST(by_id)
TEST(by_id_of_one_name)
TEST(containers)
TEST(ambiguous)
TEST(tag_names)
TEST(prune)
TEST(prune_keeps_children)
TEST(prune_fails)
TEST(prune_in_slices)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_last_name),
        cmocka_unit_test(test_no_prune),
        cmocka_unit_test(test_digests),
        cmocka_unit_test(test_named_parent_stays),
        cmocka_unit_test(test_by_id),
        cmocka_unit_test(test_by_id_of_one_name),
        cmocka_unit_test(test_containers),
        cmocka_unit_test(test_ambiguous),
        cmocka_unit_test(test_tag_names),
        cmocka_unit_test(test_prune),
        cmocka_unit_test(test_prune_keeps_children),
        cmocka_unit_test(test_prune_fails),
        cmocka_unit_test(test_prune_in_slices),
    };

    own_mounts();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
