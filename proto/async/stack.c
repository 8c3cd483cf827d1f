#include <sys/mman.h>

#include "proto/async/internal.h"

#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#else
#define VALGRIND_STACK_REGISTER(start, end) 0
#define VALGRIND_STACK_DEREGISTER(id) ((void)(id))
#endif

/* A few stacks are kept for the next task; their touched pages go back to the system, but for the
 * topmost ones that every task touches anyway. */
#define POOL_MAX 8
#define POOL_KEEP_BYTES (8 * KIB)

static struct stack *pool;
static size_t pool_count;

struct stack *stack_new(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    struct stack *stack = pool;

    if (stack) {
        pool = stack->next_free;
        pool_count--;
        return stack;
    }
    stack = xcalloc(1, sizeof(*stack));
    stack->size = TASK_STACK_BYTES;
    stack->mapping_size = TASK_STACK_BYTES + page;
    stack->mapping = mmap(NULL, stack->mapping_size, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
    if (stack->mapping == MAP_FAILED) {
        free(stack);
        return NULL;
    }
    stack->bottom = (char *)stack->mapping + page;
    if (mprotect(stack->mapping, page, PROT_NONE) < 0) {
        munmap(stack->mapping, stack->mapping_size);
        free(stack);
        return NULL;
    }
    stack->valgrind_id =
        VALGRIND_STACK_REGISTER(stack->bottom, (char *)stack->bottom + stack->size);
    return stack;
}

static void stack_unmap(struct stack *stack)
{
    VALGRIND_STACK_DEREGISTER(stack->valgrind_id);
    munmap(stack->mapping, stack->mapping_size);
    free(stack);
}

void stack_free(struct stack *stack)
{
    if (pool_count >= POOL_MAX) {
        stack_unmap(stack);
        return;
    }
    madvise(stack->bottom, stack->size - POOL_KEEP_BYTES, MADV_DONTNEED);
    stack->next_free = pool;
    pool = stack;
    pool_count++;
}

void stack_pool_clear(void)
{
    while (pool) {
        struct stack *next = pool->next_free;
        stack_unmap(pool);
        pool = next;
    }
    pool_count = 0;
}
