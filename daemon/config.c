#include "daemon/config.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <sys/stat.h>

#include "proto/base/duration.h"
#include "proto/base/json.h"
#include "proto/base/size.h"
#include "proto/base/strbuf.h"

#define CONFIG_FILE_MAX_BYTES (1 * MIB)
#define MAX_NUMBER 100
#define SCRUB_INTERVAL_DEFAULT "30d"
#define PARTIAL_TTL_DEFAULT "72h"
#define PARTIAL_MAX_DEFAULT_BYTES 20000000000

/* Enough for logs and for the database to go on, on small disks, too. */
#define RESERVE_DEFAULT_BYTES 1000000000
#define RESERVE_DEFAULT_PERCENT 5

/* One setting: its flag, its key in the file (Docker's name), where its value goes. */
struct setting {
    const char *flag, *key; /* either may be NULL */
    char letter;            /* of the short flag, or 0 */
    /* Pairs: an object whose values are strings or arrays of them; NAME=VALUE as a flag. */
    enum { SETTING_STRING, SETTING_LIST, SETTING_PAIRS, SETTING_NUMBER, SETTING_SWITCH } type;
    size_t offset;
    const char *help; /* NULL: not shown */
    const char *value_name;
};

/* Values as they were given, before they are checked. */
struct raw {
    char *config_file, *log_level, *log_format, *max_downloads, *max_uploads, *data_root,
        *exec_root, *pidfile;
    char *storage_driver, *runtime, *group, *reserve_space;
    char **hosts, **insecure_registries, **registry_mirrors;
    char *debug, *help, *version, *validate, *keep_compressed, *resume_jobs, *scrub_interval;
    char *partial_ttl, *partial_max_size;
    char *certs_dir, *connect_timeout, *stall_timeout, *retry_backoff;
    char *max_connections, *low_speed_limit, *low_speed_time, *limit_rate;
    char **hosts_dirs, **mirrors;
};

#define AT(member) offsetof(struct raw, member)

static const struct setting settings[] = {
    {"certs-dir", "certs-dir", 0, SETTING_STRING, AT(certs_dir),
     "Certificates of registries (default \"" CONFIG_DEFAULT_CERTS_DIR "\")", "string"},
    {"config-file", NULL, 0, SETTING_STRING, AT(config_file),
     "Configuration file (default \"" CONFIG_DEFAULT_FILE "\")", "string"},
    {"connect-timeout", "connect-timeout", 0, SETTING_STRING, AT(connect_timeout),
     "How long to wait for a connection to a registry (default \"30s\")", "duration"},
    {"data-root", "data-root", 0, SETTING_STRING, AT(data_root),
     "Root directory of images and containers (default \"" CONFIG_DEFAULT_DATA_ROOT "\")",
     "string"},
    {"debug", "debug", 'D', SETTING_SWITCH, AT(debug), "Enable debug mode", NULL},
    {"exec-root", "exec-root", 0, SETTING_STRING, AT(exec_root),
     "Root directory of execution state (default \"" CONFIG_DEFAULT_EXEC_ROOT "\")", "string"},
    {"group", "group", 'G', SETTING_STRING, AT(group), "Group of the socket (default \"root\")",
     "string"},
    {"help", NULL, 0, SETTING_SWITCH, AT(help), "Print usage", NULL},
    {"host", "hosts", 'H', SETTING_LIST, AT(hosts),
     "Socket to listen on (default \"" CONFIG_DEFAULT_HOST "\")", "list"},
    {"hosts-dir", "hosts-dirs", 0, SETTING_LIST, AT(hosts_dirs),
     "Where hosts.toml of registries are (default \"" CONFIG_DEFAULT_HOSTS_DIR
     "\" and containerd's)",
     "list"},
    {"insecure-registry", "insecure-registries", 0, SETTING_LIST, AT(insecure_registries),
     "Registry to use over HTTP or unverified TLS", "list"},
    {"keep-compressed", "keep-compressed", 0, SETTING_SWITCH, AT(keep_compressed),
     "Keep layers compressed, too (default: where the storage driver unpacks them)", NULL},
    {"limit-rate", "limit-rate", 0, SETTING_STRING, AT(limit_rate),
     "Bytes per second that all downloads may take, as \"500k\", and all uploads (default: no "
     "limit)",
     "size"},
    {"log-format", "log-format", 0, SETTING_STRING, AT(log_format),
     "Log format (\"text\"|\"json\") (default \"text\")", "string"},
    {"log-level", "log-level", 'l', SETTING_STRING, AT(log_level),
     "Log level (\"debug\"|\"info\"|\"warn\"|\"error\"|\"fatal\") (default \"info\")", "string"},
    {"low-speed-limit", "low-speed-limit", 0, SETTING_STRING, AT(low_speed_limit),
     "Bytes per second below which a connection to a registry is given up (default \"1k\")",
     "size"},
    {"low-speed-time", "low-speed-time", 0, SETTING_STRING, AT(low_speed_time),
     "How long it may be as slow as that (default \"10s\")", "duration"},
    {"max-concurrent-downloads", "max-concurrent-downloads", 0, SETTING_NUMBER, AT(max_downloads),
     "Layers that download at the same time (default 3)", "int"},
    {"max-concurrent-uploads", "max-concurrent-uploads", 0, SETTING_NUMBER, AT(max_uploads),
     "Layers that upload at the same time (default 5)", "int"},
    {"max-connections", "max-connections", 0, SETTING_NUMBER, AT(max_connections),
     "Connections that all downloads may have (default 10)", "int"},
    {"mirror", "mirrors", 0, SETTING_PAIRS, AT(mirrors),
     "Mirror of any registry to try first, as REGISTRY=URL", "list"},
    {"partial-max-size", "partial-max-size", 0, SETTING_STRING, AT(partial_max_size),
     "How much to keep of downloads that were broken off (default \"20GB\")", "size"},
    {"partial-ttl", "partial-ttl", 0, SETTING_STRING, AT(partial_ttl),
     "How long to keep them (default \"72h\")", "duration"},
    {"pidfile", "pidfile", 'p', SETTING_STRING, AT(pidfile), "File to write the process ID to",
     "string"},
    {"registry-mirror", "registry-mirrors", 0, SETTING_LIST, AT(registry_mirrors),
     "Mirror of docker.io to try first", "list"},
    {"reserve-space", "reserve-space", 0, SETTING_STRING, AT(reserve_space),
     "Space to leave free on the data root's disk, as \"10GB\" or \"5%\" (default 5%, at most 1GB)",
     "size"},
    {"resume-jobs", "resume-jobs", 0, SETTING_SWITCH, AT(resume_jobs),
     "Begin pulls, pushes and verifications again that a stop interrupted", NULL},
    {"retry-backoff", "retry-backoff", 0, SETTING_STRING, AT(retry_backoff),
     "Wait before the first of several retries (default \"250ms\")", "duration"},
    {"runtime", "default-runtime", 0, SETTING_STRING, AT(runtime),
     "OCI runtime, by name or path (default: the first of crun and runc that works)", "string"},
    {"scrub-interval", "scrub-interval", 0, SETTING_STRING, AT(scrub_interval),
     "Verify everything stored as often as this, \"0\": never (default \"30d\")", "duration"},
    {"stall-timeout", "stall-timeout", 0, SETTING_STRING, AT(stall_timeout),
     "How long to wait for a registry that sends nothing (default \"60s\")", "duration"},
    {"storage-driver", "storage-driver", 's', SETTING_STRING, AT(storage_driver),
     "Storage driver to use", "string"},
    {"validate", NULL, 0, SETTING_SWITCH, AT(validate), "Check the configuration and exit", NULL},
    {"version", NULL, 'v', SETTING_SWITCH, AT(version), "Print version information and quit", NULL},
};

static bool is_list(const struct setting *setting)
{
    return setting->type == SETTING_LIST || setting->type == SETTING_PAIRS;
}

static void raw_done(struct raw *raw)
{
    for (size_t i = 0; i < ARRAY_SIZE(settings); i++) {
        void *member = (char *)raw + settings[i].offset;
        if (is_list(&settings[i]))
            strv_free(*(char ***)member);
        else
            free(*(char **)member);
    }
}

static void set_value(struct raw *raw, const struct setting *setting, const char *value)
{
    void *member = (char *)raw + setting->offset;

    if (is_list(setting)) {
        strv_add(member, value);
    } else {
        free(*(char **)member);
        *(char **)member = xstrdup(value);
    }
}

static void set_pair(struct raw *raw, const struct setting *setting, const char *name,
                     const char *value)
{
    set_value(raw, setting, name);
    set_value(raw, setting, value);
}

/* NAME=VALUE; without a name, that is refused with the value later on. */
static void set_pair_text(struct raw *raw, const struct setting *setting, const char *text)
{
    size_t length = strcspn(text, "=");
    CLEANUP_FREE char *name = text[length] ? xstrndup(text, length) : xstrdup("");

    set_pair(raw, setting, name, text[length] ? text + length + 1 : text);
}

static bool is_set(const struct raw *raw, const struct setting *setting)
{
    return *(void *const *)((const char *)raw + setting->offset) != NULL;
}

/* --- Command line ----------------------------------------------------------------------------- */

const char *config_help(void)
{
    static char *text;
    struct strbuf help = {0};

    if (text)
        return text;
    strbuf_add_str(&help, "Usage:  davitd [OPTIONS]\n\nThe davit daemon.\n\nOptions:\n");
    for (size_t i = 0; i < ARRAY_SIZE(settings); i++) {
        const struct setting *s = &settings[i];
        CLEANUP_FREE char *left = xasprintf("--%s%s%s", s->flag, s->value_name ? " " : "",
                                            s->value_name ? s->value_name : "");
        CLEANUP_FREE char *letter = s->letter ? xasprintf("-%c, ", s->letter) : xstrdup("    ");
        strbuf_addf(&help, "  %s%-33s %s\n", letter, left, s->help);
    }
    return text = strbuf_take(&help);
}

static bool bad_flag(char **argv, struct error *err)
{
    error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_FLAG",
              "%s: unknown flag, or its value is missing", argv[optind - 1]);
    return error_hint(err, "see 'davitd --help'");
}

static bool read_command_line(int argc, char **argv, struct raw *raw, struct error *err)
{
    struct option options[ARRAY_SIZE(settings) + 1] = {{0}};
    struct strbuf letters = {0};
    int c, index;

    strbuf_add_char(&letters, ':');
    for (size_t i = 0; i < ARRAY_SIZE(settings); i++) {
        bool has_value = settings[i].type != SETTING_SWITCH;
        options[i] =
            (struct option){settings[i].flag, has_value ? required_argument : optional_argument,
                            NULL, 256 + (int)i};
        if (settings[i].letter)
            strbuf_addf(&letters, "%c%s", settings[i].letter, has_value ? ":" : "");
    }
    opterr = 0;
    optind = 1;
    while ((c = getopt_long(argc, argv, letters.data, options, NULL)) != -1) {
        if (c == '?' || c == ':') {
            strbuf_done(&letters);
            return bad_flag(argv, err);
        }
        index = c - 256;
        for (size_t i = 0; c < 256 && i < ARRAY_SIZE(settings); i++) {
            if (settings[i].letter == c)
                index = (int)i;
        }
        if (settings[index].type == SETTING_PAIRS)
            set_pair_text(raw, &settings[index], optarg);
        else
            set_value(raw, &settings[index], optarg ? optarg : "true");
    }
    strbuf_done(&letters);
    if (optind < argc) {
        error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_FLAG",
                  "\"davitd\" accepts no arguments, but got \"%s\"", argv[optind]);
        return error_hint(err, "see 'davitd --help'");
    }
    return true;
}

/* --- File ------------------------------------------------------------------------------------- */

static bool read_file(const char *path, bool must_exist, struct strbuf *ret, struct error *err)
{
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    char buffer[4096];
    struct stat st;
    ssize_t n;

    if (fd < 0 && errno == ENOENT && !must_exist)
        return true;
    if (fd < 0 || fstat(fd, &st) < 0)
        return error_set_errno(err, errno, "cannot read the configuration file %s", path);
    if (!S_ISREG(st.st_mode))
        return error_set(err, ERROR_INVALID_ARGUMENT, NULL,
                         "the configuration file %s is not a regular file", path);
    while ((n = read(fd, buffer, sizeof(buffer))) > 0 && ret->length <= CONFIG_FILE_MAX_BYTES)
        strbuf_add(ret, buffer, (size_t)n);
    if (n < 0)
        return error_set_errno(err, errno, "cannot read the configuration file %s", path);
    return true;
}

static const struct setting *setting_of_key(const char *key)
{
    for (size_t i = 0; i < ARRAY_SIZE(settings); i++) {
        if (str_eq(settings[i].key, key))
            return &settings[i];
    }
    return NULL;
}

static bool wrong_type(const char *path, const char *key, const char *expected, struct error *err)
{
    return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_CONFIG",
                     "%s: the value of \"%s\" must be %s", path, key, expected);
}

/* {"docker.io": ["https://mirror.example.com"], "quay.io": "https://other.example.com"} */
static bool set_pairs(struct raw *raw, const struct setting *setting, const json_t *object,
                      const char *path, struct error *err)
{
    static const char expected[] = "an object of strings or of arrays of strings";
    const char *name;
    json_t *value, *item;
    size_t i;

    if (!json_is_object(object))
        return wrong_type(path, setting->key, expected, err);
    json_object_foreach ((json_t *)object, name, value) {
        if (json_is_string(value)) {
            set_pair(raw, setting, name, json_string_value(value));
            continue;
        }
        if (!json_is_array(value))
            return wrong_type(path, setting->key, expected, err);
        json_array_foreach (value, i, item) {
            if (!json_is_string(item))
                return wrong_type(path, setting->key, expected, err);
            set_pair(raw, setting, name, json_string_value(item));
        }
    }
    return true;
}

static bool set_from_json(struct raw *raw, const struct setting *setting, const json_t *value,
                          const char *path, struct error *err)
{
    char number[32];
    size_t i;
    json_t *item;

    switch (setting->type) {
    case SETTING_STRING:
        if (!json_is_string(value))
            return wrong_type(path, setting->key, "a string", err);
        set_value(raw, setting, json_string_value(value));
        return true;
    case SETTING_NUMBER:
        if (!json_is_integer(value))
            return wrong_type(path, setting->key, "a whole number", err);
        snprintf(number, sizeof(number), "%lld", (long long)json_integer_value(value));
        set_value(raw, setting, number);
        return true;
    case SETTING_SWITCH:
        if (!json_is_boolean(value))
            return wrong_type(path, setting->key, "true or false", err);
        set_value(raw, setting, json_is_true(value) ? "true" : "false");
        return true;
    case SETTING_PAIRS:
        return set_pairs(raw, setting, value, path, err);
    case SETTING_LIST:
        if (!json_is_array(value))
            return wrong_type(path, setting->key, "an array of strings", err);
        json_array_foreach (value, i, item) {
            if (!json_is_string(item))
                return wrong_type(path, setting->key, "an array of strings", err);
            set_value(raw, setting, json_string_value(item));
        }
        return true;
    }
    return false;
}

static bool merge_file(struct raw *raw, const char *path, bool must_exist, struct error *err)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    CLEANUP_JSON json_t *json = NULL;
    const char *key;
    json_t *value;

    if (!read_file(path, must_exist, &text, err))
        return false;
    if (text.length == 0)
        return true;
    json = json_parse(text.data, text.length, CONFIG_FILE_MAX_BYTES, path, err);
    if (!json)
        return false;
    if (!json_is_object(json))
        return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_CONFIG", "%s is not a JSON object",
                         path);
    json_object_foreach (json, key, value) {
        const struct setting *setting = setting_of_key(key);
        if (!setting) {
            error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_CONFIG",
                      "%s: the following directives don't match any configuration option: %s", path,
                      key);
            return error_hint(err, "see 'davitd --help' for the options");
        }
        if (is_set(raw, setting)) {
            error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_CONFIG",
                      "%s: the following directives are specified both as a flag and in the "
                      "configuration file: %s",
                      path, key);
            return error_hint(err, "remove --%s or the key", setting->flag);
        }
        if (!set_from_json(raw, setting, value, path, err))
            return false;
    }
    return true;
}

/* --- Checking --------------------------------------------------------------------------------- */

static bool bad_value(const char *what, const char *value, const char *expected, struct error *err)
{
    return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_CONFIG",
                     "invalid %s \"%s\": expected %s", what, value, expected);
}

static bool check_path(const char *what, const char *path, struct error *err)
{
    return path[0] == '/' || bad_value(what, path, "an absolute path", err);
}

static bool check_hosts(char *const *hosts, struct error *err)
{
    for (; *hosts; hosts++) {
        if (str_starts(*hosts, "unix:///") || str_starts(*hosts, "fd://"))
            continue;
        return bad_value("host", *hosts, "unix:///path/to/socket or fd://", err);
    }
    return true;
}

static bool take_number(const char *what, const char *text, unsigned int fallback,
                        unsigned int *ret, struct error *err)
{
    char *end;
    unsigned long number;

    *ret = fallback;
    if (!text)
        return true;
    errno = 0;
    number = strtoul(text, &end, 10);
    if (errno || *end || end == text || *text == '-' || number < 1 || number > MAX_NUMBER)
        return bad_value(what, text, "a number from 1 to 100", err);
    *ret = (unsigned int)number;
    return true;
}

/* Bytes or a percentage; the one that is not given does not count. */
static bool take_reserve(const char *text, struct config *ret, struct error *err)
{
    unsigned int percent;
    int end = 0;

    ret->reserve_bytes = RESERVE_DEFAULT_BYTES;
    ret->reserve_percent = RESERVE_DEFAULT_PERCENT;
    if (!text)
        return true;
    if (isdigit((unsigned char)*text) && sscanf(text, "%2u%%%n", &percent, &end) == 1 && end > 0 &&
        !text[end]) {
        ret->reserve_bytes = UINT64_MAX;
        ret->reserve_percent = percent;
        return true;
    }
    ret->reserve_percent = 100;
    return size_parse(text, &ret->reserve_bytes) ||
           bad_value("reserve-space", text, "a size such as \"10GB\", or \"0%\" to \"99%\"", err);
}

static bool take_duration(const char *what, const char *text, const char *fallback,
                          uint64_t *ret_ms, struct error *err)
{
    return duration_parse(text ? text : fallback, ret_ms) ||
           bad_value(what, text, "a duration such as 30d, 12h or 0", err);
}

/* 0 keeps nothing, though the store takes it for the default. */
static bool take_partial(const struct raw *raw, struct config *ret, struct error *err)
{
    ret->partial_max_bytes = PARTIAL_MAX_DEFAULT_BYTES;
    if (raw->partial_max_size && !size_parse(raw->partial_max_size, &ret->partial_max_bytes))
        return bad_value("partial-max-size", raw->partial_max_size, "a size such as \"20GB\"", err);
    if (!take_duration("partial-ttl", raw->partial_ttl, PARTIAL_TTL_DEFAULT, &ret->partial_ttl_ms,
                       err))
        return false;
    ret->partial_ttl_ms = MAX(ret->partial_ttl_ms, 1U);
    ret->partial_max_bytes = MAX(ret->partial_max_bytes, 1U);
    return true;
}

static bool take_speed(const char *what, const char *text, const char *fallback, uint64_t *ret,
                       struct error *err)
{
    return size_parse(text ? text : fallback, ret) ||
           bad_value(what, text, "bytes per second, such as 500k or 10M", err);
}

/* 0 gives up only what stands still, though transfers take it for the default. */
static bool take_low_speed(const struct raw *raw, struct config *ret, struct error *err)
{
    if (!take_speed("low-speed-limit", raw->low_speed_limit, "1k", &ret->low_speed_bytes_per_s,
                    err))
        return false;
    ret->low_speed_bytes_per_s = MAX(ret->low_speed_bytes_per_s, 1U);
    return take_duration("low-speed-time", raw->low_speed_time, "10s", &ret->low_speed_ms, err);
}

static bool take_transfers(const struct raw *raw, struct config *ret, struct error *err)
{
    return take_number("max-concurrent-downloads", raw->max_downloads, 3,
                       &ret->max_concurrent_downloads, err) &&
           take_number("max-concurrent-uploads", raw->max_uploads, 5, &ret->max_concurrent_uploads,
                       err) &&
           take_number("max-connections", raw->max_connections, 10, &ret->max_connections, err) &&
           take_low_speed(raw, ret, err) &&
           take_speed("limit-rate", raw->limit_rate, "0", &ret->limit_bytes_per_s, err);
}

static char *take_or(char **value, const char *fallback)
{
    return *value ? TAKE(*value) : xstrdup(fallback);
}

static bool take_registry(struct raw *raw, struct config *ret, struct error *err)
{
    ret->certs_dir = take_or(&raw->certs_dir, CONFIG_DEFAULT_CERTS_DIR);
    if (!raw->hosts_dirs) {
        strv_add(&raw->hosts_dirs, CONFIG_DEFAULT_HOSTS_DIR);
        strv_add(&raw->hosts_dirs, "/etc/containerd/certs.d");
    }
    ret->hosts_dirs = TAKE(raw->hosts_dirs);
    ret->mirrors = TAKE(raw->mirrors);
    ret->insecure_registries = TAKE(raw->insecure_registries);
    ret->registry_mirrors = TAKE(raw->registry_mirrors);
    for (char **dir = ret->hosts_dirs; *dir; dir++) {
        if (!check_path("hosts-dirs", *dir, err))
            return false;
    }
    return check_path("certs-dir", ret->certs_dir, err) &&
           take_duration("connect-timeout", raw->connect_timeout, "30s", &ret->connect_timeout_ms,
                         err) &&
           take_duration("stall-timeout", raw->stall_timeout, "60s", &ret->stall_timeout_ms, err) &&
           take_duration("retry-backoff", raw->retry_backoff, "250ms", &ret->retry_backoff_ms, err);
}

static bool take_log(const struct raw *raw, struct config *ret, struct error *err)
{
    ret->log_level = str_eq(raw->debug, "true") ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO;
    ret->log_format = LOG_FORMAT_TEXT;
    if (raw->log_level && !log_level_parse(raw->log_level, &ret->log_level))
        return bad_value("log-level", raw->log_level, "debug, info, warn, error or fatal", err);
    if (raw->log_format && !log_format_parse(raw->log_format, &ret->log_format))
        return bad_value("log-format", raw->log_format, "text or json", err);
    return true;
}

/* "--debug" and "--debug=false", as Docker takes them. */
static bool check_switches(const struct raw *raw, struct error *err)
{
    for (size_t i = 0; i < ARRAY_SIZE(settings); i++) {
        const char *value;
        if (settings[i].type != SETTING_SWITCH || !is_set(raw, &settings[i]))
            continue;
        value = *(char *const *)((const char *)raw + settings[i].offset);
        if (!str_eq(value, "true") && !str_eq(value, "false"))
            return bad_value(settings[i].flag, value, "true or false", err);
    }
    return true;
}

static bool take_settings(struct raw *raw, struct config *ret, struct error *err)
{
    if (!check_switches(raw, err) || !take_log(raw, ret, err) || !take_transfers(raw, ret, err) ||
        !take_reserve(raw->reserve_space, ret, err) ||
        !take_duration("scrub-interval", raw->scrub_interval, SCRUB_INTERVAL_DEFAULT,
                       &ret->scrub_interval_ms, err) ||
        !take_partial(raw, ret, err))
        return false;
    ret->resume_jobs = str_eq(raw->resume_jobs, "true");
    ret->keep_compressed = str_eq(raw->keep_compressed, "true");
    ret->drop_compressed = str_eq(raw->keep_compressed, "false");
    ret->data_root = take_or(&raw->data_root, CONFIG_DEFAULT_DATA_ROOT);
    ret->exec_root = take_or(&raw->exec_root, CONFIG_DEFAULT_EXEC_ROOT);
    ret->pidfile = TAKE(raw->pidfile);
    ret->storage_driver = TAKE(raw->storage_driver);
    ret->runtime = TAKE(raw->runtime);
    ret->group = TAKE(raw->group);
    if (!raw->hosts)
        set_value(raw, setting_of_key("hosts"), CONFIG_DEFAULT_HOST);
    ret->hosts = TAKE(raw->hosts);
    return take_registry(raw, ret, err) && check_path("data-root", ret->data_root, err) &&
           check_path("exec-root", ret->exec_root, err) && check_hosts(ret->hosts, err);
}

bool config_load(int argc, char **argv, struct config *ret, struct error *err)
{
    CLEANUP(raw_done) struct raw raw = {0};
    const char *path;

    *ret = (struct config){0};
    if (!read_command_line(argc, argv, &raw, err))
        return false;
    ret->show_help = raw.help != NULL;
    ret->show_version = raw.version != NULL;
    ret->validate = raw.validate != NULL;
    if (ret->show_help || ret->show_version)
        return true;
    path = raw.config_file ? raw.config_file : CONFIG_DEFAULT_FILE;
    return merge_file(&raw, path, raw.config_file != NULL, err) && take_settings(&raw, ret, err);
}

void config_done(struct config *config)
{
    free(config->data_root);
    free(config->exec_root);
    free(config->pidfile);
    free(config->storage_driver);
    free(config->runtime);
    free(config->group);
    strv_free(config->hosts);
    strv_free(config->insecure_registries);
    strv_free(config->registry_mirrors);
    strv_free(config->mirrors);
    strv_free(config->hosts_dirs);
    free(config->certs_dir);
    *config = (struct config){0};
}
