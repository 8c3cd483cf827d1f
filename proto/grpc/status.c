#include "proto/grpc/status.h"

#include <stdio.h>

#include "proto/base/strbuf.h"
#include "proto/davit/v1/error.pb-c.h"
#include "proto/grpc/codec.h"
#include "proto/grpc/wire.pb-c.h"

#define ERROR_DETAIL_TYPE "davit.v1.ErrorDetail"
#define TYPE_URL_PREFIX "type.googleapis.com/"

/* Bytes of the UTF-8 sequence at p, 0 if it is none (Unicode 15, table 3-7). */
static size_t utf8_length(const unsigned char *p)
{
    unsigned int low = 0x80, high = 0xbf;
    size_t length = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;

    if (p[0] > 0xf4)
        return 0;
    if (p[0] == 0xe0)
        low = 0xa0;
    else if (p[0] == 0xed)
        high = 0x9f;
    else if (p[0] == 0xf0)
        low = 0x90;
    else if (p[0] == 0xf4)
        high = 0x8f;
    for (size_t i = 1; i < length; i++, low = 0x80, high = 0xbf) {
        if (p[i] < low || p[i] > high)
            return 0;
    }
    return length;
}

/* A protobuf string must be UTF-8, and messages may quote any file name. */
static char *utf8_cut(const char *text, size_t limit_bytes)
{
    struct strbuf out = {0};
    const char *p = text;

    while (p && *p) {
        size_t length = utf8_length((const unsigned char *)p);
        if (out.length + MAX(length, 1) > limit_bytes) {
            strbuf_add_str(&out, "...");
            break;
        }
        if (length)
            strbuf_add(&out, p, length);
        else
            strbuf_add_char(&out, '?');
        p += MAX(length, 1);
    }
    return strbuf_take(&out);
}

static char *details_make(const struct error *err, char *message)
{
    CLEANUP_FREE char *reason = utf8_cut(err->reason, STATUS_HINT_BYTES);
    CLEANUP_FREE char *hint = utf8_cut(err->hint, STATUS_HINT_BYTES);
    Davit__V1__ErrorDetail detail = DAVIT__V1__ERROR_DETAIL__INIT;
    CLEANUP_FREE uint8_t *detail_bytes = NULL, *status_bytes = NULL;
    Grpc__Wire__Any any = GRPC__WIRE__ANY__INIT, *anys[] = {&any};
    Grpc__Wire__Status status = GRPC__WIRE__STATUS__INIT;
    struct strbuf out = {0};
    size_t size;

    detail.reason = reason;
    detail.hint = hint;
    detail_bytes = xmalloc(davit__v1__error_detail__get_packed_size(&detail) + 1);
    any.type_url = TYPE_URL_PREFIX ERROR_DETAIL_TYPE;
    any.value.len = davit__v1__error_detail__pack(&detail, detail_bytes);
    any.value.data = detail_bytes;
    status.code = (int32_t)err->code;
    status.message = message;
    status.n_details = 1;
    status.details = anys;
    status_bytes = xmalloc(grpc__wire__status__get_packed_size(&status));
    size = grpc__wire__status__pack(&status, status_bytes);
    grpc_base64_encode(&out, status_bytes, size);
    return strbuf_take(&out);
}

void status_headers_make(struct status_headers *ret, const struct error *err)
{
    CLEANUP_FREE char *message = utf8_cut(err->message, STATUS_MESSAGE_BYTES);
    struct strbuf encoded = {0};

    *ret = (struct status_headers){0};
    snprintf(ret->code, sizeof(ret->code), "%u", (unsigned int)err->code % 100);
    if (*message) {
        grpc_percent_encode(&encoded, message);
        ret->message = strbuf_take(&encoded);
    }
    if (err->reason || err->hint)
        ret->details = details_make(err, message);
}

void status_headers_done(struct status_headers *headers)
{
    free(headers->message);
    free(headers->details);
    *headers = (struct status_headers){0};
}

static void details_parse(const void *data, size_t size, struct error *err)
{
    Grpc__Wire__Status *status = grpc__wire__status__unpack(NULL, size, data);

    for (size_t i = 0; status && i < status->n_details; i++) {
        const Grpc__Wire__Any *any = status->details[i];
        const char *name = strrchr(any->type_url, '/');
        if (!name || !str_eq(name + 1, ERROR_DETAIL_TYPE))
            continue;
        Davit__V1__ErrorDetail *detail =
            davit__v1__error_detail__unpack(NULL, any->value.len, any->value.data);
        if (detail && *detail->hint)
            error_hint(err, "%s", detail->hint);
        if (detail && *detail->reason) {
            free(err->reason);
            err->reason = xstrdup(detail->reason);
        }
        if (detail)
            davit__v1__error_detail__free_unpacked(detail, NULL);
    }
    if (status)
        grpc__wire__status__free_unpacked(status, NULL);
}

void status_parse(const char *code, const char *message, const void *details, size_t details_size,
                  struct error *err)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    size_t digits = strspn(code, "0123456789");
    unsigned long number = digits && digits < 5 && !code[digits] ? strtoul(code, NULL, 10) : 2;

    error_done(err);
    if (number == ERROR_NONE)
        return;
    if (number > ERROR_UNAUTHENTICATED)
        number = ERROR_UNKNOWN;
    if (message)
        grpc_percent_decode(&text, message);
    error_set(err, (enum error_code)number, NULL, "%s",
              text.length ? text.data : error_code_name((enum error_code)number));
    if (details_size)
        details_parse(details, details_size, err);
}
