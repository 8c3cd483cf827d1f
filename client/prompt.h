/* Asking the user on the terminal that is standard input. Suspends. */
#pragma once

#include "client/cli.h"

#define PROMPT_MAX_BYTES (16 * KIB)

/* Prints the question on standard output and reads a line, without its end; blanks around it go.
 * hidden: what is typed is not shown; the terminal is put right again whatever happens. NULL with
 * err: CANCELLED, or the terminal has gone. The caller wipes and frees it. */
char *await_prompt(struct cli *cli, const char *question, bool hidden, struct error *err);

/* All of standard input, without one newline at its end: for --password-stdin. */
char *await_standard_input(struct error *err);
