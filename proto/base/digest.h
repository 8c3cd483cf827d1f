/* Content digests (OCI image-spec, descriptor.md, "Digests"): the type, its grammar, and a
 * streaming SHA-256. davit accepts sha256 only: the only algorithm registries and engines share. */
#pragma once

#include "proto/base/error.h"

/* "sha256:" and 64 lower-case hex digits. All zero bytes means: no digest. */
struct digest {
    char text[72];
};

static inline bool digest_is_set(const struct digest *digest)
{
    return digest->text[0] != '\0';
}

static inline bool digest_eq(const struct digest *a, const struct digest *b)
{
    return strcmp(a->text, b->text) == 0;
}

/* The 64 hex digits; owned by the digest. */
static inline const char *digest_hex(const struct digest *digest)
{
    return digest->text + strlen("sha256:");
}

/* Checks the grammar. INVALID_ARGUMENT with reason INVALID_DIGEST otherwise. */
bool digest_parse(const char *text, struct digest *ret, struct error *err);

/* Digest of a byte string. */
struct digest digest_of(const void *data, size_t size);

/* Streaming SHA-256. No locks: one thread at a time. */
struct hasher;
struct hasher *hasher_new(void);
struct hasher *hasher_free(struct hasher *hasher);
void hasher_update(struct hasher *hasher, const void *data, size_t size);
struct digest hasher_finish(struct hasher *hasher); /* once; then only hasher_free */
static inline void hasher_cleanup(struct hasher **hasher)
{
    *hasher = hasher_free(*hasher);
}
