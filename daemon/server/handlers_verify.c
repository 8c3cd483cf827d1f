/* System.Verify: snapshots of a verification while it runs, and what it finds. */
#include <errno.h>

#include "daemon/image/verify.h"
#include "daemon/server/handlers.h"
#include "proto/base/log.h"
#include "proto/davit/v1/system.pb-c.h"

static Davit__V1__VerifyProgress__Phase verify_phase(enum verify_phase phase)
{
    switch (phase) {
    case VERIFY_CHECKING:
        return DAVIT__V1__VERIFY_PROGRESS__PHASE__CHECKING;
    case VERIFY_REPAIRING:
        return DAVIT__V1__VERIFY_PROGRESS__PHASE__REPAIRING;
    case VERIFY_DONE:
        return DAVIT__V1__VERIFY_PROGRESS__PHASE__DONE;
    }
    return DAVIT__V1__VERIFY_PROGRESS__PHASE__PHASE_UNSPECIFIED;
}

static void fill_progress(Davit__V1__VerifyProgress *message, const struct verify_progress *engine)
{
    message->phase = verify_phase(engine->phase);
    message->images_done = (uint32_t)engine->images_done;
    message->images_total = (uint32_t)engine->images_total;
    message->layers_done = (uint32_t)engine->layers_done;
    message->layers_total = (uint32_t)engine->layers_total;
    message->bytes_done = engine->bytes_done;
    message->bytes_total = engine->bytes_total;
    message->bytes_per_second = engine->bytes_per_second;
    message->eta_ms = engine->eta_ms;
    message->problems = (uint32_t)engine->problem_count;
    message->repaired = (uint32_t)engine->repaired_count;
    message->repair_bytes_done = engine->repair_bytes_done;
    message->repair_bytes_total = engine->repair_bytes_total;
}

static char *text(const char *value)
{
    return (char *)(value ? value : "");
}

/* The texts are the problem's. */
static void fill_problem(Davit__V1__VerifyProblem *message, const struct verify_problem *problem)
{
    const struct error *error = &problem->error;

    davit__v1__verify_problem__init(message);
    message->images = problem->images;
    message->n_images = strv_count(problem->images);
    message->image_count = (uint32_t)problem->image_count;
    message->is_layer = digest_is_set(&problem->layer);
    message->digest = (char *)(message->is_layer ? problem->layer.text : problem->image.text);
    message->reason = text(error->reason);
    message->message = text(error->message);
    message->hint = text(error->hint);
    message->repaired = problem->repaired;
}

/* --- The stream --------------------------------------------------------------------------------
 */

/* How often a watcher is sent a snapshot, at most, and how many problems with it: an image may have
 * many names. */
#define SNAPSHOT_INTERVAL_MS 100
#define PROBLEMS_PER_MESSAGE 16

struct watch {
    struct grpc_call *call;
    struct verify *verify;
    uint64_t sequence;
    size_t problems_sent;
};

/* The next ones that are to be sent. */
static size_t take_problems(const struct watch *watch, Davit__V1__VerifyProblem *problems,
                            Davit__V1__VerifyProblem **list)
{
    size_t count = 0;

    for (; count < PROBLEMS_PER_MESSAGE; count++) {
        const struct verify_problem *problem =
            verify_settled_problem(watch->verify, watch->problems_sent + count);
        if (!problem)
            break;
        fill_problem(&problems[count], problem);
        list[count] = &problems[count];
    }
    return count;
}

static bool await_send_snapshot(struct watch *watch, Davit__V1__VerifyResult *result,
                                struct error *err)
{
    Davit__V1__VerifyResponse response = DAVIT__V1__VERIFY_RESPONSE__INIT;
    Davit__V1__VerifyProgress progress = DAVIT__V1__VERIFY_PROGRESS__INIT;
    Davit__V1__VerifyProblem problems[PROBLEMS_PER_MESSAGE], *list[PROBLEMS_PER_MESSAGE];
    struct verify_progress engine;

    verify_progress(watch->verify, &engine);
    fill_progress(&progress, &engine);
    progress.sequence = ++watch->sequence;
    response.progress = &progress;
    response.problems = list;
    response.n_problems = take_problems(watch, problems, list);
    response.result = result;
    watch->problems_sent += response.n_problems;
    return await_grpc_send(watch->call, &response.base, err);
}

static bool verify_task(void *arg, struct error *err)
{
    return await_verify(arg, err);
}

static bool await_watch(struct watch *watch, struct group *group, struct error *err)
{
    int r;

    do {
        if (!await_send_snapshot(watch, NULL, err))
            return false;
        r = await_group_idle(group, SNAPSHOT_INTERVAL_MS);
    } while (r == -ETIMEDOUT && task_check() == 0);
    return await_group(group, err);
}

static bool await_send_result(struct watch *watch, struct error *err)
{
    Davit__V1__VerifyResult result = DAVIT__V1__VERIFY_RESULT__INIT;
    struct verify_progress engine;

    verify_progress(watch->verify, &engine);
    while (watch->problems_sent + PROBLEMS_PER_MESSAGE < engine.problem_count) {
        if (!await_send_snapshot(watch, NULL, err))
            return false;
    }
    result.images = (uint32_t)engine.images_done;
    result.layers = (uint32_t)engine.layers_done;
    result.bytes = engine.bytes_done;
    result.problems = (uint32_t)engine.problem_count;
    result.repaired = (uint32_t)engine.repaired_count;
    return await_send_snapshot(watch, &result, err);
}

/* --- The call ----------------------------------------------------------------------------------
 */

static const char *or_null(const char *value)
{
    return str_empty(value) ? NULL : value;
}

/* Borrowed from the request; the array is the caller's. */
static struct registry_login *logins_of(const Davit__V1__VerifyRequest *request)
{
    struct registry_login *logins = xcalloc(request->n_logins + 1, sizeof(*logins));

    for (size_t i = 0; i < request->n_logins; i++) {
        const Davit__V1__RegistryAuth *auth = request->logins[i]->auth;
        logins[i].domain = request->logins[i]->registry;
        if (auth)
            logins[i].auth =
                (struct registry_auth){or_null(auth->username), or_null(auth->password),
                                       or_null(auth->identity_token)};
    }
    return logins;
}

bool handle_verify(struct grpc_call *call, void *context, struct error *err)
{
    const struct engines *engines = context;
    CLEANUP_MESSAGE ProtobufCMessage *message = await_grpc_request(call, err);
    const Davit__V1__VerifyRequest *request = (const Davit__V1__VerifyRequest *)message;
    CLEANUP_FREE struct registry_login *logins = message ? logins_of(request) : NULL;
    CLEANUP(verify_cleanup) struct verify *verify = NULL;
    CLEANUP(group_done_await) struct group group;
    struct watch watch = {.call = call};

    group_init(&group);
    if (!message)
        return false;
    verify = verify_new(&engines->pull,
                        &(struct verify_request){.images = request->images,
                                                 .image_count = request->n_images,
                                                 .repair = request->repair,
                                                 .logins = logins,
                                                 .login_count = request->n_logins},
                        err);
    if (!verify)
        return false;
    log_info("verify", LOG("images", request->n_images), LOG("repair", request->repair),
             LOG("peer", grpc_call_peer(call)));
    watch.verify = verify;
    return task_spawn(&group, "verify", NULL, verify_task, verify, err) &&
           await_watch(&watch, &group, err) && await_send_result(&watch, err);
}
