#include "client/cli.h"
#include "proto/davit/v1/images.pb-c.h"

typedef Davit__V1__RemoveImageResponse__Removed removed;

static void response_free(Davit__V1__RemoveImageResponse **response)
{
    davit__v1__remove_image_response__free_unpacked(*response, NULL);
}

static bool await_remove(struct cli *cli, const char *image, struct error *err)
{
    Davit__V1__RemoveImageRequest request = DAVIT__V1__REMOVE_IMAGE_REQUEST__INIT;
    CLEANUP(response_free) Davit__V1__RemoveImageResponse *response = NULL;
    CLEANUP_STRBUF struct strbuf text = {0};
    request.reference = (char *)image;
    request.force = flag_bool(&cli->flags, "force");
    request.no_prune = flag_bool(&cli->flags, "no-prune");
    if (!await_cli_call(cli, "/davit.v1.Images/Remove", &request.base,
                        &davit__v1__remove_image_response__descriptor,
                        (ProtobufCMessage **)&response, err))
        return false;
    for (size_t i = 0; i < response->n_removed; i++) {
        const removed *one = response->removed[i];
        if (one->what_case == DAVIT__V1__REMOVE_IMAGE_RESPONSE__REMOVED__WHAT_UNTAGGED)
            strbuf_addf(&text, "Untagged: %s\n", one->untagged);
        else if (one->what_case == DAVIT__V1__REMOVE_IMAGE_RESPONSE__REMOVED__WHAT_DELETED)
            strbuf_addf(&text, "Deleted: %s\n", one->deleted);
    }
    return await_cli_print(cli, text.data, text.length, err);
}

static void failures_done(struct error **failures)
{
    for (struct error *one = *failures; one && error_is_set(one); one++)
        error_done(one);
    free(*failures);
}

/* As Docker: one that fails does not keep the others, what failed is said last, and with --force it
 * is no failure that an image is not there. */
static bool await_rmi(struct cli *cli, struct error *err)
{
    const size_t count = cli->flags.arg_count;
    CLEANUP(failures_done) struct error *failures = xcalloc(count + 1, sizeof(*failures));
    struct error *failure = failures;
    for (size_t i = 0; i < count; i++) {
        if (await_remove(cli, cli->flags.args[i], failure))
            continue;
        if (failure->code == ERROR_CANCELLED || failure->code == ERROR_UNAVAILABLE) {
            error_move(err, failure); /* no use to go on */
            break;
        }
        if (!flag_bool(&cli->flags, "force") || failure->code != ERROR_NOT_FOUND)
            cli->exit_code = EXIT_FAILURE;
        failure++;
    }
    for (failure = failures; error_is_set(failure); failure++)
        cli_print_failure(cli, failure);
    return !error_is_set(err);
}

static const struct flag flags[] = {
    {.name = "force", .shorthand = 'f', .type = FLAG_BOOL, .help = "Force removal of the image"},
    {.name = "no-prune", .type = FLAG_BOOL, .help = "Do not delete untagged parents"},
    {.name = "platform", .type = FLAG_LIST, .unsupported = true},
};

const struct command rmi_command = {
    .usage = "[OPTIONS] IMAGE [IMAGE...]",
    .summary = "Remove one or more images",
    .flags = flags,
    .flag_count = ARRAY_SIZE(flags),
    .min_args = 1,
    .max_args = ANY_NUMBER,
    .completes = COMPLETE_IMAGES,
    .description =
        "Of an image with several names, a name removes only itself: the image goes with its "
        "last one, and with it the parents that have no name and no other child. An ID removes "
        "the image; if it has several names, only with --force.\n\n"
        "An image that a running container has is never removed, one that only containers have "
        "which have ended with --force.",
    .examples = "    davit rmi busybox:1.36\n\n"
                "All dangling images, also as davit image prune does:\n\n"
                "    davit rmi $(davit images -q -f dangling=true)",
    .await_run = await_rmi,
};
