#include "client/ui/progress.h"
#include "client/ui/units.h"
#include "client/ui/verification.h"

typedef Davit__V1__JobItem job_item;
typedef Davit__V1__JobProgress job_progress;

#define ITEM(state) DAVIT__V1__JOB_ITEM__STATE__##state

/* Two waits that end so close to each other are one, on clocks that are not the same. */
#define SAME_WAIT_MS 500

enum { SAID_FIRST = 1, SAID_RESUMED = 2, SAID_DOWNLOADED = 4, SAID_COMPLETE = 8 };

struct progress_said {
    unsigned what;
    int64_t until_unix_ms; /* of the wait that was told of last */
    bool waits;
};

void progress_lines_done(struct progress_lines *lines)
{
    free(lines->said);
    *lines = (struct progress_lines){0};
}

static void say(struct progress_said *said, unsigned what, const job_item *item, const char *text,
                struct strbuf *out)
{
    if (said->what & what)
        return;
    said->what |= what;
    progress_add_id(out, item->id);
    strbuf_addf(out, ": %s\n", text);
}

/* Each wait once: the next one ends at another time. */
static void say_wait(const struct progress_lines *lines, struct progress_said *said,
                     const job_item *item, struct strbuf *out)
{
    const bool limited = item->state == ITEM(RATE_LIMITED);
    if (said->waits && llabs(said->until_unix_ms - item->until_unix_ms) < SAME_WAIT_MS)
        return;
    said->waits = true;
    said->until_unix_ms = item->until_unix_ms;
    progress_add_id(out, item->id);
    strbuf_add_str(out, limited ? ": Rate-limited by the registry, goes on" : ": Retrying");
    if (item->until_unix_ms > 0) {
        strbuf_add_str(out, " in ");
        add_duration(out, (item->until_unix_ms - lines->now_unix_ms + 999) / 1000);
    }
    if (!str_empty(item->error)) {
        strbuf_add_str(out, ": ");
        strbuf_add_printable(out, item->error);
    }
    strbuf_add_char(out, '\n');
}

static void say_resumed(struct progress_said *said, const job_item *item, struct strbuf *out)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    strbuf_add_str(&text, "Resuming at ");
    add_size(&text, item->bytes_resumed);
    strbuf_add_str(&text, " of ");
    add_size(&text, item->bytes_total);
    say(said, SAID_RESUMED, item, strbuf_text(&text), out);
}

static void say_pulled(struct progress_said *said, const job_item *item, struct strbuf *out)
{
    if (item->state == ITEM(PRESENT)) {
        say(said, SAID_COMPLETE, item, "Already exists", out);
        return;
    }
    say(said, SAID_FIRST, item, "Pulling fs layer", out);
    if (item->bytes_resumed)
        say_resumed(said, item, out);
    if (item->state == ITEM(STORING) || item->state == ITEM(VERIFYING) || item->state == ITEM(DONE))
        say(said, SAID_DOWNLOADED, item, "Download complete", out);
    if (item->state == ITEM(DONE))
        say(said, SAID_COMPLETE, item, "Pull complete", out);
}

static void say_pushed(struct progress_said *said, const job_item *item, struct strbuf *out)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    if (item->state == ITEM(PRESENT)) {
        say(said, SAID_COMPLETE, item, "Layer already exists", out);
        return;
    }
    say(said, SAID_FIRST, item, "Preparing", out);
    if (item->state == ITEM(DONE))
        say(said, SAID_COMPLETE, item, "Pushed", out);
    if (item->state != ITEM(MOUNTED))
        return;
    strbuf_add_str(&text, "Mounted from ");
    strbuf_add_printable(&text, item->source);
    say(said, SAID_COMPLETE, item, strbuf_text(&text), out);
}

static void say_loaded(struct progress_said *said, const job_item *item, struct strbuf *out)
{
    if (str_empty(item->id))
        return; /* what is imported has one thing only */
    if (item->state == ITEM(PRESENT)) {
        say(said, SAID_COMPLETE, item, "Already exists", out);
        return;
    }
    say(said, SAID_FIRST, item, "Loading layer", out);
    if (item->state == ITEM(DONE))
        say(said, SAID_COMPLETE, item, "Loaded", out);
}

void progress_say(struct progress_lines *lines, const job_snapshot *job, struct strbuf *out)
{
    const job_progress *now = job->progress;
    progress_add_heading(&lines->heading, job, "\n", out);
    if (now->n_items > lines->items) {
        lines->said = xrealloc(lines->said, now->n_items * sizeof(*lines->said));
        memset(lines->said + lines->items, 0, (now->n_items - lines->items) * sizeof(*lines->said));
        lines->items = now->n_items;
    }
    for (size_t i = 0; i < now->n_items; i++) {
        struct progress_said *said = &lines->said[i];
        const job_item *item = now->items[i];
        if (job->kind == DAVIT__V1__JOB__KIND__PUSH)
            say_pushed(said, item, out);
        else if (job->kind == DAVIT__V1__JOB__KIND__LOAD ||
                 job->kind == DAVIT__V1__JOB__KIND__IMPORT)
            say_loaded(said, item, out);
        else if (now->phase > DAVIT__V1__JOB_PROGRESS__PHASE__RESOLVING)
            say_pulled(said, item, out);
        if (item->state == ITEM(RETRYING) || item->state == ITEM(RATE_LIMITED))
            say_wait(lines, said, item, out);
    }
}

static void add_push_result(const Davit__V1__PushResult *result, struct strbuf *out)
{
    for (size_t i = 0; i < result->n_tags; i++) {
        const Davit__V1__PushedTag *tag = result->tags[i];
        strbuf_addf(out, "%s: digest: %s size: %llu\n", tag->tag, tag->digest,
                    (unsigned long long)tag->size_bytes);
        if (str_empty(tag->difference))
            continue;
        strbuf_add_str(out, "The manifest differs from the one the image came with: ");
        strbuf_add_printable(out, tag->difference);
        strbuf_add_char(out, '\n');
    }
}

static void add_verify_result(const job_snapshot *last, struct strbuf *out)
{
    for (size_t i = 0; last->verify && i < last->verify->n_problems; i++)
        verification_add_problem(last->verify->problems[i], out);
    verification_add_result(last->verify_result, out);
}

static void add_prune_result(const Davit__V1__PruneResult *result, struct strbuf *out)
{
    strbuf_add_str(out, "Total reclaimed space: ");
    add_size(out, result->reclaimed_bytes);
    strbuf_add_char(out, '\n');
}

/* Docker's words. */
static void add_load_result(const Davit__V1__LoadResult *result, struct strbuf *out)
{
    for (size_t i = 0; i < result->n_images; i++) {
        const Davit__V1__LoadResult__Loaded *image = result->images[i];
        size_t renamed = 0;
        if (image->n_names == 0)
            strbuf_addf(out, "Loaded image ID: %s\n", image->image_id);
        for (size_t j = 0; j < image->n_names; j++) {
            const char *name = image->names[j];
            if (renamed < image->n_renamed && str_eq(image->renamed[renamed]->name, name))
                strbuf_addf(out,
                            "The image %s already exists, renaming the old one with ID %s to empty "
                            "string\n",
                            name, image->renamed[renamed++]->old_image_id);
            strbuf_addf(out, "Loaded image: %s\n", name);
        }
    }
    if (result->left_out)
        strbuf_addf(out, "Loaded %llu more, which are too many to name\n",
                    (unsigned long long)result->left_out);
}

static void add_import_result(const job_snapshot *last, struct strbuf *out)
{
    if (str_starts(last->subject, "http://") || str_starts(last->subject, "https://")) {
        strbuf_add_str(out, "Downloading from ");
        strbuf_add_printable(out, last->subject);
        strbuf_add_char(out, '\n');
    }
    strbuf_addf(out, "%s\n", last->import_result->image_id);
}

void progress_add_result(const job_snapshot *last, bool within_run, bool one_of_many,
                         struct strbuf *out)
{
    if (last->result_case == DAVIT__V1__JOB__RESULT_PUSH_RESULT)
        add_push_result(last->push_result, out);
    if (last->result_case == DAVIT__V1__JOB__RESULT_VERIFY_RESULT)
        add_verify_result(last, out);
    if (last->result_case == DAVIT__V1__JOB__RESULT_LOAD_RESULT)
        add_load_result(last->load_result, out);
    if (last->result_case == DAVIT__V1__JOB__RESULT_IMPORT_RESULT)
        add_import_result(last, out);
    if (last->result_case == DAVIT__V1__JOB__RESULT_PRUNE_RESULT)
        add_prune_result(last->prune_result, out);
    if (last->result_case != DAVIT__V1__JOB__RESULT_PULL_RESULT)
        return;
    const Davit__V1__PullResult *result = last->pull_result;
    const char *familiar = str_empty(last->subject) ? result->reference : last->subject;
    strbuf_addf(out, "Digest: %s\n", result->digest);
    if (one_of_many)
        return;
    strbuf_addf(out, "Status: %s for %s\n",
                result->up_to_date ? "Image is up to date" : "Downloaded newer image", familiar);
    if (!within_run)
        strbuf_addf(out, "%s\n", result->reference);
}
