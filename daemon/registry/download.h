/* Files from web servers that are no registries: the same connections, certificates, rules for
 * redirects and retries. */
#pragma once

#include "daemon/registry/http.h"
#include "daemon/registry/registry.h"

/* INVALID_ARGUMENT (INVALID_URL) for one that is not http or https, or has a password in it. */
bool download_url_check(const char *url, struct error *err);

/* GETs an http or https URL, through redirects, and returns the response once it is 200: its body
 * is to be read. The caller frees it. FAILED_PRECONDITION
 * (DOWNLOAD_FAILED) for other answers; else errors of await_http_open(). Suspends. */
struct http_response *await_download(struct registry_client *client, const char *url,
                                     struct error *err);

/* How long the body is; 0: not known. */
uint64_t download_bytes(const struct http_response *response);
