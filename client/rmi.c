#include "client/cli.h"
#include "proto/davit/v1/images.pb-c.h"

typedef Davit__V1__RemoveImageResponse__Removed removed;

static void response_free(Davit__V1__RemoveImageResponse **response)
{
    davit__v1__remove_image_response__free_unpacked(*response, NULL);
}

static bool await_remove(struct cli *cli, const char *image, bool force, struct error *err)
{
    Davit__V1__RemoveImageRequest request = DAVIT__V1__REMOVE_IMAGE_REQUEST__INIT;
    CLEANUP(response_free) Davit__V1__RemoveImageResponse *response = NULL;
    CLEANUP_STRBUF struct strbuf text = {0};
    request.reference = (char *)image;
    request.force = force;
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

/* As Docker: one that fails does not keep the others, and with --force an image that is not there
 * is no failure. */
static bool await_rmi(struct cli *cli, struct error *err)
{
    const bool force = flag_bool(&cli->flags, "force");
    for (size_t i = 0; i < cli->flags.arg_count; i++) {
        CLEANUP_ERROR struct error one = {0};
        if (await_remove(cli, cli->flags.args[i], force, &one))
            continue;
        if (one.code == ERROR_CANCELLED || one.code == ERROR_UNAVAILABLE)
            return error_move(err, &one); /* no use to go on */
        if (!force || one.code != ERROR_NOT_FOUND)
            cli->exit_code = EXIT_FAILURE;
        cli_print_failure(cli, &one);
    }
    return true;
}

static const struct flag flags[] = {
    {.name = "force", .shorthand = 'f', .type = FLAG_BOOL, .help = "Force removal of the image"},
};

const struct command rmi_command = {
    .usage = "[OPTIONS] IMAGE [IMAGE...]",
    .summary = "Remove one or more images",
    .flags = flags,
    .flag_count = ARRAY_SIZE(flags),
    .min_args = 1,
    .max_args = ANY_NUMBER,
    .completes = COMPLETE_IMAGES,
    .await_run = await_rmi,
};
