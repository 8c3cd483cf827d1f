/* Caps on bytes per second, for downloads and uploads: each a token bucket that those who move
 * bytes take from in the order in which they come, in small grants, so that all who share one get
 * their turns. A transfer usually stands under two: that of the whole daemon and that of its job.
 * Begin with await_rate(). */
#pragma once

#include "proto/async/task.h"

struct rate_limit; /* counted */

/* bytes_per_second 0: no cap. */
struct rate_limit *rate_limit_new(uint64_t bytes_per_second);
struct rate_limit *rate_limit_ref(struct rate_limit *limit);   /* takes NULL */
struct rate_limit *rate_limit_unref(struct rate_limit *limit); /* takes NULL; returns NULL */
static inline void rate_limit_cleanup(struct rate_limit **limit)
{
    *limit = rate_limit_unref(*limit);
}

/* Holds at once, also for those who wait. */
void rate_limit_set(struct rate_limit *limit, uint64_t bytes_per_second);
uint64_t rate_limit_get(const struct rate_limit *limit); /* 0: no cap; takes NULL */

/* How many of `wanted` bytes to move at a time under both; at least 1. Either may be NULL. */
size_t rate_grant(const struct rate_limit *own, const struct rate_limit *common, size_t wanted);

/* Takes this many bytes from both (either may be NULL) and waits until they are due. To be called
 * for each grant, before or after its bytes are moved: over time both come to the same. 0, or a
 * negative errno as task.h says; then they count as taken or not. */
int await_rate(struct rate_limit *own, struct rate_limit *common, size_t bytes);
