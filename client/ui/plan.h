/* What `davit pull --plan` shows. Pure functions: message in, text out. */
#pragma once

#include "proto/base/strbuf.h"
#include "proto/davit/v1/images.pb-c.h"

/* A table of the layers, then from where, how much, and the disk it takes. */
void plan_print(const Davit__V1__PullPlan *plan, struct strbuf *out);

/* One line of JSON, with the messages' names. */
void plan_print_json(const Davit__V1__PullPlan *plan, struct strbuf *out);
