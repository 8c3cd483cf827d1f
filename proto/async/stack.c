#include <signal.h>
#include <sys/mman.h>

#include "proto/async/internal.h"

#ifdef TASK_ASAN
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(start, size) ((void)0)
#define ASAN_UNPOISON_MEMORY_REGION(start, size) ((void)0)
#endif
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#else
#define VALGRIND_STACK_REGISTER(start, end) 0
#define VALGRIND_STACK_DEREGISTER(id) ((void)(id))
#endif

#if defined(TASK_ASAN) || defined(TASK_TSAN)
#define STACK_BYTES (4 * TASK_STACK_BYTES)
#else
#define STACK_BYTES TASK_STACK_BYTES
#endif

/* More than one page, for a function of a library may have a frame that steps over one. It is
 * address space only. */
#define GUARD_BYTES (64 * KIB)

/* A few stacks are kept for the next task; their touched pages go back to the system, but for the
 * topmost ones that every task touches anyway. */
#define POOL_MAX 8
#define POOL_KEEP_BYTES (8 * KIB)

#define STACK_ALIGN 64

static struct stack *pool;
static size_t pool_count;

/* The stack below its own struct, with nothing reserved. */
static void stack_reset(struct stack *stack)
{
    stack->size = (size_t)((char *)stack - (char *)stack->bottom) / STACK_ALIGN * STACK_ALIGN;
}

struct stack *stack_new(void)
{
    size_t mapping_size = GUARD_BYTES + STACK_BYTES;
    struct stack *stack = pool;
    char *mapping;

    if (stack) {
        pool = stack->next_free;
        pool_count--;
        ASAN_UNPOISON_MEMORY_REGION(stack->bottom, STACK_BYTES);
        stack_reset(stack);
        return stack;
    }
    mapping = mmap(NULL, mapping_size, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED)
        return NULL;
    if (mprotect(mapping, GUARD_BYTES, PROT_NONE) < 0) {
        munmap(mapping, mapping_size);
        return NULL;
    }
    stack = (struct stack *)(mapping + mapping_size) - 1;
    *stack = (struct stack){.bottom = mapping + GUARD_BYTES,
                            .mapping = mapping,
                            .mapping_size = mapping_size};
    stack_reset(stack);
    stack->valgrind_id =
        VALGRIND_STACK_REGISTER(stack->bottom, (char *)stack->bottom + stack->size);
    return stack;
}

void *stack_reserve(struct stack *stack, size_t size)
{
    stack->size -= (size + STACK_ALIGN - 1) / STACK_ALIGN * STACK_ALIGN;
    return memset((char *)stack->bottom + stack->size, 0, size);
}

static void stack_unmap(struct stack *stack)
{
    VALGRIND_STACK_DEREGISTER(stack->valgrind_id);
    munmap(stack->mapping, stack->mapping_size);
}

void stack_free(struct stack *stack)
{
    /* The task's outermost frames never returned; whatever comes to lie here is none of theirs. */
    ASAN_UNPOISON_MEMORY_REGION(stack->bottom, STACK_BYTES);
    if (pool_count >= POOL_MAX) {
        stack_unmap(stack);
        return;
    }
    madvise(stack->bottom, STACK_BYTES - POOL_KEEP_BYTES, MADV_DONTNEED);
    ASAN_POISON_MEMORY_REGION(stack->bottom, (char *)stack - (char *)stack->bottom);
    stack->next_free = pool;
    pool = stack;
    pool_count++;
}

void stack_pool_clear(void)
{
    while (pool) {
        struct stack *next = pool->next_free;
        ASAN_UNPOISON_MEMORY_REGION(pool->bottom, STACK_BYTES);
        stack_unmap(pool);
        pool = next;
    }
    pool_count = 0;
}

/* --- Overflow --------------------------------------------------------------------------------- */

#if defined(TASK_ASAN) || defined(TASK_TSAN)

/* The sanitizers report it themselves. */
void stack_watch_overflow(void)
{
}

#else

static void say(const char *text)
{
    /* In a signal handler, right before the end: nothing could be done about a failure. */
    if (write(STDERR_FILENO, text, strlen(text)) < 0)
        return;
}

static void on_segv(int signum, siginfo_t *info, void *context UNUSED)
{
    const struct task *task = task_current();
    const char *address = info->si_addr;

    if (task && address >= (char *)task->stack->mapping && address < (char *)task->stack->bottom) {
        say("fatal: task \"");
        say(task->name);
        say("\" ran out of its stack: a large array on it, or recursion\n");
    }
    /* SA_RESETHAND: the faulting instruction is run again and ends the process as it would have
     * without this handler. A signal that was sent is not repeated by returning. */
    if (info->si_code <= 0)
        raise(signum);
}

void stack_watch_overflow(void)
{
    static char handler_stack[64 * KIB]; /* with room for any CPU's registers */
    const stack_t alternative = {.ss_sp = handler_stack, .ss_size = sizeof(handler_stack)};
    struct sigaction action = {.sa_sigaction = on_segv}, previous;

    if (sigaction(SIGSEGV, NULL, &previous) < 0 || previous.sa_handler != SIG_DFL)
        return; /* a debugger's or a test's handler stays */
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | (int)SA_RESETHAND;
    sigaltstack(&alternative, NULL);
    sigaction(SIGSEGV, &action, NULL);
}

#endif
