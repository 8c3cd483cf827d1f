/* A pull's snapshots as people and programs want to see them. Pure functions: snapshot, size and
 * what is on the screen already go in, bytes to write come out.
 * Nouns: the *screen* is the live view of a terminal, one line per layer and a total, redrawn in
 * place; *lines* are the same for a pipe, each said once; JSON is one object per snapshot. */
#pragma once

#include "client/ui/terminal.h"
#include "proto/davit/v1/jobs.pb-c.h"

typedef Davit__V1__Job pull_job;
typedef Davit__V1__PullResult pull_result;

/* The lines before the layers; each is printed once. */
struct progress_heading {
    bool within_run; /* `run` does not say "Using default tag" */
    bool said_default, said_from;
};

struct progress_screen {
    struct progress_heading heading;
    bool color;
    bool drawn; /* the cursor is hidden and stands on the first of `lines` live lines */
    size_t lines;
};

/* Redraws the live lines. At most size.height - 1 lines, each at most size.width - 1 columns. The
 * cursor is left on the first one: a terminal that wraps lines anew when it is resized moves the
 * cursor along, so that the next drawing starts at the right place. */
void progress_draw(struct progress_screen *screen, const pull_job *now, struct terminal_size size,
                   struct strbuf *out);

/* Ends the live view: all layers stay, however many, and no total. The cursor is shown again. */
void progress_draw_last(struct progress_screen *screen, const pull_job *now,
                        struct terminal_size size, struct strbuf *out);

/* Leaves the live lines as they stand and puts the cursor below them, shown: for an error, Ctrl-C
 * or Ctrl-Z. The next drawing starts below. */
void progress_leave(struct progress_screen *screen, struct strbuf *out);

struct progress_lines {
    struct progress_heading heading;
    unsigned char *said; /* per layer, which of its lines */
    size_t layers;
};

void progress_lines_done(struct progress_lines *lines);

/* What is new in this snapshot, as lines. Stages that fell between two snapshots are said too. */
void progress_say(struct progress_lines *lines, const pull_job *now, struct strbuf *out);

/* "Digest: ...", "Status: ..." and, but for `run`, the canonical name. */
void progress_add_result(const pull_job *last, const pull_result *result, bool within_run,
                         struct strbuf *out);

/* One line of JSON for the snapshot, with the result if there is one. */
void progress_add_json(const pull_job *now, const pull_result *result, struct strbuf *out);
