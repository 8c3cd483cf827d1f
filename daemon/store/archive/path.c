#include "daemon/store/archive/path.h"

#include <errno.h>
#include <stdio.h>

struct quoted path_quote(const char *name)
{
    struct quoted quoted = {.text = ""};
    size_t length = 0;

    for (const unsigned char *c = (const unsigned char *)name; *c; c++) {
        if (length + sizeof("\\xff...") >= sizeof(quoted.text)) {
            memcpy(quoted.text + length, "...", 4);
            break;
        }
        if (*c >= ' ' && *c < 0x7f && *c != '\\' && *c != '"')
            quoted.text[length++] = (char)*c;
        else
            length += (size_t)snprintf(quoted.text + length, 5, "\\x%02x", *c);
        quoted.text[length] = '\0';
    }
    return quoted;
}

static bool path_invalid(const char *name, const char *why, struct error *err)
{
    return error_set(err, ERROR_DATA_LOSS, "INVALID_LAYER", "entry \"%s\" %s",
                     path_quote(name).text, why);
}

bool path_parse(const char *name, struct path *ret, struct error *err)
{
    size_t length = 0;

    if (strlen(name) >= LAYER_PATH_MAX)
        return path_invalid(name, "has a name of more than 4095 bytes", err);
    for (const char *part = name; *part;) {
        size_t size = strcspn(part, "/");
        if (size == 2 && part[0] == '.' && part[1] == '.') {
            if (length == 0)
                return path_invalid(name, "leads out of the layer", err);
            while (length > 0 && ret->text[--length] != '/')
                ;
        } else if (size > 0 && !(size == 1 && part[0] == '.')) {
            if (length > 0)
                ret->text[length++] = '/';
            memcpy(ret->text + length, part, size);
            length += size;
        }
        part += size;
        part += *part == '/';
    }
    ret->text[length] = '\0';
    ret->length = length;
    ret->base = strrchr(ret->text, '/');
    ret->parent_length = ret->base ? (size_t)(ret->base - ret->text) : 0;
    ret->base = ret->base ? ret->base + 1 : ret->text;
    return true;
}

bool entry_invalid(const struct path *path, const char *why, struct error *err)
{
    return path_invalid(path->length ? path->text : ".", why, err);
}

bool entry_failed(const struct path *path, int errnum, const char *doing, struct error *err)
{
    const char *name = path->length ? path->text : ".";

    switch (errnum) {
    case E2BIG:
    case EEXIST:
    case EFBIG:
    case EINVAL:
    case EISDIR:
    case ELOOP:
    case EMLINK:
    case ENAMETOOLONG:
    case ENOENT:
    case ENOTDIR:
    case ENOTEMPTY:
    case EOVERFLOW:
    case EPERM:
    case ERANGE:
        return error_set(err, ERROR_DATA_LOSS, "INVALID_LAYER", "entry \"%s\": cannot %s: %s",
                         path_quote(name).text, doing, strerror(errnum));
    default:
        return error_set_errno(err, errnum, "entry \"%s\": cannot %s", path_quote(name).text,
                               doing);
    }
}
