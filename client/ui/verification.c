#include "client/ui/verification.h"

#include "client/ui/bar.h"
#include "client/ui/units.h"

#define PHASE(phase) DAVIT__V1__VERIFY_PROGRESS__PHASE__##phase

#define IMAGES_NAMED 3

/* --- Live --------------------------------------------------------------------------------------
 */

void verification_draw(const verify_progress *now, struct terminal_size size, struct strbuf *out)
{
    CLEANUP_FREE char *what = NULL, *problems = NULL;
    struct bar_line line = {.eta_ms = -1};
    if (now->phase == PHASE(REPAIRING)) {
        what = xasprintf("Repairing: %u/%u", now->repaired, now->problems);
        line.done = now->repair_bytes_done;
        line.total = now->repair_bytes_total;
    } else {
        what = xasprintf("Verifying layers: %u/%u", now->layers_done, now->layers_total);
        line.done = now->bytes_done;
        line.total = now->bytes_total;
        line.bytes_per_second = now->bytes_per_second;
        line.eta_ms = now->eta_ms;
        if (now->problems)
            problems = xasprintf("%u problem%s", now->problems, now->problems == 1 ? "" : "s");
    }
    line.what = what;
    line.note = problems;
    bar_line_draw(&line, size, out);
}

void verification_leave(struct strbuf *out)
{
    bar_line_leave(out);
}

/* --- Lines -------------------------------------------------------------------------------------
 */

static void add_images(const verify_problem *problem, struct strbuf *out)
{
    const size_t all = MAX(problem->image_count, problem->n_images);
    const size_t named =
        all > IMAGES_NAMED + 1 ? MIN(problem->n_images, IMAGES_NAMED) : problem->n_images;
    if (problem->n_images == 0)
        strbuf_add_str(out, "(no image)");
    for (size_t i = 0; i < named; i++) {
        strbuf_add_str(out, i ? ", " : "");
        strbuf_add_printable(out, problem->images[i]);
    }
    if (named < all)
        strbuf_addf(out, " and %zu more", all - named);
}

void verification_add_problem(const verify_problem *problem, struct strbuf *out)
{
    add_images(problem, out);
    if (problem->is_layer)
        strbuf_addf(out, ": layer %.*s", SHORT_ID, id_digits(problem->digest));
    strbuf_add_str(out, ": ");
    strbuf_add_printable(out, problem->message);
    if (problem->repaired) {
        strbuf_add_str(out, "; repaired");
    } else if (!str_empty(problem->hint)) {
        strbuf_add_str(out, "; ");
        strbuf_add_printable(out, problem->hint);
    }
    strbuf_add_char(out, '\n');
}

static void add_count(struct strbuf *out, unsigned count, const char *what)
{
    strbuf_addf(out, "%u %s%s", count, what, count == 1 ? "" : "s");
}

void verification_add_result(const verify_result *result, struct strbuf *out)
{
    add_count(out, result->images, "image");
    strbuf_add_str(out, ", ");
    add_count(out, result->layers, "layer");
    strbuf_add_str(out, " verified (");
    add_size(out, result->bytes);
    strbuf_add_str(out, "), ");
    add_count(out, result->problems, "problem");
    if (result->repaired)
        strbuf_addf(out, ", %u repaired", result->repaired);
    strbuf_add_char(out, '\n');
}

/* --- For programs ------------------------------------------------------------------------------
 */

json_t *verification_problem_json(const verify_problem *problem)
{
    json_t *images = json_array();
    for (size_t i = 0; i < problem->n_images; i++)
        json_array_append_new(images, json_string(problem->images[i]));
    return json_pack("{s:o, s:i, s:s, s:b, s:s, s:s, s:s, s:b}", "images", images, "image_count",
                     (int)problem->image_count, "digest", problem->digest, "is_layer",
                     (int)problem->is_layer, "reason", problem->reason, "message", problem->message,
                     "hint", problem->hint, "repaired", (int)problem->repaired);
}

void verification_add_json(const verify_result *result, json_t *problems, struct strbuf *out)
{
    CLEANUP_JSON json_t *object =
        json_pack("{s:i, s:i, s:I, s:o, s:i}", "images", (int)result->images, "layers",
                  (int)result->layers, "bytes", (json_int_t)result->bytes, "problems", problems,
                  "repaired", (int)result->repaired);
    CLEANUP_FREE char *text = json_text(object);
    strbuf_addf(out, "%s\n", text);
}
