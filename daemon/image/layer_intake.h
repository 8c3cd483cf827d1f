/* A layer that comes as a stream of bytes from elsewhere than a registry, plain or compressed: each
 * byte is hashed, inflated, written and indexed as it comes. Or it is only hashed, because the
 * store has it already. */
#pragma once

#include "daemon/store/store.h"

struct layer_intake;

enum layer_format { LAYER_PLAIN, LAYER_GZIP, LAYER_ZSTD, LAYER_FOREIGN };

/* By its first bytes, of which 512 tell. FOREIGN: compressed in a way that layers are not. */
enum layer_format layer_format_of(const void *head, size_t size);

struct layer_intake_options {
    struct store *store;
    enum layer_format format;
    bool hash_only;
};

/* NULL with err. Free it with layer_intake_free_await. */
struct layer_intake *await_layer_intake_new(const struct layer_intake_options *options,
                                            struct error *err);

/* The next bytes. DATA_LOSS (INVALID_LAYER, INVALID_COMPRESSION), NO_SPACE. */
bool await_layer_intake_add(struct layer_intake *intake, const void *data, size_t size,
                            struct error *err);

struct layer_received {
    struct digest digest;   /* of the bytes as they came */
    struct layer_info info; /* of the layer that is stored now; unset if they were only hashed */
};

/* That was all: the layer is stored, and nothing holds it: take a lease before the next await. */
bool await_layer_intake_finish(struct layer_intake *intake, struct layer_received *ret,
                               struct error *err);

/* Removes what was not finished. Suspends, also for a cancelled task. Takes NULL; returns NULL. */
struct layer_intake *layer_intake_free_await(struct layer_intake *intake);
