/* Tasks, groups, cancel, shields, deadlines, wait queues, events. */
#include "tests/unit/task_test.h"

#include <errno.h>

#include "proto/async/await.h"

/* Spins until the loop's clock has moved: the code under test looks at that clock. */
static void let_time_pass(uint64_t ms)
{
    uint64_t until = now_ms() + ms;

    while (now_ms() < until)
        ;
}

/* --- Bodies that the tests spawn ----------------------------------------------------------------
 */

struct sleeper {
    uint64_t ms;
    int result;
    bool started, ended;
};

static bool sleep_body(void *arg, struct error *err)
{
    struct sleeper *sleeper = arg;

    sleeper->started = true;
    sleeper->result = await_sleep(sleeper->ms);
    sleeper->ended = true;
    return sleeper->result < 0 ? await_error(err, sleeper->result, "sleeping") : true;
}

static bool fail_body(void *arg, struct error *err)
{
    return error_set(err, ERROR_DATA_LOSS, "PLANTED", "%s", (const char *)arg);
}

static bool fail_silently_body(void *arg UNUSED, struct error *err UNUSED)
{
    return false;
}

static bool succeed_body(void *arg UNUSED, struct error *err UNUSED)
{
    return true;
}

#define FOREVER          \
    {                    \
        .ms = UINT64_MAX \
    }

/* --- Spawning -----------------------------------------------------------------------------------
 */

static bool note_body(void *arg, struct error *err UNUSED)
{
    *(bool *)arg = true;
    return true;
}

TASK_TEST(test_spawn_runs_later_never_inside)
{
    CLEANUP(group_done_await) struct group group;
    bool ran = false;

    group_init(&group);
    assert_true(task_spawn(&group, "note", NULL, note_body, &ran, err));
    assert_false(ran);
    assert_int_equal(task_count(), 2);
    assert_true(await_group(&group, err));
    assert_true(ran);
    assert_int_equal(task_count(), 1);
    return true;
}

struct order {
    char text[32];
};

static bool order_body(void *arg, struct error *err UNUSED)
{
    struct order *order = arg;
    size_t length = strlen(order->text);

    order->text[length] = (char)('a' + length);
    assert_int_equal(await_yield(), 0);
    order->text[strlen(order->text)] = '.';
    return true;
}

TASK_TEST(test_tasks_run_in_order_and_yield_to_each_other)
{
    CLEANUP(group_done_await) struct group group;
    struct order order = {0};

    group_init(&group);
    for (int i = 0; i < 4; i++)
        assert_true(task_spawn(&group, "order", NULL, order_body, &order, err));
    assert_true(await_group(&group, err));
    assert_string_equal(order.text, "abcd....");
    return true;
}

static bool name_body(void *arg, struct error *err UNUSED)
{
    assert_string_equal(task_name(task_current()), arg);
    return true;
}

TASK_TEST(test_names)
{
    CLEANUP(group_done_await) struct group group;
    char long_name[200];
    char cut[64];

    memset(long_name, 'x', sizeof(long_name));
    long_name[sizeof(long_name) - 1] = '\0';
    memcpy(cut, long_name, sizeof(cut));
    cut[sizeof(cut) - 1] = '\0';
    assert_string_equal(task_name(task_current()), "main");
    group_init(&group);
    assert_true(task_spawn(&group, "pull", "busybox:%s", name_body, "pull busybox:%s", err));
    assert_true(task_spawn(&group, "pull", NULL, name_body, "pull", err));
    assert_true(task_spawn(&group, long_name, NULL, name_body, cut, err));
    return await_group(&group, err);
}

TASK_TEST(test_cap)
{
    CLEANUP(group_done_await) struct group group;
    struct sleeper sleepers[3] = {FOREVER, FOREVER, FOREVER};
    bool ran = false;

    group_init(&group);
    task_set_max(3); /* with this one */
    assert_true(task_spawn(&group, "a", NULL, sleep_body, &sleepers[0], err));
    assert_true(task_spawn(&group, "b", NULL, sleep_body, &sleepers[1], err));
    assert_false(task_spawn(&group, "c", NULL, note_body, &ran, err));
    assert_true(error_is(err, "TOO_MANY_TASKS"));
    assert_non_null(err->hint);
    assert_error(err, ERROR_RESOURCE_EXHAUSTED, "cannot start task \"c\": 3 tasks are running");
    assert_int_equal(group.running, 2);
    group_done_await(&group);
    assert_false(ran);
    assert_true(task_spawn(&group, "c", NULL, note_body, &ran, err)); /* there is room again */
    assert_true(await_group(&group, err));
    assert_true(ran);
    task_set_max(TASK_MAX_DEFAULT);
    return true;
}

/* --- Groups -------------------------------------------------------------------------------------
 */

TASK_TEST(test_failure_cancels_siblings)
{
    CLEANUP(group_done_await) struct group group;
    struct sleeper before = FOREVER, after = FOREVER;

    group_init(&group);
    assert_true(task_spawn(&group, "before", NULL, sleep_body, &before, err));
    assert_true(task_spawn(&group, "fail", NULL, fail_body, "the disk is gone", err));
    assert_true(task_spawn(&group, "after", NULL, sleep_body, &after, err));
    assert_false(await_group(&group, err));
    assert_true(error_is(err, "PLANTED"));
    assert_error(err, ERROR_DATA_LOSS, "the disk is gone");
    assert_int_equal(before.result, -ECANCELED);
    assert_int_equal(after.result, -ECANCELED);
    return true;
}

static bool echo_body(void *arg UNUSED, struct error *err)
{
    int r = await_sleep(UINT64_MAX);

    /* Ends earlier than the failure, but is only its echo. */
    return await_error(err, r, "echo");
}

static bool fail_when_cancelled_body(void *arg, struct error *err)
{
    await_sleep(UINT64_MAX);
    return error_set(err, ERROR_DATA_LOSS, NULL, "%s", (const char *)arg);
}

TASK_TEST(test_first_real_error_wins_over_cancellations)
{
    CLEANUP(group_done_await) struct group group;

    group_init(&group);
    assert_true(task_spawn(&group, "echo", NULL, echo_body, NULL, err));
    assert_true(task_spawn(&group, "one", NULL, fail_when_cancelled_body, "one", err));
    assert_true(task_spawn(&group, "two", NULL, fail_when_cancelled_body, "two", err));
    assert_true(task_spawn(&group, "echo", NULL, echo_body, NULL, err));
    assert_int_equal(await_yield(), 0);
    group_cancel(&group);
    assert_false(await_group(&group, err));
    assert_error(err, ERROR_DATA_LOSS, "one");
    return true;
}

TASK_TEST(test_only_cancellations_are_a_cancellation)
{
    CLEANUP(group_done_await) struct group group;

    group_init(&group);
    assert_true(task_spawn(&group, "echo", NULL, echo_body, NULL, err));
    group_cancel(&group);
    assert_false(await_group(&group, err));
    assert_error(err, ERROR_CANCELLED, "echo");
    return true;
}

TASK_TEST(test_silent_failure_still_fails)
{
    CLEANUP(group_done_await) struct group group;

    group_init(&group);
    assert_true(task_spawn(&group, "silent", NULL, fail_silently_body, NULL, err));
    assert_false(await_group(&group, err));
    assert_error(err, ERROR_UNKNOWN, "without saying why");
    return true;
}

TASK_TEST(test_spawning_into_a_cancelled_group)
{
    CLEANUP(group_done_await) struct group group;
    struct sleeper sleeper = FOREVER;

    group_init(&group);
    group_cancel(&group);
    assert_true(task_spawn(&group, "late", NULL, sleep_body, &sleeper, err));
    assert_false(await_group(&group, err));
    assert_true(sleeper.started); /* it ran, to its first await */
    assert_int_equal(sleeper.result, -ECANCELED);
    assert_error(err, ERROR_CANCELLED, "sleeping");
    return true;
}

TASK_TEST(test_group_is_as_new_after_the_wait)
{
    CLEANUP(group_done_await) struct group group;
    struct sleeper sleeper = {.ms = 1};

    group_init(&group);
    for (int round = 0; round < 3; round++) {
        assert_true(task_spawn(&group, "fail", NULL, fail_body, "x", err));
        assert_false(await_group(&group, err));
        assert_error(err, ERROR_DATA_LOSS, "x");
        assert_true(task_spawn(&group, "sleep", NULL, sleep_body, &sleeper, err));
        assert_true(await_group(&group, err)); /* neither cancelled nor failed any more */
        assert_int_equal(sleeper.result, 0);
    }
    return await_group(&group, err); /* an empty one does not wait */
}

struct spawner {
    struct group *group;
    int depth;
    int *ended;
};

static bool spawn_body(void *arg, struct error *err)
{
    struct spawner *spawner = arg;
    struct spawner *next = spawner + 1;

    if (spawner->depth > 0) {
        *next = (struct spawner){spawner->group, spawner->depth - 1, spawner->ended};
        if (!task_spawn(spawner->group, "child", NULL, spawn_body, next, err))
            return false;
    }
    ++*spawner->ended;
    return true;
}

TASK_TEST(test_members_may_spawn_members)
{
    CLEANUP(group_done_await) struct group group;
    struct spawner spawners[6] = {{0}};
    int ended = 0;

    group_init(&group);
    spawners[0] = (struct spawner){&group, 5, &ended};
    assert_true(task_spawn(&group, "first", NULL, spawn_body, &spawners[0], err));
    assert_true(await_group(&group, err));
    assert_int_equal(ended, 6);
    return true;
}

struct cancelled_waiter {
    struct sleeper child;
    bool shielded_child_ended;
    enum error_code code;
};

static bool stubborn_body(void *arg, struct error *err)
{
    struct cancelled_waiter *waiter = arg;
    CLEANUP(task_unshield) struct task_shield shield = task_shield();
    int r = await_sleep(5);

    waiter->shielded_child_ended = r == 0;
    return r == 0 ? true : await_error(err, r, "stubborn");
}

static bool wait_body(void *arg, struct error *err)
{
    struct cancelled_waiter *waiter = arg;
    CLEANUP(group_done_await) struct group group;
    bool ok;

    group_init(&group);
    assert_true(task_spawn(&group, "child", NULL, sleep_body, &waiter->child, err));
    assert_true(task_spawn(&group, "stubborn", NULL, stubborn_body, waiter, err));
    ok = await_group(&group, err);
    waiter->code = err->code;
    return ok;
}

TASK_TEST(test_cancel_of_the_waiter_waits_until_all_have_unwound)
{
    CLEANUP(group_done_await) struct group group;
    struct cancelled_waiter waiter = {.child = FOREVER};

    group_init(&group);
    assert_true(task_spawn(&group, "waiter", NULL, wait_body, &waiter, err));
    assert_int_equal(await_yield(), 0);
    assert_int_equal(await_yield(), 0);
    assert_int_equal(task_count(), 4);
    group_cancel(&group);
    assert_false(await_group(&group, err));
    assert_int_equal(waiter.child.result, -ECANCELED);
    assert_true(waiter.shielded_child_ended);
    assert_int_equal(waiter.code, ERROR_CANCELLED);
    assert_error(err, ERROR_CANCELLED, "waiting for tasks");
    return true;
}

TASK_TEST(test_group_done_cancels_and_waits)
{
    struct sleeper sleeper = FOREVER;

    {
        CLEANUP(group_done_await) struct group group;
        group_init(&group);
        assert_true(task_spawn(&group, "sleep", NULL, sleep_body, &sleeper, err));
        assert_int_equal(await_yield(), 0);
        assert_true(sleeper.started);
    }
    assert_int_equal(sleeper.result, -ECANCELED);
    assert_int_equal(task_count(), 1);
    return true;
}

static bool done_while_cancelled_body(void *arg, struct error *err)
{
    struct sleeper *sleeper = arg;
    CLEANUP(group_done_await) struct group group;

    group_init(&group);
    assert_true(task_spawn(&group, "sleep", NULL, sleep_body, sleeper, err));
    return await_error(err, await_sleep(UINT64_MAX), "outer");
}

TASK_TEST(test_group_done_of_a_cancelled_task_still_waits)
{
    CLEANUP(group_done_await) struct group group;
    struct sleeper sleeper = FOREVER;

    group_init(&group);
    assert_true(task_spawn(&group, "outer", NULL, done_while_cancelled_body, &sleeper, err));
    assert_int_equal(await_yield(), 0);
    group_done_await(&group);
    assert_int_equal(sleeper.result, -ECANCELED);
    assert_int_equal(task_count(), 1);
    return true;
}

/* --- Cancel -------------------------------------------------------------------------------------
 */

static bool sticky_body(void *arg, struct error *err)
{
    int *count = arg;

    assert_int_equal(await_sleep(UINT64_MAX), -ECANCELED);
    /* From now on every await fails at once, without suspending. */
    for (int i = 0; i < 3; i++) {
        assert_int_equal(task_check(), -ECANCELED);
        assert_int_equal(await_sleep(UINT64_MAX), -ECANCELED);
        assert_int_equal(await_yield(), -ECANCELED);
        assert_int_equal(await_slice(), -ECANCELED);
        ++*count;
    }
    return await_error(err, -ECANCELED, "x");
}

TASK_TEST(test_cancel_is_sticky)
{
    CLEANUP(group_done_await) struct group group;
    int count = 0;

    group_init(&group);
    assert_true(task_spawn(&group, "sticky", NULL, sticky_body, &count, err));
    assert_int_equal(await_yield(), 0);
    group_cancel(&group);
    group_cancel(&group); /* twice is the same as once */
    assert_int_equal(count, 0);
    assert_int_equal(await_yield(), 0);
    assert_int_equal(count, 3);
    assert_int_equal(group.running, 0);
    return true;
}

static bool cancel_self_body(void *arg UNUSED, struct error *err)
{
    assert_int_equal(task_check(), 0);
    task_cancel(task_current());
    assert_int_equal(task_check(), -ECANCELED);
    return await_error(err, await_sleep(UINT64_MAX), "self");
}

TASK_TEST(test_a_task_may_cancel_itself)
{
    CLEANUP(group_done_await) struct group group;
    struct sleeper sibling = FOREVER;

    group_init(&group);
    assert_true(task_spawn(&group, "sibling", NULL, sleep_body, &sibling, err));
    assert_true(task_spawn(&group, "self", NULL, cancel_self_body, NULL, err));
    assert_false(await_group(&group, err));
    assert_int_equal(sibling.result, -ECANCELED);
    assert_error(err, ERROR_CANCELLED, "self");
    return true;
}

static bool cancel_after_end_body(void *arg, struct error *err UNUSED)
{
    group_cancel(arg);
    return true;
}

TASK_TEST(test_cancel_by_a_member_of_the_group)
{
    CLEANUP(group_done_await) struct group group;
    struct sleeper sleeper = FOREVER;

    group_init(&group);
    assert_true(task_spawn(&group, "sleep", NULL, sleep_body, &sleeper, err));
    assert_true(task_spawn(&group, "cancel", NULL, cancel_after_end_body, &group, err));
    assert_false(await_group(&group, err));
    assert_error(err, ERROR_CANCELLED, "sleeping");
    return true;
}

/* --- Shields ------------------------------------------------------------------------------------
 */

static bool shield_body(void *arg, struct error *err)
{
    int *step = arg;
    int r;

    assert_int_equal(await_sleep(UINT64_MAX), -ECANCELED);
    {
        CLEANUP(task_unshield) struct task_shield outer = task_shield();
        assert_int_equal(task_check(), 0);
        {
            CLEANUP(task_unshield) struct task_shield inner = task_shield();
            assert_int_equal(await_sleep(1), 0);
        }
        assert_int_equal(await_yield(), 0);
        *step = 1;
    }
    r = await_yield();
    assert_int_equal(r, -ECANCELED);
    *step = 2;
    return await_error(err, r, "shield");
}

TASK_TEST(test_shield_keeps_cancel_away_until_it_ends)
{
    CLEANUP(group_done_await) struct group group;
    int step = 0;

    group_init(&group);
    assert_true(task_spawn(&group, "shield", NULL, shield_body, &step, err));
    assert_int_equal(await_yield(), 0);
    group_cancel(&group);
    assert_false(await_group(&group, err));
    assert_int_equal(step, 2);
    assert_error(err, ERROR_CANCELLED, "shield");
    return true;
}

static bool shield_when_cancelled_body(void *arg, struct error *err UNUSED)
{
    CLEANUP(task_unshield) struct task_shield shield = task_shield();

    *(int *)arg = await_sleep(10); /* cancelled while it sleeps: it does not notice */
    return true;
}

TASK_TEST(test_cancel_while_shielded)
{
    CLEANUP(group_done_await) struct group group;
    uint64_t started = loop_now_ms();
    int result = 1;

    group_init(&group);
    assert_true(task_spawn(&group, "shield", NULL, shield_when_cancelled_body, &result, err));
    assert_int_equal(await_yield(), 0);
    group_cancel(&group);
    assert_true(await_group(&group, err));
    assert_int_equal(result, 0);
    assert_true(loop_now_ms() - started >= 10);
    return true;
}

/* --- Deadlines ----------------------------------------------------------------------------------
 */

TASK_TEST(test_deadline_is_sticky_until_popped)
{
    {
        CLEANUP(deadline_pop) struct deadline deadline;
        deadline_push(&deadline, 2);
        assert_int_equal(task_check(), 0);
        assert_int_equal(await_sleep(UINT64_MAX), -ETIMEDOUT);
        assert_int_equal(await_sleep(UINT64_MAX), -ETIMEDOUT);
        assert_int_equal(await_yield(), -ETIMEDOUT);
        assert_int_equal(task_check(), -ETIMEDOUT);
    }
    assert_int_equal(task_check(), 0);
    assert_int_equal(await_sleep(1), 0);
    return true;
}

TASK_TEST(test_deadline_of_nothing)
{
    CLEANUP(deadline_pop) struct deadline deadline;

    deadline_push(&deadline, 0);
    assert_int_equal(await_yield(), -ETIMEDOUT);
    return true;
}

TASK_TEST(test_deadline_never)
{
    CLEANUP(deadline_pop) struct deadline deadline;

    deadline_push(&deadline, UINT64_MAX);
    assert_int_equal(await_sleep(1), 0);
    return true;
}

TASK_TEST(test_inner_deadline_passes_first_and_alone)
{
    CLEANUP(deadline_pop) struct deadline outer;

    deadline_push(&outer, 100000);
    {
        CLEANUP(deadline_pop) struct deadline inner;
        deadline_push(&inner, 1);
        assert_int_equal(await_sleep(UINT64_MAX), -ETIMEDOUT);
    }
    assert_int_equal(await_sleep(1), 0);
    return true;
}

TASK_TEST(test_inner_deadline_cannot_outlast_the_outer)
{
    CLEANUP(deadline_pop) struct deadline outer;

    deadline_push(&outer, 2);
    {
        CLEANUP(deadline_pop) struct deadline inner;
        deadline_push(&inner, 100000);
        assert_int_equal(await_sleep(UINT64_MAX), -ETIMEDOUT);
    }
    assert_int_equal(task_check(), -ETIMEDOUT); /* it was the outer one that passed */
    return true;
}

TASK_TEST(test_shield_hides_the_deadline_around_it)
{
    CLEANUP(deadline_pop) struct deadline outer;

    deadline_push(&outer, 1);
    assert_int_equal(await_sleep(UINT64_MAX), -ETIMEDOUT);
    {
        CLEANUP(task_unshield) struct task_shield shield = task_shield();
        assert_int_equal(await_sleep(2), 0);
        {
            /* The clean-up's own bound is not shortened by the outer one. */
            CLEANUP(deadline_pop) struct deadline inner;
            deadline_push(&inner, 100000);
            assert_int_equal(await_sleep(1), 0);
        }
        {
            /* And it is not hidden, but by a shield of its own. */
            CLEANUP(deadline_pop) struct deadline inner;
            deadline_push(&inner, 1);
            assert_int_equal(await_sleep(UINT64_MAX), -ETIMEDOUT);
            {
                CLEANUP(task_unshield) struct task_shield second = task_shield();
                assert_int_equal(task_check(), 0);
            }
            assert_int_equal(task_check(), -ETIMEDOUT);
        }
        assert_int_equal(await_yield(), 0);
    }
    assert_int_equal(await_yield(), -ETIMEDOUT);
    return true;
}

TASK_TEST(test_deadline_counts_from_now)
{
    CLEANUP(deadline_pop) struct deadline deadline;
    uint64_t now;

    let_time_pass(20); /* the loop's clock is that much late */
    now = now_ms();
    deadline_push(&deadline, 10);
    assert_true(deadline.expires_ms >= now + 9); /* clocks of one millisecond */
    return true;
}

static bool cancelled_with_deadline_body(void *arg UNUSED, struct error *err)
{
    CLEANUP(deadline_pop) struct deadline deadline;
    int r;

    deadline_push(&deadline, 1);
    r = await_sleep(UINT64_MAX);
    assert_int_equal(r, -ETIMEDOUT);
    task_cancel(task_current());
    assert_int_equal(task_check(), -ECANCELED); /* cancel is the stronger one */
    return await_error(err, r, "x");
}

TASK_TEST(test_cancel_is_stronger_than_a_deadline)
{
    CLEANUP(group_done_await) struct group group;

    group_init(&group);
    assert_true(task_spawn(&group, "x", NULL, cancelled_with_deadline_body, NULL, err));
    assert_false(await_group(&group, err));
    assert_error(err, ERROR_DEADLINE_EXCEEDED, "x: timed out");
    return true;
}

TASK_TEST(test_deadline_passes_to_the_group_that_is_waited_for)
{
    CLEANUP(group_done_await) struct group group;
    struct sleeper sleeper = FOREVER;
    CLEANUP(deadline_pop) struct deadline deadline;

    group_init(&group);
    assert_true(task_spawn(&group, "sleep", NULL, sleep_body, &sleeper, err));
    deadline_push(&deadline, 2);
    assert_false(await_group(&group, err));
    assert_int_equal(sleeper.result, -ECANCELED);
    assert_error(err, ERROR_DEADLINE_EXCEEDED, "waiting for tasks");
    return true;
}

/* --- Wait queues --------------------------------------------------------------------------------
 */

struct shared {
    struct wait_queue queue;
    int tokens;
    int waiting, taken;
};

static bool take_token_body(void *arg, struct error *err)
{
    struct shared *shared = arg;
    int r = 0;

    shared->waiting++;
    while (r == 0 && !shared->tokens)
        r = await_wake(&shared->queue, "waiting for a token");
    shared->waiting--;
    if (r < 0)
        return await_error(err, r, "taking a token");
    shared->tokens--;
    shared->taken++;
    return true;
}

TASK_TEST(test_wake_one_and_all)
{
    CLEANUP(group_done_await) struct group group;
    struct shared shared = {0};

    wait_queue_init(&shared.queue);
    wake_one(&shared.queue); /* nobody there */
    wake_all(&shared.queue);
    group_init(&group);
    for (int i = 0; i < 5; i++)
        assert_true(task_spawn(&group, "taker", NULL, take_token_body, &shared, err));
    assert_int_equal(await_yield(), 0);
    assert_int_equal(shared.waiting, 5);
    shared.tokens = 1;
    wake_one(&shared.queue);
    assert_int_equal(shared.taken, 0); /* never switches */
    assert_int_equal(await_yield(), 0);
    assert_int_equal(shared.taken, 1);
    shared.tokens = 2;
    wake_all(&shared.queue);
    assert_int_equal(await_yield(), 0);
    assert_int_equal(shared.taken, 3);
    assert_int_equal(shared.waiting, 2); /* woken for nothing: wait again */
    shared.tokens = 2;
    wake_one(&shared.queue);
    wake_one(&shared.queue); /* two wake two */
    assert_true(await_group(&group, err));
    assert_int_equal(shared.taken, 5);
    return true;
}

static bool cancelled_waiter_body(void *arg, struct error *err)
{
    struct shared *shared = arg;
    int r = await_wake(&shared->queue, "waiting for a token");

    assert_int_equal(r, 0); /* it was woken before it was cancelled */
    shared->taken++;
    return await_error(err, task_check(), "x");
}

TASK_TEST(test_a_wake_up_is_not_lost_to_a_cancelled_waiter)
{
    CLEANUP(group_done_await) struct group doomed;
    CLEANUP(group_done_await) struct group group;
    struct shared shared = {0};

    wait_queue_init(&shared.queue);
    group_init(&doomed);
    group_init(&group);
    assert_true(task_spawn(&doomed, "first", NULL, take_token_body, &shared, err));
    assert_true(task_spawn(&group, "second", NULL, take_token_body, &shared, err));
    assert_int_equal(await_yield(), 0);
    /* Cancelled first: it has left the queue's order of things, the token goes to the second. */
    group_cancel(&doomed);
    assert_int_equal(await_yield(), 0);
    shared.tokens = 1;
    wake_one(&shared.queue);
    assert_true(await_group(&group, err));
    assert_int_equal(shared.taken, 1);
    assert_false(await_group(&doomed, err));
    error_done(err);
    /* Woken first, cancelled before it runs: it has been given the token and takes it. */
    assert_true(task_spawn(&doomed, "third", NULL, cancelled_waiter_body, &shared, err));
    assert_int_equal(await_yield(), 0);
    wake_one(&shared.queue);
    group_cancel(&doomed);
    assert_false(await_group(&doomed, err));
    error_done(err);
    assert_int_equal(shared.taken, 2);
    return true;
}

/* --- Events -------------------------------------------------------------------------------------
 */

struct waiting {
    struct event event;
    int result;
    bool always, ended;
};

static bool event_body(void *arg, struct error *err UNUSED)
{
    struct waiting *waiting = arg;

    waiting->result = waiting->always ? await_event_always(&waiting->event, "always")
                                      : await_event(&waiting->event, "an event");
    waiting->ended = true;
    return true;
}

static void fire(void *arg)
{
    event_fire(arg);
}

TASK_TEST(test_event_before_during_and_after)
{
    CLEANUP(group_done_await) struct group group;
    struct waiting waiting = {0};

    group_init(&group);
    event_fire(&waiting.event); /* before the wait: it does not wait */
    assert_int_equal(await_event(&waiting.event, "x"), 0);
    loop_defer(fire, &waiting.event); /* during */
    assert_int_equal(await_event(&waiting.event, "x"), 0);
    assert_true(task_spawn(&group, "event", NULL, event_body, &waiting, err));
    assert_int_equal(await_yield(), 0);
    assert_false(waiting.ended);
    group_cancel(&group);
    assert_true(await_group(&group, err));
    assert_int_equal(waiting.result, -ECANCELED);
    event_fire(&waiting.event); /* after the wait: harmless */
    return true;
}

TASK_TEST(test_event_and_cancel_at_once)
{
    CLEANUP(group_done_await) struct group group;
    struct waiting a = {0}, b = {0};

    group_init(&group);
    assert_true(task_spawn(&group, "a", NULL, event_body, &a, err));
    assert_true(task_spawn(&group, "b", NULL, event_body, &b, err));
    assert_int_equal(await_yield(), 0);
    event_fire(&a.event);
    group_cancel(&group);
    event_fire(&b.event);
    assert_true(await_group(&group, err));
    assert_int_equal(a.result, -ECANCELED);
    assert_int_equal(b.result, -ECANCELED);
    return true;
}

TASK_TEST(test_event_always_is_not_ended_by_cancel_or_deadline)
{
    CLEANUP(group_done_await) struct group group;
    struct waiting waiting = {.always = true};

    group_init(&group);
    assert_true(task_spawn(&group, "always", NULL, event_body, &waiting, err));
    assert_int_equal(await_yield(), 0);
    group_cancel(&group);
    for (int i = 0; i < 5; i++)
        assert_int_equal(await_yield(), 0);
    assert_false(waiting.ended);
    event_fire(&waiting.event);
    assert_true(await_group(&group, err));
    assert_int_equal(waiting.result, -ECANCELED); /* says what the next await would */
    {
        CLEANUP(deadline_pop) struct deadline deadline;
        struct event event = {0};
        deadline_push(&deadline, 0);
        loop_defer(fire, &event);
        assert_int_equal(await_event_always(&event, "x"), -ETIMEDOUT);
        assert_false(event.fired);
    }
    return true;
}

TASK_TEST(test_group_idle)
{
    CLEANUP(group_done_await) struct group group;
    struct waiting waiting = {0}, second = {0};

    group_init(&group);
    assert_int_equal(await_group_idle(&group, 0), 0);
    assert_true(task_spawn(&group, "event", NULL, event_body, &waiting, err));
    assert_int_equal(await_group_idle(&group, 1), -ETIMEDOUT);
    assert_false(waiting.ended); /* not cancelled by the time-out */
    loop_defer(fire, &waiting.event);
    assert_int_equal(await_group_idle(&group, UINT64_MAX), 0);
    assert_true(waiting.ended);
    assert_int_equal(waiting.result, 0);
    assert_true(task_spawn(&group, "event", NULL, event_body, &second, err));
    {
        CLEANUP(task_unshield) struct task_shield shield = task_shield();
        assert_int_equal(await_group_idle(&group, 1), -ETIMEDOUT); /* also inside a shield */
    }
    return true;
}

/* --- Slices -------------------------------------------------------------------------------------
 */

static bool count_body(void *arg, struct error *err)
{
    int r;

    do
        ++*(int *)arg;
    while ((r = await_yield()) == 0);
    return await_error(err, r, "counting");
}

TASK_TEST(test_slice_yields_only_after_a_while)
{
    CLEANUP(group_done_await) struct group group;
    bool stayed = false;
    int count = 0, before;

    group_init(&group);
    assert_true(task_spawn(&group, "count", NULL, count_body, &count, err));
    /* A machine that takes a while between two lines makes it yield: try again. */
    for (int i = 0; i < 100 && !stayed; i++) {
        assert_int_equal(await_yield(), 0);
        before = count;
        assert_int_equal(await_slice(), 0);
        stayed = count == before;
    }
    assert_true(stayed);
    before = count;
    let_time_pass(TASK_SLICE_US / 1000 + 1);
    assert_int_equal(await_slice(), 0);
    assert_true(count > before);
    return true;
}

struct crowd {
    struct loop_timer timer;
    bool fired;
    int burned;
};

static bool burn_body(void *arg, struct error *err UNUSED)
{
    struct crowd *crowd = arg;

    if (!crowd->fired) {
        let_time_pass(2);
        crowd->burned++;
    }
    return true;
}

static void crowd_fire(struct loop_timer *timer)
{
    CONTAINER_OF(timer, struct crowd, timer)->fired = true;
}

/* 500 tasks of 2 ms, all ready at once, stop burning when a timer of 1 ms has fired: it does not
 * wait for the last of them. */
TASK_TEST(test_events_come_between_many_ready_tasks)
{
    CLEANUP(group_done_await) struct group group;
    struct crowd crowd = {0};

    group_init(&group);
    for (int i = 0; i < 500; i++)
        assert_true(task_spawn(&group, "burn", NULL, burn_body, &crowd, err));
    loop_timer_start(&crowd.timer, 1, crowd_fire);
    assert_true(await_group(&group, err));
    assert_true(crowd.burned <= 250);
    return true;
}

/* --- Many ---------------------------------------------------------------------------------------
 */

TASK_TEST(test_results_of_many)
{
    CLEANUP(group_done_await) struct group group;
    struct sleeper sleepers[300];

    group_init(&group);
    for (size_t i = 0; i < ARRAY_SIZE(sleepers); i++) {
        sleepers[i] = (struct sleeper){.ms = i % 7};
        assert_true(task_spawn(&group, "sleep", NULL, sleep_body, &sleepers[i], err));
    }
    assert_true(task_spawn(&group, "ok", NULL, succeed_body, NULL, err));
    assert_true(await_group(&group, err));
    for (size_t i = 0; i < ARRAY_SIZE(sleepers); i++)
        assert_true(sleepers[i].ended && sleepers[i].result == 0);
    return true;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spawn_runs_later_never_inside),
        cmocka_unit_test(test_tasks_run_in_order_and_yield_to_each_other),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_cap),
        cmocka_unit_test(test_failure_cancels_siblings),
        cmocka_unit_test(test_first_real_error_wins_over_cancellations),
        cmocka_unit_test(test_only_cancellations_are_a_cancellation),
        cmocka_unit_test(test_silent_failure_still_fails),
        cmocka_unit_test(test_spawning_into_a_cancelled_group),
        cmocka_unit_test(test_group_is_as_new_after_the_wait),
        cmocka_unit_test(test_members_may_spawn_members),
        cmocka_unit_test(test_cancel_of_the_waiter_waits_until_all_have_unwound),
        cmocka_unit_test(test_group_done_cancels_and_waits),
        cmocka_unit_test(test_group_done_of_a_cancelled_task_still_waits),
        cmocka_unit_test(test_group_idle),
        cmocka_unit_test(test_cancel_is_sticky),
        cmocka_unit_test(test_a_task_may_cancel_itself),
        cmocka_unit_test(test_cancel_by_a_member_of_the_group),
        cmocka_unit_test(test_shield_keeps_cancel_away_until_it_ends),
        cmocka_unit_test(test_cancel_while_shielded),
        cmocka_unit_test(test_deadline_is_sticky_until_popped),
        cmocka_unit_test(test_deadline_of_nothing),
        cmocka_unit_test(test_deadline_never),
        cmocka_unit_test(test_inner_deadline_passes_first_and_alone),
        cmocka_unit_test(test_inner_deadline_cannot_outlast_the_outer),
        cmocka_unit_test(test_shield_hides_the_deadline_around_it),
        cmocka_unit_test(test_deadline_counts_from_now),
        cmocka_unit_test(test_cancel_is_stronger_than_a_deadline),
        cmocka_unit_test(test_deadline_passes_to_the_group_that_is_waited_for),
        cmocka_unit_test(test_wake_one_and_all),
        cmocka_unit_test(test_a_wake_up_is_not_lost_to_a_cancelled_waiter),
        cmocka_unit_test(test_event_before_during_and_after),
        cmocka_unit_test(test_event_and_cancel_at_once),
        cmocka_unit_test(test_event_always_is_not_ended_by_cancel_or_deadline),
        cmocka_unit_test(test_slice_yields_only_after_a_while),
        cmocka_unit_test(test_events_come_between_many_ready_tasks),
        cmocka_unit_test(test_results_of_many),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
