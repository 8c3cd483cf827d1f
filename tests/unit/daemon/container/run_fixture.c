#include "tests/unit/daemon/container/run_fixture.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <sys/stat.h>

#include "proto/async/await.h"
#include "proto/base/strbuf.h"

char scratch[] = "/tmp/davit-run-XXXXXX";

char *scratch_path(const char *format, ...)
{
    char *name = NULL, *path;
    va_list args;

    va_start(args, format);
    assert_true(vasprintf(&name, format, args) >= 0);
    va_end(args);
    path = xasprintf("%s/%s", scratch, name);
    free(name);
    return path;
}

/* Real runtimes and mounts need root, runc and a static busybox. CI has them. */
static const char *find_missing(void)
{
    if (geteuid() != 0)
        return "root";
    if (access("/bin/busybox", X_OK) < 0)
        return "busybox-static";
    if (access("/usr/sbin/runc", X_OK) < 0 && access("/usr/bin/runc", X_OK) < 0)
        return "runc";
    return NULL;
}

/* mkdtemp's template cannot be used twice, so the first caller keeps it for the whole program. */
int fixture_setup(void **state UNUSED)
{
    const char *missing = find_missing();
    CLEANUP_FREE char *command = NULL;
    CLEANUP_FREE char *path = NULL;

    if (missing && getenv("CI"))
        fail_msg("these tests need %s", missing);
    if (missing) {
        printf("skipped: these tests need %s\n", missing);
        exit(0);
    }
    if (!mkdtemp(scratch))
        return -1;
    command =
        xasprintf("set -e; cd %s; mkdir -p data exec bin outside; mkdir -p layer; cd layer; "
                  "mkdir -p bin etc tmp dev proc sys root srv; chmod 1777 tmp; "
                  "cp /bin/busybox bin/busybox; "
                  "for a in $(bin/busybox --list | grep -v busybox); do ln -s busybox bin/$a; "
                  "done; "
                  "printf 'root:x:0:0::/root:/bin/sh\\nweb:x:1000:1000::/srv:/bin/sh\\n' "
                  ">etc/passwd; "
                  "printf 'root:x:0:\\nweb:x:1000:\\naudio:x:29:web\\n' >etc/group; "
                  "echo text >plain; echo garbage >garbage; chmod 755 garbage; "
                  "ln -s %s/outside escape; ln -s /srv inside; ln -s ../../outside climb",
                  scratch, scratch);
    path = xasprintf("%s/bin:%s", scratch, getenv("PATH"));
    setenv("PATH", path, 1);
    return system(command);
}

/* After a test that failed there is something to end, too. */
int fixture_teardown(void **state UNUSED)
{
    CLEANUP_FREE char *command = xasprintf(
        "cd %s; for id in $(ls exec/runtime/runc 2>/dev/null); do "
        "runc --root exec/runtime/runc delete --force $id; done; "
        "grep -o '%s[^ ]*' /proc/self/mountinfo | while read m; do umount -l $m; done; rm -rf %s",
        scratch, scratch, scratch);

    return system(command);
}

/* --- World --------------------------------------------------------------------------------------
 */

bool world_open_await(struct world *world, const char *config, char *const *layer_dirs,
                      size_t count, const char *runtime, struct error *err)
{
    CLEANUP_FREE char *data = scratch_path("data");
    CLEANUP_FREE char *exec = scratch_path("exec");
    CLEANUP_FREE char *layer = scratch_path("layer");
    char *const busybox[] = {layer, NULL};
    struct container_engine_options options = {
        .data_root = data,
        .exec_root = exec,
        .runtime = runtime,
    };

    if (!layer_dirs && !config)
        layer_dirs = busybox, count = 1;
    world->store = stub_store_new(config ? config : BUSYBOX_CONFIG, layer_dirs, count);
    options.store = world->store;
    world->engine = await_container_engine_new(&options, err);
    return world->engine != NULL;
}

static void check_directory_empty(const char *name)
{
    CLEANUP_FREE char *path = scratch_path("%s", name);
    DIR *dir = opendir(path);
    const struct dirent *entry;
    char *found = NULL;

    while (dir && (entry = readdir(dir))) {
        if (entry->d_name[0] != '.')
            found = xasprintf("%s/%s", path, entry->d_name);
    }
    if (dir)
        closedir(dir);
    if (found)
        fail_msg("left behind: %s", found);
}

static void check_no_runtime_state(void)
{
    CLEANUP_FREE char *pattern = scratch_path("exec/runtime/*/*");
    glob_t found = {0};

    if (glob(pattern, 0, NULL, &found) == 0)
        fail_msg("left behind: %s", found.gl_pathv[0]);
    globfree(&found);
}

static void check_no_mounts(void)
{
    FILE *file = fopen("/proc/self/mountinfo", "re");
    char line[4096];

    while (fgets(line, sizeof(line), file)) {
        if (strstr(line, scratch))
            fail_msg("mount left behind: %s", line);
    }
    fclose(file);
}

/* All that lived in this world have been children of this process in the end. */
static void check_no_children(void)
{
    siginfo_t info = {0};

    if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0)
        fail_msg("process left behind: %d", info.si_pid);
    assert_int_equal(errno, ECHILD);
}

static char seen_ids[256][65];
static size_t seen_count;

void fixture_note_ids(void)
{
    CLEANUP_FREE char *path = scratch_path("data/containers");
    DIR *dir = opendir(path);
    const struct dirent *entry;

    while (dir && (entry = readdir(dir))) {
        if (strlen(entry->d_name) == 64 && seen_count < ARRAY_SIZE(seen_ids))
            strcpy(seen_ids[seen_count++], entry->d_name);
    }
    if (dir)
        closedir(dir);
}

static void check_no_cgroups(void)
{
    for (size_t i = 0; i < seen_count; i++) {
        CLEANUP_FREE char *flat = xasprintf("/sys/fs/cgroup/davit/%s", seen_ids[i]);
        CLEANUP_FREE char *pattern = xasprintf("/sys/fs/cgroup/*/davit/%s", seen_ids[i]);
        glob_t found = {0};
        if (access(flat, F_OK) == 0 || glob(pattern, 0, NULL, &found) == 0)
            fail_msg("cgroup left behind: %s", seen_ids[i]);
        globfree(&found);
    }
    seen_count = 0;
}

void world_done_await(struct world *world)
{
    fixture_note_ids();
    if (world->engine) {
        assert_int_equal(container_running_count(world->engine), 0);
        container_engine_free_await(world->engine);
    }
    stub_store_free(world->store);
    check_directory_empty("data/containers");
    check_directory_empty("exec/containers");
    check_no_runtime_state();
    check_no_mounts();
    check_no_children();
    check_no_cgroups();
}

/* --- Running ------------------------------------------------------------------------------------
 */

void outcome_done(struct outcome *outcome)
{
    free(outcome->out);
    free(outcome->err_text);
    error_done(&outcome->error);
}

struct pump {
    struct stream *stream;
    struct strbuf text;
};

static void pump_done(struct pump *pump)
{
    strbuf_done(&pump->text);
}

static bool read_all(void *arg, struct error *err)
{
    struct pump *pump = arg;
    CLEANUP_FREE char *buffer = xmalloc(65536);
    ssize_t n;

    while ((n = await_read(pump->stream, buffer, 65536)) > 0)
        strbuf_add(&pump->text, buffer, (size_t)n);
    return n == 0 || await_error(err, (int)n, "reading output");
}

struct feeder {
    struct container *container;
    const char *input;
};

static bool write_all(void *arg, struct error *err UNUSED)
{
    struct feeder *feeder = arg;

    await_write(container_stdin(feeder->container), feeder->input, strlen(feeder->input));
    container_close_stdin(feeder->container);
    return true;
}

static bool await_started(struct container *container, const char *input, struct outcome *ret)
{
    CLEANUP(pump_done) struct pump out = {.stream = container_stdout(container)};
    CLEANUP(pump_done) struct pump errors = {.stream = container_stderr(container)};
    struct feeder feeder = {container, input};
    CLEANUP(group_done_await) struct group group;
    struct error *err = &ret->error;

    group_init(&group);
    if (!task_spawn(&group, "stdout", NULL, read_all, &out, err) ||
        !task_spawn(&group, "stderr", NULL, read_all, &errors, err) ||
        (input && !task_spawn(&group, "stdin", NULL, write_all, &feeder, err)) ||
        !await_container_start(container, err))
        return false;
    if (!await_container_exit(container, &ret->exit_code, err) || !await_group(&group, err))
        return false;
    ret->out_size = out.text.length;
    ret->out = strbuf_take(&out.text);
    ret->err_text = strbuf_take(&errors.text);
    return true;
}

void await_run(struct world *world, struct container_options options, const char *input,
               struct outcome *ret)
{
    struct container *container;

    *ret = (struct outcome){.exit_code = -1};
    options.image = stub_image(world->store);
    options.attach_stdin = input != NULL;
    options.remove = true;
    container = await_container_create(world->engine, &options, &ret->error);
    if (!container)
        return;
    fixture_note_ids();
    if (!await_started(container, input, ret))
        ret->exit_code = -1;
    container_free_await(container);
}

void await_expect(struct world *world, struct container_options options, const char *script,
                  const char *expected_out)
{
    CLEANUP(outcome_done) struct outcome outcome = {0};

    options.command = SCRIPT((char *)script);
    await_run(world, options, NULL, &outcome);
    assert_ok(outcome.exit_code >= 0, &outcome.error);
    if (outcome.exit_code != 0 || !str_eq(outcome.out, expected_out))
        fail_msg("`%s`: exit code %d, expected \"%s\", got \"%s\", stderr \"%s\"", script,
                 outcome.exit_code, expected_out, outcome.out, outcome.err_text);
}

struct container *await_start_script(struct world *world, const char *script, struct error *err)
{
    struct container_options options = {
        .image = stub_image(world->store),
        .command = SCRIPT((char *)script),
        .remove = true,
    };
    struct container *container = await_container_create(world->engine, &options, err);
    char c = '\0';

    if (!container)
        return NULL;
    fixture_note_ids();
    if (!await_container_start(container, err))
        return container_free_await(container);
    while (c != '\n') {
        ssize_t n = await_read(container_stdout(container), &c, 1);
        if (n <= 0) {
            await_error(err, n == 0 ? -EPIPE : (int)n, "waiting for a line");
            return container_free_await(container);
        }
    }
    return container;
}
