/* What davit-untar says to the daemon when it is done, on its standard output. */
#pragma once

#include "daemon/store/untar/untar.h"

/* Longer is not from davit-untar. */
#define REPORT_MAX (UNTAR_OPAQUE_MAX + 4 * KIB)

void report_encode_result(struct strbuf *out, const struct untar_result *result);
void report_encode_error(struct strbuf *out, const struct error *err);

/* True with *ret filled (release with untar_result_done), or false with the error that was
 * reported. Anything malformed, also nothing at all, is INTERNAL (UNPACKER_FAILED): what reads an
 * archive from a stranger is not trusted with what it says either. */
bool report_decode(const char *data, size_t size, struct untar_result *ret, struct error *err);
