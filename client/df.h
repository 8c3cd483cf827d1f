/* What takes space as Docker's tables: pure functions, for `davit system df`. */
#pragma once

#include "client/ui/table.h"
#include "proto/davit/v1/system.pb-c.h"

typedef Davit__V1__DiskUsageResponse disk_usage;

/* One row for each kind of thing. */
void df_print(const disk_usage *usage, struct strbuf *out);
/* The same as one JSON object per line, with Docker's names, and the bytes as numbers. */
void df_print_json(const disk_usage *usage, struct strbuf *out);

/* Images and containers one by one; now_unix is in seconds. */
void df_print_verbose(const disk_usage *usage, int64_t now_unix, struct strbuf *out);
void df_print_verbose_json(const disk_usage *usage, struct strbuf *out);
