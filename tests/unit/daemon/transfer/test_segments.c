/* Who fetches which bytes: every one once, whatever is given back, stolen or broken off. */
#include "tests/unit/test.h"

#include "daemon/transfer/segments.h"

#define SIZE (10 * MIB)

static void test_take_in_order(void **state)
{
    struct segments segments;
    struct segment a, b;

    (void)state;
    segments_init(&segments);
    assert_false(segments_take(&segments, MIB, &a));
    segments_add(&segments, 1000, 5 * MIB);
    segments_add(&segments, 6 * MIB, SIZE);
    assert_int_equal(segments_gap_bytes(&segments), 9 * MIB - 1000);

    assert_true(segments_take(&segments, MIB, &a));
    assert_int_equal(a.position, 1000);
    assert_int_equal(a.end, MIB + SEGMENT_ALIGN); /* cuts are aligned */
    assert_true(segments_take(&segments, 64 * MIB, &b));
    assert_int_equal(b.position, a.end);
    assert_int_equal(b.end, 5 * MIB); /* never over what is there */
    b.position = b.end;
    segments_give_back(&segments, &b);
    assert_true(segments_take(&segments, 64 * MIB, &b));
    assert_int_equal(b.position, 6 * MIB);
    assert_int_equal(b.end, SIZE);
    assert_false(segments_have_gap(&segments));
    b.position = SIZE;
    segments_give_back(&segments, &a);
    segments_give_back(&segments, &b);
    segments_give_back(&segments, &b); /* ended already */
    assert_int_equal(segments_gap_bytes(&segments), MIB + SEGMENT_ALIGN - 1000);
    segments_done(&segments);
}

static void test_give_back_at_the_byte(void **state)
{
    struct segments segments;
    struct segment a = {0}, b;

    (void)state;
    segments_init(&segments);
    segments_give_back(&segments, &a); /* never began */
    segments_add(&segments, 0, SIZE);
    assert_true(segments_take(&segments, 2 * MIB, &a));
    assert_true(segments_take(&segments, 2 * MIB, &b));
    a.position += 777;
    b.position += 3;
    segments_give_back(&segments, &a);
    assert_true(segments_take(&segments, 64 * MIB, &a));
    assert_int_equal(a.position, 777);
    assert_int_equal(a.end, 2 * MIB); /* up to what the other holds */
    segments_give_back(&segments, &b);
    segments_give_back(&segments, &a);
    assert_int_equal(segments_gap_bytes(&segments), SIZE - 780);
    assert_true(segments_take(&segments, 64 * MIB, &a));
    assert_int_equal(a.end, 2 * MIB);
    assert_true(segments_take(&segments, 64 * MIB, &b));
    assert_int_equal(b.position, 2 * MIB + 3);
    assert_int_equal(b.end, SIZE); /* the gaps had become one again */
    segments_give_back(&segments, &a);
    segments_give_back(&segments, &b);
    segments_clear_gaps(&segments);
    assert_int_equal(segments_gap_bytes(&segments), 0);
    segments_done(&segments);
}

static void test_steal(void **state)
{
    struct segments segments;
    struct segment quick, slow, thief;

    (void)state;
    segments_init(&segments);
    segments_add(&segments, 0, SIZE);
    assert_true(segments_take(&segments, 5 * MIB, &quick));
    assert_true(segments_take(&segments, 5 * MIB, &slow));
    quick.bytes_per_second = 10 * MIB; /* ends within a second */
    slow.bytes_per_second = MIB;
    assert_true(segments_can_steal(&segments));
    assert_true(segments_steal(&segments, 4 * MIB, &thief));
    assert_int_equal(slow.position, 5 * MIB);
    assert_int_equal(slow.end, thief.position);
    assert_int_equal(thief.end, SIZE);
    assert_int_equal(thief.position % SEGMENT_ALIGN, 0);
    assert_in_range(slow.end, 6 * MIB, 6 * MIB + 2 * SEGMENT_ALIGN); /* a fifth stays */
    assert_int_equal(quick.end, 5 * MIB);

    thief.bytes_per_second = 4 * MIB;
    quick.position = quick.end;
    assert_true(segments_can_steal(&segments)); /* a second is left of each */
    thief.position += MIB;
    slow.position += 256 * KIB;
    assert_false(segments_can_steal(&segments));
    assert_false(segments_steal(&segments, MIB, &quick));
    segments_give_back(&segments, &quick);
    segments_give_back(&segments, &slow);
    segments_give_back(&segments, &thief);
    segments_done(&segments);
}

static void test_steal_from_one_that_stands_still(void **state)
{
    struct segments segments;
    struct segment victim, thief;

    (void)state;
    segments_init(&segments);
    segments_add(&segments, 0, SIZE);
    assert_true(segments_take(&segments, SIZE, &victim));
    victim.position = 100;
    victim.bytes_per_second = 0;
    assert_true(segments_steal(&segments, 0, &thief)); /* nobody knows: the half */
    assert_in_range(thief.position, 5 * MIB, 5 * MIB + SEGMENT_ALIGN);
    segments_give_back(&segments, &thief);
    assert_true(segments_take(&segments, SIZE, &thief));
    thief.position = thief.end;
    segments_give_back(&segments, &thief);
    assert_true(segments_steal(&segments, MIB, &thief)); /* all but a block */
    assert_in_range(victim.end, 1, 2 * SEGMENT_ALIGN);
    segments_give_back(&segments, &victim);
    segments_give_back(&segments, &thief);
    segments_done(&segments);
}

/* Connections of random speeds, luck and order: in the end every byte came exactly once. */
static void test_every_byte_once(void **state)
{
    static uint8_t times[SIZE];
    struct segments segments;
    struct segment live[6] = {0};

    (void)state;
    srandom(4);
    for (unsigned int round = 0; round < 20; round++) {
        uint64_t fetched = 0;
        memset(times, 0, sizeof(times));
        memset(live, 0, sizeof(live));
        segments_init(&segments);
        segments_add(&segments, 0, SIZE);
        for (unsigned int step = 0; fetched < SIZE; step++) {
            struct segment *segment = &live[(size_t)random() % ARRAY_SIZE(live)];
            uint64_t n;
            assert_true(step < 1000000);
            if (!segment->node.next || list_empty(&segment->node)) {
                segment->bytes_per_second = (uint64_t)random() % (100 * KIB);
                if (!segments_take(&segments, (uint64_t)random() % (3 * MIB) + 1, segment))
                    segments_steal(&segments, (uint64_t)random() % (100 * KIB), segment);
                continue;
            }
            n = (uint64_t)random() % (300 * KIB);
            n = MIN(n, segment->end - segment->position);
            for (uint64_t i = 0; i < n; i++)
                assert_int_equal(times[segment->position + i]++, 0);
            segment->position += n;
            fetched += n;
            if (segment->position == segment->end || random() % 10 == 0)
                segments_give_back(&segments, segment);
        }
        for (size_t i = 0; i < ARRAY_SIZE(live); i++)
            segments_give_back(&segments, &live[i]);
        assert_false(segments_have_gap(&segments));
        segments_done(&segments);
    }
}

static void test_sizes(void **state)
{
    (void)state;
    assert_int_equal(segment_size_for(0), 2 * MIB);
    assert_int_equal(segment_size_for(1000), MIB);
    assert_int_equal(segment_size_for(5 * MIB), 20 * MIB);
    assert_int_equal(segment_size_for(GIB), 64 * MIB);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_take_in_order),
        cmocka_unit_test(test_give_back_at_the_byte),
        cmocka_unit_test(test_steal),
        cmocka_unit_test(test_steal_from_one_that_stands_still),
        cmocka_unit_test(test_every_byte_once),
        cmocka_unit_test(test_sizes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
