/* JSON from strangers, through jansson: size-limited, duplicate keys refused, depth bounded. Parse
 * it here only: jansson recurses for each level, to parse and to free, and its own bound of 2048
 * levels is more than a task's stack holds. Objects are json_t; release with CLEANUP_JSON or
 * json_decref. */
#pragma once

#include <jansson.h>

#include "proto/base/error.h"

#define JSON_MAX_DEPTH 64
#define JSON_MAX_VALUES 100000 /* 4 MiB of empty objects would become 500 MiB of memory */

#define CLEANUP_JSON CLEANUP(json_cleanup)

static inline void json_cleanup(json_t **json)
{
    json_decref(*json);
    *json = NULL;
}

/* Parses a document. `what` names it in the error ("manifest of busybox:latest"). Longer than
 * limit_bytes, nested deeper than JSON_MAX_DEPTH, or of more than JSON_MAX_VALUES:
 * RESOURCE_EXHAUSTED; malformed: INVALID_ARGUMENT; all with reason INVALID_JSON.
 * The caller owns the result. */
json_t *json_parse(const void *data, size_t size, size_t limit_bytes, const char *what,
                   struct error *err);

/* The items of an array one by one: each is an object or array and is parsed alone, and only it has
 * to fit json_parse()'s limits. Begin with text and size. 1: the next item, which the caller owns;
 * 0: the end; -1: as json_parse(). */
struct json_items {
    const char *text;
    size_t size, at;
    bool begun;
};
int json_items_next(struct json_items *items, size_t limit_bytes, const char *what, json_t **ret,
                    struct error *err);

/* Member access that never fails: NULL or fallback if absent or of another type. Borrowed. */
const char *json_str(const json_t *object, const char *key);
int64_t json_int(const json_t *object, const char *key, int64_t fallback);
bool json_bool(const json_t *object, const char *key, bool fallback);

/* Compact text of a document; the caller frees it. */
char *json_text(const json_t *json);

/* Copies an array of strings to a NULL-terminated array (the caller frees with strv_free). An
 * absent or null array gives NULL; a member that is no string is an error naming `what`. */
bool json_strv(const json_t *array, const char *what, char ***ret, struct error *err);
