/* Patterns as Docker's users write them for names: those of Go's path.Match. `*` is any text
 * without a slash, `?` any character but one, `[a-z]` one of a class, `[^a-z]` one of none, and `\`
 * takes the next character as it is. Bytes are compared: names of images are ASCII. */
#pragma once

#include "proto/base/util.h"

bool glob_is_valid(const char *pattern);

/* False also for a pattern that is not valid. The whole text must match. */
bool glob_match(const char *pattern, const char *text);
