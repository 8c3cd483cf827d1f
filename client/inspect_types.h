/* What Docker's command line knows of the documents that `inspect` shows: the Go structs of the
 * Engine's API 1.51 (github.com/moby/moby/api/types). Templates see their fields. */
#pragma once

#include "client/ui/template.h"

extern const struct template_type image_inspect_type;
