/* Image references as Docker's users write them (distribution/reference grammar). A parser
 * without I/O. */
#pragma once

#include "proto/base/digest.h"

#define REFERENCE_DEFAULT_DOMAIN "docker.io"
#define REFERENCE_DEFAULT_TAG "latest"

struct reference {
    char *domain;         /* "docker.io", "localhost:5000" */
    char *path;           /* "library/ubuntu" */
    char *tag;            /* NULL if only a digest was given; "latest" if neither */
    struct digest digest; /* unset unless given; wins over the tag, as in Docker */
    bool default_tag;     /* neither tag nor digest was given */
};

void reference_done(struct reference *reference);
#define CLEANUP_REFERENCE CLEANUP(reference_done)

/* Parses and normalises: "ubuntu" is docker.io/library/ubuntu:latest. INVALID_ARGUMENT with reason
 * INVALID_REFERENCE and Docker's wording otherwise ("invalid reference format", "... repository
 * name (library/Ubuntu) must be lowercase"). */
bool reference_parse(const char *text, struct reference *ret, struct error *err);

/* Texts; the caller frees them. */
char *reference_familiar(const struct reference *reference); /* "ubuntu:latest", "ubuntu@..." */
char *reference_familiar_name(const struct reference *reference); /* "ubuntu" */
char *
reference_canonical(const struct reference *reference);  /* "docker.io/library/ubuntu:latest" */
char *reference_name(const struct reference *reference); /* "docker.io/library/ubuntu" */
