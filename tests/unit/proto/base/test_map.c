#include "tests/unit/test.h"

#include "proto/base/map.h"

static void test_put_get_remove(void **state UNUSED)
{
    CLEANUP(map_cleanup) struct map *map = map_new();
    int one, two;

    assert_int_equal(map_count(map), 0);
    assert_null(map_get(map, "a"));
    assert_null(map_remove(map, "a"));
    assert_null(map_put(map, "a", &one));
    assert_ptr_equal(map_get(map, "a"), &one);
    assert_ptr_equal(map_put(map, "a", &two), &one);
    assert_int_equal(map_count(map), 1);
    assert_null(map_put(map, "", &one)); /* the empty key is a key */
    assert_ptr_equal(map_get(map, ""), &one);
    assert_ptr_equal(map_remove(map, "a"), &two);
    assert_null(map_get(map, "a"));
    assert_ptr_equal(map_get(map, ""), &one);
    assert_int_equal(map_count(map), 1);
}

static void test_keys_are_copied(void **state UNUSED)
{
    CLEANUP(map_cleanup) struct map *map = map_new();
    char key[] = "key";
    int value;

    map_put(map, key, &value);
    key[0] = 'x';
    assert_ptr_equal(map_get(map, "key"), &value);
    assert_null(map_get(map, "xey"));
}

/* Random operations against an array. Few keys and many operations: runs of neighbours form, wrap
 * around the end of the table and are closed again. */
#define KEYS 600

static void random_operations(unsigned int seed, unsigned int key_count)
{
    static int values[KEYS][2];
    static void *reference[KEYS];
    CLEANUP(map_cleanup) struct map *map = map_new();
    size_t count = 0;

    memset(reference, 0, sizeof(reference));
    for (int step = 0; step < 20000; step++) {
        unsigned int i = (unsigned int)rand_r(&seed) % key_count;
        int action = rand_r(&seed) % 4;
        char key[32];
        snprintf(key, sizeof(key), "key-%u", i);
        if (action == 0) {
            assert_ptr_equal(map_remove(map, key), reference[i]);
            count -= reference[i] != NULL;
            reference[i] = NULL;
        } else if (action == 1) {
            void *value = &values[i][step % 2];
            assert_ptr_equal(map_put(map, key, value), reference[i]);
            count += reference[i] == NULL;
            reference[i] = value;
        } else {
            assert_ptr_equal(map_get(map, key), reference[i]);
        }
        assert_int_equal(map_count(map), count);
    }
    for (unsigned int i = 0; i < key_count; i++) {
        char key[32];
        snprintf(key, sizeof(key), "key-%u", i);
        assert_ptr_equal(map_get(map, key), reference[i]);
    }
}

static void test_random_operations(void **state UNUSED)
{
    /* Each map has its own hash seed, so that rounds differ. */
    for (unsigned int round = 0; round < 10; round++) {
        random_operations(round, 5);
        random_operations(round, 40);
        random_operations(round, KEYS);
    }
}

static void test_walk(void **state UNUSED)
{
    CLEANUP(map_cleanup) struct map *map = map_new();
    static int values[100];
    bool seen[100] = {false};
    size_t iterator = 0, walked = 0;
    const char *key;
    void *value;

    assert_false(map_next(map, &iterator, &key, &value));
    for (int i = 0; i < 100; i++) {
        char text[16];
        snprintf(text, sizeof(text), "%d", i);
        map_put(map, text, &values[i]);
    }
    iterator = 0;
    while (map_next(map, &iterator, &key, &value)) {
        int i = atoi(key);
        assert_ptr_equal(value, &values[i]);
        assert_false(seen[i]);
        seen[i] = true;
        walked++;
    }
    assert_int_equal(walked, 100);
    iterator = 0;
    assert_true(map_next(map, &iterator, NULL, NULL));
}

static void put_nothing(void *arg UNUSED)
{
    map_put(map_new(), "key", NULL);
}

static void test_null_values_abort(void **state UNUSED)
{
    assert_dies(put_nothing, NULL, SIGABRT, "check failed: value");
}

static void test_free_takes_null(void **state UNUSED)
{
    assert_null(map_free(NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_put_get_remove),    cmocka_unit_test(test_keys_are_copied),
        cmocka_unit_test(test_random_operations), cmocka_unit_test(test_walk),
        cmocka_unit_test(test_null_values_abort), cmocka_unit_test(test_free_takes_null),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
