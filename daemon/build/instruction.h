/* Instructions of Dockerfiles, without I/O: https://docs.docker.com/reference/dockerfile/, and for
 * what that leaves open Docker's parser (moby/buildkit, frontend/dockerfile).
 *
 * Nouns: an *instruction*; its *flags* ("--interval=5s") and *arguments*. Begin with
 * instruction_next(). */
#pragma once

#include "proto/base/error.h"

#define DOCKERFILE_MAX_BYTES (1 * MIB)

enum instruction_kind {
    INSTRUCTION_CMD,
    INSTRUCTION_ENTRYPOINT,
    INSTRUCTION_ENV,
    INSTRUCTION_EXPOSE,
    INSTRUCTION_HEALTHCHECK,
    INSTRUCTION_LABEL,
    INSTRUCTION_ONBUILD,
    INSTRUCTION_STOPSIGNAL,
    INSTRUCTION_USER,
    INSTRUCTION_VOLUME,
    INSTRUCTION_WORKDIR,
    INSTRUCTION_OTHER, /* without arguments: nobody here knows them */
};

struct instruction {
    enum instruction_kind kind;
    char *name;   /* as it is written */
    char **flags; /* with their dashes; NULL: none */
    char *text;   /* what follows, trimmed */
    /* CMD, ENTRYPOINT: the strings of the JSON form, else the text, if there is any
     * ENV, LABEL: name, value, name, value; not expanded, nor are those below
     * EXPOSE: ports; VOLUME: the strings of either form
     * HEALTHCHECK: its type in capitals, then as CMD
     * ONBUILD, STOPSIGNAL, USER, WORKDIR: the text */
    char **args; /* NULL: none */
    bool json;   /* it is of the JSON form */
};
void instruction_done(struct instruction *instruction);

/* Where the reading of a text is. Begin with {.rest = text}. */
struct instruction_reader {
    const char *rest;
    bool checked; /* the length of it */
};

/* The next instruction: 1; 0 at the end of the text; or -1: INVALID_ARGUMENT (INVALID_INSTRUCTION),
 * in Docker's words. */
int instruction_next(struct instruction_reader *reader, struct instruction *ret, struct error *err);
