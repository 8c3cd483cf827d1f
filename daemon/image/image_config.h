/* The configuration of an image as those see it who ask for it: not what davit acts on, but all
 * that Docker shows of it, in Docker's shape. What has a type that it cannot have is an error that
 * names it: FAILED_PRECONDITION (INVALID_CONFIG). Parsers without I/O. */
#pragma once

#include "proto/base/json.h"

/* "Config" of ImageInspect (Docker Engine API 1.51) from the member `config` of a configuration,
 * which may be NULL. The caller owns it. */
json_t *image_config_document(const json_t *config, struct error *err);

/* A text member: "" if there is none. Borrowed. */
bool image_config_text(const json_t *object, const char *path, const char *key, const char **ret,
                       struct error *err);

/* A date as Go writes those of RFC 3339: no zeros at the end of its fraction, "Z" for an offset of
 * none. NULL for what is no date. The caller frees it. */
char *image_date(const char *text);

/* Sets that error: "PATHKEY is a number, not a string". Returns false. */
bool image_config_mistyped(const char *path, const char *key, const json_t *value,
                           const char *wanted, struct error *err);
