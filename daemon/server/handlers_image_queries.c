/* Images.List, Inspect and History: what is known of images. */
#include <inttypes.h>
#include <stdio.h>

#include "daemon/image/filter.h"
#include "daemon/image/history.h"
#include "daemon/image/inspect.h"
#include "daemon/server/handlers.h"

/* --- List ------------------------------------------------------------------------------------- */

/* Takes the names over: familiar ones. */
static void set_names(Davit__V1__Image *message, char **tags, char **digests)
{
    message->repo_tags = tags;
    message->n_repo_tags = strv_count(tags);
    message->repo_digests = digests;
    message->n_repo_digests = strv_count(digests);
}

static Davit__V1__Image *message_without_names(const struct store *store, const struct image *image)
{
    Davit__V1__Image *message = xcalloc(1, sizeof(*message));

    davit__v1__image__init(message);
    message->id = xstrdup(image->id.text);
    message->created_unix_ns = image->created_unix_ns;
    message->size_bytes = image->size_bytes;
    message->os = xstrdup(image->os);
    message->architecture = xstrdup(image->architecture);
    message->variant = xstrdup(image->variant ? image->variant : "");
    message->parent_id = xstrdup(image->parent.text);
    message->labels = xstrdup("");
    message->containers = image_containers(store, &image->id);
    return message;
}

static void image_message_cleanup(Davit__V1__Image **message)
{
    davit__v1__image__free_unpacked(*message, NULL);
}

Davit__V1__Image *image_message(const struct store *store, const struct image *image)
{
    Davit__V1__Image *message = message_without_names(store, image);

    set_names(message, image_familiar_names(image->tags),
              image_familiar_names(image->repo_digests));
    return message;
}

/* Of canonical names the familiar ones of those that were asked for; the caller frees them with
 * strv_free, also after a failure. */
static bool await_names_asked_for(const struct image_filter *filter, char *const *canonical,
                                  char ***ret, struct error *err)
{
    char **names = *ret = xcalloc(strv_count(canonical) + 1, sizeof(*names));

    for (size_t count = 0; canonical && *canonical; canonical++) {
        int r = await_slice();
        if (r < 0)
            return await_error(err, r, "listing images");
        if (image_filter_match_name(filter, *canonical))
            names[count++] = image_familiar(*canonical);
    }
    return true;
}

/* Docker's rules. */
static bool is_listed(const struct image *image, const struct image_filter *filter, bool all)
{
    bool named = image->tag_count > 0 || image->repo_digest_count > 0;

    if (filter->dangling == DANGLING_YES && !image_is_dangling(image))
        return false;
    if ((!all && image_is_intermediate(image)) || (!named && filter->dangling == DANGLING_NO))
        return false;
    return image_filter_match(filter, image);
}

/* A name given to `images` is one more pattern. */
static bool parse_filters(const struct store *store, const Davit__V1__ListImagesRequest *request,
                          struct image_filter *ret, struct error *err)
{
    CLEANUP(strv_cleanup) char **filters = NULL;

    for (size_t i = 0; i < request->n_filters; i++)
        strv_add(&filters, request->filters[i]);
    if (!str_empty(request->reference)) {
        CLEANUP_FREE char *filter = xasprintf("reference=%s", request->reference);
        strv_add(&filters, filter);
    }
    return image_filter_parse(store, IMAGE_FILTER_LIST, filters, strv_count(filters), ret, err);
}

/* Pages: what is sent at once (packing it holds up the loop), and where the next one begins, as
 * text. With an image of 10,000 of the longest names and 64 KiB of labels on top of it, a page is
 * still smaller than GRPC_MAX_MESSAGE. */
#define PAGE_BYTES (200 * KIB)

static char *page_token(const struct image_place *place)
{
    return xasprintf("%" PRId64 ":%s", place->created_unix_ns, place->id.text);
}

static bool parse_page_token(const char *token, struct image_place *ret, struct error *err)
{
    char *end;

    *ret = IMAGE_PLACE_FIRST;
    if (str_empty(token))
        return true;
    ret->created_unix_ns = strtoll(token, &end, 10);
    if (*end == ':' && digest_parse(end + 1, &ret->id, NULL))
        return true;
    return error_set(err, ERROR_INVALID_ARGUMENT, "INVALID_PAGE_TOKEN",
                     "this page token is none that a list of images has");
}

struct listing {
    const struct store *store;
    const struct image_filter *filter;
    bool all, labels;
    struct image_place place;
    Davit__V1__ListImagesResponse *response;
    size_t room, bytes;
};

static void add_message(struct listing *listing, Davit__V1__Image *message)
{
    Davit__V1__ListImagesResponse *response = listing->response;

    if (response->n_images == listing->room) {
        listing->room = MAX(listing->room * 2, 64);
        response->images = xrealloc(response->images, listing->room * sizeof(*response->images));
    }
    response->images[response->n_images++] = message;
    listing->bytes += davit__v1__image__get_packed_size(message);
}

/* Of its names only those are told that were asked for. It may go meanwhile. */
static bool await_add_listed(struct listing *listing, const struct image *image, struct error *err)
{
    CLEANUP(image_message_cleanup) Davit__V1__Image *message = NULL;
    CLEANUP(strv_cleanup) char **canonical_tags = NULL, **canonical_digests = NULL;
    CLEANUP(strv_cleanup) char **tags = NULL, **digests = NULL;

    if (!is_listed(image, listing->filter, listing->all))
        return true;
    message = message_without_names(listing->store, image);
    if (listing->labels && image->labels) {
        free(message->labels);
        message->labels = xstrdup(image->labels);
    }
    canonical_tags = strv_dup(image->tags);
    canonical_digests = strv_dup(image->repo_digests);
    if (!await_names_asked_for(listing->filter, canonical_tags, &tags, err) ||
        !await_names_asked_for(listing->filter, canonical_digests, &digests, err))
        return false;
    if (listing->filter->references && !*tags && !*digests)
        return true;
    set_names(message, TAKE(tags), TAKE(digests));
    add_message(listing, TAKE(message));
    return true;
}

/* Fills one page; images come and go meanwhile. */
static bool await_list(struct listing *listing, struct error *err)
{
    const struct image *image;

    while ((image = image_next(listing->store, &listing->place))) {
        int r;
        if (listing->bytes >= PAGE_BYTES) {
            free(listing->response->next_page_token);
            listing->response->next_page_token = page_token(&listing->place);
            return true;
        }
        listing->place = (struct image_place){image->created_unix_ns, image->id};
        if (!await_add_listed(listing, image, err))
            return false;
        r = await_slice();
        if (r < 0)
            return await_error(err, r, "listing images");
    }
    return true;
}

bool handle_list_images(struct grpc_call *call, void *context, struct error *err)
{
    const struct engines *engines = context;
    CLEANUP_MESSAGE ProtobufCMessage *message = await_grpc_request(call, err);
    const Davit__V1__ListImagesRequest *request = (const Davit__V1__ListImagesRequest *)message;
    CLEANUP_IMAGE_FILTER struct image_filter filter = {0};
    struct listing listing = {.store = engines->store, .filter = &filter};
    bool ok;

    if (!message || !parse_filters(engines->store, request, &filter, err) ||
        !parse_page_token(request->page_token, &listing.place, err))
        return false;
    listing.all = request->all;
    listing.labels = request->labels;
    listing.response = xcalloc(1, sizeof(*listing.response));
    davit__v1__list_images_response__init(listing.response);
    listing.response->next_page_token = xstrdup("");
    ok = await_list(&listing, err) && await_grpc_send(call, &listing.response->base, err);
    davit__v1__list_images_response__free_unpacked(listing.response, NULL);
    return ok;
}

/* --- Inspect ---------------------------------------------------------------------------------- */

bool handle_inspect_image(struct grpc_call *call, void *context, struct error *err)
{
    const struct engines *engines = context;
    CLEANUP_MESSAGE ProtobufCMessage *message = await_grpc_request(call, err);
    const Davit__V1__InspectImageRequest *request = (const Davit__V1__InspectImageRequest *)message;
    Davit__V1__InspectImageResponse response = DAVIT__V1__INSPECT_IMAGE_RESPONSE__INIT;
    CLEANUP_FREE char *json = NULL;

    if (!message || !await_image_inspect(engines->store, request->reference, request->platform,
                                         &json, &response.document.len, err))
        return false;
    response.document.data = (uint8_t *)json;
    return await_grpc_send(call, &response.base, err);
}

/* --- History ---------------------------------------------------------------------------------- */

bool handle_image_history(struct grpc_call *call, void *context, struct error *err)
{
    const struct engines *engines = context;
    CLEANUP_MESSAGE ProtobufCMessage *message = await_grpc_request(call, err);
    const Davit__V1__ImageHistoryRequest *request = (const Davit__V1__ImageHistoryRequest *)message;
    Davit__V1__ImageHistoryResponse response = DAVIT__V1__IMAGE_HISTORY_RESPONSE__INIT;
    CLEANUP(image_history_done) struct image_history history = {0};
    CLEANUP_FREE Davit__V1__ImageHistoryResponse__Step *items = NULL;
    CLEANUP_FREE Davit__V1__ImageHistoryResponse__Step **list = NULL;

    if (!message ||
        !await_image_history(engines->store, request->reference, request->platform, &history, err))
        return false;
    items = xcalloc(history.count + 1, sizeof(*items));
    list = xcalloc(history.count + 1, sizeof(*list));
    for (size_t i = 0; i < history.count; i++) {
        const struct image_step *step = &history.steps[i];
        davit__v1__image_history_response__step__init(&items[i]);
        items[i].id = (char *)step->id.text;
        items[i].created_unix_ns = step->created_unix_ns;
        items[i].created_by = step->created_by;
        items[i].comment = step->comment;
        items[i].size_bytes = step->size_bytes;
        items[i].tags = step->tags;
        items[i].n_tags = strv_count(step->tags);
        list[i] = &items[i];
    }
    response.steps = list;
    response.n_steps = history.count;
    return await_grpc_send(call, &response.base, err);
}
