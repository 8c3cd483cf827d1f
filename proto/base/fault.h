/* Named places at which tests/faults kills or stops the process, to see that what is on disk then
 * is whole: fault_point("layer.synced") between two steps of which the second must not be there
 * without the first. Only in builds with DAVIT_FAULT_POINTS; elsewhere nothing of it is compiled.
 */
#pragma once

#ifdef DAVIT_FAULT_POINTS

/* Does what DAVIT_FAULT_POINT in the environment says: "NAME[:HIT[:ACTION]]", where HIT counts from
 * 1 (the default) and ACTION is "kill" (SIGKILL, the default) or "stop" (SIGSTOP of all threads;
 * goes on after SIGCONT). From any thread. */
void fault_point(const char *name);

#else

static inline void fault_point(const char *name)
{
    (void)name;
}

#endif
