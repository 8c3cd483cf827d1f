/* Ten thousand tasks come and go, and nothing grows. */
#include "tests/unit/task_test.h"

#include <errno.h>

#include "proto/async/await.h"
#include "proto/async/channel.h"

/* ThreadSanitizer knows 8,128 threads and fibers, AddressSanitizer maps a second stack for each
 * task, valgrind (for which the short test is) searches its stacks one by one. They also keep freed
 * memory, and map some of their own. */
static bool is_short(void)
{
#if defined(TEST_TSAN) || defined(TEST_ASAN)
    return true;
#else
    return getenv("DAVIT_TEST_SHORT") != NULL;
#endif
}

static size_t many(void)
{
    return is_short() ? 200 : 10000;
}

static size_t resident_bytes(void)
{
    FILE *file = fopen("/proc/self/statm", "r");
    size_t pages = 0;

    assert_int_equal(fscanf(file, "%*u %zu", &pages), 1);
    fclose(file);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

static size_t mapping_count(void)
{
    FILE *file = fopen("/proc/self/maps", "r");
    size_t lines = 0;
    int c;

    while ((c = getc(file)) != EOF)
        lines += c == '\n';
    fclose(file);
    return lines;
}

/* Uses some of its stack, so that there is something to give back. */
static bool deep_body(void *arg, struct error *err)
{
    volatile char frame[12000];
    struct channel *gate = arg;
    void *item;
    int r;

    for (size_t i = 0; i < sizeof(frame); i += 512)
        frame[i] = (char)i;
    r = await_recv(gate, &item);
    return r < 0 ? await_error(err, r, "at the gate") : frame[512] == 0;
}

/* All of them alive at once; they leave through the gate or by cancel. */
static void one_round(size_t count, bool cancelled, struct error *err)
{
    CLEANUP(group_done_await) struct group group;
    struct channel *gate = channel_new(1);

    group_init(&group);
    for (size_t i = 0; i < count; i++)
        assert_ok(task_spawn(&group, "many", NULL, deep_body, gate, err), err);
    /* Rounds are interrupted after a while: all have started when all wait. */
    for (size_t i = 0; i < count; i++)
        assert_int_equal(await_yield(), 0);
    assert_int_equal(task_count(), count + 1);
    if (cancelled) {
        group_cancel(&group);
        assert_false(await_group(&group, err));
        assert_error(err, ERROR_CANCELLED, "at the gate");
    } else {
        for (size_t i = 0; i < count; i++)
            assert_int_equal(await_send(gate, gate), 0);
        assert_ok(await_group(&group, err), err);
    }
    assert_int_equal(task_count(), 1);
    channel_free(gate, NULL);
}

TASK_TEST(test_many_tasks_leave_nothing)
{
    size_t resident, mappings;

    one_round(20, false, err); /* the allocator has its arenas now, the pool its stacks */
    resident = resident_bytes();
    mappings = mapping_count();
    for (int round = 0; round < 4; round++) {
        one_round(many(), round % 2, err);
        if (!is_short()) {
            assert_in_range(resident_bytes(), 0, resident + 2 * MIB);
            assert_in_range(mapping_count(), 0, mappings + 20);
        }
    }
    return true;
}

static bool quick_body(void *arg, struct error *err UNUSED)
{
    ++*(size_t *)arg;
    return true;
}

/* The life of a server: one after the other, for ever. */
TASK_TEST(test_one_after_the_other)
{
    CLEANUP(group_done_await) struct group group;
    size_t count = 0, mappings = 0;

    group_init(&group);
    for (size_t i = 0; i < many(); i++) {
        assert_true(task_spawn(&group, "quick", NULL, quick_body, &count, err));
        assert_true(await_group(&group, err));
        if (i == 0)
            mappings = mapping_count();
    }
    assert_int_equal(count, many());
    assert_in_range(mapping_count(), 0, mappings + 20);
    return true;
}

/* The default cap can be reached on a system with default limits (vm.max_map_count). */
TASK_TEST(test_the_cap_can_be_reached)
{
    CLEANUP(group_done_await) struct group group;
    struct channel *gate = NULL;

    group_init(&group);
    if (is_short())
        return true;
    gate = channel_new(1);
    for (size_t i = 1; i < TASK_MAX_DEFAULT; i++)
        assert_ok(task_spawn(&group, "many", NULL, deep_body, gate, err), err);
    assert_false(task_spawn(&group, "one more", NULL, deep_body, gate, err));
    assert_error(err, ERROR_RESOURCE_EXHAUSTED, "20000 tasks are running");
    group_done_await(&group);
    channel_free(gate, NULL);
    return true;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_tasks_leave_nothing),
        cmocka_unit_test(test_one_after_the_other),
        cmocka_unit_test(test_the_cap_can_be_reached),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
