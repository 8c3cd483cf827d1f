/* A program that only fetches a blob into a partial, for tests to kill, to take the power from, and
 * to starve; and that says what is there afterwards.
 *
 *     fault-fetch DATA_ROOT SIZE BOOT_ID fetch SEED PAUSE_MS END
 *     fault-fetch DATA_ROOT SIZE BOOT_ID check
 *
 * fetch: several tasks write what is missing, in pieces of any size at any place; each is told when
 * it is written: "wrote OFFSET END". END is what becomes of it: "keep" closes it when there are no
 * more pieces but one, "adopt" has a layer adopt it, "hold" waits for a signal. An error is told as
 * "error CODE REASON: MESSAGE". check: "missing OFFSET END", and "wrong OFFSET" if a byte that is
 * there is not what was written. The kernel's boot ID is what BOOT_ID says. */
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>

#include "daemon/store/partial.h"
#include "proto/async/await.h"
#include "proto/async/loop.h"

#define TASKS 3
#define PIECE_MAX_BYTES 150000
#define READ_BYTES (256 * KIB)

struct fetch {
    const char *data_root, *mode, *end;
    uint64_t size, pause_ms;
    struct store *store;
    struct partial *partial;
};

static uint8_t blob_byte(uint64_t offset)
{
    return (uint8_t)(offset * 31 + (offset >> 8) * 7 + (offset >> 16) * 3 + 1);
}

static struct digest blob_digest(void)
{
    return digest_of("fault-fetch", strlen("fault-fetch"));
}

/* In one call, so that a kill leaves no half of a line. */
static void say(const char *word, uint64_t offset, uint64_t end)
{
    CLEANUP_FREE char *line =
        xasprintf("%s %llu %llu\n", word, (unsigned long long)offset, (unsigned long long)end);

    CHECK(write(STDOUT_FILENO, line, strlen(line)) == (ssize_t)strlen(line));
}

/* Its mounts are nobody else's. */
static void boot(const char *id)
{
    static const char path[] = "/mnt/boot_id";
    int fd;

    CHECK(unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
    CHECK(mount("tmpfs", "/mnt", "tmpfs", 0, NULL) == 0);
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && dprintf(fd, "%s\n", id) > 0);
    CHECK(mount(path, "/proc/sys/kernel/random/boot_id", NULL, MS_BIND, NULL) == 0);
    close(fd);
}

/* --- Fetch -------------------------------------------------------------------------------------
 */

struct piece {
    struct partial *partial;
    struct byte_range range;
    bool ok;
    struct error err;
};

static void write_in_pool(void *arg)
{
    struct piece *piece = arg;
    struct byte_range range = piece->range;
    CLEANUP_FREE uint8_t *data = xmalloc(range.end - range.offset);

    for (uint64_t i = range.offset; i < range.end; i++)
        data[i - range.offset] = blob_byte(i);
    piece->ok = partial_write_blocking(piece->partial, range.offset, data, range.end - range.offset,
                                       &piece->err);
    if (piece->ok)
        say("wrote", range.offset, range.end);
}

static uint64_t below(uint64_t limit)
{
    return (((uint64_t)random() << 31) ^ (uint64_t)random()) % limit;
}

/* A piece of what is missing; the last byte stays away if the blob is to be kept. */
static bool next_piece(const struct fetch *fetch, struct byte_range *ret)
{
    uint64_t size = fetch->size - str_eq(fetch->end, "keep");
    uint64_t length = 1 + below(PIECE_MAX_BYTES);
    bool found = partial_missing(fetch->partial, below(size), ret) && ret->offset < size;

    if (!found)
        found = partial_missing(fetch->partial, 0, ret) && ret->offset < size;
    ret->end = MIN(MIN(ret->end, size), ret->offset + length);
    return found;
}

static bool write_task(void *arg, struct error *err)
{
    struct fetch *fetch = arg;
    struct piece piece = {.partial = fetch->partial};
    int r = 0;

    while (r == 0 && next_piece(fetch, &piece.range)) {
        r = await_work(write_in_pool, &piece, "writing");
        if (r == 0 && !piece.ok)
            return error_move(err, &piece.err);
        if (r == 0)
            r = fetch->pause_ms ? await_sleep(fetch->pause_ms) : await_yield();
    }
    return r == 0 || await_error(err, r, "writing");
}

/* An empty archive will do. */
static bool await_adopt(struct fetch *fetch, struct error *err)
{
    static const char tar[1024];
    const struct digest diff_id = digest_of(tar, sizeof(tar));
    struct layer_writer *writer = await_layer_prepare(fetch->store, &diff_id, err);
    bool ok = writer && await_layer_write(writer, tar, sizeof(tar), err);

    if (ok)
        layer_adopt_blob_await(writer, fetch->partial);
    ok = ok && await_layer_commit(writer, NULL, err);
    layer_writer_free_await(writer);
    if (ok)
        partial_discard(fetch->partial);
    return ok;
}

static bool await_fetch(struct fetch *fetch, struct error *err)
{
    CLEANUP(group_done_await) struct group group;

    group_init(&group);
    say("opened", partial_bytes(fetch->partial), fetch->size);
    for (int i = 0; i < TASKS; i++) {
        if (!task_spawn(&group, "fetch", NULL, write_task, fetch, err))
            return false;
    }
    if (!await_group(&group, err))
        return false;
    say("fetched", 0, fetch->size);
    while (str_eq(fetch->end, "hold"))
        await_sleep(1000);
    return !str_eq(fetch->end, "adopt") || await_adopt(fetch, err);
}

/* --- Check -------------------------------------------------------------------------------------
 */

static bool check_range(struct partial *partial, uint64_t offset, uint64_t end, struct error *err)
{
    CLEANUP_FREE uint8_t *data = xmalloc(READ_BYTES);

    while (offset < end) {
        size_t size = (size_t)MIN(READ_BYTES, end - offset);
        if (!partial_read_blocking(partial, offset, data, size, err))
            return false;
        for (size_t i = 0; i < size; i++) {
            if (data[i] != blob_byte(offset + i)) {
                say("wrong", offset + i, offset + size);
                break;
            }
        }
        offset += size;
    }
    return true;
}

static bool check(const struct fetch *fetch, struct error *err)
{
    struct byte_range missing = {0};
    uint64_t from = 0;

    while (partial_missing(fetch->partial, from, &missing)) {
        if (!check_range(fetch->partial, from, missing.offset, err))
            return false;
        say("missing", missing.offset, missing.end);
        from = missing.end;
    }
    return check_range(fetch->partial, from, fetch->size, err);
}

/* --- Both --------------------------------------------------------------------------------------
 */

static bool main_task(void *arg, struct error *err)
{
    struct fetch *fetch = arg;
    const struct digest blob = blob_digest();
    const struct store_options options = {.data_root = fetch->data_root,
                                          .driver = "directory",
                                          .programs_dir = PROGRAMS_DIR};
    bool ok;

    fetch->store = await_store_open(&options, err);
    if (!fetch->store)
        return false;
    fetch->partial = await_partial_open(fetch->store, &blob, fetch->size, err);
    ok = fetch->partial &&
         (str_eq(fetch->mode, "check") ? check(fetch, err) : await_fetch(fetch, err));
    partial_close_await(fetch->partial);
    store_close_await(fetch->store);
    return ok;
}

int main(int argc, char **argv)
{
    CLEANUP_ERROR struct error err = {0};
    struct fetch fetch = {0};

    CHECK(argc == 5 || argc == 8);
    fetch.data_root = argv[1];
    fetch.size = strtoull(argv[2], NULL, 10);
    fetch.mode = argv[4];
    boot(argv[3]);
    if (argc == 8) {
        srandom((unsigned int)strtoul(argv[5], NULL, 10));
        fetch.pause_ms = strtoull(argv[6], NULL, 10);
        fetch.end = argv[7];
    }
    if (loop_run_main(main_task, &fetch, &err)) {
        puts("done");
        return EXIT_SUCCESS;
    }
    printf("error %s %s: %s\n", error_code_name(err.code), err.reason ? err.reason : "-",
           err.message);
    return EXIT_FAILURE;
}
