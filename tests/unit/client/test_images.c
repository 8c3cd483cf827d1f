#include "tests/unit/test.h"

#include "client/images.h"

#define HEX_A "aaaaaaaaaaaabbbbbbbbbbbbccccccccccccddddddddddddeeeeeeeeeeeeffff"
#define NOW 1700000000

static Davit__V1__Image make_image(void)
{
    Davit__V1__Image image = DAVIT__V1__IMAGE__INIT;
    image.id = "sha256:" HEX_A;
    image.created_unix_ns = (NOW - 15 * 86400LL) * 1000000000;
    image.size_bytes = 4270000;
    return image;
}

static char *print(Davit__V1__Image *image, struct images_view view)
{
    Davit__V1__ListImagesResponse list = DAVIT__V1__LIST_IMAGES_RESPONSE__INIT;
    CLEANUP_ERROR struct error err = {0};
    struct strbuf text = {0};
    list.images = &image;
    list.n_images = 1;
    view.now_unix = NOW;
    assert_ok(images_print(&list, &view, &text, &err), &err);
    return strbuf_take(&text);
}

static void test_empty(void **state UNUSED)
{
    Davit__V1__ListImagesResponse list = DAVIT__V1__LIST_IMAGES_RESPONSE__INIT;
    CLEANUP_STRBUF struct strbuf text = {0}, ids = {0};
    assert_true(images_print(&list, &(struct images_view){0}, &text, NULL));
    assert_string_equal(strbuf_text(&text), "REPOSITORY   TAG       IMAGE ID   CREATED   SIZE\n");
    assert_true(images_print(&list, &(struct images_view){.only_ids = true}, &ids, NULL));
    assert_string_equal(strbuf_text(&ids), "");
}

static void test_tags(void **state UNUSED)
{
    Davit__V1__Image image = make_image();
    image.repo_tags = (char *[]){"busybox:latest", "localhost:5000/b:1.36"};
    image.n_repo_tags = 2;
    image.repo_digests = (char *[]){"busybox@sha256:12"};
    image.n_repo_digests = 1;
    CLEANUP_FREE char *text = print(&image, (struct images_view){0});
    assert_string_equal(text, "REPOSITORY         TAG       IMAGE ID       CREATED       SIZE\n"
                              "busybox            latest    aaaaaaaaaaaa   2 weeks ago   4.27MB\n"
                              "localhost:5000/b   1.36      aaaaaaaaaaaa   2 weeks ago   4.27MB\n");
    CLEANUP_FREE char *ids = print(&image, (struct images_view){.only_ids = true});
    assert_string_equal(ids, "aaaaaaaaaaaa\naaaaaaaaaaaa\n");
    CLEANUP_FREE char *full =
        print(&image, (struct images_view){.only_ids = true, .full_ids = true});
    assert_string_equal(full, "sha256:" HEX_A "\nsha256:" HEX_A "\n");
}

static void test_digests(void **state UNUSED)
{
    Davit__V1__Image image = make_image();
    image.repo_tags = (char *[]){"busybox:latest", "other:1"};
    image.n_repo_tags = 2;
    image.repo_digests = (char *[]){"busybox@sha256:12", "third@sha256:34"};
    image.n_repo_digests = 2;
    CLEANUP_FREE char *text = print(&image, (struct images_view){.digests = true});
    assert_string_equal(text,
                        "REPOSITORY   TAG       DIGEST      IMAGE ID       CREATED       SIZE\n"
                        "busybox      latest    sha256:12   aaaaaaaaaaaa   2 weeks ago   4.27MB\n"
                        "other        1         <none>      aaaaaaaaaaaa   2 weeks ago   4.27MB\n"
                        "third        <none>    sha256:34   aaaaaaaaaaaa   2 weeks ago   4.27MB\n");
}

static void test_nameless(void **state UNUSED)
{
    Davit__V1__Image image = make_image();
    image.created_unix_ns = INT64_MIN;
    CLEANUP_FREE char *text = print(&image, (struct images_view){0});
    assert_string_equal(text, "REPOSITORY   TAG       IMAGE ID       CREATED   SIZE\n"
                              "<none>       <none>    aaaaaaaaaaaa   N/A       4.27MB\n");
    image.repo_digests = (char *[]){"localhost:5000/b@sha256:12"};
    image.n_repo_digests = 1;
    CLEANUP_FREE char *digest = print(&image, (struct images_view){0});
    assert_non_null(strstr(digest, "\nlocalhost:5000/b   <none>    aaaaaaaaaaaa"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_tags),
        cmocka_unit_test(test_digests),
        cmocka_unit_test(test_nameless),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
