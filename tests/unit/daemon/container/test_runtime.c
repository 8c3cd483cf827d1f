#include "tests/unit/task_test.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "daemon/container/runtime.h"
#include "proto/async/await.h"
#include "proto/async/stream.h"
#include "proto/base/strbuf.h"

static char scratch[] = "/tmp/davit-runtime-XXXXXX";

/* --- What runtimes say --------------------------------------------------------------------------
 */

static void errors_have_reasons(void **state UNUSED)
{
    static const char *const cases[][2] = {
        {"runc create failed: unable to start container process: exec: \"nope\": executable file "
         "not "
         "found in $PATH",
         "COMMAND_NOT_FOUND"},
        {"runc create failed: unable to start container process: exec: \"/nope\": stat /nope: no "
         "such "
         "file or directory",
         "COMMAND_NOT_FOUND"},
        {"runc create failed: unable to start container process: exec: \"/etc\": permission denied",
         "COMMAND_NOT_EXECUTABLE"},
        {"unable to start container process: error during container init: exec: \"/\": is a "
         "directory",
         "COMMAND_NOT_EXECUTABLE"},
        {"executable file `nope` not found in $PATH: No such file or directory",
         "COMMAND_NOT_FOUND"},
        {"open executable: Permission denied", "COMMAND_NOT_EXECUTABLE"},
        {"open executable: Operation not permitted", "COMMAND_NOT_EXECUTABLE"},
        {"cgroups in hybrid mode not supported, drop all controllers from cgroupv2",
         "RUNTIME_FAILED"},
        {"mkdir /sys/fs/cgroup/memory/davit: permission denied", "RUNTIME_FAILED"},
        {"stat /data/hosts: no such file or directory", "RUNTIME_FAILED"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        assert_string_equal(runtime_error_reason(cases[i][0]), cases[i][1]);
}

static void check_log(const char *log, const char *expected)
{
    CLEANUP_FREE char *text = runtime_log_error(log, strlen(log));

    if (!str_eq(text, expected))
        fail_msg("expected \"%s\", got \"%s\"", expected, text);
}

static void logs_give_the_last_error(void **state UNUSED)
{
    check_log("", NULL);
    check_log("not json\n{\"level\":\"error\"}\n[]\n", NULL);
    check_log("{\"level\":\"warning\",\"msg\":\"only a warning\"}\n", NULL);
    check_log("{\"level\":\"error\",\"msg\":\"first\"}\n{\"level\":\"error\",\"msg\":\"second\"}\n"
              "{\"level\":\"info\",\"msg\":\"third\"}\n",
              "second");
    check_log("{\"level\":\"fatal\",\"msg\":\"two\\nlines\\u001b[31m \"}", "two lines [31m");
}

/* --- Calls, of a script instead of a runtime ----------------------------------------------------
 */

static void write_script(const char *text)
{
    CLEANUP_FREE char *path = xasprintf("%s/fake", scratch);
    CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);

    assert_true(fd >= 0);
    assert_true(dprintf(fd, "#!/bin/sh\n%s\n", text) > 0);
}

static void use_script(struct runtime_set *set, const char *text)
{
    CLEANUP_FREE char *path = xasprintf("%s/fake", scratch);

    write_script(text);
    runtime_set_init(set, path, scratch);
    assert_int_equal(set->count, 1);
    assert_string_equal(set->items[0].name, "fake");
}

TASK_TEST(version_is_asked_for)
{
    CLEANUP(runtime_set_done) struct runtime_set set = {0};

    use_script(&set, "echo fake version 4.5.6+x; echo commit: 1");
    assert_null(runtime_preferred(&set));
    await_runtime_versions(&set);
    assert_ptr_equal(runtime_preferred(&set), &set.items[0]);
    assert_string_equal(set.items[0].version, "4.5.6+x");
    return true;
}

TASK_TEST(missing_runtime_names_what_to_install)
{
    CLEANUP(runtime_set_done) struct runtime_set set = {0};
    CLEANUP(runtime_set_done) struct runtime_set defaults = {0};
    CLEANUP_ERROR struct error problem = {0};

    runtime_set_init(&set, "/nonexistent/runtime", scratch);
    runtime_set_init(&defaults, NULL, scratch);
    await_runtime_versions(&set);
    assert_null(runtime_preferred(&set));
    assert_false(await_runtime_delete(&set.items[0], "x", &problem));
    assert_true(error_is(&problem, "RUNTIME_MISSING"));
    assert_false(runtime_missing(&set, &problem));
    assert_non_null(strstr(problem.message, "/nonexistent/runtime"));
    assert_false(runtime_missing(&defaults, &problem));
    assert_non_null(strstr(problem.message, "neither crun nor runc"));
    assert_non_null(strstr(problem.hint, "apt-get install"));
    return true;
}

TASK_TEST(failure_is_explained_from_stderr)
{
    CLEANUP(runtime_set_done) struct runtime_set set = {0};
    CLEANUP_ERROR struct error problem = {0};

    use_script(&set, "echo first >&2; echo 'it broke: here' >&2; exit 3");
    assert_false(await_runtime_delete(&set.items[0], "x", &problem));
    assert_true(error_is(&problem, "RUNTIME_FAILED"));
    assert_string_equal(problem.message, "OCI runtime delete failed: it broke: here");
    error_done(&problem);
    write_script("exit 3");
    assert_false(await_runtime_delete(&set.items[0], "x", &problem));
    assert_non_null(strstr(problem.message, "fake ended with status 3"));
    return true;
}

TASK_TEST(hanging_runtime_is_killed_with_its_children)
{
    CLEANUP(runtime_set_done) struct runtime_set set = {0};
    CLEANUP_FREE char *pid_path = xasprintf("%s/child", scratch);
    CLEANUP_ERROR struct error problem = {0};
    char text[32] = "";
    int fd;

    use_script(&set, "sleep 1000 & echo $! >\"$(dirname \"$0\")/child\"; wait");
    set.items[0].timeout_ms = 300;
    assert_false(await_runtime_start(&set.items[0], "x", scratch, &problem));
    assert_true(error_is(&problem, "RUNTIME_TIMEOUT"));
    fd = open(pid_path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0 && read(fd, text, sizeof(text) - 1) > 0);
    close(fd);
    /* SIGKILL was sent; whoever inherits the child may still have to reap it. */
    while (kill(atoi(text), 0) == 0) {
        CLEANUP_FREE char *path = xasprintf("/proc/%d/stat", atoi(text));
        char stat[256] = "";
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || read(fd, stat, sizeof(stat) - 1) <= 0 || strstr(stat, ") Z ")) {
            close_fd(&fd);
            break;
        }
        close_fd(&fd);
        await_yield();
    }
    return true;
}

struct cancelled_call {
    struct runtime *runtime;
    bool returned, ok;
};

static bool call_create(void *arg, struct error *err)
{
    struct cancelled_call *call = arg;
    struct runtime_create create = {.id = "x",
                                    .bundle = scratch,
                                    .fds = {-1, -1, -1},
                                    .stderr_reader = -1};
    pid_t pid = 0;

    call->ok = await_runtime_create(call->runtime, &create, &pid, err);
    call->returned = true;
    assert_true(!call->ok || pid == 4242);
    return call->ok;
}

/* A cancelled caller still learns what the runtime did: there is a container to remove. */
TASK_TEST(cancel_lets_a_call_end)
{
    CLEANUP(runtime_set_done) struct runtime_set set = {0};
    CLEANUP(group_done_await) struct group group;
    struct cancelled_call call = {.returned = false};
    CLEANUP_FREE char *go = xasprintf("%s/go", scratch);
    struct stat st;

    group_init(&group);
    assert_int_equal(mkfifo(go, 0600), 0);
    /* Arguments: --root R --log L --log-format json create --bundle B --pid-file P ID */
    use_script(&set, "d=$(dirname \"$0\"); : >$d/running; read x <$d/go; echo 4242 >\"${11}\"");
    call.runtime = &set.items[0];
    CLEANUP_FREE char *running = xasprintf("%s/running", scratch);
    assert_ok(task_spawn(&group, "create", NULL, call_create, &call, err), err);
    while (stat(running, &st) < 0)
        assert_int_equal(await_yield(), 0);
    group_cancel(&group);
    for (int i = 0; i < 10; i++)
        assert_int_equal(await_yield(), 0);
    assert_false(call.returned);
    int fd = open(go, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0 && write(fd, "\n", 1) == 1);
    close(fd);
    await_group(&group, err);
    assert_true(call.ok);
    return true;
}

static int make_scratch(void **state UNUSED)
{
    return mkdtemp(scratch) ? 0 : -1;
}

static int remove_scratch(void **state UNUSED)
{
    CLEANUP_FREE char *command = xasprintf("rm -rf %s", scratch);

    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_have_reasons),
        cmocka_unit_test(logs_give_the_last_error),
        cmocka_unit_test(version_is_asked_for),
        cmocka_unit_test(missing_runtime_names_what_to_install),
        cmocka_unit_test(failure_is_explained_from_stderr),
        cmocka_unit_test(hanging_runtime_is_killed_with_its_children),
        cmocka_unit_test(cancel_lets_a_call_end),
    };

    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
