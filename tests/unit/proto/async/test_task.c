#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proto/async/await.h"
#include "proto/async/channel.h"
#include "proto/async/loop.h"
#include "proto/async/stream.h"

static bool sleep_for(void *arg, struct error *err)
{
    uint64_t *ms = arg;
    int r = await_sleep(*ms);

    return r < 0 ? await_error(err, r, "sleeping") : true;
}

static bool main_sleeps(void *arg, struct error *err)
{
    struct group group;
    uint64_t one = 1, never = UINT64_MAX / 4;

    (void)arg;
    group_init(&group);
    assert_true(task_spawn(&group, "sleep", "one", sleep_for, &one, err));
    assert_true(await_group(&group, err));
    assert_true(task_spawn(&group, "sleep", "never", sleep_for, &never, err));
    group_cancel(&group);
    assert_false(await_group(&group, err));
    assert_int_equal(err->code, ERROR_CANCELLED);
    error_done(err);
    return true;
}

static bool main_command(void *arg, struct error *err)
{
    char *argv[] = {"sh", "-c", "echo out; echo err >&2; exit 3", NULL};
    CLEANUP_FREE char *out = NULL;
    CLEANUP_FREE char *errors = NULL;
    int status;

    (void)arg;
    assert_true(await_command(argv, 1000, &status, &out, &errors, err));
    assert_int_equal(status, 3);
    assert_string_equal(out, "out\n");
    assert_string_equal(errors, "err\n");
    return true;
}

static void test_sleep(void **state)
{
    struct error err = {0};

    (void)state;
    assert_true(loop_run_main(main_sleeps, NULL, &err));
}

static void test_command(void **state)
{
    struct error err = {0};

    (void)state;
    assert_true(loop_run_main(main_command, NULL, &err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sleep),
        cmocka_unit_test(test_command),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
