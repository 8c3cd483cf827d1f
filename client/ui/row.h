/* Rows of lists, as JSON objects of texts under Docker's names: what several lists have in common.
 * Docker's own are in the order of the alphabet. */
#pragma once

#include "client/ui/moment.h"
#include "proto/base/json.h"

/* Nothing for what is no UTF-8. */
void row_set_text(json_t *row, const char *key, const char *text);

/* An ID, or a digest, of which mostly 12 digits will do. */
void row_set_id(json_t *row, const char *key, const char *id, bool full);

/* "CreatedAt", and under a name of its own how long ago that was: nothing for what has no date. */
void row_set_times(json_t *row, const char *since_key, int64_t unix_ns, int64_t now_unix);
