/* Places that have the content of a repository: the registry itself, and mirrors of it.
 *
 * Nouns: a *source* is one such place, for one repository and one user's credentials; it is counted
 * and stays as it is when the configuration is read anew. Its *health* belongs to the place, is
 * shared by all sources there and outlives them: places that failed are asked last. Begin with
 * await_registry_sources(). */
#pragma once

#include "daemon/registry/http.h"
#include "daemon/registry/reference.h"
#include "proto/base/error.h"

struct registry_client;
struct registry_auth;

/* What a source is wanted for: containerd's "capabilities" of hosts.toml. */
enum source_use {
    SOURCE_PULL = 1 << 0,    /* content by digest */
    SOURCE_RESOLVE = 1 << 1, /* from a tag to a digest: needs more trust */
    SOURCE_PUSH = 1 << 2,
};

struct source;
struct source *source_ref(struct source *source);
struct source *source_unref(struct source *source); /* returns NULL */

/* In order of preference: healthy before unhealthy, mirrors before the registry itself. */
struct source_list {
    struct source **items;
    size_t count;
};
void source_list_done(struct source_list *list);
#define CLEANUP_SOURCE_LIST CLEANUP(source_list_done)

/* The places for a reference; at least one, at most SOURCES_MAX. Reads the host's hosts.toml, so
 * that it suspends. auth may be NULL; what it points to is copied. Mirrors get none of it.
 * FAILED_PRECONDITION, reason INVALID_CONFIG, names a hosts.toml that cannot be used, and where. */
#define SOURCES_MAX 64
bool await_registry_sources(struct registry_client *client, const struct reference *reference,
                            const struct registry_auth *auth, enum source_use use,
                            struct source_list *ret, struct error *err);

/* "mirror.example.com", for progress and logs. */
const char *source_name(const struct source *source);
bool source_is_mirror(const struct source *source); /* false: the registry itself */

/* Call when content could not be had, or was wrong: each failure in a row makes the place wait
 * longer behind the others. What says nothing of the place (that it lacks an image, or wants other
 * credentials, or that the caller was cancelled) does not count. Logs it. */
void source_failed(struct source *source, const struct error *err);

/* Call when it was had: bytes that came, or 0 for a document. Ends the failures in a row. */
void source_served(struct source *source, uint64_t bytes);

/* It sent all where a part was asked for, or wrong parts: ask it for whole blobs only. */
bool source_ignores_ranges(const struct source *source);
