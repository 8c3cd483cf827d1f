/* What is remembered of jobs: those that run, so that a daemon that starts knows what the last one
 * left, and the last of those that have ended, with how. For daemon/job. */
#pragma once

#include "daemon/store/store.h"

#define JOB_RECORDS_MAX 200 /* of jobs that have ended */
#define JOB_RECORDS_MAX_AGE_DAYS 7

struct job_record {
    char *id, *kind, *state, *subject;
    bool ended;
    int64_t started_unix_ms, ended_unix_ms;
    unsigned int attempts; /* how often it was begun */
    uint64_t limit_bytes_per_second;
    uint64_t sequence;
    unsigned int percent;
    uint64_t bytes_fetched, bytes_total;
    struct error failure;
    struct record_bytes {
        char *data; /* NULL: none */
        size_t size;
    } details, request; /* what it was asked for: to begin it again. Never with a secret */
};
void job_record_done(struct job_record *record);

/* Writes or replaces a record; drops the oldest of those that have ended. */
bool await_job_record_write(struct store *store, const struct job_record *record,
                            struct error *err);

struct job_records {
    struct job_record *items;
    size_t count;
};
void job_records_done(struct job_records *records);

/* Newest first: those whose id begins so ("": all), and either those that have ended or the others.
 */
bool await_job_records_read(struct store *store, const char *id_prefix, bool ended,
                            struct job_records *ret, struct error *err);
