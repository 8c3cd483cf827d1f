#include "client/job_call.h"
#include "client/painter.h"
#include "client/ui/verification.h"
#include "proto/davit/v1/images.pb-c.h"
#include "proto/davit/v1/system.pb-c.h"

struct verify {
    struct cli *cli;
    bool json, quiet;
    struct painter painter;
    bool drawn;          /* the cursor is hidden and stands on the live line */
    struct strbuf lines; /* of problems, not yet shown */
    json_t *problems;
    size_t problem_count; /* that were told */
    Davit__V1__Job *now;  /* the newest snapshot; NULL before the first */
};

/* --- Painting ----------------------------------------------------------------------------------
 */

static void leave(void *arg, struct strbuf *out)
{
    struct verify *verify = arg;
    if (verify->drawn)
        verification_leave(out);
    verify->drawn = false;
}

/* Problems stay, above the line that is drawn again and again. */
static void render(void *arg, struct strbuf *out)
{
    struct verify *verify = arg;
    if (verify->lines.length)
        leave(verify, out);
    strbuf_add(out, strbuf_text(&verify->lines), verify->lines.length);
    strbuf_clear(&verify->lines);
    if (!verify->painter.live || !verify->now)
        return;
    verification_draw(verify->now->verify->progress, terminal_size(verify->painter.fd), out);
    verify->drawn = true;
}

static void take_problem(struct verify *verify, const verify_problem *problem)
{
    if (verify->json)
        json_array_append_new(verify->problems, verification_problem_json(problem));
    else
        verification_add_problem(problem, &verify->lines);
}

/* Each snapshot has all problems, those of the one before first. */
static void set_now(struct verify *verify, Davit__V1__Job *now)
{
    if (!now || !now->verify || !now->verify->progress) {
        davit__v1__job__free_unpacked(now, NULL);
        return;
    }
    davit__v1__job__free_unpacked(verify->now, NULL);
    verify->now = now;
    while (verify->problem_count < now->verify->n_problems)
        take_problem(verify, now->verify->problems[verify->problem_count++]);
    painter_changed(&verify->painter, verify->painter.live || verify->lines.length > 0);
}

static const verify_result *result_of(const struct verify *verify)
{
    const Davit__V1__Job *now = verify->now;
    return now && now->result_case == DAVIT__V1__JOB__RESULT_VERIFY_RESULT ? now->verify_result
                                                                           : NULL;
}

/* --- Credentials -------------------------------------------------------------------------------
 */

/* For every registry that an image here has a name in. */
struct logins {
    Davit__V1__RegistryLogin **items;
    size_t count;
};

static void logins_done(struct logins *logins)
{
    for (size_t i = 0; i < logins->count; i++)
        davit__v1__registry_login__free_unpacked(logins->items[i], NULL);
    free(logins->items);
}

static bool await_add_login(struct cli *cli, struct logins *logins, const char *name,
                            struct error *err)
{
    CLEANUP_FREE char *domain = registry_domain(name);
    CLEANUP_CREDENTIALS struct credentials credentials = {0};
    for (size_t i = 0; domain && i < logins->count; i++) {
        if (str_eq(logins->items[i]->registry, domain))
            return true;
    }
    if (!domain)
        return true;
    if (!await_cli_credentials(cli, domain, &credentials, err))
        return false;
    Davit__V1__RegistryLogin *login = xcalloc(1, sizeof(*login));
    davit__v1__registry_login__init(login);
    login->registry = TAKE(domain);
    login->auth = xcalloc(1, sizeof(*login->auth));
    davit__v1__registry_auth__init(login->auth);
    login->auth->username = credentials.username ? TAKE(credentials.username) : xstrdup("");
    login->auth->password = credentials.password ? TAKE(credentials.password) : xstrdup("");
    login->auth->identity_token =
        credentials.identity_token ? TAKE(credentials.identity_token) : xstrdup("");
    logins->items = xrealloc(logins->items, (logins->count + 1) * sizeof(*logins->items));
    logins->items[logins->count++] = login;
    return true;
}

static void response_free(Davit__V1__ListImagesResponse **response)
{
    davit__v1__list_images_response__free_unpacked(*response, NULL);
}

static bool await_find_logins(struct cli *cli, struct logins *logins, struct error *err)
{
    Davit__V1__ListImagesRequest request = DAVIT__V1__LIST_IMAGES_REQUEST__INIT;
    CLEANUP(response_free) Davit__V1__ListImagesResponse *response = NULL;
    if (!await_cli_call(cli, "/davit.v1.Images/List", &request.base,
                        &davit__v1__list_images_response__descriptor,
                        (ProtobufCMessage **)&response, err))
        return false;
    for (size_t i = 0; i < response->n_images; i++) {
        const Davit__V1__Image *image = response->images[i];
        for (size_t k = 0; k < image->n_repo_tags; k++) {
            if (!await_add_login(cli, logins, image->repo_tags[k], err))
                return false;
        }
        for (size_t k = 0; k < image->n_repo_digests; k++) {
            if (!await_add_login(cli, logins, image->repo_digests[k], err))
                return false;
        }
    }
    return true;
}

/* --- The call ----------------------------------------------------------------------------------
 */

static struct grpc_call *await_start_call(struct cli *cli, struct error *err)
{
    Davit__V1__VerifyRequest request = DAVIT__V1__VERIFY_REQUEST__INIT;
    CLEANUP(logins_done) struct logins logins = {0};
    request.images = cli->flags.args;
    request.n_images = cli->flags.arg_count;
    request.repair = flag_bool(&cli->flags, "repair");
    request.cancel_on_leave = true;
    if (!await_cli_connect(cli, err) || (request.repair && !await_find_logins(cli, &logins, err)))
        return NULL;
    request.logins = logins.items;
    request.n_logins = logins.count;
    return await_job_call(cli, "/davit.v1.System/Verify", &request.base, err);
}

static bool await_snapshots(struct verify *verify, struct error *err)
{
    CLEANUP(grpc_call_cleanup) struct grpc_call *call = await_start_call(verify->cli, err);
    ProtobufCMessage *message = NULL;
    int r;
    if (!call)
        return false;
    while ((r = await_grpc_recv(call, &message, err)) > 0) {
        Davit__V1__JobUpdate *update = (Davit__V1__JobUpdate *)message;
        set_now(verify, TAKE(update->job));
        davit__v1__job_update__free_unpacked(update, NULL);
    }
    if (r < 0)
        return cli_daemon_error(err);
    if (result_of(verify))
        return true;
    return error_set(err, ERROR_INTERNAL, NULL,
                     "the daemon ended the verification without a result");
}

/* --- davit system verify -----------------------------------------------------------------------
 */

static bool await_finish(struct verify *verify, struct error *err)
{
    const verify_result *result = result_of(verify);
    CLEANUP_STRBUF struct strbuf text = {0};
    leave(verify, &text);
    if (verify->json)
        verification_add_json(result, TAKE(verify->problems), &text);
    else if (result->problems > verify->problem_count)
        strbuf_addf(&text, "%zu more problems: see 'davit info' and the daemon's log\n",
                    result->problems - verify->problem_count);
    if (!verify->json && !verify->quiet)
        verification_add_result(result, &text);
    verify->cli->exit_code = result->problems > result->repaired ? EXIT_FAILURE : EXIT_SUCCESS;
    return await_cli_print(verify->cli, text.data, text.length, err);
}

static void verify_done_await(struct verify *verify)
{
    painter_done_await(&verify->painter);
    strbuf_done(&verify->lines);
    json_decref(verify->problems);
    davit__v1__job__free_unpacked(verify->now, NULL);
}

static bool await_verify(struct cli *cli, struct error *err)
{
    CLEANUP(verify_done_await)
    struct verify verify = {
        .cli = cli,
        .json = str_eq(flag_string(&cli->flags, "format"), "json"),
        .quiet = flag_bool(&cli->flags, "quiet"),
        .problems = json_array(),
    };
    CLEANUP_ERROR struct error show_error = {0};
    verify.painter = (struct painter){
        .cli = cli,
        .fd = STDOUT_FILENO,
        .live = !verify.json && !verify.quiet && terminal_is_smart(STDOUT_FILENO),
        .render = verify.json ? NULL : render,
        .leave = leave,
        .arg = &verify,
    };
    cli_cancel_on_signals(cli);
    if (!painter_start(&verify.painter, err))
        return false;
    const bool verified = await_snapshots(&verify, err);
    const bool shown = await_painter_finish(&verify.painter, &show_error);
    if (error_is_set(&verify.painter.error))
        return error_move(err, &verify.painter.error);
    if (!verified)
        return false;
    return shown ? await_finish(&verify, err) : error_move(err, &show_error);
}

static const struct flag flags[] = {
    {.name = "format", .type = FLAG_STRING, .help = "Format the output", .choices = "json"},
    {.name = "quiet", .shorthand = 'q', .type = FLAG_BOOL, .help = "Only print problems"},
    {.name = "repair", .type = FLAG_BOOL, .help = "Fetch again what is damaged"},
};

const struct command verify_command = {
    .usage = "[OPTIONS] [IMAGE...]",
    .summary = "Verify what is stored of images, of all if none is named",
    .flags = flags,
    .flag_count = ARRAY_SIZE(flags),
    .max_args = ANY_NUMBER,
    .completes = COMPLETE_IMAGES,
    .description = "Reads again all that is stored of images, or of those named, and compares it "
                   "with its digests. With --repair what is damaged is fetched again. The exit "
                   "code is 1 if a problem is left.",
    .examples = "    davit system verify\n"
                "    davit system verify --repair debian:12",
    .await_run = await_verify,
};
