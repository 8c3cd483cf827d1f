/* What is left of secrets when they have been used: nothing. */
#pragma once

#include "proto/base/error.h"
#include "proto/base/strbuf.h"

static inline void wipe_strbuf(struct strbuf *buf)
{
    if (buf->data)
        explicit_bzero(buf->data, buf->capacity);
    strbuf_done(buf);
}
#define CLEANUP_SECRET_STRBUF CLEANUP(wipe_strbuf)

/* The JSON parser quotes what it stumbles over, and that may be a secret. */
static inline void drop_quotation(struct error *err)
{
    char *quotation = strstr(err->message, " near '");

    if (quotation)
        *quotation = '\0';
}
