#include "client/prompt.h"

#include <errno.h>
#include <termios.h>

#include "client/secrets.h"

/* What was typed is read line by line: the terminal's driver edits it. */
static bool await_line(struct strbuf *ret, struct error *err)
{
    struct stream *input = stream_new(STDIN_FILENO);
    ssize_t n;

    strbuf_reserve(ret, PROMPT_MAX_BYTES);
    do {
        n = await_read(input, ret->data + ret->length, PROMPT_MAX_BYTES - ret->length);
        if (n > 0)
            ret->length += (size_t)n;
    } while (n > 0 && !memchr(ret->data, '\n', ret->length) && ret->length < PROMPT_MAX_BYTES);
    ret->data[ret->length] = '\0';
    stream_release(input);
    if (n < 0)
        return await_error(err, (int)n, "reading standard input");
    return true;
}

struct echo {
    bool off;
    struct termios before;
};

static void echo_restore(struct echo *echo)
{
    if (echo->off)
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &echo->before);
}

static bool echo_off(struct echo *echo, struct error *err)
{
    struct termios without;

    if (tcgetattr(STDIN_FILENO, &echo->before) < 0)
        return error_set_errno(err, errno, "standard input");
    without = echo->before;
    without.c_lflag &= ~(tcflag_t)ECHO;
    if (tcsetattr(STDIN_FILENO, TCSAFLUSH, &without) < 0)
        return error_set_errno(err, errno, "standard input");
    echo->off = true;
    return true;
}

static char *trimmed(struct strbuf *line)
{
    const char *start = line->data + strspn(line->data, " \t\r\n");
    size_t length = strlen(start);

    while (length > 0 && strchr(" \t\r\n", start[length - 1]))
        length--;
    return xstrndup(start, length);
}

char *await_prompt(struct cli *cli, const char *question, bool hidden, struct error *err)
{
    CLEANUP_SECRET_STRBUF struct strbuf line = {0};
    CLEANUP(echo_restore) struct echo echo = {0};

    if ((hidden && !echo_off(&echo, err)) || !await_cli_print(cli, question, strlen(question), err))
        return NULL;
    if (!await_line(&line, err)) {
        (void)!write(STDOUT_FILENO, "\n", 1); /* interrupted: the shell begins on its own line */
        return NULL;
    }
    /* The newline that was typed did not show, or there was none. */
    if ((hidden || !memchr(line.data, '\n', line.length)) && !await_cli_print(cli, "\n", 1, err))
        return NULL;
    return trimmed(&line);
}

char *await_standard_input(struct error *err)
{
    CLEANUP_SECRET_STRBUF struct strbuf text = {0};
    struct stream *input = stream_new(STDIN_FILENO);
    ssize_t n;

    strbuf_reserve(&text, PROMPT_MAX_BYTES + 1);
    do {
        n = await_read(input, text.data + text.length, PROMPT_MAX_BYTES + 1 - text.length);
        if (n > 0)
            text.length += (size_t)n;
    } while (n > 0 && text.length <= PROMPT_MAX_BYTES);
    stream_release(input);
    if (n < 0) {
        await_error(err, (int)n, "reading standard input");
        return NULL;
    }
    if (text.length > PROMPT_MAX_BYTES || memchr(text.data, '\0', text.length)) {
        error_set(err, ERROR_INVALID_ARGUMENT, NULL,
                  "standard input is no password: it is longer than %llu bytes, or has zero bytes",
                  PROMPT_MAX_BYTES);
        return NULL;
    }
    if (text.length && text.data[text.length - 1] == '\n')
        text.length--;
    if (text.length && text.data[text.length - 1] == '\r')
        text.length--;
    return xstrndup(text.data, text.length);
}
