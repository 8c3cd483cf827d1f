#include "client/ui/verification.h"

#include "client/ui/bar.h"
#include "client/ui/units.h"

#define PHASE(phase) DAVIT__V1__VERIFY_PROGRESS__PHASE__##phase

#define SHORT_ID 12
#define IMAGES_NAMED 3

/* --- Live --------------------------------------------------------------------------------------
 */

static void add_amounts(struct strbuf *out, uint64_t done, uint64_t total)
{
    add_size(out, done);
    strbuf_add_char(out, '/');
    add_size(out, total);
}

/* A bar in the room that all the other parts leave. */
static void add_line(const char *what, uint64_t done, uint64_t total,
                     const struct strbuf *const *parts, size_t count, size_t width,
                     struct strbuf *line)
{
    CLEANUP_STRBUF struct strbuf bar = {0};
    size_t used = strlen(what) + 2;
    for (size_t i = 0; i < count; i++)
        used += parts[i]->length ? parts[i]->length + 2 : 0;
    if (total && used + BAR_MIN <= width)
        add_bar(&bar, done, total, MIN(width - used, BAR_MAX + 3));
    strbuf_add_str(line, what);
    if (bar.length)
        add_part(line, &bar, width);
    for (size_t i = 0; i < count; i++) {
        if (parts[i]->length)
            add_part(line, parts[i], width);
    }
}

static void add_checking(const verify_progress *now, size_t width, struct strbuf *line)
{
    CLEANUP_STRBUF struct strbuf bytes = {0}, speed = {0}, eta = {0}, problems = {0};
    const struct strbuf *const parts[] = {&bytes, &problems, &speed, &eta};
    CLEANUP_FREE char *what =
        xasprintf("Verifying layers: %u/%u", now->layers_done, now->layers_total);
    add_amounts(&bytes, now->bytes_done, now->bytes_total);
    if (now->problems)
        strbuf_addf(&problems, "%u problem%s", now->problems, now->problems == 1 ? "" : "s");
    if (now->bytes_per_second) {
        add_size(&speed, now->bytes_per_second);
        strbuf_add_str(&speed, "/s");
    }
    if (now->eta_ms >= 0) {
        strbuf_add_str(&eta, "ETA ");
        add_countdown(&eta, now->eta_ms);
    }
    add_line(what, now->bytes_done, now->bytes_total, parts, ARRAY_SIZE(parts), width, line);
}

static void add_repairing(const verify_progress *now, size_t width, struct strbuf *line)
{
    CLEANUP_STRBUF struct strbuf bytes = {0};
    const struct strbuf *const parts[] = {&bytes};
    CLEANUP_FREE char *what = xasprintf("Repairing: %u/%u", now->repaired, now->problems);
    if (now->repair_bytes_total)
        add_amounts(&bytes, now->repair_bytes_done, now->repair_bytes_total);
    add_line(what, now->repair_bytes_done, now->repair_bytes_total, parts, ARRAY_SIZE(parts), width,
             line);
}

void verification_draw(const verify_progress *now, struct terminal_size size, struct strbuf *out)
{
    CLEANUP_STRBUF struct strbuf line = {0};
    const size_t width = size.width > 1 ? size.width - 1 : 1;
    if (now->phase == PHASE(REPAIRING))
        add_repairing(now, width, &line);
    else
        add_checking(now, width, &line);
    strbuf_add_str(out, TERMINAL_HIDE_CURSOR "\r" TERMINAL_NO_WRAP);
    strbuf_add(out, strbuf_text(&line), MIN(line.length, width));
    strbuf_add_str(out, TERMINAL_ERASE_LINE TERMINAL_WRAP);
}

void verification_leave(struct strbuf *out)
{
    strbuf_add_str(out, "\r" TERMINAL_ERASE_LINE TERMINAL_SHOW_CURSOR);
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
    const char *hex = strchr(problem->digest, ':');
    add_images(problem, out);
    if (problem->is_layer)
        strbuf_addf(out, ": layer %.*s", SHORT_ID, hex ? hex + 1 : problem->digest);
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
