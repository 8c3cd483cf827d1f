/* The values of --filter, as Docker's command line takes them. */
#pragma once

#include "client/flags.h"

/* For a flag's check: "name=value", or nothing at all. */
bool filter_check(const char *filter, struct error *err);

/* What the daemon is asked: names in small letters, without blanks around names and values. Of a
 * NULL-terminated list (NULL: none); the caller frees the result with strv_free. */
char **filters_normal(char *const *filters);
