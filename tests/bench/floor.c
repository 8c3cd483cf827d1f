/* What the benchmarks measure davit against: the same work with the same libraries, and no engine.
 *
 *   floor fetch [--durable] [--jobs N] DIRECTORY (URL DIGEST DIFF_ID)...
 *       Fetches gzip blobs, N at a time (libcurl), hashes them (OpenSSL), inflates them (ISA-L,
 * else zlib), hashes the result, and writes it to DIRECTORY/DIFF_ID. With --durable the bytes are
 *       sent to the disk as they come, and each file is synced at its end, and the directory.
 *   floor walk DIRECTORY    Looks at everything below DIRECTORY, as `find` or `ls -lR` does.
 *   floor read DIRECTORY    And reads every file. Both print files and bytes.
 */
#include <curl/curl.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef HAVE_ISAL
#include <isa-l/igzip_lib.h>
#else
#include <zlib.h>
#endif

#define RECEIVE_BYTES (128L << 10)
/* Small enough for the processor's cache; larger ones cost more, from 512 KiB on even twice. */
#define PIECE_BYTES ((size_t)256 << 10)
#define WRITE_BEHIND_BYTES (8L << 20)
#define DIGEST_CHARS 64
#define JOBS_MAX 64

struct blob {
    const char *url, *digest, *diff_id; /* the digests in hex */
};

static struct {
    const char *directory;
    bool durable;
    struct blob *blobs;
    size_t blob_count;
    atomic_size_t next;
} fetch = {0};

static _Noreturn void fail(const char *what, const char *why)
{
    fprintf(stderr, "floor: %s: %s\n", what, why);
    exit(1);
}

/* --- Inflating ---------------------------------------------------------------------------------
 */

#ifdef HAVE_ISAL
typedef struct inflate_state inflater;

static void inflater_init(inflater *state)
{
    isal_inflate_init(state);
    state->crc_flag = ISAL_GZIP;
}

static void inflater_done(inflater *state)
{
    (void)state;
}

/* As much as fits into what is left of next_out; true at the stream's end. */
static bool inflate_some(inflater *state)
{
    if (isal_inflate(state) < 0)
        fail("inflate", "damaged data");
    return state->block_state == ISAL_BLOCK_FINISH;
}
#else
typedef z_stream inflater;

static void inflater_init(inflater *state)
{
    memset(state, 0, sizeof(*state));
    if (inflateInit2(state, 16 + MAX_WBITS) != Z_OK)
        fail("inflate", "no memory");
}

static void inflater_done(inflater *state)
{
    inflateEnd(state);
}

static bool inflate_some(inflater *state)
{
    int r = inflate(state, Z_NO_FLUSH);

    if (r != Z_OK && r != Z_STREAM_END && r != Z_BUF_ERROR)
        fail("inflate", "damaged data");
    return r == Z_STREAM_END;
}
#endif

/* --- Fetching ----------------------------------------------------------------------------------
 */

struct sink {
    int fd;
    off_t written, sent; /* sent: on its way to the disk */
    EVP_MD_CTX *compressed, *content;
    inflater state;
    uint8_t *piece;
    size_t filled;
    bool ended;
};

static void write_piece(struct sink *sink)
{
    EVP_DigestUpdate(sink->content, sink->piece, sink->filled);
    if (pwrite(sink->fd, sink->piece, sink->filled, sink->written) != (ssize_t)sink->filled)
        fail("write", strerror(errno));
    sink->written += (off_t)sink->filled;
    sink->filled = 0;
    if (!fetch.durable || sink->written - sink->sent < WRITE_BEHIND_BYTES)
        return;
    sync_file_range(sink->fd, sink->sent, sink->written - sink->sent, SYNC_FILE_RANGE_WRITE);
    sink->sent = sink->written;
}

static size_t on_body(char *data, size_t size, size_t count, void *arg)
{
    struct sink *sink = arg;
    size_t room;

    EVP_DigestUpdate(sink->compressed, data, size * count);
    sink->state.next_in = (uint8_t *)data;
    sink->state.avail_in = (uint32_t)(size * count);
    do {
        room = PIECE_BYTES - sink->filled;
        sink->state.next_out = sink->piece + sink->filled;
        sink->state.avail_out = (uint32_t)room;
        sink->ended = sink->ended || inflate_some(&sink->state);
        sink->filled += room - sink->state.avail_out;
        if (sink->filled == PIECE_BYTES)
            write_piece(sink);
    } while (!sink->ended && sink->state.avail_out == 0);
    return size * count;
}

static void check_digest(EVP_MD_CTX *context, const char *expected, const char *what)
{
    uint8_t bytes[EVP_MAX_MD_SIZE];
    char text[DIGEST_CHARS + 1] = "";
    unsigned int size;

    EVP_DigestFinal_ex(context, bytes, &size);
    for (unsigned int i = 0; i < size && i < DIGEST_CHARS / 2; i++)
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    EVP_MD_CTX_free(context);
    if (strcmp(text, expected) != 0)
        fail(what, "wrong digest");
}

static EVP_MD_CTX *sha256_new(void)
{
    EVP_MD_CTX *context = EVP_MD_CTX_new();

    if (!context || !EVP_DigestInit_ex(context, EVP_sha256(), NULL))
        fail("SHA-256", "not available");
    return context;
}

static void fetch_blob(CURL *easy, const struct blob *blob)
{
    struct sink sink = {.compressed = sha256_new(), .content = sha256_new()};
    char path[4096];
    CURLcode r;

    snprintf(path, sizeof(path), "%s/%s", fetch.directory, blob->diff_id);
    sink.fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    sink.piece = malloc(PIECE_BYTES);
    if (sink.fd < 0 || !sink.piece)
        fail(path, strerror(errno));
    inflater_init(&sink.state);
    curl_easy_setopt(easy, CURLOPT_URL, blob->url);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, &sink);
    if ((r = curl_easy_perform(easy)) != CURLE_OK)
        fail(blob->url, curl_easy_strerror(r));
    write_piece(&sink);
    if (!sink.ended)
        fail(blob->url, "ends early");
    check_digest(sink.compressed, blob->digest, blob->url);
    check_digest(sink.content, blob->diff_id, path);
    if (fetch.durable && fdatasync(sink.fd) < 0)
        fail(path, strerror(errno));
    close(sink.fd);
    inflater_done(&sink.state);
    free(sink.piece);
}

static void *fetch_blobs(void *arg)
{
    CURL *easy = curl_easy_init();
    size_t i;

    (void)arg;
    curl_easy_setopt(easy, CURLOPT_FAILONERROR, 1L);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, RECEIVE_BYTES);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    while ((i = fetch.next++) < fetch.blob_count)
        fetch_blob(easy, &fetch.blobs[i]);
    curl_easy_cleanup(easy);
    return NULL;
}

static int fetch_main(int count, char **words)
{
    pthread_t threads[JOBS_MAX];
    long jobs = 3;

    for (; count > 0 && words[0][0] == '-'; count--, words++) {
        if (strcmp(words[0], "--durable") == 0)
            fetch.durable = true;
        else if (strcmp(words[0], "--jobs") == 0 && count > 1) {
            jobs = strtol(words[1], NULL, 10);
            count--, words++;
        }
    }
    if (count < 4 || count % 3 != 1 || jobs < 1 || jobs > JOBS_MAX)
        fail("fetch", "see the head of floor.c");
    fetch.directory = words[0];
    fetch.blob_count = (size_t)(count - 1) / 3;
    fetch.blobs = calloc(fetch.blob_count, sizeof(*fetch.blobs));
    for (size_t i = 0; i < fetch.blob_count; i++)
        fetch.blobs[i] = (struct blob){words[3 * i + 1], words[3 * i + 2], words[3 * i + 3]};
    curl_global_init(CURL_GLOBAL_DEFAULT);
    for (long i = 0; i < jobs; i++)
        if (pthread_create(&threads[i], NULL, fetch_blobs, NULL) != 0)
            fail("fetch", "cannot start a thread");
    for (long i = 0; i < jobs; i++)
        pthread_join(threads[i], NULL);
    if (fetch.durable) {
        int fd = open(fetch.directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0 || fsync(fd) < 0)
            fail(fetch.directory, strerror(errno));
        close(fd);
    }
    free(fetch.blobs);
    return 0;
}

/* --- Reading -----------------------------------------------------------------------------------
 */

static struct {
    bool contents;
    dev_t device; /* what is mounted below is left out */
    uint64_t files, bytes;
    char buffer[128 << 10];
} tree;

static void read_file(int dir_fd, const char *name)
{
    int fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    ssize_t n;

    if (fd < 0)
        fail(name, strerror(errno));
    while ((n = read(fd, tree.buffer, sizeof(tree.buffer))) > 0)
        tree.bytes += (uint64_t)n;
    if (n < 0)
        fail(name, strerror(errno));
    close(fd);
}

static void read_directory(int fd)
{
    DIR *directory = fdopendir(fd);
    struct dirent *entry;
    struct stat status;

    if (!directory)
        fail("fdopendir", strerror(errno));
    while ((entry = readdir(directory))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (fstatat(fd, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) < 0)
            fail(entry->d_name, strerror(errno));
        if (S_ISDIR(status.st_mode) && status.st_dev == tree.device) {
            int below = openat(fd, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            if (below < 0)
                fail(entry->d_name, strerror(errno));
            read_directory(below);
        }
        if (!S_ISREG(status.st_mode))
            continue;
        tree.files++;
        if (tree.contents)
            read_file(fd, entry->d_name);
        else
            tree.bytes += (uint64_t)status.st_size;
    }
    closedir(directory);
}

static int read_main(const char *path, bool contents)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct stat status;

    if (fd < 0 || fstat(fd, &status) < 0)
        fail(path, strerror(errno));
    tree.contents = contents;
    tree.device = status.st_dev;
    read_directory(fd);
    printf("%llu %llu\n", (unsigned long long)tree.files, (unsigned long long)tree.bytes);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 2 && strcmp(argv[1], "fetch") == 0)
        return fetch_main(argc - 2, argv + 2);
    if (argc == 3 && strcmp(argv[1], "walk") == 0)
        return read_main(argv[2], false);
    if (argc == 3 && strcmp(argv[1], "read") == 0)
        return read_main(argv[2], true);
    fail("usage", "see the head of floor.c");
}
