/* What a unit test includes first: cmocka with the headers it needs, and checks of what cannot be
 * checked inside the process, because it ends it. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proto/base/error.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TEST_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define TEST_TSAN 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define TEST_ASAN 1
#endif
#ifdef __SANITIZE_THREAD__
#define TEST_TSAN 1
#endif

/* Checks that err holds this code, that its message contains the fragment, and empties it. */
static inline void assert_error(struct error *err, enum error_code code, const char *fragment)
{
    if (err->code != code || !err->message || !strstr(err->message, fragment))
        fail_msg("expected %s with \"%s\", got %s: %s", error_code_name(code), fragment,
                 error_code_name(err->code), err->message ? err->message : "(none)");
    error_done(err);
}

/* Fails with the error's own message, rather than with "false". */
#define assert_ok(condition, err)                                            \
    do {                                                                     \
        if (!(condition))                                                    \
            fail_msg("%s: %s: %s", #condition, error_code_name((err)->code), \
                     (err)->message ? (err)->message : "(no message)");      \
    } while (0)

/* How a child process ended, and what it wrote to stderr (cut at the end of the buffer). */
struct child_end {
    int status; /* as waitpid(2) gives it */
    char text[65536];
};

/* Runs fn(arg) in a child process. Returning from fn is exit code 0. */
static inline void run_in_child(void (*fn)(void *arg), void *arg, struct child_end *ret)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGSYS, SIGABRT};
    size_t length = 0;
    ssize_t n;
    pid_t pid;
    int fds[2];

    fflush(NULL);
    assert_int_equal(pipe(fds), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        const struct rlimit no_core = {0, 0};
        setrlimit(RLIMIT_CORE, &no_core);
        dup2(fds[1], STDERR_FILENO);
        close(fds[0]);
        close(fds[1]);
        for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
            signal(signals[i], SIG_DFL); /* instead of cmocka's */
        fn(arg);
        _exit(0);
    }
    close(fds[1]);
    while ((n = read(fds[0], ret->text + length, sizeof(ret->text) - 1 - length)) > 0)
        length += (size_t)n;
    ret->text[length] = '\0';
    close(fds[0]);
    assert_int_equal(waitpid(pid, &ret->status, 0), pid);
}

/* Checks that fn(arg) ends its process by this signal, with the fragment on stderr. */
static inline void assert_dies(void (*fn)(void *arg), void *arg, int signum, const char *fragment)
{
    static struct child_end end;

    run_in_child(fn, arg, &end);
    if (!WIFSIGNALED(end.status) || WTERMSIG(end.status) != signum || !strstr(end.text, fragment))
        fail_msg("expected signal %d with \"%s\", got status 0x%x with \"%s\"", signum, fragment,
                 (unsigned int)end.status, end.text);
}
