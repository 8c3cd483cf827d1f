#include "proto/grpc/status.h"

#include <stdio.h>

#include "proto/base/strbuf.h"
#include "proto/davit/v1/error.pb-c.h"
#include "proto/grpc/codec.h"
#include "proto/grpc/wire.pb-c.h"

#define ERROR_DETAIL_TYPE "davit.v1.ErrorDetail"
#define TYPE_URL_PREFIX "type.googleapis.com/"

/* Cut between two characters: a protobuf string must be UTF-8, as every error's text is. */
static char *utf8_cut(const char *text, size_t limit_bytes)
{
    size_t length = limit_bytes;

    if (!text || strlen(text) <= limit_bytes)
        return xstrdup(text ? text : "");
    while (length && ((unsigned char)text[length] & 0xc0) == 0x80)
        length--;
    return xasprintf("%.*s...", (int)length, text);
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
    detail.retry_after_ms = err->retry_after_ms;
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
    if (err->reason || err->hint || err->retry_after_ms)
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
        err->retry_after_ms = detail ? detail->retry_after_ms : 0;
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
