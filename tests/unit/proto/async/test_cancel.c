/* Cancel and deadlines at every await there is: the await ends at once with the right errno, the
 * task unwinds through its cleanup attributes, and nothing is left behind. */
#include "tests/unit/task_test.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "proto/async/await.h"
#include "proto/async/channel.h"
#include "proto/async/stream.h"

#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#else
#define RUNNING_ON_VALGRIND 0
#endif

/* --- What there is to wait for: none of it ever comes -------------------------------------------
 */

struct world {
    struct stream *empty_pipe, *full_pipe, *listener;
    int far_end_of_empty, far_end_of_full;
    char socket_path[108]; /* of a listener whose queue is full */
    int full_listener_fd, queued_fds[8];
    struct channel *empty, *full;
    struct wait_queue queue;
    struct event event;
    struct process *process;
};

static void fill(struct stream *stream)
{
    char block[4096] = {0};

    while (stream_try_write(stream, block, sizeof(block)) > 0)
        ;
}

/* A listener with a queue of one that is full. */
static void make_full_listener(struct world *world)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(world->socket_path, sizeof(world->socket_path), "/tmp/test-cancel.%d.sock",
             (int)getpid());
    unlink(world->socket_path);
    memcpy(address.sun_path, world->socket_path, sizeof(address.sun_path));
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 0), 0);
    for (size_t i = 0; i < ARRAY_SIZE(world->queued_fds); i++) {
        int queued = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        world->queued_fds[i] = queued;
        if (connect(queued, (struct sockaddr *)&address, sizeof(address)) < 0)
            assert_int_equal(errno, EAGAIN);
    }
    world->full_listener_fd = fd;
}

static char *const long_sleep[] = {"sleep", "1000", NULL};

static struct process *await_long_process(void)
{
    CLEANUP_ERROR struct error err = {0};
    const struct process_options options = {.argv = long_sleep};
    struct process *process = await_process_start(&options, &err);

    assert_ok(process, &err);
    return process;
}

static void await_world_init(struct world *world)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int read_fd, write_fd, fd;

    *world = (struct world){0};
    make_full_listener(world);
    assert_int_equal(pipe_cloexec(&read_fd, &write_fd), 0);
    world->empty_pipe = stream_new(read_fd);
    world->far_end_of_empty = write_fd;
    assert_int_equal(pipe_cloexec(&read_fd, &write_fd), 0);
    world->full_pipe = stream_new(write_fd);
    fill(world->full_pipe);
    world->far_end_of_full = read_fd;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(sa_family_t)), 0);
    assert_int_equal(listen(fd, 4), 0);
    world->listener = stream_new(fd);
    world->empty = channel_new(1);
    world->full = channel_new(1);
    assert_int_equal(await_send(world->full, world), 0);
    wait_queue_init(&world->queue);
    if (!RUNNING_ON_VALGRIND)
        world->process = await_long_process();
}

static void world_done(struct world *world)
{
    stream_free(world->empty_pipe);
    stream_free(world->full_pipe);
    stream_free(world->listener);
    close(world->far_end_of_empty);
    close(world->far_end_of_full);
    close(world->full_listener_fd);
    for (size_t i = 0; i < ARRAY_SIZE(world->queued_fds); i++)
        close(world->queued_fds[i]);
    unlink(world->socket_path);
    channel_free(world->empty, NULL);
    channel_free(world->full, NULL);
    process_free(world->process);
}

/* --- The awaits ---------------------------------------------------------------------------------
 */

/* For the awaits that report by an error object. */
static int errno_of(bool ok, struct error *err)
{
    enum error_code code = err->code;

    error_done(err);
    if (ok)
        return 0;
    return code == ERROR_CANCELLED           ? -ECANCELED
           : code == ERROR_DEADLINE_EXCEEDED ? -ETIMEDOUT
                                             : -EIO;
}

static int do_sleep(struct world *world UNUSED)
{
    return await_sleep(UINT64_MAX);
}

static int do_yield(struct world *world UNUSED)
{
    int r;

    while ((r = await_yield()) == 0)
        ;
    return r;
}

static int do_slice(struct world *world UNUSED)
{
    int r;

    while ((r = await_slice()) == 0)
        ;
    return r;
}

static int do_read(struct world *world)
{
    char byte;

    return (int)await_read(world->empty_pipe, &byte, 1);
}

static int do_readable(struct world *world)
{
    return await_readable(world->empty_pipe);
}

static int do_write(struct world *world)
{
    return await_write(world->full_pipe, "x", 1);
}

static int do_writable(struct world *world)
{
    return await_writable(world->full_pipe);
}

static int do_write_nothing(struct world *world)
{
    int r;

    while ((r = await_write(world->full_pipe, "", 0)) == 0 && (r = await_yield()) == 0)
        ;
    return r;
}

/* Never ends, and never waits for readiness: it must still notice. */
static int do_read_zeroes(struct world *world UNUSED)
{
    CLEANUP(stream_cleanup)
    struct stream *stream = stream_new(open("/dev/zero", O_RDONLY | O_CLOEXEC));
    char block[4096];
    ssize_t n;

    while ((n = await_read(stream, block, sizeof(block))) > 0)
        ;
    return (int)n;
}

static int do_read_file(struct world *world UNUSED)
{
    CLEANUP(stream_cleanup)
    struct stream *stream = stream_new(open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
    char block[64];
    ssize_t n;

    while ((n = await_read(stream, block, sizeof(block))) >= 0) {
        if (n == 0)
            lseek(stream_fd(stream), 0, SEEK_SET);
    }
    return (int)n;
}

static int do_accept(struct world *world)
{
    return await_accept(world->listener);
}

static int do_connect(struct world *world)
{
    CLEANUP_ERROR struct error err = {0};
    int fd = await_connect_unix(world->socket_path, &err);

    assert_int_equal(fd, -1);
    return errno_of(false, &err);
}

static int do_process_start(struct world *world UNUSED)
{
    CLEANUP_ERROR struct error err = {0};
    const struct process_options options = {.argv = long_sleep};
    struct process *process;

    while ((process = await_process_start(&options, &err)))
        process_free(process);
    return errno_of(false, &err);
}

static int do_process(struct world *world)
{
    return await_process(world->process, NULL);
}

static int do_command(struct world *world UNUSED)
{
    CLEANUP_ERROR struct error err = {0};

    return errno_of(await_command(long_sleep, 1000, NULL, NULL, NULL, &err), &err);
}

static int do_send(struct world *world)
{
    return await_send(world->full, world);
}

static int do_recv(struct world *world)
{
    void *item;

    return await_recv(world->empty, &item);
}

static bool sleep_body(void *arg UNUSED, struct error *err)
{
    return await_error(err, await_sleep(UINT64_MAX), "sleeping");
}

static int do_group(struct world *world UNUSED)
{
    CLEANUP_ERROR struct error err = {0};
    CLEANUP(group_done_await) struct group group;

    group_init(&group);
    assert_true(task_spawn(&group, "inner", NULL, sleep_body, NULL, &err));
    return errno_of(await_group(&group, &err), &err);
}

static int do_group_idle(struct world *world UNUSED)
{
    CLEANUP_ERROR struct error err = {0};
    CLEANUP(group_done_await) struct group group;

    group_init(&group);
    assert_true(task_spawn(&group, "inner", NULL, sleep_body, NULL, &err));
    return await_group_idle(&group, UINT64_MAX);
}

static int do_wake(struct world *world)
{
    return await_wake(&world->queue, "waiting for nothing");
}

static int do_event(struct world *world)
{
    return await_event(&world->event, "waiting for nothing");
}

static const struct await_case {
    const char *name;
    int (*await)(struct world *world);
} awaits[] = {
    {"sleep", do_sleep},
    {"yield", do_yield},
    {"slice", do_slice},
    {"read", do_read},
    {"readable", do_readable},
    {"write", do_write},
    {"writable", do_writable},
    {"write nothing", do_write_nothing},
    {"read /dev/zero", do_read_zeroes},
    {"read a file", do_read_file},
    {"accept", do_accept},
    {"connect", do_connect},
    {"send", do_send},
    {"recv", do_recv},
    {"group", do_group},
    {"group idle", do_group_idle},
    {"wake", do_wake},
    {"event", do_event},
    /* from here on not under valgrind, as CMakeLists.txt says */
    {"process start", do_process_start},
    {"process", do_process},
    {"command", do_command},
};

static size_t await_count(void)
{
    return RUNNING_ON_VALGRIND ? ARRAY_SIZE(awaits) - 3 : ARRAY_SIZE(awaits);
}

/* --- The task that awaits -----------------------------------------------------------------------
 */

struct probe {
    const struct await_case *await;
    struct world *world;
    uint64_t timeout_ms; /* 0: none */
    bool started, inner_unwound, outer_unwound;
    int result;
};

static void note_unwinding(bool **flag)
{
    **flag = true;
}

static void await_one(struct probe *probe)
{
    CLEANUP(note_unwinding) bool *inner = &probe->inner_unwound;

    probe->started = true;
    if (probe->timeout_ms) {
        CLEANUP(deadline_pop) struct deadline deadline;
        deadline_push(&deadline, probe->timeout_ms);
        probe->result = probe->await->await(probe->world);
        assert_int_equal(task_check(), probe->result); /* sticky */
    } else {
        probe->result = probe->await->await(probe->world);
        assert_int_equal(task_check(), probe->result);
    }
}

static bool probe_body(void *arg, struct error *err)
{
    struct probe *probe = arg;
    CLEANUP(note_unwinding) bool *outer = &probe->outer_unwound;

    await_one(probe);
    return probe->result < 0 ? await_error(err, probe->result, "the probe") : true;
}

static void check_end(struct probe *probe, struct group *group, int expected)
{
    CLEANUP_ERROR struct error err = {0};

    assert_false(await_group(group, &err));
    if (probe->result != expected)
        fail_msg("%s ended with %d instead of %d", probe->await->name, probe->result, expected);
    assert_true(probe->inner_unwound && probe->outer_unwound);
    assert_int_equal(err.code, expected == -ECANCELED ? ERROR_CANCELLED : ERROR_DEADLINE_EXCEEDED);
    assert_int_equal(task_count(), 1);
}

static struct probe probe_of(size_t index, struct world *world)
{
    return (struct probe){.await = &awaits[index], .world = world};
}

TASK_TEST(test_cancel_while_waiting)
{
    CLEANUP(world_done) struct world world;
    CLEANUP(group_done_await) struct group group;

    await_world_init(&world);
    group_init(&group);
    for (size_t i = 0; i < await_count(); i++) {
        struct probe probe = probe_of(i, &world);
        assert_true(task_spawn(&group, probe.await->name, NULL, probe_body, &probe, err));
        for (int round = 0; round < 4; round++)
            assert_int_equal(await_yield(), 0);
        assert_true(probe.started);
        if (probe.inner_unwound)
            fail_msg("%s did not wait: %d", probe.await->name, probe.result);
        group_cancel(&group);
        check_end(&probe, &group, -ECANCELED);
    }
    return true;
}

TASK_TEST(test_cancel_before_the_start)
{
    CLEANUP(world_done) struct world world;
    CLEANUP(group_done_await) struct group group;

    await_world_init(&world);
    group_init(&group);
    for (size_t i = 0; i < await_count(); i++) {
        struct probe probe = probe_of(i, &world);
        group_cancel(&group);
        assert_true(task_spawn(&group, probe.await->name, NULL, probe_body, &probe, err));
        check_end(&probe, &group, -ECANCELED);
        assert_true(probe.started);
    }
    return true;
}

/* Between the wake-up and the turn of the task. */
TASK_TEST(test_cancel_in_the_same_round_as_the_start)
{
    CLEANUP(world_done) struct world world;
    CLEANUP(group_done_await) struct group group;

    await_world_init(&world);
    group_init(&group);
    for (size_t i = 0; i < await_count(); i++) {
        struct probe probe = probe_of(i, &world);
        assert_true(task_spawn(&group, probe.await->name, NULL, probe_body, &probe, err));
        group_cancel(&group);
        check_end(&probe, &group, -ECANCELED);
    }
    return true;
}

TASK_TEST(test_deadline_while_waiting)
{
    CLEANUP(world_done) struct world world;
    CLEANUP(group_done_await) struct group group;

    await_world_init(&world);
    group_init(&group);
    for (size_t i = 0; i < await_count(); i++) {
        struct probe probe = probe_of(i, &world);
        probe.timeout_ms = 3;
        assert_true(task_spawn(&group, probe.await->name, NULL, probe_body, &probe, err));
        check_end(&probe, &group, -ETIMEDOUT);
    }
    return true;
}

TASK_TEST(test_all_at_once)
{
    CLEANUP(world_done) struct world world;
    CLEANUP(group_done_await) struct group group;
    static struct probe probes[ARRAY_SIZE(awaits)];

    await_world_init(&world);
    group_init(&group);
    for (size_t i = 0; i < await_count(); i++) {
        /* These two use the stream or the event that another one uses. */
        if (awaits[i].await == do_readable || awaits[i].await == do_writable)
            continue;
        probes[i] = probe_of(i, &world);
        assert_true(task_spawn(&group, awaits[i].name, NULL, probe_body, &probes[i], err));
    }
    assert_int_equal(await_sleep(20), 0);
    group_cancel(&group);
    assert_false(await_group(&group, err));
    assert_error(err, ERROR_CANCELLED, "the probe");
    for (size_t i = 0; i < await_count(); i++) {
        if (!probes[i].await)
            continue;
        assert_int_equal(probes[i].result, -ECANCELED);
        assert_true(probes[i].outer_unwound);
    }
    return true;
}

static bool connect_body(void *arg, struct error *err)
{
    return await_connect_unix(arg, err) >= 0;
}

/* A connection that would be made at once, without waiting. */
TASK_TEST(test_connect_of_a_cancelled_task)
{
    CLEANUP(group_done_await) struct group group;
    CLEANUP(stream_cleanup) struct stream *listener = NULL;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof(address.sun_path), "/tmp/test-cancel.%d.sock", (int)getpid());
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 4), 0);
    listener = stream_new(fd);
    group_init(&group);
    group_cancel(&group);
    assert_true(task_spawn(&group, "connect", NULL, connect_body, address.sun_path, err));
    assert_false(await_group(&group, err));
    assert_error(err, ERROR_CANCELLED, "cannot connect to /tmp/test-cancel.");
    assert_int_equal(accept4(fd, NULL, NULL, SOCK_NONBLOCK), -1); /* nobody came */
    unlink(address.sun_path);
    return true;
}

/* --- The thread pool ----------------------------------------------------------------------------
 */

/* The pool has one thread in this program (main), so one work holds it. */
struct gate {
    int read_fd, write_fd;
    bool entered, left;
};

static void pass_gate(void *arg)
{
    struct gate *gate = arg;
    char byte;

    __atomic_store_n(&gate->entered, true, __ATOMIC_SEQ_CST);
    if (read(gate->read_fd, &byte, 1) == 1)
        gate->left = true;
}

static bool gate_body(void *arg, struct error *err)
{
    int r = await_work(pass_gate, arg, "passing the gate");

    return r < 0 ? await_error(err, r, "the gate") : true;
}

static void gate_init(struct gate *gate)
{
    *gate = (struct gate){0};
    assert_int_equal(pipe_cloexec(&gate->read_fd, &gate->write_fd), 0);
}

static void gate_open(struct gate *gate)
{
    assert_int_equal(write(gate->write_fd, "x", 1), 1);
}

static void gate_done(struct gate *gate)
{
    close(gate->read_fd);
    close(gate->write_fd);
}

static void note_work(void *arg)
{
    *(bool *)arg = true;
}

struct worker {
    bool ran, unwound;
    int result;
};

static bool worker_body(void *arg, struct error *err)
{
    struct worker *worker = arg;
    CLEANUP(note_unwinding) bool *unwound = &worker->unwound;

    worker->result = await_work(note_work, &worker->ran, "working");
    return worker->result < 0 ? await_error(err, worker->result, "working") : true;
}

TASK_TEST(test_work_is_withdrawn_before_it_starts)
{
    CLEANUP(gate_done) struct gate gate;
    CLEANUP(group_done_await) struct group holders;
    CLEANUP(group_done_await) struct group group;
    struct worker cancelled = {0}, late = {0};

    gate_init(&gate);
    group_init(&holders);
    group_init(&group);
    assert_true(task_spawn(&holders, "holder", NULL, gate_body, &gate, err));
    assert_int_equal(await_yield(), 0);
    assert_true(task_spawn(&group, "worker", NULL, worker_body, &cancelled, err));
    assert_int_equal(await_yield(), 0);
    group_cancel(&group);
    assert_false(await_group(&group, err)); /* although the thread is held */
    assert_error(err, ERROR_CANCELLED, "working");
    assert_int_equal(cancelled.result, -ECANCELED);
    assert_true(cancelled.unwound);
    {
        CLEANUP(deadline_pop) struct deadline deadline;
        deadline_push(&deadline, 2);
        assert_int_equal(await_work(note_work, &late.ran, "working"), -ETIMEDOUT);
    }
    gate_open(&gate);
    assert_true(await_group(&holders, err));
    assert_true(gate.left);
    assert_false(cancelled.ran || late.ran);
    return true;
}

TASK_TEST(test_work_that_runs_is_waited_for)
{
    CLEANUP(gate_done) struct gate gate;
    CLEANUP(group_done_await) struct group group;

    gate_init(&gate);
    group_init(&group);
    assert_true(task_spawn(&group, "holder", NULL, gate_body, &gate, err));
    while (!__atomic_load_n(&gate.entered, __ATOMIC_SEQ_CST))
        assert_int_equal(await_sleep(1), 0);
    group_cancel(&group);
    for (int i = 0; i < 5; i++)
        assert_int_equal(await_yield(), 0);
    assert_int_equal(group.running, 1);
    gate_open(&gate);
    assert_true(await_group(&group, err)); /* await_work said 0: it was done */
    assert_true(gate.left);
    return true;
}

TASK_TEST(test_work_of_a_cancelled_task_never_starts)
{
    CLEANUP(group_done_await) struct group group;
    struct worker worker = {0};

    group_init(&group);
    group_cancel(&group);
    assert_true(task_spawn(&group, "worker", NULL, worker_body, &worker, err));
    assert_false(await_group(&group, err));
    assert_error(err, ERROR_CANCELLED, "working");
    assert_int_equal(worker.result, -ECANCELED);
    assert_false(worker.ran);
    return true;
}

static bool shielded_work_body(void *arg, struct error *err UNUSED)
{
    CLEANUP(task_unshield) struct task_shield shield = task_shield();

    assert_int_equal(await_work(note_work, arg, "cleaning up"), 0);
    return true;
}

TASK_TEST(test_shielded_work_of_a_cancelled_task_runs)
{
    CLEANUP(group_done_await) struct group group;
    bool ran = false;

    group_init(&group);
    group_cancel(&group);
    assert_true(task_spawn(&group, "cleaner", NULL, shielded_work_body, &ran, err));
    assert_true(await_group(&group, err));
    assert_true(ran);
    return true;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cancel_while_waiting),
        cmocka_unit_test(test_cancel_before_the_start),
        cmocka_unit_test(test_cancel_in_the_same_round_as_the_start),
        cmocka_unit_test(test_deadline_while_waiting),
        cmocka_unit_test(test_all_at_once),
        cmocka_unit_test(test_connect_of_a_cancelled_task),
        cmocka_unit_test(test_work_is_withdrawn_before_it_starts),
        cmocka_unit_test(test_work_that_runs_is_waited_for),
        cmocka_unit_test(test_work_of_a_cancelled_task_never_starts),
        cmocka_unit_test(test_shielded_work_of_a_cancelled_task_runs),
    };

    setenv("UV_THREADPOOL_SIZE", "1", 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
