/* A job's snapshots as people and programs want to see them. Pure functions: snapshot, size and
 * what is on the screen already go in, bytes to write come out.
 * Nouns: the *screen* is the live view of a terminal, one line per item and a total, redrawn in
 * place; *lines* are the same for a pipe, each said once; JSON is one object per snapshot. An item
 * is a layer of a pull or push. */
#pragma once

#include "client/ui/terminal.h"
#include "proto/davit/v1/jobs.pb-c.h"

typedef Davit__V1__Job job_snapshot;

/* The lines before the items; each is printed once. */
struct progress_heading {
    bool within_run; /* `run` does not say "Using default tag" */
    bool said_default, said_from;
};

struct progress_screen {
    struct progress_heading heading;
    bool color;
    const char *home;    /* a source that goes without saying: the registry itself; or NULL */
    const char *notice;  /* a last line, or NULL */
    int64_t now_unix_ms; /* for what is counted down */
    bool drawn;          /* the cursor is hidden and stands on the first of `lines` live lines */
    size_t lines, total_width;
};

/* Redraws the live lines. At most size.height - 1 lines, each at most size.width - 1 columns. The
 * cursor is left on the first one: a terminal that wraps lines anew when it is resized moves the
 * cursor along, so that the next drawing starts at the right place. */
void progress_draw(struct progress_screen *screen, const job_snapshot *job,
                   struct terminal_size size, struct strbuf *out);

/* Ends the live view: all items stay, however many, and no total. The cursor is shown again. */
void progress_draw_last(struct progress_screen *screen, const job_snapshot *job,
                        struct terminal_size size, struct strbuf *out);

/* Leaves the live lines as they stand and puts the cursor below them, shown: for an error, Ctrl-C
 * or Ctrl-Z. The next drawing starts below. */
void progress_leave(struct progress_screen *screen, struct strbuf *out);

struct progress_lines {
    struct progress_heading heading;
    int64_t now_unix_ms;
    struct progress_said *said; /* per item, what has been said of it */
    size_t items;
};

void progress_lines_done(struct progress_lines *lines);

/* What is new in this snapshot, as lines. Stages that fell between two snapshots are said too. */
void progress_say(struct progress_lines *lines, const job_snapshot *job, struct strbuf *out);

/* Docker's last words. Of a pull: "Digest: ...", and but for one of many "Status: ..." and, but for
 * `run`, the canonical name. */
void progress_add_result(const job_snapshot *last, bool within_run, bool one_of_many,
                         struct strbuf *out);

/* One line of JSON for the snapshot, with the result if it has one and with_result is set. */
void progress_add_json(const job_snapshot *job, bool with_result, struct strbuf *out);

/* Shared by the screen and the lines. */
void progress_add_id(struct strbuf *out, const char *digest);
void progress_add_heading(struct progress_heading *heading, const job_snapshot *job,
                          const char *newline, struct strbuf *out);
