/* Events.Subscribe: from the store's table to who asked, at its pace. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "daemon/server/event_filter.h"
#include "daemon/server/handlers.h"
#include "daemon/store/event.h"
#include "proto/base/json.h"
#include "proto/davit/v1/events.pb-c.h"

/* --- Sending -----------------------------------------------------------------------------------
 */

static bool await_send_event(struct grpc_call *call, const struct event_record *event,
                             const json_t *attributes, struct error *err)
{
    Davit__V1__Event message = DAVIT__V1__EVENT__INIT;
    size_t size = json_object_size(attributes);
    CLEANUP_FREE Davit__V1__Event__Attribute *items = xcalloc(size + 1, sizeof(*items));
    CLEANUP_FREE Davit__V1__Event__Attribute **list =
        xcalloc(size + 1, sizeof(struct Davit__V1__Event__Attribute *));
    const char *key;
    json_t *value;

    message.id = (uint64_t)event->id;
    message.time_unix_ns = event->time_unix_ns;
    message.type = (char *)event->type;
    message.action = (char *)event->action;
    message.actor_id = (char *)event->actor;
    message.attributes = list;
    json_object_foreach ((json_t *)attributes, key, value) {
        Davit__V1__Event__Attribute *item = &items[message.n_attributes];
        davit__v1__event__attribute__init(item);
        item->name = (char *)key;
        item->value = (char *)json_string_value(value);
        list[message.n_attributes++] = item;
    }
    return await_grpc_send(call, &message.base, err);
}

static bool await_send_gap(struct grpc_call *call, int64_t first, int64_t last, struct error *err)
{
    const struct event_record gap = {
        .id = last, .time_unix_ns = wall_clock_ns(), .type = "davit", .action = "gap", .actor = ""};
    CLEANUP_FREE char *first_text = xasprintf("%" PRId64, first);
    CLEANUP_FREE char *last_text = xasprintf("%" PRId64, last);
    CLEANUP_JSON json_t *attributes =
        json_pack("{s:s, s:s}", "first", first_text, "last", last_text);

    return await_send_event(call, &gap, attributes, err);
}

/* --- The subscription --------------------------------------------------------------------------
 */

struct subscription {
    struct grpc_call *call;
    struct store *store;
    int64_t after_id;
    int64_t until_unix_ns; /* 0: never */
    char *const *filters;
    size_t filter_count;
};

static bool await_begin(struct subscription *subscription,
                        const Davit__V1__SubscribeRequest *request, struct error *err)
{
    switch (request->since_case) {
    case DAVIT__V1__SUBSCRIBE_REQUEST__SINCE_SINCE_ID:
        /* One that is not there yet: those that come. */
        subscription->after_id = (int64_t)MIN(request->since_id, (uint64_t)INT64_MAX);
        return true;
    case DAVIT__V1__SUBSCRIBE_REQUEST__SINCE_SINCE_UNIX_NS:
        return await_event_id_before(subscription->store, request->since_unix_ns,
                                     &subscription->after_id, err);
    default:
        subscription->after_id = event_last_id(subscription->store);
        return true;
    }
}

static bool is_over(const struct subscription *subscription, int64_t unix_ns)
{
    return subscription->until_unix_ns && unix_ns > subscription->until_unix_ns;
}

/* The next ones; *ret_over: the last of them was the last of all. */
static bool await_pass_on(struct subscription *subscription, bool *ret_over, struct error *err)
{
    CLEANUP(events_done) struct events events = {0};

    if (!await_events_read(subscription->store, subscription->after_id, &events, err))
        return false;
    if (events.first_id > subscription->after_id + 1) {
        if (!await_send_gap(subscription->call, subscription->after_id + 1, events.first_id - 1,
                            err))
            return false;
        subscription->after_id = events.first_id - 1;
    }
    for (size_t i = 0; i < events.count; i++) {
        const struct event_record *event = events.items[i];
        CLEANUP_JSON json_t *attributes = json_loads(event->attributes, 0, NULL);
        *ret_over = is_over(subscription, event->time_unix_ns);
        if (*ret_over)
            return true;
        if (event_matches(subscription->filters, subscription->filter_count, event, attributes) &&
            !await_send_event(subscription->call, event, attributes, err))
            return false;
        subscription->after_id = event->id;
    }
    return true;
}

/* Until there is more, or there will be no more: -ETIMEDOUT. */
static int await_more(const struct subscription *subscription)
{
    int64_t left_ns = subscription->until_unix_ns - wall_clock_ns();
    int r;

    if (!subscription->until_unix_ns)
        return await_event_newer(subscription->store, subscription->after_id);
    if (left_ns <= 0)
        return event_last_id(subscription->store) > subscription->after_id ? 0 : -ETIMEDOUT;
    {
        CLEANUP(deadline_pop) struct deadline deadline;
        deadline_push(&deadline, (uint64_t)left_ns / 1000000 + 1);
        r = await_event_newer(subscription->store, subscription->after_id);
    }
    return r == -ETIMEDOUT && task_check() == 0 ? 0 : r;
}

static bool handle_subscribe(struct grpc_call *call, void *context, struct error *err)
{
    const struct engines *engines = context;
    CLEANUP_MESSAGE ProtobufCMessage *message = await_grpc_request(call, err);
    const Davit__V1__SubscribeRequest *request = (const Davit__V1__SubscribeRequest *)message;
    struct subscription subscription = {.call = call, .store = engines->store};
    bool over = false;
    int r = 0;

    if (!message || !event_filters_check(request->filters, request->n_filters, err))
        return false;
    subscription.until_unix_ns = request->until_unix_ns;
    subscription.filters = request->filters;
    subscription.filter_count = request->n_filters;
    if (!await_begin(&subscription, request, err))
        return false;
    while (!over && r == 0) {
        if (event_last_id(engines->store) > subscription.after_id) {
            if (!await_pass_on(&subscription, &over, err))
                return false;
            continue;
        }
        if (is_over(&subscription, wall_clock_ns()))
            return true;
        r = await_more(&subscription);
    }
    return over || await_error(err, r, "waiting for events");
}

void handlers_events_add(struct grpc_server *server, const struct engines *engines)
{
    static const struct grpc_method methods[] = {{"Subscribe", handle_subscribe}};

    grpc_server_add(server, &davit__v1__events__descriptor, methods, ARRAY_SIZE(methods),
                    (void *)engines);
}
