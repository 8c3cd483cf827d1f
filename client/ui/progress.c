#include "client/ui/progress.h"

#include "client/ui/bar.h"
#include "client/ui/units.h"

typedef Davit__V1__JobItem job_item;
typedef Davit__V1__JobProgress job_progress;

#define JOB(state) DAVIT__V1__JOB__STATE__##state
#define KIND(kind) DAVIT__V1__JOB__KIND__##kind
#define ITEM(state) DAVIT__V1__JOB_ITEM__STATE__##state
#define PHASE(phase) DAVIT__V1__JOB_PROGRESS__PHASE__##phase

/* What a bar should have at least before more is said beside it. */
#define BAR_GOOD 30

void progress_add_id(struct strbuf *out, const char *digest)
{
    strbuf_addf(out, "%.*s", SHORT_ID, id_digits(digest));
}

static void add_push_heading(struct progress_heading *heading, const Davit__V1__PushDetails *push,
                             const char *newline, struct strbuf *out)
{
    if (push->default_tag && !push->all_tags && !heading->said_default)
        strbuf_addf(out, "Using default tag: %s%s", push->tag, newline);
    if (!heading->said_from)
        strbuf_addf(out, "The push refers to repository [%s]%s", push->repository, newline);
    heading->said_default = heading->said_from = true;
}

/* As Docker: a tag stands alone, a digest has the whole name before it. */
static void add_pulling_from(const job_snapshot *job, const char *newline, struct strbuf *out)
{
    const Davit__V1__PullDetails *pull = job->pull;
    const char *at = strchr(job->subject, '@');
    if (at && str_eq(at + 1, pull->tag)) {
        const size_t length = strlen(pull->repository), before = (size_t)(at - job->subject);
        const bool has_domain = before > length && job->subject[before - length - 1] == '/';
        if (has_domain)
            strbuf_addf(out, "%s: ", job->subject);
        else
            strbuf_addf(out, "docker.io/%s%s: ", pull->repository, at);
    } else {
        strbuf_addf(out, "%s: ", pull->tag);
    }
    strbuf_addf(out, "Pulling from %s%s", pull->repository, newline);
}

void progress_add_heading(struct progress_heading *heading, const job_snapshot *job,
                          const char *newline, struct strbuf *out)
{
    const Davit__V1__PullDetails *pull = job->pull;
    if (job->push)
        add_push_heading(heading, job->push, newline, out);
    if (!pull)
        return;
    if (pull->default_tag && !heading->within_run && !heading->said_default)
        strbuf_addf(out, "Using default tag: %s%s", pull->tag, newline);
    heading->said_default = true;
    /* Docker says it once the registry has answered. */
    if (job->progress->phase > PHASE(RESOLVING) && job->state <= JOB(DONE) && !heading->said_from) {
        add_pulling_from(job, newline, out);
        heading->said_from = true;
    }
}

/* --- Lines of items ----------------------------------------------------------------------------
 */

/* Adds as much of the text as fits so many columns. Returns how many it took. */
static size_t add_cut(struct strbuf *out, const char *text, size_t columns)
{
    size_t length = 0, taken = 0;
    while (text[length] && taken < columns) {
        do
            length++;
        while ((text[length] & 0xc0) == 0x80);
        taken++;
    }
    strbuf_add(out, text, length);
    return taken;
}

/* How fast, and from where if it is not the registry itself, as far as there is room. */
static void add_extras(struct strbuf *out, const struct progress_screen *screen,
                       const job_item *item, size_t room)
{
    CLEANUP_STRBUF struct strbuf speed = {0}, text = {0}, source = {0};
    if (item->bytes_per_second) {
        add_size(&speed, item->bytes_per_second);
        strbuf_add_str(&speed, "/s");
    }
    strbuf_addf(&text, "  %11s", strbuf_text(&speed)); /* blank, it keeps the bars in line */
    if (!str_empty(item->source) && !str_eq(item->source, screen->home)) {
        strbuf_add_str(&source, "  from ");
        strbuf_add_printable(&source, item->source);
    }
    if (text.length <= room)
        strbuf_add(out, strbuf_text(&text), text.length);
    if (out->length + terminal_columns(strbuf_text(&source)) <= room)
        strbuf_add(out, strbuf_text(&source), source.length);
}

static void add_transfer(struct strbuf *out, const struct progress_screen *screen, const char *word,
                         const job_item *item, size_t width)
{
    CLEANUP_STRBUF struct strbuf now = {0}, total = {0}, extras = {0};
    const size_t start = out->length;
    add_size(&now, item->bytes_fetched);
    add_size(&total, item->bytes_total);
    strbuf_addf(out, "%-11s ", word);
    const size_t numbers = MAX(now.length, 8) + 1 + MAX(total.length, screen->total_width);
    const size_t used = terminal_columns(strbuf_text(out));
    if (used + BAR_MIN + 1 + numbers <= width) {
        const size_t room = width - used - 1 - numbers;
        add_extras(&extras, screen, item, room - MIN(room, BAR_GOOD));
        add_bar(out, item->bytes_fetched, item->bytes_total,
                MIN(room - terminal_columns(strbuf_text(&extras)), BAR_MAX + 3));
        strbuf_addf(out, " %8s/%-*s%s", strbuf_text(&now), (int)screen->total_width,
                    strbuf_text(&total), strbuf_text(&extras));
    } else if (used + now.length + 1 + total.length <= width) {
        strbuf_addf(out, "%s/%s", strbuf_text(&now), strbuf_text(&total));
    } else {
        out->length = start; /* too narrow for the word */
        const uint64_t whole = MAX(item->bytes_total, 1);
        strbuf_addf(out, "%u%%", (unsigned)(MIN(item->bytes_fetched, whole) * 100.0 / whole));
    }
}

/* "Retrying in 3s (2.5MB/10MB): connection reset by peer" */
static void add_wait(struct strbuf *out, const struct progress_screen *screen, const char *word,
                     const job_item *item)
{
    strbuf_add_str(out, word);
    if (item->until_unix_ms > 0) {
        strbuf_add_str(out, " in ");
        add_countdown(out, item->until_unix_ms - screen->now_unix_ms);
    }
    strbuf_add_str(out, " (");
    add_size(out, item->bytes_fetched);
    strbuf_add_char(out, '/');
    add_size(out, item->bytes_total);
    strbuf_add_char(out, ')');
    if (!str_empty(item->error)) {
        strbuf_add_str(out, ": ");
        strbuf_add_printable(out, item->error);
    }
}

/* Docker's words for what has come to its end. */
static const char *end_word(const job_item *item, bool push)
{
    if (item->state == ITEM(PRESENT))
        return push ? "Layer already exists" : "Already exists";
    return push ? "Pushed" : "Pull complete";
}

static bool is_upload(const job_snapshot *job)
{
    return job->kind == KIND(LOAD) || job->kind == KIND(IMPORT);
}

static const char *load_word(const job_snapshot *job)
{
    return job->kind == KIND(LOAD) ? "Loading layer" : "Importing";
}

static void add_state(struct strbuf *out, const struct progress_screen *screen,
                      const job_snapshot *job, const job_item *item, size_t width)
{
    const bool loads = is_upload(job);
    switch (item->state) {
    case ITEM(RESOLVING):
        strbuf_add_str(out, "Resolving");
        break;
    case ITEM(CHECKING):
        strbuf_add_str(out, "Preparing");
        break;
    case ITEM(FETCHING):
        add_transfer(out, screen,
                     loads                 ? load_word(job)
                     : item->bytes_resumed ? "Resuming"
                                           : "Downloading",
                     item, width);
        break;
    case ITEM(SHARED):
        add_transfer(out, screen, "Shared", item, width);
        break;
    case ITEM(SENDING):
        add_transfer(out, screen, "Pushing", item, width);
        break;
    case ITEM(RATE_LIMITED):
        add_wait(out, screen, "Rate-limited by the registry, goes on", item);
        break;
    case ITEM(RETRYING):
        add_wait(out, screen, "Retrying", item);
        break;
    case ITEM(STORING):
        strbuf_add_str(out, "Extracting  ");
        add_size(out, item->bytes_stored);
        break;
    case ITEM(VERIFYING):
        strbuf_add_str(out, "Verifying Checksum");
        break;
    case ITEM(MOUNTED):
        strbuf_add_str(out, "Mounted from ");
        strbuf_add_printable(out, item->source);
        break;
    case ITEM(DONE):
        if (loads) { /* Docker leaves the bar as it is at its end */
            add_transfer(out, screen, load_word(job), item, width);
            break;
        }
        /* fallthrough */
    case ITEM(PRESENT):
        strbuf_add_str(out, end_word(item, job->kind == KIND(PUSH)));
        break;
    default:
        strbuf_add_str(out, "Waiting");
    }
}

static const char *color_of(const job_item *item)
{
    switch (item->state) {
    case ITEM(DONE):
    case ITEM(PRESENT):
    case ITEM(MOUNTED):
        return TERMINAL_GREEN;
    case ITEM(RATE_LIMITED):
    case ITEM(RETRYING):
        return TERMINAL_YELLOW;
    default:
        return NULL;
    }
}

static void add_item(struct strbuf *out, const struct progress_screen *screen,
                     const job_snapshot *job, const job_item *item, size_t width)
{
    CLEANUP_STRBUF struct strbuf line = {0};
    const char *color = screen->color ? color_of(item) : NULL;
    progress_add_id(&line, item->id);
    strbuf_add_str(&line, str_empty(item->id) ? "" : ": ");
    const size_t id_width = MIN(line.length, width);
    strbuf_add(out, line.data, id_width);
    add_state(&line, screen, job, item, width);
    if (color)
        strbuf_add_str(out, color);
    add_cut(out, line.data + id_width, width - id_width);
    if (color)
        strbuf_add_str(out, TERMINAL_PLAIN);
}

/* --- The total ---------------------------------------------------------------------------------
 */

static uint64_t resumed_bytes(const job_progress *now)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < now->n_items; i++)
        sum += now->items[i]->bytes_resumed;
    return sum;
}

static void add_size_part(struct strbuf *line, const char *before, uint64_t bytes,
                          const char *after, size_t width)
{
    CLEANUP_STRBUF struct strbuf part = {0};
    strbuf_add_str(&part, before);
    add_size(&part, bytes);
    strbuf_add_str(&part, after);
    add_part(line, &part, width);
}

static void add_total(struct strbuf *out, const job_snapshot *job, size_t width)
{
    CLEANUP_STRBUF struct strbuf line = {0}, percent = {0}, bytes = {0}, eta = {0};
    const job_progress *now = job->progress;
    const uint64_t resumed = resumed_bytes(now);
    if (now->bytes_total)
        strbuf_addf(&percent, width >= 20 ? "Total: %u%%" : "%u%%", now->percent);
    else
        strbuf_add_str(&percent, "Total:"); /* of what comes through a pipe */
    add_part(&line, &percent, width);
    add_size(&bytes, now->bytes_fetched);
    if (now->bytes_total) {
        strbuf_add_char(&bytes, '/');
        add_size(&bytes, now->bytes_total);
    }
    add_part(&line, &bytes, width);
    if (now->bytes_fetched < now->bytes_total) {
        add_size_part(&line, "", now->bytes_per_second, "/s", width);
        if (now->eta_ms >= 0) {
            strbuf_add_str(&eta, "ETA ");
            add_countdown(&eta, now->eta_ms);
            add_part(&line, &eta, width);
        }
        if (job->limit_bytes_per_second)
            add_size_part(&line, "limit ", job->limit_bytes_per_second, "/s", width);
        if (resumed)
            add_size_part(&line, "", resumed, " were there", width);
    }
    strbuf_add(out, line.data, line.length);
}

/* --- The screen --------------------------------------------------------------------------------
 */

/* Where there is no room for all items: those at work first, then those that wait. */
static int urgency(const job_item *item)
{
    switch (item->state) {
    case ITEM(DONE):
    case ITEM(PRESENT):
    case ITEM(MOUNTED):
        return 2;
    case ITEM(WAITING):
    case ITEM(STATE_UNSPECIFIED):
        return 1;
    default:
        return 0;
    }
}

/* So that the bars of all items end in one column. */
static size_t widest_total(const job_progress *now)
{
    size_t width = 0;
    for (size_t i = 0; i < now->n_items; i++)
        width = MAX(width, strlen(size_text(now->items[i]->bytes_total).text));
    return width;
}

static bool *choose_items(const job_progress *now, size_t room)
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

static void begin_drawing(struct progress_screen *screen, const job_snapshot *job,
                          struct strbuf *out)
{
    strbuf_add_str(out, screen->drawn ? "\r" : TERMINAL_HIDE_CURSOR "\r");
    progress_add_heading(&screen->heading, job, TERMINAL_ERASE_LINE "\r\n", out);
    strbuf_add_str(out, TERMINAL_NO_WRAP); /* the window may shrink while this is on its way */
    screen->total_width = widest_total(job->progress);
    screen->drawn = true;
    screen->lines = 0;
}

static void begin_line(struct progress_screen *screen, struct strbuf *out)
{
    strbuf_add_str(out, screen->lines++ ? "\r\n" TERMINAL_ERASE_LINE : TERMINAL_ERASE_LINE);
}

static void add_line(struct progress_screen *screen, const char *text, size_t width,
                     struct strbuf *out)
{
    begin_line(screen, out);
    add_cut(out, text, width);
}

static void add_live_lines(struct progress_screen *screen, const job_snapshot *job,
                           size_t max_lines, size_t width, struct strbuf *out)
{
    const job_progress *now = job->progress;
    CLEANUP_STRBUF struct strbuf line = {0};
    if (now->n_items == 0) {
        strbuf_addf(&line, "%s ", is_upload(job) ? "Reading" : "Resolving");
        strbuf_add_printable(&line, job->subject);
        add_line(screen, strbuf_text(&line), width, out);
        return;
    }
    const bool all = now->n_items + 1 <= max_lines;
    const size_t room = all ? now->n_items : max_lines > 2 ? max_lines - 2 : max_lines - 1;
    CLEANUP_FREE bool *chosen = choose_items(now, room);
    for (size_t i = 0; i < now->n_items; i++) {
        if (chosen[i]) {
            begin_line(screen, out);
            add_item(out, screen, job, now->items[i], width);
        }
    }
    if (!all && max_lines > 2) {
        strbuf_addf(&line, "... and %zu more", now->n_items - room);
        add_line(screen, strbuf_text(&line), width, out);
    }
    begin_line(screen, out);
    add_total(out, job, width);
}

static size_t usable_width(struct terminal_size size)
{
    return size.width > 1 ? size.width - 1 : 1; /* erasing in the last column eats a character */
}

void progress_draw(struct progress_screen *screen, const job_snapshot *job,
                   struct terminal_size size, struct strbuf *out)
{
    size_t max_lines = size.height > 1 ? size.height - 1 : 1;
    const bool notice = screen->notice && max_lines > 2;
    begin_drawing(screen, job, out);
    add_live_lines(screen, job, max_lines - notice, usable_width(size), out);
    if (notice)
        add_line(screen, screen->notice, usable_width(size), out);
    strbuf_add_str(out, TERMINAL_ERASE_BELOW TERMINAL_WRAP "\r");
    if (screen->lines > 1)
        strbuf_addf(out, "\033[%zuA", screen->lines - 1);
}

void progress_draw_last(struct progress_screen *screen, const job_snapshot *job,
                        struct terminal_size size, struct strbuf *out)
{
    const job_progress *now = job->progress;
    begin_drawing(screen, job, out);
    for (size_t i = 0; i < now->n_items; i++) {
        strbuf_add_str(out, TERMINAL_ERASE_LINE);
        add_item(out, screen, job, now->items[i], usable_width(size));
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
