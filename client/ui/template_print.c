/* Go's package fmt: what %v, %s, %d and so on make of values. */
#include <math.h>
#include <stdio.h>

#include "client/ui/template_lex.h"
#include "client/ui/template_value.h"
#include "client/ui/unicode.h"

#define WIDTH_MAX 1000000 /* Go's, too */

/* One "%-5d". */
struct verb {
    bool plus, minus, sharp, space, zero;
    bool plus_v, sharp_v; /* "%+v", "%#v" */
    int width, precision; /* -1: none */
    uint32_t letter;
};

static const struct verb plain = {.width = -1, .precision = -1, .letter = 'v'};

static void add_value(const struct evaluation *evaluation, const struct verb *verb,
                      const struct value *value, unsigned depth, struct strbuf *out);

/* --- Width -------------------------------------------------------------------------------------
 */

static size_t characters(const char *text, size_t length)
{
    size_t count = 0;
    uint32_t c;

    for (size_t i = 0; i < length; count++)
        i += unicode_read(text + i, length - i, &c);
    return count;
}

static void add_padded(const struct verb *verb, const char *text, size_t length, struct strbuf *out)
{
    const size_t has = verb->width > 0 ? characters(text, length) : 0;
    const int missing = verb->width > 0 && has < (size_t)verb->width ? verb->width - (int)has : 0;

    for (int i = 0; i < missing && !verb->minus; i++)
        strbuf_add_char(out, verb->zero ? '0' : ' ');
    strbuf_add(out, text, length);
    for (int i = 0; i < missing && verb->minus; i++)
        strbuf_add_char(out, ' ');
}

static void add_padded_text(const struct verb *verb, const struct strbuf *text, struct strbuf *out)
{
    add_padded(verb, strbuf_text(text), text->length, out);
}

static bool is_one_of(uint32_t letter, const char *letters)
{
    return letter && letter < 0x80 && strchr(letters, (int)letter);
}

/* "%!d(string=foo)" */
static void add_bad_verb(const struct evaluation *evaluation, const struct verb *verb,
                         const struct value *value, struct strbuf *out)
{
    strbuf_add_str(out, "%!");
    unicode_add(out, verb->letter);
    strbuf_add_char(out, '(');
    if (value_is_nil(value) && (!value->type || value->type->kind == TYPE_ANY)) {
        strbuf_add_str(out, "<nil>");
    } else {
        struct verb shown = *verb;
        shown.letter = 'v';
        strbuf_addf(out, "%s=", value->type->name);
        add_value(evaluation, &shown, value, 0, out);
    }
    strbuf_add_char(out, ')');
}

/* --- Numbers -----------------------------------------------------------------------------------
 */

static void add_digits(struct strbuf *out, uint64_t size, unsigned base, const char *digits,
                       int at_least)
{
    char text[80];
    size_t i = sizeof(text);

    do {
        text[--i] = digits[size % base];
        size /= base;
    } while (size);
    for (int missing = at_least - (int)(sizeof(text) - i); missing > 0; missing--)
        strbuf_add_char(out, '0');
    strbuf_add(out, text + i, sizeof(text) - i);
}

static void add_integer(const struct verb *verb, int64_t integer, unsigned base, struct strbuf *out)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    const uint64_t size = integer < 0 ? 0 - (uint64_t)integer : (uint64_t)integer;
    const bool sign = integer < 0 || verb->plus || verb->space, upper = verb->letter == 'X';
    struct verb padding = *verb;
    int at_least = verb->precision;

    if (at_least < 0 && verb->zero && verb->width > 0 && !verb->minus)
        at_least = verb->width - sign;
    padding.zero = false;
    if (sign)
        strbuf_add_char(&text, integer < 0 ? '-' : verb->plus ? '+' : ' ');
    if (verb->sharp && base != 10)
        strbuf_add_str(&text, base == 16 ? (upper ? "0X" : "0x") : base == 8 ? "0" : "0b");
    if (verb->letter == 'O')
        strbuf_add_str(&text, "0o");
    if (verb->precision != 0 || size)
        add_digits(&text, size, base, upper ? "0123456789ABCDEF" : "0123456789abcdef", at_least);
    add_padded_text(&padding, &text, out);
}

static uint32_t as_character(int64_t integer)
{
    return integer < 0 || integer > 0x10ffff || (integer >= 0xd800 && integer < 0xe000)
               ? UNICODE_REPLACEMENT
               : (uint32_t)integer;
}

static void add_as_character(const struct verb *verb, int64_t integer, struct strbuf *out)
{
    CLEANUP_STRBUF struct strbuf text = {0}, quoted = {0};
    const uint32_t c = as_character(integer);

    unicode_add(&text, c);
    if (verb->letter == 'q') {
        add_go_quoted(&quoted, strbuf_text(&text), text.length);
        strbuf_clear(&text);
        if (c == '\'' || c == '"')
            strbuf_add_str(&text, c == '"' ? "'\"'" : "'\\''");
        else
            strbuf_addf(&text, "'%.*s'", (int)quoted.length - 2, quoted.data + 1);
    } else if (verb->letter == 'U') {
        strbuf_clear(&text);
        strbuf_addf(&text, "U+%04llX", (unsigned long long)integer);
        if (verb->sharp && unicode_is_printable(c)) {
            strbuf_add_str(&text, " '");
            unicode_add(&text, c);
            strbuf_add_char(&text, '\'');
        }
    }
    add_padded_text(verb, &text, out);
}

/* With the fewest digits that are this number again, as Go's 'g'. */
static void add_shortest(struct strbuf *out, double real)
{
    char text[64] = "";
    int digits = 1;

    for (; digits < 18; digits++) {
        snprintf(text, sizeof(text), "%.*e", digits - 1, real);
        if (strtod(text, NULL) == real)
            break;
    }
    const char *exponent = strchr(text, 'e');
    const long power = exponent ? strtol(exponent + 1, NULL, 10) : 0;
    if (exponent && power >= -4 && power < 6)
        strbuf_addf(out, "%.*f", (int)MAX(digits - 1 - power, 0), real);
    else
        strbuf_add_str(out, text);
}

/* Go's Duration.String(): "1h2m3.5s", "150ms". */
static void add_duration_text(const struct verb *verb, int64_t ns, struct strbuf *out)
{
    static const struct {
        const char *unit;
        uint64_t ns;
    } units[] = {{"ns", 1}, {"\302\265s", 1000}, {"ms", 1000000}};
    const uint64_t size = ns < 0 ? 0 - (uint64_t)ns : (uint64_t)ns, seconds = size / 1000000000;
    CLEANUP_STRBUF struct strbuf text = {0};
    size_t i = 0;

    strbuf_add_str(&text, ns < 0 ? "-" : "");
    if (size >= 1000000000) {
        if (seconds >= 3600)
            strbuf_addf(&text, "%lluh", (unsigned long long)seconds / 3600);
        if (seconds >= 60)
            strbuf_addf(&text, "%llum", (unsigned long long)seconds / 60 % 60);
        add_shortest(&text, (double)(seconds % 60) + (double)(size % 1000000000) / 1e9);
        strbuf_add_char(&text, 's');
    } else if (size == 0) {
        strbuf_add_str(&text, "0s");
    } else {
        while (i < 2 && size >= units[i + 1].ns)
            i++;
        add_shortest(&text, (double)size / (double)units[i].ns);
        strbuf_add_str(&text, units[i].unit);
    }
    add_padded_text(verb, &text, out);
}

static void add_int(const struct evaluation *evaluation, const struct verb *verb,
                    const struct value *value, struct strbuf *out)
{
    const int64_t integer = value_integer(value);
    CLEANUP_STRBUF struct strbuf text = {0};

    if (value->type == &template_duration && is_one_of(verb->letter, "vs"))
        add_duration_text(verb, integer, out);
    else if (is_one_of(verb->letter, "vd"))
        add_integer(verb, integer, 10, out);
    else if (is_one_of(verb->letter, "xX"))
        add_integer(verb, integer, 16, out);
    else if (is_one_of(verb->letter, "oO"))
        add_integer(verb, integer, 8, out);
    else if (verb->letter == 'b')
        add_integer(verb, integer, 2, out);
    else if (is_one_of(verb->letter, "cqU")) {
        if (verb->letter == 'c') /* it may be of the data's */
            unicode_add(&text, as_character(integer));
        if (verb->letter == 'c' && !unicode_is_printable(as_character(integer)) && value->foreign)
            add_clean(evaluation, out, strbuf_text(&text), text.length);
        else
            add_as_character(verb, integer, out);
    } else
        add_bad_verb(evaluation, verb, value, out);
}

static void add_float(const struct evaluation *evaluation, const struct verb *verb,
                      const struct value *value, struct strbuf *out)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    const double real = value_real(value);
    const int precision = verb->precision < 0 ? 6 : MIN(verb->precision, 300);
    struct verb padding = *verb;

    if (!is_one_of(verb->letter, "vgGeEfF")) {
        add_bad_verb(evaluation, verb, value, out);
        return;
    }
    if (!signbit(real) && (verb->plus || verb->space))
        strbuf_add_char(&text, verb->plus ? '+' : ' ');
    if (is_one_of(verb->letter, "vgG") && verb->precision < 0)
        add_shortest(&text, real);
    else if (is_one_of(verb->letter, "vgG"))
        strbuf_addf(&text, "%.*g", precision, real);
    else if (is_one_of(verb->letter, "eE"))
        strbuf_addf(&text, verb->letter == 'e' ? "%.*e" : "%.*E", precision, real);
    else
        strbuf_addf(&text, "%.*f", precision, real);
    if (verb->zero && strchr("+- ", *text.data) && !verb->minus && verb->width > 0) {
        strbuf_add_char(out, *text.data);
        strbuf_consume(&text, 1);
        padding.width--;
    }
    add_padded_text(&padding, &text, out);
}

/* --- Text --------------------------------------------------------------------------------------
 */

static void add_hex(const struct verb *verb, const char *text, size_t length, struct strbuf *out)
{
    CLEANUP_STRBUF struct strbuf hex = {0};

    if (verb->precision >= 0)
        length = MIN(length, (size_t)verb->precision);
    for (size_t i = 0; i < length; i++) {
        if (i && verb->space)
            strbuf_add_char(&hex, ' ');
        if (verb->sharp && (i == 0 || verb->space))
            strbuf_add_str(&hex, verb->letter == 'X' ? "0X" : "0x");
        strbuf_addf(&hex, verb->letter == 'X' ? "%02X" : "%02x", (unsigned char)text[i]);
    }
    add_padded_text(verb, &hex, out);
}

static size_t truncated(const struct verb *verb, const char *text, size_t length)
{
    size_t end = 0;
    uint32_t c;

    if (verb->precision < 0)
        return length;
    for (int i = 0; i < verb->precision && end < length; i++)
        end += unicode_read(text + end, length - end, &c);
    return end;
}

static bool can_back_quote(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        const unsigned char c = (unsigned char)text[i];
        if (c == '`' || c == 0x7f || (c < 0x20 && c != '\t'))
            return false;
    }
    return true;
}

static void add_text(const struct evaluation *evaluation, const struct verb *verb,
                     const struct value *value, struct strbuf *out)
{
    CLEANUP_STRBUF struct strbuf shown = {0};
    size_t length;
    CLEANUP_FREE char *text = value_string(value, &length);

    if (is_one_of(verb->letter, "xX")) {
        add_hex(verb, text, length, out);
        return;
    }
    if (!is_one_of(verb->letter, "vsq")) {
        add_bad_verb(evaluation, verb, value, out);
        return;
    }
    length = truncated(verb, text, length);
    if (verb->letter == 'q' && verb->sharp && can_back_quote(text, length))
        strbuf_addf(&shown, "`%.*s`", (int)length, text);
    else if (verb->letter == 'q' || verb->sharp_v)
        add_go_quoted(&shown, text, length);
    else if (value->foreign)
        add_clean(evaluation, &shown, text, length);
    else
        strbuf_add(&shown, text, length);
    add_padded_text(verb, &shown, out);
}

/* RFC 3339 as Go's Time.String(). */
static void add_time(const struct verb *verb, const struct value *value, struct strbuf *out)
{
    const char *text = json_string_value(value->json);
    int year = 1, month = 1, day = 1, hour = 0, minute = 0, second = 0, used = 0;
    CLEANUP_STRBUF struct strbuf shown = {0};

    if (!text || sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d%n", &year, &month, &day, &hour, &minute,
                        &second, &used) != 6)
        text = "";
    strbuf_addf(&shown, "%04d-%02d-%02d %02d:%02d:%02d", year, month, day, hour, minute, second);
    text += used;
    if (*text == '.') {
        size_t digits = strspn(text + 1, "0123456789") + 1, end = digits;
        while (end > 1 && text[end - 1] == '0')
            end--;
        strbuf_add(&shown, text, end > 1 ? end : 0);
        text += digits;
    }
    if (strlen(text) == 6 && strchr("+-", *text))
        strbuf_addf(&shown, " %.3s%.2s %.3s%.2s", text, text + 4, text, text + 4);
    else
        strbuf_add_str(&shown, " +0000 UTC");
    if (verb->letter == 'q') {
        CLEANUP_FREE char *plain_text = strbuf_take(&shown);
        add_go_quoted(&shown, plain_text, strlen(plain_text));
    }
    add_padded_text(verb, &shown, out);
}

/* --- What has parts ----------------------------------------------------------------------------
 */

static void add_slice(const struct evaluation *evaluation, const struct verb *verb,
                      const struct value *value, unsigned depth, struct strbuf *out)
{
    if (verb->sharp_v && !value->json) {
        strbuf_addf(out, "%s(nil)", value->type->name);
        return;
    }
    strbuf_addf(out, "%s%c", verb->sharp_v ? value->type->name : "", verb->sharp_v ? '{' : '[');
    for (size_t i = 0; i < json_array_size(value->json) && !is_too_long(out); i++) {
        const struct value element = value_at(evaluation, value, i);
        strbuf_add_str(out, i == 0 ? "" : verb->sharp_v ? ", " : " ");
        add_value(evaluation, verb, &element, depth + 1, out);
    }
    strbuf_add_char(out, verb->sharp_v ? '}' : ']');
}

static void add_map(const struct evaluation *evaluation, const struct verb *verb,
                    const struct value *value, unsigned depth, struct strbuf *out)
{
    CLEANUP_FREE const char **keys = value_keys(value);

    if (verb->sharp_v && !value->json) {
        strbuf_addf(out, "%s(nil)", value->type->name);
        return;
    }
    strbuf_addf(out, "%s%c", verb->sharp_v ? value->type->name : "map", verb->sharp_v ? '{' : '[');
    for (const char **key = keys; *key && !is_too_long(out); key++) {
        json_t *name = json_string_nocheck(*key);
        const struct value shown = {.type = &template_string, .json = name, .foreign = true};
        struct value member =
            value_of(evaluation, &template_any, json_object_get(value->json, *key));
        if (value->type->element)
            member = value_member(evaluation, value, *key, strlen(*key));
        strbuf_add_str(out, key == keys ? "" : verb->sharp_v ? ", " : " ");
        add_value(evaluation, verb, &shown, depth + 1, out);
        strbuf_add_char(out, ':');
        add_value(evaluation, verb, &member, depth + 1, out);
        json_decref(name);
    }
    strbuf_add_char(out, verb->sharp_v ? '}' : ']');
}

static void add_struct(const struct evaluation *evaluation, const struct verb *verb,
                       const struct value *value, unsigned depth, struct strbuf *out)
{
    const bool pointer = value->type->kind == TYPE_POINTER;
    const struct template_type *type = pointer ? value->type->element : value->type;
    struct value member;

    strbuf_addf(out, "%s%s{", pointer ? "&" : "", verb->sharp_v ? type->name : "");
    for (const struct template_field *field = type->fields; field->name; field++) {
        strbuf_add_str(out, field == type->fields ? "" : verb->sharp_v ? ", " : " ");
        if (verb->plus_v || verb->sharp_v)
            strbuf_addf(out, "%s:", field->name);
        value_field(evaluation, value, field->name, &member);
        add_value(evaluation, verb, &member, depth + 1, out);
    }
    strbuf_add_char(out, '}');
}

static void add_nil(const struct evaluation *evaluation, const struct verb *verb,
                    const struct value *value, unsigned depth, struct strbuf *out)
{
    const bool pointer = value->type && value->type->kind == TYPE_POINTER;

    if (pointer && is_one_of(verb->letter, "bodxX"))
        add_integer(verb, 0, 10, out); /* its address */
    else if (verb->letter != 'v' && (pointer || depth == 0))
        add_bad_verb(evaluation, verb, value, out);
    else if (verb->sharp_v && pointer)
        strbuf_addf(out, "(%s)(nil)", value->type->name);
    else if (pointer || depth == 0)
        add_padded(verb, "<nil>", 5, out);
    else
        strbuf_add_str(out, verb->sharp_v ? "interface {}(nil)" : "<nil>");
}

static void add_value(const struct evaluation *evaluation, const struct verb *verb,
                      const struct value *value, unsigned depth, struct strbuf *out)
{
    const bool nil = value_is_nil(value);

    if (verb->letter == 'T' || nil) {
        const bool typed = value->type && value->type->kind != TYPE_ANY;
        const char *name = typed ? value->type->name : "<nil>";
        if (verb->letter == 'T')
            add_padded(verb, name, strlen(name), out);
        else
            add_nil(evaluation, verb, value, depth, out);
        return;
    }
    switch (value->type->kind) {
    case TYPE_BOOL:
        if (is_one_of(verb->letter, "vt"))
            add_padded(verb, json_is_true(value->json) ? "true" : "false",
                       json_is_true(value->json) ? 4 : 5, out);
        else
            add_bad_verb(evaluation, verb, value, out);
        break;
    case TYPE_INT:
        add_int(evaluation, verb, value, out);
        break;
    case TYPE_FLOAT:
        add_float(evaluation, verb, value, out);
        break;
    case TYPE_STRING:
    case TYPE_NUMBER:
        add_text(evaluation, verb, value, out);
        break;
    case TYPE_TIME:
        add_time(verb, value, out);
        break;
    case TYPE_SLICE:
        add_slice(evaluation, verb, value, depth, out);
        break;
    case TYPE_MAP:
    case TYPE_ROW:
        add_map(evaluation, verb, value, depth, out);
        break;
    default:
        add_struct(evaluation, verb, value, depth, out);
    }
}

void value_print(const struct evaluation *evaluation, const struct value *value, struct strbuf *out)
{
    add_value(evaluation, &plain, value, 0, out);
}

void value_print_pointed(const struct evaluation *evaluation, const struct value *value,
                         struct strbuf *out)
{
    struct value pointed = *value;

    if (pointed.json && pointed.type->kind == TYPE_POINTER)
        pointed.type = pointed.type->element;
    value_print(evaluation, &pointed, out);
}

/* --- Sprintf -----------------------------------------------------------------------------------
 */

struct printer {
    const struct evaluation *evaluation;
    const char *next, *end;
    const struct value *arguments;
    size_t count, argument;
    bool reordered, good_index, after_index;
    struct strbuf *out;
};

static bool read_number(struct printer *printer, int *ret)
{
    const char *start = printer->next;
    int64_t number = 0;

    for (; printer->next < printer->end && *printer->next >= '0' && *printer->next <= '9';
         printer->next++)
        number = MIN(number * 10 + (*printer->next - '0'), (int64_t)WIDTH_MAX + 1);
    *ret = number > WIDTH_MAX ? -1 : (int)number;
    return printer->next > start;
}

/* "[2]" */
static void read_index(struct printer *printer)
{
    const char *close;
    int index;

    if (printer->next == printer->end || *printer->next != '[')
        return;
    printer->reordered = true;
    close = memchr(printer->next, ']', (size_t)(printer->end - printer->next));
    printer->next++;
    printer->good_index &= close && read_number(printer, &index) && printer->next == close &&
                           index >= 1 && (size_t)index <= printer->count;
    if (printer->good_index)
        printer->argument = (size_t)index - 1;
    printer->next = close ? close + 1 : printer->next;
    printer->after_index = true;
}

/* A "*" for a width or precision. */
static bool take_star(struct printer *printer, const char *bad, int *ret)
{
    const struct value *value = &printer->arguments[printer->argument];

    if (printer->next == printer->end || *printer->next != '*')
        return false;
    printer->next++;
    *ret = -1;
    if (printer->argument < printer->count && value->type && value->type->kind == TYPE_INT &&
        llabs(value_integer(value)) <= WIDTH_MAX)
        *ret = (int)value_integer(value);
    else
        strbuf_add_str(printer->out, bad);
    printer->argument += printer->argument < printer->count;
    printer->after_index = false;
    return true;
}

static void read_flags(struct printer *printer, struct verb *verb)
{
    for (; printer->next < printer->end; printer->next++) {
        switch (*printer->next) {
        case '#':
            verb->sharp = true;
            break;
        case '0':
            verb->zero = true;
            break;
        case '+':
            verb->plus = true;
            break;
        case '-':
            verb->minus = true;
            break;
        case ' ':
            verb->space = true;
            break;
        default:
            return;
        }
    }
}

static void read_size(struct printer *printer, struct verb *verb)
{
    read_index(printer);
    if (take_star(printer, "%!(BADWIDTH)", &verb->width)) {
        if (verb->width < -1) {
            verb->width = -verb->width;
            verb->minus = true;
        }
    } else {
        if (!read_number(printer, &verb->width))
            verb->width = -1;
        else if (printer->after_index)
            printer->good_index = false;
    }
    if (printer->next < printer->end && *printer->next == '.') {
        printer->next++;
        if (printer->after_index)
            printer->good_index = false;
        read_index(printer);
        if (take_star(printer, "%!(BADPREC)", &verb->precision)) {
            if (verb->precision < -1)
                strbuf_add_str(printer->out, "%!(BADPREC)");
            verb->precision = MAX(verb->precision, -1);
        } else {
            read_number(printer, &verb->precision);
        }
    }
    if (!printer->after_index)
        read_index(printer);
}

static void add_problem(struct printer *printer, uint32_t letter, const char *problem)
{
    strbuf_add_str(printer->out, "%!");
    unicode_add(printer->out, letter);
    strbuf_add_str(printer->out, problem);
}

/* What follows a "%". */
static void add_verb(struct printer *printer)
{
    struct verb verb = {.width = -1, .precision = -1};

    printer->good_index = true;
    printer->after_index = false;
    read_flags(printer, &verb);
    read_size(printer, &verb);
    verb.zero &= !verb.minus;
    if (printer->next == printer->end) {
        strbuf_add_str(printer->out, "%!(NOVERB)");
        return;
    }
    printer->next +=
        unicode_read(printer->next, (size_t)(printer->end - printer->next), &verb.letter);
    if (verb.letter == '%') {
        strbuf_add_char(printer->out, '%');
    } else if (!printer->good_index) {
        add_problem(printer, verb.letter, "(BADINDEX)");
    } else if (printer->argument >= printer->count) {
        add_problem(printer, verb.letter, "(MISSING)");
    } else {
        if (verb.letter == 'v') {
            verb.sharp_v = verb.sharp;
            verb.plus_v = verb.plus;
            verb.sharp = verb.plus = false;
        }
        add_value(printer->evaluation, &verb, &printer->arguments[printer->argument++], 0,
                  printer->out);
    }
}

static void add_extra(struct printer *printer)
{
    strbuf_add_str(printer->out, "%!(EXTRA ");
    for (size_t i = printer->argument; i < printer->count && !is_too_long(printer->out); i++) {
        const struct value *value = &printer->arguments[i];
        strbuf_add_str(printer->out, i == printer->argument ? "" : ", ");
        if (!value_is_nil(value) || value->type->kind == TYPE_POINTER)
            strbuf_addf(printer->out, "%s=", value->type->name);
        add_value(printer->evaluation, &plain, value, 0, printer->out);
    }
    strbuf_add_char(printer->out, ')');
}

void value_printf(const struct evaluation *evaluation, const char *format, size_t length,
                  const struct value *arguments, size_t count, struct strbuf *out)
{
    struct printer printer = {
        .evaluation = evaluation,
        .next = format,
        .end = format + length,
        .arguments = arguments,
        .count = count,
        .out = out,
    };

    while (printer.next < printer.end && !is_too_long(out)) {
        const char *percent = memchr(printer.next, '%', (size_t)(printer.end - printer.next));
        const char *end = percent ? percent : printer.end;
        strbuf_add(out, printer.next, (size_t)(end - printer.next));
        printer.next = end;
        if (percent) {
            printer.next++;
            add_verb(&printer);
        }
    }
    if (!printer.reordered && printer.argument < count)
        add_extra(&printer);
}
