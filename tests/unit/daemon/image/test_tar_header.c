#include "tests/unit/test.h"

#include "daemon/image/tar_header.h"

static uint64_t octal_at(const uint8_t *header, size_t offset, size_t digits)
{
    char text[13] = {0};

    memcpy(text, header + offset, digits);
    return strtoull(text, NULL, 8);
}

/* The checksum counts its own field as blanks. */
static void expect_checksum(const uint8_t *header)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < TAR_BLOCK_BYTES; i++)
        sum += i >= 148 && i < 156 ? ' ' : header[i];
    assert_int_equal(octal_at(header, 148, 6), sum);
    assert_memory_equal(header + 154, "\0 ", 2);
}

static void expect_ours(const uint8_t *header)
{
    assert_memory_equal(header + 257, "ustar\00000", 8);
    assert_int_equal(octal_at(header, 108, 7), 0);  /* uid */
    assert_int_equal(octal_at(header, 116, 7), 0);  /* gid */
    assert_int_equal(octal_at(header, 136, 11), 0); /* mtime */
    assert_int_equal(header[265], 0);               /* no name of the owner */
    expect_checksum(header);
}

static void test_file(void **state)
{
    const struct tar_entry entry = {"blobs/sha256/0123", 1000};
    uint8_t header[TAR_HEADER_MAX];

    (void)state;
    assert_int_equal(tar_header_size(&entry), TAR_BLOCK_BYTES);
    tar_header_write(&entry, header);
    assert_string_equal((char *)header, entry.name);
    assert_int_equal(header[156], '0');
    assert_int_equal(octal_at(header, 100, 7), 0644);
    assert_memory_equal(header + 124, "00000001750", 12);
    expect_ours(header);
}

static void test_directory(void **state)
{
    const struct tar_entry entry = {"blobs/", 0};
    uint8_t header[TAR_HEADER_MAX];

    (void)state;
    tar_header_write(&entry, header);
    assert_int_equal(header[156], '5');
    assert_int_equal(octal_at(header, 100, 7), 0755);
    assert_int_equal(octal_at(header, 124, 11), 0);
    expect_ours(header);
}

/* A name that fills its field has no NUL behind it. */
static void test_longest_name(void **state)
{
    char name[101];
    const struct tar_entry entry = {name, 1};
    uint8_t header[TAR_HEADER_MAX];

    (void)state;
    memset(name, 'n', 100);
    name[100] = '\0';
    tar_header_write(&entry, header);
    assert_memory_equal(header, name, 100);
    assert_int_equal(octal_at(header, 100, 7), 0644);
    expect_ours(header);
}

/* Eleven octal digits end at 8 GiB; beyond them is a pax record. */
static void test_large(void **state)
{
    static const struct {
        uint64_t size;
        const char *record; /* NULL: none */
    } cases[] = {{077777777777ULL, NULL},
                 {0100000000000ULL, "19 size=8589934592\n"},
                 {10ULL * 1000 * 1000 * 1000, "20 size=10000000000\n"},
                 {UINT64_MAX, "29 size=18446744073709551615\n"}};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const struct tar_entry entry = {"layer", cases[i].size};
        uint8_t header[TAR_HEADER_MAX] = {0};
        const uint8_t *record = header + TAR_BLOCK_BYTES, *file = header;
        tar_header_write(&entry, header);
        if (cases[i].record) {
            assert_int_equal(tar_header_size(&entry), TAR_HEADER_MAX);
            assert_int_equal(header[156], 'x');
            assert_int_equal(octal_at(header, 124, 11), strlen(cases[i].record));
            assert_string_equal((const char *)record, cases[i].record);
            expect_ours(header);
            file = record + TAR_BLOCK_BYTES;
        } else {
            assert_int_equal(tar_header_size(&entry), TAR_BLOCK_BYTES);
            assert_int_equal(octal_at(file, 124, 11), cases[i].size);
        }
        assert_string_equal((const char *)file, "layer");
        assert_int_equal(file[156], '0');
        expect_ours(file);
    }
}

static void test_padding(void **state)
{
    (void)state;
    assert_int_equal(tar_padding(0), 0);
    assert_int_equal(tar_padding(1), 511);
    assert_int_equal(tar_padding(511), 1);
    assert_int_equal(tar_padding(512), 0);
    assert_int_equal(tar_padding(8589934593ULL), 511);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_file),         cmocka_unit_test(test_directory),
        cmocka_unit_test(test_longest_name), cmocka_unit_test(test_large),
        cmocka_unit_test(test_padding),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
