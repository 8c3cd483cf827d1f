/* Images.Plan: what a pull would do. */
#include "daemon/image/pull.h"
#include "daemon/server/handlers.h"

static char *or_null(char *value)
{
    return str_empty(value) ? NULL : value;
}

static Davit__V1__PlannedLayer__What what_of(const struct pull_plan_layer *layer)
{
    switch (layer->what) {
    case PLAN_FETCH:
        return DAVIT__V1__PLANNED_LAYER__WHAT__FETCH;
    case PLAN_SHARED:
        return DAVIT__V1__PLANNED_LAYER__WHAT__SHARED;
    case PLAN_PRESENT:
        return DAVIT__V1__PLANNED_LAYER__WHAT__PRESENT;
    }
    return DAVIT__V1__PLANNED_LAYER__WHAT__WHAT_UNSPECIFIED;
}

static bool await_send_plan(struct grpc_call *call, const struct pull *pull,
                            const struct pull_plan *plan, struct error *err)
{
    CLEANUP_FREE char *reference = reference_familiar(pull_reference(pull));
    CLEANUP_FREE Davit__V1__PlannedLayer *layers = xcalloc(plan->layer_count + 1, sizeof(*layers));
    CLEANUP_FREE Davit__V1__PlannedLayer **list = xcalloc(plan->layer_count + 1, sizeof(*list));
    Davit__V1__PullPlan message = DAVIT__V1__PULL_PLAN__INIT;

    for (size_t i = 0; i < plan->layer_count; i++) {
        davit__v1__planned_layer__init(&layers[i]);
        layers[i].digest = plan->layers[i].digest.text;
        layers[i].bytes_total = plan->layers[i].bytes_total;
        layers[i].bytes_kept = plan->layers[i].bytes_kept;
        layers[i].what = what_of(&plan->layers[i]);
        list[i] = &layers[i];
    }
    message.reference = reference;
    message.digest = (char *)plan->digest.text;
    message.image_id = (char *)plan->image_id.text;
    message.layers = list;
    message.n_layers = plan->layer_count;
    message.sources = plan->sources;
    message.n_sources = strv_count(plan->sources);
    message.bytes_total = plan->bytes_total;
    message.bytes_to_fetch = plan->bytes_to_fetch;
    message.disk_bytes = plan->disk_bytes;
    message.disk_free_bytes = plan->space.free_bytes;
    message.disk_reserve_bytes = plan->space.reserve_bytes;
    message.fits = plan->fits;
    return await_grpc_send(call, &message.base, err);
}

bool handle_plan(struct grpc_call *call, void *context, struct error *err)
{
    const struct engines *engines = context;
    CLEANUP_MESSAGE ProtobufCMessage *message = await_grpc_request(call, err);
    const Davit__V1__PullRequest *request = (const Davit__V1__PullRequest *)message;
    CLEANUP(pull_cleanup) struct pull *pull = NULL;
    CLEANUP(pull_plan_done) struct pull_plan plan = {0};
    struct pull_request wanted = {0};

    if (!message)
        return false;
    wanted.reference = request->reference;
    wanted.platform = request->platform;
    if (request->auth) {
        wanted.auth.username = or_null(request->auth->username);
        wanted.auth.password = or_null(request->auth->password);
        wanted.auth.identity_token = or_null(request->auth->identity_token);
    }
    pull = pull_new(&engines->pull, &wanted, err);
    return pull && await_pull_plan(pull, &plan, err) && await_send_plan(call, pull, &plan, err);
}
