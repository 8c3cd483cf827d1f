/* System.Verify: a verification as a job. */
#include "daemon/image/verify.h"
#include "daemon/server/handlers.h"
#include "daemon/server/job_message.h"
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

/* --- The job -----------------------------------------------------------------------------------
 */

/* What is told of problems: they are in every snapshot, and remembered. */
#define PROBLEMS_MAX_BYTES (128 * KIB)

struct verify_job {
    struct verify *verify;
    char *subject;
    bool verified;
};

static void verify_job_free(void *arg)
{
    struct verify_job *job = arg;

    verify_free(job->verify);
    free(job->subject);
    free(job);
}

static bool run_verify(void *arg, struct error *err)
{
    struct verify_job *job = arg;

    job->verified = await_verify(job->verify, err);
    return job->verified;
}

static void fill_job_progress(void *arg, struct job_progress *ret)
{
    const struct verify_job *job = arg;
    struct verify_progress engine;

    verify_progress(job->verify, &engine);
    ret->phase = engine.phase == VERIFY_DONE ? JOB_ENDED : JOB_TRANSFERRING;
    ret->bytes_fetched = engine.bytes_done;
    ret->bytes_total = engine.bytes_total;
    ret->bytes_per_second = engine.bytes_per_second;
    ret->eta_ms = engine.eta_ms;
    if (engine.bytes_total)
        ret->percent = MIN((unsigned int)(engine.bytes_done * 100 / engine.bytes_total), 99);
}

/* In the order in which they were settled, so many as there is room for. */
static void add_problems(const struct verify *verify, struct strbuf *ret)
{
    const struct verify_problem *problem;
    size_t bytes = 0;

    for (size_t i = 0; (problem = verify_settled_problem(verify, i)); i++) {
        Davit__V1__Job message = DAVIT__V1__JOB__INIT;
        Davit__V1__VerifyDetails details = DAVIT__V1__VERIFY_DETAILS__INIT;
        Davit__V1__VerifyProblem one, *list[] = {&one};
        fill_problem(&one, problem);
        details.problems = list;
        details.n_problems = 1;
        message.verify = &details;
        bytes += protobuf_c_message_get_packed_size(&message.base);
        if (bytes > PROBLEMS_MAX_BYTES)
            return;
        job_details_add(ret, &message); /* repeated members are concatenated */
    }
}

static void add_details(void *arg, struct strbuf *ret)
{
    const struct verify_job *job = arg;
    Davit__V1__Job message = DAVIT__V1__JOB__INIT;
    Davit__V1__VerifyDetails details = DAVIT__V1__VERIFY_DETAILS__INIT;
    Davit__V1__VerifyProgress progress = DAVIT__V1__VERIFY_PROGRESS__INIT;
    Davit__V1__VerifyResult result = DAVIT__V1__VERIFY_RESULT__INIT;
    struct verify_progress engine;

    verify_progress(job->verify, &engine);
    fill_progress(&progress, &engine);
    details.progress = &progress;
    message.verify = &details;
    if (job->verified) {
        result.images = (uint32_t)engine.images_done;
        result.layers = (uint32_t)engine.layers_done;
        result.bytes = engine.bytes_done;
        result.problems = (uint32_t)engine.problem_count;
        result.repaired = (uint32_t)engine.repaired_count;
        message.result_case = DAVIT__V1__JOB__RESULT_VERIFY_RESULT;
        message.verify_result = &result;
    }
    job_details_add(ret, &message);
    add_problems(job->verify, ret);
}

static const struct job_ops verify_ops = {
    .await_run = run_verify,
    .progress = fill_job_progress,
    .details = add_details,
    .free = verify_job_free,
};

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

/* "all images", "busybox and 2 more"; the caller's. */
static char *subject_of(const Davit__V1__VerifyRequest *request)
{
    if (request->n_images == 0)
        return xstrdup("all images");
    if (request->n_images == 1)
        return xstrdup(request->images[0]);
    return xasprintf("%s and %zu more", request->images[0], request->n_images - 1);
}

bool verify_spec(const struct engines *engines, const ProtobufCMessage *message,
                 struct job_spec *ret, struct error *err)
{
    const Davit__V1__VerifyRequest *request = (const Davit__V1__VerifyRequest *)message;
    CLEANUP_FREE struct registry_login *logins = logins_of(request);
    const struct verify_request engine_request = {
        .images = request->images,
        .image_count = request->n_images,
        .repair = request->repair,
        .logins = logins,
        .login_count = request->n_logins,
    };
    struct verify *verify = verify_new(&engines->pull, &engine_request, err);
    struct verify_job *job;

    if (!verify)
        return false;
    job = xcalloc(1, sizeof(*job));
    job->verify = verify;
    job->subject = subject_of(request);
    *ret = (struct job_spec){.kind = JOB_VERIFY,
                             .subject = job->subject,
                             .ops = &verify_ops,
                             .arg = job};
    return true;
}

static bool has_secrets(const Davit__V1__VerifyRequest *request)
{
    for (size_t i = 0; i < request->n_logins; i++) {
        const Davit__V1__RegistryAuth *auth = request->logins[i]->auth;
        if (auth && (*auth->username || *auth->password || *auth->identity_token))
            return true;
    }
    return false;
}

bool handle_verify(struct grpc_call *call, void *context, struct error *err)
{
    const struct engines *engines = context;
    CLEANUP_MESSAGE ProtobufCMessage *message = await_grpc_request(call, err);
    const Davit__V1__VerifyRequest *request = (const Davit__V1__VerifyRequest *)message;
    Davit__V1__VerifyRequest again = DAVIT__V1__VERIFY_REQUEST__INIT;
    struct job_spec spec;
    struct job *job;

    if (!message || !verify_spec(engines, message, &spec, err))
        return false;
    again.n_images = request->n_images;
    again.images = request->images;
    again.repair = request->repair;
    job = job_join_or_start(engines->jobs, &spec, has_secrets(request) ? NULL : &again.base, err);
    if (!job)
        return false;
    log_info("verify", LOG("images", request->n_images), LOG("repair", request->repair),
             LOG("job", job_info(job).id), LOG("peer", grpc_call_peer(call)));
    return await_follow_job(call, job,
                            (struct job_following){request->detach, request->cancel_on_leave}, err);
}
