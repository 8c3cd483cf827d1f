/* The loop: timers, deferred calls, signals, the stall gauge, the dump, and work. */
#include "tests/unit/task_test.h"

#include <errno.h>
#include <pthread.h>

#include "proto/async/await.h"
#include "proto/base/log.h"

static void burn(uint64_t ms)
{
    uint64_t until = now_ms() + ms;

    while (now_ms() < until)
        ;
}

/* --- Timers -------------------------------------------------------------------------------------
 */

struct alarm {
    struct loop_timer timer;
    size_t number, fired_as, restarts;
    uint64_t due_ms, fired_ms;
};

static size_t fired_count;

static void on_alarm(struct loop_timer *timer)
{
    struct alarm *alarm = CONTAINER_OF(timer, struct alarm, timer);

    alarm->fired_as = ++fired_count;
    alarm->fired_ms = loop_now_ms();
    if (alarm->restarts) {
        alarm->restarts--;
        loop_timer_start(timer, 0, on_alarm);
    }
}

static void start_alarm(struct alarm *alarm, uint64_t ms)
{
    loop_timer_start(&alarm->timer, ms, on_alarm);
    alarm->due_ms = alarm->timer.expires_ms;
}

TASK_TEST(test_timers_fire_in_order)
{
    struct alarm a = {0}, b = {0}, c = {0}, stopped = {0};

    fired_count = 0;
    do { /* again, if the machine was away in between */
        start_alarm(&a, 6);
        start_alarm(&stopped, 1);
        start_alarm(&b, 2);
        start_alarm(&c, 4);
    } while (b.due_ms >= c.due_ms || c.due_ms >= a.due_ms);
    loop_timer_stop(&stopped.timer);
    loop_timer_stop(&stopped.timer);
    assert_int_equal(await_sleep(10), 0);
    assert_int_equal(b.fired_as, 1);
    assert_int_equal(c.fired_as, 2);
    assert_int_equal(a.fired_as, 3);
    assert_int_equal(stopped.fired_as, 0);
    assert_false(a.timer.running);
    loop_timer_stop(&a.timer); /* after it fired: nothing */
    assert_true(a.fired_ms >= a.due_ms && b.fired_ms >= b.due_ms);
    return true;
}

TASK_TEST(test_restart_moves_a_timer)
{
    struct alarm a = {0}, b = {0};

    fired_count = 0;
    do {
        start_alarm(&a, 1);
        start_alarm(&b, 3);
        start_alarm(&a, 5);
    } while (b.due_ms >= a.due_ms);
    assert_int_equal(await_sleep(9), 0);
    assert_int_equal(b.fired_as, 1);
    assert_int_equal(a.fired_as, 2);
    return true;
}

TASK_TEST(test_a_timer_that_restarts_itself_at_once_does_not_hold_the_loop)
{
    struct alarm a = {.restarts = SIZE_MAX}, b = {0};
    size_t before;

    fired_count = 0;
    start_alarm(&a, 0);
    for (int i = 0; i < 50; i++) {
        before = fired_count;
        assert_int_equal(await_yield(), 0);
        assert_in_range(fired_count, before, before + 1); /* once a round */
    }
    start_alarm(&b, 2);
    assert_int_equal(await_sleep(5), 0);
    assert_true(b.fired_as && a.fired_as);
    loop_timer_stop(&a.timer);
    return true;
}

TASK_TEST(test_timeouts_count_from_now_and_do_not_wrap)
{
    struct alarm never = {0};
    uint64_t started;

    start_alarm(&never, UINT64_MAX);
    assert_int_equal(await_yield(), 0);
    burn(20); /* the loop's clock is late by that much now */
    started = now_ms();
    assert_int_equal(await_sleep(15), 0);
    assert_true(now_ms() - started >= 14); /* clocks of one millisecond */
    assert_int_equal(never.fired_as, 0);
    loop_timer_stop(&never.timer);
    return true;
}

/* Ten thousand, in every order, a third of them stopped again: the rest fire in order of expiry,
 * equal ones in order of start. */
static void many_timers(uint64_t (*timeout_ms)(size_t i))
{
    enum { COUNT = 10000 };
    static struct alarm alarms[COUNT];
    static struct alarm *by_firing[COUNT + 1];
    size_t running = 0;

    memset(alarms, 0, sizeof(alarms));
    fired_count = 0;
    for (size_t i = 0; i < COUNT; i++) {
        alarms[i].number = i;
        start_alarm(&alarms[i], timeout_ms(i));
    }
    for (size_t i = 0; i < COUNT; i += 3)
        loop_timer_stop(&alarms[i].timer);
    for (size_t i = 0; i < COUNT; i++)
        running += alarms[i].timer.running;
    while (fired_count < running)
        assert_int_equal(await_sleep(1), 0);
    for (size_t i = 0; i < COUNT; i++) {
        assert_int_equal(alarms[i].fired_as == 0, i % 3 == 0);
        by_firing[alarms[i].fired_as] = &alarms[i];
    }
    for (size_t i = 2; i <= running; i++) {
        const struct alarm *before = by_firing[i - 1], *after = by_firing[i];
        assert_true(before->due_ms < after->due_ms ||
                    (before->due_ms == after->due_ms && before->number < after->number));
    }
}

static uint64_t equal_ms(size_t i UNUSED)
{
    return 3;
}

static uint64_t falling_ms(size_t i)
{
    return 40 - i / 250;
}

static uint64_t random_ms(size_t i UNUSED)
{
    return (uint64_t)rand() % 30;
}

TASK_TEST(test_ten_thousand_timers)
{
    srand(1);
    many_timers(equal_ms);
    many_timers(falling_ms);
    many_timers(random_ms);
    return true;
}

static uint64_t far_ms(size_t i)
{
    return 100000 + (uint64_t)rand() % 100000 + i % 2;
}

TASK_TEST(test_stopping_in_any_order)
{
    enum { COUNT = 2000 };
    static struct alarm alarms[COUNT];
    uint64_t started = now_ms();

    memset(alarms, 0, sizeof(alarms));
    for (size_t step = 0; step < 100000; step++) {
        struct alarm *alarm = &alarms[rand() % COUNT];
        if (alarm->timer.running && rand() % 2)
            loop_timer_stop(&alarm->timer);
        else
            start_alarm(alarm, far_ms(step));
    }
    for (size_t i = 0; i < COUNT; i++)
        loop_timer_stop(&alarms[i].timer);
    /* A sorted list took seconds for this. */
    assert_true(now_ms() - started < 10000);
    return true;
}

/* --- Deferred calls -----------------------------------------------------------------------------
 */

static char deferred_order[16];

static void note_b(void *arg UNUSED)
{
    strcat(deferred_order, "b");
}

static void note_a(void *arg)
{
    strcat(deferred_order, "a");
    loop_defer(note_b, arg); /* comes in the next round, not in this one */
}

TASK_TEST(test_deferred_calls_come_later_in_order)
{
    deferred_order[0] = '\0';
    loop_defer(note_a, NULL);
    loop_defer(note_a, NULL);
    assert_string_equal(deferred_order, "");
    while (strlen(deferred_order) < 4)
        assert_int_equal(await_yield(), 0);
    assert_string_equal(deferred_order, "aabb");
    return true;
}

TASK_TEST(test_deferred_at_the_end)
{
    deferred_order[0] = '\0';
    loop_defer(note_a, NULL);
    return true;
}

static void test_deferred_calls_of_the_last_round_were_made(void **state UNUSED)
{
    assert_string_equal(deferred_order, "ab");
}

/* --- Signals ------------------------------------------------------------------------------------
 */

struct delivery {
    struct event event;
    int signum;
    int count;
};

static void on_signal(int signum, void *arg)
{
    struct delivery *delivery = arg;

    delivery->signum = signum;
    delivery->count++;
    event_fire(&delivery->event);
}

TASK_TEST(test_signals)
{
    struct delivery usr1 = {0}, usr2 = {0};
    struct loop_signal *first = loop_signal_start(SIGUSR1, on_signal, &usr1);
    struct loop_signal *second = loop_signal_start(SIGUSR2, on_signal, &usr2);

    for (int i = 1; i <= 3; i++) {
        assert_int_equal(kill(getpid(), SIGUSR1), 0);
        assert_int_equal(await_event(&usr1.event, "a signal"), 0);
        assert_int_equal(usr1.count, i);
        assert_int_equal(usr1.signum, SIGUSR1);
    }
    assert_int_equal(usr2.count, 0);
    assert_int_equal(kill(getpid(), SIGUSR2), 0);
    assert_int_equal(await_event(&usr2.event, "a signal"), 0);
    assert_null(loop_signal_stop(first));
    assert_null(loop_signal_stop(second));
    assert_null(loop_signal_stop(NULL));
    return true;
}

static void on_stop_signal(int signum UNUSED, void *arg)
{
    task_cancel(arg);
}

/* What davitd does at SIGTERM. */
TASK_TEST(test_a_signal_cancels_the_main_task)
{
    struct loop_signal *handler = loop_signal_start(SIGTERM, on_stop_signal, task_current());

    assert_int_equal(kill(getpid(), SIGTERM), 0);
    assert_int_equal(await_sleep(UINT64_MAX), -ECANCELED);
    loop_signal_stop(handler);
    return true;
}

/* --- Work ---------------------------------------------------------------------------------------
 */

struct sum {
    const int *numbers;
    size_t count;
    long result;
    pthread_t thread;
};

static void add_up(void *arg)
{
    struct sum *sum = arg;

    sum->thread = pthread_self();
    for (size_t i = 0; i < sum->count; i++)
        sum->result += sum->numbers[i];
}

static bool sum_body(void *arg, struct error *err)
{
    for (int i = 0; i < 20; i++) {
        int r = await_work(add_up, arg, "adding up");
        if (r < 0)
            return await_error(err, r, "adding up");
    }
    return true;
}

TASK_TEST(test_work_runs_elsewhere)
{
    CLEANUP(group_done_await) struct group group;
    const int numbers[] = {1, 2, 3, 4};
    struct sum sums[8];

    group_init(&group);
    for (size_t i = 0; i < ARRAY_SIZE(sums); i++) {
        sums[i] = (struct sum){.numbers = numbers, .count = ARRAY_SIZE(numbers)};
        assert_true(task_spawn(&group, "sum", NULL, sum_body, &sums[i], err));
    }
    assert_true(await_group(&group, err));
    for (size_t i = 0; i < ARRAY_SIZE(sums); i++) {
        assert_int_equal(sums[i].result, 200);
        assert_false(pthread_equal(sums[i].thread, pthread_self()));
    }
    return true;
}

static void ask_for_the_task(void *arg)
{
    *(bool *)arg = task_current() == NULL;
}

TASK_TEST(test_work_is_in_no_task)
{
    bool none = false;

    assert_non_null(task_current());
    assert_int_equal(await_work(ask_for_the_task, &none, "asking"), 0);
    assert_true(none);
    return true;
}

/* --- Stalls -------------------------------------------------------------------------------------
 */

static bool burn_body(void *arg, struct error *err UNUSED)
{
    burn(*(uint64_t *)arg);
    return true;
}

static void burn_deferred(void *arg)
{
    burn(*(uint64_t *)arg);
}

static void reset_stall(void)
{
    assert_int_equal(await_yield(), 0); /* ends the round that is measured */
    assert_int_equal(await_yield(), 0);
    loop_reset_stall();
    assert_int_equal(loop_worst_stall().worst_us, 0);
}

/* Whether the gauge told so; a machine that does not let the process run looks like a stall as
 * well, so the tests try a few times. */
static bool stall_is(const char *task_name)
{
    return loop_worst_stall().worst_us >= 19000 && str_eq(loop_worst_stall().task_name, task_name);
}

#define ATTEMPTS 10

TASK_TEST(test_the_worst_stall_names_the_task)
{
    CLEANUP(group_done_await) struct group group;
    uint64_t ms = 20, less_ms = 5;
    bool told = false;

    group_init(&group);
    for (int i = 0; i < ATTEMPTS && !told; i++) {
        reset_stall();
        assert_true(task_spawn(&group, "burner", "of 20 ms", burn_body, &ms, err));
        assert_true(await_group(&group, err));
        assert_true(task_spawn(&group, "lesser", NULL, burn_body, &less_ms, err));
        assert_true(await_group(&group, err));
        assert_true(loop_worst_stall().worst_us >= 19000);
        told = stall_is("burner of 20 ms");
    }
    assert_true(told);
    return true;
}

TASK_TEST(test_a_stall_of_a_callback_has_no_name)
{
    uint64_t ms = 20;
    bool told = false;

    for (int i = 0; i < ATTEMPTS && !told; i++) {
        reset_stall();
        loop_defer(burn_deferred, &ms);
        assert_int_equal(await_yield(), 0); /* this task runs in the same round, for a moment */
        assert_int_equal(await_yield(), 0);
        assert_true(loop_worst_stall().worst_us >= 19000);
        told = stall_is("");
    }
    assert_true(told);
    return true;
}

/* Sleeping for long is not a stall, or the gauge would be of no use. A machine that does not let
 * the process run for so long looks like one, so the best of a few attempts counts. */
TASK_TEST(test_waiting_is_no_stall)
{
    uint64_t best_us = UINT64_MAX;

    for (int i = 0; i < ATTEMPTS && best_us > 20000; i++) {
        reset_stall();
        assert_int_equal(await_sleep(40), 0);
        assert_int_equal(await_yield(), 0);
        best_us = MIN(best_us, loop_worst_stall().worst_us);
    }
    assert_true(best_us <= 20000);
    return true;
}

/* --- The dump -----------------------------------------------------------------------------------
 */

static bool dump_sleeper_body(void *arg UNUSED, struct error *err)
{
    return await_error(err, await_sleep(UINT64_MAX), "sleeping");
}

static bool dump_group_body(void *arg UNUSED, struct error *err)
{
    CLEANUP(group_done_await) struct group group;

    group_init(&group);
    assert_true(task_spawn(&group, "layer", "sha256:abc", dump_sleeper_body, NULL, err));
    return await_group(&group, err);
}

static char *dump(void)
{
    static char text[16384];
    FILE *file = tmpfile();
    int saved = dup(STDERR_FILENO);
    size_t length;

    log_setup(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    dup2(fileno(file), STDERR_FILENO);
    task_dump();
    dup2(saved, STDERR_FILENO);
    close(saved);
    rewind(file);
    length = fread(text, 1, sizeof(text) - 1, file);
    text[length] = '\0';
    fclose(file);
    return text;
}

TASK_TEST(test_dump_lists_names_and_reasons)
{
    CLEANUP(group_done_await) struct group group;
    const char *text;

    group_init(&group);
    assert_true(task_spawn(&group, "pull", "busybox\nforged", dump_group_body, NULL, err));
    assert_int_equal(await_yield(), 0);
    assert_int_equal(await_yield(), 0);
    assert_true(task_spawn(&group, "fresh", NULL, dump_sleeper_body, NULL, err));
    text = dump();
    assert_non_null(strstr(text, "tasks count=4 max=20000"));
    assert_non_null(strstr(text, "name=main waiting_for=(running)"));
    assert_non_null(strstr(text, "name=\"pull busybox\\nforged\" "
                                 "waiting_for=\"waiting for its tasks\" waiting_ms="));
    assert_non_null(strstr(text, "name=\"layer sha256:abc\" waiting_for=sleeping"));
    assert_non_null(strstr(text, "name=fresh waiting_for=\"(about to start)\""));
    assert_null(strstr(text, "state=cancelled"));
    group_cancel(&group);
    assert_non_null(strstr(dump(), "state=cancelled"));
    return true;
}

/* --- The loop itself ----------------------------------------------------------------------------
 */

static bool fail_body(void *arg UNUSED, struct error *err)
{
    return error_set(err, ERROR_DATA_LOSS, "R", "the main task failed");
}

static void test_main_passes_its_error_on(void **state UNUSED)
{
    CLEANUP_ERROR struct error err = {0};

    assert_false(loop_run_main(fail_body, NULL, &err));
    assert_error(&err, ERROR_DATA_LOSS, "the main task failed");
    assert_false(loop_run_main(fail_body, NULL, NULL));
}

static void test_loops_one_after_the_other_leave_nothing(void **state UNUSED)
{
    uint64_t nothing = 0;
    int before = dup(STDIN_FILENO), after;

    close(before);
    for (int i = 0; i < 20; i++)
        run_task(burn_body, &nothing);
    after = dup(STDIN_FILENO);
    close(after);
    assert_int_equal(after, before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_timers_fire_in_order),
        cmocka_unit_test(test_restart_moves_a_timer),
        cmocka_unit_test(test_a_timer_that_restarts_itself_at_once_does_not_hold_the_loop),
        cmocka_unit_test(test_timeouts_count_from_now_and_do_not_wrap),
        cmocka_unit_test(test_ten_thousand_timers),
        cmocka_unit_test(test_stopping_in_any_order),
        cmocka_unit_test(test_deferred_calls_come_later_in_order),
        cmocka_unit_test(test_deferred_at_the_end),
        cmocka_unit_test(test_deferred_calls_of_the_last_round_were_made),
        cmocka_unit_test(test_signals),
        cmocka_unit_test(test_a_signal_cancels_the_main_task),
        cmocka_unit_test(test_work_runs_elsewhere),
        cmocka_unit_test(test_work_is_in_no_task),
        cmocka_unit_test(test_the_worst_stall_names_the_task),
        cmocka_unit_test(test_a_stall_of_a_callback_has_no_name),
        cmocka_unit_test(test_waiting_is_no_stall),
        cmocka_unit_test(test_dump_lists_names_and_reasons),
        cmocka_unit_test(test_main_passes_its_error_on),
        cmocka_unit_test(test_loops_one_after_the_other_leave_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
