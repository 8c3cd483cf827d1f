/* grpc.reflection.v1 and v1alpha.ServerReflection, out of the descriptor sets that protoc made.
 * Nothing is indexed: files are few, and who asks is a person. */
#include "proto/grpc/internal.h"
#include "proto/grpc/reflection/v1/reflection.pb-c.h"
#include "proto/grpc/wire.pb-c.h"

extern const unsigned char grpc_descriptors[], grpc_descriptors_end[];

typedef Grpc__Reflection__V1__ServerReflectionRequest Request;
typedef Grpc__Reflection__V1__ServerReflectionResponse Response;

static void request_cleanup(Request **request)
{
    grpc__reflection__v1__server_reflection_request__free_unpacked(*request, NULL);
}

static void file_set_cleanup(Grpc__Wire__FileSet **set)
{
    grpc__wire__file_set__free_unpacked(*set, NULL);
}

/* --- Does a file define a name? --------------------------------------------------------------- */

/* What is left of a full name below a scope: "b.C" of "a.b.C" in "a"; NULL if it is elsewhere. An
 * empty scope contains everything. */
static const char *below(const char *symbol, const char *scope)
{
    size_t length = strlen(scope);

    if (!length)
        return symbol;
    return str_starts(symbol, scope) && symbol[length] == '.' ? symbol + length + 1 : NULL;
}

static bool has_member(Grpc__Wire__Member *const *members, size_t count, const char *symbol)
{
    for (size_t i = 0; i < count; i++) {
        if (str_eq(members[i]->name, symbol))
            return true;
    }
    return false;
}

static bool enum_defines(const Grpc__Wire__Enum *type, const char *symbol)
{
    /* Values stand beside their enum, not below it. */
    return str_eq(type->name, symbol) || has_member(type->value, type->n_value, symbol);
}

static bool message_defines(const Grpc__Wire__Message *type, const char *symbol)
{
    const char *rest = below(symbol, type->name);

    if (str_eq(type->name, symbol))
        return true;
    if (!rest)
        return false;
    for (size_t i = 0; i < type->n_nested_type; i++) {
        if (message_defines(type->nested_type[i], rest))
            return true;
    }
    for (size_t i = 0; i < type->n_enum_type; i++) {
        if (enum_defines(type->enum_type[i], rest))
            return true;
    }
    return has_member(type->field, type->n_field, rest);
}

static bool service_defines(const Grpc__Wire__Service *service, const char *symbol)
{
    const char *rest = below(symbol, service->name);

    return str_eq(service->name, symbol) ||
           (rest && has_member(service->method, service->n_method, rest));
}

static bool file_defines(const Grpc__Wire__File *file, const char *symbol)
{
    const char *rest = below(symbol, file->package);

    if (!rest)
        return false;
    for (size_t i = 0; i < file->n_service; i++) {
        if (service_defines(file->service[i], rest))
            return true;
    }
    for (size_t i = 0; i < file->n_message_type; i++) {
        if (message_defines(file->message_type[i], rest))
            return true;
    }
    for (size_t i = 0; i < file->n_enum_type; i++) {
        if (enum_defines(file->enum_type[i], rest))
            return true;
    }
    return has_member(file->extension, file->n_extension, rest);
}

static bool file_matches(ProtobufCBinaryData bytes, const char *name, const char *symbol)
{
    Grpc__Wire__File *file = grpc__wire__file__unpack(NULL, bytes.len, bytes.data);
    bool matches =
        file && ((name && str_eq(file->name, name)) || (symbol && file_defines(file, symbol)));

    if (file)
        grpc__wire__file__free_unpacked(file, NULL);
    return matches;
}

/* --- Answers ---------------------------------------------------------------------------------- */

struct answer {
    struct grpc_call *call;
    const struct grpc_server *server;
    Request *request;
};

static bool await_answer(struct answer *answer, Response *response, struct error *err)
{
    response->valid_host = answer->request->host;
    response->original_request = answer->request;
    return await_grpc_send(answer->call, &response->base, err);
}

static bool await_answer_error(struct answer *answer, enum error_code code, const char *message,
                               struct error *err)
{
    Grpc__Reflection__V1__ErrorResponse error = GRPC__REFLECTION__V1__ERROR_RESPONSE__INIT;
    Response response = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;

    error.error_code = (int32_t)code;
    error.error_message = (char *)message;
    response.message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ERROR_RESPONSE;
    response.error_response = &error;
    return await_answer(answer, &response, err);
}

/* Looks in one set: 1 if it was found and sent, 0 if it is not there, -1. */
static int await_answer_from(struct answer *answer, const void *data, size_t size, const char *name,
                             const char *symbol, struct error *err)
{
    CLEANUP(file_set_cleanup)
    Grpc__Wire__FileSet *set = grpc__wire__file_set__unpack(NULL, size, data);
    Grpc__Reflection__V1__FileDescriptorResponse file =
        GRPC__REFLECTION__V1__FILE_DESCRIPTOR_RESPONSE__INIT;
    Response response = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;

    CHECK(set);
    for (size_t i = 0; i < set->n_file; i++) {
        if (!file_matches(set->file[i], name, symbol))
            continue;
        file.n_file_descriptor_proto = 1;
        file.file_descriptor_proto = &set->file[i];
        response.message_response_case =
            GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_FILE_DESCRIPTOR_RESPONSE;
        response.file_descriptor_response = &file;
        return await_answer(answer, &response, err) ? 1 : -1;
    }
    return 0;
}

/* By file name or by symbol; the other is NULL. */
static bool await_answer_file(struct answer *answer, const char *name, const char *symbol,
                              struct error *err)
{
    const struct grpc_server *server = answer->server;
    int r = await_answer_from(answer, grpc_descriptors,
                              (size_t)(grpc_descriptors_end - grpc_descriptors), name, symbol, err);

    if (r == 0 && server->descriptors)
        r = await_answer_from(answer, server->descriptors, server->descriptors_size, name, symbol,
                              err);
    if (r != 0)
        return r > 0;
    return await_answer_error(answer, ERROR_NOT_FOUND, name ? "no such file" : "no such symbol",
                              err);
}

#define MAX_SERVICES 64

static bool await_answer_services(struct answer *answer, struct error *err)
{
    Grpc__Reflection__V1__ServiceResponse services[MAX_SERVICES], *pointers[MAX_SERVICES];
    Grpc__Reflection__V1__ListServiceResponse list =
        GRPC__REFLECTION__V1__LIST_SERVICE_RESPONSE__INIT;
    Response response = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;

    list.service = pointers;
    for (const struct service_entry *entry = answer->server->services; entry; entry = entry->next) {
        CHECK(list.n_service < MAX_SERVICES);
        grpc__reflection__v1__service_response__init(&services[list.n_service]);
        services[list.n_service].name = (char *)entry->descriptor->name;
        pointers[list.n_service] = &services[list.n_service];
        list.n_service++;
    }
    response.message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_LIST_SERVICES_RESPONSE;
    response.list_services_response = &list;
    return await_answer(answer, &response, err);
}

static bool await_answer_one(struct answer *answer, struct error *err)
{
    const Request *request = answer->request;

#define CASE(name) GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_##name
    switch (request->message_request_case) {
    case CASE(FILE_BY_FILENAME):
        return await_answer_file(answer, request->file_by_filename, NULL, err);
    case CASE(FILE_CONTAINING_SYMBOL):
        return await_answer_file(answer, NULL, request->file_containing_symbol, err);
    case CASE(LIST_SERVICES):
        return await_answer_services(answer, err);
    case CASE(FILE_CONTAINING_EXTENSION):
    case CASE(ALL_EXTENSION_NUMBERS_OF_TYPE):
        return await_answer_error(answer, ERROR_NOT_FOUND, "there are no extensions", err);
    default:
        return await_answer_error(answer, ERROR_INVALID_ARGUMENT, "unknown request", err);
    }
#undef CASE
}

static bool reflect(struct grpc_call *call, void *context, struct error *err)
{
    for (;;) {
        CLEANUP(request_cleanup) Request *request = NULL;
        int r = await_grpc_recv(call, (ProtobufCMessage **)&request, err);
        if (r <= 0)
            return r == 0;
        struct answer answer = {.call = call, .server = context, .request = request};
        if (!await_answer_one(&answer, err))
            return false;
    }
}

void server_add_reflection(struct grpc_server *server)
{
    static const struct grpc_method methods[] = {{"ServerReflectionInfo", reflect}};
    static ProtobufCServiceDescriptor v1alpha; /* the same messages under an older name */

    v1alpha = grpc__reflection__v1__server_reflection__descriptor;
    v1alpha.name = "grpc.reflection.v1alpha.ServerReflection";
    grpc_server_add(server, &grpc__reflection__v1__server_reflection__descriptor, methods,
                    ARRAY_SIZE(methods), server);
    grpc_server_add(server, &v1alpha, methods, ARRAY_SIZE(methods), server);
}
