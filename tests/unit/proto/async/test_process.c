/* Child processes: descriptors, signals, exit statuses, output with a limit, cancel. */
#include "tests/unit/task_test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "proto/async/await.h"
#include "proto/async/stream.h"

/* Starts `sh -c script`. */
static struct process *await_shell_start(const char *script, struct process_options options,
                                         struct error *err)
{
    char *const argv[] = {"sh", "-c", (char *)script, NULL};
    struct process *process;

    options.argv = argv;
    process = await_process_start(&options, err);
    assert_ok(process, err);
    return process;
}

/* Output of `sh -c script`. */
static char *shell_output(const char *script, struct error *err)
{
    char *const argv[] = {"sh", "-c", (char *)script, NULL};
    char *out = NULL;
    int status = -1;

    assert_ok(await_command(argv, 100000, &status, &out, NULL, err), err);
    assert_int_equal(status, 0);
    return out;
}

/* --- Processes ----------------------------------------------------------------------------------
 */

TASK_TEST(test_exit_statuses)
{
    static const struct {
        const char *script;
        int status;
    } cases[] = {{"exit 0", 0},
                 {"exit 3", 3},
                 {"exit 255", 255},
                 {"kill -TERM $$", 128 + SIGTERM},
                 {"kill -KILL $$", 128 + SIGKILL}};

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP(process_cleanup)
        struct process *process =
            await_shell_start(cases[i].script, (struct process_options){0}, err);
        int status = -1;
        assert_true(process_pid(process) > 0);
        assert_int_equal(await_process(process, &status), 0);
        assert_int_equal(status, cases[i].status);
        status = -1;
        assert_int_equal(await_process(process, &status), 0); /* may be asked again */
        assert_int_equal(status, cases[i].status);
        assert_int_equal(await_process(process, NULL), 0);
        assert_int_equal(process_kill(process, SIGKILL), -ESRCH); /* never a recycled pid */
    }
    return true;
}

TASK_TEST(test_no_such_program)
{
    char *const argv[] = {"no-such-program-of-davit", NULL};
    char *const directory[] = {"/", NULL};
    struct process_options options = {.argv = argv};

    assert_null(await_process_start(&options, err));
    assert_error(err, ERROR_NOT_FOUND, "cannot run no-such-program-of-davit: No such file");
    options.argv = directory;
    assert_null(await_process_start(&options, err));
    assert_error(err, ERROR_PERMISSION_DENIED, "cannot run /: Permission denied");
    assert_false(await_command(argv, 100, NULL, NULL, NULL, err));
    assert_error(err, ERROR_NOT_FOUND, "no-such-program-of-davit");
    return true;
}

TASK_TEST(test_no_such_directory)
{
    char *const argv[] = {"true", NULL};
    const struct process_options options = {.argv = argv, .cwd = "/no/such/directory"};

    assert_null(await_process_start(&options, err));
    assert_error(err, ERROR_NOT_FOUND, "cannot run true in /no/such/directory");
    return true;
}

static bool await_end_body(void *arg, struct error *err)
{
    int status = -1;

    assert_int_equal(await_process(arg, &status), 0);
    assert_int_equal(status, 7);
    (void)err;
    return true;
}

TASK_TEST(test_several_wait_for_one)
{
    CLEANUP(process_cleanup)
    struct process *process = await_shell_start("exit 7", (struct process_options){0}, err);
    CLEANUP(group_done_await) struct group group;

    group_init(&group);
    for (int i = 0; i < 3; i++)
        assert_true(task_spawn(&group, "waiter", NULL, await_end_body, process, err));
    return await_group(&group, err);
}

TASK_TEST(test_kill)
{
    CLEANUP(process_cleanup)
    struct process *process =
        await_shell_start("exec sleep 1000", (struct process_options){0}, err);
    int status = -1;

    assert_int_equal(process_kill(process, 0), 0);
    assert_int_equal(process_kill(process, SIGTERM), 0);
    assert_int_equal(await_process(process, &status), 0);
    assert_int_equal(status, 128 + SIGTERM);
    return true;
}

/* --- What the child sees ------------------------------------------------------------------------
 */

TASK_TEST(test_child_has_the_mapped_descriptors_only)
{
    /* What a library may have left open without CLOEXEC. */
    int strays[] = {fcntl(STDIN_FILENO, F_DUPFD, 7), fcntl(STDIN_FILENO, F_DUPFD, 19)};
    CLEANUP(process_cleanup) struct process *process = NULL;
    struct process_options options = {.fd_count = 6};
    int read_fd, write_fd, status;
    char text[200];
    ssize_t n;

    assert_int_equal(pipe_cloexec(&read_fd, &write_fd), 0);
    options.fds[0] = options.fds[2] = -1;
    options.fds[1] = write_fd;
    options.fds[3] = write_fd;
    options.fds[4] = -1; /* above 2: closed */
    options.fds[5] = write_fd;
    process = await_shell_start("for i in 0 1 2 3 4 5 6 7 8 9 10 11 12 19 20; do"
                                " [ -e /proc/$$/fd/$i ] && echo $i; done; readlink /proc/$$/fd/0;"
                                " readlink /proc/$$/fd/2; echo three >&3; echo five >&5",
                                options, err);
    close(write_fd);
    assert_int_equal(await_process(process, &status), 0);
    n = read(read_fd, text, sizeof(text) - 1);
    close(read_fd);
    assert_true(n > 0);
    text[n] = '\0';
    assert_string_equal(text, "0\n1\n2\n3\n5\n/dev/null\n/dev/null\nthree\nfive\n");
    close(strays[0]);
    close(strays[1]);
    return true;
}

TASK_TEST(test_child_has_default_signals)
{
    /* The loop ignores SIGPIPE; a child must not inherit that, nor a blocked signal. */
    CLEANUP_FREE char *out = shell_output("grep -E 'Sig(Ign|Blk):' /proc/self/status", err);

    assert_string_equal(out, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
    return true;
}

TASK_TEST(test_environment_and_directory)
{
    char *const envp[] = {"PATH=/usr/bin:/bin", "GREETING=hello", NULL};
    CLEANUP(process_cleanup) struct process *process = NULL;
    struct process_options options = {.envp = envp, .cwd = "/proc", .fd_count = 3};
    int read_fd, write_fd;
    char text[200];
    ssize_t n;

    assert_int_equal(pipe_cloexec(&read_fd, &write_fd), 0);
    options.fds[0] = options.fds[2] = -1;
    options.fds[1] = write_fd;
    setenv("OF_THE_DAEMON", "1", 1);
    process = await_shell_start("echo $GREETING $OF_THE_DAEMON; pwd", options, err);
    close(write_fd);
    assert_int_equal(await_process(process, NULL), 0);
    n = read(read_fd, text, sizeof(text) - 1);
    close(read_fd);
    assert_true(n > 0);
    text[n] = '\0';
    assert_string_equal(text, "hello\n/proc\n");
    {
        CLEANUP_FREE char *out = shell_output("echo $OF_THE_DAEMON", err);
        assert_string_equal(out, "1\n"); /* without envp: the daemon's */
    }
    return true;
}

TASK_TEST(test_new_session)
{
    CLEANUP(process_cleanup) struct process *same = NULL;
    CLEANUP(process_cleanup) struct process *own = NULL;

    same = await_shell_start("exec sleep 1000", (struct process_options){0}, err);
    own = await_shell_start("exec sleep 1000", (struct process_options){.new_session = true}, err);
    assert_int_equal(getsid(process_pid(same)), getsid(0));
    assert_int_equal(getsid(process_pid(own)), process_pid(own));
    return true;
}

/* --- Freeing ------------------------------------------------------------------------------------
 */

static pid_t orphan_pid;

TASK_TEST(test_free_kills_in_the_background)
{
    struct process *process =
        await_shell_start("exec sleep 1000", (struct process_options){0}, err);

    orphan_pid = process_pid(process);
    assert_null(process_free(process));
    assert_null(process_free(NULL));
    return true; /* the loop ends with it */
}

static void test_an_orphan_is_reaped_before_the_loop_ends(void **state UNUSED)
{
    assert_true(orphan_pid > 0);
    assert_int_equal(kill(orphan_pid, 0), -1);
    assert_int_equal(errno, ESRCH);
}

/* --- Starting and cancel ------------------------------------------------------------------------
 */

static bool has_child(void)
{
    siginfo_t info;

    return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

struct starter {
    struct process *process;
    bool ended;
    enum error_code code;
};

static bool starter_body(void *arg, struct error *err)
{
    char *const argv[] = {"sleep", "1000", NULL};
    const struct process_options options = {.argv = argv};
    struct starter *starter = arg;

    starter->process = await_process_start(&options, err);
    starter->ended = true;
    starter->code = err->code;
    return starter->process;
}

/* Cancel at the time when there is a process already, but the task has not been told. */
TASK_TEST(test_cancelled_start_leaves_no_process)
{
    int caught = 0;

    assert_false(has_child());
    while (caught < 5) {
        CLEANUP(group_done_await) struct group group;
        struct starter starter = {0};

        group_init(&group);
        assert_true(task_spawn(&group, "starter", NULL, starter_body, &starter, err));
        while (!has_child() && !starter.ended)
            assert_int_equal(await_yield(), 0);
        group_cancel(&group);
        await_group(&group, NULL);
        if (starter.process) {
            process_kill(starter.process, SIGKILL);
            assert_int_equal(await_process(starter.process, NULL), 0);
            process_free(starter.process);
        } else {
            assert_int_equal(starter.code, ERROR_CANCELLED);
            caught++;
        }
        assert_false(has_child());
    }
    return true;
}

static bool exit_body(void *arg UNUSED, struct error *err)
{
    char *argv[] = {"sh", "-c", "exit 3", NULL};
    int status = 0;

    assert_ok(await_command(argv, 100, &status, NULL, NULL, err), err);
    assert_int_equal(status, 3);
    return true;
}

/* As somebody may start us: then the kernel would reap. */
static void test_ignored_child_signal(void **state UNUSED)
{
    signal(SIGCHLD, SIG_IGN);
    run_task(exit_body, NULL);
}

/* --- Commands -----------------------------------------------------------------------------------
 */

TASK_TEST(test_command)
{
    char *argv[] = {"sh", "-c", "echo out; echo err >&2; exit 3", NULL};
    CLEANUP_FREE char *out = NULL;
    CLEANUP_FREE char *errors = NULL;
    int status;

    assert_true(await_command(argv, 1000, &status, &out, &errors, err));
    assert_int_equal(status, 3);
    assert_string_equal(out, "out\n");
    assert_string_equal(errors, "err\n");
    assert_true(await_command(argv, 1000, NULL, NULL, NULL, err)); /* nobody wants to know */
    return true;
}

TASK_TEST(test_command_reads_nothing)
{
    CLEANUP_FREE char *out = shell_output("cat", err); /* its stdin is /dev/null */

    assert_string_equal(out, "");
    return true;
}

TASK_TEST(test_large_output_is_cut_but_drained)
{
    /* 4 MB on each stream, more than any pipe holds: the command ends only if both are read. */
    char *argv[] = {"sh", "-c", "yes out | head -c 4000000; yes err | head -c 4000000 >&2", NULL};
    CLEANUP_FREE char *out = NULL;
    CLEANUP_FREE char *errors = NULL;
    int status = -1;

    assert_ok(await_command(argv, 10001, &status, &out, &errors, err), err);
    assert_int_equal(status, 0);
    assert_int_equal(strlen(out), 10001);
    assert_int_equal(strlen(errors), 10001);
    assert_true(str_starts(out, "out\nout\n") && str_ends(out, "out\no"));
    return true;
}

struct command {
    char *argv[4];
    bool ended;
    enum error_code code;
};

static bool command_body(void *arg, struct error *err)
{
    struct command *command = arg;
    bool ok = await_command(command->argv, 1000, NULL, NULL, NULL, err);

    command->ended = true;
    command->code = err->code;
    return ok;
}

TASK_TEST(test_cancel_kills_the_command)
{
    CLEANUP(group_done_await) struct group group;
    char path[] = "/tmp/test-process.XXXXXX", script[200];
    struct command command = {{"sh", "-c", script, NULL}, false, ERROR_NONE};
    int pid = 0, fd = mkstemp(path);
    FILE *file = fdopen(fd, "r");

    snprintf(script, sizeof(script), "trap '' TERM; echo $$ > %s; exec sleep 1000", path);
    group_init(&group);
    assert_true(task_spawn(&group, "command", NULL, command_body, &command, err));
    while (fscanf(file, "%d", &pid) != 1) {
        rewind(file);
        assert_int_equal(await_sleep(1), 0);
    }
    assert_int_equal(kill(pid, 0), 0);
    group_cancel(&group);
    assert_false(await_group(&group, err));
    assert_int_equal(command.code, ERROR_CANCELLED);
    assert_error(err, ERROR_CANCELLED, "running sh");
    assert_int_equal(kill(pid, 0), -1); /* dead and reaped when the await returned */
    assert_int_equal(errno, ESRCH);
    fclose(file);
    unlink(path);
    return true;
}

TASK_TEST(test_deadline_of_a_command)
{
    char *argv[] = {"sleep", "1000", NULL};
    CLEANUP(deadline_pop) struct deadline deadline;

    deadline_push(&deadline, 5);
    assert_false(await_command(argv, 1000, NULL, NULL, NULL, err));
    assert_error(err, ERROR_DEADLINE_EXCEEDED, "running sleep: timed out");
    return true;
}

TASK_TEST(test_many_commands_at_once)
{
    CLEANUP(group_done_await) struct group group;
    struct command commands[20];

    group_init(&group);
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        commands[i] = (struct command){{"sh", "-c", "echo x; exit 1", NULL}, false, ERROR_NONE};
        assert_true(task_spawn(&group, "command", NULL, command_body, &commands[i], err));
    }
    assert_true(await_group(&group, err));
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        assert_true(commands[i].ended && commands[i].code == ERROR_NONE);
    return true;
}

TASK_TEST(test_no_descriptor_is_left)
{
    char *const good[] = {"true", NULL}, *const bad[] = {"no-such-program-of-davit", NULL};
    int before = dup(STDIN_FILENO), after;

    close(before);
    for (int i = 0; i < 10; i++) {
        assert_true(await_command(good, 10, NULL, NULL, NULL, err));
        assert_false(await_command(bad, 10, NULL, NULL, NULL, err));
        error_done(err);
    }
    after = dup(STDIN_FILENO);
    close(after);
    assert_int_equal(after, before);
    return true;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exit_statuses),
        cmocka_unit_test(test_no_such_program),
        cmocka_unit_test(test_no_such_directory),
        cmocka_unit_test(test_several_wait_for_one),
        cmocka_unit_test(test_kill),
        cmocka_unit_test(test_child_has_the_mapped_descriptors_only),
        cmocka_unit_test(test_child_has_default_signals),
        cmocka_unit_test(test_environment_and_directory),
        cmocka_unit_test(test_new_session),
        cmocka_unit_test(test_free_kills_in_the_background),
        cmocka_unit_test(test_an_orphan_is_reaped_before_the_loop_ends),
        cmocka_unit_test(test_cancelled_start_leaves_no_process),
        cmocka_unit_test(test_ignored_child_signal),
        cmocka_unit_test(test_command),
        cmocka_unit_test(test_command_reads_nothing),
        cmocka_unit_test(test_large_output_is_cut_but_drained),
        cmocka_unit_test(test_cancel_kills_the_command),
        cmocka_unit_test(test_deadline_of_a_command),
        cmocka_unit_test(test_many_commands_at_once),
        cmocka_unit_test(test_no_descriptor_is_left),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
