#include "daemon/registry/hosts.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <curl/curl.h>
#include <strings.h>

/* --- Origins ---------------------------------------------------------------------------------- */

void origin_done(struct origin *origin)
{
    free(origin->scheme);
    free(origin->host);
    free(origin->name);
    *origin = (struct origin){0};
}

bool origin_eq(const struct origin *a, const struct origin *b)
{
    return str_eq(a->scheme, b->scheme) && str_eq(a->host, b->host) && a->port == b->port;
}

static bool invalid_url(struct error *err, const char *why)
{
    return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_URL", "invalid URL: %s", why);
}

static char *lower_part(CURLU *url, CURLUPart part, unsigned int flags)
{
    char *text = NULL, *copy;

    if (curl_url_get(url, part, &text, flags) != CURLUE_OK)
        return NULL;
    copy = xstrdup(text);
    curl_free(text);
    for (char *c = copy; *c; c++)
        *c = (char)tolower((unsigned char)*c);
    return copy;
}

static bool origin_of(CURLU *url, struct origin *ret, struct error *err)
{
    CLEANUP_ORIGIN struct origin origin = {
        .scheme = lower_part(url, CURLUPART_SCHEME, 0),
        .host = lower_part(url, CURLUPART_HOST, 0),
    };
    CLEANUP_FREE char *port = lower_part(url, CURLUPART_PORT, CURLU_DEFAULT_PORT);
    CLEANUP_FREE char *user = lower_part(url, CURLUPART_USER, 0);
    CLEANUP_FREE char *password = lower_part(url, CURLUPART_PASSWORD, 0);
    CLEANUP_FREE char *given_port = lower_part(url, CURLUPART_PORT, 0);

    if (user || password)
        return invalid_url(err, "it has a user or password in it");
    if (!str_eq(origin.scheme, "http") && !str_eq(origin.scheme, "https"))
        return invalid_url(err, "its scheme is neither http nor https");
    if (str_empty(origin.host) || !port)
        return invalid_url(err, "it has no host");
    origin.port = (unsigned int)strtoul(port, NULL, 10);
    origin.name =
        xasprintf("%s%s%s", origin.host, given_port ? ":" : "", given_port ? given_port : "");
    *ret = origin;
    origin = (struct origin){0};
    return true;
}

bool origin_parse(const char *text, struct origin *ret, struct error *err)
{
    CURLU *url = curl_url();
    bool ok;

    CHECK(url);
    ok = curl_url_set(url, CURLUPART_URL, text, 0) == CURLUE_OK
             ? origin_of(url, ret, err)
             : invalid_url(err, "it cannot be understood");
    curl_url_cleanup(url);
    return ok;
}

char *url_resolve(const char *base, const char *location, struct error *err)
{
    CURLU *url = curl_url();
    char *text = NULL, *copy = NULL;

    CHECK(url);
    if (curl_url_set(url, CURLUPART_URL, base, 0) == CURLUE_OK &&
        curl_url_set(url, CURLUPART_URL, location, CURLU_URLENCODE) == CURLUE_OK &&
        curl_url_get(url, CURLUPART_URL, &text, 0) == CURLUE_OK)
        copy = xstrdup(text);
    else
        invalid_url(err, "a redirect that cannot be understood");
    curl_free(text);
    curl_url_cleanup(url);
    return copy;
}

/* --- Trust ------------------------------------------------------------------------------------ */

struct address {
    int family; /* 0: a name, no address */
    unsigned char bytes[16];
};

static struct address parse_address(const char *text)
{
    struct address address = {0};

    if (inet_pton(AF_INET, text, address.bytes) == 1)
        address.family = AF_INET;
    else if (inet_pton(AF_INET6, text, address.bytes) == 1)
        address.family = AF_INET6;
    return address;
}

/* The host of "host:port", an IPv6 address without its brackets. */
static char *host_of(const char *name)
{
    if (name[0] == '[')
        return xstrndup(name + 1, strcspn(name + 1, "]"));
    return xstrndup(name, strcspn(name, ":"));
}

/* "10.0.0.0/8". */
static bool parse_network(const char *entry, struct address *ret, unsigned int *ret_bits)
{
    const char *slash = strchr(entry, '/');
    CLEANUP_FREE char *text = slash ? xstrndup(entry, (size_t)(slash - entry)) : NULL;
    char *end;

    if (!slash || !isdigit((unsigned char)slash[1]))
        return false;
    *ret = parse_address(text);
    *ret_bits = (unsigned int)strtoul(slash + 1, &end, 10);
    return ret->family && !*end && *ret_bits <= (ret->family == AF_INET ? 32 : 128);
}

static bool in_network(const char *entry, const struct address *address)
{
    struct address network;
    unsigned int bits, whole;

    if (!parse_network(entry, &network, &bits) || network.family != address->family)
        return false;
    whole = bits / 8;
    if (memcmp(network.bytes, address->bytes, whole) != 0)
        return false;
    return bits % 8 == 0 || (network.bytes[whole] ^ address->bytes[whole]) >> (8 - bits % 8) == 0;
}

enum host_trust host_trust(char *const *insecure, const char *name)
{
    static const unsigned char loopback6[16] = {[15] = 1};
    CLEANUP_FREE char *host = host_of(name);
    struct address address = parse_address(host);

    for (; insecure && *insecure; insecure++) {
        if (strcasecmp(*insecure, name) == 0 || in_network(*insecure, &address))
            return HOST_INSECURE;
    }
    if (strcasecmp(host, "localhost") == 0 ||
        (address.family == AF_INET && address.bytes[0] == 127) ||
        (address.family == AF_INET6 && memcmp(address.bytes, loopback6, sizeof(loopback6)) == 0))
        return HOST_LOOPBACK;
    return HOST_SECURE;
}

bool insecure_entry_check(const char *entry, struct error *err)
{
    CLEANUP_ORIGIN struct origin origin = {0};
    CLEANUP_FREE char *url = xasprintf("https://%s", entry);
    struct address network;
    unsigned int bits;

    if (strchr(entry, '/') ? parse_network(entry, &network, &bits)
                           : origin_parse(url, &origin, NULL))
        return true;
    error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_CONFIG",
              "insecure registry \"%.200s\" is not valid", entry);
    return error_hint(err,
                      "write HOST, HOST:PORT or a network such as 10.0.0.0/8, without http://");
}
