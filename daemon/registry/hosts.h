/* What a host name or URL is to us: an origin to give credentials to, and how far it is trusted.
 * No I/O. */
#pragma once

#include "proto/base/error.h"

/* Credentials belong to (scheme, host, port): RFC 6454. */
struct origin {
    char *scheme, *host; /* in lower case; an IPv6 address in brackets */
    unsigned int port;
    char *name; /* "host" or "host:port", as the URL has it */
};
void origin_done(struct origin *origin);
#define CLEANUP_ORIGIN CLEANUP(origin_done)

/* INVALID_ARGUMENT, reason INVALID_URL, unless it is http or https, without user and password. */
bool origin_parse(const char *url, struct origin *ret, struct error *err);
bool origin_eq(const struct origin *a, const struct origin *b);

/* A redirect's target, resolved against where it was met (RFC 3986, 5.2); the caller frees it. */
char *url_resolve(const char *base, const char *location, struct error *err);

enum host_trust {
    HOST_SECURE,   /* TLS with a trusted certificate only */
    HOST_LOOPBACK, /* this machine: plain HTTP, too */
    HOST_INSECURE, /* as configured: any certificate, plain HTTP, too */
};

/* name is "host" or "host:port" as in references; insecure lists such names and networks in CIDR
 * notation, which match addresses only: names are not looked up. */
enum host_trust host_trust(char *const *insecure, const char *name);

/* For configuration: INVALID_ARGUMENT for an entry that could never match. */
bool insecure_entry_check(const char *entry, struct error *err);
