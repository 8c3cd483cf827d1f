#include "daemon/image/glob.h"

/* As Go does it: the pattern is cut at its stars into chunks, and each chunk is put where it first
 * fits. That never has to be taken back, so that no pattern takes long. */

enum match { MATCH_NO, MATCH_YES, MATCH_INVALID };

/* A character of a class. */
static bool take_class_char(const char **chunk, unsigned char *ret)
{
    if (**chunk == '\\')
        (*chunk)++;
    else if (**chunk == '-' || **chunk == ']')
        return false;
    if (!**chunk)
        return false;
    *ret = (unsigned char)*(*chunk)++;
    return **chunk;
}

/* What follows "[", up to and with "]". */
static enum match match_class(const char **chunk, unsigned char c)
{
    bool negated = **chunk == '^', found = false;

    *chunk += negated;
    for (size_t ranges = 0; **chunk != ']' || ranges == 0; ranges++) {
        unsigned char low, high;
        if (!take_class_char(chunk, &low))
            return MATCH_INVALID;
        high = low;
        if (**chunk == '-') {
            (*chunk)++;
            if (!take_class_char(chunk, &high))
                return MATCH_INVALID;
        }
        found |= low <= c && c <= high;
    }
    (*chunk)++;
    return found != negated ? MATCH_YES : MATCH_NO;
}

/* Where the chunk ends: at the next star. */
static const char *chunk_end(const char *chunk)
{
    bool in_class = false;

    for (; *chunk && (*chunk != '*' || in_class); chunk++) {
        if (*chunk == '\\' && chunk[1])
            chunk++;
        else if (*chunk == '[')
            in_class = true;
        else if (*chunk == ']')
            in_class = false;
    }
    return chunk;
}

/* Whether the text begins with the chunk, and what is behind it then. It is read to its end also
 * where it does not, for it may be no pattern at all. */
static enum match match_chunk(const char *chunk, const char *end, const char *text,
                              const char **ret_rest)
{
    bool failed = false;

    while (chunk < end) {
        char c = failed ? '\0' : *text;
        failed |= !c;
        if (*chunk == '[') {
            chunk++;
            enum match class = match_class(&chunk, (unsigned char)c);
            if (class == MATCH_INVALID)
                return MATCH_INVALID;
            failed |= class == MATCH_NO;
        } else if (*chunk == '?') {
            chunk++;
            failed |= c == '/';
        } else {
            if (*chunk == '\\' && !*++chunk)
                return MATCH_INVALID;
            failed |= *chunk++ != c;
        }
        text += !failed;
    }
    *ret_rest = text;
    return failed ? MATCH_NO : MATCH_YES;
}

static enum match match(const char *pattern, const char *text)
{
    bool failed = false;

    while (*pattern) {
        bool star = *pattern == '*';
        const char *rest, *end;
        enum match chunk;
        pattern += strspn(pattern, "*");
        end = chunk_end(pattern);
        chunk = match_chunk(pattern, end, text, &rest);
        /* The last chunk must reach the end of the text. */
        for (; star && chunk != MATCH_INVALID && *text && *text != '/' &&
               (chunk == MATCH_NO || (!*end && *rest));
             text++)
            chunk = match_chunk(pattern, end, text + 1, &rest);
        if (chunk == MATCH_INVALID)
            return MATCH_INVALID;
        failed |= chunk == MATCH_NO;
        text = failed ? "" : rest;
        pattern = end;
    }
    return failed || *text ? MATCH_NO : MATCH_YES;
}

bool glob_is_valid(const char *pattern)
{
    return match(pattern, "") != MATCH_INVALID;
}

bool glob_match(const char *pattern, const char *text)
{
    return match(pattern, text) == MATCH_YES;
}
