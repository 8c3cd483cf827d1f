/* The user's credentials for a registry, from where Docker keeps them: config.json in
 * $DOCKER_CONFIG or ~/.docker, with its "auths", "credHelpers" and "credsStore". Begin with
 * registry_domain() and await_credentials_find(). */
#pragma once

#include "proto/base/error.h"

/* All NULL if there are none; either username and password, or an identity token. */
struct credentials {
    char *username, *password, *identity_token;
};

/* Empties it, and wipes the secrets. */
void credentials_done(struct credentials *credentials);
#define CLEANUP_CREDENTIALS CLEANUP(credentials_done)

/* The registry that an image reference names, as Docker tells it from a user's name:
 * "localhost:5000/a" is on "localhost:5000", "a/b" on "docker.io". The caller's. NULL for what
 * cannot be a registry: the daemon refuses such a reference, and says why. */
char *registry_domain(const char *reference);

/* The registry that the user names for a login: "https://host:5000/v1/" is "host:5000", NULL or
 * "index.docker.io" is "docker.io". The caller's; NULL with err if it can be none. */
char *registry_of_argument(const char *argument, struct error *err);

/* Looks for the credentials of a registry, named as in references: "docker.io",
 * "localhost:5000". Runs docker-credential-NAME where the file says so: suspends. No file and no
 * entry are no error: ret is empty then. INVALID_ARGUMENT for a file that makes no sense,
 * FAILED_PRECONDITION for a helper that does not work, both with reason CREDENTIALS: a public image
 * can be pulled nonetheless, so callers may warn and go on without. No error quotes the file or a
 * helper's answer, which have secrets in them. Cancel ends the helper. The caller releases ret. */
bool await_credentials_find(const char *registry_domain, struct credentials *ret,
                            struct error *err);

/* The name under which Docker keeps a registry's credentials: itself, or Docker Hub's old URL. */
const char *credentials_key(const char *registry_domain);

/* Keeps credentials (a user's name and a password, or an identity token in place of that) where the
 * file says: with a helper, or in the file. *ret_unencrypted is the file's name, the caller's, if a
 * password was put into it just now, else NULL. Suspends. Errors as of await_credentials_find(),
 * and those of writing the file. */
bool await_credentials_store(const char *registry_domain, const struct credentials *credentials,
                             char **ret_unencrypted, struct error *err);

/* Removes them from both. None there is no error. */
bool await_credentials_erase(const char *registry_domain, struct error *err);
