/* The base library's parsers and escapers. The first byte chooses one, the rest is its input. */
#include <fcntl.h>
#include <unistd.h>

#include "proto/base/digest.h"
#include "proto/base/json.h"
#include "proto/base/log.h"
#include "proto/base/strbuf.h"

static void fuzz_digest(const char *text)
{
    CLEANUP_ERROR struct error err = {0};
    struct digest digest = {0};

    if (digest_parse(text, &digest, &err))
        CHECK(str_eq(digest.text, text) && strlen(digest_hex(&digest)) == 64);
    else
        CHECK(error_is(&err, "INVALID_DIGEST") && !digest_is_set(&digest));
}

static void walk(const json_t *json, size_t depth)
{
    CLEANUP_ERROR struct error err = {0};
    CLEANUP(strv_cleanup) char **strv = NULL;
    const char *key;
    json_t *value;
    size_t index;

    CHECK(depth <= JSON_MAX_DEPTH);
    if (!json_strv(json, "x", &strv, &err))
        CHECK(error_is(&err, "INVALID_JSON") && !strv);
    json_object_foreach ((json_t *)json, key, value) {
        CHECK(!json_str(json, key) || json_is_string(value));
        json_int(json, key, 1);
        json_bool(json, key, true);
        walk(value, depth + 1);
    }
    json_array_foreach (json, index, value) {
        walk(value, depth + 1);
    }
}

static void fuzz_json(const uint8_t *data, size_t size)
{
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_JSON json_t *json = json_parse(data, size, 4 * MIB, "the input", &err);
    CLEANUP_JSON json_t *again = NULL;
    CLEANUP_FREE char *text = NULL;

    CHECK((json != NULL) == !error_is_set(&err));
    if (!json)
        return;
    walk(json, 0);
    text = json_text(json);
    again = json_parse(text, strlen(text), SIZE_MAX, "our own text", &err);
    CHECK(again && json_equal(json, again));
}

/* Whatever the text: quoted, it is a JSON string; printable, it holds no control character. */
static void fuzz_escapes(const char *text)
{
    CLEANUP_STRBUF struct strbuf document = {0};
    CLEANUP_STRBUF struct strbuf printable = {0};
    CLEANUP_STRBUF struct strbuf twice = {0};
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_JSON json_t *json = NULL;

    strbuf_add_char(&document, '[');
    strbuf_add_quoted(&document, text);
    strbuf_add_char(&document, ']');
    json = json_parse(document.data, document.length, SIZE_MAX, "the quoted text", &err);
    CHECK(json);
    strbuf_add_printable(&printable, text);
    for (const unsigned char *c = (const unsigned char *)strbuf_text(&printable); *c; c++)
        CHECK(*c >= 0x20 && *c != 0x7f && !(c[0] == 0xc2 && c[1] < 0xa0));
    strbuf_add_printable(&twice, strbuf_text(&printable));
    CHECK(str_eq(strbuf_text(&twice), strbuf_text(&printable)));
}

/* The line itself, through a pipe: one line, valid JSON, the value where it belongs. */
static void fuzz_log(const char *text)
{
    CLEANUP_ERROR struct error err = {0};
    CLEANUP_JSON json_t *json = NULL;
    char line[40000];
    int saved = dup(STDERR_FILENO), fds[2];
    ssize_t length;

    CHECK(pipe2(fds, O_CLOEXEC) == 0);
    dup2(fds[1], STDERR_FILENO);
    log_setup(LOG_LEVEL_INFO, LOG_FORMAT_JSON);
    log_info(text, LOG("value", text), LOG("after", 1));
    dup2(saved, STDERR_FILENO);
    length = read(fds[0], line, sizeof(line));
    close(saved);
    close(fds[0]);
    close(fds[1]);
    CHECK(length > 0 && memchr(line, '\n', (size_t)length) == line + length - 1);
    json = json_parse(line, (size_t)length, SIZE_MAX, "the line", &err);
    CHECK(json && json_object_size(json) == 5 && json_int(json, "after", 0) == 1);
    log_setup(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP_FREE char *text = NULL;

    if (size == 0)
        return 0;
    text = xstrndup((const char *)data + 1, size - 1);
    switch (data[0] % 4) {
    case 0:
        fuzz_digest(text);
        break;
    case 1:
        fuzz_json(data + 1, size - 1);
        break;
    case 2:
        fuzz_escapes(text);
        break;
    default:
        fuzz_log(text);
        break;
    }
    return 0;
}
