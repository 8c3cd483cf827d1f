#include "client/cli.h"
#include "proto/davit/v1/images.pb-c.h"

static void response_free(Davit__V1__TagImageResponse **response)
{
    davit__v1__tag_image_response__free_unpacked(*response, NULL);
}

static bool await_tag_command(struct cli *cli, struct error *err)
{
    Davit__V1__TagImageRequest request = DAVIT__V1__TAG_IMAGE_REQUEST__INIT;
    CLEANUP(response_free) Davit__V1__TagImageResponse *response = NULL;
    request.source = cli->flags.args[0];
    request.target = cli->flags.args[1];
    return await_cli_call(cli, "/davit.v1.Images/Tag", &request.base,
                          &davit__v1__tag_image_response__descriptor,
                          (ProtobufCMessage **)&response, err) ||
           cli_reference_error(err);
}

const struct command tag_command = {
    .usage = "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    .summary = "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
    .min_args = 2,
    .max_args = 2,
    .completes = COMPLETE_IMAGES,
    .description = "The source is a name, an ID or the beginning of one. A name that another image "
                   "has moves to this one; that image stays, with its other names or none.",
    .examples = "    davit tag busybox registry.example.com:5000/tools/busybox:1.36\n"
                "    davit push registry.example.com:5000/tools/busybox:1.36",
    .await_run = await_tag_command,
};
