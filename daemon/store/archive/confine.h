/* What every process that reads a stranger's archive gives up before the first byte, and what such
 * a program's main() is. */
#pragma once

#include "daemon/store/archive/report.h"
#include "proto/base/error.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

/* Bounds memory (address space in bytes; not under sanitizers) and descriptors; no core files, no
 * further processes. */
void confine_resources(uint64_t memory_max);

/* Drops every capability but those listed, for good. */
bool confine_capabilities(const int *kept, size_t count, struct error *err);

/* Closes every descriptor from first_free on, bounds memory, drops all capabilities, and allows
 * from then on only system calls that read and write open files and get memory; any other one
 * fails. It has opened all it needs. */
bool confine_to_open_files(unsigned int first_free, uint64_t memory_max, struct error *err);

/* Leaves its namespaces (mounts, network, IPC, host name) where the kernel allows. */
void confine_namespaces(void);

/* Makes an empty file system, which nothing can be written to, the root of this process, and leaves
 * its namespaces. Takes privileges. */
bool confine_to_nothing(struct error *err);

/* "cannot confine ...: WHAT: ERRNO". Returns false. */
bool confine_failed(struct error *err, const char *what);

/* How every such program begins: refuses to be run by hand, dies with the daemon. */
void confined_begin(const char *name, int argc);

/* A program that says one report: begins, calls run(), which confines the process and does its
 * work, and writes the report. Does not return. */
_Noreturn void confined_main(const char *name, int argc,
                             bool (*run)(struct layer_report *ret, struct error *err));
