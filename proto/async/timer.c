#include "proto/async/timer.h"

#include "proto/async/internal.h"

/* A pairing heap (Fredman, Sedgewick, Sleator, Tarjan 1986): each timer is before its children;
 * children are a list, in which the first one's `previous` is the parent. Ten thousand connections
 * may each have a timer, in any order: a sorted list took 30 us per start then. */

static bool is_before(const struct loop_timer *a, const struct loop_timer *b)
{
    return a->expires_ms < b->expires_ms ||
           (a->expires_ms == b->expires_ms && a->sequence < b->sequence);
}

static struct loop_timer *meld(struct loop_timer *a, struct loop_timer *b)
{
    struct loop_timer *parent, *child;

    if (!a || !b)
        return a ? a : b;
    parent = is_before(b, a) ? b : a;
    child = parent == a ? b : a;
    child->previous = parent;
    child->next = parent->child;
    if (child->next)
        child->next->previous = child;
    parent->child = child;
    return parent;
}

/* Makes one heap of a list of siblings: melds pairs from the left, then all from the right. */
static struct loop_timer *meld_siblings(struct loop_timer *first)
{
    struct loop_timer *pairs = NULL, *root = NULL;

    while (first) {
        struct loop_timer *a = first, *b = first->next;
        first = b ? b->next : NULL;
        a->next = a->previous = NULL;
        if (b)
            b->next = b->previous = NULL;
        a = meld(a, b);
        a->next = pairs;
        pairs = a;
    }
    while (pairs) {
        struct loop_timer *next = pairs->next;
        pairs->next = NULL;
        root = meld(root, pairs);
        pairs = next;
    }
    return root;
}

void timers_add(struct timers *timers, struct loop_timer *timer)
{
    timer->sequence = ++timers->sequence;
    timer->child = timer->next = timer->previous = NULL;
    timer->running = true;
    timers->first = meld(timers->first, timer);
}

void timers_remove(struct timers *timers, struct loop_timer *timer)
{
    struct loop_timer *orphans = meld_siblings(timer->child);

    if (timer == timers->first) {
        timers->first = orphans;
    } else {
        if (timer->previous->child == timer)
            timer->previous->child = timer->next;
        else
            timer->previous->next = timer->next;
        if (timer->next)
            timer->next->previous = timer->previous;
        timers->first = meld(timers->first, orphans);
    }
    timer->child = timer->next = timer->previous = NULL;
    timer->running = false;
}
