/* What davit-index and davit-archive cannot do any more. Each case is a process that has confined
 * itself. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/store/archive/confine.h"

/* Cases return NULL, or what they were able to do. */

static const char *opens(void)
{
    return open("/dev/null", O_RDONLY) >= 0 || errno != EPERM ? "open a file" : NULL;
}

static const char *connects(void)
{
    return socket(AF_UNIX, SOCK_STREAM, 0) >= 0 || errno != EPERM ? "make a socket" : NULL;
}

static const char *forks(void)
{
    return fork() >= 0 || errno != EPERM ? "fork" : NULL;
}

static const char *executes(void)
{
    return execl("/bin/true", "true", NULL) >= 0 || errno != EPERM ? "execute" : NULL;
}

static const char *signals(void)
{
    return kill(getppid(), 0) >= 0 ? "signal" : NULL;
}

static const char *traces(void)
{
    return prctl(PR_SET_DUMPABLE, 1) >= 0 ? "prctl" : NULL;
}

static const char *keeps_descriptors(void)
{
    char byte = 0;

    return pread(100, &byte, 1, 0) >= 0 || errno != EBADF ? "keep a descriptor" : NULL;
}

static const char *takes_much_memory(void)
{
    void *memory =
        mmap(NULL, 512 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return memory != MAP_FAILED ? "take memory without end" : NULL;
}

/* What it needs it still has. */
static const char *lacks_what_it_needs(void)
{
    static const char text[] = "hello";
    char back[sizeof(text)];
    CLEANUP_FREE char *memory = xmalloc(64 * MIB);

    memset(memory, 1, 64 * MIB);
    if (pwrite(5, text, sizeof(text), 10) != sizeof(text) ||
        pread(5, back, sizeof(back), 10) != sizeof(back) || lseek(5, 0, SEEK_DATA) < 0 ||
        ftruncate(5, 100) < 0 || memcmp(text, back, sizeof(text)) != 0)
        return "not use its files";
    return NULL;
}

/* The files that are there for one who opens archives of images. */
static void test_nothing(void **state UNUSED)
{
    int status;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        struct error err = {0};
        if (!confine_to_nothing(&err)) {
            dprintf(STDERR_FILENO, "%s\n", err.message);
            _exit(2);
        }
        _exit(access("/proc", F_OK) < 0 && access("/../etc", F_OK) < 0 && mkdir("/new", 0700) < 0 &&
                      open("/new", O_CREAT | O_WRONLY, 0600) < 0
                  ? 0
                  : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void run_confined(const char *(*try_it)(void))
{
    int status;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        struct error err = {0};
        const char *able;
        int file = memfd_create("test", 0);
        dup2(file, 5);
        dup2(file, 100);
        if (!confine_to_open_files(6, 512 * MIB, &err)) {
            dprintf(STDERR_FILENO, "%s\n", err.message);
            _exit(2);
        }
        able = try_it();
        if (able)
            dprintf(STDERR_FILENO, "it can %s\n", able);
        _exit(able ? 1 : 0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

#define CASE(name)                               \
    static void test_##name(void **state UNUSED) \
    {                                            \
        run_confined(name);                      \
    }

CASE(opens)
CASE(connects)
CASE(forks)
CASE(executes)
CASE(signals)
CASE(traces)
CASE(keeps_descriptors)
CASE(takes_much_memory)
CASE(lacks_what_it_needs)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_opens),
        cmocka_unit_test(test_connects),
        cmocka_unit_test(test_forks),
        cmocka_unit_test(test_executes),
        cmocka_unit_test(test_signals),
        cmocka_unit_test(test_traces),
        cmocka_unit_test(test_keeps_descriptors),
        cmocka_unit_test(test_takes_much_memory),
        cmocka_unit_test(test_lacks_what_it_needs),
        cmocka_unit_test(test_nothing),
    };

    return cmocka_run_group_tests_name("confine", tests, NULL, NULL);
}
