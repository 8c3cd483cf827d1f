/* Channels: order, back-pressure, closing, several tasks at each end. */
#include "tests/unit/task_test.h"

#include <errno.h>

#include "proto/async/await.h"
#include "proto/async/channel.h"

struct sender {
    struct channel *channel;
    size_t first, count; /* sends these numbers, as pointers */
    size_t sent;
    int result;
};

static bool send_body(void *arg, struct error *err)
{
    struct sender *sender = arg;

    for (size_t i = 0; i < sender->count; i++) {
        sender->result = await_send(sender->channel, (void *)(sender->first + i));
        if (sender->result < 0)
            return await_error(err, sender->result, "sending");
        sender->sent++;
    }
    return true;
}

struct receiver {
    struct channel *channel;
    size_t received, sum;
    int result;
};

static bool recv_body(void *arg, struct error *err)
{
    struct receiver *receiver = arg;
    void *item;

    while ((receiver->result = await_recv(receiver->channel, &item)) > 0) {
        receiver->received++;
        receiver->sum += (size_t)item;
    }
    return receiver->result < 0 ? await_error(err, receiver->result, "receiving") : true;
}

TASK_TEST(test_order_across_the_wrap)
{
    struct channel *channel = channel_new(3);
    size_t next = 1, expected = 1;
    void *item;

    for (int round = 0; round < 10; round++) {
        for (int i = 0; i < 1 + round % 3; i++)
            assert_int_equal(await_send(channel, (void *)next++), 0);
        assert_int_equal(channel_length(channel), 1 + round % 3);
        while (channel_length(channel)) {
            assert_int_equal(await_recv(channel, &item), 1);
            assert_int_equal((size_t)item, expected++);
        }
    }
    channel_free(channel, NULL);
    return true;
}

TASK_TEST(test_back_pressure)
{
    struct channel *channel = channel_new(4);
    CLEANUP(group_done_await) struct group group;
    struct sender sender = {.channel = channel, .first = 1, .count = 100};
    void *item;

    group_init(&group);
    assert_true(task_spawn(&group, "sender", NULL, send_body, &sender, err));
    for (int i = 0; i < 5; i++)
        assert_int_equal(await_yield(), 0);
    assert_int_equal(sender.sent, 4); /* full: it waits */
    for (size_t i = 1; i <= 100; i++) {
        assert_int_equal(await_recv(channel, &item), 1);
        assert_int_equal((size_t)item, i);
        assert_int_equal(await_yield(), 0);
        assert_true(sender.sent <= i + 4);
        assert_true(sender.sent == MIN(100, i + 4)); /* one place, one more */
    }
    assert_true(await_group(&group, err));
    channel_free(channel, NULL);
    return true;
}

TASK_TEST(test_close_lets_receivers_have_the_rest)
{
    struct channel *channel = channel_new(4);
    void *item;

    assert_int_equal(await_send(channel, (void *)1), 0);
    assert_int_equal(await_send(channel, (void *)2), 0);
    channel_close(channel);
    channel_close(channel);
    assert_int_equal(await_send(channel, (void *)3), -EPIPE);
    assert_int_equal(await_recv(channel, &item), 1);
    assert_int_equal((size_t)item, 1);
    assert_int_equal(await_recv(channel, &item), 1);
    assert_int_equal((size_t)item, 2);
    assert_int_equal(await_recv(channel, &item), 0);
    assert_int_equal(await_recv(channel, &item), 0);
    channel_free(channel, NULL);
    return true;
}

TASK_TEST(test_close_wakes_both_sides)
{
    struct channel *full = channel_new(1), *empty = channel_new(1);
    CLEANUP(group_done_await) struct group group;
    struct sender senders[2] = {{.channel = full, .count = 2}, {.channel = full, .count = 2}};
    struct receiver receivers[2] = {{.channel = empty}, {.channel = empty}};

    group_init(&group);
    for (int i = 0; i < 2; i++) {
        assert_true(task_spawn(&group, "receiver", NULL, recv_body, &receivers[i], err));
        assert_true(task_spawn(&group, "sender", NULL, send_body, &senders[i], err));
    }
    assert_int_equal(await_yield(), 0);
    channel_close(empty);
    assert_int_equal(await_yield(), 0);
    assert_int_equal(group.running, 2); /* the receivers have ended, without error */
    assert_int_equal(receivers[0].result, 0);
    assert_int_equal(receivers[1].result, 0);
    channel_close(full);
    assert_false(await_group(&group, err));
    assert_int_equal(senders[0].result, -EPIPE);
    assert_int_equal(senders[1].result, -EPIPE);
    assert_error(err, ERROR_UNAVAILABLE, "sending: Broken pipe");
    channel_free(full, NULL);
    channel_free(empty, NULL);
    return true;
}

/* Several at both ends, capacities around the edge: everything arrives exactly once. */
static void pump(size_t capacity, size_t senders_count, size_t receivers_count, struct error *err)
{
    enum { EACH = 300 };
    struct channel *channel = channel_new(capacity);
    CLEANUP(group_done_await) struct group senders_group;
    CLEANUP(group_done_await) struct group receivers_group;
    struct sender senders[5];
    struct receiver receivers[5];
    size_t sum = 0, expected = 0, total = senders_count * EACH;

    group_init(&senders_group);
    group_init(&receivers_group);
    for (size_t i = 0; i < receivers_count; i++) {
        receivers[i] = (struct receiver){.channel = channel};
        assert_true(task_spawn(&receivers_group, "receiver", NULL, recv_body, &receivers[i], err));
    }
    for (size_t i = 0; i < senders_count; i++) {
        senders[i] = (struct sender){.channel = channel, .first = 1 + i * EACH, .count = EACH};
        assert_true(task_spawn(&senders_group, "sender", NULL, send_body, &senders[i], err));
    }
    assert_ok(await_group(&senders_group, err), err);
    channel_close(channel);
    assert_ok(await_group(&receivers_group, err), err);
    for (size_t i = 0; i < receivers_count; i++)
        sum += receivers[i].sum;
    for (size_t i = 1; i <= total; i++)
        expected += i;
    assert_int_equal(sum, expected);
    channel_free(channel, NULL);
}

TASK_TEST(test_many_to_many)
{
    static const size_t capacities[] = {1, 2, 7};

    for (size_t i = 0; i < ARRAY_SIZE(capacities); i++) {
        for (size_t senders = 1; senders <= 5; senders += 2) {
            for (size_t receivers = 1; receivers <= 5; receivers += 2)
                pump(capacities[i], senders, receivers, err);
        }
    }
    return true;
}

/* A place that was offered to a sender (receiver) which is cancelled at that moment goes on to the
 * next one. */
TASK_TEST(test_cancel_loses_no_wake_up)
{
    struct channel *channel = channel_new(1);
    CLEANUP(group_done_await) struct group doomed;
    CLEANUP(group_done_await) struct group group;
    struct sender dying = {.channel = channel, .first = 10, .count = 2};
    struct sender living = {.channel = channel, .first = 20, .count = 1};
    void *item;

    group_init(&doomed);
    group_init(&group);
    assert_int_equal(await_send(channel, (void *)1), 0);
    assert_true(task_spawn(&doomed, "dying", NULL, send_body, &dying, err));
    assert_true(task_spawn(&group, "living", NULL, send_body, &living, err));
    assert_int_equal(await_yield(), 0);
    assert_int_equal(await_recv(channel, &item), 1); /* offers the place to the dying one */
    group_cancel(&doomed);
    assert_false(await_group(&doomed, err));
    error_done(err);
    for (size_t left = dying.sent + 1; left > 0; left--)
        assert_int_equal(await_recv(channel, &item), 1);
    assert_int_equal((size_t)item, 20);
    assert_true(await_group(&group, err));
    assert_int_equal(channel_length(channel), 0);
    channel_free(channel, NULL);
    return true;
}

TASK_TEST(test_free_frees_what_is_queued)
{
    struct channel *channel = channel_new(3);

    assert_int_equal(await_send(channel, xstrdup("a")), 0);
    assert_int_equal(await_send(channel, xstrdup("b")), 0);
    assert_null(channel_free(channel, free)); /* LeakSanitizer and valgrind would tell */
    assert_null(channel_free(NULL, free));
    return true;
}

static bool other_body(void *arg, struct error *err)
{
    int r;

    do
        ++*(size_t *)arg;
    while ((r = await_yield()) == 0);
    return await_error(err, r, "other");
}

TASK_TEST(test_a_busy_channel_does_not_starve_others)
{
    struct channel *channel = channel_new(16);
    CLEANUP(group_done_await) struct group others;
    size_t turns = 0;
    void *item;

    group_init(&others);
    assert_true(task_spawn(&others, "other", NULL, other_body, &turns, err));
    /* Never full and never empty: no operation has to wait. */
    while (turns < 3) {
        assert_int_equal(await_send(channel, channel), 0);
        assert_int_equal(await_recv(channel, &item), 1);
    }
    channel_free(channel, NULL);
    return true;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order_across_the_wrap),
        cmocka_unit_test(test_back_pressure),
        cmocka_unit_test(test_close_lets_receivers_have_the_rest),
        cmocka_unit_test(test_close_wakes_both_sides),
        cmocka_unit_test(test_many_to_many),
        cmocka_unit_test(test_cancel_loses_no_wake_up),
        cmocka_unit_test(test_free_frees_what_is_queued),
        cmocka_unit_test(test_a_busy_channel_does_not_starve_others),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
