/* Streams over everything a descriptor can be: pipes, sockets, files, devices, terminals. */
#include "tests/unit/task_test.h"

#include <errno.h>
#include <fcntl.h>
#include <pty.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include "proto/async/await.h"
#include "proto/async/stream.h"

/* Valgrind and the sanitizers are slow. */
#if defined(TEST_ASAN) || defined(TEST_TSAN)
#define BULK_BYTES (20 * MIB)
#else
#define BULK_BYTES (100 * MIB)
#endif

static size_t bulk_bytes(void)
{
    return getenv("DAVIT_TEST_SHORT") ? 1 * MIB : BULK_BYTES;
}

/* --- Bodies -------------------------------------------------------------------------------------
 */

struct transfer {
    struct stream *from, *to;
    size_t size, done;
};

static unsigned char pattern(size_t position)
{
    return (unsigned char)(position * 31 + position / 4096);
}

static bool write_pattern_body(void *arg, struct error *err)
{
    struct transfer *transfer = arg;
    CLEANUP_FREE unsigned char *block = xmalloc(100001);

    while (transfer->done < transfer->size) {
        size_t size = MIN(100001, transfer->size - transfer->done);
        for (size_t i = 0; i < size; i++)
            block[i] = pattern(transfer->done + i);
        int r = await_write(transfer->to, block, size);
        if (r < 0)
            return await_error(err, r, "writing");
        transfer->done += size;
    }
    return true;
}

static bool read_pattern_body(void *arg, struct error *err)
{
    struct transfer *transfer = arg;
    CLEANUP_FREE unsigned char *block = xmalloc(70000);

    while (transfer->done < transfer->size) {
        ssize_t n = await_read(transfer->from, block, 70000);
        if (n < 0)
            return await_error(err, (int)n, "reading");
        if (n == 0)
            return error_set(err, ERROR_DATA_LOSS, NULL, "end at %zu", transfer->done);
        for (ssize_t i = 0; i < n; i++) {
            if (block[i] != pattern(transfer->done + (size_t)i))
                return error_set(err, ERROR_DATA_LOSS, NULL, "wrong byte after %zu",
                                 transfer->done);
        }
        transfer->done += (size_t)n;
    }
    return true;
}

struct reading {
    struct stream *stream;
    char text[100];
    ssize_t result;
};

static bool read_body(void *arg, struct error *err UNUSED)
{
    struct reading *reading = arg;

    reading->result = await_read(reading->stream, reading->text, sizeof(reading->text) - 1);
    return true;
}

static void make_pipe(struct stream **ret_read, struct stream **ret_write)
{
    int read_fd, write_fd;

    assert_int_equal(pipe_cloexec(&read_fd, &write_fd), 0);
    assert_true(fcntl(read_fd, F_GETFD) & FD_CLOEXEC);
    assert_true(fcntl(write_fd, F_GETFD) & FD_CLOEXEC);
    *ret_read = stream_new(read_fd);
    *ret_write = stream_new(write_fd);
}

static void make_sockets(struct stream **ret_a, struct stream **ret_b)
{
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    *ret_a = stream_new(fds[0]);
    *ret_b = stream_new(fds[1]);
}

/* An unnamed regular file. */
static int make_file(void)
{
    int fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    return fd;
}

/* --- Pipes --------------------------------------------------------------------------------------
 */

TASK_TEST(test_pipe)
{
    CLEANUP(stream_cleanup) struct stream *reader = NULL;
    CLEANUP(stream_cleanup) struct stream *writer = NULL;
    char text[10] = "";

    make_pipe(&reader, &writer);
    assert_int_equal(stream_try_read(reader, text, sizeof(text)), -EAGAIN);
    assert_int_equal(await_writable(writer), 0);
    assert_int_equal(await_write(writer, "hello", 5), 0);
    assert_int_equal(await_readable(reader), 0);
    assert_int_equal(await_read(reader, text, 3), 3);
    assert_string_equal(text, "hel");
    assert_int_equal(await_read(reader, text, sizeof(text)), 2);
    writer = stream_free(writer);
    assert_int_equal(await_readable(reader), 0);
    assert_int_equal(await_read(reader, text, sizeof(text)), 0); /* the end, again and again */
    assert_int_equal(await_read(reader, text, sizeof(text)), 0);
    return true;
}

TASK_TEST(test_reader_waits_for_the_writer)
{
    CLEANUP(stream_cleanup) struct stream *reader = NULL;
    CLEANUP(stream_cleanup) struct stream *writer = NULL;
    CLEANUP(group_done_await) struct group group;
    struct reading reading = {0};

    make_pipe(&reader, &writer);
    reading.stream = reader;
    group_init(&group);
    assert_true(task_spawn(&group, "reader", NULL, read_body, &reading, err));
    for (int i = 0; i < 3; i++)
        assert_int_equal(await_yield(), 0);
    assert_int_equal(group.running, 1);
    assert_int_equal(await_write(writer, "now", 3), 0);
    assert_true(await_group(&group, err));
    assert_int_equal(reading.result, 3);
    assert_string_equal(reading.text, "now");
    /* The end is an event as well. */
    assert_true(task_spawn(&group, "reader", NULL, read_body, &reading, err));
    for (int i = 0; i < 3; i++)
        assert_int_equal(await_yield(), 0);
    writer = stream_free(writer);
    assert_true(await_group(&group, err));
    assert_int_equal(reading.result, 0);
    return true;
}

TASK_TEST(test_bulk_through_a_pipe)
{
    CLEANUP(stream_cleanup) struct stream *reader = NULL;
    CLEANUP(stream_cleanup) struct stream *writer = NULL;
    CLEANUP(group_done_await) struct group group;
    struct transfer in = {.size = bulk_bytes()}, out = {.size = bulk_bytes()};

    make_pipe(&reader, &writer);
    out.to = writer;
    in.from = reader;
    group_init(&group);
    assert_true(task_spawn(&group, "writer", NULL, write_pattern_body, &out, err));
    assert_true(task_spawn(&group, "reader", NULL, read_pattern_body, &in, err));
    if (!await_group(&group, err))
        return false;
    assert_int_equal(in.done, in.size);
    assert_int_equal(stream_try_read(reader, &in, 1), -EAGAIN); /* and not a byte more */
    return true;
}

TASK_TEST(test_writing_to_nobody)
{
    CLEANUP(stream_cleanup) struct stream *reader = NULL;
    CLEANUP(stream_cleanup) struct stream *writer = NULL;
    CLEANUP(group_done_await) struct group group;
    struct transfer out = {.size = 1 * MIB};

    make_pipe(&reader, &writer);
    out.to = writer;
    group_init(&group);
    assert_true(task_spawn(&group, "writer", NULL, write_pattern_body, &out, err));
    for (int i = 0; i < 3; i++)
        assert_int_equal(await_yield(), 0);
    assert_int_equal(group.running, 1); /* waits: the pipe is full */
    reader = stream_free(reader);
    assert_false(await_group(&group, err));
    assert_error(err, ERROR_UNAVAILABLE, "writing: Broken pipe"); /* and no SIGPIPE */
    return true;
}

/* --- Sockets ------------------------------------------------------------------------------------
 */

TASK_TEST(test_socket_both_ways_at_once)
{
    CLEANUP(stream_cleanup) struct stream *a = NULL;
    CLEANUP(stream_cleanup) struct stream *b = NULL;
    CLEANUP(group_done_await) struct group group;
    size_t size = bulk_bytes() / 10;
    struct transfer transfers[4];

    /* One task reads and one writes at each end. */
    make_sockets(&a, &b);
    group_init(&group);
    transfers[0] = (struct transfer){.to = a, .size = size};
    transfers[1] = (struct transfer){.from = a, .size = size};
    transfers[2] = (struct transfer){.to = b, .size = size};
    transfers[3] = (struct transfer){.from = b, .size = size};
    for (int i = 0; i < 4; i++) {
        assert_true(task_spawn(&group, i % 2 ? "reader" : "writer", NULL,
                               i % 2 ? read_pattern_body : write_pattern_body, &transfers[i], err));
    }
    return await_group(&group, err);
}

TASK_TEST(test_socket_closed_by_the_peer)
{
    CLEANUP(stream_cleanup) struct stream *a = NULL;
    CLEANUP(stream_cleanup) struct stream *b = NULL;
    char byte;

    make_sockets(&a, &b);
    b = stream_free(b);
    assert_int_equal(await_read(a, &byte, 1), 0);
    assert_int_equal(await_write(a, "x", 1), -EPIPE);
    return true;
}

TASK_TEST(test_half_close)
{
    CLEANUP(stream_cleanup) struct stream *a = NULL;
    CLEANUP(stream_cleanup) struct stream *b = NULL;
    char byte;

    make_sockets(&a, &b);
    assert_int_equal(shutdown(stream_fd(b), SHUT_WR), 0);
    assert_int_equal(await_read(a, &byte, 1), 0);
    assert_int_equal(await_write(a, "x", 1), 0);
    assert_int_equal(await_read(b, &byte, 1), 1);
    return true;
}

TASK_TEST(test_cancelled_reader_leaves_the_writer_alone)
{
    CLEANUP(stream_cleanup) struct stream *a = NULL;
    CLEANUP(stream_cleanup) struct stream *b = NULL;
    CLEANUP(group_done_await) struct group readers;
    CLEANUP(group_done_await) struct group writers;
    struct reading reading = {0};
    struct transfer out = {.size = 1 * MIB}, in = {.size = 1 * MIB};

    make_sockets(&a, &b);
    reading.stream = out.to = a;
    in.from = b;
    group_init(&readers);
    group_init(&writers);
    assert_true(task_spawn(&readers, "reader", NULL, read_body, &reading, err));
    assert_true(task_spawn(&writers, "writer", NULL, write_pattern_body, &out, err));
    for (int i = 0; i < 3; i++)
        assert_int_equal(await_yield(), 0);
    group_cancel(&readers);
    assert_true(await_group(&readers, err));
    assert_int_equal(reading.result, -ECANCELED);
    assert_true(read_pattern_body(&in, err));
    assert_true(await_group(&writers, err));
    /* And the stream can be read again. */
    assert_int_equal(await_write(b, "again", 5), 0);
    assert_true(read_body(&reading, err));
    assert_int_equal(reading.result, 5);
    return true;
}

TASK_TEST(test_free_while_watched_by_nobody)
{
    /* A wait has come and gone, the kernel still knows the descriptor; it is free at once and its
     * number may be used again. */
    for (int i = 0; i < 5; i++) {
        struct stream *a, *b;
        CLEANUP(deadline_pop) struct deadline deadline;
        char byte;
        make_sockets(&a, &b);
        deadline_push(&deadline, 1);
        assert_int_equal(await_read(a, &byte, 1), -ETIMEDOUT);
        assert_int_equal(stream_try_write(b, "x", 1), 1);
        assert_null(stream_free(a));
        assert_null(stream_free(b));
        assert_null(stream_free(NULL));
    }
    return true;
}

TASK_TEST(test_release_hands_the_descriptor_on)
{
    CLEANUP(stream_cleanup) struct stream *again = NULL;
    struct stream *a, *b;
    char byte;
    int fd;

    make_sockets(&a, &b);
    {
        CLEANUP(deadline_pop) struct deadline deadline;
        deadline_push(&deadline, 1);
        assert_int_equal(await_read(a, &byte, 1), -ETIMEDOUT);
    }
    fd = stream_release(a);
    again = stream_new(fd);
    assert_int_equal(stream_try_write(b, "x", 1), 1);
    assert_int_equal(await_readable(again), 0);
    assert_int_equal(await_read(again, &byte, 1), 1);
    stream_free(b);
    return true;
}

/* What is readable, but waited for by nobody, must not keep the loop busy. */
TASK_TEST(test_nobody_waits_for_nothing)
{
    CLEANUP(stream_cleanup) struct stream *a = NULL;
    CLEANUP(stream_cleanup) struct stream *b = NULL;
    size_t least_us = SIZE_MAX;
    char byte;

    make_sockets(&a, &b);
    {
        CLEANUP(deadline_pop) struct deadline deadline;
        deadline_push(&deadline, 1);
        assert_int_equal(await_read(a, &byte, 1), -ETIMEDOUT);
    }
    assert_int_equal(await_write(b, "x", 1), 0);
    /* Time of the processor, while this task sleeps; the machine may add some of its own. */
    for (int i = 0; i < 10 && least_us > 10000; i++) {
        clock_t before = clock();
        assert_int_equal(await_sleep(50), 0);
        least_us = MIN(least_us, (size_t)(clock() - before) * 1000000 / CLOCKS_PER_SEC);
    }
    assert_in_range(least_us, 0, 10000);
    return true;
}

/* --- Listening and connecting -------------------------------------------------------------------
 */

static struct stream *listen_at(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    unlink(path);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 1), 0);
    return stream_new(fd);
}

static bool accept_body(void *arg, struct error *err)
{
    struct stream *listener = arg;

    for (int i = 0; i < 20; i++) {
        CLEANUP(stream_cleanup) struct stream *stream = NULL;
        int fd = await_accept(listener);
        if (fd < 0)
            return await_error(err, fd, "accepting");
        assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
        stream = stream_new(fd);
        assert_int_equal(await_write(stream, "hi", 2), 0);
        assert_int_equal(await_yield(), 0);
    }
    return true;
}

static bool connect_body(void *arg, struct error *err)
{
    CLEANUP(stream_cleanup) struct stream *stream = NULL;
    char text[3] = "";
    int fd = await_connect_unix(arg, err);

    if (fd < 0)
        return false;
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    stream = stream_new(fd);
    assert_int_equal(await_read(stream, text, 2), 2);
    assert_string_equal(text, "hi");
    return true;
}

/* More at once than the queue holds: the rest try again. */
TASK_TEST(test_accept_and_connect)
{
    CLEANUP(group_done_await) struct group group;
    CLEANUP_FREE char *path = xasprintf("/tmp/test-stream.%d.sock", (int)getpid());
    CLEANUP(stream_cleanup) struct stream *listener = listen_at(path);

    group_init(&group);
    for (int i = 0; i < 20; i++)
        assert_true(task_spawn(&group, "connect", NULL, connect_body, path, err));
    assert_int_equal(await_yield(), 0);
    assert_true(task_spawn(&group, "accept", NULL, accept_body, listener, err));
    assert_ok(await_group(&group, err), err);
    unlink(path);
    return true;
}

TASK_TEST(test_connect_errors)
{
    CLEANUP_FREE char *path = xasprintf("/tmp/test-stream.%d.sock", (int)getpid());
    char long_path[200];
    struct stream *listener;

    assert_int_equal(await_connect_unix(path, err), -1);
    assert_error(err, ERROR_NOT_FOUND, "cannot connect to /tmp/test-stream.");
    listener = listen_at(path);
    stream_free(listener); /* the socket file stays: a daemon that has died */
    assert_int_equal(await_connect_unix(path, err), -1);
    assert_error(err, ERROR_UNAVAILABLE, "Connection refused");
    unlink(path);
    memset(long_path, 'x', sizeof(long_path));
    long_path[199] = '\0';
    assert_int_equal(await_connect_unix(long_path, err), -1);
    assert_error(err, ERROR_INVALID_ARGUMENT, "too long: 199 bytes, the limit is 107");
    return true;
}

/* --- Files and devices --------------------------------------------------------------------------
 */

TASK_TEST(test_regular_file)
{
    int fd = make_file();
    CLEANUP(stream_cleanup) struct stream *file = stream_new(fd);
    struct transfer out = {.to = file, .size = 3 * MIB + 7}, in = {.from = file};
    char byte;

    assert_true(write_pattern_body(&out, err));
    assert_int_equal(lseek(fd, 0, SEEK_END), 3 * MIB + 7);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    in.size = out.size;
    assert_true(read_pattern_body(&in, err));
    assert_int_equal(await_read(file, &byte, 1), 0);
    assert_int_equal(await_readable(file), 0); /* a file is always ready */
    assert_int_equal(await_writable(file), 0);
    return true;
}

TASK_TEST(test_file_errors)
{
    CLEANUP(stream_cleanup) struct stream *file = stream_new(open("/proc/self/exe", O_RDONLY));
    CLEANUP(stream_cleanup) struct stream *full = stream_new(open("/dev/full", O_RDWR));
    CLEANUP(stream_cleanup) struct stream *directory = stream_new(open("/", O_RDONLY));
    char byte;

    assert_int_equal(await_write(file, "x", 1), -EBADF);
    assert_int_equal(await_write(full, "x", 1), -ENOSPC);
    assert_int_equal(await_read(directory, &byte, 1), -EISDIR);
    return true;
}

TASK_TEST(test_dev_null)
{
    CLEANUP(stream_cleanup) struct stream *null = stream_new(open("/dev/null", O_RDWR | O_CLOEXEC));
    char byte;

    assert_int_equal(await_write(null, "x", 1), 0);
    assert_int_equal(await_read(null, &byte, 1), 0);
    assert_int_equal(await_readable(null), 0); /* epoll refuses it */
    assert_int_equal(await_writable(null), 0);
    assert_int_equal(await_read(null, &byte, 1), 0); /* from now on in the pool */
    assert_int_equal(await_write(null, "x", 1), 0);
    return true;
}

TASK_TEST(test_terminal)
{
    CLEANUP(stream_cleanup) struct stream *master = NULL;
    CLEANUP(stream_cleanup) struct stream *slave = NULL;
    CLEANUP(group_done_await) struct group group;
    struct reading reading = {0};
    int master_fd, slave_fd;
    char text[100] = "";

    assert_int_equal(openpty(&master_fd, &slave_fd, NULL, NULL, NULL), 0);
    master = stream_new(master_fd);
    slave = stream_new(slave_fd);
    reading.stream = slave;
    group_init(&group);
    assert_true(task_spawn(&group, "reader", NULL, read_body, &reading, err));
    for (int i = 0; i < 3; i++)
        assert_int_equal(await_yield(), 0);
    assert_int_equal(await_write(master, "line\n", 5), 0);
    assert_true(await_group(&group, err));
    assert_string_equal(reading.text, "line\n");
    assert_int_equal(await_read(master, text, sizeof(text)), 6); /* the echo */
    assert_string_equal(text, "line\r\n");
    assert_int_equal(await_write(slave, "out", 3), 0);
    assert_int_equal(await_read(master, text, sizeof(text)), 3);
    slave = stream_free(slave);
    assert_int_equal(await_read(master, text, sizeof(text)), -EIO); /* as Linux says hang-up */
    return true;
}

/* --- What is shared with other processes --------------------------------------------------------
 */

struct shared_case {
    int (*open_pair)(int fds[2]); /* [0]: read end, to be stdin; [1]: write end */
};

static int open_pipe_pair(int fds[2])
{
    return pipe(fds);
}

static int open_pty_pair(int fds[2])
{
    int r = openpty(&fds[1], &fds[0], NULL, NULL, NULL);

    return r;
}

static int open_socket_pair(int fds[2])
{
    return socketpair(AF_UNIX, SOCK_STREAM, 0, fds);
}

static bool use_stdin(void *arg, struct error *err)
{
    const int *fds = arg;
    CLEANUP(stream_cleanup) struct stream *input = stream_new(STDIN_FILENO);
    CLEANUP(group_done_await) struct group group;
    struct reading reading = {.stream = input};

    group_init(&group);
    CHECK(task_spawn(&group, "reader", NULL, read_body, &reading, err));
    CHECK(await_sleep(2) == 0);
    CHECK(group.running == 1);                     /* it waits, the loop runs */
    CHECK(!(fcntl(fds[0], F_GETFL) & O_NONBLOCK)); /* the other holder sees no change */
    CHECK(write(fds[1], "typed\n", 6) == 6);
    CHECK(await_group(&group, err));
    CHECK(reading.result == 6 && strcmp(reading.text, "typed\n") == 0);
    CHECK(!(fcntl(fds[0], F_GETFL) & O_NONBLOCK));
    return true;
}

static void in_child_with_stdin(void *arg)
{
    const struct shared_case *shared = arg;
    struct error err = {0};
    int fds[2];

    CHECK(shared->open_pair(fds) == 0);
    CHECK(dup2(fds[0], STDIN_FILENO) == STDIN_FILENO);
    CHECK(loop_run_main(use_stdin, fds, &err));
}

static void test_stdin_stays_blocking_for_the_others(void **state UNUSED)
{
    struct shared_case cases[] = {{open_pipe_pair}, {open_pty_pair}, {open_socket_pair}};
    static struct child_end end;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        run_in_child(in_child_with_stdin, &cases[i], &end);
        if (end.status)
            fail_msg("case %zu: status 0x%x: %s", i, (unsigned int)end.status, end.text);
    }
}

static bool drain_later_body(void *arg, struct error *err UNUSED)
{
    int fd = *(int *)arg;
    char block[8192];
    size_t total = 0;

    while (total < 300000) {
        ssize_t n = read(fd, block, sizeof(block));
        if (n < 0 && errno == EAGAIN) {
            CHECK(await_sleep(1) == 0);
            continue;
        }
        CHECK(n > 0);
        total += (size_t)n;
    }
    return true;
}

static bool fill_stdout(void *arg, struct error *err)
{
    CLEANUP(stream_cleanup) struct stream *output = stream_new(STDOUT_FILENO);
    CLEANUP(group_done_await) struct group group;
    CLEANUP_FREE char *data = xcalloc(1, 300000);

    group_init(&group);
    CHECK(task_spawn(&group, "drain", NULL, drain_later_body, arg, err));
    /* A blocking write would wait for ever: the reader is a task of this very thread. */
    CHECK(await_write(output, data, 300000) == 0);
    CHECK(await_group(&group, err));
    CHECK(!(fcntl(STDOUT_FILENO, F_GETFL) & O_NONBLOCK));
    return true;
}

static void in_child_with_stdout(void *arg)
{
    const struct shared_case *shared = arg;
    struct error err = {0};
    int fds[2];

    CHECK(shared->open_pair(fds) == 0);
    CHECK(dup2(fds[1], STDOUT_FILENO) == STDOUT_FILENO);
    fcntl(fds[0], F_SETFL, O_NONBLOCK);
    alarm(20);
    CHECK(loop_run_main(fill_stdout, &fds[0], &err));
}

static void test_stdout_never_blocks_the_loop(void **state UNUSED)
{
    struct shared_case cases[] = {{open_pipe_pair}, {open_socket_pair}};
    static struct child_end end;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        run_in_child(in_child_with_stdout, &cases[i], &end);
        if (end.status)
            fail_msg("case %zu: status 0x%x: %s", i, (unsigned int)end.status, end.text);
    }
}

/* --- Fairness -----------------------------------------------------------------------------------
 */

static bool tick_body(void *arg, struct error *err)
{
    bool *stop = arg;

    for (int i = 0; i < 20; i++) {
        int r = await_sleep(1);
        if (r < 0)
            return await_error(err, r, "ticking");
    }
    *stop = true;
    return true;
}

struct flood {
    struct stream *stream;
    const bool *stop;
};

static bool flood_body(void *arg, struct error *err)
{
    struct flood *flood = arg;
    static char block[65536];

    while (!*flood->stop) {
        int r = await_write(flood->stream, block, sizeof(block));
        if (r < 0)
            return await_error(err, r, "flooding");
    }
    flood->stream = stream_free(flood->stream);
    return true;
}

static bool drain_body(void *arg, struct error *err)
{
    static char block[65536];
    ssize_t n;

    while ((n = await_read(arg, block, sizeof(block))) > 0)
        ;
    return n < 0 ? await_error(err, (int)n, "draining") : true;
}

/* The flood stops only when the timer has ticked. */
TASK_TEST(test_a_flood_does_not_starve_a_timer)
{
    CLEANUP(stream_cleanup) struct stream *reader = NULL;
    CLEANUP(group_done_await) struct group group;
    struct flood flood = {0};
    bool stop = false;

    flood.stop = &stop;
    make_pipe(&reader, &flood.stream);
    group_init(&group);
    assert_true(task_spawn(&group, "flood", NULL, flood_body, &flood, err));
    assert_true(task_spawn(&group, "drain", NULL, drain_body, reader, err));
    assert_true(task_spawn(&group, "tick", NULL, tick_body, &stop, err));
    return await_group(&group, err);
}

/* A descriptor that is always ready never makes its reader wait. */
TASK_TEST(test_an_endless_source_does_not_starve_a_timer)
{
    CLEANUP(stream_cleanup) struct stream *zero = stream_new(open("/dev/zero", O_RDONLY));
    CLEANUP(group_done_await) struct group group;
    bool stop = false;
    char block[512];

    group_init(&group);
    assert_true(task_spawn(&group, "tick", NULL, tick_body, &stop, err));
    while (!stop)
        assert_int_equal(await_read(zero, block, sizeof(block)), sizeof(block));
    return await_group(&group, err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stdin_stays_blocking_for_the_others), /* forks: before any thread */
        cmocka_unit_test(test_stdout_never_blocks_the_loop),
        cmocka_unit_test(test_pipe),
        cmocka_unit_test(test_reader_waits_for_the_writer),
        cmocka_unit_test(test_bulk_through_a_pipe),
        cmocka_unit_test(test_writing_to_nobody),
        cmocka_unit_test(test_socket_both_ways_at_once),
        cmocka_unit_test(test_socket_closed_by_the_peer),
        cmocka_unit_test(test_half_close),
        cmocka_unit_test(test_cancelled_reader_leaves_the_writer_alone),
        cmocka_unit_test(test_free_while_watched_by_nobody),
        cmocka_unit_test(test_nobody_waits_for_nothing),
        cmocka_unit_test(test_release_hands_the_descriptor_on),
        cmocka_unit_test(test_accept_and_connect),
        cmocka_unit_test(test_connect_errors),
        cmocka_unit_test(test_regular_file),
        cmocka_unit_test(test_file_errors),
        cmocka_unit_test(test_dev_null),
        cmocka_unit_test(test_terminal),
        cmocka_unit_test(test_a_flood_does_not_starve_a_timer),
        cmocka_unit_test(test_an_endless_source_does_not_starve_a_timer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
