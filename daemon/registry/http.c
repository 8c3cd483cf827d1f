#include "daemon/registry/http.h"

#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <strings.h>
#include <sys/socket.h>

#include "daemon/registry/http_internal.h"
#include "proto/async/await.h"
#include "proto/async/loop.h"
#include "proto/base/log.h"

#define CONNECT_TIMEOUT_MS 30000
#define STALL_TIMEOUT_MS 60000
/* Slower than this on average over the stall timeout is too slow where a request does not say more:
 * a server that sends a byte now and then must not hold anybody for ever. */
#define LOW_SPEED_BYTES_PER_S 16
#define RECEIVE_BUFFER_BYTES (128 * KIB)
/* Connections are kept for a burst of requests, then all goes: an idle daemon holds none. */
#define IDLE_TIMEOUT_MS 15000
#define MAX_CONNECTIONS 100

/* A socket of libcurl's that is being watched. */
struct watch {
    uv_poll_t poll;
    struct http *http;
    curl_socket_t fd;
};

/* --- libcurl on the loop ---------------------------------------------------------------------- */

static void take_ended(struct http *http)
{
    CURLMsg *message;
    int left;

    while ((message = curl_multi_info_read(http->multi, &left))) {
        struct http_response *response;
        if (message->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &response);
        response->result = message->data.result;
        response->phase = RESPONSE_END;
        wake_all(&response->changed);
    }
}

static void act(struct http *http, curl_socket_t fd, int events)
{
    int running;

    curl_multi_socket_action(http->multi, fd, events, &running);
    take_ended(http);
}

static void on_socket_ready(uv_poll_t *poll, int status, int events)
{
    struct watch *watch = CONTAINER_OF(poll, struct watch, poll);
    int curl_events = status < 0 ? CURL_CSELECT_ERR : 0;

    if (events & UV_READABLE)
        curl_events |= CURL_CSELECT_IN;
    if (events & UV_WRITABLE)
        curl_events |= CURL_CSELECT_OUT;
    act(watch->http, watch->fd, curl_events); /* may end the watch */
}

static void on_watch_closed(uv_handle_t *handle)
{
    free(CONTAINER_OF(handle, struct watch, poll));
}

/* CURLMOPT_SOCKETFUNCTION: what to watch a socket for. */
static int watch_socket(CURL *easy UNUSED, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
    struct http *http = arg;
    struct watch *watch = socket_arg;

    if (what == CURL_POLL_REMOVE) {
        if (watch)
            uv_close((uv_handle_t *)&watch->poll, on_watch_closed);
        curl_multi_assign(http->multi, fd, NULL);
        return 0;
    }
    if (!watch) {
        watch = xcalloc(1, sizeof(*watch));
        watch->http = http;
        watch->fd = fd;
        if (uv_poll_init_socket(loop_uv(), &watch->poll, fd) < 0) {
            free(watch);
            return -1;
        }
        curl_multi_assign(http->multi, fd, watch);
    }
    uv_poll_start(&watch->poll,
                  (what & CURL_POLL_IN ? UV_READABLE : 0) |
                      (what & CURL_POLL_OUT ? UV_WRITABLE : 0),
                  on_socket_ready);
    return 0;
}

/* CURLOPT_OPENSOCKETFUNCTION and CURLOPT_CLOSESOCKETFUNCTION: to know the sockets there are. */
static curl_socket_t open_socket(void *arg, curlsocktype purpose UNUSED,
                                 struct curl_sockaddr *address)
{
    struct http *http = arg;
    int fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);

    if (fd < 0)
        return CURL_SOCKET_BAD;
    http->sockets = xrealloc(http->sockets, (http->socket_count + 1) * sizeof(*http->sockets));
    http->sockets[http->socket_count++] = fd;
    return fd;
}

static int close_socket(void *arg, curl_socket_t fd)
{
    struct http *http = arg;

    for (size_t i = 0; i < http->socket_count; i++) {
        if (http->sockets[i] == fd)
            http->sockets[i] = http->sockets[--http->socket_count];
    }
    return close(fd);
}

static void on_curl_timer(struct loop_timer *timer)
{
    act(CONTAINER_OF(timer, struct http, curl_timer), CURL_SOCKET_TIMEOUT, 0);
}

/* CURLMOPT_TIMERFUNCTION. Never acts from inside the call, even for 0. */
static int set_curl_timer(CURLM *multi UNUSED, long timeout_ms, void *arg)
{
    struct http *http = arg;

    if (timeout_ms < 0)
        loop_timer_stop(&http->curl_timer);
    else
        loop_timer_start(&http->curl_timer, (uint64_t)timeout_ms, on_curl_timer);
    return 0;
}

/* Initialises libcurl and OpenSSL, and warms up what the first handshake needs: milliseconds, so on
 * the thread pool. Safe to run twice at once. */
static void initialise(void *arg)
{
    bool *ret_ok = arg;

    *ret_ok = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
    SSL_CTX_free(SSL_CTX_new(TLS_client_method()));
}

static bool await_initialised(struct http *http, struct error *err)
{
    const curl_version_info_data *version;
    bool ok = false;
    int r;

    if (http->initialised)
        return true;
    if ((r = await_work(initialise, &ok, "initialising libcurl")) < 0)
        return await_error(err, r, "initialising libcurl");
    if (!ok)
        return error_set(err, ERROR_INTERNAL, NULL, "libcurl cannot be initialised");
    version = curl_version_info(CURLVERSION_NOW);
    if (!version->ssl_version || !str_starts(version->ssl_version, "OpenSSL"))
        return error_set(err, ERROR_INTERNAL, NULL,
                         "libcurl was built with %s, davit needs its OpenSSL flavour",
                         version->ssl_version ? version->ssl_version : "no TLS");
    http->initialised = true;
    return true;
}

static void set_up(struct http *http)
{
    loop_timer_stop(&http->idle_timer);
    if (http->multi)
        return;
    http->multi = curl_multi_init();
    CHECK(http->multi);
    curl_multi_setopt(http->multi, CURLMOPT_SOCKETFUNCTION, watch_socket);
    curl_multi_setopt(http->multi, CURLMOPT_SOCKETDATA, http);
    curl_multi_setopt(http->multi, CURLMOPT_TIMERFUNCTION, set_curl_timer);
    curl_multi_setopt(http->multi, CURLMOPT_TIMERDATA, http);
    curl_multi_setopt(http->multi, CURLMOPT_MAXCONNECTS, (long)MAX_CONNECTIONS);
    curl_multi_setopt(http->multi, CURLMOPT_PIPELINING, CURLPIPE_NOTHING);
}

static void tear_down(struct http *http)
{
    loop_timer_stop(&http->idle_timer);
    if (http->multi)
        curl_multi_cleanup(http->multi);
    http->multi = NULL;
    loop_timer_stop(&http->curl_timer);
}

static void on_idle(struct loop_timer *timer)
{
    tear_down(CONTAINER_OF(timer, struct http, idle_timer));
    /* What TLS took in small pieces goes back to the system: it is more than all else there is. */
    malloc_trim(0);
}

struct http *http_new(const struct http_options *options)
{
    struct http *http = xcalloc(1, sizeof(*http));

    http->user_agent = xstrdup(options->user_agent ? options->user_agent : "davit");
    http->connect_timeout_ms =
        options->connect_timeout_ms ? options->connect_timeout_ms : CONNECT_TIMEOUT_MS;
    http->stall_timeout_ms =
        options->stall_timeout_ms ? options->stall_timeout_ms : STALL_TIMEOUT_MS;
    return http;
}

struct http *http_free(struct http *http)
{
    if (!http)
        return NULL;
    CHECK(http->open_count == 0);
    tear_down(http);
    free(http->user_agent);
    free(http->sockets);
    free(http);
    return NULL;
}

/* --- What libcurl tells of a response --------------------------------------------------------- */

static void forget_headers(struct http_response *response)
{
    for (size_t i = 0; i < response->header_count; i++) {
        free(response->headers[i].name);
        free(response->headers[i].value);
    }
    free(response->headers);
    response->headers = NULL;
    response->header_count = 0;
}

static void add_header(struct http_response *response, const char *line, size_t length)
{
    const char *colon = memchr(line, ':', length), *value, *end = line + length;
    struct response_header *header;

    if (!colon || colon == line)
        return;
    for (value = colon + 1; value < end && (*value == ' ' || *value == '\t');)
        value++;
    while (end > value && strchr(" \t\r\n", end[-1]))
        end--;
    response->headers =
        xrealloc(response->headers, (response->header_count + 1) * sizeof(*response->headers));
    header = &response->headers[response->header_count++];
    header->name = xstrndup(line, (size_t)(colon - line));
    header->value = xstrndup(value, (size_t)(end - value));
}

/* CURLOPT_HEADERFUNCTION: one line per call; a new status line begins anew (after 1xx). */
static size_t on_header(char *line, size_t size, size_t count, void *arg)
{
    struct http_response *response = arg;
    size_t length = size * count;
    long status = 0;

    if (response->phase != RESPONSE_HEADERS)
        return length; /* trailers say nothing to us */
    response->header_bytes += length;
    if (response->header_bytes > HTTP_MAX_HEADER_BYTES) {
        response->refusal = "its headers are longer than 64 KiB";
        return 0;
    }
    if (length >= 5 && strncasecmp(line, "HTTP/", 5) == 0) {
        forget_headers(response);
        return length;
    }
    if (strspn(line, "\r\n") < length) {
        add_header(response, line, length);
        return length;
    }
    curl_easy_getinfo(response->easy, CURLINFO_RESPONSE_CODE, &status);
    if (status >= 200) {
        response->status = (int)status;
        response->phase = RESPONSE_BODY;
        wake_all(&response->changed);
    }
    return length;
}

/* CURLOPT_WRITEFUNCTION: bytes go to the reader that waits for them; without one, libcurl keeps
 * this piece and stops receiving. */
static size_t on_body(char *data, size_t size, size_t count, void *arg)
{
    struct http_response *response = arg;
    size_t length = size * count;
    size_t room = response->reader ? response->reader_size - response->reader_filled : 0;
    size_t taken = MIN(room, length);

    if (length == 0)
        return 0;
    if (room == 0) {
        response->paused = true;
        return CURL_WRITEFUNC_PAUSE;
    }
    memcpy(response->reader + response->reader_filled, data, taken);
    response->reader_filled += taken;
    strbuf_add(&response->leftover, data + taken, length - taken);
    wake_all(&response->changed);
    return length;
}

static CURLcode on_tls_context(CURL *easy UNUSED, void *context, void *arg)
{
    struct http_response *response = arg;

    if (response->roots)
        SSL_CTX_set1_cert_store(context, response->roots);
    return CURLE_OK;
}

/* --- Waiting ---------------------------------------------------------------------------------- */

/* 0, -ETIMEDOUT once timeout_ms has passed, or the task's own end. */
static int await_change_for(struct http_response *response, uint64_t timeout_ms, const char *reason)
{
    int r, own;

    {
        CLEANUP(deadline_pop) struct deadline deadline;
        deadline_push(&deadline, timeout_ms);
        r = await_wake(&response->changed, reason);
    }
    own = r < 0 ? task_check() : 0; /* without our deadline */
    return own ? own : r;
}

static const char *what_moves(const struct http_response *response)
{
    return http_is_sending(response) ? "was taken" : "came";
}

bool http_await_change(struct http_response *response, uint64_t timeout_ms, const char *reason,
                       struct error *err)
{
    int r = await_change_for(response, timeout_ms, reason);

    if (r == 0)
        return true;
    if (r == -ETIMEDOUT && task_check() == 0)
        return http_stalled(response, what_moves(response), timeout_ms, err);
    return await_error(err, r, "%s", response->host_port);
}

bool http_check_speed(struct http_response *response, uint64_t waited_ms, uint64_t bytes,
                      struct error *err)
{
    const struct http_flow *flow = &response->flow;
    uint64_t stall_ms = response->http->stall_timeout_ms;
    bool slow;

    response->quiet_ms = bytes ? 0 : response->quiet_ms + waited_ms;
    response->waited_ms += waited_ms;
    response->waited_bytes += bytes;
    slow = response->waited_ms >= flow->low_speed_ms &&
           response->waited_bytes * 1000 < flow->low_speed_bytes_per_s * response->waited_ms;
    if (response->quiet_ms >= stall_ms || (slow && response->quiet_ms >= flow->low_speed_ms))
        return http_stalled(response, what_moves(response), response->quiet_ms, err);
    if (slow)
        return http_too_slow(response, err);
    if (response->waited_ms >= flow->low_speed_ms)
        response->waited_ms = response->waited_bytes = 0;
    return true;
}

/* --- A request -------------------------------------------------------------------------------- */

static bool is_loopback_url(CURLU *url)
{
    char *host = NULL;
    bool loopback;

    if (curl_url_get(url, CURLUPART_HOST, &host, 0) != CURLUE_OK)
        return false;
    loopback = strcasecmp(host, "localhost") == 0 || str_starts(host, "127.") ||
               strcmp(host, "[::1]") == 0;
    curl_free(host);
    return loopback;
}

/* libcurl takes proxies from the environment as everybody does, but for two things in which Go,
 * and so Docker, differs: HTTP_PROXY counts in upper case, too, and loopback is never proxied. */
static void set_proxy(CURL *easy, CURLU *url, const char *scheme)
{
    const char *proxy = getenv("http_proxy");

    if (is_loopback_url(url)) {
        curl_easy_setopt(easy, CURLOPT_PROXY, "");
    } else if (strcmp(scheme, "http") == 0) {
        proxy = proxy ? proxy : getenv("HTTP_PROXY");
        if (!str_empty(proxy))
            curl_easy_setopt(easy, CURLOPT_PROXY, proxy);
    }
}

static void set_tls(struct http_response *response, const struct http_tls *tls)
{
    CURL *easy = response->easy;

    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, (long)tls->verify);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, tls->verify ? 2L : 0L);
    curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    /* The roots are ours, loaded outside of the loop and shared; libcurl's cache would give those
     * of one host to another. */
    curl_easy_setopt(easy, CURLOPT_CAINFO, NULL);
    /* Never read, for the roots replace it: libcurl compares it to find a connection. */
    curl_easy_setopt(easy, CURLOPT_CAPATH, tls->roots ? tls->roots_name : NULL);
    curl_easy_setopt(easy, CURLOPT_CA_CACHE_TIMEOUT, 0L);
    curl_easy_setopt(easy, CURLOPT_SSL_CTX_FUNCTION, on_tls_context);
    curl_easy_setopt(easy, CURLOPT_SSL_CTX_DATA, response);
    if (tls->roots) {
        X509_STORE_up_ref(tls->roots);
        response->roots = tls->roots;
    }
    if (tls->certificate_file) {
        curl_easy_setopt(easy, CURLOPT_SSLCERT, tls->certificate_file);
        curl_easy_setopt(easy, CURLOPT_SSLKEY, tls->key_file);
    }
}

static void set_options(struct http_response *response, const struct http_request *request)
{
    CURL *easy = response->easy;
    struct http *http = response->http;

    curl_easy_setopt(easy, CURLOPT_PRIVATE, response);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, response->error_text);
    curl_easy_setopt(easy, CURLOPT_URL, request->url);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(easy, CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, http->user_agent);
    curl_easy_setopt(easy, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, (long)RECEIVE_BUFFER_BYTES);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
                     (long)(request->connect_timeout_ms ? request->connect_timeout_ms
                                                        : http->connect_timeout_ms));
    /* Else a cancel would wait for a name lookup to end, and the loop with it. */
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, http);
    curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, close_socket);
    curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, http);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, response);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, response);
    for (const char *const *header = request->headers; header && *header; header++)
        response->headers_out = curl_slist_append(response->headers_out, *header);
    /* Servers that know nothing of 100 would cost a second for each body. */
    response->headers_out = curl_slist_append(response->headers_out, "Expect:");
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, response->headers_out);
    http_set_method(response, request);
    set_tls(response, &request->tls);
}

/* Takes the URL apart: for the name in errors, and for what depends on the host. */
static bool set_host(struct http_response *response, const struct http_request *request,
                     struct error *err)
{
    CURLU *url = curl_url();
    char *host = NULL, *port = NULL, *scheme = NULL;
    bool ok;

    CHECK(url);
    ok = curl_url_set(url, CURLUPART_URL, request->url, 0) == CURLUE_OK &&
         curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
         curl_url_get(url, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
         curl_url_get(url, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK;
    if (ok) {
        response->host_port = xasprintf("%s:%s", host, port);
        if (request->proxy) {
            curl_easy_setopt(response->easy, CURLOPT_PROXY, request->proxy);
            curl_easy_setopt(response->easy, CURLOPT_NOPROXY, "");
        } else {
            set_proxy(response->easy, url, scheme);
        }
    } else {
        error_set(err, ERROR_INVALID_ARGUMENT, "REGISTRY_PROTOCOL", "invalid URL");
    }
    curl_free(scheme);
    curl_free(host);
    curl_free(port);
    curl_url_cleanup(url);
    return ok;
}

struct http_response *http_response_free(struct http_response *response)
{
    struct http *http;

    if (!response)
        return NULL;
    http = response->http;
    if (response->easy) {
        curl_multi_remove_handle(http->multi, response->easy);
        curl_easy_cleanup(response->easy);
    }
    curl_slist_free_all(response->headers_out);
    X509_STORE_free(response->roots);
    forget_headers(response);
    strbuf_done(&response->leftover);
    free(response->piece);
    free(response->host_port);
    free(response);
    http->open_count--;
    if (http->open_count == 0 && http->multi)
        loop_timer_start(&http->idle_timer, IDLE_TIMEOUT_MS, on_idle);
    return NULL;
}

struct http_response *await_http_open(struct http *http, const struct http_request *request,
                                      struct error *err)
{
    CLEANUP(http_response_cleanup) struct http_response *response = NULL;
    CURLMcode code;

    if (!await_initialised(http, err))
        return NULL;
    set_up(http);
    response = xcalloc(1, sizeof(*response));
    response->http = http;
    response->flow = request->flow;
    if (!response->flow.low_speed_ms)
        response->flow = (struct http_flow){LOW_SPEED_BYTES_PER_S, http->stall_timeout_ms};
    http->open_count++;
    wait_queue_init(&response->changed);
    response->easy = curl_easy_init();
    CHECK(response->easy);
    if (!set_host(response, request, err))
        return NULL;
    set_options(response, request);
    code = curl_multi_add_handle(http->multi, response->easy);
    if (code != CURLM_OK) {
        error_set(err, ERROR_INTERNAL, NULL, "libcurl: %s", curl_multi_strerror(code));
        return NULL;
    }
    if (!http_await_headers(response, request->answer_grace_ms, err))
        return NULL;
    if (response->status == 0) {
        http_failed(response, err);
        return NULL;
    }
    return TAKE(response);
}

int http_status(const struct http_response *response)
{
    return response->status;
}

const char *http_header(const struct http_response *response, const char *name, size_t index)
{
    for (size_t i = 0; i < response->header_count; i++) {
        if (strcasecmp(response->headers[i].name, name) == 0 && index-- == 0)
            return response->headers[i].value;
    }
    return NULL;
}

static unsigned int port_of(int fd)
{
    struct sockaddr_storage address = {0};
    socklen_t size = sizeof(address);

    if (getsockname(fd, (struct sockaddr *)&address, &size) < 0)
        return 0;
    if (address.ss_family == AF_INET6)
        return ntohs(((struct sockaddr_in6 *)&address)->sin6_port);
    return ntohs(((struct sockaddr_in *)&address)->sin_port);
}

/* libcurl does not tell which of its sockets serves a request, but for its port. -1: unknown. */
static int socket_of(const struct http_response *response)
{
    const struct http *http = response->http;
    long port = 0;

    curl_easy_getinfo(response->easy, CURLINFO_LOCAL_PORT, &port);
    for (size_t i = 0; i < http->socket_count && port > 0; i++) {
        if (port_of(http->sockets[i]) == (unsigned long)port)
            return http->sockets[i];
    }
    return -1;
}

void http_limit_buffer(struct http_response *response, size_t size_bytes)
{
    int size = (int)MIN(size_bytes / 2, (size_t)INT_MAX), unlocked = 0; /* it will be doubled */
    /* After the end the socket may be another's. */
    int fd = response->phase == RESPONSE_BODY ? socket_of(response) : -1;

    if (fd < 0)
        return;
    if (size)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    else
        setsockopt(fd, SOL_SOCKET, SO_BUF_LOCK, &unlocked, sizeof(unlocked));
}

/* --- The body --------------------------------------------------------------------------------- */

static size_t take_leftover(struct http_response *response, void *buffer, size_t size)
{
    size_t taken = MIN(size, response->leftover.length);

    if (taken) {
        memcpy(buffer, response->leftover.data, taken);
        strbuf_consume(&response->leftover, taken);
    }
    return taken;
}

/* Waits until the reader's buffer has something in it or the body has ended. */
static bool await_bytes(struct http_response *response, struct error *err)
{
    if (response->paused) {
        response->paused = false;
        curl_easy_pause(response->easy, CURLPAUSE_CONT); /* delivers what it kept */
    }
    while (response->reader_filled == 0 && response->phase != RESPONSE_END) {
        uint64_t started_ms = loop_now_ms();
        uint64_t left_ms = response->flow.low_speed_ms - response->waited_ms;
        uint64_t quiet_left_ms = response->http->stall_timeout_ms - response->quiet_ms;
        int r = await_change_for(response, MIN(left_ms, quiet_left_ms), "receiving");
        if (r < 0 && (r != -ETIMEDOUT || task_check() < 0))
            return await_error(err, r, "%s", response->host_port);
        if (!http_check_speed(response, loop_now_ms() - started_ms, response->reader_filled, err))
            return false;
    }
    return true;
}

ssize_t await_http_read(struct http_response *response, void *buffer, size_t size,
                        struct error *err)
{
    size_t taken = take_leftover(response, buffer, size);
    bool ok;
    int r;

    if (taken)
        return (ssize_t)taken;
    if ((r = await_slice()) < 0) {
        await_error(err, r, "%s", response->host_port);
        return -1;
    }
    response->reader = buffer;
    response->reader_size = size;
    response->reader_filled = 0;
    ok = await_bytes(response, err);
    response->reader = NULL;
    if (!ok)
        return -1;
    if (response->reader_filled == 0 && response->result != CURLE_OK) {
        http_failed(response, err);
        return -1;
    }
    return (ssize_t)response->reader_filled;
}

bool await_http_body(struct http_response *response, size_t limit_bytes, struct strbuf *ret,
                     struct error *err)
{
    ssize_t n;

    for (;;) {
        strbuf_reserve(ret, 16 * KIB);
        n = await_http_read(response, ret->data + ret->length, ret->capacity - ret->length - 1,
                            err);
        if (n < 0)
            return false;
        if (n == 0)
            return true;
        ret->length += (size_t)n;
        ret->data[ret->length] = '\0';
        if (ret->length > limit_bytes)
            return error_set(err, ERROR_RESOURCE_EXHAUSTED, "BODY_TOO_LARGE",
                             "%s: the answer is longer than %zu bytes", response->host_port,
                             limit_bytes);
    }
}
