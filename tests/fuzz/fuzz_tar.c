/* Unpacking strangers' archives, into a directory in memory that is emptied after each. The first
 * byte chooses the piece size. Nothing may appear beside the directory. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/store/tree.h"
#include "daemon/store/untar/untar.h"
#include "tests/fuzz/tar_input.h"

static char scratch[] = "/dev/shm/davit-fuzz-XXXXXX";
static int scratch_fd = -1;
static int working_fd = -1; /* the fuzzer writes what it finds to its own directory */

struct pieces {
    const uint8_t *data;
    size_t size, step;
};

static ssize_t read_piece(void *arg, void *buffer, size_t size)
{
    struct pieces *pieces = arg;
    size_t n = MIN(MIN(size, pieces->step), pieces->size);

    if (n)
        memcpy(buffer, pieces->data, n);
    pieces->data += n;
    pieces->size -= n;
    return (ssize_t)n;
}

static void remove_scratch(void)
{
    rmdir(scratch);
}

static void check_canary(void)
{
    DIR *dir = fdopendir(openat(scratch_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    size_t count = 0;

    CHECK(dir);
    while (readdir(dir))
        count++;
    closedir(dir);
    CHECK(count == 3); /* ".", ".." and "root" */
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc UNUSED, char ***argv UNUSED)
{
    umask(0);
    CHECK(mkdtemp(scratch));
    scratch_fd = open(scratch, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    working_fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(scratch_fd >= 0 && working_fd >= 0);
    atexit(remove_scratch);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const size_t steps[] = {1, 100, 512, 65536};
    CLEANUP(layer_report_done) struct layer_report result = {0};
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_FREE uint8_t *archive = NULL;
    struct pieces pieces = {0};
    const struct layer_input input = {.read = read_piece, .arg = &pieces};
    int root_fd;

    if (size < 1)
        return 0;
    pieces.data = archive = xmemdup(data + 1, size - 1);
    pieces.size = size - 1;
    mend_checksums(archive, pieces.size);
    pieces.step = steps[data[0] % 4];
    CHECK(mkdirat(scratch_fd, "root", 0755) == 0);
    root_fd = openat(scratch_fd, "root", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (untar(root_fd, &input, &result, &err))
        CHECK(pieces.size == 0);
    else
        CHECK(error_is_set(&err) && err.message);
    close(root_fd);
    CHECK(fchdir(working_fd) == 0);
    check_canary();
    CHECK(tree_remove(scratch_fd, "root", NULL) == 0);
    return 0;
}
