#include "daemon/build/change.h"

#include <errno.h>
#include <strings.h>

#include "daemon/build/expand.h"
#include "daemon/build/instruction.h"
#include "proto/base/duration.h"
#include "proto/base/strbuf.h"

#define PORTS_MAX 65535
#define HEALTH_MIN_NS 1000000
#define CONFIG_MAX_BYTES (4 * MIB) /* as of any document of an image */

struct change {
    json_t *config;
    char **env; /* as the instructions so far left it, for the words of the next */
    bool cmd_set;
    size_t bytes; /* of what was put in */
};

static bool invalid(struct error *err, const char *what, const char *why)
{
    return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_INSTRUCTION", "%s%s", what, why);
}

/* --- The configuration -------------------------------------------------------------------------
 */

/* What words expand to can be much more than they are. */
static bool check_size(struct change *change, size_t more, struct error *err)
{
    change->bytes += more;
    return change->bytes <= CONFIG_MAX_BYTES ||
           invalid(err, "", "the changes make a configuration of more than 4 MiB");
}

static bool text_is_json(const char *text, struct error *err)
{
    CLEANUP_JSON json_t *json = json_string(text);

    return json || invalid(err, "", "a change is not valid UTF-8");
}

static bool set_text(struct change *change, const char *key, const char *value, struct error *err)
{
    if (!*value) {
        json_object_del(change->config, key);
        return true;
    }
    return text_is_json(value, err) && check_size(change, strlen(value), err) &&
           json_object_set_new(change->config, key, json_string(value)) == 0;
}

static json_t *member(struct change *change, const char *key, json_t *fresh)
{
    json_t *there = json_object_get(change->config, key);

    if (there && json_typeof(there) == json_typeof(fresh)) {
        json_decref(fresh);
        return there;
    }
    json_object_set_new(change->config, key, fresh);
    return fresh;
}

/* "key": {name: {}} */
static bool add_to_set(struct change *change, const char *key, const char *name, struct error *err)
{
    json_t *set = member(change, key, json_object());

    return text_is_json(name, err) && check_size(change, strlen(name), err) &&
           json_object_set_new(set, name, json_object()) == 0;
}

static json_t *array_of(char *const *items)
{
    json_t *array = json_array();

    for (; items && *items; items++)
        json_array_append_new(array, json_string(*items));
    return array;
}

/* --- Single instructions -----------------------------------------------------------------------
 */

/* As a process: the shell runs what is no JSON form. */
static json_t *command_of(char *const *args, bool json)
{
    json_t *array = array_of(args);

    if (json)
        return array;
    json_array_insert_new(array, 0, json_string("-c"));
    json_array_insert_new(array, 0, json_string("/bin/sh"));
    return array;
}

static bool check_texts(char *const *texts, struct change *change, struct error *err)
{
    for (; texts && *texts; texts++) {
        if (!text_is_json(*texts, err) || !check_size(change, strlen(*texts), err))
            return false;
    }
    return true;
}

static bool apply_cmd(struct change *change, const struct instruction *one, struct error *err)
{
    change->cmd_set = true;
    return check_texts(one->args, change, err) &&
           json_object_set_new(change->config, "Cmd", command_of(one->args, one->json)) == 0;
}

/* An entry point without a command of the same changes is not given that of the image. */
static bool apply_entrypoint(struct change *change, const struct instruction *one,
                             struct error *err)
{
    if (!check_texts(one->args, change, err))
        return false;
    if (one->args)
        json_object_set_new(change->config, "Entrypoint", command_of(one->args, one->json));
    else
        json_object_del(change->config, "Entrypoint");
    if (!change->cmd_set)
        json_object_del(change->config, "Cmd");
    return true;
}

/* In the place of one of the same name. */
static void set_env(struct change *change, const char *name, const char *value)
{
    CLEANUP_FREE char *line = xasprintf("%s=%s", name, value);
    const size_t length = strlen(name) + 1;
    char **one = change->env;

    while (one && *one && strncmp(*one, line, length) != 0)
        one++;
    if (one && *one) {
        free(*one);
        *one = TAKE(line);
    } else
        strv_add(&change->env, line);
}

static bool apply_pair(struct change *change, enum instruction_kind kind, const char *name,
                       const char *value, struct error *err)
{
    if (!text_is_json(name, err) || !text_is_json(value, err))
        return false;
    if (kind == INSTRUCTION_LABEL)
        return json_object_set_new(member(change, "Labels", json_object()), name,
                                   json_string(value)) == 0;
    set_env(change, name, value);
    return true;
}

/* All words of one instruction see the variables as they were before it. */
static bool apply_pairs(struct change *change, const struct instruction *one, struct error *err)
{
    const size_t count = strv_count(one->args);
    CLEANUP(strv_cleanup) char **words = xcalloc(count + 1, sizeof(*words));
    bool ok = true;

    for (size_t i = 0; i < count && ok; i++)
        ok = expand_word(one->args[i], change->env, &words[i], err) &&
             check_size(change, strlen(words[i]), err);
    for (size_t i = 0; i + 1 < count && ok; i += 2)
        ok = apply_pair(change, one->kind, words[i], words[i + 1], err);
    return ok;
}

/* --- Ports -------------------------------------------------------------------------------------
 */

static bool parse_port(const char *text, size_t length, unsigned int *ret)
{
    unsigned int port = 0;

    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        port = port * 10 + (unsigned int)(text[i] - '0');
        if (port > PORTS_MAX)
            return false;
    }
    *ret = port;
    return length > 0;
}

/* "80", "8000-8010" */
static bool parse_range(const char *text, unsigned int *ret_first, unsigned int *ret_last)
{
    const char *dash = strchr(text, '-');
    const size_t length = dash ? (size_t)(dash - text) : strlen(text);

    if (!parse_port(text, length, ret_first))
        return false;
    *ret_last = *ret_first;
    return !dash || (parse_port(dash + 1, strlen(dash + 1), ret_last) && *ret_last >= *ret_first);
}

static bool is_protocol(const char *text)
{
    return strcasecmp(text, "tcp") == 0 || strcasecmp(text, "udp") == 0 ||
           strcasecmp(text, "sctp") == 0;
}

/* "[[ADDRESS:]HOST:]PORT[/PROTOCOL]": what lies before the last colon is checked by who publishes
 * ports. */
static bool apply_port(struct change *change, const char *spec, struct error *err)
{
    const char *colon = strrchr(spec, ':'), *text = colon ? colon + 1 : spec;
    CLEANUP_FREE char *port = xstrndup(text, strcspn(text, "/"));
    const char *slash = strchr(text, '/');
    CLEANUP_FREE char *protocol =
        xstrndup(slash ? slash + 1 : "", slash ? strcspn(slash + 1, "/") : 0);
    unsigned int first, last;

    if (!*port)
        return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_INSTRUCTION",
                         "No port specified: %s<empty>", spec);
    if (!parse_range(port, &first, &last))
        return invalid(err, "Invalid containerPort: ", port);
    if (*protocol && !is_protocol(protocol))
        return invalid(err, "Invalid proto: ", protocol);
    for (char *c = protocol; *c; c++)
        *c = *c >= 'A' && *c <= 'Z' ? (char)(*c - 'A' + 'a') : *c;
    for (; first <= last; first++) {
        CLEANUP_FREE char *name = xasprintf("%u/%s", first, *protocol ? protocol : "tcp");
        if (!add_to_set(change, "ExposedPorts", name, err))
            return false;
    }
    return true;
}

static bool apply_expose(struct change *change, const struct instruction *one, struct error *err)
{
    for (char **arg = one->args; *arg; arg++) {
        CLEANUP_FREE char *words = NULL;
        if (!expand_word(*arg, change->env, &words, err))
            return false;
        for (char *rest = words, *word; (word = strsep(&rest, " \t\n"));) {
            if (*word && !apply_port(change, word, err))
                return false;
        }
    }
    return true;
}

/* --- Others ------------------------------------------------------------------------------------
 */

static bool is_blank(const char *text)
{
    return !text[strspn(text, " \t\n\v\f\r")];
}

static bool apply_volume(struct change *change, const struct instruction *one, struct error *err)
{
    for (char **arg = one->args; *arg; arg++) {
        CLEANUP_FREE char *path = NULL;
        if (!expand_word(*arg, change->env, &path, err))
            return false;
        if (is_blank(path))
            return invalid(err, "", "VOLUME specified can not be an empty string");
        if (!add_to_set(change, "Volumes", path, err))
            return false;
    }
    return true;
}

/* Without "." and "..", which lead up in the text; absolute. */
static char *clean_path(const char *path)
{
    CLEANUP_STRBUF struct strbuf clean = {0};

    for (const char *part = path; *part;) {
        size_t size = strcspn(part, "/");
        if (size == 2 && strncmp(part, "..", 2) == 0) {
            while (clean.length > 0 && clean.data[--clean.length] != '/')
                ;
        } else if (size > 0 && !(size == 1 && *part == '.')) {
            strbuf_add_char(&clean, '/');
            strbuf_add(&clean, part, size);
        }
        part += size;
        part += *part == '/';
    }
    if (clean.length == 0)
        return xstrdup("/");
    return xstrndup(clean.data, clean.length);
}

static bool apply_workdir(struct change *change, const struct instruction *one, struct error *err)
{
    const char *current = json_str(change->config, "WorkingDir");
    CLEANUP_FREE char *path = NULL;
    CLEANUP_FREE char *joined = NULL;
    CLEANUP_FREE char *clean = NULL;

    if (!expand_word(one->args[0], change->env, &path, err))
        return false;
    if (!*path)
        return invalid(err, "", "cannot normalize nothing");
    joined = xasprintf("%s/%s", *path == '/' || !current ? "" : current, path);
    clean = clean_path(joined);
    return set_text(change, "WorkingDir", clean, err);
}

static bool apply_user(struct change *change, const struct instruction *one, struct error *err)
{
    CLEANUP_FREE char *user = NULL;

    return expand_word(one->args[0], change->env, &user, err) &&
           set_text(change, "User", user, err);
}

/* By number, or by name with or without SIG. */
static bool is_signal(const char *text)
{
    static const char *const names[] = {"ABRT",   "ALRM",   "BUS",  "CHLD", "CLD",   "CONT",
                                        "FPE",    "HUP",    "ILL",  "INT",  "IO",    "IOT",
                                        "KILL",   "PIPE",   "POLL", "PROF", "PWR",   "QUIT",
                                        "SEGV",   "STKFLT", "STOP", "SYS",  "TERM",  "TRAP",
                                        "TSTP",   "TTIN",   "TTOU", "URG",  "USR1",  "USR2",
                                        "VTALRM", "WINCH",  "XCPU", "XFSZ", "RTMIN", "RTMAX"};
    const char *name = strncasecmp(text, "SIG", 3) == 0 ? text + 3 : text;
    char *end;
    long number = strtol(text, &end, 10);

    if (*text && !*end && !is_blank(text))
        return number != 0;
    if ((strncasecmp(name, "RTMIN+", 6) == 0 || strncasecmp(name, "RTMAX-", 6) == 0) && name[6]) {
        number = strtol(name + 6, &end, 10);
        return name[6] >= '1' && name[6] <= '9' && !*end &&
               number <= (strncasecmp(name, "RTMIN+", 6) == 0 ? 15 : 14);
    }
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        if (strcasecmp(name, names[i]) == 0)
            return true;
    }
    return false;
}

static bool apply_stop_signal(struct change *change, const struct instruction *one,
                              struct error *err)
{
    CLEANUP_FREE char *name = NULL;

    if (!expand_word(one->args[0], change->env, &name, err))
        return false;
    if (!is_signal(name))
        return invalid(err, "invalid signal: ", name);
    return set_text(change, "StopSignal", name, err);
}

static bool apply_onbuild(struct change *change, const struct instruction *one, struct error *err)
{
    return text_is_json(one->text, err) && check_size(change, strlen(one->text), err) &&
           json_array_append_new(member(change, "OnBuild", json_array()), json_string(one->text)) ==
               0;
}

/* --- Health checks -----------------------------------------------------------------------------
 */

static const struct {
    const char *flag, *key;
} health_flags[] = {
    {"interval", "Interval"},        {"timeout", "Timeout"},
    {"start-period", "StartPeriod"}, {"start-interval", "StartInterval"},
    {"retries", "Retries"},
};

static bool set_duration(json_t *check, size_t flag, const char *value, struct error *err)
{
    const bool negative = *value == '-';
    uint64_t ns = 0;

    if (strchr(value, 'd')) /* ours, not Go's */
        return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_INSTRUCTION",
                         "time: unknown unit \"d\" in duration \"%.100s\"", value);
    if (!duration_parse_ns(value + negative, &ns))
        return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_INSTRUCTION",
                         "time: invalid duration \"%.100s\"", value);
    if (ns > 0 && (negative || ns < HEALTH_MIN_NS))
        return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_INSTRUCTION",
                         "Interval \"%s\" cannot be less than 1ms", health_flags[flag].flag);
    if (ns > 0)
        json_object_set_new(check, health_flags[flag].key, json_integer((json_int_t)ns));
    return true;
}

static bool set_retries(json_t *check, const char *value, struct error *err)
{
    char *end;
    long number = strtol(value, &end, 10);

    if (*end || is_blank(value) || number > INT32_MAX || number < INT32_MIN)
        return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_INSTRUCTION",
                         "strconv.ParseInt: parsing \"%.100s\": %s", value,
                         *end ? "invalid syntax" : "value out of range");
    if (number < 0)
        return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_INSTRUCTION",
                         "--retries cannot be negative (%ld)", number);
    if (number > 0)
        json_object_set_new(check, "Retries", json_integer(number));
    return true;
}

/* The index in health_flags of the flag; -1 with err. */
static int find_health_flag(const char *flag, struct error *err)
{
    const size_t length = strcspn(flag + 2, "=");

    for (size_t i = 0; i < ARRAY_SIZE(health_flags); i++) {
        if (strlen(health_flags[i].flag) != length ||
            strncmp(flag + 2, health_flags[i].flag, length) != 0)
            continue;
        if (flag[2 + length] == '=')
            return (int)i;
        error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_INSTRUCTION",
                  "missing a value on flag: --%s", health_flags[i].flag);
        return -1;
    }
    error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_INSTRUCTION", "unknown flag: %.*s",
              (int)(2 + length), flag);
    return -1;
}

static bool set_health_flags(json_t *check, const struct instruction *one, struct error *err)
{
    const char *values[ARRAY_SIZE(health_flags)] = {0};

    for (char **flag = one->flags; flag && *flag; flag++) {
        int i = find_health_flag(*flag, err);
        if (i < 0)
            return false;
        if (values[i])
            return invalid(err, "duplicate flag specified: --", health_flags[i].flag);
        values[i] = strchr(*flag, '=') + 1;
    }
    for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
        if (str_empty(values[i]))
            continue;
        if (str_eq(health_flags[i].flag, "retries") ? !set_retries(check, values[i], err)
                                                    : !set_duration(check, i, values[i], err))
            return false;
    }
    return true;
}

static bool apply_health_check(struct change *change, const struct instruction *one,
                               struct error *err)
{
    const char *type = one->args[0];
    CLEANUP_JSON json_t *check = json_object();
    json_t *test;

    if (str_eq(type, "NONE") && (one->args[1] || one->json))
        return invalid(err, "", "HEALTHCHECK NONE takes no arguments");
    if (!str_eq(type, "NONE") && !set_health_flags(check, one, err))
        return false;
    if (!str_eq(type, "NONE") && !str_eq(type, "CMD"))
        return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_INSTRUCTION",
                         "Unknown type \"%.100s\" in HEALTHCHECK (try CMD)", type);
    if (str_eq(type, "CMD") && !one->args[1])
        return invalid(err, "", "Missing command after HEALTHCHECK CMD");
    if (!check_texts(one->args, change, err))
        return false;
    test = array_of(one->args + 1);
    json_array_insert_new(test, 0,
                          json_string(str_eq(type, "NONE") ? "NONE"
                                      : one->json          ? "CMD"
                                                           : "CMD-SHELL"));
    json_object_set_new(check, "Test", test);
    return json_object_set(change->config, "Healthcheck", check) == 0;
}

/* --- All of them -------------------------------------------------------------------------------
 */

static bool apply(struct change *change, const struct instruction *one, struct error *err)
{
    if (one->flags && one->kind != INSTRUCTION_HEALTHCHECK && one->kind != INSTRUCTION_OTHER)
        return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_INSTRUCTION", "unknown flag: %.*s",
                         (int)MIN(strcspn(one->flags[0], "="), 100U), one->flags[0]);
    switch (one->kind) {
    case INSTRUCTION_CMD:
        return apply_cmd(change, one, err);
    case INSTRUCTION_ENTRYPOINT:
        return apply_entrypoint(change, one, err);
    case INSTRUCTION_ENV:
    case INSTRUCTION_LABEL:
        return apply_pairs(change, one, err);
    case INSTRUCTION_EXPOSE:
        return apply_expose(change, one, err);
    case INSTRUCTION_HEALTHCHECK:
        return apply_health_check(change, one, err);
    case INSTRUCTION_ONBUILD:
        return apply_onbuild(change, one, err);
    case INSTRUCTION_STOPSIGNAL:
        return apply_stop_signal(change, one, err);
    case INSTRUCTION_USER:
        return apply_user(change, one, err);
    case INSTRUCTION_VOLUME:
        return apply_volume(change, one, err);
    case INSTRUCTION_WORKDIR:
        return apply_workdir(change, one, err);
    case INSTRUCTION_OTHER:
        break;
    }
    return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_INSTRUCTION",
                     "%.100s is not a valid change command", one->name);
}

static bool apply_text(struct change *change, const char *text, struct error *err)
{
    struct instruction_reader reader = {.rest = text};
    size_t count = 0;
    int r = 1;

    while (r > 0) {
        CLEANUP(instruction_done) struct instruction one = {0};
        r = instruction_next(&reader, &one, err);
        if (r > 0 && !apply(change, &one, err))
            return false;
        count += r > 0;
    }
    return r == 0 && (count > 0 || invalid(err, "", "file with no instructions"));
}

bool changes_apply(json_t *config, char *const *changes, size_t count, struct error *err)
{
    struct change change = {.config = config};
    CLEANUP_STRBUF struct strbuf text = {0};
    bool ok;

    if (count == 0)
        return true;
    for (size_t i = 0; i < count; i++) {
        if (text.length + strlen(changes[i]) > CHANGES_MAX_BYTES)
            return invalid(err, "", "the changes are longer than 64 KiB");
        strbuf_add_str(&text, changes[i]);
        strbuf_add_char(&text, '\n');
    }
    if (!json_strv(json_object_get(config, "Env"), "Env", &change.env, err))
        return false;
    ok = apply_text(&change, text.data, err);
    if (ok && change.env)
        json_object_set_new(config, "Env", array_of(change.env));
    strv_free(change.env);
    return ok;
}
