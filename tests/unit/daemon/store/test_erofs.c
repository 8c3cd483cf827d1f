/* What our EROFS images are made of. Each is read back by erofs_check(), which ends the test if
 * anything is not as it has to be; that the kernel takes them is test_index.py's. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/sysmacros.h>

#include <cmocka.h>

#include "daemon/store/erofs/image.h"
#include "tests/unit/daemon/store/erofs_check.h"

#define ARCHIVE_BYTES (2 * 1024 * GIB - MIB)
#define SPARSE_BYTES (1 * GIB)

#define TREE CLEANUP(erofs_tree_cleanup) struct erofs_tree *tree = erofs_tree_new()

static bool append(void *arg, const void *data, size_t size, struct error *err UNUSED)
{
    strbuf_add(arg, data, size);
    return true;
}

static void write_image(struct erofs_tree *tree, struct strbuf *image)
{
    const struct erofs_sink sink = {.write = append, .arg = image};
    const uint64_t sources[EROFS_SOURCES] = {ARCHIVE_BYTES, SPARSE_BYTES};
    CLEANUP_ERROR struct error err = {0};
    uint64_t size;

    assert_true(erofs_write(tree, sources, &sink, &size, &err));
    assert_int_equal(size, image->length);
}

static void check(const struct strbuf *image, struct strbuf *listing)
{
    erofs_check((const uint8_t *)image->data, image->length, ARCHIVE_BYTES, SPARSE_BYTES, listing);
}

/* The image as a listing. */
static char *list(struct erofs_tree *tree)
{
    CLEANUP_STRBUF struct strbuf image = {0};
    struct strbuf listing = {0};

    write_image(tree, &image);
    check(&image, &listing);
    return strbuf_take(&listing);
}

static void expect_list(struct erofs_tree *tree, const char *expected)
{
    CLEANUP_FREE char *listing = list(tree);

    assert_string_equal(listing, expected);
}

/* The line of one name in a listing; the caller's. */
static char *line_of(const char *listing, const char *name)
{
    CLEANUP_FREE char *wanted = xasprintf(" /%s", name);

    for (const char *line = listing; *line;) {
        size_t length = strcspn(line, "\n");
        CLEANUP_FREE char *copy = xstrndup(line, length);
        char *found = strstr(copy, wanted);
        if (found && (found[strlen(wanted)] == '\0' || found[strlen(wanted)] == ' '))
            return TAKE(copy);
        line += length + (line[length] == '\n');
    }
    fail_msg("no line for %s", name);
    return NULL;
}

static void expect_line(const char *listing, const char *name, const char *expected)
{
    CLEANUP_FREE char *line = line_of(listing, name);

    assert_string_equal(line, expected);
}

static void put(struct erofs_tree *tree, struct erofs_inode *dir, const char *name,
                struct erofs_inode *inode)
{
    erofs_tree_put(tree, dir, name, strlen(name), inode);
}

static struct erofs_inode *add(struct erofs_tree *tree, const char *name, mode_t mode,
                               uint64_t size)
{
    struct erofs_inode *inode = erofs_inode_new(tree, mode);

    if (S_ISREG(mode)) {
        inode->size = size;
        inode->content.source = 1;
        inode->content.block = 3;
    }
    put(tree, erofs_tree_root(tree), name, inode);
    return inode;
}

static struct erofs_inode *get(struct erofs_tree *tree, const char *name)
{
    return erofs_tree_get(tree, erofs_tree_root(tree), name, strlen(name));
}

static void test_nothing_but_the_root(void **state UNUSED)
{
    TREE;

    expect_list(tree, "compact inline 040755 0:0 2 27 0.000000000 /\n");
}

static void test_every_type(void **state UNUSED)
{
    TREE;

    add(tree, "file", S_IFREG | 0640, 1000);
    add(tree, "empty", S_IFREG | 0600, 0);
    add(tree, "dir", S_IFDIR | 01777, 0);
    add(tree, "fifo", S_IFIFO | 0600, 0);
    add(tree, "char", S_IFCHR | 0600, 0)->device = (uint32_t)makedev(4095, 1048575);
    add(tree, "block", S_IFBLK | 0600, 0)->device = (uint32_t)makedev(8, 1);
    add(tree, "whiteout", S_IFCHR, 0);
    put(tree, erofs_tree_root(tree), "link", erofs_inode_new_symlink(tree, "to/there"));
    expect_list(tree, "compact inline 040755 0:0 3 160 0.000000000 /\n"
                      "compact flat 060600 0:0 1 0 0.000000000 /block device 801\n"
                      "compact flat 020600 0:0 1 0 0.000000000 /char device ffffffff\n"
                      "compact flat 100600 0:0 1 0 0.000000000 /empty\n"
                      "compact flat 010600 0:0 1 0 0.000000000 /fifo\n"
                      "compact chunked 100640 0:0 1 1000 0.000000000 /file 1:3\n"
                      "compact inline 120777 0:0 1 8 0.000000000 /link -> to/there\n"
                      "compact flat 020000 0:0 1 0 0.000000000 /whiteout device 0\n"
                      "compact inline 041777 0:0 2 27 0.000000000 /dir\n");
}

static struct erofs_inode *timed(struct erofs_inode *inode, int64_t seconds, uint32_t nanoseconds)
{
    inode->seconds = seconds;
    inode->nanoseconds = nanoseconds;
    return inode;
}

/* Compact inodes have the time that most have; the others, and what is too large, are extended. */
static void test_forms_of_inodes(void **state UNUSED)
{
    CLEANUP_FREE char *listing = NULL;
    TREE;

    timed(erofs_tree_root(tree), 0, 0);
    timed(add(tree, "a", S_IFREG | 0644, 0), -5, 999999999);
    timed(add(tree, "b", S_IFREG | 0644, UINT32_MAX), -5, 999999999);
    timed(add(tree, "c", S_IFREG | 0644, UINT32_MAX + 1ULL), -5, 999999999);
    timed(add(tree, "d", S_IFREG | 0644, 0), -5, 999999998);
    timed(add(tree, "e", S_IFREG | 0644, 0), 7, 0);
    timed(add(tree, "f", S_IFREG | 0644, 0), INT64_MIN, 0);
    timed(add(tree, "g", S_IFREG | 0644, 0), -5, 999999999)->uid = 65535;
    timed(add(tree, "h", S_IFREG | 0644, 0), -5, 999999999)->uid = 65536;
    timed(add(tree, "i", S_IFREG | 0644, 0), -5, 999999999)->gid = UINT32_MAX - 1;
    listing = list(tree);
    expect_line(listing, "a", "compact flat 100644 0:0 1 0 -5.999999999 /a");
    expect_line(listing, "b", "compact chunked 100644 0:0 1 4294967295 -5.999999999 /b 1:3");
    expect_line(listing, "c", "extended chunked 100644 0:0 1 4294967296 -5.999999999 /c 1:3");
    expect_line(listing, "d", "extended flat 100644 0:0 1 0 -5.999999998 /d");
    expect_line(listing, "e", "extended flat 100644 0:0 1 0 7.000000000 /e");
    expect_line(listing, "f", "extended flat 100644 0:0 1 0 -9223372036854775808.000000000 /f");
    expect_line(listing, "g", "compact flat 100644 65535:0 1 0 -5.999999999 /g");
    expect_line(listing, "h", "extended flat 100644 65536:0 1 0 -5.999999999 /h");
    expect_line(listing, "i", "extended flat 100644 0:4294967294 1 0 -5.999999999 /i");
}

/* One index covers the file, up to the largest chunk there is. */
static void test_chunks(void **state UNUSED)
{
    CLEANUP_FREE char *listing = NULL;
    TREE;

    add(tree, "1", S_IFREG, 1);
    add(tree, "512", S_IFREG, 512);
    add(tree, "513", S_IFREG, 513);
    add(tree, "sparse", S_IFREG, 5000)->content.source = 2;
    add(tree, "one", S_IFREG, 1024 * GIB);
    add(tree, "two", S_IFREG, 1024 * GIB + 1);
    listing = list(tree);
    expect_line(listing, "1", "compact chunked 100000 0:0 1 1 0.000000000 /1 1:3");
    expect_line(listing, "512", "compact chunked 100000 0:0 1 512 0.000000000 /512 1:3");
    expect_line(listing, "513", "compact chunked 100000 0:0 1 513 0.000000000 /513 1:3");
    expect_line(listing, "sparse", "compact chunked 100000 0:0 1 5000 0.000000000 /sparse 2:3");
    expect_line(listing, "one", "extended chunked 100000 0:0 1 1099511627776 0.000000000 /one 1:3");
    expect_line(listing, "two",
                "extended chunked 100000 0:0 1 1099511627777 0.000000000 /two 1:3 1:2147483651");
}

/* Blocks of 512 bytes, of which each name takes 12 and its length. */
static void test_sizes_of_directories(void **state UNUSED)
{
    static const struct {
        size_t lengths[8];
        const char *expected;
    } cases[] = {
        {{1}, "compact inline 040755 0:0 2 40 0.000000000 /"},
        {{255}, "compact inline 040755 0:0 2 294 0.000000000 /"},
        {{255, 166}, "compact inline 040755 0:0 2 472 0.000000000 /"},
        {{255, 174}, "compact inline 040755 0:0 2 480 0.000000000 /"},
        /* One more does not fit behind the inode. */
        {{255, 175}, "compact flat 040755 0:0 2 481 0.000000000 /"},
        {{255, 206}, "compact flat 040755 0:0 2 512 0.000000000 /"},
        {{255, 207}, "compact inline 040755 0:0 2 731 0.000000000 /"},
        {{255, 255, 1}, "compact inline 040755 0:0 2 792 0.000000000 /"},
        {{255, 206, 255, 232}, "compact flat 040755 0:0 2 1023 0.000000000 /"},
        {{255, 206, 255, 233}, "compact flat 040755 0:0 2 1024 0.000000000 /"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_FREE char *listing = NULL;
        TREE;
        for (size_t k = 0; cases[i].lengths[k]; k++) {
            char name[256];
            memset(name, 'a' + (int)k, cases[i].lengths[k]);
            name[cases[i].lengths[k]] = '\0';
            add(tree, name, S_IFREG, 0);
        }
        listing = list(tree);
        expect_line(listing, "", cases[i].expected);
    }
}

/* By bytes, "." and ".." among the others. */
static void test_order_of_names(void **state UNUSED)
{
    static const char *const names[] = {
        "\x01", " ",    "-",        ".-",  "...",         ".a",           "0",
        "A",    "a",    "aa",       "ab",  "samestart-1", "samestart-10", "samestart-2",
        "\x7f", "\x80", "\xc3\xa9", "\xff"};
    TREE;

    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        add(tree, names[i * 7 % ARRAY_SIZE(names)], S_IFREG, 0);
    free(list(tree));
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        assert_non_null(get(tree, names[i]));
    assert_null(get(tree, "samestart-"));
}

/* Each size beside inodes of either form, so that they begin anywhere in a block. */
static void test_symlinks_of_any_length(void **state UNUSED)
{
    static const size_t lengths[] = {1,   2,   31,   32,   33,   440,  447,  448, 449, 479,
                                     480, 481, 510,  511,  512,  513,  600,  959, 960, 961,
                                     992, 993, 1023, 1024, 1025, 4000, 4094, 4095};
    CLEANUP_FREE char *listing = NULL;
    char target[4096];
    TREE;

    for (size_t i = 0; i < ARRAY_SIZE(lengths) * 6; i++) {
        struct erofs_inode *inode;
        char name[32];
        size_t length = lengths[i / 6];
        memset(target, 'a' + (int)(i % 26), length);
        target[length] = '\0';
        inode = erofs_inode_new_symlink(tree, target);
        inode->uid = i % 6 < 3 ? 0 : 100000;
        snprintf(name, sizeof(name), "%zu-%zu", length, i % 6);
        put(tree, erofs_tree_root(tree), name, inode);
    }
    listing = list(tree);
    for (size_t i = 0; i < ARRAY_SIZE(lengths) * 6; i++) {
        CLEANUP_FREE char *line = NULL;
        char name[32];
        size_t length = lengths[i / 6];
        memset(target, 'a' + (int)(i % 26), length);
        target[length] = '\0';
        snprintf(name, sizeof(name), "%zu-%zu", length, i % 6);
        line = line_of(listing, name);
        assert_string_equal(strstr(line, " -> ") + 4, target);
    }
}

static void set(struct erofs_tree *tree, struct erofs_inode *inode, const char *name,
                const char *value)
{
    assert_true(erofs_inode_set_xattr(tree, inode, name, value, strlen(value)));
}

static void test_xattrs_used_twice_are_shared(void **state UNUSED)
{
    CLEANUP_FREE char *listing = NULL;
    struct erofs_inode *a, *b, *gone;
    TREE;

    a = add(tree, "a", S_IFREG, 0);
    b = add(tree, "b", S_IFREG, 0);
    set(tree, a, "user.both", "same");
    set(tree, b, "user.both", "same");
    set(tree, a, "user.name", "not");
    set(tree, b, "user.name", "the same");
    set(tree, a, "security.capability", "");
    set(tree, b, "trusted.overlay.opaque", "y");
    /* Uses count for what is there in the end, and for the last value. */
    gone = add(tree, "gone", S_IFREG, 0);
    set(tree, gone, "user.name", "the same");
    add(tree, "gone", S_IFREG, 0);
    set(tree, a, "user.twice", "the same");
    set(tree, b, "user.twice", "the same");
    set(tree, b, "user.twice", "another");
    listing = list(tree);
    expect_line(listing, "a",
                "compact flat 100000 0:0 1 0 0.000000000 /a s:user.both=same "
                "i:user.name=not i:security.capability= i:user.twice=the same");
    expect_line(listing, "b",
                "compact flat 100000 0:0 1 0 0.000000000 /b s:user.both=same "
                "i:user.name=the same i:trusted.overlay.opaque=y i:user.twice=another");
    expect_line(listing, "gone", "compact flat 100000 0:0 1 0 0.000000000 /gone");
}

/* An inode can have 255 shared ones; the others are inline, though shared elsewhere. */
static void test_many_xattrs(void **state UNUSED)
{
    CLEANUP_FREE char *listing = NULL;
    CLEANUP_FREE char *line = NULL;
    struct erofs_inode *inodes[2];
    char name[32];
    size_t shared = 0;
    TREE;

    inodes[0] = add(tree, "a", S_IFREG, 0);
    inodes[1] = add(tree, "b", S_IFREG, 0);
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof(name), "user.%d", i);
        set(tree, inodes[0], name, "v");
        set(tree, inodes[1], name, "v");
    }
    listing = list(tree);
    line = line_of(listing, "b");
    for (const char *at = line; (at = strstr(at, " s:")); at++)
        shared++;
    assert_int_equal(shared, 255);
    assert_non_null(strstr(line, " s:user.254=v"));
    assert_non_null(strstr(line, " i:user.255=v"));
    assert_non_null(strstr(line, " i:user.299=v"));
}

static void test_limits_of_xattrs(void **state UNUSED)
{
    CLEANUP_FREE char *large = xcalloc(1, 65536);
    CLEANUP_FREE char *listing = NULL;
    struct erofs_inode *inode;
    char name[257] = "user.";
    TREE;

    inode = add(tree, "a", S_IFREG, 0);
    assert_false(erofs_inode_set_xattr(tree, inode, "system.posix_acl_access", "", 0));
    assert_int_equal(errno, EOPNOTSUPP);
    assert_false(erofs_inode_set_xattr(tree, inode, "user.", "", 0));
    assert_int_equal(errno, EINVAL);
    memset(name + 5, 'n', 251);
    assert_false(erofs_inode_set_xattr(tree, inode, name, "", 0));
    assert_int_equal(errno, ERANGE);
    name[255] = '\0';
    assert_true(erofs_inode_set_xattr(tree, inode, name, "", 0));
    assert_false(erofs_inode_set_xattr(tree, inode, "user.a", large, 65536));
    assert_int_equal(errno, E2BIG);
    assert_true(erofs_inode_set_xattr(tree, inode, "user.a", large, 65535));
    free(list(tree));
}

static void test_no_more_xattrs_than_fit(void **state UNUSED)
{
    CLEANUP_FREE char *large = xcalloc(1, 60000);
    struct erofs_inode *inode;
    char name[32];
    int count = 0;
    TREE;

    inode = add(tree, "large", S_IFREG, 0);
    for (; count < 10; count++) {
        snprintf(name, sizeof(name), "user.%d", count);
        if (!erofs_inode_set_xattr(tree, inode, name, large, 60000))
            break;
    }
    assert_int_equal(errno, E2BIG);
    assert_int_equal(count, 2);
    inode = add(tree, "many", S_IFREG, 0);
    for (count = 0; count < 2000; count++) {
        snprintf(name, sizeof(name), "user.%d", count);
        if (!erofs_inode_set_xattr(tree, inode, name, "", 0))
            break;
    }
    assert_int_equal(errno, E2BIG);
    assert_int_equal(count, 1024);
}

static void test_hard_links(void **state UNUSED)
{
    static const uint32_t counts[] = {1, 2, 65535, 65536, 70000};

    for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
        CLEANUP_FREE char *listing = NULL;
        CLEANUP_FREE char *expected = NULL;
        struct erofs_inode *inode;
        TREE;
        inode = add(tree, "0", S_IFREG, 700);
        for (uint32_t k = 1; k < counts[i]; k++) {
            char name[16];
            snprintf(name, sizeof(name), "%u", k);
            put(tree, erofs_tree_root(tree), name, inode);
        }
        assert_int_equal(erofs_tree_content_bytes(tree), 700);
        listing = list(tree);
        expected = xasprintf("%s chunked 100000 0:0 %u 700 0.000000000 /0 1:3",
                             counts[i] > 65535 ? "extended" : "compact", counts[i]);
        expect_line(listing, "0", expected);
    }
}

/* A directory takes everything in it along; what has another name stays. */
static void test_replaced(void **state UNUSED)
{
    struct erofs_inode *dir, *sub, *file;
    TREE;

    dir = add(tree, "dir", S_IFDIR | 0755, 0);
    sub = erofs_inode_new(tree, S_IFDIR | 0755);
    put(tree, dir, "sub", sub);
    for (int i = 0; i < 3; i++) {
        char name[8];
        snprintf(name, sizeof(name), "f%d", i);
        file = erofs_inode_new(tree, S_IFREG | 0644);
        file->size = 1000;
        file->content.source = 1;
        put(tree, i ? sub : dir, name, file);
    }
    put(tree, sub, "link", erofs_inode_new_symlink(tree, "12345"));
    put(tree, erofs_tree_root(tree), "kept", file);
    assert_int_equal(erofs_tree_content_bytes(tree), 3005);
    assert_int_equal(erofs_tree_root(tree)->links, 3);
    add(tree, "dir", S_IFREG | 0600, 10);
    assert_int_equal(erofs_tree_content_bytes(tree), 1010);
    expect_list(tree, "compact inline 040755 0:0 2 58 0.000000000 /\n"
                      "compact chunked 100600 0:0 1 10 0.000000000 /dir 1:3\n"
                      "compact chunked 100644 0:0 1 1000 0.000000000 /kept 1:0\n");
}

static struct erofs_tree *make_large_tree(unsigned int seed)
{
    struct erofs_tree *tree = erofs_tree_new();
    struct erofs_inode *dirs[64] = {erofs_tree_root(tree)};

    for (unsigned int i = 0; i < 20000; i++) {
        struct erofs_inode *dir = dirs[seed % 64] ? dirs[seed % 64] : dirs[0], *inode;
        char name[64];
        seed = seed * 1103515245 + 12345;
        snprintf(name, sizeof(name), "%.*s%u", (int)(seed >> 10 & 31),
                 "a-rather-long-name-of-no-meaning", seed >> 16);
        if (erofs_tree_get(tree, dir, name, strlen(name)))
            continue;
        inode = erofs_inode_new(tree, (i % 100 ? S_IFREG : S_IFDIR) | 0755);
        inode->uid = seed >> 12 & 1 ? 0 : seed;
        inode->seconds = seed >> 13 & 3;
        if (S_ISDIR(inode->mode))
            dirs[seed >> 3 & 63] = inode;
        else
            inode->content.source = 1, inode->size = seed >> 4;
        put(tree, dir, name, inode);
    }
    return tree;
}

static void test_same_tree_same_bytes(void **state UNUSED)
{
    CLEANUP_STRBUF struct strbuf first = {0};
    CLEANUP_STRBUF struct strbuf second = {0};
    CLEANUP(erofs_tree_cleanup) struct erofs_tree *tree = make_large_tree(1);
    CLEANUP(erofs_tree_cleanup) struct erofs_tree *again = make_large_tree(1);

    write_image(tree, &first);
    write_image(again, &second);
    check(&first, NULL);
    assert_int_equal(first.length, second.length);
    assert_memory_equal(first.data, second.data, first.length);
}

static bool refuse(void *arg, const void *data UNUSED, size_t size UNUSED, struct error *err)
{
    ++*(int *)arg;
    return error_set(err, ERROR_RESOURCE_EXHAUSTED, "NO_SPACE", "full");
}

static void test_sink_that_fails(void **state UNUSED)
{
    CLEANUP(erofs_tree_cleanup) struct erofs_tree *tree = make_large_tree(2);
    const uint64_t sources[EROFS_SOURCES] = {1 * GIB, 0};
    CLEANUP_ERROR struct error err = {0};
    int calls = 0;
    const struct erofs_sink sink = {.write = refuse, .arg = &calls};
    uint64_t size;

    assert_false(erofs_write(tree, sources, &sink, &size, &err));
    assert_true(error_is(&err, "NO_SPACE"));
    assert_int_equal(calls, 1);
}

static void test_too_large(void **state UNUSED)
{
    const uint64_t sources[EROFS_SOURCES] = {2 * 1024 * GIB, 0};
    CLEANUP_STRBUF struct strbuf image = {0};
    const struct erofs_sink sink = {.write = append, .arg = &image};
    CLEANUP_ERROR struct error err = {0};
    uint64_t size;
    TREE;

    assert_false(erofs_write(tree, sources, &sink, &size, &err));
    assert_true(error_is(&err, "INVALID_LAYER"));
    assert_int_equal(image.length, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_but_the_root),
        cmocka_unit_test(test_every_type),
        cmocka_unit_test(test_forms_of_inodes),
        cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_sizes_of_directories),
        cmocka_unit_test(test_order_of_names),
        cmocka_unit_test(test_symlinks_of_any_length),
        cmocka_unit_test(test_xattrs_used_twice_are_shared),
        cmocka_unit_test(test_many_xattrs),
        cmocka_unit_test(test_limits_of_xattrs),
        cmocka_unit_test(test_no_more_xattrs_than_fit),
        cmocka_unit_test(test_hard_links),
        cmocka_unit_test(test_replaced),
        cmocka_unit_test(test_same_tree_same_bytes),
        cmocka_unit_test(test_sink_that_fails),
        cmocka_unit_test(test_too_large),
    };

    return cmocka_run_group_tests_name("erofs", tests, NULL, NULL);
}
