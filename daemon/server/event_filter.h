/* Which events a reader wants: Docker's filters, each "name=value". */
#pragma once

#include "daemon/store/event.h"
#include "proto/base/json.h"

/* INVALID_ARGUMENT (INVALID_FILTER) for a name that is none of Docker's. */
bool event_filters_check(char *const *filters, size_t count, struct error *err);

/* Alternatives of one name, but all labels; attributes are the event's. */
bool event_matches(char *const *filters, size_t count, const struct event_record *event,
                   const json_t *attributes);
