/* Hash map from strings to pointers, in insertion-independent order. Keys are copied, values are
 * borrowed. The hash is seeded per map, so that a peer cannot choose colliding keys. */
#pragma once

#include "proto/base/util.h"

struct map;

struct map *map_new(void);
struct map *map_free(struct map *map); /* values are not freed; returns NULL */
static inline void map_cleanup(struct map **map)
{
    *map = map_free(*map);
}

size_t map_count(const struct map *map);
void *map_get(const struct map *map, const char *key); /* NULL if absent */

/* Stores value (not NULL) and returns the value it replaces, or NULL. */
void *map_put(struct map *map, const char *key, void *value);

/* Removes the key and returns its value, or NULL. */
void *map_remove(struct map *map, const char *key);

/* Walks the entries: start with *iterator = 0; false at the end. Any change of the map ends the
 * walk's validity. */
bool map_next(const struct map *map, size_t *iterator, const char **ret_key, void **ret_value);
