#include "proto/base/fault.h"

#ifdef DAVIT_FAULT_POINTS

#include <signal.h>
#include <stdatomic.h>

#include "proto/base/util.h"

void fault_point(const char *name)
{
    static atomic_int hits;
    const char *wanted = getenv("DAVIT_FAULT_POINT");
    size_t length = strlen(name);
    int hit = 1;
    bool stop = false;

    if (!wanted || !str_starts(wanted, name) || (wanted[length] && wanted[length] != ':'))
        return;
    if (wanted[length] == ':') {
        char *action;
        hit = (int)strtol(wanted + length + 1, &action, 10);
        stop = str_eq(action, ":stop");
    }
    if (atomic_fetch_add(&hits, 1) + 1 != hit)
        return;
    if (raise(stop ? SIGSTOP : SIGKILL) != 0)
        __builtin_trap(); /* a confined process may not even do that */
}

#endif
