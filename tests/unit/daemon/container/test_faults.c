/* What goes wrong around containers: runtimes, cancel at any moment, a daemon that is killed. After
 * each test the fixture checks that no mount, process, cgroup or directory is left. */
#include "tests/unit/daemon/container/run_fixture.h"

#include <fcntl.h>

#include "proto/async/await.h"

static void write_fake_runtime(const char *name, const char *script)
{
    CLEANUP_FREE char *path = scratch_path("bin/%s", name);
    CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);

    assert_true(fd >= 0);
    assert_true(dprintf(fd, "#!/bin/sh\n%s\n", script) > 0);
}

static void remove_fake_runtime(const char *name)
{
    CLEANUP_FREE char *path = scratch_path("bin/%s", name);

    assert_int_equal(unlink(path), 0);
}

/* --- Runtimes -----------------------------------------------------------------------------------
 */

TASK_TEST(runtime_that_does_not_work_is_passed_over)
{
    CLEANUP(world_done_await) struct world world = {NULL, NULL};
    CLEANUP(outcome_done) struct outcome outcome = {0};

    write_fake_runtime("crun", "[ \"$1\" = --version ] && { echo crun version 1.8; exit; }\n"
                               "echo 'cannot do cgroups here' >&2; exit 1");
    assert_ok(world_open_await(&world, NULL, NULL, 0, NULL, err), err);
    while (!*container_runtime_name(world.engine))
        assert_int_equal(await_yield(), 0);
    assert_string_equal(container_runtime_name(world.engine), "crun");
    await_run(&world, (struct container_options){.command = SCRIPT("echo hello; exit 3")}, NULL,
              &outcome);
    assert_ok(outcome.exit_code == 3, &outcome.error);
    assert_string_equal(outcome.out, "hello\n");
    assert_string_equal(outcome.err_text, ""); /* nothing of crun's */
    assert_string_equal(container_runtime_name(world.engine), "runc");
    assert_string_not_equal(container_runtime_version(world.engine), "");
    remove_fake_runtime("crun");
    return true;
}

TASK_TEST(missing_command_settles_the_runtime)
{
    CLEANUP(world_done_await) struct world world = {NULL, NULL};
    CLEANUP(outcome_done) struct outcome outcome = {0};

    assert_ok(world_open_await(&world, NULL, NULL, 0, NULL, err), err);
    await_run(&world, (struct container_options){.command = COMMAND("nope")}, NULL, &outcome);
    assert_true(error_is(&outcome.error, "COMMAND_NOT_FOUND"));
    assert_string_equal(container_runtime_name(world.engine), "runc");
    return true;
}

TASK_TEST(missing_runtime_says_so)
{
    CLEANUP(world_done_await) struct world world = {NULL, NULL};
    CLEANUP(outcome_done) struct outcome outcome = {0};

    assert_ok(world_open_await(&world, NULL, NULL, 0, "/no/such/runtime", err), err);
    assert_false(container_runtime_absent(world.engine)); /* not asked yet */
    while (!container_runtime_absent(world.engine))
        assert_int_equal(await_yield(), 0);
    assert_string_equal(container_runtime_name(world.engine), "");
    await_run(&world, (struct container_options){.command = COMMAND("true")}, NULL, &outcome);
    assert_true(error_is(&outcome.error, "RUNTIME_MISSING"));
    assert_non_null(strstr(outcome.error.message, "/no/such/runtime"));
    assert_non_null(outcome.error.hint);
    return true;
}

TASK_TEST(forced_runtime_is_not_replaced)
{
    CLEANUP(world_done_await) struct world world = {NULL, NULL};
    CLEANUP(outcome_done) struct outcome outcome = {0};
    CLEANUP_FREE char *path = scratch_path("bin/broken");

    write_fake_runtime("broken", "echo 'no reason' >&2; exit 1");
    assert_ok(world_open_await(&world, NULL, NULL, 0, path, err), err);
    await_run(&world, (struct container_options){.command = COMMAND("true")}, NULL, &outcome);
    assert_true(error_is(&outcome.error, "RUNTIME_FAILED"));
    assert_string_equal(outcome.error.message, "OCI runtime create failed: no reason");
    remove_fake_runtime("broken");
    return true;
}

/* --- Steps that fail ----------------------------------------------------------------------------
 */

TASK_TEST(layer_that_cannot_be_mounted)
{
    CLEANUP(world_done_await) struct world world = {NULL, NULL};
    CLEANUP(outcome_done) struct outcome outcome = {0};
    CLEANUP_FREE char *layer = scratch_path("layer");
    char *const layers[] = {layer, layer, layer};

    assert_ok(world_open_await(&world, BUSYBOX_CONFIG, layers, 3, "runc", err), err);
    stub_fail_mount(world.store, 1);
    await_run(&world, (struct container_options){.command = COMMAND("true")}, NULL, &outcome);
    assert_error(&outcome.error, ERROR_INTERNAL, "cannot mount layer 1");
    return true;
}

TASK_TEST(layer_that_is_gone)
{
    CLEANUP(world_done_await) struct world world = {NULL, NULL};
    CLEANUP(outcome_done) struct outcome outcome = {0};
    CLEANUP_FREE char *layer = scratch_path("no-such-layer");

    assert_ok(world_open_await(&world, BUSYBOX_CONFIG, &layer, 1, "runc", err), err);
    await_run(&world, (struct container_options){.command = COMMAND("true")}, NULL, &outcome);
    assert_error(&outcome.error, ERROR_NOT_FOUND, "no-such-layer");
    return true;
}

TASK_TEST(second_start_is_refused)
{
    CLEANUP_ERROR struct error problem = {0};
    struct container *container;
    WORLD(world);

    container = await_start_script(&world, "echo ready; sleep 1000", err);
    assert_ok(container != NULL, err);
    assert_false(await_container_start(container, &problem));
    assert_error(&problem, ERROR_FAILED_PRECONDITION, "has been started");
    container_free_await(container);
    return true;
}

TASK_TEST(created_container_may_go_unstarted)
{
    struct container_options options = {.command = COMMAND("true"), .remove = true};
    struct container *container;
    WORLD(world);

    options.image = stub_image(world.store);
    container = await_container_create(world.engine, &options, err);
    assert_ok(container != NULL, err);
    assert_int_equal(container_count(world.engine), 1);
    assert_int_equal(container_running_count(world.engine), 0);
    container_free_await(container);
    assert_int_equal(container_count(world.engine), 0);
    return true;
}

/* --- Cancel -------------------------------------------------------------------------------------
 */

static bool run_for_ever(void *arg, struct error *err)
{
    struct world *world = arg;
    CLEANUP(outcome_done) struct outcome outcome = {0};

    await_run(world, (struct container_options){.command = SCRIPT("echo x; sleep 1000")}, NULL,
              &outcome);
    assert_int_equal(outcome.error.code, ERROR_CANCELLED);
    return error_move(err, &outcome.error);
}

/* Every few milliseconds of the first 60: in the mount, in the runtime's calls, in the run. */
TASK_TEST(cancel_at_any_moment_leaves_nothing)
{
    for (uint64_t ms = 0; ms < 60; ms += 3) {
        CLEANUP(group_done_await) struct group group;
        CLEANUP_ERROR struct error problem = {0};
        WORLD(world);
        group_init(&group);
        assert_ok(task_spawn(&group, "run", NULL, run_for_ever, &world, err), err);
        assert_int_equal(await_sleep(ms), 0);
        group_cancel(&group);
        assert_false(await_group(&group, &problem));
        assert_int_equal(problem.code, ERROR_CANCELLED);
    }
    return true;
}

struct runner {
    struct world *world;
    struct container *container;
    struct wait_queue ready;
};

static bool run_and_free(void *arg, struct error *err)
{
    struct runner *runner = arg;
    bool ok;

    runner->container = await_start_script(runner->world, "echo ready; sleep 1000", err);
    assert_ok(runner->container != NULL, err);
    wake_all(&runner->ready);
    ok = await_container_exit(runner->container, NULL, err);
    container_free_await(runner->container);
    return ok;
}

TASK_TEST(cancel_of_a_running_container)
{
    CLEANUP(group_done_await) struct group group;
    struct runner runner = {.container = NULL};
    CLEANUP_ERROR struct error problem = {0};
    WORLD(world);

    group_init(&group);
    wait_queue_init(&runner.ready);
    runner.world = &world;
    assert_ok(task_spawn(&group, "run", NULL, run_and_free, &runner, err), err);
    while (!runner.container)
        assert_int_equal(await_wake(&runner.ready, "ready"), 0);
    group_cancel(&group);
    assert_false(await_group(&group, &problem));
    assert_int_equal(problem.code, ERROR_CANCELLED);
    return true;
}

/* The engine's end kills what runs; the owner's task sees an exit like any other. */
TASK_TEST(end_of_the_engine_ends_containers)
{
    CLEANUP(world_done_await) struct world world = {NULL, NULL};
    CLEANUP(group_done_await) struct group group;
    struct runner runner = {.container = NULL};

    assert_ok(world_open_await(&world, NULL, NULL, 0, "runc", err), err);
    group_init(&group);
    wait_queue_init(&runner.ready);
    runner.world = &world;
    assert_ok(task_spawn(&group, "run", NULL, run_and_free, &runner, err), err);
    while (!runner.container)
        assert_int_equal(await_wake(&runner.ready, "ready"), 0);
    world.engine = container_engine_free_await(world.engine);
    assert_ok(await_group(&group, err), err);
    return true;
}

/* --- Kept and abandoned -------------------------------------------------------------------------
 */

TASK_TEST(files_are_kept_unless_told)
{
    struct container_options options = {.command = SCRIPT("echo kept >/new")};
    struct container *container;
    CLEANUP_FREE char *file = NULL;
    CLEANUP_FREE char *command = NULL;
    int exit_code = -1;

    {
        CLEANUP_FREE char *data = scratch_path("data");
        CLEANUP_FREE char *exec = scratch_path("exec");
        CLEANUP_FREE char *layer = scratch_path("layer");
        struct container_engine_options engine_options = {.data_root = data,
                                                          .exec_root = exec,
                                                          .runtime = "runc"};
        struct store *store = stub_store_new(BUSYBOX_CONFIG, &layer, 1);
        engine_options.store = store;
        struct container_engine *engine = await_container_engine_new(&engine_options, err);
        assert_ok(engine != NULL, err);
        options.image = stub_image(store);
        container = await_container_create(engine, &options, err);
        assert_ok(container != NULL, err);
        file = scratch_path("data/containers/%s/upper/new", container_id(container));
        command = xasprintf("rm -r %s/data/containers/%s", scratch, container_id(container));
        assert_ok(await_container_start(container, err), err);
        assert_ok(await_container_exit(container, &exit_code, err), err);
        container_free_await(container);
        assert_int_equal(container_count(engine), 1);
        container_engine_free_await(engine);
        /* The next daemon counts it and leaves it alone. */
        engine = await_container_engine_new(&engine_options, err);
        assert_ok(engine != NULL, err);
        assert_int_equal(container_count(engine), 1);
        container_engine_free_await(engine);
        stub_store_free(store);
    }
    assert_int_equal(exit_code, 0);
    assert_int_equal(access(file, F_OK), 0);
    assert_int_equal(system(command), 0);
    return true;
}

static bool run_until_killed(void *arg, struct error *err)
{
    const int *ready_fd = arg;
    struct world world;
    struct container *container;

    if (!world_open_await(&world, NULL, NULL, 0, "runc", err))
        return false;
    container = await_start_script(&world, "echo ready; sleep 1000", err);
    if (!container)
        return false;
    if (write(*ready_fd, container_id(container), 64) != 64)
        return false;
    return await_sleep(UINT32_MAX) == 0;
}

/* A process of that container: one whose cgroup names it, and that is not only waiting to be reaped
 * by whoever inherited it. */
static bool container_lives(const char *id)
{
    CLEANUP_FREE char *command =
        xasprintf("for f in $(grep -l -s %s /proc/[0-9]*/cgroup); do "
                  "grep -q -s 'State:.[RSDT]' ${f%%cgroup}status && exit 0; done; exit 1",
                  id);

    return system(command) == 0;
}

/* Ends what the daemon before it left. Then all that it had started ends: here the orphans are this
 * process's children, elsewhere init's. */
static const char *next_runtime = "runc";

TASK_TEST(next_daemon_cleans_up)
{
    CLEANUP(world_done_await) struct world world = {NULL, NULL};

    assert_ok(world_open_await(&world, NULL, NULL, 0, next_runtime, err), err);
    assert_int_equal(container_count(world.engine), 0);
    world.engine = container_engine_free_await(world.engine);
    while (waitpid(-1, NULL, 0) > 0)
        ;
    return true;
}

static void killed_daemon_leaves_no_container_for_ever(void **state)
{
    int fds[2], status;
    char id[65] = "";
    pid_t pid;

    assert_int_equal(pipe(fds), 0);
    fflush(NULL);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        CLEANUP_ERROR struct error err = {0};
        close(fds[0]);
        loop_run_main(run_until_killed, &fds[1], &err);
        _exit(1);
    }
    close(fds[1]);
    assert_int_equal(read(fds[0], id, 64), 64);
    close(fds[0]);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(container_lives(id));
    next_daemon_cleans_up(state);
    assert_false(container_lives(id));
}

static bool create_until_killed(void *arg, struct error *err)
{
    const int *ready_fd = arg;
    struct world world;

    if (!world_open_await(&world, NULL, NULL, 0, next_runtime, err) ||
        write(*ready_fd, "x", 1) != 1)
        return false;
    for (;;) {
        CLEANUP(outcome_done) struct outcome outcome = {0};
        await_run(&world, (struct container_options){.command = COMMAND("true")}, NULL, &outcome);
        if (outcome.exit_code != 0)
            return error_move(err, &outcome.error);
    }
}

/* Runs a daemon that creates containers, kills it once `when` exists or after some time, and starts
 * the next one at once. */
static void kill_daemon(const char *when, useconds_t ms, void **state)
{
    int fds[2], status;
    pid_t pid;
    char c;

    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    fflush(NULL);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        CLEANUP_ERROR struct error err = {0};
        close(fds[0]);
        loop_run_main(create_until_killed, &fds[1], &err);
        _exit(1);
    }
    close(fds[1]);
    assert_int_equal(read(fds[0], &c, 1), 1);
    while (when && access(when, F_OK) < 0)
        usleep(1000);
    usleep(ms * 1000);
    fixture_note_ids();
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    /* As with the lock of the store, which the next daemon takes first: a child that had been
     * forked to become a runtime holds it until it is one. */
    assert_int_equal(read(fds[0], &c, 1), 0);
    close(fds[0]);
    next_daemon_cleans_up(state);
}

static void killed_daemon_at_any_moment(void **state)
{
#ifdef TEST_TSAN
    skip(); /* the thread pool runs by now, and this forks */
#endif
    for (useconds_t ms = 0; ms < 60; ms += 4)
        kill_daemon(NULL, ms, state);
}

/* A runtime that was called goes on: the next daemon must not miss what it makes. Arguments are
 * --root ROOT ... ID. */
static void killed_daemon_whose_runtime_goes_on(void **state)
{
    CLEANUP_FREE char *flag = scratch_path("creating");
    CLEANUP_FREE char *script =
        xasprintf("for id; do :; done; case \"$*\" in "
                  "*' create '*) : >%s; sleep 0.5; mkdir -p \"$2/$id\"; exit 1;; "
                  "*' delete '*) rm -r \"$2/$id\";; esac",
                  flag);

#ifdef TEST_TSAN
    skip();
#endif
    write_fake_runtime("slow", script);
    next_runtime = "slow";
    kill_daemon(flag, 0, state);
    next_runtime = "runc";
    remove_fake_runtime("slow");
}

/* Half-made directories, as a crash between two steps leaves them, and things that are not ours. */
TASK_TEST(litter_is_removed_and_nothing_else)
{
    CLEANUP_FREE char *command = xasprintf(
        "set -e; cd %s; a=$(printf %%064d 1); b=$(printf %%064d 2); "
        "mkdir -p data/containers/$a/upper/x exec/containers/$b data/containers/lost+found",
        scratch);
    CLEANUP_FREE char *check = xasprintf("cd %s; ! ls data/containers exec/containers | "
                                         "grep -q 00000 && rmdir data/containers/lost+found",
                                         scratch);

    assert_int_equal(system(command), 0);
    {
        CLEANUP(world_done_await) struct world world = {NULL, NULL};
        assert_ok(world_open_await(&world, NULL, NULL, 0, "runc", err), err);
        assert_int_equal(system(check), 0);
    }
    return true;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        /* First: it forks, which sanitizers bear only before the thread pool runs. */
        cmocka_unit_test(killed_daemon_leaves_no_container_for_ever),
        cmocka_unit_test(runtime_that_does_not_work_is_passed_over),
        cmocka_unit_test(missing_command_settles_the_runtime),
        cmocka_unit_test(missing_runtime_says_so),
        cmocka_unit_test(forced_runtime_is_not_replaced),
        cmocka_unit_test(layer_that_cannot_be_mounted),
        cmocka_unit_test(layer_that_is_gone),
        cmocka_unit_test(second_start_is_refused),
        cmocka_unit_test(created_container_may_go_unstarted),
        cmocka_unit_test(cancel_at_any_moment_leaves_nothing),
        cmocka_unit_test(cancel_of_a_running_container),
        cmocka_unit_test(end_of_the_engine_ends_containers),
        cmocka_unit_test(files_are_kept_unless_told),
        cmocka_unit_test(killed_daemon_at_any_moment),
        cmocka_unit_test(killed_daemon_whose_runtime_goes_on),
        cmocka_unit_test(litter_is_removed_and_nothing_else),
    };

    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
