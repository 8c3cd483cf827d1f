/* What a request waits for before it is sent once more: so that people can be told. */
#pragma once

#include "proto/base/error.h"

struct registry_wait {
    int64_t until_unix_ms; /* 0: it does not wait */
    struct error cause; /* of the last attempt; retry_after_ms: the registry asked for the wait */
};

static inline void registry_wait_done(struct registry_wait *wait)
{
    error_done(&wait->cause);
    wait->until_unix_ms = 0;
}
