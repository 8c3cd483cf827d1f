#include "tests/unit/task_test.h"

#include "daemon/registry/health.h"

/* How long it is behind the others, with the jitter taken out of the bounds. */
static void assert_behind(const struct health *health, uint64_t penalty_ms)
{
    uint64_t left_ms = health->behind_until_ms - loop_now_ms();

    assert_false(health_is_good(health));
    assert_in_range(left_ms, penalty_ms * 3 / 4 - 1000, penalty_ms * 5 / 4);
}

TASK_TEST(test_failures_in_a_row)
{
    static const unsigned int penalties_s[] = {10, 20, 40, 80, 160, 320, 600, 600, 600};
    struct health_table table;
    struct health *health;

    health_table_init(&table);
    health = health_of(&table, "https://m/v2");
    assert_true(health_is_good(health));
    for (unsigned int i = 0; i < ARRAY_SIZE(penalties_s); i++) {
        health_failed(health, "broken", 0);
        assert_behind(health, penalties_s[i] * 1000ULL);
        assert_int_equal(health->failures, i + 1);
        assert_string_equal(health->last_error, "broken");
        health->behind_until_ms = 0; /* time passes */
        assert_true(health_is_good(health));
    }
    health_succeeded(health, 7);
    assert_int_equal(health->failures, 0);
    assert_null(health->last_error);
    health_failed(health, "again", 0);
    assert_behind(health, 10000);
    health_succeeded(health, 3);
    assert_true(health_is_good(health));
    assert_int_equal(health->bytes_served, 10);
    health_unref(health);
    health_table_done(&table);
    return true;
}

TASK_TEST(test_failures_at_once_are_one)
{
    struct health_table table;
    struct health *health;

    health_table_init(&table);
    health = health_of(&table, "m");
    for (unsigned int i = 0; i < 8; i++)
        health_failed(health, "broken", 0);
    assert_int_equal(health->failures, 1);
    assert_in_range(health->behind_until_ms - loop_now_ms(), 7000, 25000);
    health_unref(health);
    health_table_done(&table);
    return true;
}

TASK_TEST(test_what_it_asks_for)
{
    struct health_table table;
    struct health *health;

    health_table_init(&table);
    health = health_of(&table, "m");
    health_failed(health, "busy", 60000);
    assert_in_range(health->behind_until_ms - loop_now_ms(), 59000, 60000);
    health_failed(health, "busy", UINT64_MAX);
    assert_in_range(health->behind_until_ms - loop_now_ms(), 599000, 600000);
    health_unref(health);
    health_table_done(&table);
    return true;
}

TASK_TEST(test_shared_and_kept)
{
    struct health_table table;
    struct health *one, *two;

    health_table_init(&table);
    assert_null(health_find(&table, "m"));
    one = health_of(&table, "m");
    two = health_of(&table, "m");
    assert_ptr_equal(one, two);
    assert_ptr_not_equal(one, health_find(&table, "n"));
    health_failed(one, "broken", 0);
    health_learn_whole_only(one);
    health_unref(one);
    health_unref(two);
    assert_false(health_is_good(health_find(&table, "m")));
    assert_true(health_whole_only(health_find(&table, "m")));
    health_table_done(&table);
    return true;
}

TASK_TEST(test_places_are_bounded)
{
    struct health_table table;
    struct health *used;
    char place[32];

    health_table_init(&table);
    used = health_of(&table, "used");
    health_unref(health_of(&table, "bad"));
    health_failed(health_of(&table, "bad"), "broken", 0);
    health_unref((struct health *)health_find(&table, "bad"));
    for (unsigned int i = 0; i < 600; i++) {
        snprintf(place, sizeof(place), "place%u", i);
        health_unref(health_of(&table, place));
        assert_true(map_count(table.by_place) <= 256);
    }
    /* What is in use stays what it is, and what failed is remembered longer. */
    assert_ptr_equal(health_find(&table, "used"), used);
    assert_non_null(health_find(&table, "bad"));
    for (unsigned int i = 0; i < 600; i++) {
        struct health *health;
        snprintf(place, sizeof(place), "worse%u", i);
        health = health_of(&table, place);
        health_failed(health, "broken", 0);
        health_unref(health);
        assert_true(map_count(table.by_place) <= 256);
    }
    assert_ptr_equal(health_find(&table, "used"), used);
    health_unref(used);
    health_table_done(&table);
    return true;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_failures_in_a_row),  cmocka_unit_test(test_failures_at_once_are_one),
        cmocka_unit_test(test_what_it_asks_for),   cmocka_unit_test(test_shared_and_kept),
        cmocka_unit_test(test_places_are_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
