/* What is known of the places that content comes from: how often they failed in a row, and until
 * when they are asked last for it. In memory only. */
#pragma once

#include "proto/base/map.h"

struct health {
    char *place; /* "https://mirror.example.com/v2" */
    unsigned int references;
    unsigned int failures;        /* in a row */
    uint64_t behind_until_ms;     /* on the loop's clock; in the past: healthy */
    uint64_t whole_only_until_ms; /* it does not serve ranges, or wrong ones */
    bool validators_change;       /* from one answer to the next: they are of no use */
    uint64_t bytes_served;
    char *last_error; /* NULL after a success */
};

struct health_table {
    struct map *by_place;
};

void health_table_init(struct health_table *table);
void health_table_done(struct health_table *table);

/* The place's record, made if there is none. The caller releases it. */
struct health *health_of(struct health_table *table, const char *place);

/* Without making one: NULL if nothing is known. Borrowed. */
const struct health *health_find(const struct health_table *table, const char *place);
struct health *health_unref(struct health *health); /* returns NULL */

/* wait_ms: how long the place itself asked to be left alone, or 0. */
void health_failed(struct health *health, const char *error, uint64_t wait_ms);
void health_succeeded(struct health *health, uint64_t bytes);
bool health_is_good(const struct health *health);

void health_learn_whole_only(struct health *health);
bool health_whole_only(const struct health *health);
