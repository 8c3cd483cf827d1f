/* The public API's description: a serialised google.protobuf.FileDescriptorSet of the *.proto files
 * beside this one. For reflection: grpc_server_set_descriptors(). Static. */
#pragma once

#include <stddef.h>

extern const unsigned char davit_v1_descriptors[], davit_v1_descriptors_end[];
#define DAVIT_V1_DESCRIPTORS_SIZE ((size_t)(davit_v1_descriptors_end - davit_v1_descriptors))
