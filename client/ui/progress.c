#include "client/ui/progress.h"

#include "client/ui/bar.h"
#include "client/ui/units.h"

typedef Davit__V1__JobItem layer_progress;
typedef Davit__V1__JobProgress job_progress;

#define JOB(state) DAVIT__V1__JOB__STATE__##state
#define LAYER(state) DAVIT__V1__JOB_ITEM__STATE__##state
#define PHASE(phase) DAVIT__V1__JOB_PROGRESS__PHASE__##phase

#define SHORT_ID 12

static void add_short_id(struct strbuf *out, const char *digest)
{
    const char *colon = strchr(digest, ':');
    strbuf_addf(out, "%.*s", SHORT_ID, colon ? colon + 1 : digest);
}

static void add_heading(struct progress_heading *heading, const pull_job *job, const char *newline,
                        struct strbuf *out)
{
    const Davit__V1__PullDetails *pull = job->pull;
    if (pull->default_tag && !heading->within_run && !heading->said_default)
        strbuf_addf(out, "Using default tag: %s%s", pull->tag, newline);
    heading->said_default = true;
    /* Docker says it once the registry has answered. */
    if (job->progress->phase > PHASE(RESOLVING) && job->state <= JOB(DONE) && !heading->said_from) {
        strbuf_addf(out, "%s: Pulling from %s%s", pull->tag, pull->repository, newline);
        heading->said_from = true;
    }
}

/* --- The screen --------------------------------------------------------------------------------
 */

static void add_download(struct strbuf *out, const layer_progress *layer, size_t width)
{
    CLEANUP_STRBUF struct strbuf now = {0}, total = {0};
    const size_t start = out->length;
    add_size(&now, layer->bytes_fetched);
    add_size(&total, layer->bytes_total);
    strbuf_add_str(out, "Downloading ");
    const size_t numbers = MAX(now.length, 8) + 1 + total.length;
    const size_t used = terminal_columns(strbuf_text(out));
    if (used + BAR_MIN + 1 + numbers <= width) {
        add_bar(out, layer->bytes_fetched, layer->bytes_total,
                MIN(width - used - 1 - numbers, BAR_MAX + 3));
        strbuf_addf(out, " %8s/%s", strbuf_text(&now), strbuf_text(&total));
    } else if (used + now.length + 1 + total.length <= width) {
        strbuf_addf(out, "%s/%s", strbuf_text(&now), strbuf_text(&total));
    } else {
        out->length = start; /* too narrow for the word */
        const uint64_t whole = MAX(layer->bytes_total, 1);
        strbuf_addf(out, "%u%%", (unsigned)(MIN(layer->bytes_fetched, whole) * 100.0 / whole));
    }
}

static void add_layer(struct strbuf *out, const layer_progress *layer, size_t width, bool color)
{
    CLEANUP_STRBUF struct strbuf line = {0};
    add_short_id(&line, layer->id);
    strbuf_add_str(&line, ": ");
    const size_t id_width = MIN(line.length, width);
    bool finished = false;
    switch (layer->state) {
    case LAYER(FETCHING):
        add_download(&line, layer, width);
        break;
    case LAYER(STORING):
        strbuf_add_str(&line, "Extracting  ");
        add_size(&line, layer->bytes_stored);
        break;
    case LAYER(DONE):
    case LAYER(PRESENT):
        strbuf_add_str(&line, layer->state == LAYER(DONE) ? "Pull complete" : "Already exists");
        finished = true;
        break;
    default:
        strbuf_add_str(&line, "Waiting");
    }
    const size_t length = MIN(line.length, width);
    strbuf_add(out, line.data, id_width);
    if (finished && color)
        strbuf_add_str(out, TERMINAL_GREEN);
    strbuf_add(out, line.data + id_width, length - id_width);
    if (finished && color)
        strbuf_add_str(out, TERMINAL_PLAIN);
}

static void add_total(struct strbuf *out, const job_progress *now, size_t width)
{
    CLEANUP_STRBUF struct strbuf line = {0}, percent = {0}, bytes = {0}, speed = {0}, eta = {0};
    strbuf_addf(&percent, width >= 20 ? "Total: %u%%" : "%u%%", now->percent);
    add_part(&line, &percent, width);
    add_size(&bytes, now->bytes_fetched);
    strbuf_add_char(&bytes, '/');
    add_size(&bytes, now->bytes_total);
    add_part(&line, &bytes, width);
    if (now->bytes_fetched < now->bytes_total) {
        add_size(&speed, now->bytes_per_second);
        strbuf_add_str(&speed, "/s");
        add_part(&line, &speed, width);
        if (now->eta_ms >= 0) {
            strbuf_add_str(&eta, "ETA ");
            add_countdown(&eta, now->eta_ms);
            add_part(&line, &eta, width);
        }
    }
    strbuf_add(out, line.data, line.length);
}

/* Where there is no room for all layers: those at work first, then those that wait. */
static int urgency(const layer_progress *layer)
{
    switch (layer->state) {
    case LAYER(FETCHING):
    case LAYER(STORING):
        return 0;
    case LAYER(DONE):
    case LAYER(PRESENT):
        return 2;
    default:
        return 1;
    }
}

static bool *choose_layers(const job_progress *now, size_t room)
{
    bool *chosen = xcalloc(now->n_items + 1, sizeof(*chosen));
    for (int wanted = 0; wanted <= 2; wanted++) {
        for (size_t i = 0; i < now->n_items && room > 0; i++) {
            if (urgency(now->items[i]) == wanted) {
                chosen[i] = true;
                room--;
            }
        }
    }
    return chosen;
}

static void begin_drawing(struct progress_screen *screen, const pull_job *now, struct strbuf *out)
{
    strbuf_add_str(out, screen->drawn ? "\r" : TERMINAL_HIDE_CURSOR "\r");
    add_heading(&screen->heading, now, TERMINAL_ERASE_LINE "\r\n", out);
    strbuf_add_str(out, TERMINAL_NO_WRAP); /* the window may shrink while this is on its way */
    screen->drawn = true;
    screen->lines = 0;
}

static void begin_line(struct progress_screen *screen, struct strbuf *out)
{
    strbuf_add_str(out, screen->lines++ ? "\r\n" TERMINAL_ERASE_LINE : TERMINAL_ERASE_LINE);
}

static void add_live_lines(struct progress_screen *screen, const pull_job *job, size_t max_lines,
                           size_t width, struct strbuf *out)
{
    const job_progress *now = job->progress;
    if (now->n_items == 0) {
        CLEANUP_STRBUF struct strbuf line = {0};
        begin_line(screen, out);
        strbuf_addf(&line, "Resolving %s", job->subject);
        strbuf_add(out, line.data, MIN(line.length, width));
        return;
    }
    const bool all = now->n_items + 1 <= max_lines;
    const size_t room = all ? now->n_items : max_lines > 2 ? max_lines - 2 : max_lines - 1;
    CLEANUP_FREE bool *chosen = choose_layers(now, room);
    for (size_t i = 0; i < now->n_items; i++) {
        if (chosen[i]) {
            begin_line(screen, out);
            add_layer(out, now->items[i], width, screen->color);
        }
    }
    if (!all && max_lines > 2) {
        CLEANUP_STRBUF struct strbuf line = {0};
        begin_line(screen, out);
        strbuf_addf(&line, "... and %zu more", now->n_items - room);
        strbuf_add(out, line.data, MIN(line.length, width));
    }
    begin_line(screen, out);
    add_total(out, now, width);
}

static size_t usable_width(struct terminal_size size)
{
    return size.width > 1 ? size.width - 1 : 1; /* erasing in the last column eats a character */
}

void progress_draw(struct progress_screen *screen, const pull_job *now, struct terminal_size size,
                   struct strbuf *out)
{
    const size_t max_lines = size.height > 1 ? size.height - 1 : 1;
    begin_drawing(screen, now, out);
    add_live_lines(screen, now, max_lines, usable_width(size), out);
    strbuf_add_str(out, TERMINAL_ERASE_BELOW TERMINAL_WRAP "\r");
    if (screen->lines > 1)
        strbuf_addf(out, "\033[%zuA", screen->lines - 1);
}

void progress_draw_last(struct progress_screen *screen, const pull_job *job,
                        struct terminal_size size, struct strbuf *out)
{
    const job_progress *now = job->progress;
    begin_drawing(screen, job, out);
    for (size_t i = 0; i < now->n_items; i++) {
        strbuf_add_str(out, TERMINAL_ERASE_LINE);
        add_layer(out, now->items[i], usable_width(size), screen->color);
        strbuf_add_str(out, "\r\n");
    }
    strbuf_add_str(out, TERMINAL_ERASE_BELOW TERMINAL_WRAP TERMINAL_SHOW_CURSOR);
    screen->drawn = false;
}

void progress_leave(struct progress_screen *screen, struct strbuf *out)
{
    if (!screen->drawn)
        return;
    for (size_t i = 0; i < screen->lines; i++)
        strbuf_add_str(out, "\r\n");
    strbuf_add_str(out, TERMINAL_SHOW_CURSOR);
    screen->drawn = false;
}

/* --- Lines -------------------------------------------------------------------------------------
 */

void progress_lines_done(struct progress_lines *lines)
{
    free(lines->said);
    *lines = (struct progress_lines){0};
}

enum { SAID_FIRST = 1, SAID_DOWNLOADED = 2, SAID_COMPLETE = 4 };

static void say(unsigned char *said, unsigned char what, const layer_progress *layer,
                const char *text, struct strbuf *out)
{
    if (*said & what)
        return;
    *said |= what;
    add_short_id(out, layer->id);
    strbuf_addf(out, ": %s\n", text);
}

static void say_layer(unsigned char *said, const layer_progress *layer, struct strbuf *out)
{
    if (layer->state == LAYER(PRESENT)) {
        say(said, SAID_COMPLETE, layer, "Already exists", out);
        return;
    }
    say(said, SAID_FIRST, layer, "Pulling fs layer", out);
    if (layer->state == LAYER(STORING) || layer->state == LAYER(DONE))
        say(said, SAID_DOWNLOADED, layer, "Download complete", out);
    if (layer->state == LAYER(DONE))
        say(said, SAID_COMPLETE, layer, "Pull complete", out);
}

void progress_say(struct progress_lines *lines, const pull_job *job, struct strbuf *out)
{
    const job_progress *now = job->progress;
    add_heading(&lines->heading, job, "\n", out);
    if (now->n_items > lines->layers) {
        lines->said = xrealloc(lines->said, now->n_items);
        memset(lines->said + lines->layers, 0, now->n_items - lines->layers);
        lines->layers = now->n_items;
    }
    for (size_t i = 0; i < now->n_items; i++)
        say_layer(&lines->said[i], now->items[i], out);
}

void progress_add_result(const pull_job *last, const pull_result *result, bool within_run,
                         struct strbuf *out)
{
    const char *familiar = last && !str_empty(last->subject) ? last->subject : result->reference;
    strbuf_addf(out, "Digest: %s\nStatus: %s for %s\n", result->digest,
                result->up_to_date ? "Image is up to date" : "Downloaded newer image", familiar);
    if (!within_run)
        strbuf_addf(out, "%s\n", result->reference);
}
