/* Misuse ends the process with a message that names the mistake; so does a stack that overflows;
 * and the sanitizers see what happens on a task's stack. Everything runs in child processes. */
#include "tests/unit/task_test.h"

#include <errno.h>
#include <sys/socket.h>

#include "proto/async/await.h"
#include "proto/async/channel.h"
#include "proto/async/stream.h"

/* --- Bodies -------------------------------------------------------------------------------------
 */

static bool sleep_body(void *arg UNUSED, struct error *err)
{
    return await_error(err, await_sleep(UINT64_MAX), "sleeping");
}

static bool read_body(void *arg, struct error *err)
{
    char byte;

    return await_error(err, (int)await_read(arg, &byte, 1), "reading");
}

static bool write_body(void *arg, struct error *err)
{
    CLEANUP_FREE char *data = xcalloc(1, 1 * MIB);

    return await_error(err, await_write(arg, data, 1 * MIB), "writing");
}

static bool recv_body(void *arg, struct error *err)
{
    void *item;

    return await_error(err, await_recv(arg, &item), "receiving");
}

static bool group_body(void *arg, struct error *err)
{
    return await_group(arg, err);
}

static bool event_body(void *arg, struct error *err)
{
    return await_error(err, await_event(arg, "an event"), "waiting");
}

static bool process_body(void *arg, struct error *err)
{
    return await_error(err, await_process(arg, NULL), "waiting");
}

static struct group other_group; /* its tasks outlive the function that spawned them */

static void spawn(const char *name, task_fn fn, void *arg)
{
    CHECK(task_spawn(&other_group, name, NULL, fn, arg, NULL));
    CHECK(await_yield() == 0);
}

static struct stream *one_end_of_a_socket(void)
{
    int fds[2];

    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
    return stream_new(fds[0]);
}

/* --- Mistakes inside a task ---------------------------------------------------------------------
 */

static bool wait_twice_for_a_group(void *arg UNUSED, struct error *err)
{
    static struct group group;

    group_init(&group);
    CHECK(task_spawn(&group, "member", NULL, sleep_body, NULL, err));
    spawn("first", group_body, &group);
    return await_group(&group, err);
}

static bool wait_for_own_group(void *arg UNUSED, struct error *err)
{
    spawn("selfish", group_body, &other_group);
    return await_error(err, await_sleep(100), "x");
}

static bool wait_twice_for_an_event(void *arg UNUSED, struct error *err)
{
    static struct event event;

    spawn("first", event_body, &event);
    return event_body(&event, err);
}

static bool wait_always_twice_for_an_event(void *arg UNUSED, struct error *err UNUSED)
{
    static struct event event;

    spawn("first", event_body, &event);
    await_event_always(&event, "x");
    return true;
}

static bool two_readers(void *arg UNUSED, struct error *err)
{
    struct stream *stream = one_end_of_a_socket();

    spawn("first", read_body, stream);
    return read_body(stream, err);
}

static bool two_writers(void *arg UNUSED, struct error *err)
{
    struct stream *stream = one_end_of_a_socket();

    spawn("first", write_body, stream);
    return write_body(stream, err);
}

static bool two_readers_of_a_file(void *arg UNUSED, struct error *err)
{
    FILE *file = tmpfile();
    struct stream *stream = stream_new(fileno(file));

    CHECK(task_spawn(&other_group, "first", NULL, read_body, stream, err));
    CHECK(await_yield() == 0);
    return read_body(stream, err);
}

static bool free_a_stream_that_is_read(void *arg UNUSED, struct error *err UNUSED)
{
    struct stream *stream = one_end_of_a_socket();

    spawn("reader", read_body, stream);
    stream_free(stream);
    return true;
}

static bool free_a_channel_that_is_waited_for(void *arg UNUSED, struct error *err UNUSED)
{
    struct channel *channel = channel_new(1);

    spawn("receiver", recv_body, channel);
    channel_free(channel, NULL);
    return true;
}

static bool free_a_channel_whose_receiver_is_woken(void *arg UNUSED, struct error *err UNUSED)
{
    struct channel *channel = channel_new(1);

    spawn("receiver", recv_body, channel);
    channel_close(channel); /* it has left the queue, but has not run yet */
    channel_free(channel, NULL);
    return true;
}

static bool free_a_process_that_is_waited_for(void *arg UNUSED, struct error *err)
{
    char *const argv[] = {"sleep", "1", NULL};
    const struct process_options options = {.argv = argv};
    struct process *process = await_process_start(&options, err);

    spawn("waiter", process_body, process);
    process_free(process);
    return true;
}

static bool end_with_a_shield(void *arg UNUSED, struct error *err UNUSED)
{
    task_shield();
    return true;
}

static bool end_with_a_deadline(void *arg UNUSED, struct error *err UNUSED)
{
    static struct deadline deadline;

    deadline_push(&deadline, 100);
    return true;
}

static bool pop_the_outer_deadline_first(void *arg UNUSED, struct error *err UNUSED)
{
    static struct deadline outer, inner;

    deadline_push(&outer, 100);
    deadline_push(&inner, 100);
    deadline_pop(&outer);
    return true;
}

static bool pop_a_deadline_inside_a_shield(void *arg UNUSED, struct error *err UNUSED)
{
    static struct deadline deadline;

    deadline_push(&deadline, 100);
    task_shield();
    deadline_pop(&deadline);
    return true;
}

static bool unshield_below_a_deadline(void *arg UNUSED, struct error *err UNUSED)
{
    static struct deadline deadline;
    struct task_shield shield = task_shield();

    deadline_push(&deadline, 100);
    task_unshield(&shield);
    return true;
}

static bool run_a_loop_in_the_loop(void *arg UNUSED, struct error *err)
{
    return loop_run_main(sleep_body, NULL, err);
}

static void run_a_loop(void *arg UNUSED)
{
    loop_run_main(sleep_body, NULL, NULL);
}

static bool run_a_loop_in_a_callback(void *arg UNUSED, struct error *err)
{
    loop_defer(run_a_loop, NULL);
    return await_error(err, await_sleep(10), "x");
}

static bool end_while_others_run(void *arg UNUSED, struct error *err UNUSED)
{
    spawn("left behind", sleep_body, NULL);
    return true;
}

static void nothing(struct loop_timer *timer UNUSED)
{
}

static bool end_with_a_timer(void *arg UNUSED, struct error *err UNUSED)
{
    static struct loop_timer timer;

    loop_timer_start(&timer, 100, nothing);
    return true;
}

static void ignore(int signum UNUSED, void *arg UNUSED)
{
}

static bool end_with_a_handle(void *arg UNUSED, struct error *err UNUSED)
{
    loop_signal_start(SIGUSR1, ignore, NULL);
    return true;
}

static bool end_with_a_waiting_stream(void *arg UNUSED, struct error *err UNUSED)
{
    static struct deadline deadline;
    struct stream *stream = one_end_of_a_socket();
    char byte;

    deadline_push(&deadline, 1);
    CHECK(await_read(stream, &byte, 1) == -ETIMEDOUT);
    deadline_pop(&deadline);
    return true;
}

static void sleep_in_the_pool(void *arg UNUSED)
{
    await_sleep(1);
}

static bool await_inside_work(void *arg UNUSED, struct error *err)
{
    return await_error(err, await_work(sleep_in_the_pool, NULL, "x"), "x");
}

static bool channel_of_nothing(void *arg UNUSED, struct error *err UNUSED)
{
    channel_new(0);
    return true;
}

static bool stream_of_nothing(void *arg UNUSED, struct error *err UNUSED)
{
    stream_new(-1);
    return true;
}

static const struct mistake {
    task_fn main_task;
    const char *message;
} mistakes[] = {
    {wait_twice_for_a_group, "task \"main\" waits for a group that \"first\" waits for"},
    {wait_for_own_group, "task \"selfish\" waits for the group it belongs to"},
    {wait_twice_for_an_event, "task \"main\" waits for an event that \"first\" waits for"},
    {wait_always_twice_for_an_event, "task \"main\" waits for an event that \"first\" waits for"},
    {two_readers, "two tasks read one stream"},
    {two_writers, "two tasks write one stream"},
    {two_readers_of_a_file, "two tasks read one stream"},
    {free_a_stream_that_is_read, "a stream is freed while a task waits for it"},
    {free_a_channel_that_is_waited_for, "a channel is freed while a task waits for it"},
    {free_a_channel_whose_receiver_is_woken, "a channel is freed while a task waits for it"},
    {free_a_process_that_is_waited_for, "a process is freed while a task waits for it"},
    {end_with_a_shield, "task \"main\" ended while holding a shield or a deadline"},
    {end_with_a_deadline, "task \"main\" ended while holding a shield or a deadline"},
    {pop_the_outer_deadline_first, "check failed"},
    {pop_a_deadline_inside_a_shield, "check failed"},
    {unshield_below_a_deadline, "check failed"},
    {run_a_loop_in_the_loop, "the loop is already running"},
    {run_a_loop_in_a_callback, "the loop is already running"},
    {end_while_others_run, "the main task ended while 1 tasks were running"},
    {end_with_a_timer, "the loop ends while a timer is running"},
    {end_with_a_handle, "the loop ends while a handle is open: signal"},
    {end_with_a_waiting_stream, "the loop ends while a handle is open: poll"},
    {await_inside_work, "await_sleep called outside of a task"},
    {channel_of_nothing, "check failed: capacity > 0"},
    {stream_of_nothing, "a stream needs an open descriptor, not -1"},
};

static void make_mistake(void *arg)
{
    const struct mistake *mistake = arg;

    group_init(&other_group);
    alarm(20); /* a hang is no message */
    loop_run_main(mistake->main_task, NULL, NULL);
}

static void test_mistakes_abort_with_a_message(void **state UNUSED)
{
    for (size_t i = 0; i < ARRAY_SIZE(mistakes); i++) {
        assert_dies(make_mistake, (void *)&mistakes[i], SIGABRT, mistakes[i].message);
    }
}

static void test_what_is_left_is_listed(void **state UNUSED)
{
    const struct mistake mistake = {end_while_others_run, ""};

    assert_dies(make_mistake, (void *)&mistake, SIGABRT, "name=\"left behind\"");
}

/* --- Awaits outside of a task -------------------------------------------------------------------
 */

static void work(void *arg UNUSED)
{
}

static void outside_sleep(void)
{
    await_sleep(1);
}

static void outside_yield(void)
{
    await_yield();
}

static void outside_slice(void)
{
    await_slice();
}

static void outside_work(void)
{
    await_work(work, NULL, "x");
}

static void outside_check(void)
{
    task_check();
}

static void outside_shield(void)
{
    task_shield();
}

static void outside_deadline(void)
{
    static struct deadline deadline;

    deadline_push(&deadline, 1);
}

static void outside_wake(void)
{
    static struct wait_queue queue;

    wait_queue_init(&queue);
    await_wake(&queue, "x");
}

static void outside_event(void)
{
    static struct event event;

    await_event(&event, "x");
}

static void outside_group(void)
{
    static struct group group;

    group_init(&group);
    await_group(&group, NULL);
}

static void outside_group_done(void)
{
    static struct group group;

    group_init(&group);
    CHECK(task_spawn(&group, "member", NULL, sleep_body, NULL, NULL));
    group_done_await(&group);
}

static const struct outside {
    void (*call)(void);
    const char *message;
} outsides[] = {
    {outside_sleep, "await_sleep called outside of a task"},
    {outside_yield, "await_yield called outside of a task"},
    {outside_slice, "await_slice called outside of a task"},
    {outside_work, "await_work called outside of a task"},
    {outside_check, "task_check called outside of a task"},
    {outside_shield, "task_shield called outside of a task"},
    {outside_deadline, "deadline_push called outside of a task"},
    {outside_wake, "await_wake called outside of a task"},
    {outside_event, "await_event called outside of a task"},
    {outside_group, "await_group called outside of a task"},
    {outside_group_done, "a group with 1 running tasks is destroyed outside of a task"},
};

static void call_outside(void *arg)
{
    ((const struct outside *)arg)->call();
}

static void test_outside_of_a_task(void **state UNUSED)
{
    for (size_t i = 0; i < ARRAY_SIZE(outsides); i++)
        assert_dies(call_outside, (void *)&outsides[i], SIGABRT, outsides[i].message);
}

/* --- Stack overflow -----------------------------------------------------------------------------
 */

__attribute__((noinline)) static size_t recurse(size_t depth, volatile char *above)
{
    volatile char frame[200];

    frame[0] = (char)depth;
    if (depth == 0)
        return (size_t)above[0];
    return recurse(depth - 1, frame) + (size_t)frame[0];
}

/* The largest frame that the compiler lets pass (-Wframe-larger-than). */
__attribute__((noinline)) static size_t recurse_widely(size_t depth, volatile char *above)
{
    volatile char frame[16000];

    frame[0] = (char)depth;
    if (depth == 0)
        return (size_t)above[0];
    return recurse_widely(depth - 1, frame) + (size_t)frame[0];
}

static volatile size_t result; /* or the compiler would see that nobody wants it */

static bool overflow_body(void *arg, struct error *err UNUSED)
{
    char above = 0;

    if (*(bool *)arg)
        result = recurse_widely(1000, &above);
    else
        result = recurse(100000, &above);
    return true;
}

static bool main_of_overflow(void *arg, struct error *err)
{
    CLEANUP(group_done_await) struct group group;

    group_init(&group);
    CHECK(task_spawn(&group, "neighbour", NULL, sleep_body, NULL, err));
    CHECK(task_spawn(&group, "greedy", "task", overflow_body, arg, err));
    CHECK(task_spawn(&group, "neighbour", NULL, sleep_body, NULL, err));
    return await_group(&group, err);
}

static void overflow(void *arg)
{
    loop_run_main(main_of_overflow, arg, NULL);
}

static void test_stack_overflow_hits_the_guard(void **state UNUSED)
{
#if defined(TEST_ASAN) || defined(TEST_TSAN)
    const char *message = ""; /* their own handler is switched off in the child */
#else
    const char *message = "fatal: task \"greedy task\" ran out of its stack";
#endif
    bool widely = false;

    assert_dies(overflow, &widely, SIGSEGV, message);
    widely = true;
    assert_dies(overflow, &widely, SIGSEGV, message);
}

static bool null_body(void *arg UNUSED, struct error *err UNUSED)
{
    volatile char *volatile nowhere = NULL;

    result = (size_t)*nowhere;
    return true;
}

static void other_fault(void *arg UNUSED)
{
    loop_run_main(null_body, NULL, NULL);
}

static bool killed_body(void *arg UNUSED, struct error *err)
{
    kill(getpid(), SIGSEGV);
    return await_error(err, await_sleep(10000), "x");
}

static void sent_fault(void *arg UNUSED)
{
    loop_run_main(killed_body, NULL, NULL);
}

static void test_other_faults_stay_what_they_are(void **state UNUSED)
{
    static struct child_end end;

#ifndef TEST_ASAN /* UBSan would tell in its own words */
    run_in_child(other_fault, NULL, &end);
    assert_true(WIFSIGNALED(end.status) && WTERMSIG(end.status) == SIGSEGV);
    assert_null(strstr(end.text, "stack"));
#else
    (void)other_fault;
#endif
    run_in_child(sent_fault, NULL, &end);
    assert_true(WIFSIGNALED(end.status) && WTERMSIG(end.status) == SIGSEGV);
    assert_null(strstr(end.text, "stack"));
}

/* --- What AddressSanitizer still finds ----------------------------------------------------------
 */

#ifdef TEST_ASAN

static bool heap_after_free(void *arg UNUSED, struct error *err UNUSED)
{
    char *volatile text = xstrdup("text");

    CHECK(await_yield() == 0);
    free(text);
    CHECK(await_yield() == 0);
    result = (size_t)text[0];
    return true;
}

static bool stack_overrun_after_a_switch(void *arg UNUSED, struct error *err UNUSED)
{
    volatile char frame[16] = {0};
    volatile char *volatile beyond = frame + sizeof(frame); /* UBSan sees through an index */

    CHECK(await_yield() == 0); /* the redzones must outlive it */
    CHECK(await_sleep(1) == 0);
    result = (size_t)*beyond;
    return true;
}

static bool after_scope(void *arg UNUSED, struct error *err UNUSED)
{
    volatile char *volatile gone;

    {
        volatile char inner[16] = {1};
        gone = inner;
    }
    CHECK(await_yield() == 0);
    result = (size_t)gone[3];
    return true;
}

static volatile char *volatile escaped;

__attribute__((noinline)) static void let_escape(void)
{
    volatile char local[64] = {1};

    CHECK(await_yield() == 0);
    escaped = local;
}

static bool after_return(void *arg UNUSED, struct error *err UNUSED)
{
    let_escape();
    CHECK(await_yield() == 0);
    result = (size_t)escaped[5];
    return true;
}

static bool other_tasks_stack(void *arg UNUSED, struct error *err)
{
    spawn("escapes", after_return, NULL);
    return await_error(err, await_sleep(100), "x");
}

static bool end_at_once(void *arg, struct error *err UNUSED)
{
    *(struct task **)arg = task_current();
    return true;
}

static bool cancel_a_dead_task(void *arg UNUSED, struct error *err UNUSED)
{
    static struct task *dead;

    spawn("short-lived", end_at_once, &dead);
    task_cancel(dead);
    return true;
}

static const struct plant {
    task_fn main_task;
    const char *report;
} plants[] = {
    {heap_after_free, "AddressSanitizer: heap-use-after-free"},
    {stack_overrun_after_a_switch, "AddressSanitizer: stack-buffer-overflow"},
    {after_scope, "AddressSanitizer: stack-use-after-scope"},
    {after_return, "AddressSanitizer: stack-use-after-return"},
    {other_tasks_stack, "AddressSanitizer: stack-use-after-return"},
    {cancel_a_dead_task, "AddressSanitizer: use-after-poison"},
};

static void run_plant(size_t i)
{
    group_init(&other_group);
    loop_run_main(plants[i].main_task, NULL, NULL);
}

/* In a fresh process image, for the option that it needs is read at the start. */
static void exec_plant(void *arg)
{
    char number[] = {(char)('0' + *(size_t *)arg), '\0'};

    setenv("ASAN_OPTIONS", "detect_stack_use_after_return=1:exitcode=99", 1);
    execl("/proc/self/exe", "test-misuse", "plant", number, NULL);
}

static void test_planted_errors_are_found(void **state UNUSED)
{
    static struct child_end end;

    for (size_t i = 0; i < ARRAY_SIZE(plants); i++) {
        run_in_child(exec_plant, &i, &end);
        if (!WIFEXITED(end.status) || WEXITSTATUS(end.status) != 99 ||
            !strstr(end.text, plants[i].report))
            fail_msg("expected \"%s\", got status 0x%x and: %s", plants[i].report,
                     (unsigned int)end.status, end.text);
    }
}

#endif

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mistakes_abort_with_a_message),
        cmocka_unit_test(test_what_is_left_is_listed),
        cmocka_unit_test(test_outside_of_a_task),
        cmocka_unit_test(test_stack_overflow_hits_the_guard),
        cmocka_unit_test(test_other_faults_stay_what_they_are),
#ifdef TEST_ASAN
        cmocka_unit_test(test_planted_errors_are_found),
#endif
    };

#ifdef TEST_ASAN
    if (argc == 3 && str_eq(argv[1], "plant")) {
        run_plant((size_t)(argv[2][0] - '0'));
        return 0;
    }
#endif
    (void)argc;
    (void)argv;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
