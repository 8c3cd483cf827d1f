/* Programs that keep credentials, docker-credential-NAME, by their protocol: a verb, one document
 * on their input, an answer or a complaint on their output
 * (github.com/docker/docker-credential-helpers). Secrets go through pipes only. All of this
 * suspends; cancel ends the program. */
#pragma once

#include "client/credentials.h"

/* Nothing found is no error: ret is empty then. FAILED_PRECONDITION, reason CREDENTIALS, for one
 * that does not work. No error quotes an answer, which has secrets in it. */
bool await_helper_get(const char *name, const char *server, struct credentials *ret,
                      struct error *err);
bool await_helper_store(const char *name, const char *server, const struct credentials *credentials,
                        struct error *err);
bool await_helper_erase(const char *name, const char *server, struct error *err);
