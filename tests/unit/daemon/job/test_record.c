/* Jobs that outlive the daemon: what the database has of them, and what is made of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/job/job.h"
#include "daemon/store/job_record.h"
#include "tests/unit/daemon/job/script.h"
#include "tests/unit/daemon/store/fixture.h"

static struct script resumed;

static bool spec_of_request(void *context UNUSED, enum job_kind kind, const void *request,
                            size_t size, struct job_spec *ret, struct error *err)
{
    CHECK(kind == JOB_PULL);
    if (size != 5 || memcmp(request, "again", 5) != 0)
        return error_set(err, ERROR_INTERNAL, NULL, "not understood");
    script_init(&resumed);
    *ret = (struct job_spec){
        .kind = kind, .subject = "a:1", .key = "k", .ops = &script_ops, .arg = &resumed};
    return true;
}

static struct job_table *new_table(struct store *store, bool resume)
{
    return job_table_new(&(struct job_table_options){.store = store,
                                                     .encode = script_encode,
                                                     .resume = resume,
                                                     .spec_of_request = spec_of_request});
}

static void close_await(struct job_table *table, struct store *store)
{
    job_table_stop_await(table, 0);
    job_table_free(table);
    store_close_await(store);
}

static bool freed(const void *script)
{
    return ((const struct script *)script)->freed;
}

/* Runs one that ends at once; its id. */
static char *await_one(struct job_table *table, bool fails, struct error *err)
{
    struct script script;
    struct job *job;
    char *id;

    script_init(&script);
    script.percent = 40;
    job = script_start(table, &script, NULL);
    id = xstrdup(job_info(job).id);
    CHECK(await_job_recorded(job) == 0);
    script_end(&script, fails);
    await_until(freed, &script);
    CHECK(!error_is_set(err));
    return id;
}

static char *await_snapshot_of(struct job_table *table, const char *id, struct error *err)
{
    CLEANUP(job_cleanup) struct job *job = await_job_find(table, id, err);
    CLEANUP(job_watch_cleanup) struct job_watch *watch = NULL;

    CHECK(job);
    watch = job_watch_new(job, JOB_LEAVE_OBSERVER);
    return await_text(watch, UINT64_MAX);
}

static bool body_results(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_scratch("results", err);
    struct job_table *table = new_table(store, false);
    CLEANUP_FREE char *done = await_one(table, false, err);
    CLEANUP_FREE char *failed = await_one(table, true, err);
    CLEANUP(jobs_done) struct jobs jobs = {0};

    close_await(table, store);
    CHECK((store = await_open_scratch("results", err)));
    table = new_table(store, false);
    CHECK(await_job_table_recover(table, err));
    CLEANUP_FREE char *done_text = await_snapshot_of(table, done, err);
    CLEANUP_FREE char *failed_text = await_snapshot_of(table, failed, err);
    CHECK(str_eq(done_text, "done 100 -") && str_eq(failed_text, "failed 40 -"));
    CHECK(await_jobs(table, false, &jobs, err) && jobs.count == 0);
    CHECK(await_jobs(table, true, &jobs, err) && jobs.count == 2);
    CLEANUP(job_cleanup) struct job *job = await_job_find(table, failed, err);
    CHECK(!job_check(job, err) && error_is(err, "SCRIPTED") && err->code == ERROR_NOT_FOUND);
    error_done(err);
    CHECK(!await_job_find(table, "", err) && error_is(err, "JOB_NOT_FOUND"));
    jobs_done(&jobs);
    close_await(table, store);
    error_done(err);
    return true;
}

static void test_results(void **state UNUSED)
{
    run_task(body_results, NULL);
}

/* While the end is being remembered, what the items' texts belong to may go. */
static bool body_texts_go(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_scratch("texts", err);
    struct job_table *table = new_table(store, false);
    struct script script;
    struct job *job;

    script_init(&script);
    strcpy(script.source, "mirror");
    job = script_start(table, &script, NULL);
    CHECK(await_job_recorded(job) == 0);
    {
        CLEANUP(job_watch_cleanup)
        struct job_watch *watch = job_watch_new(job, JOB_LEAVE_OBSERVER);
        script_end(&script, false);
        while (job_info(job).state == JOB_RUNNING)
            CHECK(await_yield() == 0);
        strcpy(script.source, "gone");
        CLEANUP_FREE char *text = await_text(watch, UINT64_MAX);
        CHECK(str_eq(text, "done 100 - mirror"));
    }
    await_until(freed, &script);
    close_await(table, store);
    return true;
}

static void test_texts_go(void **state UNUSED)
{
    run_task(body_texts_go, NULL);
}

static void await_leave(struct store *store, const char *id, const char *kind, const char *request,
                        unsigned int attempts, struct error *err)
{
    const struct job_record record = {
        .id = (char *)id,
        .kind = (char *)kind,
        .state = "running",
        .subject = "a:1",
        .started_unix_ms = 1000,
        .attempts = attempts,
        .percent = 30,
        .details = {"x", 1},
        .request = {(char *)request, request ? strlen(request) : 0},
    };

    CHECK(await_job_record_write(store, &record, err));
}

static void check_interrupted(struct job_table *table, const char *id, const char *why,
                              struct error *err)
{
    CLEANUP(job_cleanup) struct job *job = await_job_find(table, id, err);

    CHECK(job && job_info(job).state == JOB_INTERRUPTED && job_info(job).ended_unix_ms > 1000);
    CHECK(!job_check(job, err) && error_is(err, "JOB_INTERRUPTED") && strstr(err->message, why));
    error_done(err);
}

static bool body_left(void *arg, struct error *err)
{
    const bool resume = arg != NULL;
    const char *name = resume ? "resumed" : "left";
    struct store *store = await_open_scratch(name, err);
    struct job_table *table = new_table(store, resume);
    struct job *job;

    await_leave(store, "0123456789ab", "pull", "again", 1, err);
    await_leave(store, "1123456789ab", "pull", "nonsense", 1, err);
    await_leave(store, "2123456789ab", "pull", NULL, 1, err);
    await_leave(store, "3123456789ab", "of the future", NULL, 1, err);
    await_leave(store, "4123456789ab", "pull", "again", 20, err);
    CHECK(await_job_table_recover(table, err));
    check_interrupted(table, "1123", resume ? "not understood" : "the daemon was stopped", err);
    check_interrupted(table, "2123", "the daemon was stopped", err);
    check_interrupted(table, "4123", "the daemon was stopped", err); /* too often already */
    if (!resume) {
        check_interrupted(table, "0123", "the daemon was stopped", err);
        close_await(table, store);
        return true;
    }
    job = await_job_find(table, "0123", err);
    CHECK(job && job_info(job).state == JOB_RUNNING && job_info(job).started_unix_ms == 1000);
    CHECK(job_join(table, JOB_PULL, "k") == job);
    /* Above all that could have been seen, and the percentage goes on. */
    struct job_watch *watch = job_watch_new(job, JOB_LEAVE_CANCELS);
    CLEANUP_FREE char *text = await_text(watch, UINT32_MAX);
    CHECK(str_eq(text, "running 30 -"));
    job_watch_free(watch); /* nobody's leaving ends it */
    script_end(&resumed, false);
    await_until(freed, &resumed);
    job_unref(job);
    close_await(table, store);
    return true;
}

static void test_left(void **state UNUSED)
{
    run_task(body_left, NULL);
}

static void test_resumed(void **state UNUSED)
{
    run_task(body_left, "resume");
}

/* What a stop interrupts is the next daemon's to begin again, if it can. */
static bool body_stopped(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_scratch("stopped", err);
    struct job_table *table = new_table(store, true);
    struct strbuf request = {"again", 5, 0};
    struct script script;
    struct job_records records;

    script_init(&script);
    CHECK(job_start(table,
                    &(struct job_spec){.kind = JOB_PULL,
                                       .subject = "a:1",
                                       .ops = &script_ops,
                                       .arg = &script,
                                       .request = &request},
                    err));
    job_table_stop_await(table, 0);
    job_table_free(table);
    CHECK(await_job_records_read(store, "", false, &records, err) && records.count == 1);
    CHECK(str_eq(records.items[0].state, "interrupted") && records.items[0].request.size == 5);
    job_records_done(&records);
    table = new_table(store, true);
    CHECK(await_job_table_recover(table, err) && job_join(table, JOB_PULL, "k"));
    close_await(table, store);
    return true;
}

static void test_stopped(void **state UNUSED)
{
    run_task(body_stopped, NULL);
}

/* Only so many are kept, the newest. */
static bool body_bounded(void *arg UNUSED, struct error *err)
{
    struct store *store = await_open_scratch("bounded", err);
    struct job_records records;
    int64_t now = wall_clock_ns() / 1000000;

    for (int i = 0; i < JOB_RECORDS_MAX + 20; i++) {
        CLEANUP_FREE char *id = xasprintf("%012d", i);
        const struct job_record record = {.id = id,
                                          .kind = "pull",
                                          .state = "done",
                                          .subject = "a:1",
                                          .ended = true,
                                          .started_unix_ms = now + i,
                                          .ended_unix_ms = now + i};
        CHECK(await_job_record_write(store, &record, err));
    }
    CHECK(await_job_records_read(store, "", true, &records, err));
    CHECK(records.count == JOB_RECORDS_MAX && str_eq(records.items[0].id, "000000000219"));
    job_records_done(&records);
    CHECK(await_job_records_read(store, "00000000019", true, &records, err));
    CHECK(records.count == 10);
    job_records_done(&records);
    /* An old one goes as soon as another ends. */
    change_database("bounded", "UPDATE jobs SET ended_unix_ms = 5 WHERE id = '000000000190'");
    const struct job_record last = {.id = "ffffffffffff",
                                    .kind = "pull",
                                    .state = "done",
                                    .subject = "a:1",
                                    .ended = true,
                                    .ended_unix_ms = now};
    CHECK(await_job_record_write(store, &last, err));
    CHECK(await_job_records_read(store, "000000000190", true, &records, err));
    CHECK(records.count == 0);
    store_close_await(store);
    return true;
}

static void test_bounded(void **state UNUSED)
{
    run_task(body_bounded, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_results), cmocka_unit_test(test_texts_go),
        cmocka_unit_test(test_left),    cmocka_unit_test(test_resumed),
        cmocka_unit_test(test_stopped), cmocka_unit_test(test_bounded),
    };

    own_mounts();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
