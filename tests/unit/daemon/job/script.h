/* A job that does as it is told, and an encoding that can be read: "state percent details
 * [source]".
 */
#pragma once

#include "daemon/job/job.h"

struct script {
    struct wait_queue changed;
    bool runs, freed, fails, ends; /* ends: now, well or as `fails` says */
    unsigned int percent;
    char details[32];
    char source[16]; /* of its one item; empty: it has none */
    uint64_t limit;
    unsigned int asked; /* for its progress */
};

void script_init(struct script *script);
void script_end(struct script *script, bool fails);
void script_encode(const struct job_info *info, struct strbuf *ret);

/* Starts it; key may be NULL. */
struct job *script_start(struct job_table *table, struct script *script, const char *key);

extern const struct job_ops script_ops;

/* The next snapshot of a watch, as text; the caller's. */
char *await_text(struct job_watch *watch, uint64_t since);

/* Waits until condition(arg). */
void await_until(bool (*condition)(const void *arg), const void *arg);
