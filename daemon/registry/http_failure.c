/* What went wrong with a request, in words for users. */
#include <errno.h>
#include <string.h>

#include "daemon/registry/http_internal.h"

static bool set_unavailable(struct error *err, const char *reason, const char *host_port,
                            const char *why)
{
    return error_set(err, ERROR_UNAVAILABLE, reason, "%s: %s", host_port, why);
}

static bool cannot_connect(const struct http_response *response, const char *why, struct error *err)
{
    return error_set(err, ERROR_UNAVAILABLE, "CONNECTION_REFUSED", "cannot connect to %s: %s",
                     response->host_port, why);
}

static bool not_connected(const struct http_response *response, struct error *err)
{
    long os_errno = 0;

    switch (response->result) {
    case CURLE_COULDNT_RESOLVE_HOST:
        cannot_connect(response, "no such host is known", err);
        return error_hint(err, "check the registry's name, and this machine's name servers "
                               "(/etc/resolv.conf)");
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_PROXY:
        /* libcurl's text may show the proxy's password. */
        cannot_connect(response, "the proxy cannot be used", err);
        return error_hint(err, "check HTTPS_PROXY, HTTP_PROXY and NO_PROXY in the environment of "
                               "davitd");
    case CURLE_OPERATION_TIMEDOUT:
        cannot_connect(response,
                       strstr(response->error_text, "Resolving") ? "looking up its name timed out"
                                                                 : "it does not answer (timeout)",
                       err);
        return error_hint(err, "check the network, a firewall, and whether a proxy is needed "
                               "(HTTPS_PROXY)");
    default:
        curl_easy_getinfo(response->easy, CURLINFO_OS_ERRNO, &os_errno);
        cannot_connect(response,
                       os_errno ? strerror((int)os_errno) : "no address of it takes connections",
                       err);
        return error_hint(err, "is the registry running, and is the port right?");
    }
}

static bool tls_failed(const struct http_response *response, struct error *err)
{
    const char *text = response->error_text;

    if (strstr(text, "wrong version number") || strstr(text, "packet length too long") ||
        strstr(text, "http request") || strstr(text, "unknown protocol"))
        return set_unavailable(err, "NOT_TLS", response->host_port,
                               "server gave HTTP response to HTTPS client");
    if (strstr(text, strerror(ECONNRESET)) || strstr(text, strerror(EPIPE)))
        return set_unavailable(err, "CONNECTION_LOST", response->host_port,
                               "the connection broke during the TLS handshake");
    return set_unavailable(err,
                           response->result == CURLE_PEER_FAILED_VERIFICATION ? "UNTRUSTED"
                                                                              : "TLS_FAILED",
                           response->host_port, *text ? text : "the TLS handshake failed");
}

static bool lost(const struct http_response *response, struct error *err)
{
    const char *why = response->error_text;
    long os_errno = 0;

    /* With TLS 1.3 the server looks at our certificate after the handshake. Errors of OpenSSL's own
     * begin like this; one of them only tells that the connection was cut. */
    if (strstr(response->error_text, "error:0A") && !strstr(response->error_text, "unexpected eof"))
        return tls_failed(response, err);
    if (response->result == CURLE_PARTIAL_FILE)
        return set_unavailable(err, "TRUNCATED", response->host_port,
                               "the connection was closed before the end");
    if (response->result == CURLE_GOT_NOTHING)
        return set_unavailable(err, "CONNECTION_LOST", response->host_port,
                               "the connection was closed without an answer");
    if (strstr(response->error_text, "CONNECT")) {
        cannot_connect(response, response->error_text, err);
        return error_hint(err, "the proxy refuses; check HTTPS_PROXY in the environment of davitd");
    }
    curl_easy_getinfo(response->easy, CURLINFO_OS_ERRNO, &os_errno);
    if (os_errno)
        why = strerror((int)os_errno);
    else if (str_starts(why, "select/poll")) /* what libcurl knows of a reset between two reads */
        why = "the other side reset it";
    return error_set(err, ERROR_UNAVAILABLE, "CONNECTION_LOST", "%s: the connection broke: %s",
                     response->host_port, why);
}

bool http_failed(const struct http_response *response, struct error *err)
{
    if (response->refusal)
        return error_set(err, ERROR_FAILED_PRECONDITION, "REGISTRY_PROTOCOL", "%s: %s",
                         response->host_port, response->refusal);
    switch (response->result) {
    case CURLE_OK: /* so libcurl says where it was cut off inside the headers */
        return set_unavailable(err, "CONNECTION_LOST", response->host_port,
                               "the connection was closed in the middle of the answer's headers");
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_CONNECT:
    case CURLE_PROXY:
    case CURLE_OPERATION_TIMEDOUT: /* only connecting has libcurl's timeout */
        return not_connected(response, err);
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_INVALIDCERTSTATUS:
        return tls_failed(response, err);
    case CURLE_PARTIAL_FILE:
    case CURLE_GOT_NOTHING:
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
        return lost(response, err);
    case CURLE_UNSUPPORTED_PROTOCOL: /* "HTTP/0.9": perhaps what an earlier answer left behind */
        return set_unavailable(err, "CONNECTION_LOST", response->host_port,
                               "what came is no answer in HTTP");
    default:
        return error_set(err, ERROR_FAILED_PRECONDITION, "REGISTRY_PROTOCOL", "%s: %s",
                         response->host_port,
                         *response->error_text ? response->error_text
                                               : curl_easy_strerror(response->result));
    }
}

bool http_stalled(const struct http_response *response, const char *what, uint64_t timeout_ms,
                  struct error *err)
{
    error_set(err, ERROR_UNAVAILABLE, "STALLED", "%s: stalled: nothing %s for %llu s",
              response->host_port, what, (unsigned long long)(timeout_ms + 999) / 1000);
    return error_hint(err, "check the network to the registry, and try again");
}

bool http_too_slow(const struct http_response *response, struct error *err)
{
    error_set(err, ERROR_UNAVAILABLE, "TOO_SLOW", "%s: too slow: %llu bytes in %llu s",
              response->host_port, (unsigned long long)response->waited_bytes,
              (unsigned long long)(response->waited_ms + 500) / 1000);
    return error_hint(err, "check the network to the registry, and try again");
}
