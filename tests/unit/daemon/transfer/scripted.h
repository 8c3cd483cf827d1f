/* Registries for tests of the engine: daemon/registry's functions for blobs and sources, played
 * from a script. What was asked of whom is written down. */
#pragma once

#include "daemon/registry/registry.h"
#include "daemon/registry/source.h"

/* How a source answers one request. */
struct answer {
    const char *error; /* it does not: the error's reason; see error_code */
    enum error_code error_code;
    uint64_t retry_after_ms; /* of that error */
    uint64_t drop_after;     /* bytes, then CONNECTION_FAILED; 0: never */
    uint64_t stall_after;    /* bytes, then nothing for long; 0: never */
    uint64_t wrong_at;       /* offset in the blob of a byte that is another; 0: none */
    bool whole;              /* all, whatever was asked for */
    bool too_long;           /* there is more behind the end */
    unsigned int chunk_ms;   /* for each 64 KiB; 0: what the source has */
};

#define ANSWERS_MAX 16
struct source {
    unsigned int references;
    const char *name;
    bool mirror, ignores_ranges;
    unsigned int chunk_ms;
    struct answer script[ANSWERS_MAX]; /* for its first requests; then as it should be */
    unsigned int connections_max;      /* more at a time are refused (503); 0: any number */
    /* What happened. */
    unsigned int requests, open, open_max, failures;
    uint64_t bytes;  /* that were read from it */
    uint64_t served; /* that it was praised for */
};

/* In their order. */
#define REQUESTS_MAX 64
extern struct asked {
    const struct source *source;
    uint64_t offset, end, ms;
} asked[REQUESTS_MAX];
extern unsigned int asked_count;

/* What they all have. */
extern const char *blob_data;
extern uint64_t blob_size;

void scripted_reset(void);
