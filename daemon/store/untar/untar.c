#include "daemon/store/untar/untar.h"

#include <errno.h>

#include "daemon/store/untar/internal.h"
#include "proto/base/fault.h"

static void untar_done(struct untar *untar)
{
    dirs_close(untar);
    opaque_done(untar);
    layer_reader_free(untar->reader);
}

static bool untar_entries(struct untar *untar, struct error *err)
{
    int r;

    while ((r = layer_reader_next(untar->reader, &untar->entry, err)) > 0) {
        fault_point("untar.entry");
        if (!untar_entry(untar, err))
            return false;
    }
    untar->report->entries = layer_reader_entries(untar->reader);
    return r == 0;
}

bool untar(int root_fd, const struct layer_input *input, struct layer_report *ret,
           struct error *err)
{
    CLEANUP(untar_done) struct untar untar = {.root_fd = root_fd, .report = ret};

    if (futimens(root_fd, no_times) < 0)
        return error_set_errno(err, errno, "cannot set the time of the root");
    if (!opaque_init(&untar, err) || !(untar.reader = layer_reader_new(input, err)) ||
        !untar_entries(&untar, err) || !layer_reader_drain(untar.reader, err))
        return false;
    opaque_report(&untar);
    return true;
}
