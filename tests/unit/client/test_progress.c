#include "tests/unit/client/screen.h"

#include "client/ui/progress.h"
#include "proto/base/json.h"

#define LAYER(state) DAVIT__V1__JOB_ITEM__STATE__##state
#define PHASE(phase) DAVIT__V1__JOB_PROGRESS__PHASE__##phase
#define LAYERS_MAX 20

/* --- Snapshots ---------------------------------------------------------------------------------
 */

struct snapshot {
    job_snapshot job;
    Davit__V1__PullDetails pull;
    Davit__V1__JobProgress progress;
    Davit__V1__JobItem layers[LAYERS_MAX], *pointers[LAYERS_MAX];
    char digests[LAYERS_MAX][80];
};

static void snapshot_init(struct snapshot *s, size_t layers)
{
    *s = (struct snapshot){
        .job = DAVIT__V1__JOB__INIT,
        .pull = DAVIT__V1__PULL_DETAILS__INIT,
        .progress = DAVIT__V1__JOB_PROGRESS__INIT,
    };
    s->job.id = "0123456789ab";
    s->job.subject = "busybox:latest";
    s->job.pull = &s->pull;
    s->job.progress = &s->progress;
    s->pull.repository = "library/busybox";
    s->pull.tag = "latest";
    s->pull.default_tag = true;
    s->progress.phase = PHASE(TRANSFERRING);
    s->progress.eta_ms = -1;
    s->progress.n_items = layers;
    s->progress.items = s->pointers;
    for (size_t i = 0; i < layers; i++) {
        s->layers[i] = (Davit__V1__JobItem)DAVIT__V1__JOB_ITEM__INIT;
        snprintf(s->digests[i], sizeof(s->digests[i]), "sha256:%012zx%052d", i + 10, 0);
        s->layers[i].id = s->digests[i];
        s->layers[i].state = LAYER(WAITING);
        s->layers[i].bytes_total = 10000000;
        s->pointers[i] = &s->layers[i];
        s->progress.bytes_total += s->layers[i].bytes_total;
    }
}

static void set_layer(struct snapshot *s, size_t i, int state, uint64_t fetched, uint64_t stored)
{
    s->layers[i].state = (Davit__V1__JobItem__State)state;
    s->progress.bytes_fetched += fetched - s->layers[i].bytes_fetched;
    s->layers[i].bytes_fetched = fetched;
    s->layers[i].bytes_stored = stored;
    s->progress.percent =
        (uint32_t)(s->progress.bytes_fetched * 100 / MAX(s->progress.bytes_total, 1));
}

/* Four layers, one of each kind. */
static void snapshot_midway(struct snapshot *s)
{
    snapshot_init(s, 4);
    set_layer(s, 0, LAYER(PRESENT), 10000000, 0);
    set_layer(s, 1, LAYER(FETCHING), 2500000, 0);
    set_layer(s, 2, LAYER(STORING), 10000000, 23400000);
    s->progress.bytes_per_second = 1250000;
    s->progress.eta_ms = 14000;
}

/* --- Screens -----------------------------------------------------------------------------------
 */

struct viewer {
    struct screen terminal;
    struct progress_screen view;
};

static void viewer_init(struct viewer *viewer, unsigned width, unsigned height)
{
    *viewer = (struct viewer){0};
    screen_init(&viewer->terminal, width, height);
}

static void viewer_done(struct viewer *viewer)
{
    strbuf_done(&viewer->terminal.scrolled);
}

static struct terminal_size size_of(const struct viewer *viewer)
{
    return (struct terminal_size){viewer->terminal.width, viewer->terminal.height};
}

static void draw(struct viewer *viewer, const struct snapshot *s)
{
    CLEANUP_STRBUF struct strbuf bytes = {0};
    progress_draw(&viewer->view, &s->job, size_of(viewer), &bytes);
    screen_write(&viewer->terminal, &bytes);
    assert_true(viewer->terminal.hidden);
    assert_false(viewer->terminal.no_wrap);
    assert_int_equal(viewer->terminal.column, 0);
}

static void draw_last(struct viewer *viewer, const struct snapshot *s)
{
    CLEANUP_STRBUF struct strbuf bytes = {0};
    progress_draw_last(&viewer->view, &s->job, size_of(viewer), &bytes);
    screen_write(&viewer->terminal, &bytes);
    assert_false(viewer->terminal.hidden);
    assert_false(viewer->terminal.no_wrap);
}

static void leave(struct viewer *viewer)
{
    CLEANUP_STRBUF struct strbuf bytes = {0};
    progress_leave(&viewer->view, &bytes);
    screen_write(&viewer->terminal, &bytes);
    assert_false(viewer->terminal.hidden);
}

static void assert_screen(const struct viewer *viewer, const char *expected)
{
    CLEANUP_FREE char *text = screen_text(&viewer->terminal);
    assert_string_equal(text, expected);
}

static void test_screen_80(void **state UNUSED)
{
    CLEANUP(viewer_done) struct viewer viewer;
    struct snapshot s;
    viewer_init(&viewer, 80, 24);
    snapshot_midway(&s);
    draw(&viewer, &s);
    assert_screen(
        &viewer, "Using default tag: latest\n"
                 "latest: Pulling from library/busybox\n"
                 "00000000000a: Already exists\n"
                 "00000000000b: Downloading [=========>                           ]    2.5MB/10MB\n"
                 "00000000000c: Extracting  23.4MB\n"
                 "00000000000d: Waiting\n"
                 "Total: 56%  22.5MB/40MB  1.25MB/s  ETA 14s\n");
    assert_int_equal(viewer.terminal.row, 2); /* on the first live line */
    assert_false(viewer.terminal.overflowed);
}

static void test_screen_redraws_in_place(void **state UNUSED)
{
    CLEANUP(viewer_done) struct viewer viewer;
    struct snapshot s;
    viewer_init(&viewer, 60, 24);
    snapshot_midway(&s);
    draw(&viewer, &s);
    set_layer(&s, 1, LAYER(DONE), 10000000, 0);
    set_layer(&s, 2, LAYER(DONE), 10000000, 0);
    set_layer(&s, 3, LAYER(FETCHING), 0, 0);
    s.progress.eta_ms = -1;
    draw(&viewer, &s);
    assert_screen(&viewer, "Using default tag: latest\n"
                           "latest: Pulling from library/busybox\n"
                           "00000000000a: Already exists\n"
                           "00000000000b: Pull complete\n"
                           "00000000000c: Pull complete\n"
                           "00000000000d: Downloading [>                ]       0B/10MB\n"
                           "Total: 75%  30MB/40MB  1.25MB/s\n");
    set_layer(&s, 3, LAYER(DONE), 10000000, 0);
    draw_last(&viewer, &s);
    assert_screen(&viewer, "Using default tag: latest\n"
                           "latest: Pulling from library/busybox\n"
                           "00000000000a: Already exists\n"
                           "00000000000b: Pull complete\n"
                           "00000000000c: Pull complete\n"
                           "00000000000d: Pull complete\n");
    assert_int_equal(viewer.terminal.row, 6);
    assert_int_equal(viewer.terminal.column, 0);
}

static void test_screen_20_columns(void **state UNUSED)
{
    CLEANUP(viewer_done) struct viewer viewer;
    struct snapshot s;
    viewer_init(&viewer, 20, 24);
    snapshot_midway(&s);
    viewer.view.heading.within_run = true;
    s.pull.repository = "a/b"; /* what is printed once may wrap */
    s.pull.tag = "1";
    draw(&viewer, &s);
    assert_screen(&viewer, "1: Pulling from a/b\n"
                           "00000000000a: Alrea\n"
                           "00000000000b: 25%\n"
                           "00000000000c: Extra\n"
                           "00000000000d: Waiti\n"
                           "56%  22.5MB/40MB\n");
    assert_false(viewer.terminal.overflowed);
}

static void test_screen_40_columns(void **state UNUSED)
{
    CLEANUP(viewer_done) struct viewer viewer;
    struct snapshot s;
    viewer_init(&viewer, 40, 24);
    snapshot_midway(&s);
    draw(&viewer, &s);
    assert_screen(&viewer, "Using default tag: latest\n"
                           "latest: Pulling from library/busybox\n"
                           "00000000000a: Already exists\n"
                           "00000000000b: Downloading 2.5MB/10MB\n"
                           "00000000000c: Extracting  23.4MB\n"
                           "00000000000d: Waiting\n"
                           "Total: 56%  22.5MB/40MB  1.25MB/s\n");
    assert_false(viewer.terminal.overflowed);
}

/* No size is too small: nothing wraps, nothing scrolls but what is printed once. */
static void test_screen_any_size(void **state UNUSED)
{
    for (unsigned width = 1; width < 120; width++) {
        for (unsigned height = 1; height < 10; height++) {
            CLEANUP(viewer_done) struct viewer viewer;
            struct snapshot s;
            viewer_init(&viewer, width, height);
            snapshot_midway(&s);
            viewer.view.heading.said_default = viewer.view.heading.said_from = true;
            for (int frame = 0; frame < 3; frame++)
                draw(&viewer, &s);
            assert_int_equal(viewer.terminal.scrolled.length, 0);
            assert_int_equal(viewer.terminal.row, 0);
            if (width > 1)
                assert_false(viewer.terminal.overflowed);
        }
    }
}

static void test_screen_more_layers_than_rows(void **state UNUSED)
{
    CLEANUP(viewer_done) struct viewer viewer;
    struct snapshot s;
    viewer_init(&viewer, 40, 6);
    viewer.view.heading.within_run = true;
    snapshot_init(&s, 9);
    set_layer(&s, 0, LAYER(DONE), 10000000, 0);
    set_layer(&s, 1, LAYER(PRESENT), 10000000, 0);
    set_layer(&s, 4, LAYER(FETCHING), 1000000, 0);
    set_layer(&s, 7, LAYER(STORING), 10000000, 5);
    draw(&viewer, &s);
    draw(&viewer, &s);
    assert_screen(&viewer, "latest: Pulling from library/busybox\n"
                           "00000000000c: Waiting\n"
                           "00000000000e: Downloading 1MB/10MB\n"
                           "000000000011: Extracting  5B\n"
                           "... and 6 more\n"
                           "Total: 34%  31MB/90MB  0B/s\n");
    for (size_t i = 0; i < 9; i++)
        set_layer(&s, i, LAYER(DONE), 10000000, 0);
    draw_last(&viewer, &s);
    assert_screen(&viewer, "latest: Pulling from library/busybox\n"
                           "00000000000a: Pull complete\n"
                           "00000000000b: Pull complete\n"
                           "00000000000c: Pull complete\n"
                           "00000000000d: Pull complete\n"
                           "00000000000e: Pull complete\n"
                           "00000000000f: Pull complete\n"
                           "000000000010: Pull complete\n"
                           "000000000011: Pull complete\n"
                           "000000000012: Pull complete\n");
}

/* The terminal keeps the cursor on its text when the window changes; what the old size left behind
 * is erased. */
static void test_screen_resize(void **state UNUSED)
{
    CLEANUP(viewer_done) struct viewer viewer;
    struct snapshot s;
    viewer_init(&viewer, 80, 24);
    viewer.view.heading.said_default = viewer.view.heading.said_from = true;
    snapshot_init(&s, 9);
    draw(&viewer, &s);
    viewer.terminal.width = 30;
    viewer.terminal.height = 5;
    draw(&viewer, &s);
    assert_screen(&viewer, "00000000000a: Waiting\n"
                           "00000000000b: Waiting\n"
                           "... and 7 more\n"
                           "Total: 0%  0B/90MB  0B/s\n");
    viewer.terminal.height = 24;
    draw(&viewer, &s);
    assert_int_equal(viewer.view.lines, 10);
}

static void test_screen_left_and_resumed(void **state UNUSED)
{
    CLEANUP(viewer_done) struct viewer viewer;
    struct snapshot s;
    viewer_init(&viewer, 40, 24);
    viewer.view.heading.said_default = viewer.view.heading.said_from = true;
    snapshot_init(&s, 1);
    draw(&viewer, &s);
    leave(&viewer);
    assert_int_equal(viewer.terminal.row, 2);
    leave(&viewer); /* again: nothing */
    assert_int_equal(viewer.terminal.row, 2);
    draw(&viewer, &s);
    assert_screen(&viewer, "00000000000a: Waiting\n"
                           "Total: 0%  0B/10MB  0B/s\n"
                           "00000000000a: Waiting\n"
                           "Total: 0%  0B/10MB  0B/s\n");
}

static void test_screen_before_layers(void **state UNUSED)
{
    CLEANUP(viewer_done) struct viewer viewer;
    struct snapshot s;
    viewer_init(&viewer, 40, 24);
    snapshot_init(&s, 0);
    s.progress.phase = PHASE(RESOLVING);
    draw(&viewer, &s);
    assert_screen(&viewer, "Using default tag: latest\nResolving busybox:latest\n");
    snapshot_init(&s, 1);
    draw(&viewer, &s);
    assert_screen(&viewer, "Using default tag: latest\n"
                           "latest: Pulling from library/busybox\n"
                           "00000000000a: Waiting\n"
                           "Total: 0%  0B/10MB  0B/s\n");
}

/* All that may hold up a layer, and where it comes from. */
static void test_screen_of_every_state(void **state UNUSED)
{
    CLEANUP(viewer_done) struct viewer viewer;
    struct snapshot s;
    viewer_init(&viewer, 110, 24);
    viewer.view.heading.said_default = viewer.view.heading.said_from = true;
    viewer.view.home = "registry-1.docker.io";
    viewer.view.notice = "Press Ctrl-C again";
    viewer.view.now_unix_ms = 1000000;
    snapshot_init(&s, 8);
    s.job.limit_bytes_per_second = 500000;
    set_layer(&s, 0, LAYER(FETCHING), 9900000, 0);
    s.layers[0].bytes_resumed = 9000000;
    s.layers[0].bytes_per_second = 125000;
    s.layers[0].source = "mirror.example.com";
    set_layer(&s, 1, LAYER(FETCHING), 5000000, 0);
    s.layers[1].bytes_per_second = 375000;
    s.layers[1].source = "registry-1.docker.io";
    set_layer(&s, 2, LAYER(RATE_LIMITED), 5000000, 0);
    s.layers[2].until_unix_ms = 1000000 + 250000;
    s.layers[2].error = "429 Too Many Requests";
    set_layer(&s, 3, LAYER(RETRYING), 0, 0);
    s.layers[3].until_unix_ms = 1000000 + 2500;
    s.layers[3].error = "connection \033[31mreset";
    set_layer(&s, 4, LAYER(VERIFYING), 10000000, 0);
    set_layer(&s, 5, LAYER(SHARED), 2000000, 0);
    set_layer(&s, 6, LAYER(RESOLVING), 0, 0);
    draw(&viewer, &s);
    assert_screen(
        &viewer,
        "00000000000a: Resuming    [===========================> ]    9.9MB/10MB"
        "      125kB/s  from mirror.example.com\n"
        "00000000000b: Downloading [=========================>                         ]"
        "      5MB/10MB      375kB/s\n"
        "00000000000c: Rate-limited by the registry, goes on in 4m10s (5MB/10MB): 429 Too Many "
        "Requests\n"
        "00000000000d: Retrying in 3s (0B/10MB): connection \\u001b[31mreset\n"
        "00000000000e: Verifying Checksum\n"
        "00000000000f: Shared      [==========>                                        ]"
        "      2MB/10MB\n"
        "000000000010: Resolving\n"
        "000000000011: Waiting\n"
        "Total: 39%  31.9MB/80MB  0B/s  limit 500kB/s  9MB were there\n"
        "Press Ctrl-C again\n");
    assert_false(viewer.terminal.overflowed);
}

static void test_screen_of_a_push(void **state UNUSED)
{
    CLEANUP(viewer_done) struct viewer viewer;
    struct snapshot s;
    viewer_init(&viewer, 60, 24);
    snapshot_init(&s, 5);
    s.job.kind = DAVIT__V1__JOB__KIND__PUSH;
    s.job.pull = NULL;
    set_layer(&s, 0, LAYER(CHECKING), 0, 0);
    set_layer(&s, 1, LAYER(SENDING), 5000000, 0);
    set_layer(&s, 2, LAYER(PRESENT), 10000000, 0);
    set_layer(&s, 3, LAYER(MOUNTED), 10000000, 0);
    s.layers[3].source = "library/busybox";
    set_layer(&s, 4, LAYER(DONE), 10000000, 0);
    draw(&viewer, &s);
    assert_screen(&viewer, "00000000000a: Preparing\n"
                           "00000000000b: Pushing     [========>        ]      5MB/10MB\n"
                           "00000000000c: Layer already exists\n"
                           "00000000000d: Mounted from library/busybox\n"
                           "00000000000e: Pushed\n"
                           "Total: 70%  35MB/50MB  0B/s\n");
}

static void test_color(void **state UNUSED)
{
    CLEANUP_STRBUF struct strbuf plain = {0}, green = {0};
    struct progress_screen without = {0}, with = {.color = true};
    const struct terminal_size size = {80, 24};
    struct snapshot s;
    snapshot_midway(&s);
    progress_draw(&without, &s.job, size, &plain);
    progress_draw(&with, &s.job, size, &green);
    assert_null(strstr(strbuf_text(&plain), "\033[3"));
    assert_non_null(strstr(strbuf_text(&green), "00000000000a: \033[32mAlready exists\033[0m"));
}

/* Numbers a broken daemon could send. */
static void test_nonsense(void **state UNUSED)
{
    CLEANUP(viewer_done) struct viewer viewer;
    struct snapshot s;
    viewer_init(&viewer, 80, 24);
    snapshot_init(&s, 3);
    set_layer(&s, 0, LAYER(FETCHING), 30000000, 0); /* more than there is */
    s.layers[1].bytes_total = 0;
    set_layer(&s, 1, LAYER(FETCHING), 5, 0);
    s.layers[2].state = (Davit__V1__JobItem__State)77;
    s.layers[2].id = "";
    s.progress.eta_ms = INT64_MAX;
    s.progress.percent = UINT32_MAX;
    draw(&viewer, &s);
    assert_false(viewer.terminal.overflowed);
}

/* --- Lines -------------------------------------------------------------------------------------
 */

static void assert_heading(char *subject, char *repository, char *tag, const char *expected)
{
    struct progress_heading heading = {0};
    CLEANUP_STRBUF struct strbuf text = {0};
    struct snapshot s;
    snapshot_init(&s, 0);
    s.job.subject = subject;
    s.pull.repository = repository;
    s.pull.tag = tag;
    s.pull.default_tag = false;
    progress_add_heading(&heading, &s.job, "\n", &text);
    assert_string_equal(strbuf_text(&text), expected);
}

/* Docker's words: of a digest, the whole name. */
static void test_heading(void **state UNUSED)
{
    assert_heading("a.io/b:1", "b", "1", "1: Pulling from b\n");
    assert_heading("a.io/b/c@sha256:12", "b/c", "sha256:12",
                   "a.io/b/c@sha256:12: Pulling from b/c\n");
    assert_heading("busybox@sha256:12", "library/busybox", "sha256:12",
                   "docker.io/library/busybox@sha256:12: Pulling from library/busybox\n");
    assert_heading("b/c@sha256:12", "b/c", "sha256:12",
                   "docker.io/b/c@sha256:12: Pulling from b/c\n");
}

static void test_lines(void **state UNUSED)
{
    CLEANUP(progress_lines_done) struct progress_lines lines = {0};
    CLEANUP_STRBUF struct strbuf text = {0};
    struct snapshot s;
    snapshot_init(&s, 0);
    s.progress.phase = PHASE(RESOLVING);
    progress_say(&lines, &s.job, &text);
    assert_string_equal(strbuf_text(&text), "Using default tag: latest\n");

    strbuf_clear(&text);
    snapshot_init(&s, 3);
    set_layer(&s, 0, LAYER(PRESENT), 10000000, 0);
    set_layer(&s, 1, LAYER(FETCHING), 1, 0);
    progress_say(&lines, &s.job, &text);
    assert_string_equal(strbuf_text(&text), "latest: Pulling from library/busybox\n"
                                            "00000000000a: Already exists\n"
                                            "00000000000b: Pulling fs layer\n"
                                            "00000000000c: Pulling fs layer\n");
    strbuf_clear(&text);
    progress_say(&lines, &s.job, &text);
    assert_string_equal(strbuf_text(&text), "");

    set_layer(&s, 1, LAYER(STORING), 10000000, 0);
    set_layer(&s, 2, LAYER(DONE), 10000000, 0); /* nobody saw it being stored */
    progress_say(&lines, &s.job, &text);
    set_layer(&s, 1, LAYER(DONE), 10000000, 0);
    progress_say(&lines, &s.job, &text);
    assert_string_equal(strbuf_text(&text), "00000000000b: Download complete\n"
                                            "00000000000c: Download complete\n"
                                            "00000000000c: Pull complete\n"
                                            "00000000000b: Pull complete\n");
}

static void test_lines_within_run(void **state UNUSED)
{
    CLEANUP(progress_lines_done) struct progress_lines lines = {.heading.within_run = true};
    CLEANUP_STRBUF struct strbuf text = {0};
    struct snapshot s;
    snapshot_init(&s, 1);
    set_layer(&s, 0, LAYER(PRESENT), 10000000, 0);
    progress_say(&lines, &s.job, &text);
    assert_string_equal(strbuf_text(&text), "latest: Pulling from library/busybox\n"
                                            "00000000000a: Already exists\n");
}

static void test_lines_of_waits(void **state UNUSED)
{
    CLEANUP(progress_lines_done) struct progress_lines lines = {.now_unix_ms = 1000000};
    CLEANUP_STRBUF struct strbuf text = {0};
    struct snapshot s;
    snapshot_init(&s, 2);
    lines.heading.said_default = lines.heading.said_from = true;
    set_layer(&s, 0, LAYER(RETRYING), 5000000, 0);
    s.layers[0].bytes_resumed = 4000000;
    s.layers[0].until_unix_ms = 1002000;
    s.layers[0].error = "connection reset";
    set_layer(&s, 1, LAYER(RATE_LIMITED), 0, 0);
    s.layers[1].until_unix_ms = 1000000 + 240000;
    progress_say(&lines, &s.job, &text);
    s.layers[0].until_unix_ms = 1002003; /* the same, within what clocks differ */
    progress_say(&lines, &s.job, &text);
    assert_string_equal(strbuf_text(&text),
                        "00000000000a: Pulling fs layer\n"
                        "00000000000a: Resuming at 4MB of 10MB\n"
                        "00000000000a: Retrying in 2 seconds: connection reset\n"
                        "00000000000b: Pulling fs layer\n"
                        "00000000000b: Rate-limited by the registry, goes on in 4 minutes\n");
    strbuf_clear(&text);
    s.layers[0].until_unix_ms = 1004000; /* another one */
    progress_say(&lines, &s.job, &text);
    assert_string_equal(strbuf_text(&text),
                        "00000000000a: Retrying in 4 seconds: connection reset\n");
}

static void test_lines_of_a_push(void **state UNUSED)
{
    CLEANUP(progress_lines_done) struct progress_lines lines = {0};
    CLEANUP_STRBUF struct strbuf text = {0};
    struct snapshot s;
    snapshot_init(&s, 3);
    s.job.kind = DAVIT__V1__JOB__KIND__PUSH;
    s.job.pull = NULL;
    set_layer(&s, 0, LAYER(SENDING), 5000000, 0);
    set_layer(&s, 1, LAYER(PRESENT), 10000000, 0);
    set_layer(&s, 2, LAYER(MOUNTED), 10000000, 0);
    s.layers[2].source = "library/busybox";
    progress_say(&lines, &s.job, &text);
    set_layer(&s, 0, LAYER(DONE), 10000000, 0);
    progress_say(&lines, &s.job, &text);
    assert_string_equal(strbuf_text(&text), "00000000000a: Preparing\n"
                                            "00000000000b: Layer already exists\n"
                                            "00000000000c: Preparing\n"
                                            "00000000000c: Mounted from library/busybox\n"
                                            "00000000000a: Pushed\n");
}

static void test_heading_of_a_push(void **state UNUSED)
{
    CLEANUP(progress_lines_done) struct progress_lines lines = {0}, all = {0};
    CLEANUP_STRBUF struct strbuf text = {0};
    Davit__V1__PushDetails details = DAVIT__V1__PUSH_DETAILS__INIT;
    struct snapshot s;
    snapshot_init(&s, 0);
    s.job.kind = DAVIT__V1__JOB__KIND__PUSH;
    s.job.pull = NULL;
    s.job.push = &details;
    s.progress.phase = PHASE(RESOLVING);
    details.repository = "docker.io/library/busybox";
    details.tag = "latest";
    details.default_tag = true;
    progress_say(&lines, &s.job, &text);
    progress_say(&lines, &s.job, &text); /* once */
    assert_string_equal(strbuf_text(&text),
                        "Using default tag: latest\n"
                        "The push refers to repository [docker.io/library/busybox]\n");
    strbuf_clear(&text);
    details.all_tags = true;
    progress_say(&all, &s.job, &text);
    assert_string_equal(strbuf_text(&text),
                        "The push refers to repository [docker.io/library/busybox]\n");
}

/* --- Results and JSON --------------------------------------------------------------------------
 */

static void set_result(struct snapshot *s, Davit__V1__PullResult *result, bool up_to_date)
{
    *result = (Davit__V1__PullResult)DAVIT__V1__PULL_RESULT__INIT;
    result->reference = "docker.io/library/busybox:latest";
    result->digest = "sha256:aa";
    result->image_id = "sha256:bb";
    result->up_to_date = up_to_date;
    s->job.state = DAVIT__V1__JOB__STATE__DONE;
    s->job.result_case = DAVIT__V1__JOB__RESULT_PULL_RESULT;
    s->job.pull_result = result;
}

static void test_result(void **state UNUSED)
{
    CLEANUP_STRBUF struct strbuf newer = {0}, same = {0}, one = {0};
    Davit__V1__PullResult result;
    struct snapshot s;
    snapshot_init(&s, 1);
    set_result(&s, &result, false);
    progress_add_result(&s.job, false, false, &newer);
    assert_string_equal(strbuf_text(&newer), "Digest: sha256:aa\n"
                                             "Status: Downloaded newer image for busybox:latest\n"
                                             "docker.io/library/busybox:latest\n");
    set_result(&s, &result, true);
    progress_add_result(&s.job, true, false, &same);
    assert_string_equal(strbuf_text(&same), "Digest: sha256:aa\n"
                                            "Status: Image is up to date for busybox:latest\n");
    progress_add_result(&s.job, false, true, &one);
    assert_string_equal(strbuf_text(&one), "Digest: sha256:aa\n");
}

static void test_result_of_a_push(void **state UNUSED)
{
    CLEANUP_STRBUF struct strbuf text = {0}, json = {0};
    Davit__V1__PushResult result = DAVIT__V1__PUSH_RESULT__INIT;
    Davit__V1__PushedTag tags[] = {DAVIT__V1__PUSHED_TAG__INIT, DAVIT__V1__PUSHED_TAG__INIT};
    Davit__V1__PushedTag *pointers[] = {&tags[0], &tags[1]};
    struct snapshot s;
    snapshot_init(&s, 0);
    tags[0].tag = "v1";
    tags[0].digest = "sha256:aa";
    tags[0].size_bytes = 528;
    tags[1] = tags[0];
    tags[1].tag = "v2";
    tags[1].difference = "it \033 is";
    result.reference = "docker.io/library/busybox";
    result.tags = pointers;
    result.n_tags = 2;
    s.job.result_case = DAVIT__V1__JOB__RESULT_PUSH_RESULT;
    s.job.push_result = &result;
    progress_add_result(&s.job, false, false, &text);
    assert_string_equal(strbuf_text(&text),
                        "v1: digest: sha256:aa size: 528\n"
                        "v2: digest: sha256:aa size: 528\n"
                        "The manifest differs from the one the image came with: it \\u001b is\n");
    progress_add_json(&s.job, true, &json);
    assert_non_null(strstr(json.data, "\"result\":{\"reference\":\"docker.io/library/busybox\","
                                      "\"tags\":[{\"tag\":\"v1\",\"digest\":\"sha256:aa\","
                                      "\"size\":528,\"difference\":null}"));
}

static void test_json(void **state UNUSED)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    CLEANUP_ERROR struct error err = {0};
    struct snapshot s;
    Davit__V1__PullResult result;
    snapshot_midway(&s);
    set_result(&s, &result, true);
    s.layers[1].state = LAYER(RETRYING);
    s.layers[1].bytes_resumed = 1000;
    s.layers[1].until_unix_ms = 1234;
    s.layers[1].connections = 2;
    s.layers[1].source = "mirror.example.com";
    s.layers[1].error = "reset";
    s.job.limit_bytes_per_second = 500000;
    progress_add_json(&s.job, true, &text);
    assert_ptr_equal(strchr(text.data, '\n'), text.data + text.length - 1);
    CLEANUP_JSON json_t *json = json_parse(text.data, text.length, MIB, "progress", &err);
    assert_ok(json, &err);
    assert_string_equal(json_str(json, "phase"), "TRANSFERRING");
    assert_int_equal(json_int(json, "percent", -1), 56);
    assert_int_equal(json_int(json, "bytes_total", -1), 40000000);
    assert_int_equal(json_int(json, "eta_ms", -1), 14000);
    const json_t *layer = json_array_get(json_object_get(json, "layers"), 2);
    assert_string_equal(json_str(layer, "state"), "STORING");
    assert_int_equal(json_int(layer, "bytes_stored", -1), 23400000);
    assert_true(json_is_null(json_object_get(layer, "source")));
    assert_true(json_is_null(json_object_get(layer, "until_unix_ms")));
    layer = json_array_get(json_object_get(json, "layers"), 1);
    assert_string_equal(json_str(layer, "state"), "RETRYING");
    assert_string_equal(json_str(layer, "source"), "mirror.example.com");
    assert_string_equal(json_str(layer, "error"), "reset");
    assert_int_equal(json_int(layer, "until_unix_ms", -1), 1234);
    assert_int_equal(json_int(layer, "bytes_resumed", -1), 1000);
    assert_int_equal(json_int(layer, "connections", -1), 2);
    assert_int_equal(json_int(json, "limit_bytes_per_second", -1), 500000);
    assert_string_equal(json_str(json, "state"), "DONE");
    assert_string_equal(json_str(json_object_get(json, "result"), "image_id"), "sha256:bb");
    assert_true(json_bool(json_object_get(json, "result"), "up_to_date", false));
}

static void test_json_without_result(void **state UNUSED)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    CLEANUP_ERROR struct error err = {0};
    struct snapshot s;
    snapshot_init(&s, 0);
    progress_add_json(&s.job, false, &text);
    CLEANUP_JSON json_t *json = json_parse(text.data, text.length, MIB, "progress", &err);
    assert_ok(json, &err);
    assert_true(json_is_null(json_object_get(json, "eta_ms"))); /* unknown */
    assert_null(json_object_get(json, "result"));
    assert_int_equal(json_array_size(json_object_get(json, "layers")), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_screen_80),
        cmocka_unit_test(test_screen_redraws_in_place),
        cmocka_unit_test(test_screen_20_columns),
        cmocka_unit_test(test_screen_40_columns),
        cmocka_unit_test(test_screen_any_size),
        cmocka_unit_test(test_screen_more_layers_than_rows),
        cmocka_unit_test(test_screen_resize),
        cmocka_unit_test(test_screen_left_and_resumed),
        cmocka_unit_test(test_screen_before_layers),
        cmocka_unit_test(test_screen_of_every_state),
        cmocka_unit_test(test_screen_of_a_push),
        cmocka_unit_test(test_color),
        cmocka_unit_test(test_nonsense),
        cmocka_unit_test(test_heading),
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_lines_within_run),
        cmocka_unit_test(test_lines_of_waits),
        cmocka_unit_test(test_lines_of_a_push),
        cmocka_unit_test(test_heading_of_a_push),
        cmocka_unit_test(test_result),
        cmocka_unit_test(test_result_of_a_push),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_json_without_result),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
