#include "client/ui/unicode.h"

#include <locale.h>
#include <wchar.h>
#include <wctype.h>

/* libc has these tables in its C.UTF-8. Made once, never freed; (locale_t)0: there is none. */
static locale_t tables(void)
{
    static locale_t locale;
    static bool tried;

    if (!tried)
        locale = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
    tried = true;
    return locale;
}

/* How many bytes the character has that begins with this one; 0: none begins so. */
static size_t length_of(unsigned char first)
{
    if (first < 0x80)
        return 1;
    if (first < 0xc2 || first > 0xf4)
        return 0;
    return first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
}

size_t unicode_read(const char *text, size_t size, uint32_t *ret)
{
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    const size_t length = length_of((unsigned char)*text);
    uint32_t character = (unsigned char)*text;

    *ret = UNICODE_REPLACEMENT;
    if (length == 0 || length > size)
        return 1;
    if (length > 1)
        character &= 0xffu >> (length + 1);
    for (size_t i = 1; i < length; i++) {
        if (((unsigned char)text[i] & 0xc0) != 0x80)
            return 1;
        character = character << 6 | ((unsigned char)text[i] & 0x3f);
    }
    if (character < smallest[length] || character > 0x10ffff ||
        (character >= 0xd800 && character < 0xe000))
        return 1;
    *ret = character;
    return length;
}

void unicode_add(struct strbuf *out, uint32_t c)
{
    if (c < 0x80) {
        strbuf_add_char(out, (char)c);
    } else if (c < 0x800) {
        strbuf_add_char(out, (char)(0xc0 | c >> 6));
        strbuf_add_char(out, (char)(0x80 | (c & 0x3f)));
    } else if (c < 0x10000) {
        strbuf_add_char(out, (char)(0xe0 | c >> 12));
        strbuf_add_char(out, (char)(0x80 | (c >> 6 & 0x3f)));
        strbuf_add_char(out, (char)(0x80 | (c & 0x3f)));
    } else {
        strbuf_add_char(out, (char)(0xf0 | c >> 18));
        strbuf_add_char(out, (char)(0x80 | (c >> 12 & 0x3f)));
        strbuf_add_char(out, (char)(0x80 | (c >> 6 & 0x3f)));
        strbuf_add_char(out, (char)(0x80 | (c & 0x3f)));
    }
}

bool unicode_is_letter(uint32_t c)
{
    if (c < 0x80)
        return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
    return tables() && iswalnum_l((wint_t)c, tables());
}

bool unicode_is_printable(uint32_t c)
{
    if (c < 0x80)
        return c >= 0x20 && c < 0x7f;
    return tables() && iswprint_l((wint_t)c, tables()) && !iswspace_l((wint_t)c, tables());
}

uint32_t unicode_upper(uint32_t c)
{
    if (c < 0x80)
        return c >= 'a' && c <= 'z' ? c - 0x20 : c;
    return tables() ? (uint32_t)towupper_l((wint_t)c, tables()) : c;
}

uint32_t unicode_lower(uint32_t c)
{
    if (c < 0x80)
        return c >= 'A' && c <= 'Z' ? c + 0x20 : c;
    return tables() ? (uint32_t)towlower_l((wint_t)c, tables()) : c;
}

/* There is no wcwidth_l(). */
unsigned unicode_width(uint32_t c)
{
    locale_t before;
    int width;

    if (c < 0x300)
        return 1; /* no combining marks yet, and nothing wide */
    if (!tables())
        return 1;
    before = uselocale(tables());
    width = wcwidth((wchar_t)c);
    uselocale(before);
    return width < 0 ? 1 : (unsigned)width;
}
