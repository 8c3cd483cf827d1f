/* Jobs in memory: joining, leaving, watching, changing, stopping. */
#include "tests/unit/task_test.h"

#include "daemon/job/job.h"
#include "proto/async/await.h"
#include "tests/unit/daemon/job/script.h"

static struct job_table *new_table(void)
{
    return job_table_new(&(struct job_table_options){.encode = script_encode});
}

static void end_await(struct job_table *table)
{
    job_table_stop_await(table, 0);
    job_table_free(table);
}

static bool runs(const void *script)
{
    return ((const struct script *)script)->runs;
}

static bool freed(const void *script)
{
    return ((const struct script *)script)->freed;
}

/* Gives a watch up and expects the job to go on, or to be cancelled. */
static void leave_await(struct job_watch *watch, const struct script *script, bool cancels)
{
    job_watch_free(watch);
    for (int i = 0; i < 5; i++)
        await_yield();
    assert_int_equal(script->freed, cancels);
}

TASK_TEST(test_joining)
{
    struct job_table *table = new_table();
    struct script script;
    struct job *job;

    script_init(&script);
    assert_null(job_join(table, JOB_PULL, "k"));
    job = script_start(table, &script, "k");
    assert_ptr_equal(job_join(table, JOB_PULL, "k"), job);
    assert_null(job_join(table, JOB_PUSH, "k"));
    assert_null(job_join(table, JOB_PULL, "other"));
    assert_null(job_join(table, JOB_PULL, NULL));
    await_until(runs, &script);
    job_cancel(job);
    assert_null(job_join(table, JOB_PULL, "k")); /* it will not give what was asked for */
    await_until(freed, &script);
    end_await(table);
    return true;
}

TASK_TEST(test_leaving)
{
    struct job_table *table = new_table();
    struct script scripts[6];
    struct job_watch *first, *second;
    struct job *job;

    for (size_t i = 0; i < ARRAY_SIZE(scripts); i++)
        script_init(&scripts[i]);
    /* Alone. */
    first = job_watch_new(script_start(table, &scripts[0], NULL), JOB_LEAVE_CANCELS);
    leave_await(first, &scripts[0], true);
    /* With another who asked for it; who merely looks keeps nothing. */
    job = script_start(table, &scripts[1], NULL);
    first = job_watch_new(job, JOB_LEAVE_CANCELS);
    second = job_watch_new(job, JOB_LEAVE_CANCELS);
    struct job_watch *observer = job_watch_new(job, JOB_LEAVE_OBSERVER);
    leave_await(first, &scripts[1], false);
    leave_await(second, &scripts[1], true);
    job_watch_free(observer);
    /* After one who let it go on. */
    job = script_start(table, &scripts[2], NULL);
    first = job_watch_new(job, JOB_LEAVE_CANCELS);
    leave_await(job_watch_new(job, JOB_LEAVE_DETACHES), &scripts[2], false);
    leave_await(first, &scripts[2], false);
    /* Started to go on. */
    job = script_start(table, &scripts[3], NULL);
    job_detach(job);
    leave_await(job_watch_new(job, JOB_LEAVE_CANCELS), &scripts[3], false);
    /* An observer changes nothing. */
    job = script_start(table, &scripts[4], NULL);
    leave_await(job_watch_new(job, JOB_LEAVE_OBSERVER), &scripts[4], false);
    /* Before it has begun. */
    job = script_start(table, &scripts[5], NULL);
    job_watch_free(job_watch_new(job, JOB_LEAVE_CANCELS));
    await_until(freed, &scripts[5]);
    end_await(table);
    return true;
}

/* Changes a script's state every millisecond until it is to end. */
struct changes {
    struct script *script;
    bool stop;
};

static bool change_task(void *arg, struct error *err UNUSED)
{
    struct changes *changes = arg;
    unsigned int n = 0;

    while (!changes->stop && await_sleep(1) == 0) {
        snprintf(changes->script->details, sizeof(changes->script->details), "%u", ++n);
        changes->script->percent = n % 7 * 10; /* also falls */
    }
    script_end(changes->script, false);
    return true;
}

TASK_TEST(test_watching)
{
    struct job_table *table = new_table();
    struct script script;
    struct changes changes = {.script = &script};
    CLEANUP(group_done_await) struct group group;
    uint64_t sequence = 0, began = loop_now_ms();
    unsigned int last_percent = 0, count = 0;
    bool ended = false;

    group_init(&group);
    script_init(&script);
    struct job *job = job_ref(script_start(table, &script, NULL));
    assert_ok(task_spawn(&group, "changes", NULL, change_task, &changes, err), err);
    struct job_watch *watch = job_watch_new(job, JOB_LEAVE_OBSERVER);
    while (!ended) {
        CLEANUP(job_snapshot_cleanup)
        struct job_snapshot *snapshot = await_job_snapshot(watch, 0, err);
        CLEANUP_FREE char *text = xstrndup((const char *)snapshot->data, snapshot->size);
        unsigned int percent;
        char state[20];
        assert_int_equal(sscanf(text, "%19s %u", state, &percent), 2);
        assert_true(snapshot->sequence > sequence);
        assert_true(percent >= last_percent);
        sequence = snapshot->sequence;
        last_percent = percent;
        ended = snapshot->ended;
        assert_int_equal(ended, strcmp(state, "done") == 0);
        count++;
        changes.stop = count >= 6;
    }
    assert_int_equal(last_percent, 100);
    assert_true(count - 1 <= (loop_now_ms() - began) / JOB_SNAPSHOT_INTERVAL_MS + 1);
    assert_true(script.asked <= count + 3); /* not more often than there are snapshots */
    job_watch_free(watch);
    /* Whoever comes later gets the result, whatever was seen. */
    for (uint64_t since = 0; since < 3; since++) {
        watch = job_watch_new(job, JOB_LEAVE_CANCELS);
        CLEANUP_FREE char *text = await_text(watch, since * sequence);
        assert_true(strncmp(text, "done 100 ", 9) == 0);
        job_watch_free(watch);
    }
    job_unref(job);
    end_await(table);
    return true;
}

static bool watch_task(void *arg, struct error *err)
{
    struct job_snapshot *snapshot = await_job_snapshot(arg, 1, err);

    job_snapshot_unref(snapshot);
    return snapshot != NULL;
}

TASK_TEST(test_nothing_new_wakes_nobody)
{
    struct job_table *table = new_table();
    struct script script;
    CLEANUP(group_done_await) struct group group;

    group_init(&group);
    script_init(&script);
    struct job *job = script_start(table, &script, NULL);
    for (int i = 0; i < 10; i++)
        await_yield();
    assert_int_equal(script.asked, 0); /* nobody watches */
    struct job_watch *watch = job_watch_new(job, JOB_LEAVE_OBSERVER);
    assert_ok(task_spawn(&group, "watch", NULL, watch_task, watch, err), err);
    assert_int_equal(await_group_idle(&group, 3 * JOB_SNAPSHOT_INTERVAL_MS), -ETIMEDOUT);
    assert_true(script.asked >= 2);
    strcpy(script.details, "new");
    assert_ok(await_group(&group, err), err);
    job_watch_free(watch);
    unsigned int asked = script.asked;
    assert_int_equal(await_sleep(3 * JOB_SNAPSHOT_INTERVAL_MS), 0);
    assert_int_equal(script.asked, asked);
    end_await(table);
    return true;
}

TASK_TEST(test_failures)
{
    struct job_table *table = new_table();
    struct script script;

    script_init(&script);
    struct job *job = job_ref(script_start(table, &script, NULL));
    assert_true(job_check(job, err));
    script_end(&script, true);
    await_until(freed, &script);
    assert_false(job_check(job, err));
    assert_error(err, ERROR_NOT_FOUND, "as it was told");
    assert_int_equal(job_info(job).state, JOB_FAILED);
    job_cancel(job); /* nothing happens */
    assert_int_equal(job_info(job).state, JOB_FAILED);
    assert_false(job_set_limit(job, 1, err));
    assert_error(err, ERROR_FAILED_PRECONDITION, "has ended");
    job_unref(job);
    end_await(table);
    return true;
}

TASK_TEST(test_limits)
{
    struct job_table *table = new_table();
    struct script script;

    script_init(&script);
    struct job *job = script_start(table, &script, NULL);
    assert_ok(job_set_limit(job, 500, err), err); /* before it has begun */
    await_until(runs, &script);
    assert_int_equal(script.limit, 500);
    assert_ok(job_set_limit(job, 0, err), err);
    assert_int_equal(script.limit, 0);
    assert_int_equal(job_info(job).limit_bytes_per_second, 0);
    end_await(table);
    return true;
}

TASK_TEST(test_stopping)
{
    struct job_table *table = new_table();
    struct script slow, quick;

    script_init(&slow);
    script_init(&quick);
    struct job *interrupted = job_ref(script_start(table, &slow, NULL));
    struct job *done = job_ref(script_start(table, &quick, NULL));
    struct job_watch *watch = job_watch_new(interrupted, JOB_LEAVE_CANCELS);
    script_end(&quick, false);
    job_table_stop_await(table, 50);
    assert_int_equal(job_info(done).state, JOB_DONE);
    assert_int_equal(job_info(interrupted).state, JOB_INTERRUPTED);
    CLEANUP_FREE char *text = await_text(watch, 99);
    assert_string_equal(text, "interrupted 0 -");
    assert_false(job_check(interrupted, err));
    assert_string_equal(err->reason, "JOB_INTERRUPTED");
    assert_error(err, ERROR_UNAVAILABLE, "the daemon was stopped");
    job_watch_free(watch);
    job_unref(interrupted);
    job_unref(done);
    /* No more of them. */
    struct script late;
    script_init(&late);
    assert_null(job_start(
        table,
        &(struct job_spec){.kind = JOB_PULL, .subject = "b", .ops = &script_ops, .arg = &late},
        err));
    assert_error(err, ERROR_UNAVAILABLE, "being stopped");
    assert_true(late.freed && !late.runs);
    job_table_free(table);
    return true;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_joining),  cmocka_unit_test(test_leaving),
        cmocka_unit_test(test_watching), cmocka_unit_test(test_nothing_new_wakes_nobody),
        cmocka_unit_test(test_failures), cmocka_unit_test(test_limits),
        cmocka_unit_test(test_stopping),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
