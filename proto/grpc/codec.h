/* The parts of gRPC's wire format that are not HTTP/2's: message frames, and what stands in header
 * values. No I/O, nothing suspends, everything here may be fed by a stranger.
 * Spec: grpc/doc/PROTOCOL-HTTP2.md. */
#pragma once

#include "proto/base/error.h"
#include "proto/base/strbuf.h"

/* --- Message frames ("Length-Prefixed-Message") ----------------------------------------------- */

#define GRPC_PREFIX_BYTES 5

/* Writes the prefix of an uncompressed message of size_bytes. */
void grpc_prefix_write(uint8_t prefix[GRPC_PREFIX_BYTES], uint32_t size_bytes);

/* Looks at the bytes at the start of a frame. 1 with the size of the message that follows the
 * prefix; 0 if the prefix is not complete; -1 with err for a compressed message (UNIMPLEMENTED) or
 * one of more than limit_bytes (RESOURCE_EXHAUSTED), which is known before it has arrived. */
int grpc_prefix_read(const void *data, size_t size, size_t limit_bytes, size_t *ret_message_size,
                     struct error *err);

/* --- Header values ---------------------------------------------------------------------------- */

/* Percent-encoding of grpc-message ("Percent-Encoded"). */
void grpc_percent_encode(struct strbuf *out, const char *text);
/* Never fails: a broken escape stands for itself. The result contains no NUL. */
void grpc_percent_decode(struct strbuf *out, const char *text);

/* grpc-timeout. Text is at most GRPC_TIMEOUT_TEXT bytes with its NUL; rounds up where the eight
 * digits do not suffice. */
#define GRPC_TIMEOUT_TEXT 10
void grpc_timeout_format(uint64_t timeout_ms, char ret[GRPC_TIMEOUT_TEXT]);
/* Rounds up to milliseconds. False for anything but one to eight digits and a unit. */
bool grpc_timeout_parse(const char *text, uint64_t *ret_ms);

/* Base64 of "-bin" headers: written without padding, read with or without it. */
void grpc_base64_encode(struct strbuf *out, const void *data, size_t size);
/* Appends to out; false, and nothing appended, if the text is not base64. */
bool grpc_base64_decode(struct strbuf *out, const char *text);
