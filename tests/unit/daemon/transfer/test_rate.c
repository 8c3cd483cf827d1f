/* Caps in real time: short runs, whose lower bounds are exact and whose upper bounds leave room
 * for a busy machine. */
#include "tests/unit/task_test.h"

#include <errno.h>

#include "daemon/transfer/rate.h"
#include "proto/async/await.h"

#define MEGABYTE 1000000

struct mover {
    struct rate_limit *own, *common;
    size_t left, moved;
    int result;
};

static bool move_task(void *arg, struct error *err UNUSED)
{
    struct mover *mover = arg;

    while (mover->left > 0 && mover->result == 0) {
        size_t n = rate_grant(mover->own, mover->common, MIN(mover->left, 64 * KIB));
        mover->left -= n;
        mover->moved += n;
        mover->result = await_rate(mover->own, mover->common, n);
    }
    return true;
}

/* Runs them side by side to their end: the milliseconds that took. */
static uint64_t await_move(struct mover *movers, size_t count, struct error *err)
{
    CLEANUP(group_done_await) struct group group;
    uint64_t started = now_ms();

    group_init(&group);
    for (size_t i = 0; i < count; i++)
        assert_ok(task_spawn(&group, "move", NULL, move_task, &movers[i], err), err);
    assert_ok(await_group(&group, err), err);
    return now_ms() - started;
}

TASK_TEST(test_no_cap)
{
    CLEANUP(rate_limit_cleanup) struct rate_limit *limit = rate_limit_new(0);
    struct mover mover = {.own = limit, .left = 100 * MEGABYTE};

    assert_true(await_move(&mover, 1, err) < 2000);
    assert_int_equal(await_rate(NULL, NULL, 1 << 30), 0);
    assert_int_equal(rate_grant(limit, NULL, 64 * KIB), 64 * KIB);
    return true;
}

TASK_TEST(test_accuracy)
{
    CLEANUP(rate_limit_cleanup) struct rate_limit *limit = rate_limit_new(MEGABYTE);
    struct mover mover = {.common = limit, .left = MEGABYTE};
    uint64_t took = await_move(&mover, 1, err);

    if (took < 998 || took > 1020 + 2000)
        fail_msg("1 MB at 1 MB/s took %llu ms", (unsigned long long)took);
    return true;
}

/* What was not used while nobody wanted it is gone. */
TASK_TEST(test_idle_saves_nothing)
{
    CLEANUP(rate_limit_cleanup) struct rate_limit *limit = rate_limit_new(MEGABYTE);
    struct mover movers[2] = {{.common = limit, .left = MEGABYTE / 4},
                              {.common = limit, .left = MEGABYTE / 4}};

    assert_int_equal(await_sleep(300), 0);
    assert_in_range(await_move(movers, 2, err), 498, 3000);
    return true;
}

TASK_TEST(test_smaller_of_both_caps)
{
    CLEANUP(rate_limit_cleanup) struct rate_limit *slow = rate_limit_new(MEGABYTE / 2);
    CLEANUP(rate_limit_cleanup) struct rate_limit *fast = rate_limit_new(10 * MEGABYTE);
    struct mover own = {.own = slow, .common = fast, .left = MEGABYTE / 8};
    struct mover common = {.own = fast, .common = slow, .left = MEGABYTE / 8};

    assert_in_range(await_move(&own, 1, err), 248, 2000);
    assert_in_range(await_move(&common, 1, err), 248, 2000);
    return true;
}

TASK_TEST(test_fair_shares)
{
    CLEANUP(rate_limit_cleanup) struct rate_limit *limit = rate_limit_new(MEGABYTE);
    struct mover movers[4];

    for (size_t i = 0; i < ARRAY_SIZE(movers); i++)
        movers[i] = (struct mover){.common = limit, .left = MEGABYTE / 10};
    movers[0].left = 10 * MEGABYTE; /* the greedy one */
    {
        CLEANUP(group_done_await) struct group greedy, others;
        group_init(&greedy);
        group_init(&others);
        assert_ok(task_spawn(&greedy, "greedy", NULL, move_task, &movers[0], err), err);
        for (size_t i = 1; i < ARRAY_SIZE(movers); i++)
            assert_ok(task_spawn(&others, "move", NULL, move_task, &movers[i], err), err);
        assert_ok(await_group(&others, err), err);
    }
    assert_in_range(movers[0].moved, MEGABYTE / 20, MEGABYTE / 6);
    assert_int_equal(movers[0].result, -ECANCELED);
    return true;
}

/* One that is held up by its own cap does not hold up others at the common one. */
TASK_TEST(test_own_cap_is_own)
{
    CLEANUP(rate_limit_cleanup) struct rate_limit *common = rate_limit_new(2 * MEGABYTE);
    CLEANUP(rate_limit_cleanup) struct rate_limit *own = rate_limit_new(10000);
    struct mover slow = {.own = own, .common = common, .left = MEGABYTE};
    struct mover quick = {.common = common, .left = MEGABYTE / 2};
    CLEANUP(group_done_await) struct group group;

    group_init(&group);
    assert_ok(task_spawn(&group, "slow", NULL, move_task, &slow, err), err);
    assert_in_range(await_move(&quick, 1, err), 240, 2000);
    assert_true(slow.moved < 60000);
    return true;
}

TASK_TEST(test_change_reaches_who_waits)
{
    CLEANUP(rate_limit_cleanup) struct rate_limit *limit = rate_limit_new(1000);
    struct mover mover = {.own = limit, .left = MEGABYTE};
    CLEANUP(group_done_await) struct group group;
    uint64_t started = now_ms();

    group_init(&group);
    assert_ok(task_spawn(&group, "move", NULL, move_task, &mover, err), err);
    while (mover.moved == 0)
        await_yield();
    rate_limit_set(limit, 4 * MEGABYTE);
    assert_int_equal(rate_limit_get(limit), 4 * MEGABYTE);
    assert_ok(await_group(&group, err), err);
    assert_in_range(now_ms() - started, 200, 5000);

    mover = (struct mover){.own = limit, .left = 100 * MEGABYTE};
    assert_ok(task_spawn(&group, "move", NULL, move_task, &mover, err), err);
    while (mover.moved == 0)
        await_yield();
    rate_limit_set(limit, 0);
    assert_ok(await_group(&group, err), err);
    assert_in_range(now_ms() - started, 200, 5000);
    return true;
}

/* What was taken at a high cap is not a debt for hours at a low one. */
TASK_TEST(test_lower_cap_forgives)
{
    CLEANUP(rate_limit_cleanup) struct rate_limit *limit = rate_limit_new(1000 * MEGABYTE);
    uint64_t started;

    assert_int_equal(await_rate(limit, NULL, 100 * MEGABYTE), 0);
    rate_limit_set(limit, 1000);
    started = now_ms();
    assert_int_equal(await_rate(limit, NULL, 1), 0);
    assert_in_range(now_ms() - started, 0, 5000);
    return true;
}

TASK_TEST(test_cancel_while_waiting)
{
    CLEANUP(rate_limit_cleanup) struct rate_limit *limit = rate_limit_new(1000);
    struct mover first = {.own = limit, .left = MEGABYTE}, second = first;

    {
        CLEANUP(group_done_await) struct group group;
        group_init(&group);
        assert_ok(task_spawn(&group, "first", NULL, move_task, &first, err), err);
        assert_ok(task_spawn(&group, "second", NULL, move_task, &second, err), err);
        while (second.moved == 0)
            await_yield();
    }
    assert_int_equal(first.result, -ECANCELED);
    assert_int_equal(second.result, -ECANCELED);
    return true;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_cap),
        cmocka_unit_test(test_accuracy),
        cmocka_unit_test(test_idle_saves_nothing),
        cmocka_unit_test(test_smaller_of_both_caps),
        cmocka_unit_test(test_fair_shares),
        cmocka_unit_test(test_own_cap_is_own),
        cmocka_unit_test(test_change_reaches_who_waits),
        cmocka_unit_test(test_lower_cap_forgives),
        cmocka_unit_test(test_cancel_while_waiting),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
