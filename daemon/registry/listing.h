/* Lists that a registry gives in pages: tags and repositories. Shared within the folder. */
#pragma once

#include "daemon/registry/internal.h"

/* Called for each name of a list; false, without an error, ends it. */
typedef bool (*listing_visitor)(void *arg, const char *name);

struct listing {
    struct registry_client *client;
    const struct source *source;
    const char *path; /* "/_catalog", below the base */
    const char *key;  /* "repositories": the array in each page */
    listing_visitor visit;
    void *arg;
};

/* Reads page after page (distribution-spec, "Link") until there is none, the visitor has enough, or
 * a bound is reached: RESOURCE_EXHAUSTED. Suspends. */
bool await_listing(const struct listing *listing, struct error *err);
