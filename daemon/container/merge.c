#include "daemon/container/merge.h"

#include "proto/base/strbuf.h"

#define DEFAULT_PATH "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define HOSTNAME_MAX 64

/* --- Command ---------------------------------------------------------------------------------- */

static bool is_reset(char *const *entrypoint)
{
    return !entrypoint[0] || (!entrypoint[0][0] && !entrypoint[1]);
}

char **merge_command(char *const *image_entrypoint, char *const *image_cmd,
                     char *const *user_entrypoint, char *const *user_command, struct error *err)
{
    bool has_command = strv_count(user_command) > 0;
    char *const *entrypoint = user_entrypoint ? user_entrypoint : image_entrypoint;
    char *const *command = has_command ? user_command : user_entrypoint ? NULL : image_cmd;
    size_t count = 0, entrypoint_count, command_count;
    char **args;

    if (entrypoint && is_reset(entrypoint))
        entrypoint = NULL;
    entrypoint_count = strv_count(entrypoint);
    command_count = strv_count(command);
    if (entrypoint_count + command_count == 0) {
        error_set(err, ERROR_INVALID_ARGUMENT, "NO_COMMAND", "no command specified");
        error_hint(err, "the image names no command: give one after the image's name");
        return NULL;
    }
    args = xcalloc(entrypoint_count + command_count + 1, sizeof(*args));
    for (size_t i = 0; i < entrypoint_count; i++)
        args[count++] = xstrdup(entrypoint[i]);
    for (size_t i = 0; i < command_count; i++)
        args[count++] = xstrdup(command[i]);
    return args;
}

/* --- Environment ------------------------------------------------------------------------------ */

struct environment {
    char **items; /* room for every entry that can come */
    size_t count;
};

static size_t name_length(const char *item)
{
    return strcspn(item, "=");
}

/* Index of the variable that item names; count if there is none. */
static size_t find_variable(const struct environment *env, const char *item)
{
    size_t length = name_length(item), i;

    for (i = 0; i < env->count; i++) {
        if (name_length(env->items[i]) == length && strncmp(env->items[i], item, length) == 0)
            break;
    }
    return i;
}

static void env_put(struct environment *env, const char *item)
{
    size_t at = find_variable(env, item);
    bool found = at < env->count;

    if (!strchr(item, '=')) {
        if (found) {
            free(env->items[at]);
            env->count--;
            memmove(&env->items[at], &env->items[at + 1], (env->count - at) * sizeof(char *));
            env->items[env->count] = NULL;
        }
        return;
    }
    if (found)
        free(env->items[at]);
    else
        env->count++;
    env->items[at] = xstrdup(item);
}

static bool names_variable(char *const *env, const char *item)
{
    size_t length = name_length(item);

    for (size_t i = 0; env && env[i]; i++) {
        if (name_length(env[i]) == length && strncmp(env[i], item, length) == 0)
            return true;
    }
    return false;
}

char **merge_environment(char *const *image_env, char *const *user_env, const char *hostname,
                         const char *home, struct error *err)
{
    CLEANUP_FREE char *hostname_item = xasprintf("HOSTNAME=%s", hostname);
    CLEANUP_FREE char *home_item = xasprintf("HOME=%s", home);
    size_t count = strv_count(image_env) + strv_count(user_env);
    struct environment env = {0};

    if (count > ENVIRONMENT_MAX) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "INVALID_ENVIRONMENT",
                  "an environment of %zu variables: the limit is %d", count, ENVIRONMENT_MAX);
        return NULL;
    }
    env.items = xcalloc(count + 4, sizeof(char *)); /* PATH, HOSTNAME, HOME, the end */
    env_put(&env, DEFAULT_PATH);
    env_put(&env, hostname_item);
    for (size_t i = 0; user_env && user_env[i]; i++)
        env_put(&env, user_env[i]);
    for (size_t i = 0; image_env && image_env[i]; i++) {
        if (!names_variable(user_env, image_env[i]))
            env_put(&env, image_env[i]);
    }
    if (find_variable(&env, "HOME") == env.count)
        env_put(&env, home_item);
    return env.items;
}

/* --- Working directory and host name ---------------------------------------------------------- */

/* As Go's filepath.Clean does for an absolute path: by its text, before any link is followed. */
static char *clean_path(const char *path)
{
    struct strbuf out = {0};
    size_t length;

    for (; *path; path += length) {
        path += strspn(path, "/");
        length = strcspn(path, "/");
        if (length == 0 || (length == 1 && path[0] == '.'))
            continue;
        if (length == 2 && path[0] == '.' && path[1] == '.') {
            while (out.length > 0 && out.data[--out.length] != '/')
                ;
            continue;
        }
        strbuf_add_char(&out, '/');
        strbuf_add(&out, path, length);
    }
    if (out.length == 0)
        strbuf_add_char(&out, '/');
    out.data[out.length] = '\0';
    return strbuf_take(&out);
}

char *merge_working_dir(const char *image_dir, const char *user_dir, struct error *err)
{
    const char *dir = str_empty(user_dir) ? image_dir : user_dir;

    if (str_empty(dir))
        return xstrdup("/");
    if (*dir != '/') {
        error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_WORKING_DIR",
                  "the working directory '%s' is invalid, it needs to be an absolute path", dir);
        return NULL;
    }
    return clean_path(dir);
}

bool check_hostname(const char *hostname, struct error *err)
{
    size_t length = strlen(hostname);
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                  "-._";

    if (length > 0 && length <= HOSTNAME_MAX && strspn(hostname, allowed) == length &&
        hostname[0] != '-' && hostname[0] != '.')
        return true;
    error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_HOSTNAME", "invalid hostname");
    return error_hint(err, "a hostname is 1 to %d letters, digits, '-', '_' and '.'", HOSTNAME_MAX);
}
