/* A struct error as gRPC sends it: grpc-status, grpc-message and grpc-status-details-bin, where
 * reason and hint travel as davit.v1.ErrorDetail in a google.rpc.Status. No I/O. */
#pragma once

#include "proto/base/error.h"

/* Common clients take 8 KiB of trailers in all; longer texts for people are cut to these. */
#define STATUS_MESSAGE_BYTES 1500
#define STATUS_HINT_BYTES 500

/* Header values; the caller frees with status_headers_done. `message` and `details` are NULL where
 * there is nothing to say. */
struct status_headers {
    char code[4];
    char *message; /* percent-encoded */
    char *details; /* base64 */
};
void status_headers_make(struct status_headers *ret, const struct error *err);
void status_headers_done(struct status_headers *headers);

/* The error a peer sent: `code` and `message` are header values (message NULL if absent), details
 * the decoded bytes of grpc-status-details-bin. Fills err (empty for "0"). Details that cannot be
 * understood are left out: the status stands without them. */
void status_parse(const char *code, const char *message, const void *details, size_t details_size,
                  struct error *err);
