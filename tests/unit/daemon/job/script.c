#include "tests/unit/daemon/job/script.h"

#include <stdio.h>

#include "proto/async/await.h"

void script_init(struct script *script)
{
    *script = (struct script){0};
    wait_queue_init(&script->changed);
    strcpy(script->details, "-");
}

void script_end(struct script *script, bool fails)
{
    script->fails = fails;
    script->ends = true;
    wake_all(&script->changed);
}

static bool run(void *arg, struct error *err)
{
    struct script *script = arg;
    int r = task_check();

    script->runs = true;
    while (r == 0 && !script->ends)
        r = await_wake(&script->changed, "the script");
    if (r < 0)
        return await_error(err, r, "the script");
    return !script->fails || error_set(err, ERROR_NOT_FOUND, "SCRIPTED", "as it was told");
}

static void progress(void *arg, struct job_progress *ret)
{
    struct script *script = arg;

    ret->percent = script->percent;
    ret->phase = JOB_TRANSFERRING;
    ret->item_count = *script->source ? 1 : 0;
    ret->items[0].source = script->source;
    script->asked++;
}

static void details(void *arg, struct strbuf *ret)
{
    strbuf_add_str(ret, ((const struct script *)arg)->details);
}

static void set_limit(void *arg, uint64_t bytes_per_second)
{
    ((struct script *)arg)->limit = bytes_per_second;
}

static void free_script(void *arg)
{
    CHECK(!((struct script *)arg)->freed);
    ((struct script *)arg)->freed = true;
}

const struct job_ops script_ops = {
    .await_run = run,
    .progress = progress,
    .details = details,
    .set_limit = set_limit,
    .free = free_script,
};

void script_encode(const struct job_info *info, struct strbuf *ret)
{
    static const char *const states[] = {"running", "done", "failed", "cancelled", "interrupted"};

    strbuf_addf(ret, "%s %u %s", states[info->state], info->progress->percent,
                strbuf_text(info->details));
    if (info->progress->item_count)
        strbuf_addf(ret, " %s", info->progress->items[0].source);
}

struct job *script_start(struct job_table *table, struct script *script, const char *key)
{
    struct job *job = job_start(table,
                                &(struct job_spec){.kind = JOB_PULL,
                                                   .subject = "a:1",
                                                   .key = key,
                                                   .ops = &script_ops,
                                                   .arg = script},
                                NULL);

    CHECK(job);
    return job;
}

char *await_text(struct job_watch *watch, uint64_t since)
{
    CLEANUP(job_snapshot_cleanup)
    struct job_snapshot *snapshot = await_job_snapshot(watch, since, NULL);

    CHECK(snapshot);
    return xstrndup((const char *)snapshot->data, snapshot->size);
}

void await_until(bool (*condition)(const void *arg), const void *arg)
{
    while (!condition(arg))
        CHECK(await_sleep(1) == 0);
}
