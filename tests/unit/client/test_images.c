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

/* Where nobody looks at digests, those of one repository are one row. */
static void test_digests_of_one_repository(void **state UNUSED)
{
    Davit__V1__Image image = make_image();
    image.repo_digests = (char *[]){"a@sha256:12", "a@sha256:34", "b@sha256:12"};
    image.n_repo_digests = 3;
    CLEANUP_FREE char *ids = print(&image, (struct images_view){.only_ids = true});
    assert_string_equal(ids, "aaaaaaaaaaaa\naaaaaaaaaaaa\n");
    CLEANUP_FREE char *rows =
        print(&image,
              (struct images_view){.digests = true, .format = "{{.Repository}}@{{.Digest}}"});
    assert_string_equal(rows, "a@sha256:12\na@sha256:34\nb@sha256:12\n");
}

/* A format that has them shows them without being told to. */
static void test_digests_in_formats(void **state UNUSED)
{
    Davit__V1__Image image = make_image();
    image.repo_tags = (char *[]){"a:1"};
    image.n_repo_tags = 1;
    image.repo_digests = (char *[]){"a@sha256:12", "a@sha256:34"};
    image.n_repo_digests = 2;
    CLEANUP_FREE char *shown = print(&image, (struct images_view){.format = "{{.Digest}}"});
    assert_string_equal(shown, "sha256:12\nsha256:34\n");
    CLEANUP_FREE char *blanks = print(&image, (struct images_view){.format = "{{ .Digest }}"});
    assert_string_equal(blanks, "<none>\n");
    CLEANUP_FREE char *table =
        print(&image, (struct images_view){.digests = true, .format = "table {{.Tag}}"});
    assert_string_equal(table, "TAG       DIGEST\n1         sha256:12\n1         sha256:34\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_tags),
        cmocka_unit_test(test_digests),
        cmocka_unit_test(test_nameless),
        cmocka_unit_test(test_digests_of_one_repository),
        cmocka_unit_test(test_digests_in_formats),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
