/* Containers for real: runc, overlay mounts, namespaces. */
#include "tests/unit/daemon/container/run_fixture.h"

#include <dirent.h>

#include "proto/async/await.h"
#include "proto/base/strbuf.h"

static void check_exit(struct world *world, struct container_options options, int expected)
{
    CLEANUP(outcome_done) struct outcome outcome = {0};

    await_run(world, options, NULL, &outcome);
    assert_ok(outcome.exit_code >= 0, &outcome.error);
    assert_int_equal(outcome.exit_code, expected);
}

TASK_TEST(exit_codes_are_returned)
{
    WORLD(world);

    check_exit(&world, (struct container_options){.command = COMMAND("true")}, 0);
    check_exit(&world, (struct container_options){.command = COMMAND("false")}, 1);
    check_exit(&world, (struct container_options){.command = SCRIPT("exit 42")}, 42);
    /* The first process has an init's protection from its own signals; its child has not. */
    check_exit(&world, (struct container_options){.command = SCRIPT("sh -c 'kill -9 $$'; exit $?")},
               137);
    return true;
}

static void check_refused(struct world *world, struct container_options options,
                          enum error_code code, const char *reason, const char *message)
{
    CLEANUP(outcome_done) struct outcome outcome = {0};

    await_run(world, options, NULL, &outcome);
    assert_int_equal(outcome.exit_code, -1);
    if (reason && !error_is(&outcome.error, reason))
        fail_msg("expected reason %s, got %s: %s", reason, outcome.error.reason,
                 outcome.error.message);
    assert_error(&outcome.error, code, message);
}

TASK_TEST(commands_that_cannot_run)
{
    WORLD(world);
    struct container_options options = {.command = COMMAND("nope")};

    check_refused(&world, options, ERROR_FAILED_PRECONDITION, "COMMAND_NOT_FOUND",
                  "exec: \"nope\": executable file not found in $PATH");
    options.command = COMMAND("/no/such");
    check_refused(&world, options, ERROR_FAILED_PRECONDITION, "COMMAND_NOT_FOUND",
                  "exec: \"/no/such\"");
    options.command = COMMAND("/plain");
    check_refused(&world, options, ERROR_FAILED_PRECONDITION, "COMMAND_NOT_EXECUTABLE",
                  "exec: \"/plain\": permission denied");
    options.command = COMMAND("/etc");
    check_refused(&world, options, ERROR_FAILED_PRECONDITION, "COMMAND_NOT_EXECUTABLE",
                  "exec: \"/etc\"");
    options = (struct container_options){.entrypoint = COMMAND("")};
    check_refused(&world, options, ERROR_INVALID_ARGUMENT, "NO_COMMAND", "no command specified");
    options = (struct container_options){.command = COMMAND("id"), .user = "foo"};
    check_refused(&world, options, ERROR_NOT_FOUND, "USER_NOT_FOUND",
                  "unable to find user foo: no matching entries in passwd file");
    options = (struct container_options){.command = COMMAND("id"), .working_dir = "foo"};
    check_refused(&world, options, ERROR_INVALID_ARGUMENT, NULL, "'foo' is invalid");
    options = (struct container_options){.command = COMMAND("id"), .hostname = "a\nb"};
    check_refused(&world, options, ERROR_INVALID_ARGUMENT, NULL, "invalid hostname");
    assert_int_equal(container_count(world.engine), 0);
    return true;
}

/* Runtimes find this out after the start, so it is an exit of the container, as in Docker. */
TASK_TEST(unknown_formats_end_the_container)
{
    WORLD(world);
    CLEANUP(outcome_done) struct outcome outcome = {0};

    await_run(&world, (struct container_options){.command = COMMAND("/garbage")}, NULL, &outcome);
    assert_ok(outcome.exit_code >= 0, &outcome.error);
    assert_int_not_equal(outcome.exit_code, 0);
    assert_non_null(strstr(outcome.err_text, "exec format error"));
    return true;
}

TASK_TEST(image_and_options_merge)
{
    static const char config[] =
        "{\"config\":{\"Entrypoint\":[\"echo\",\"entry\"],\"Cmd\":[\"cmd\"],\"Env\":[\"PATH=/bin\","
        "\"A=image\",\"B=image\"],\"WorkingDir\":\"/made/here\",\"User\":\"web\"},\"rootfs\":"
        "{\"type\":\"layers\",\"diff_ids\":[]},\"os\":\"linux\",\"architecture\":\"amd64\"}";
    CLEANUP(world_done_await) struct world world = {NULL, NULL};
    CLEANUP(outcome_done) struct outcome image_only = {0};
    CLEANUP(outcome_done) struct outcome own_command = {0};
    CLEANUP_FREE char *layer = scratch_path("layer");
    struct container_options options = {.entrypoint = COMMAND("sh", "-c")};

    assert_ok(world_open_await(&world, config, &layer, 1, "runc", err), err);
    await_run(&world, (struct container_options){.command = NULL}, NULL, &image_only);
    assert_ok(image_only.exit_code == 0, &image_only.error);
    assert_string_equal(image_only.out, "entry cmd\n");
    await_run(&world, (struct container_options){.command = COMMAND("a  b", "c")}, NULL,
              &own_command);
    assert_string_equal(own_command.out, "entry a  b c\n");
    options.command = COMMAND("echo $A $B $C $HOME; pwd; id -u; stat -c '%u %a' .");
    options.env = COMMAND("B=user", "C=");
    CLEANUP(outcome_done) struct outcome outcome = {0};
    await_run(&world, options, NULL, &outcome);
    assert_ok(outcome.exit_code == 0, &outcome.error);
    assert_string_equal(outcome.out, "image user /srv\n/made/here\n1000\n0 755\n");
    return true;
}

TASK_TEST(users_by_name_and_number)
{
    static const struct {
        const char *user, *expected;
    } cases[] = {
        {"web", "1000 1000 1000 29 /srv\n"},
        {"1000", "1000 1000 1000 29 /srv\n"},
        {"web:audio", "1000 29 29 /srv\n"},
        {"7:8", "7 8 8 /\n"},
        {"0", "0 0 0 /root\n"},
    };
    WORLD(world);

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        await_expect(&world, (struct container_options){.user = cases[i].user},
                     "echo $(id -u) $(id -g) $(id -G) $HOME", cases[i].expected);
    return true;
}

TASK_TEST(other_users_may_open_their_streams)
{
    WORLD(world);

    await_expect(&world, (struct container_options){.user = "web"}, "echo hello >/dev/stdout",
                 "hello\n");
    return true;
}

TASK_TEST(capabilities_and_seccomp)
{
    WORLD(world);

    await_expect(&world, (struct container_options){0},
                 "grep -E 'Cap|Seccomp:' /proc/self/status | tr -d '\\n\\t '",
                 "CapInh:0000000000000000CapPrm:00000000a80425fbCapEff:00000000a80425fb"
                 "CapBnd:00000000a80425fbCapAmb:0000000000000000Seccomp:2");
    await_expect(&world, (struct container_options){.user = "web"},
                 "grep Cap /proc/self/status | tr -d '\\n\\t '",
                 "CapInh:0000000000000000CapPrm:0000000000000000CapEff:0000000000000000"
                 "CapBnd:00000000a80425fbCapAmb:0000000000000000");
    return true;
}

TASK_TEST(kernel_files_are_masked_and_read_only)
{
    WORLD(world);

    await_expect(&world, (struct container_options){0},
                 "cat /proc/kcore /proc/keys /proc/timer_list /proc/interrupts | wc -c", "0\n");
    await_expect(&world, (struct container_options){0},
                 "ls /proc/scsi /sys/firmware 2>&1 | "
                 "grep -v -e '^/' -e '^$' -e 'No such'; true",
                 "");
    await_expect(&world, (struct container_options){0},
                 "for f in /proc/sys/kernel/hostname /proc/sysrq-trigger /sys/kernel/mm/x; do "
                 "(echo x >$f) 2>/dev/null && echo $f is writable; done; d=/sys/fs/cgroup; "
                 "[ -d $d/memory ] && d=$d/memory; mkdir $d/x 2>/dev/null && echo $d/x; true",
                 "");
    return true;
}

TASK_TEST(devices_and_mounts)
{
    WORLD(world);

    await_expect(&world, (struct container_options){0},
                 "echo x >/dev/null && head -c 2 /dev/zero | wc -c && ls -d /dev/pts /dev/shm "
                 "/dev/mqueue && ls /dev | grep -v core | tr '\\n' ' '",
                 "2\n/dev/mqueue\n/dev/pts\n/dev/shm\nfd full mqueue null ptmx pts random shm "
                 "stderr stdin stdout tty urandom zero ");
    await_expect(&world, (struct container_options){0}, "df -k /dev/shm | awk 'END {print $2}'",
                 "65536\n");
    /* Nothing of the host is reachable but what was given. */
    await_expect(&world, (struct container_options){0},
                 "mknod /tmp/disk b 254 0 && cat /tmp/disk 2>/dev/null; echo $?", "1\n");
    return true;
}

TASK_TEST(no_descriptor_is_inherited)
{
    CLEANUP_CLOSE int fd = open("/etc/passwd", O_RDONLY); /* without CLOEXEC */
    CLEANUP(outcome_done) struct outcome outcome = {0};
    WORLD(world);

    assert_true(fd >= 0);
    await_run(&world, (struct container_options){.command = COMMAND("ls", "/proc/self/fd")}, NULL,
              &outcome);
    assert_ok(outcome.exit_code == 0, &outcome.error);
    assert_string_equal(outcome.out, "0\n1\n2\n3\n"); /* 3 is what ls reads */
    return true;
}

TASK_TEST(names_and_hosts)
{
    WORLD(world);

    await_expect(&world, (struct container_options){.hostname = "web-1"},
                 "hostname; cat /etc/hostname; echo $HOSTNAME; head -n 2 /etc/hosts; "
                 "stat -c '%u %a' /etc/hosts",
                 "web-1\nweb-1\nweb-1\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost "
                 "ip6-loopback\n0 644\n");
    await_expect(&world, (struct container_options){0},
                 "hostname | wc -c; [ \"$(hostname)\" = \"$HOSTNAME\" ] && echo same",
                 "13\nsame\n");
    return true;
}

/* The host's interfaces as `ls` would print them in one line. */
static char *list_interfaces(void)
{
    FILE *pipe = popen("ls /sys/class/net | tr '\\n' ' '", "re");
    char text[4096] = "";

    assert_non_null(pipe);
    assert_true(fread(text, 1, sizeof(text) - 1, pipe) > 0);
    pclose(pipe);
    return xstrdup(text);
}

TASK_TEST(networks)
{
    CLEANUP_FREE char *host_interfaces = list_interfaces();
    char host_name[256] = "";
    WORLD(world);

    gethostname(host_name, sizeof(host_name) - 1);
    CLEANUP_FREE char *expected = xasprintf("%s\n", host_name);
    await_expect(&world, (struct container_options){.network = CONTAINER_NETWORK_NONE},
                 "ls /sys/class/net; ip -o link show lo | grep -o ,UP,; ping -c 1 127.0.0.1 | "
                 "grep -o '1 packets received'; cat /proc/sys/net/ipv4/ping_group_range",
                 "lo\n,UP,\n1 packets received\n0\t2147483647\n");
    await_expect(&world, (struct container_options){.network = CONTAINER_NETWORK_HOST},
                 "ls /sys/class/net | tr '\\n' ' '", host_interfaces);
    await_expect(&world, (struct container_options){.network = CONTAINER_NETWORK_HOST}, "hostname",
                 expected);
    return true;
}

TASK_TEST(working_dirs_do_not_lead_out)
{
    CLEANUP_FREE char *evil = scratch_path("outside/evil");
    WORLD(world);

    await_expect(&world, (struct container_options){.working_dir = "/inside/new/../dir"},
                 "pwd -P; ls -d /srv/dir", "/srv/dir\n/srv/dir\n");
    check_refused(&world,
                  (struct container_options){.command = COMMAND("true"),
                                             .working_dir = "/escape/evil"},
                  ERROR_ALREADY_EXISTS, NULL, "in the container");
    check_refused(&world,
                  (struct container_options){.command = COMMAND("true"), .working_dir = "/plain"},
                  ERROR_INTERNAL, NULL, "cannot create /plain in the container: Not a directory");
    check_refused(&world,
                  (struct container_options){.command = COMMAND("true"),
                                             .working_dir = "/climb/evil"},
                  ERROR_ALREADY_EXISTS, NULL, "in the container");
    assert_int_equal(access(evil, F_OK), -1);
    return true;
}

TASK_TEST(writes_stay_in_the_container)
{
    CLEANUP_FREE char *in_layer = scratch_path("layer/new");
    WORLD(world);

    await_expect(&world, (struct container_options){0},
                 "echo x >/new; rm -r /etc; mkdir /etc; i=0; while [ $i -lt 50 ]; do mkdir -p "
                 "/tmp/d/d/d/d/d; mv /tmp/d /tmp/e; mkdir /tmp/d; mv /tmp/e /tmp/d/e; i=$((i+1)); "
                 "done; ls /new",
                 "/new\n");
    await_expect(&world, (struct container_options){0}, "cat /new 2>/dev/null; ls -d /etc/passwd",
                 "/etc/passwd\n");
    assert_int_equal(access(in_layer, F_OK), -1);
    return true;
}

/* --- Streams ------------------------------------------------------------------------------------
 */

TASK_TEST(streams_are_separate)
{
    CLEANUP(outcome_done) struct outcome outcome = {0};
    CLEANUP(outcome_done) struct outcome no_stdin = {0};
    WORLD(world);

    await_run(&world,
              (struct container_options){.command = SCRIPT("echo out; echo err >&2; cat; exit 3")},
              "input", &outcome);
    assert_ok(outcome.exit_code == 3, &outcome.error);
    assert_string_equal(outcome.out, "out\ninput");
    assert_string_equal(outcome.err_text, "err\n");
    await_run(&world, (struct container_options){.command = COMMAND("cat")}, NULL, &no_stdin);
    assert_ok(no_stdin.exit_code == 0, &no_stdin.error);
    assert_string_equal(no_stdin.out, "");
    return true;
}

#define BULK_BYTES (10 * MIB)

struct bulk {
    struct container *container;
    size_t written;
};

static bool write_bulk(void *arg, struct error *err)
{
    struct bulk *bulk = arg;
    CLEANUP_FREE uint8_t *block = xmalloc(65536);
    int r;

    for (size_t i = 0; i < 65536; i++)
        block[i] = (uint8_t)(i * 7 + i / 251);
    while (bulk->written < BULK_BYTES) {
        block[0] = (uint8_t)(bulk->written / 65536);
        if ((r = await_write(container_stdin(bulk->container), block, 65536)) < 0)
            return await_error(err, r, "writing");
        bulk->written += 65536;
    }
    container_close_stdin(bulk->container);
    return true;
}

TASK_TEST(bulk_goes_through_with_back_pressure)
{
    struct container_options options = {.command = COMMAND("cat"),
                                        .attach_stdin = true,
                                        .remove = true};
    CLEANUP(group_done_await) struct group group;
    CLEANUP_FREE uint8_t *buffer = xmalloc(65536);
    struct bulk bulk = {.written = 0};
    size_t total = 0, before;
    int exit_code = -1;
    ssize_t n;
    WORLD(world);

    group_init(&group);
    options.image = stub_image(world.store);
    bulk.container = await_container_create(world.engine, &options, err);
    assert_ok(bulk.container != NULL, err);
    assert_ok(await_container_start(bulk.container, err), err);
    assert_ok(task_spawn(&group, "bulk", NULL, write_bulk, &bulk, err), err);
    /* Nobody reads: the writer comes to a halt at what the pipes hold. */
    do {
        before = bulk.written;
        assert_int_equal(await_sleep(100), 0);
    } while (bulk.written != before);
    assert_in_range(bulk.written, 1, MIB);
    while ((n = await_read(container_stdout(bulk.container), buffer, 65536)) > 0) {
        for (ssize_t i = 0; i < n; i++, total++) {
            size_t at = total % 65536;
            uint8_t expected = at ? (uint8_t)(at * 7 + at / 251) : (uint8_t)(total / 65536);
            if (buffer[i] != expected)
                fail_msg("byte %zu is wrong", total);
        }
    }
    assert_int_equal(total, BULK_BYTES);
    assert_ok(await_group(&group, err), err);
    assert_ok(await_container_exit(bulk.container, &exit_code, err), err);
    assert_int_equal(exit_code, 0);
    container_free_await(bulk.container);
    return true;
}

/* --- Signals ------------------------------------------------------------------------------------
 */

TASK_TEST(signals_reach_the_first_process)
{
    struct container *container;
    CLEANUP_ERROR struct error problem = {0};
    int exit_code = -1;
    WORLD(world);

    container =
        await_start_script(&world, "trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done",
                           err);
    assert_ok(container != NULL, err);
    assert_int_equal(container_running_count(world.engine), 1);
    assert_ok(container_signal(container, SIGTERM, err), err);
    assert_ok(await_container_exit(container, &exit_code, err), err);
    assert_int_equal(exit_code, 7);
    assert_false(container_signal(container, SIGTERM, &problem));
    assert_error(&problem, ERROR_FAILED_PRECONDITION, "is not running");
    assert_false(container_signal(container, 0, &problem));
    assert_error(&problem, ERROR_INVALID_ARGUMENT, "invalid signal");
    assert_false(container_signal(container, 65, &problem));
    assert_error(&problem, ERROR_INVALID_ARGUMENT, "invalid signal");
    container_free_await(container);
    return true;
}

TASK_TEST(only_a_running_container_takes_signals)
{
    struct container_options options = {.command = COMMAND("true"), .remove = true};
    struct container *container;
    CLEANUP_ERROR struct error problem = {0};
    int exit_code = -1;
    WORLD(world);

    options.image = stub_image(world.store);
    container = await_container_create(world.engine, &options, err);
    assert_ok(container != NULL, err);
    assert_false(container_signal(container, SIGKILL, &problem));
    assert_true(error_is(&problem, "NOT_RUNNING"));
    assert_error(&problem, ERROR_FAILED_PRECONDITION, "is not running");
    assert_ok(await_container_start(container, err), err);
    assert_ok(await_container_exit(container, &exit_code, err), err);
    assert_int_equal(exit_code, 0);
    container_free_await(container);
    return true;
}

TASK_TEST(containers_are_found_by_id_and_unique_prefix)
{
    struct container_options options = {.command = COMMAND("true"), .remove = true};
    struct container *containers[17]; /* two begin with the same digit */
    CLEANUP_ERROR struct error problem = {0};
    char first[2] = "";
    WORLD(world);

    assert_null(container_find(world.engine, "0", &problem));
    assert_error(&problem, ERROR_NOT_FOUND, "No such container: 0");
    options.image = stub_image(world.store);
    for (size_t i = 0; i < ARRAY_SIZE(containers); i++) {
        containers[i] = await_container_create(world.engine, &options, err);
        assert_ok(containers[i] != NULL, err);
    }
    for (size_t i = 0; i < ARRAY_SIZE(containers); i++) {
        const char *id = container_id(containers[i]);
        CLEANUP_FREE char *prefix = xstrndup(id, 12), *longer = xasprintf("%s0", id);
        assert_ptr_equal(container_find(world.engine, id, err), containers[i]);
        assert_ptr_equal(container_find(world.engine, prefix, err), containers[i]);
        assert_null(container_find(world.engine, longer, &problem));
        assert_true(error_is(&problem, "CONTAINER_NOT_FOUND"));
        assert_error(&problem, ERROR_NOT_FOUND, "No such container: ");
        for (size_t j = 0; j < i; j++) {
            if (container_id(containers[j])[0] == id[0])
                first[0] = id[0];
        }
    }
    assert_null(container_find(world.engine, first, &problem));
    assert_error(&problem, ERROR_INVALID_ARGUMENT, "more than one container has an ID");
    assert_null(container_find(world.engine, "", &problem));
    assert_error(&problem, ERROR_NOT_FOUND, "No such container: ");
    for (size_t i = 0; i < ARRAY_SIZE(containers); i++) {
        CLEANUP_FREE char *id = xstrdup(container_id(containers[i]));
        container_free_await(containers[i]);
        assert_null(container_find(world.engine, id, &problem));
        assert_error(&problem, ERROR_NOT_FOUND, id);
    }
    return true;
}

TASK_TEST(killed_is_137)
{
    struct container *container;
    int exit_code = -1;
    WORLD(world);

    container = await_start_script(&world, "echo ready; sleep 1000", err);
    assert_ok(container != NULL, err);
    assert_ok(container_signal(container, SIGKILL, err), err);
    assert_ok(await_container_exit(container, &exit_code, err), err);
    assert_int_equal(exit_code, 137);
    container_free_await(container);
    return true;
}

/* --- Images -------------------------------------------------------------------------------------
 */

TASK_TEST(image_of_127_layers)
{
    CLEANUP(world_done_await) struct world world = {NULL, NULL};
    char *layers[128] = {scratch_path("layer")};
    CLEANUP_FREE char *command = xasprintf("cd %s; for i in $(seq 126); do mkdir -p many/$i; "
                                           ">many/$i/f$i; echo $i >many/$i/top; done",
                                           scratch);

    assert_int_equal(system(command), 0);
    for (size_t i = 1; i < 127; i++)
        layers[i] = scratch_path("many/%zu", i);
    assert_ok(world_open_await(&world, BUSYBOX_CONFIG, layers, 127, "runc", err), err);
    for (size_t i = 0; i < 127; i++)
        free(layers[i]);
    await_expect(&world, (struct container_options){0}, "ls / | grep -c ^f; cat /top",
                 "126\n126\n");
    return true;
}

TASK_TEST(image_without_layers)
{
    CLEANUP(world_done_await) struct world world = {NULL, NULL};
    CLEANUP(outcome_done) struct outcome outcome = {0};

    assert_ok(world_open_await(&world, BUSYBOX_CONFIG, NULL, 0, "runc", err), err);
    await_run(&world, (struct container_options){.command = COMMAND("/bin/true")}, NULL, &outcome);
    assert_true(error_is(&outcome.error, "COMMAND_NOT_FOUND"));
    return true;
}

TASK_TEST(unknown_image)
{
    struct container_options options = {.image = digest_of("x", 1),
                                        .image_name = "nobody",
                                        .command = COMMAND("true")};
    CLEANUP_ERROR struct error problem = {0};
    WORLD(world);

    assert_null(await_container_create(world.engine, &options, &problem));
    assert_true(error_is(&problem, "IMAGE_NOT_FOUND"));
    assert_error(&problem, ERROR_NOT_FOUND, "No such image: nobody");
    return true;
}

TASK_TEST(hostile_passwd)
{
    CLEANUP(world_done_await) struct world world = {NULL, NULL};
    CLEANUP_FREE char *bottom = scratch_path("layer");
    CLEANUP_FREE char *top = scratch_path("hostile");
    CLEANUP_FREE char *command = xasprintf("mkdir -p %s/etc; mkfifo %s/etc/passwd", top, top);
    char *const layers[] = {bottom, top};

    assert_int_equal(system(command), 0);
    assert_ok(world_open_await(&world, BUSYBOX_CONFIG, layers, 2, "runc", err), err);
    check_refused(&world, (struct container_options){.command = COMMAND("true")},
                  ERROR_INVALID_ARGUMENT, NULL, "/etc/passwd is not a regular file");
    return true;
}

TASK_TEST(many_at_once)
{
    struct container *containers[10];
    int exit_code;
    WORLD(world);

    for (size_t i = 0; i < ARRAY_SIZE(containers); i++) {
        containers[i] = await_start_script(&world, "echo ready; sleep 1000", err);
        assert_ok(containers[i] != NULL, err);
    }
    assert_int_equal(container_running_count(world.engine), 10);
    for (size_t i = 0; i < ARRAY_SIZE(containers); i++)
        assert_ok(container_signal(containers[i], SIGKILL, err), err);
    for (size_t i = 0; i < ARRAY_SIZE(containers); i++) {
        assert_ok(await_container_exit(containers[i], &exit_code, err), err);
        assert_int_equal(exit_code, 137);
        container_free_await(containers[i]);
    }
    return true;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exit_codes_are_returned),
        cmocka_unit_test(commands_that_cannot_run),
        cmocka_unit_test(unknown_formats_end_the_container),
        cmocka_unit_test(image_and_options_merge),
        cmocka_unit_test(users_by_name_and_number),
        cmocka_unit_test(other_users_may_open_their_streams),
        cmocka_unit_test(capabilities_and_seccomp),
        cmocka_unit_test(kernel_files_are_masked_and_read_only),
        cmocka_unit_test(devices_and_mounts),
        cmocka_unit_test(no_descriptor_is_inherited),
        cmocka_unit_test(names_and_hosts),
        cmocka_unit_test(networks),
        cmocka_unit_test(working_dirs_do_not_lead_out),
        cmocka_unit_test(writes_stay_in_the_container),
        cmocka_unit_test(streams_are_separate),
        cmocka_unit_test(bulk_goes_through_with_back_pressure),
        cmocka_unit_test(signals_reach_the_first_process),
        cmocka_unit_test(only_a_running_container_takes_signals),
        cmocka_unit_test(containers_are_found_by_id_and_unique_prefix),
        cmocka_unit_test(killed_is_137),
        cmocka_unit_test(image_of_127_layers),
        cmocka_unit_test(image_without_layers),
        cmocka_unit_test(unknown_image),
        cmocka_unit_test(hostile_passwd),
        cmocka_unit_test(many_at_once),
    };

    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
