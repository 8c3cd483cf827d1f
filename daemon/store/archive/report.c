#include "daemon/store/archive/report.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

/* "ok CONTENT_BYTES ENTRIES INDEX_BYTES SPARSE_BYTES SEAL\n" and the opaque paths, each with its
 * NUL, or "failed CODE REASON\nMESSAGE"; "-" is no seal and no reason. */

/* EROFS of 512-byte blocks with 32-bit numbers. */
#define DEVICE_BYTES_MAX (2 * 1024 * GIB)

void layer_report_done(struct layer_report *report)
{
    strbuf_done(&report->opaque);
}

void report_encode_result(struct strbuf *out, const struct layer_report *report)
{
    strbuf_addf(out, "ok %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %s\n",
                report->content_bytes, report->entries, report->index_bytes, report->sparse_bytes,
                digest_is_set(&report->seal) ? report->seal.text : "-");
    strbuf_add(out, report->opaque.data, report->opaque.length);
}

void report_encode_error(struct strbuf *out, const struct error *err)
{
    strbuf_addf(out, "failed %d %s\n%s", (int)err->code, err->reason ? err->reason : "-",
                err->message ? err->message : "");
}

static bool malformed(struct error *err)
{
    return error_set(err, ERROR_INTERNAL, "UNPACKER_FAILED", "the unpacker ended without a report");
}

static bool decode_error(const char *line, const char *message, struct error *err)
{
    char reason[32];
    int code;

    if (sscanf(line, "failed %d %31[A-Z_-]", &code, reason) != 2)
        return malformed(err);
    for (const char *c = message; *c; c++) {
        if (*c < ' ' || *c > '~')
            return malformed(err);
    }
    if (code != ERROR_DATA_LOSS && code != ERROR_RESOURCE_EXHAUSTED)
        code = ERROR_INTERNAL;
    error_set(err, code, str_eq(reason, "-") ? NULL : reason, "%.1000s", message);
    return error_hint_of_reason(err);
}

static bool decode_result(const char *line, struct layer_report *ret)
{
    char seal[sizeof(ret->seal.text)];

    if (sscanf(line, "ok %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %71s", &ret->content_bytes,
               &ret->entries, &ret->index_bytes, &ret->sparse_bytes, seal) != 5)
        return false;
    ret->seal = (struct digest){0};
    return ret->content_bytes <= LAYER_CONTENT_MAX && ret->entries <= LAYER_ENTRIES_MAX &&
           ret->index_bytes <= DEVICE_BYTES_MAX && ret->sparse_bytes <= DEVICE_BYTES_MAX &&
           (str_eq(seal, "-") || digest_parse(seal, &ret->seal, NULL));
}

bool report_decode(const char *data, size_t size, struct layer_report *ret, struct error *err)
{
    const char *newline = size ? memchr(data, '\n', MIN(size, 200)) : NULL;
    CLEANUP_FREE char *line = NULL;
    CLEANUP_FREE char *rest = NULL;
    size_t rest_size;

    if (!newline)
        return malformed(err);
    line = xstrndup(data, (size_t)(newline - data));
    rest_size = size - (size_t)(newline + 1 - data);
    if (str_starts(line, "failed ")) {
        rest = xstrndup(newline + 1, rest_size);
        return decode_error(line, rest, err);
    }
    if (!decode_result(line, ret) || (rest_size > 0 && newline[rest_size] != '\0'))
        return malformed(err);
    strbuf_clear(&ret->opaque);
    strbuf_add(&ret->opaque, newline + 1, rest_size);
    return true;
}
