/* What davit-untar gives up before it reads the first byte. */
#pragma once

#include "proto/base/error.h"

/* Makes the directory behind dir_fd the root of this process, seen through a mount of its own
 * without devices, set-id bits and programs; leaves its namespaces (network, mounts, IPC) where the
 * kernel allows; drops every capability but those that creating files of any owner and kind takes;
 * bounds memory and descriptors; closes every descriptor but 0 to 2. Returns a descriptor of the
 * new root, or -1 with err. */
int confine(int dir_fd, struct error *err);
