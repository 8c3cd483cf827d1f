/* What takes space as Docker lays it out: pure functions, for `davit system df`. */
#pragma once

#include "proto/base/error.h"
#include "proto/base/strbuf.h"
#include "proto/davit/v1/system.pb-c.h"

typedef Davit__V1__DiskUsageResponse disk_usage;

struct df_view {
    const char *format; /* of --format; NULL: tables */
    int64_t now_unix;   /* seconds; ages are counted from here */
    size_t width;       /* of the terminal that tables have to fit; 0: none */
};

/* One row for each kind of thing. INVALID_ARGUMENT for a format that is none. */
bool df_print(const disk_usage *usage, const struct df_view *view, struct strbuf *out,
              struct error *err);
/* Images and containers one by one. */
bool df_print_verbose(const disk_usage *usage, const struct df_view *view, struct strbuf *out,
                      struct error *err);
