/* How many connections are of use: more as long as they bring more, fewer where they fail. By the
 * clock and the figures that the caller gives; no I/O.
 *
 * A server or a proxy often gives each connection only so much; a slow or busy line on the other
 * hand is not faster with more of them. So more are tried, their number doubled, and if the sum
 * does not grow by a good part of what they should bring, they go when their work is done, and it
 * is a while until the next attempt. */
#pragma once

#include "proto/base/util.h"

struct prober {
    unsigned int max;
    unsigned int allowed; /* what was tried, and helped; see prober_allowed() */
    unsigned int ceiling; /* where connections fail or get next to nothing: how many there may be */
    enum { PROBER_WARMING, PROBER_TRYING, PROBER_HOLDING } state;
    uint64_t since_ms, hold_until_ms, ceiling_until_ms;
    uint64_t since_bytes;       /* of the sample at since_ms */
    unsigned int settled_count; /* of connections, at since_ms */
    uint64_t before_rate;       /* with before_count connections */
    unsigned int before_count, before_allowed;
    unsigned int failures; /* to bring more, in a row */
    uint64_t slow_since_ms;
    unsigned int slow_count; /* of connections all that time */
};

/* What is seen at one time; at least four times a second while there is work. */
struct prober_sample {
    uint64_t now_ms;
    uint64_t total_bytes;     /* that ever came */
    unsigned int layers;      /* that fetch */
    unsigned int connections; /* that are open or being opened */
    unsigned int delivering;  /* that have brought bytes */
    uint64_t fastest;         /* of them, in bytes per second */
    bool useful;              /* there is work for more, and nothing but them in its way */
    bool capped;              /* they are slow on purpose */
};

void prober_init(struct prober *prober, unsigned int max_connections);

/* Looks at a sample, and changes prober_allowed(). */
void prober_look(struct prober *prober, const struct prober_sample *sample);

/* How many there may be, for so many layers. */
unsigned int prober_allowed(const struct prober *prober, unsigned int layers);

/* One was refused or broke off without a byte while so many others went on. */
void prober_failed(struct prober *prober, unsigned int others, uint64_t now_ms);
