#include "proto/grpc/codec.h"

#include <openssl/evp.h>
#include <stdio.h>

/* --- Message frames --------------------------------------------------------------------------- */

void grpc_prefix_write(uint8_t prefix[GRPC_PREFIX_BYTES], uint32_t size_bytes)
{
    prefix[0] = 0;
    prefix[1] = (uint8_t)(size_bytes >> 24);
    prefix[2] = (uint8_t)(size_bytes >> 16);
    prefix[3] = (uint8_t)(size_bytes >> 8);
    prefix[4] = (uint8_t)size_bytes;
}

int grpc_prefix_read(const void *data, size_t size, size_t limit_bytes, size_t *ret_message_size,
                     struct error *err)
{
    const uint8_t *p = data;
    uint32_t message_size;

    if (size < GRPC_PREFIX_BYTES)
        return 0;
    if (p[0] != 0) {
        error_set(err, p[0] == 1 ? ERROR_UNIMPLEMENTED : ERROR_INTERNAL, NULL,
                  p[0] == 1 ? "a compressed message came although no compression was agreed on"
                            : "a message has the unknown compression flag %u",
                  p[0]);
        return -1;
    }
    message_size = (uint32_t)p[1] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 8 | p[4];
    if (message_size > limit_bytes) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE",
                  "a message of %u bytes came, the limit is %zu", message_size, limit_bytes);
        return -1;
    }
    *ret_message_size = message_size;
    return 1;
}

/* --- grpc-message ----------------------------------------------------------------------------- */

void grpc_percent_encode(struct strbuf *out, const char *text)
{
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (*p >= 0x20 && *p <= 0x7e && *p != '%')
            strbuf_add_char(out, (char)*p);
        else
            strbuf_addf(out, "%%%02X", *p);
    }
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

void grpc_percent_decode(struct strbuf *out, const char *text)
{
    for (; *text; text++) {
        int high = *text == '%' ? hex_value(text[1]) : -1;
        int low = high >= 0 ? hex_value(text[2]) : -1;
        if (low >= 0 && (high || low)) {
            strbuf_add_char(out, (char)(high << 4 | low));
            text += 2;
        } else {
            strbuf_add_char(out, *text);
        }
    }
}

/* --- grpc-timeout ----------------------------------------------------------------------------- */

#define TIMEOUT_MAX 99999999ULL

static uint64_t divide_up(uint64_t value, uint64_t by)
{
    return value / by + (value % by != 0);
}

void grpc_timeout_format(uint64_t timeout_ms, char ret[GRPC_TIMEOUT_TEXT])
{
    static const struct {
        char unit;
        uint64_t ms;
    } units[] = {{'m', 1}, {'S', 1000}, {'M', 60 * 1000}, {'H', 60 * 60 * 1000}};

    for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
        uint64_t value = divide_up(timeout_ms, units[i].ms);
        if (value <= TIMEOUT_MAX || i + 1 == ARRAY_SIZE(units)) {
            snprintf(ret, GRPC_TIMEOUT_TEXT, "%u%c", (unsigned int)MIN(value, TIMEOUT_MAX),
                     units[i].unit);
            return;
        }
    }
}

bool grpc_timeout_parse(const char *text, uint64_t *ret_ms)
{
    size_t digits = strspn(text, "0123456789");
    uint64_t value;

    if (digits < 1 || digits > 8 || !text[digits] || text[digits + 1])
        return false;
    value = strtoull(text, NULL, 10);
    switch (text[digits]) {
    case 'H':
        *ret_ms = value * 60 * 60 * 1000;
        return true;
    case 'M':
        *ret_ms = value * 60 * 1000;
        return true;
    case 'S':
        *ret_ms = value * 1000;
        return true;
    case 'm':
        *ret_ms = value;
        return true;
    case 'u':
        *ret_ms = divide_up(value, 1000);
        return true;
    case 'n':
        *ret_ms = divide_up(value, 1000 * 1000);
        return true;
    default:
        return false;
    }
}

/* --- "-bin" headers --------------------------------------------------------------------------- */

void grpc_base64_encode(struct strbuf *out, const void *data, size_t size)
{
    CHECK(size <= INT32_MAX / 2);
    strbuf_reserve(out, 4 * (size / 3 + 1));
    out->length +=
        (size_t)EVP_EncodeBlock((unsigned char *)out->data + out->length, data, (int)size);
    while (out->length && out->data[out->length - 1] == '=')
        out->length--;
    out->data[out->length] = '\0';
}

bool grpc_base64_decode(struct strbuf *out, const char *text)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    CLEANUP_STRBUF struct strbuf padded = {0};
    size_t length = strspn(text, alphabet), padding = strspn(text + length, "=");
    int n;

    if (text[length + padding] || padding > 2 || length % 4 == 1 || length > INT32_MAX / 2)
        return false;
    if (padding && (length + padding) % 4 != 0)
        return false;
    padding = (4 - length % 4) % 4;
    strbuf_add(&padded, text, length);
    strbuf_add(&padded, "===", padding);
    strbuf_reserve(out, padded.length);
    n = EVP_DecodeBlock((unsigned char *)out->data + out->length,
                        (const unsigned char *)strbuf_text(&padded), (int)padded.length);
    if (n >= 0)
        out->length += (size_t)n - padding;
    out->data[out->length] = '\0';
    return n >= 0;
}
