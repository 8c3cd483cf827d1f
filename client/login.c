#include <stdio.h>

#include "client/job_call.h"
#include "client/prompt.h"
#include "client/secrets.h"
#include "proto/davit/v1/registries.pb-c.h"

struct login {
    struct cli *cli;
    char *domain; /* "docker.io", "host:5000" */
    struct credentials credentials;
    bool renewed; /* the registry gave a token that is to be kept */
};

static void login_done(struct login *login)
{
    free(login->domain);
    credentials_done(&login->credentials);
}

static bool await_say(struct cli *cli, const char *text, struct error *err)
{
    return await_cli_print(cli, text, strlen(text), err);
}

static bool await_warn(struct cli *cli, const char *text, struct error *err)
{
    return await_cli_print_error(cli, text, strlen(text), err);
}

/* --- Asking the registry ----------------------------------------------------------------------
 */

static void response_free(Davit__V1__LoginResponse **response)
{
    if (*response && (*response)->identity_token)
        explicit_bzero((*response)->identity_token, strlen((*response)->identity_token));
    davit__v1__login_response__free_unpacked(*response, NULL);
}

/* A token that the registry gives takes the password's place. */
static bool await_verify(struct login *login, struct error *err)
{
    struct credentials *credentials = &login->credentials;
    Davit__V1__LoginRequest request = DAVIT__V1__LOGIN_REQUEST__INIT;
    Davit__V1__RegistryAuth auth = DAVIT__V1__REGISTRY_AUTH__INIT;
    CLEANUP(response_free) Davit__V1__LoginResponse *response = NULL;

    auth.username = text_or_empty(credentials->username);
    auth.password = text_or_empty(credentials->password);
    auth.identity_token = text_or_empty(credentials->identity_token);
    request.registry = login->domain;
    request.auth = &auth;
    if (!await_cli_call(login->cli, "/davit.v1.Registries/Login", &request.base,
                        &davit__v1__login_response__descriptor, (ProtobufCMessage **)&response,
                        err))
        return false;
    if (!str_empty(response->identity_token)) {
        login->renewed = true;
        free_secret(credentials->identity_token);
        credentials->identity_token = xstrdup(response->identity_token);
    }
    return true;
}

static bool await_keep(const struct login *login, struct error *err)
{
    CLEANUP_FREE char *unencrypted = NULL;
    CLEANUP_STRBUF struct strbuf text = {0};

    if (!await_credentials_store(login->domain, &login->credentials, &unencrypted, err))
        return false;
    if (unencrypted) {
        strbuf_addf(&text,
                    "\nWARNING! Your credentials are stored unencrypted in '%s'.\n"
                    "Configure a credential helper to remove this warning. See\n"
                    "https://docs.docker.com/go/credential-store/\n\n",
                    unencrypted);
        if (!await_warn(login->cli, strbuf_text(&text), err))
            return false;
    }
    return await_say(login->cli, "Login Succeeded\n", err);
}

/* --- Who it is --------------------------------------------------------------------------------
 */

static const char about_docker_hub[] =
    "Log in with your Docker ID or email address to push and pull images from Docker Hub. If you "
    "don't have a Docker ID, head over to https://hub.docker.com/ to create one.\n"
    "You can log in with your password or a Personal Access Token (PAT). Using a limited-scope PAT "
    "grants better security and is required for organizations using SSO. Learn more at "
    "https://docs.docker.com/go/access-tokens/\n\n";

static bool await_ask_username(struct login *login, const char *before, struct error *err)
{
    CLEANUP_FREE char *question =
        str_empty(before) ? xstrdup("Username: ") : xasprintf("Username (%s): ", before);
    CLEANUP_FREE char *answer = NULL;

    if (str_eq(login->domain, "docker.io") && str_empty(before) &&
        !await_say(login->cli, about_docker_hub, err))
        return false;
    answer = await_prompt(login->cli, question, false, err);
    if (!answer)
        return false;
    if (str_empty(answer) && str_empty(before))
        return error_set(err, ERROR_INVALID_ARGUMENT, NULL, "Error: Non-null Username Required");
    login->credentials.username = str_empty(answer) ? xstrdup(before) : TAKE(answer);
    return true;
}

/* What is not known yet. `before`: the name that the last login had. */
static bool await_ask(struct login *login, const char *before, struct error *err)
{
    struct credentials *credentials = &login->credentials;

    if ((!credentials->username || !credentials->password) && !isatty(STDIN_FILENO)) {
        error_set(err, ERROR_FAILED_PRECONDITION, NULL,
                  "Error: Cannot perform an interactive login from a non TTY device");
        return error_hint(err, "give --username and --password-stdin");
    }
    if (!credentials->username && !await_ask_username(login, before, err))
        return false;
    if (!credentials->password)
        credentials->password = await_prompt(login->cli, "Password: ", true, err);
    if (!credentials->password)
        return false;
    return *credentials->password
               ? true
               : error_set(err, ERROR_INVALID_ARGUMENT, NULL, "Error: Password Required");
}

/* --- The ways in ------------------------------------------------------------------------------
 */

/* With what is stored from a login before. True with *ret_done if that was enough; *ret_before is
 * its user's name. */
static bool await_login_as_before(struct login *login, bool *ret_done, char **ret_before,
                                  struct error *err)
{
    CLEANUP_STRBUF struct strbuf text = {0};
    CLEANUP_ERROR struct error refusal = {0};
    struct credentials *credentials = &login->credentials;

    *ret_done = false;
    if (!await_cli_credentials(login->cli, login->domain, credentials, err))
        return false;
    if (!credentials->username && !credentials->identity_token)
        return true;
    strbuf_add_str(&text, "Authenticating with existing credentials...");
    if (credentials->username) {
        strbuf_add_str(&text, " [Username: ");
        strbuf_add_printable(&text, credentials->username);
        strbuf_add_char(&text, ']');
    }
    strbuf_add_str(&text, "\n\n Info -> To login with a different account, run 'davit logout' "
                          "followed by 'davit login'\n\n\n");
    if (!await_warn(login->cli, strbuf_text(&text), err))
        return false;
    if (await_verify(login, &refusal)) {
        *ret_done = true;
        return login->renewed ? await_keep(login, err)
                              : await_say(login->cli, "Login Succeeded\n", err);
    }
    if (refusal.code != ERROR_UNAUTHENTICATED && refusal.code != ERROR_PERMISSION_DENIED)
        return error_move(err, &refusal);
    strbuf_clear(&text);
    strbuf_addf(&text, "Login did not succeed, error: %s\n", refusal.message);
    *ret_before = TAKE(credentials->username);
    credentials_done(credentials);
    return await_warn(login->cli, strbuf_text(&text), err);
}

static bool await_login(struct login *login, struct error *err)
{
    CLEANUP_FREE char *before = NULL;
    bool done = false;

    if (!login->credentials.username && !login->credentials.password &&
        !await_login_as_before(login, &done, &before, err))
        return false;
    return done ||
           (await_ask(login, before, err) && await_verify(login, err) && await_keep(login, err));
}

static bool await_take_flags(struct login *login, struct error *err)
{
    const struct flags *flags = &login->cli->flags;
    const char *username = flag_string(flags, "username");
    const char *password = flag_string(flags, "password");
    const bool from_stdin = flag_bool(flags, "password-stdin");

    if (from_stdin && !str_empty(password))
        return error_set(
            err, ERROR_INVALID_ARGUMENT, NULL,
            "conflicting options: cannot specify both --password and --password-stdin");
    if (from_stdin && str_empty(username))
        return error_set(err, ERROR_INVALID_ARGUMENT, NULL,
                         "the --password-stdin option requires --username to be set");
    if (!str_empty(password) &&
        !await_warn(login->cli,
                    "WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n",
                    err))
        return false;
    if (!str_empty(username))
        login->credentials.username = xstrdup(username);
    if (!str_empty(password))
        login->credentials.password = xstrdup(password);
    if (!from_stdin)
        return true;
    login->credentials.password = await_standard_input(err);
    if (str_empty(login->credentials.password))
        free_secret(TAKE(login->credentials.password));
    return !error_is_set(err);
}

static bool await_login_command(struct cli *cli, struct error *err)
{
    CLEANUP(login_done) struct login login = {.cli = cli};

    cli_cancel_on_signals(cli);
    login.domain = registry_of_argument(cli->flags.arg_count ? cli->flags.args[0] : NULL, err);
    return login.domain && await_take_flags(&login, err) && await_login(&login, err);
}

static const struct flag flags[] = {
    {.name = "password",
     .shorthand = 'p',
     .type = FLAG_STRING,
     .help = "Password or Personal Access Token (PAT); others see it in the list of processes"},
    {.name = "password-stdin",
     .type = FLAG_BOOL,
     .help = "Take the Password or Personal Access Token (PAT) from stdin"},
    {.name = "username", .shorthand = 'u', .type = FLAG_STRING, .help = "Username"},
};

const struct command login_command = {
    .usage = "[OPTIONS] [SERVER]",
    .summary = "Authenticate to a registry",
    .flags = flags,
    .flag_count = ARRAY_SIZE(flags),
    .max_args = 1,
    .description = "Verifies a name and a password with a registry, Docker Hub if none is named, "
                   "and keeps them where Docker does: in ~/.docker/config.json, or with the "
                   "program that it names. What is not given is asked for.",
    .examples = "    davit login\n"
                "    davit login -u robot --password-stdin registry.example.com < token",
    .await_run = await_login_command,
};

/* --- davit logout -----------------------------------------------------------------------------
 */

/* As Docker: what cannot be erased is a warning. */
static bool await_logout(struct cli *cli, struct error *err)
{
    CLEANUP_ERROR struct error problem = {0};
    CLEANUP_STRBUF struct strbuf text = {0};
    CLEANUP_FREE char *domain =
        registry_of_argument(cli->flags.arg_count ? cli->flags.args[0] : NULL, err);

    if (!domain)
        return false;
    strbuf_addf(&text, "Removing login credentials for %s\n", credentials_key(domain));
    if (!await_say(cli, strbuf_text(&text), err))
        return false;
    if (await_credentials_erase(domain, &problem))
        return true;
    strbuf_clear(&text);
    strbuf_addf(&text, "WARNING: could not erase credentials:\n%s: %s\n", credentials_key(domain),
                problem.message);
    return await_warn(cli, strbuf_text(&text), err);
}

const struct command logout_command = {
    .usage = "[SERVER]",
    .summary = "Log out from a registry",
    .max_args = 1,
    .description = "Removes what login has kept for a registry, Docker Hub if none is named.",
    .examples = "    davit logout registry.example.com",
    .await_run = await_logout,
};
