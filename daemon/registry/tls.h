/* Certificates: the system's roots, and what lies for a host in a directory as Docker has it:
 * certs.d/HOST[:PORT]/ with *.crt, roots to add, and NAME.cert with NAME.key, ours. */
#pragma once

#include <openssl/x509.h>

#include "daemon/registry/hosts_file.h"
#include "daemon/registry/http.h"

struct tls_loader {
    char *certs_dir; /* NULL: none */
    X509_STORE
    *system_roots; /* NULL until first needed; shared by hosts without roots of their own */
};
void tls_loader_done(struct tls_loader *loader);

/* What a connection to one host needs. */
struct tls_files {
    X509_STORE *roots;                 /* NULL without verify */
    char *roots_name;                  /* of what access added; NULL: nothing */
    char *certificate_file, *key_file; /* NULL: none */
};
void tls_files_done(struct tls_files *files);
#define CLEANUP_TLS_FILES CLEANUP(tls_files_done)

/* Reads the host's directory and what access (may be NULL) names, on the thread pool: suspends.
 * FAILED_PRECONDITION, reason TLS_FAILED, for a file that cannot be used, which it names. The
 * caller releases ret. */
bool await_tls_load(struct tls_loader *loader, const char *host_name, bool verify,
                    const struct host_access *access, struct tls_files *ret, struct error *err);
